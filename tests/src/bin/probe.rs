//! Attempts one act and says what came of it.
fn main() {}
