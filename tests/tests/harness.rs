//! The harness by itself: a machine without motherd. Where this fails, nothing that `boot.rs` says counts.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::fetch::Kernel;
use e2e::initramfs::Image;
use e2e::machine::run_on;
use e2e::say;

#[test]
fn a_machine_without_motherd_answers_commands_and_powers_off() -> Result<()> {
    let image = Image::base()?.write("without-motherd")?;
    for kernel in Kernel::ALL {
        run_on(kernel, &image, |machine| {
            let release = machine.ok("uname -r")?;
            ensure!(release.starts_with(&format!("{}.", kernel.version())), "{release}");
            ensure!(machine.run("exit 7")?.status == 7);
            ensure!(machine.run("echo out; echo err >&2; printf x")?.output == "out\nerr\nx");
            ensure!(machine.ok("seq 20000")?.lines().count() == 20_000, "long output is whole");
            say(&format!(
                "Linux {}: the first answers come {:?} after QEMU's start",
                release.trim(),
                machine.age()
            ));
            machine.begin("poweroff -f")?;
            machine.ended(Duration::from_secs(10))?;
            machine.console_shows("reboot: Power down", Duration::from_secs(1))
        })?;
    }
    Ok(())
}
