//! The soak inside of a guest: an image with the load, and `soak_kill --guest` in it, where initldr is PID 1.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{
    load::{Load, Place, Scale},
    modes::FULL_LOG,
    run::{POINTS, points},
};
use crate::{
    fetch::Kernel,
    initramfs::Image,
    machine::{Machine, Setup, run_with},
    programs::SoakPrograms,
};

/// How many there are where nothing else is said: an emulated processor is slow.
pub const SERVICES: usize = 60;
/// What one run of the modes may take there.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

/// The system of the other tests, with this load in the place of its daemons' services.
pub fn image(services: usize) -> Result<Image> {
    let programs = SoakPrograms::built()?;
    let load = Load::new(Place::guest(), Scale { services, port: 47_100, loud: false });
    let mut image = Image::system()?;
    image.program(&programs.motherd, "/usr/sbin/motherd")?;
    image.file("/usr/sbin/motherd.prev", 0o755, fs::read(&programs.motherd)?)?;
    image.program(&programs.service, "/usr/lib/e2e/soak_service")?;
    image.program(&programs.soak, "/usr/lib/e2e/soak_kill")?;
    for (name, text) in load.policies() {
        image.file(&format!("/usr/lib/motherd/policies/{name}.toml"), 0o644, text)?;
    }
    for (name, text) in load.files("soak") {
        image.file(&format!("/usr/lib/motherd/services/{name}.toml"), 0o644, text)?;
    }
    let mount = format!(
        "mkdir -p /var/log/motherd/{FULL_LOG} && mount -t tmpfs -o size=80M,nr_inodes=200 tmpfs /var/log/motherd/{FULL_LOG} && \
         mount -o remount,size=8M,nr_inodes=4000 /run && chmod 777 /var/soak"
    );
    let small = format!(
        "description = \"small file systems\"\nexec = [\"/bin/sh\", \"-c\", \"{mount}\"]\npolicy = \"unconfined\"\n\
         [start]\ntype = \"oneshot\"\n"
    );
    image.file("/usr/lib/motherd/services/small.toml", 0o644, small)?;
    image.file(
        "/usr/lib/motherd/services/system.toml",
        0o644,
        "[dependencies]\nwants = [\"console\", \"commands\", \"soak\"]\n",
    )?;
    for (path, text) in load.configuration() {
        image.file(&path.display().to_string(), 0o644, text)?;
    }
    image.file(POINTS, 0o644, points()?.join("\n"))?;
    Ok(image)
}

/// Boots it on these kernels and runs these modes (none: all) in it.
pub fn run(kernels: &str, modes: &[&str], times: Option<usize>, services: usize) -> Result<()> {
    let kernels: Vec<Kernel> =
        Kernel::ALL.into_iter().filter(|kernel| kernels == "all" || kernel.version() == kernels).collect();
    ensure!(!kernels.is_empty(), "no kernel is named so: 6.1, 6.12, all");
    let image = image(services)?.write("soak")?;
    for kernel in kernels {
        println!("\n==== Linux {}", kernel.version());
        // The logs of an hour are in memory, as everything there is: what is full takes half a line of a ledger.
        let setup = || Ok(Setup { memory: Some(3072), ..Setup::default() });
        run_with(kernel, &image, &setup, |machine| {
            machine.ready()?;
            modes_in(machine, modes, times, services)
        })?;
    }
    Ok(())
}

/// Runs `soak_kill --guest` and shows what it says.
pub fn modes_in(machine: &mut Machine, modes: &[&str], times: Option<usize>, services: usize) -> Result<()> {
    let mut words = format!("--services {services}");
    if !modes.is_empty() {
        words.push_str(&format!(" --only {}", modes.join(",")));
    }
    if let Some(times) = times {
        words.push_str(&format!(" --times {times}"));
    }
    machine.ok(&format!(
        "(/usr/lib/e2e/soak_kill --guest {words} >/tmp/soak.out 2>&1; echo $? >/tmp/soak.status) >/dev/null 2>&1 &"
    ))?;
    let mut shown = 0;
    let status = machine.eventually("the soak ends", LIMIT, |machine| {
        // It is not asked more often than there is something to say.
        let asked = machine.run(&format!("sleep 2; tail -c +{} /tmp/soak.out", shown + 1))?;
        if asked.status != 0 {
            // Where pids are few there is none for the one who asks, at times.
            return Ok(None);
        }
        let said = asked.output;
        shown += said.len();
        print!("{said}");
        let status = machine.run("cat /tmp/soak.status")?;
        Ok((status.status == 0).then_some(status.output))
    })?;
    let rest = machine.ok(&format!("tail -c +{} /tmp/soak.out", shown + 1))?;
    print!("{rest}");
    if status.trim() != "0" {
        let look = "dmesg | grep initldr | tail -n 10; df / /run; free -m; tail -n 2 /var/soak/fast-*.ledger /var/soak/slow-*.ledger";
        println!("{}", machine.run(look)?.output);
    }
    ensure!(status.trim() == "0", "soak_kill in the guest: exit status {}", status.trim());
    let out = machine.ok("cat /tmp/soak.out").context("what it said")?;
    ensure!(out.contains("nothing was lost"), "{out}");
    Ok(())
}
