//! The `scribe` program: see [`scribe::cli`].

fn main() -> std::process::ExitCode {
    scribe::cli::main(std::env::args_os())
}
