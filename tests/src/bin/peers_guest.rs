//! PID 1 of a guest of `peers_boot`, and the controller there.

fn main() -> anyhow::Result<()> {
    e2e::peers::guest::main()
}
