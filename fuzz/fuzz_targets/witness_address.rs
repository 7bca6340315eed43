#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| scribe_client::fuzzing::witness_address(data));
