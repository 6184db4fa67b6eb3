//! Boots.
fn main() {}
