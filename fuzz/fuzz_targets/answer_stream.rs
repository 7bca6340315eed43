#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scribe_client::fuzzing::answer_stream(data));
