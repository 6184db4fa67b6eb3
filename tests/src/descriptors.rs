//! What a program sees of the descriptors that it was handed (sd_listen_fds(3)), as JSON: the same program under
//! `systemd-socket-activate` and under motherd has to see the same.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{SockaddrLike, SockaddrStorage, getsockname};
use serde_json::{Map, Value, json};

/// Options that are a number, of sockets of every family that has them. Linux has more; these are what a service manager
/// or a service could want to set before the service runs.
const OPTIONS: [(&str, i32, i32); 28] = [
    ("SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR),
    ("SO_REUSEPORT", libc::SOL_SOCKET, libc::SO_REUSEPORT),
    ("SO_KEEPALIVE", libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    ("SO_BROADCAST", libc::SOL_SOCKET, libc::SO_BROADCAST),
    ("SO_OOBINLINE", libc::SOL_SOCKET, libc::SO_OOBINLINE),
    ("SO_DONTROUTE", libc::SOL_SOCKET, libc::SO_DONTROUTE),
    ("SO_PASSCRED", libc::SOL_SOCKET, libc::SO_PASSCRED),
    ("SO_PASSSEC", libc::SOL_SOCKET, libc::SO_PASSSEC),
    ("SO_PRIORITY", libc::SOL_SOCKET, libc::SO_PRIORITY),
    ("SO_MARK", libc::SOL_SOCKET, libc::SO_MARK),
    ("SO_RCVBUF", libc::SOL_SOCKET, libc::SO_RCVBUF),
    ("SO_SNDBUF", libc::SOL_SOCKET, libc::SO_SNDBUF),
    ("SO_RCVLOWAT", libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    ("SO_TIMESTAMP", libc::SOL_SOCKET, libc::SO_TIMESTAMP),
    ("SO_PROTOCOL", libc::SOL_SOCKET, libc::SO_PROTOCOL),
    ("SO_ACCEPTCONN", libc::SOL_SOCKET, libc::SO_ACCEPTCONN),
    ("IP_TOS", libc::IPPROTO_IP, libc::IP_TOS),
    ("IP_TTL", libc::IPPROTO_IP, libc::IP_TTL),
    ("IP_PKTINFO", libc::IPPROTO_IP, libc::IP_PKTINFO),
    ("IP_FREEBIND", libc::IPPROTO_IP, libc::IP_FREEBIND),
    ("IP_TRANSPARENT", libc::IPPROTO_IP, libc::IP_TRANSPARENT),
    ("IPV6_V6ONLY", libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
    ("IPV6_RECVPKTINFO", libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    ("IPV6_UNICAST_HOPS", libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    ("TCP_NODELAY", libc::IPPROTO_TCP, libc::TCP_NODELAY),
    ("TCP_DEFER_ACCEPT", libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    ("TCP_FASTOPEN", libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
    ("TCP_KEEPIDLE", libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
];

/// The first descriptor that is handed over (SD_LISTEN_FDS_START).
pub const FIRST: i32 = 3;

/// One that this program was handed, by its number; each once, and before anything else is opened.
///
/// # Errors
/// EBADF: there is none.
pub fn handed(number: i32) -> std::io::Result<OwnedFd> {
    crate::sys::handed(number)
}

/// Prints it all, on one line.
///
/// # Errors
/// What a program under either of the two must never see.
pub fn describe() -> Result<()> {
    described().map(drop)
}

/// The same, and then O_NONBLOCK is the other way round on each of them, for whoever has the same open file.
///
/// # Errors
/// As [`describe`]; fcntl(2).
pub fn describe_and_flip() -> Result<()> {
    for fd in described()? {
        let status = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(status ^ OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

fn described() -> Result<Vec<OwnedFd>> {
    let variable = |name: &str| std::env::var(name).ok();
    let count: i32 = variable("LISTEN_FDS").context("LISTEN_FDS")?.parse()?;
    let own_pid = variable("LISTEN_PID").context("LISTEN_PID")? == std::process::id().to_string();
    // The one that reads this folder is among them; it is not counted.
    let mut open = 0;
    for entry in fs::read_dir("/proc/self/fd")? {
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        open += usize::from(!target.starts_with("/proc"));
    }
    let handed: Vec<OwnedFd> = (FIRST..FIRST + count).map(handed).collect::<std::io::Result<_>>()?;
    let told = json!({
        "LISTEN_FDS": count,
        "LISTEN_FDNAMES": variable("LISTEN_FDNAMES"),
        "LISTEN_PID is its own": own_pid,
        "open beyond those and 0 to 2": i64::try_from(open)? - i64::from(count + FIRST),
        "descriptors": handed.iter().map(one).collect::<Result<Vec<Value>>>()?,
    });
    println!("{told}");
    Ok(handed)
}

fn one(fd: &OwnedFd) -> Result<Value> {
    let mut told = Map::new();
    let mut tell = |key: &str, value: Value| told.insert(key.to_owned(), value);
    let status = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    let own = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD)?);
    tell("FD_CLOEXEC", own.contains(FdFlag::FD_CLOEXEC).into());
    tell("O_NONBLOCK", status.contains(OFlag::O_NONBLOCK).into());
    tell("flags", format!("{:o}", status.bits()).into());
    tell("kind", format!("{:o}", nix::sys::stat::fstat(fd)?.st_mode & libc::S_IFMT).into());
    if let Ok(name) = getsockname::<SockaddrStorage>(fd.as_raw_fd()) {
        tell("family", format!("{:?}", name.family()).into());
        tell("address", address(&name).into());
        tell("type", crate::sys::option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE)?.into());
        for (word, level, option) in OPTIONS {
            // One that this family does not have is not told.
            if let Ok(value) = crate::sys::option(fd.as_fd(), level, option) {
                tell(word, value.into());
            }
        }
        if let Ok(backlog) = crate::sys::tcp_backlog(fd.as_fd()) {
            tell("backlog", backlog.into());
        }
        if let Some(path) = name.as_unix_addr().and_then(nix::sys::socket::UnixAddr::path) {
            let file = fs::symlink_metadata(path)?;
            tell("owner", format!("{}:{}", file.uid(), file.gid()).into());
            tell("mode", format!("{:o}", file.mode()).into());
        }
    }
    Ok(Value::Object(told))
}

fn address(name: &SockaddrStorage) -> String {
    match name.as_unix_addr().and_then(nix::sys::socket::UnixAddr::path) {
        Some(path) => path.display().to_string(),
        None => name.to_string(),
    }
}
