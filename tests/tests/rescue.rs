//! A machine whose motherd does not run: why is on the console, and whoever stands before it has a shell.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::fetch::Kernel;
use e2e::initramfs::{Image, SharedImage};
use e2e::machine::{Machine, Setup, run_with};

/// Here there is sulogin, and root has a password.
static CRASHES: SharedImage = SharedImage::new("crashes", || {
    let mut image = with_motherd(0o755)?;
    image.sulogin()?;
    let rescue = e2e::workspace().join("motherd/services/rescue");
    image.file("/usr/lib/motherd/rescue", 0o755, std::fs::read(rescue)?)?;
    Ok(image)
});
/// A motherd that nobody may execute, and nothing to rescue it.
static CANNOT_RUN: SharedImage = SharedImage::new("cannot-run", || with_motherd(0o644));

fn with_motherd(mode: u32) -> Result<Image> {
    let mut image = Image::system()?;
    image.file("/usr/sbin/motherd", mode, "#!/bin/sh\nexit 3\n")?;
    Ok(image)
}

/// sulogin(8) does.
const ASKS: &str = "Give root password for maintenance";
const BOOT: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(120);

fn a_shell_that_ends_the_machine(machine: &mut Machine, reason: &str, prompt: &str) -> Result<()> {
    machine.console_shows(reason, BOOT)?;
    machine.console_shows("motherd keeps dying: /usr/lib/motherd/rescue runs on the console", SOON)?;
    machine.console_shows(prompt, SOON)?;
    if prompt == ASKS {
        machine.pass_sulogin()?;
    }
    // As its terminal: with job control, and what is typed arrives.
    machine.type_to_console(b"echo $((40 + 2))-it-is; cat /proc/1/comm; motherctl reboot --force\r")?;
    machine.console_shows("42-it-is", SOON)?;
    ensure!(machine.ended(SOON)?.success());
    let console = machine.console();
    ensure!(console.contains("reboot: Restarting system"), "{console}");
    Ok(())
}

fn on(kernel: Kernel, image: &'static SharedImage, reason: &str, prompt: &str) -> Result<()> {
    let setup = || Ok(Setup { words: "loglevel=7".to_owned(), ..Setup::default() });
    run_with(kernel, image.path()?, &setup, |machine| a_shell_that_ends_the_machine(machine, reason, prompt))
}

#[test]
fn a_motherd_that_crashes_at_once_leads_to_a_shell_for_who_knows_the_password() -> Result<()> {
    on(Kernel::V6_1, &CRASHES, "ended: exit code 3", ASKS)
}

#[test]
fn a_motherd_that_cannot_be_executed_leads_to_a_shell_even_without_a_rescue() -> Result<()> {
    on(Kernel::V6_12, &CANNOT_RUN, "start /usr/sbin/motherd: ", "start /usr/lib/motherd/rescue: ENOENT")
}
