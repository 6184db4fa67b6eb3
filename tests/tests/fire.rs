//! PID 1 of a machine under fire, on both kernels: `bin/fire.rs` in a guest, and the signals that end it. What needs no
//! machine is in `initldr/fire.rs`. `FIRE_ORPHANS=20000` is how many orphans there are, in the place of 200.

use std::env;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::initramfs::{Image, SharedImage};
use e2e::machine::Machine;
use e2e::programs::Programs;
use e2e::system::both_serve;
use e2e::{on_both_kernels, say};

/// The system, with something else to do than to end at Ctrl-Alt-Del and at a failure of the power.
static IMAGE: SharedImage = SharedImage::new("fire", || {
    let mut image = Image::system()?;
    image.program(&Programs::built()?.fire, "/usr/bin/fire")?;
    for name in ["ctrl-alt-del", "powerfail", "kbrequest"] {
        let text = format!(
            "exec = [\"/bin/touch\", \"/run/{name}\"]\npolicy = \"unconfined\"\n[start]\ntype = \"oneshot\"\nremain = false\n"
        );
        image.file(&format!("/etc/motherd/services/{name}.toml"), 0o644, text)?;
    }
    Ok(image)
});

on_both_kernels! {
    IMAGE:
    pid_1_bears_everything_and_ends_by_a_signal
}

fn pid_1_bears_everything_and_ends_by_a_signal(machine: &mut Machine) -> Result<()> {
    let services = both_serve(machine)?;
    // Long work in a guest: its output is a file, and what is waited for its last line.
    let orphans = env::var("FIRE_ORPHANS").unwrap_or("200".to_owned());
    machine.ok(&format!("{{ fire {orphans}; echo fire $?; }} >/run/fire.log 2>&1 &"))?;
    let log = machine.eventually("the fire is over", Duration::from_secs(900), |machine| {
        let log = machine.run("cat /run/fire.log")?.output;
        Ok(log.lines().any(|line| line.starts_with("fire ")).then_some(log))
    })?;
    ensure!(log.contains("fire 0"), "{log}\n{}", machine.console());
    for line in log.lines() {
        say(&format!("Linux {}: {line}", machine.kernel().version()));
    }
    ensure!(both_serve(machine)? == services, "services noticed");
    let console = machine.console();
    for text in ["SIGTERM to initldr, sent by uid 0", "it means nothing", "  redis: running as "] {
        ensure!(console.contains(text), "{text:?} is not on the console:\n{console}");
    }
    // More lines at once than the kernel takes of anybody else.
    for number in 52..=64 {
        ensure!(
            console.contains(&format!("initldr: signal {number} from ")),
            "no signal {number}:\n{console}"
        );
    }
    ensure!(machine.run("ls /run/kbrequest")?.status == 0, "SIGWINCH is the keyboard request");
    machine.begin("kill -39 1")?; // SIGRTMIN+5, a reboot
    ensure!(machine.ended(Duration::from_secs(60))?.success());
    ensure!(machine.console().contains("reboot: Restarting system"), "{}", machine.console());
    Ok(())
}
