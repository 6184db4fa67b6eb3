//! A few hundred launches leave nothing in the kernel: the short form of `soak_launch`.

use std::process::Command;

use anyhow::{Result, ensure};
use e2e::scratch::skip;

#[test]
fn some_hundred_launches_leave_nothing_behind() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return skip("some_hundred_launches_leave_nothing_behind", "it needs root");
    }
    // A process of its own, since it moves into a mount namespace of its own.
    let output = Command::new(env!("CARGO_BIN_EXE_soak_launch")).arg("500").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    e2e::say(&said);
    Ok(())
}
