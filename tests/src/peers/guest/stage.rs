//! PID 1 before the contender is PID 1.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use super::{Order, stamps};
use crate::peers::files::{self, Contents};

/// Everybody finds these mounted, so nobody spends time on them: file system, where, options.
const MOUNTS: [(&str, &str, &str); 7] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=0755"),
    ("tmpfs", "/run", "mode=0755"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", "nsdelegate,memory_recursiveprot"),
    ("tmpfs", files::WRITABLE, "mode=0755"),
];

/// Until nobody but the contender has anything to do.
const SETTLING: Duration = Duration::from_secs(1);

/// Of the contender and of the controller alike.
const ENVIRONMENT: [(&str, &str); 3] =
    [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/"), ("TERM", "linux")];

/// The root becomes a mount like any other, which an initramfs by itself is not: pivot_root would be refused.
pub(super) fn mount_all() -> Result<()> {
    let none: Option<&str> = None;
    fs::create_dir_all("/bench/root")?;
    mount(Some("/"), "/bench/root", none, MsFlags::MS_BIND, none).context("bind the root")?;
    std::env::set_current_dir("/bench/root")?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).context("move the root")?;
    nix::unistd::chroot(".")?;
    std::env::set_current_dir("/")?;
    for (kind, path, options) in MOUNTS {
        fs::create_dir_all(path)?;
        mount(Some(kind), path, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("mount {path}"))?;
    }
    Ok(())
}

/// Writes the contender's files, starts the controller, notes the time, and execs.
pub(super) fn become_contender(order: &Order) -> Result<()> {
    for (path, contents) in files::of(order.contender, order.services) {
        let path = Path::new(&path);
        fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        match contents {
            Contents::File(permissions, text) => {
                fs::write(path, text)?;
                fs::set_permissions(path, fs::Permissions::from_mode(permissions))?;
            }
            Contents::Link(target) => symlink(target, path)?,
        }
    }
    stamps::prepare()?;
    // The kernel itself is not done with its boot yet.
    sleep(SETTLING);
    let mut controller = Command::new("/proc/self/exe");
    controller.env_clear().envs(ENVIRONMENT).stdin(Stdio::null()).spawn().context("start the controller")?;
    let (path, argv) = order.contender.command(order.services);
    let mut command = Command::new(path);
    command.arg0(argv.first().context("argv has the name first")?).args(argv.iter().skip(1));
    command.env_clear().envs(ENVIRONMENT);
    stamps::begin()?;
    Err(command.exec()).with_context(|| format!("exec {path}"))
}
