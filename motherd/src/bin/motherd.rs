//! The service manager.
fn main() -> std::process::ExitCode {
    motherd::daemon::main()
}
