//! One act that a sandbox may forbid, and what came of it.
//!
//! The `probe` program attempts exactly one act and says `allowed` or `denied ERRNO`. An act that the kernel answers
//! with death says nothing; its exit status does. An act is built so that it succeeds for root outside of any
//! sandbox and leaves nothing behind, because a denial without such a control proves nothing.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chown, chroot, gethostname, sethostname, setuid};

use crate::{load, sys};

/// What came of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Allowed,
    /// The kernel refused it.
    Denied(Errno),
    /// The kernel killed who tried, with this signal.
    Killed(i32),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed => f.write_str("allowed"),
            Self::Denied(errno) => write!(f, "denied {errno:?}"),
            Self::Killed(signal) => write!(f, "killed {signal}"),
        }
    }
}

impl Outcome {
    /// From what the probe printed and its exit status, where 128 and more is a signal, as shells have it.
    pub fn read(output: &str, status: i32) -> Result<Self> {
        if status > 128 {
            return Ok(Self::Killed(status - 128));
        }
        // What the sandbox says of itself (what was left out) comes before.
        let last = output.lines().last().unwrap_or_default();
        match (status, last.split_once(' ')) {
            (0, _) if last == "allowed" => Ok(Self::Allowed),
            (1, Some(("denied", name))) => {
                let known = (1..134).map(Errno::from_raw).find(|errno| format!("{errno:?}") == name);
                Ok(Self::Denied(known.with_context(|| format!("{name} is no errno"))?))
            }
            _ => bail!("the probe did not run: exit status {status}: {}", output.trim_end()),
        }
    }
}

/// Attempts the act that `words` describe.
pub fn attempt(words: &[&str]) -> Result<Outcome> {
    let result = match *words {
        ["read", path] => read(path),
        ["list", path] => fs::read_dir(path).and_then(|mut entries| entries.next().transpose()).map(drop),
        ["write", path] => OpenOptions::new().write(true).open(path).map(drop),
        ["create", path] => create(path),
        ["write-or-create", path] => match OpenOptions::new().write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
            answer => answer.map(drop),
        },
        ["execute", path] => {
            std::process::Command::new(path).stdout(std::process::Stdio::null()).status().map(drop)
        }
        // The same without opening anything else.
        ["run", path] => std::process::Command::new(path).status().map(drop),
        ["chown", path] => of(chown(path, Some(Uid::from_raw(0)), Some(Gid::from_raw(0)))),
        ["setuid", number] => of(setuid(Uid::from_raw(number.parse()?))),
        ["chroot", path] => of(chroot(path)),
        ["mknod", path] => make_node(path),
        ["mount", path] => mount_tmpfs(path),
        ["unshare", "user"] => of(unshare(CloneFlags::CLONE_NEWUSER)),
        ["unshare", "mount"] => of(unshare(CloneFlags::CLONE_NEWNS)),
        ["unshare", "net"] => of(unshare(CloneFlags::CLONE_NEWNET)),
        ["sethostname"] => gethostname().and_then(sethostname).map_err(io::Error::from),
        ["socket", family] => sys::socket(number_of(&FAMILIES, family)?),
        ["cap", number] => return holds(number.parse()?),
        ["bind-any", port] => either(ANY, port.parse()?, |address| TcpListener::bind(address).map(drop)),
        ["connect-any", port] => {
            either(LOOPBACK, port.parse()?, |address| match TcpStream::connect(address) {
                // Somebody said no: it was reached.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                answer => answer.map(drop),
            })
        }
        ["bind", port] => TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?)).map(drop),
        ["connect", port] => TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse()?)).map(drop),
        ["touch", mebibytes] => load::touch(mebibytes.parse()?),
        ["huge", count] => load::huge(count.parse()?),
        ["rdma", path, objects] => load::rdma(path, objects.parse()?),
        ["rdma-link", name, interface] => load::rdma_link(name, interface),
        ["signal", pid] => of(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse()?), None)),
        ["map", "write-execute"] => sys::map_writable_and_executable(),
        ["map", "execute-later"] => sys::make_executable_later(),
        ["call", name] => return Ok(reached(sys::bare_call(number_of(&CALLS, name)?))),
        ["call-errno", name] => sys::bare_call(number_of(&CALLS, name)?),
        ["call-x32", name] => return Ok(reached(sys::bare_call(number_of(&CALLS, name)? | X32))),
        ["call-i386", "getpid"] => sys::getpid_of_i386(),
        _ => bail!("no such act: {}", words.join(" ")),
    };
    match result {
        Ok(()) => Ok(Outcome::Allowed),
        Err(error) => match error.raw_os_error() {
            Some(number) => Ok(Outcome::Denied(Errno::from_raw(number))),
            None => Err(error.into()),
        },
    }
}

/// The bit that makes a number of x86_64 one of x32 (arch/x86/include/uapi/asm/unistd.h).
const X32: i64 = 0x4000_0000;

/// Address families, each with the kind of socket that any of them has.
const FAMILIES: [(&str, i32); 5] = [
    ("unix", libc::AF_UNIX),
    ("inet", libc::AF_INET),
    ("inet6", libc::AF_INET6),
    ("netlink", libc::AF_NETLINK),
    ("packet", libc::AF_PACKET),
];

/// Calls that fail for want of arguments, in a way that tells them from calls that were not let through.
const CALLS: [(&str, i64); 27] = [
    ("add_key", libc::SYS_add_key),
    ("bpf", libc::SYS_bpf),
    ("capget", libc::SYS_capget),
    ("eventfd2", libc::SYS_eventfd2),
    ("flock", libc::SYS_flock),
    ("getcwd", libc::SYS_getcwd),
    ("getuid", libc::SYS_getuid),
    ("inotify_init1", libc::SYS_inotify_init1),
    ("mount", libc::SYS_mount),
    ("sched_yield", libc::SYS_sched_yield),
    ("sysinfo", libc::SYS_sysinfo),
    ("times", libc::SYS_times),
    ("clock_settime", libc::SYS_clock_settime),
    ("delete_module", libc::SYS_delete_module),
    ("fsopen", libc::SYS_fsopen),
    ("getpid", libc::SYS_getpid),
    ("init_module", libc::SYS_init_module),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("kexec_load", libc::SYS_kexec_load),
    ("keyctl", libc::SYS_keyctl),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("ptrace", libc::SYS_ptrace),
    ("reboot", libc::SYS_reboot),
    ("swapon", libc::SYS_swapon),
    ("userfaultfd", libc::SYS_userfaultfd),
];

/// Whether this process has a capability, by its number, in effect.
fn holds(number: u32) -> Result<Outcome> {
    let status = sys::effective_capabilities()?;
    Ok(if status & (1 << number) != 0 { Outcome::Allowed } else { Outcome::Denied(Errno::EPERM) })
}

/// Addresses of IPv4 and IPv6.
type Both = [IpAddr; 2];
const ANY: Both = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
const LOOPBACK: Both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// An act on a port of IPv4, and of IPv6 if that fails.
fn either([old, new]: Both, port: u16, act: impl Fn(SocketAddr) -> io::Result<()>) -> io::Result<()> {
    act(SocketAddr::new(old, port)).or_else(|error| act(SocketAddr::new(new, port)).map_err(|_| error))
}

fn number_of<N: Copy>(table: &[(&str, N)], name: &str) -> Result<N> {
    let row = table.iter().find(|row| row.0 == name);
    row.map(|row| row.1).with_context(|| format!("{name} is not in the probe's table"))
}

/// A call without arguments was let through if the kernel got as far as missing them.
fn reached(result: io::Result<()>) -> Outcome {
    match result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))) {
        Err(errno @ (Errno::EPERM | Errno::EACCES | Errno::ENOSYS)) => Outcome::Denied(errno),
        Ok(()) | Err(_) => Outcome::Allowed,
    }
}

fn of(result: nix::Result<()>) -> io::Result<()> {
    result.map_err(io::Error::from)
}

fn read(path: &str) -> io::Result<()> {
    let mut byte = [0];
    fs::File::open(path)?.read(&mut byte).map(drop)
}

fn create(path: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    fs::remove_file(path)
}

fn make_node(path: &str) -> io::Result<()> {
    // The memory of the machine (mem(4)).
    of(mknod(Path::new(path), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 1)))?;
    fs::remove_file(path)
}

fn mount_tmpfs(path: &str) -> io::Result<()> {
    of(mount(Some("probe"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>))?;
    of(umount2(path, MntFlags::MNT_DETACH))
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::Outcome;

    #[test]
    fn an_outcome_is_read_as_it_was_written() {
        for (outcome, status) in [(Outcome::Allowed, 0), (Outcome::Denied(Errno::EPERM), 1)] {
            let read = Outcome::read(&format!("left out: cgroup memory\n{outcome}\n"), status).unwrap();
            assert_eq!(read, outcome);
        }
        assert_eq!(Outcome::read("", 159).unwrap(), Outcome::Killed(31));
    }

    #[test]
    fn a_probe_that_did_not_run_is_no_denial() {
        assert!(Outcome::read("motherctl: no such policy\n", 125).is_err());
        assert!(Outcome::read("denied EPERM\n", 0).is_err());
        assert!(Outcome::read("", 1).is_err());
    }
}
