//! The service manager.
fn main() {}
