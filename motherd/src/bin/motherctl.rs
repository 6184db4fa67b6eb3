//! The operator's tool.
fn main() -> std::process::ExitCode {
    motherd::ctl::main()
}
