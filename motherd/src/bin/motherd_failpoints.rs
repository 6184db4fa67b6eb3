//! motherd with points at which a test ends it: see `failpoint.rs` of the library.

fn main() -> std::process::ExitCode {
    motherd::daemon::main()
}
