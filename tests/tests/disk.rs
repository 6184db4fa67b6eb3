//! From the kernel to a login prompt and back: an initramfs that finds an ext4 root on a virtio disk, the switch to it, a
//! Debian system with a login on its console, and an end that leaves the file system clean.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use e2e::disk::{self, Disk, LABEL, PASSWORD, UUID};
use e2e::fetch::{Cache, Flavour, Kernel};
use e2e::initramfs::{Image, SharedImage};
use e2e::machine::{Machine, Setup, run_with};
use e2e::say;
use e2e::system::running;

/// On the later kernel QEMU's own watchdog, which is loaded for its device; the cloud build of the other has no driver of it,
/// and gets the kernel's timer, which somebody has to load.
static EARLY: SharedImage = SharedImage::new("early", early);

/// The same, where who wants a shell has to know a password.
static LOCKED: SharedImage = SharedImage::new("locked", || {
    let mut image = early()?;
    image.sulogin()?;
    Ok(image)
});

fn early() -> Result<Image> {
    Image::early(|kernel| vec!["virtio_pci", "virtio_blk", driver(kernel)])
}

fn has_device(kernel: Kernel) -> bool {
    kernel == Kernel::V6_12
}

/// What a machine with a watchdog has; its time is one that a busy host keeps. Nothing but a reset ends it.
fn watched(kernel: Kernel, setup: Setup) -> Setup {
    let arguments = if has_device(kernel) { vec!["-device", "i6300esb"] } else { vec![] };
    let words = format!("{} motherd.watchdog=20s {}.nowayout=1", setup.words, driver(kernel));
    Setup { arguments, words, ..setup }
}

fn driver(kernel: Kernel) -> &'static str {
    if has_device(kernel) { "i6300esb" } else { "softdog" }
}

/// What motherd says when there is one.
const ARMED: &str = "/dev/watchdog0 resets the machine if nobody lives for 20s";

/// How long a step may take that is a boot's.
const BOOT: Duration = Duration::from_secs(180);
/// Between `motherctl reboot` and the end of QEMU.
const END: Duration = Duration::from_secs(120);

/// A disk of one test, removed with it.
struct OwnDisk(PathBuf);

impl OwnDisk {
    fn new(name: &str, change: impl Fn(&Disk) -> Result<()>) -> Result<Self> {
        let disk = Disk::system(name)?;
        change(&disk)?;
        Ok(Self(disk.write()?))
    }

    fn setup(&self, words: &str) -> Setup {
        Setup { disks: vec![self.0.clone()], words: words.to_owned(), ..Setup::default() }
    }
}

impl Drop for OwnDisk {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Boots from a disk with these words on the kernel command line.
fn boot(
    kernel: Kernel,
    disk: &OwnDisk,
    words: &str,
    scenario: impl Fn(&mut Machine) -> Result<()>,
) -> Result<()> {
    run_with(kernel, EARLY.path()?, &|| Ok(watched(kernel, disk.setup(words))), scenario)
}

/// Types name and password at the prompt, and waits for root's shell.
fn log_in(machine: &mut Machine) -> Result<()> {
    machine.console_shows("altimat login: ", BOOT)?;
    machine.type_to_console(b"root\r")?;
    machine.console_shows("Password: ", END)?;
    machine.type_to_console(format!("{PASSWORD}\r").as_bytes())?;
    machine.console_shows("bash-5", END)?;
    machine.type_to_console(b"motherctl status redis | head -1; echo logged-in-$((40 + 2))\r")?;
    machine.console_shows("logged-in-42", END)
}

fn ends(machine: &mut Machine, verb: &str, says: &str) -> Result<()> {
    machine.begin(&format!("motherctl {verb}"))?;
    let status = machine.ended(END).with_context(|| format!("after motherctl {verb}"))?;
    let console = machine.console();
    ensure!(status.success() && console.contains(says), "{verb}: QEMU ended with {status}:\n{console}");
    Ok(())
}

/// What a running system of the disk has to show.
fn is_up(machine: &mut Machine) -> Result<()> {
    machine.ready()?;
    ensure!(machine.ok("grep -c ' / ' /proc/mounts")?.trim() == "1", "one root, and no old one beneath it");
    ensure!(machine.ok("readlink /proc/1/exe")?.trim() == "/usr/sbin/initldr", "PID 1 is the disk's");
    for (what, expected) in [
        ("stat -f -c %T /", "ext2/ext3"),
        ("findmnt -n -o OPTIONS / | cut -d, -f1", "rw"),
        ("hostname", "altimat"),
        ("cat /proc/sys/kernel/pid_max", "65536"),
        ("stat -f -c %T /mnt", "tmpfs"),
        ("stat -c %s /var/lib/motherd/random-seed", "64"),
        ("redis-cli ping", "PONG"),
    ] {
        let found = machine.eventually(what, END, |machine| {
            let answer = machine.run(what)?;
            Ok((answer.output.trim() == expected).then_some(()))
        });
        found.with_context(|| {
            format!("expected {expected}: {:?}", machine.run("motherctl list; dmesg | tail -30"))
        })?;
    }
    running(machine, "redis")?;
    // Whoever loads a module on the kernel's behalf finds the new root too.
    machine.ok("mkdir -p /run/o/l /run/o/u /run/o/w /run/o/m && mount -t overlay -o lowerdir=/run/o/l,upperdir=/run/o/u,workdir=/run/o/w overlay /run/o/m && umount /run/o/m")?;
    Ok(())
}

/// A file system that is held by a swap file and stands on a mapped device, which stands on a loop device of a file of the
/// root. Whoever does not let go of all of them, one after the other, leaves the root writable and both of them dirty.
const HOLDING: &str = "modprobe -a loop dm_mod && rm -f /holding && truncate -s 24M /holding && \
    loop=$(losetup --find --show /holding) && mapped=$(/usr/lib/e2e/mapped held $loop 49152) && \
    mkfs.ext4 -q -F /dev/$mapped && mkdir -p /run/held && mount /dev/$mapped /run/held && \
    dd if=/dev/zero of=/run/held/swap bs=1M count=8 2>/dev/null && chmod 600 /run/held/swap && \
    mkswap /run/held/swap >/dev/null && swapon /run/held/swap && grep -c /run/held/swap /proc/swaps";

/// What [`HOLDING`] made is clean too.
fn held_is_clean(disk: &OwnDisk) -> Result<()> {
    let held = OwnDisk(PathBuf::from(format!("{}.held", disk.0.display())));
    fs::write(&held.0, disk::read(&disk.0, "/holding")?)?;
    disk::check(&held.0).context("the file system on the mapped device on the loop device")
}

/// There is a watchdog: where it comes with a module of the root, motherd finds it when it looks again.
fn is_armed(machine: &mut Machine) -> Result<()> {
    machine.eventually("there is a watchdog", END, |machine| {
        Ok((machine.run("motherctl fdstore | grep -c /dev/watchdog0")?.output.trim() == "1").then_some(()))
    })
}

/// There is a watchdog, and the machine lives longer than it would without being heard of.
fn outlives_the_watchdog(machine: &mut Machine) -> Result<()> {
    is_armed(machine)?;
    ensure!(machine.run("dmesg | grep -q '(nowayout=1)'")?.status == 0, "it could be ended");
    // When it was armed; where something else was written into that line, now is late enough.
    let console = machine.console();
    let before = console.split(ARMED).next().and_then(|text| text.rsplit('[').next());
    let since = before.and_then(|text| text.split('.').next()?.trim().parse().ok());
    let now = machine.ok("cut -d. -f1 /proc/uptime")?.trim().parse::<u32>()?;
    let until = since.unwrap_or(now).min(now) + 25;
    let lives = format!("[ $(cut -d. -f1 /proc/uptime) -ge {until} ]");
    machine.eventually("a longer life", BOOT, |machine| Ok((machine.run(&lives)?.status == 0).then_some(())))
}

/// Kernel, initramfs, root, login, `motherctl status`, reboot, the same again, power-off; `ROUNDS` times on one disk, which
/// is clean after each end.
fn there_and_back(kernel: Kernel) -> Result<()> {
    let rounds: u32 = env::var("ROUNDS").map_or(Ok(1), |text| text.parse()).context("ROUNDS is a number")?;
    let disk = OwnDisk::new(&format!("back-{}", kernel.version()), |disk| {
        disk.file("etc/modules-load.d/softdog.conf", 0o644, if has_device(kernel) { "" } else { "softdog\n" })
    })?;
    let by = [format!("root=UUID={UUID} quiet"), format!("root=LABEL={LABEL} rootfstype=ext4")];
    let mut seeds = BTreeSet::new();
    for round in 1..=rounds {
        let begun = Instant::now();
        for (words, verb, says) in
            [(&by[0], "reboot", "reboot: Restarting system"), (&by[1], "poweroff", "reboot: Power down")]
        {
            let there = boot(kernel, &disk, words, |machine| {
                log_in(machine)?;
                is_up(machine)?;
                ensure!(machine.ok(HOLDING)?.trim() == "1", "no swap");
                if round == 1 && verb == "poweroff" {
                    outlives_the_watchdog(machine)?;
                }
                ends(machine, verb, says)?;
                ensure!(!machine.console().contains("in use, and stays writable"), "{}", machine.console());
                Ok(())
            });
            there
                .and_then(|()| disk::check(&disk.0))
                .and_then(|()| held_is_clean(&disk))
                .with_context(|| format!("round {round}, {verb}"))?;
            let seed = disk::read(&disk.0, "/var/lib/motherd/random-seed")?;
            ensure!(seed.len() == 64 && seeds.insert(seed), "round {round}, {verb}: a seed is used once");
        }
        if rounds > 1 {
            say(&format!("Linux {}: round {round} of {rounds} in {:?}", kernel.version(), begun.elapsed()));
        }
    }
    Ok(())
}

#[test]
fn linux_6_1_boots_a_disk_to_a_login_and_leaves_it_clean() -> Result<()> {
    there_and_back(Kernel::V6_1)
}

#[test]
fn linux_6_12_boots_a_disk_to_a_login_and_leaves_it_clean() -> Result<()> {
    there_and_back(Kernel::V6_12)
}

const FREEZE: &str =
    "cd /sys/fs/cgroup; mkdir ice; echo 1 >ice/cgroup.procs; echo 1 >ice/cgroup.freeze; motherctl poweroff\r";

/// The reason is on the console, and whoever stands before it has a shell, on one kernel after a password. From there the machine comes to an end that hangs,
/// and the watchdog resets it.
fn no_root(kernel: Kernel) -> Result<()> {
    let setup = || {
        let setup = Setup { words: "root=LABEL=nowhere rootwait=2".to_owned(), ..Setup::default() };
        Ok(watched(kernel, setup))
    };
    let locked = kernel == Kernel::V6_1;
    let image = if locked { &LOCKED } else { &EARLY };
    run_with(kernel, image.path()?, &setup, |machine| {
        machine.console_shows("root=LABEL=nowhere did not come within 2 s; there are:", BOOT)?;
        machine.console_shows("This is a rescue shell.", END)?;
        if locked {
            machine.pass_sulogin()?;
        }
        if !has_device(kernel) {
            machine.type_to_console(b"modprobe softdog\r")?;
        }
        machine.console_shows(ARMED, END)?;
        machine.type_to_console(b"echo $((40 + 2))-it-is\r")?;
        machine.console_shows("42-it-is", END)?;
        // PID 1 is stopped where no signal stops it: what was killed is not reaped, and nobody hears what motherd says.
        machine.type_to_console(FREEZE.as_bytes())?;
        machine.console_shows("PowerOff: power-off requested", END)?;
        let status = machine.ended(END).context("the watchdog has not reset it")?;
        let console = machine.console();
        ensure!(status.success() && !console.contains("initldr: ending"), "{status}:\n{console}");
        Ok(())
    })
}

/// A rescue shell on a machine with a watchdog, on a clock that leaps where nothing is to be done.
fn watched_rescue(kernel: Kernel, scenario: impl Fn(&mut Machine) -> Result<()>) -> Result<()> {
    let setup = || {
        let words = "root=LABEL=nowhere rootwait=2".to_owned();
        Ok(watched(kernel, Setup { words, counted: true, ..Setup::default() }))
    };
    run_with(kernel, EARLY.path()?, &setup, |machine| {
        machine.console_shows("This is a rescue shell.", BOOT)?;
        if !has_device(kernel) {
            machine.type_to_console(b"modprobe softdog\r")?;
        }
        machine.console_shows(ARMED, END)?;
        scenario(machine)
    })
}

/// motherd is launched again and again for ten minutes, in which the watchdog is written to, and then it resets the machine.
fn nobody_lives(kernel: Kernel) -> Result<()> {
    watched_rescue(kernel, |machine| {
        let another = "rm /usr/sbin/motherd; printf '#!/bin/sh\\nexit 3\\n' >/usr/sbin/motherd; \
                       chmod 755 /usr/sbin/motherd; kill -USR1 1\r";
        machine.type_to_console(another.as_bytes())?;
        machine
            .console_shows("no motherd is alive for 600s: the watchdog may reset the machine", 2 * BOOT)?;
        let status = machine.ended(END).context("the watchdog has not reset it")?;
        ensure!(status.success() && !machine.console().contains("initldr: ending"), "{}", machine.console());
        Ok(())
    })
}

#[test]
#[ignore = "ten minutes of the guest's: cargo test -p e2e --test disk nobody_lives -- --ignored"]
fn linux_6_1_resets_a_machine_on_which_nobody_lives() -> Result<()> {
    nobody_lives(Kernel::V6_1)
}

#[test]
#[ignore = "ten minutes of the guest's: cargo test -p e2e --test disk nobody_lives -- --ignored"]
fn linux_6_12_resets_a_machine_on_which_nobody_lives() -> Result<()> {
    nobody_lives(Kernel::V6_12)
}

#[test]
#[ignore = "a minute: cargo test -p e2e --test disk nowayout -- --ignored"]
fn linux_6_12_resets_what_was_halted_under_nowayout() -> Result<()> {
    watched_rescue(Kernel::V6_12, |machine| {
        machine.type_to_console(b"motherctl halt\r")?;
        machine.console_shows("reboot: System halted", END)?;
        let status = machine.ended(END).context("the watchdog has not reset it")?;
        ensure!(status.success(), "{status}");
        Ok(())
    })
}

const STUBBORN: &str = r#"
exec   = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1000; done"]
policy = "unconfined"
[stop]
timeout = "3s"
"#;

/// A service that does not hear SIGTERM, one whose file is broken, and one that writes the root full: the rest boots, and
/// the end comes and leaves the file system clean.
fn trouble(kernel: Kernel) -> Result<()> {
    let wants = "[dependencies]\nwants = [\"basic\", \"commands\", \"stubborn\", \"broken\"]\n";
    let disk = OwnDisk::new(&format!("trouble-{}", kernel.version()), |disk| {
        disk.file("etc/motherd/services/system.toml", 0o644, wants)?;
        disk.file("etc/motherd/services/stubborn.toml", 0o644, STUBBORN)?;
        disk.file("etc/motherd/services/broken.toml", 0o644, "exec = [\"/bin/true\"\npolcy = 3\n")
    })?;
    let frozen = OwnDisk(PathBuf::from(format!("{}.frozen", disk.0.display())));
    fs::File::create(&frozen.0)?.set_len(16 << 20)?;
    let setup = || {
        let disks = vec![disk.0.clone(), frozen.0.clone()];
        Ok(Setup { disks, words: format!("root=UUID={UUID}"), ..Setup::default() })
    };
    run_with(kernel, EARLY.path()?, &setup, |machine| {
        machine.ready()?;
        running(machine, "stubborn")?;
        machine.console_shows("broken.toml:", END)?;
        // Full to the last block.
        machine.run("dd if=/dev/zero of=/full bs=1M; dd if=/dev/zero of=/fuller bs=1k")?;
        machine.ok("mkdir /run/frozen && mkfs.ext4 -q /dev/vdb && mount /dev/vdb /run/frozen")?;
        machine.ok("fsfreeze -f /run/frozen")?;
        // It waits in the kernel and no signal reaches it. On one kernel it is a service's, so motherd waits for it and then ends
        // without; on the other it is nobody's, and initldr finds it.
        let leave = if kernel == Kernel::V6_12 { "echo $$ >/sys/fs/cgroup/cgroup.procs; " } else { "" };
        machine.ok(&format!("setsid sh -c '{leave}echo x >/run/frozen/x' >/dev/null 2>&1 </dev/null &"))?;
        machine.eventually("a process in state D", END, |machine| {
            Ok((machine.run("grep -l 'State:.D' /proc/[0-9]*/status")?.status == 0).then_some(()))
        })?;
        let waited =
            if kernel == Kernel::V6_12 { "some processes do not die" } else { "commands would not end" };
        ends(machine, "poweroff", waited)?;
        ensure!(machine.console().contains("reboot: Power down"), "{}", machine.console());
        Ok(())
    })?;
    disk::check(&disk.0)
}

/// A disk that takes 256 KiB a second, and 24 MiB for it in memory: ninety seconds of writing, where no step of the end has
/// more than twenty without getting on.
fn slow(kernel: Kernel) -> Result<()> {
    const BYTES: usize = 24 << 20;
    let disk = OwnDisk::new(&format!("slow-{}", kernel.version()), |_| Ok(()))?;
    let slow = OwnDisk(PathBuf::from(format!("{}.slow", disk.0.display())));
    fs::File::create(&slow.0)?.set_len(64 << 20)?;
    ensure!(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&slow.0).status()?.success(), "mkfs.ext4");
    let file: &'static str = format!("driver=file,filename={},node-name=file", slow.0.display()).leak();
    let arguments = [
        ["-object", "throttle-group,id=slow,x-bps-write=262144"],
        ["-blockdev", file],
        ["-blockdev", "driver=throttle,throttle-group=slow,file=file,node-name=slow"],
        ["-device", "virtio-blk-pci,drive=slow"],
    ];
    let setup = || Ok(Setup { arguments: arguments.concat(), ..disk.setup(&format!("root=UUID={UUID}")) });
    run_with(kernel, EARLY.path()?, &setup, |machine| {
        machine.ready()?;
        let mebibytes = BYTES >> 20;
        // The arguments come before the disks, so it is the first of them.
        machine.ok("mkdir /run/slow && mount /dev/vda /run/slow")?;
        machine.ok(&format!("dd if=/dev/zero bs=1M count={mebibytes} | tr '\\0' x >/run/slow/x"))?;
        machine.begin("motherctl poweroff")?;
        let status = machine.ended(4 * END)?;
        let console = machine.console();
        for line in console.lines().filter(|line| line.contains("initldr: ")) {
            say(line);
        }
        let waited = console.contains("are still to be written") && !console.contains("not done in time");
        ensure!(status.success() && waited, "{status}:\n{console}");
        Ok(())
    })?;
    disk::check(&disk.0)?;
    disk::check(&slow.0)?;
    let written = disk::read(&slow.0, "/x")?;
    ensure!(written.len() == BYTES && written.iter().all(|byte| *byte == b'x'), "{} bytes", written.len());
    Ok(())
}

#[test]
#[ignore = "two minutes of writing: cargo test -p e2e --test disk slow_disk -- --ignored --nocapture"]
fn linux_6_1_waits_for_a_slow_disk() -> Result<()> {
    slow(Kernel::V6_1)
}

#[test]
#[ignore = "two minutes of writing: cargo test -p e2e --test disk slow_disk -- --ignored --nocapture"]
fn linux_6_12_waits_for_a_slow_disk() -> Result<()> {
    slow(Kernel::V6_12)
}

/// The same kernel, another user space: PID 1 stays, everything else is new. Then another kernel, without the firmware.
fn anew(kernel: Kernel) -> Result<()> {
    let disk = OwnDisk::new(&format!("anew-{}", kernel.version()), |disk| {
        disk.file("boot/vmlinuz", 0o644, fs::read(Cache::open()?.kernel(kernel, Flavour::Cloud)?)?)?;
        disk.file("boot/initramfs", 0o644, fs::read(EARLY.path()?)?)
    })?;
    boot(kernel, &disk, &format!("root=UUID={UUID}"), |machine| {
        is_up(machine)?;
        let before = running(machine, "redis")?;
        let kernel_booted = machine.ok("cat /proc/sys/kernel/random/boot_id")?;
        if has_device(kernel) {
            is_armed(machine)?;
        }
        machine.begin("motherctl soft-reboot")?;
        machine.ready_again(1)?;
        is_up(machine)?;
        if has_device(kernel) {
            machine.console_shows("the watchdog leaves the next user space 120 s", END)?;
        }
        ensure!(running(machine, "redis")? != before, "redis was not started anew");
        ensure!(machine.ok("cat /proc/sys/kernel/random/boot_id")? == kernel_booted, "the kernel began anew");
        machine
            .ok("/usr/lib/e2e/load-kernel /boot/vmlinuz /boot/initramfs \"$(cat /proc/cmdline) by-kexec\"")?;
        machine.begin("motherctl kexec")?;
        machine.ready_again(2)?;
        is_up(machine)?;
        ensure!(machine.ok("cat /proc/cmdline")?.trim().ends_with("by-kexec"), "its own words");
        ensure!(machine.ok("cat /proc/sys/kernel/random/boot_id")? != kernel_booted, "another kernel");
        let console = machine.console();
        ensure!(!console.contains("Restarting system"), "no reboot by the firmware:\n{console}");
        ends(machine, "poweroff", "reboot: Power down")
    })?;
    disk::check(&disk.0)
}

#[test]
fn linux_6_1_without_its_root_says_why_and_gives_a_shell() -> Result<()> {
    no_root(Kernel::V6_1)
}

#[test]
fn linux_6_12_without_its_root_says_why_and_gives_a_shell() -> Result<()> {
    no_root(Kernel::V6_12)
}

#[test]
fn linux_6_1_ends_clean_in_spite_of_trouble() -> Result<()> {
    trouble(Kernel::V6_1)
}

#[test]
fn linux_6_12_ends_clean_in_spite_of_trouble() -> Result<()> {
    trouble(Kernel::V6_12)
}

#[test]
#[ignore = "the same as on 6.12, a minute: cargo test -p e2e --test disk anew -- --include-ignored"]
fn linux_6_1_begins_user_space_and_kernel_anew() -> Result<()> {
    anew(Kernel::V6_1)
}

#[test]
fn linux_6_12_begins_user_space_and_kernel_anew() -> Result<()> {
    anew(Kernel::V6_12)
}
