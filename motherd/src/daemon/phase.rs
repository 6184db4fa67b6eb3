//! What is booted, and what follows from it.
//!
//! In an initramfs, known by its `/etc/initrd-release`, the target is `initramfs`. When it is up the next root lies on
//! /rootfs: everything is stopped, the initramfs is emptied, and initldr begins anew there. When it cannot come up,
//! `rescue` is started and the reason is said. On any other root the target is `system`, or what the kernel command
//! line says: `motherd.group=NAME`, or one of `single`, `rescue`, `emergency`, `S`, `s`, `1`.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use tracing::level_filters::LevelFilter;

use super::{Daemon, Fatal, log, watchdog::Wanted};
use crate::{
    early::cmdline::CommandLine,
    graph::Id,
    manager::End,
    supervise::{Cause, State},
};

/// Where the next root is mounted: initldr's own (`boot.rs`).
const NEXT_ROOT: &str = "/rootfs";
/// RAMFS_MAGIC of linux/magic.h: an initramfs where there is no tmpfs.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
/// PROC_PID_INIT_INO of linux/proc_ns.h: the first pid namespace, which is the machine's.
const MACHINES_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
/// Whether initldr is PID 1 of the machine, whose power, keys and command line are its own, and not of a container.
pub(super) fn of_the_machine() -> bool {
    let machine = fs::metadata("/proc/self/ns/pid").is_ok_and(|ns| ns.ino() == MACHINES_PID_NAMESPACE);
    machine && std::os::unix::process::parent_id() == 1
}

/// Which words ask for as little as possible: what they mean to systemd and sysvinit.
const RESCUE_WORDS: [&str; 6] = ["single", "rescue", "emergency", "S", "s", "1"];
/// What is started for whoever is there, where nothing else can be.
const RESCUE: &str = "rescue";
/// So many of a failed service's last lines are said.
const LAST_LINES: usize = 5;

/// Which half of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Phase {
    /// Up to the next root. The target is `initramfs`.
    Initramfs,
    /// The system itself. The target is `system`, unless the kernel command line says otherwise.
    System,
}

impl Phase {
    /// The one that fits the root: distributions mark an initramfs so.
    pub(super) fn of(root: &Path) -> Self {
        if root.join("etc/initrd-release").exists() { Self::Initramfs } else { Self::System }
    }
}

/// What the kernel command line says to motherd.
#[derive(Debug, Default)]
pub(super) struct Words {
    group: Option<String>,
    pub(super) level: Option<LevelFilter>,
    pub(super) watchdog: Option<Result<Wanted, String>>,
}

impl Words {
    /// In a container the command line is the host's, and below `--root` nobody's: nothing is read there.
    pub(super) fn read(root: &Path) -> Self {
        if root != Path::new("/") || !of_the_machine() {
            return Self::default();
        }
        CommandLine::read(root).map(|line| Self::of(&line)).unwrap_or_default()
    }

    fn of(line: &CommandLine) -> Self {
        let rescue = || line.last_of(&RESCUE_WORDS).map(|_| RESCUE.to_owned());
        let level = line.value("motherd.log").and_then(|word| word.parse().ok());
        Self {
            group: line.value("motherd.group").map(str::to_owned).or_else(rescue),
            level: level.or_else(|| line.has("quiet").then_some(LevelFilter::WARN)),
            watchdog: Wanted::of(line),
        }
    }

    /// The service to start.
    pub(super) fn target(self, phase: Phase) -> String {
        match phase {
            Phase::Initramfs => "initramfs".to_owned(),
            Phase::System => self.group.unwrap_or_else(|| "system".to_owned()),
        }
    }
}

impl Daemon {
    /// Starts the boot target; where there is none, rescue.
    pub(super) fn boot_target(&mut self, target: &str) -> Result<(), Fatal> {
        let found = self.manager.graph().find(target).or_else(|| {
            tracing::error!("there is no service `{target}` to start: `{RESCUE}` is, if there is one");
            self.manager.graph().find(RESCUE)
        });
        match found {
            Some(id) => {
                let cause = Cause::new(format!("boot: {}", self.manager.graph().name(id)));
                self.boot(id, &cause)
            }
            None => Ok(()),
        }
    }

    /// In an initramfs: whether its target has come up, or never will.
    pub(super) fn hand_over(&mut self) -> Result<(), Fatal> {
        let Some(target) = self.hands_over_at else { return Ok(()) };
        let unit = self.manager.unit(target);
        if self.manager.ending().is_some() {
            return Ok(());
        }
        if unit.is_up() {
            self.hands_over_at = None;
            let cause = Cause::new(format!("the initramfs is done: {NEXT_ROOT} is mounted"));
            return self.end(End::SoftReboot, &cause);
        }
        if unit.state != State::Failed && !self.manager.is_blocked(target) {
            return Ok(());
        }
        self.hands_over_at = None;
        self.say_what_failed(target);
        let cause = Cause::new(format!("{} cannot come up", self.manager.graph().name(target)));
        match self.manager.graph().find(RESCUE) {
            Some(rescue) => self.boot(rescue, &cause),
            None => {
                tracing::error!("there is no service `{RESCUE}` to start");
                Ok(())
            }
        }
    }

    /// For whoever stands before the console.
    fn say_what_failed(&self, target: Id) {
        let why =
            self.manager.waits_for(target).unwrap_or_else(|| self.manager.unit(target).cause.words.clone());
        tracing::error!("{}: {why}", self.manager.graph().name(target));
        for id in self.manager.graph().ids() {
            let unit = self.manager.unit(id);
            if unit.state != State::Failed {
                continue;
            }
            let name = self.manager.graph().name(id);
            tracing::error!("{name}: {}", unit.cause.words);
            for line in log::tail(&self.paths.log.join(name), LAST_LINES) {
                tracing::error!("{name}: {line}");
            }
        }
    }

    /// The next root is there and nothing runs any more: the memory of the initramfs is given back.
    pub(super) fn leave_initramfs(&self) {
        let root = &self.paths.root;
        let next = fs::metadata(root.join(NEXT_ROOT.trim_start_matches('/')));
        let ours = fs::metadata(root);
        let in_memory = statfs(root.as_path())
            .is_ok_and(|statfs| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&statfs.filesystem_type()));
        let (Ok(ours), Ok(next)) = (ours, next) else { return };
        if root != Path::new("/") || !in_memory || ours.dev() == next.dev() {
            return;
        }
        let mut kept = 0;
        empty(root, ours.dev(), &mut kept);
        tracing::debug!("the initramfs was emptied; {kept} entries would not go");
    }
}

/// Removes what lies on a device, and of others not even the name.
fn empty(folder: &Path, device: u64, kept: &mut usize) {
    let Ok(entries) = fs::read_dir(folder) else {
        *kept += 1;
        return;
    };
    let paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    for path in paths {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.dev() != device {
            continue;
        }
        let removed: io::Result<()> = if metadata.is_dir() {
            empty(&path, device, kept);
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        };
        *kept += usize::from(removed.is_err());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_command_line_names_the_target() {
        let check = |line: &str, expected: &str| {
            let target = |phase| Words::of(&CommandLine::for_test(line)).target(phase);
            assert_eq!(target(Phase::System), expected, "{line}");
            assert_eq!(target(Phase::Initramfs), "initramfs", "{line}");
        };
        check("ro quiet", "system");
        check("ro single", "rescue");
        check("1", "rescue");
        check("motherd.group=backup single", "backup");
        check("single=no", "system");
    }

    #[test]
    fn the_command_line_says_how_much_is_said() {
        let level = |line: &str| Words::of(&CommandLine::for_test(line)).level;
        assert_eq!(level("ro"), None);
        assert_eq!(level("quiet"), Some(LevelFilter::WARN));
        assert_eq!(level("quiet motherd.log=debug"), Some(LevelFilter::DEBUG));
        assert_eq!(level("motherd.log=loud"), None);
    }

    #[test]
    fn an_initramfs_is_known_by_its_release_file() {
        let scratch = Scratch::new();
        assert_eq!(Phase::of(scratch.path()), Phase::System);
        fs::create_dir(scratch.path().join("etc")).unwrap();
        fs::write(scratch.path().join("etc/initrd-release"), "").unwrap();
        assert_eq!(Phase::of(scratch.path()), Phase::Initramfs);
    }

    #[test]
    fn only_what_lies_on_the_device_is_removed() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("root");
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/c"), "").unwrap();
        std::os::unix::fs::symlink("/etc", folder.join("link")).unwrap();
        let device = fs::metadata(&folder).unwrap().dev();
        let mut kept = 0;
        empty(&folder, device + 1, &mut kept);
        assert!(folder.join("a/b/c").exists(), "it is another device's");
        empty(&folder, device, &mut kept);
        assert_eq!((fs::read_dir(&folder).unwrap().count(), kept), (0, 0));
        assert!(Path::new("/etc/passwd").exists(), "a link is removed, never followed");
    }
}
