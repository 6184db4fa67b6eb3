//! The one-shot work of a boot.
fn main() -> std::process::ExitCode {
    motherd::early::main()
}
