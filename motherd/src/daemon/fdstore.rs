//! What initldr keeps, asked of it and described: `motherctl fdstore`.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::sys::{
    socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt},
    stat::{SFlag, fstat},
};

use super::{Daemon, Fatal};
use crate::control::protocol::{FdStore, RequestError, StoredFd};

impl Daemon {
    /// Every slot of initldr's, or those of some services.
    pub(super) fn fd_store(&mut self, services: &[String]) -> Result<Result<FdStore, RequestError>, Fatal> {
        for name in services {
            // A service without a file may still have something kept.
            if let Err(error) = self.check_name(name) {
                return Ok(Err(error));
            }
        }
        let stored = self.link.stored()?;
        let used = stored.len() as u64;
        let mut slots: Vec<StoredFd> = stored
            .into_iter()
            .map(|(slot, number, fd)| {
                let (kind, service, name) = parts(&slot);
                let (file, about) = fd.as_ref().map_or_else(Default::default, describe);
                StoredFd {
                    kind: kind.to_owned(),
                    service: service.map(str::to_owned),
                    name: name.map(str::to_owned),
                    number,
                    file,
                    about,
                    slot,
                }
            })
            .filter(|stored| {
                services.is_empty() || stored.service.as_ref().is_some_and(|name| services.contains(name))
            })
            .collect();
        let key = |stored: &StoredFd| (stored.service.clone(), stored.kind.clone(), stored.slot.clone());
        slots.sort_by_cached_key(key);
        Ok(Ok(FdStore { slots, used, capacity: initldr::store::CAPACITY as u64 }))
    }
}

/// What a slot is for: its kind, whose it is, and which of several.
fn parts(slot: &str) -> (&str, Option<&str>, Option<&str>) {
    let (before, rest) = slot.split_once('/').map_or((slot, None), |(before, rest)| (before, Some(rest)));
    match (before, rest) {
        ("fd", Some(rest)) => match rest.split_once('/') {
            // `NUMBER:NAME`, or `NUMBER;NAME`
            Some((service, name)) => {
                ("pushed", Some(service), name.split_once([':', ';']).map(|(_, name)| name))
            }
            None => ("other", None, None),
        },
        ("s", Some(rest)) => match rest.rsplit_once('/') {
            Some((service, number)) => ("socket", Some(service), Some(number)),
            None => ("other", None, None),
        },
        ("process" | "log" | "notify" | "ready", Some(service)) => (before, Some(service), None),
        (
            "control" | "events" | "log-stage" | "log-books" | "lock-run" | "lock-cgroups" | "watchdog",
            None,
        ) => (before, None, None),
        _ => ("other", None, None),
    }
}

/// The kind of file, and which one it is.
fn describe(fd: &OwnedFd) -> (String, String) {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let link = link.map(|path| path.display().to_string()).unwrap_or_default();
    if let Some(kind) = link.strip_prefix("anon_inode:") {
        let kind = kind.trim_matches(['[', ']']);
        let about = if kind == "pidfd" { process(fd.as_fd()) } else { String::new() };
        return (kind.to_owned(), about);
    }
    let Ok(stat) = fstat(fd) else { return ("unknown".to_owned(), String::new()) };
    if let Some(name) = link.strip_prefix("/memfd:") {
        let name = name.strip_suffix(" (deleted)").unwrap_or(name);
        return ("memfd".to_owned(), format!("{name}, {} bytes", stat.st_size));
    }
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    match kind {
        SFlag::S_IFSOCK => ("socket".to_owned(), socket(fd.as_fd())),
        SFlag::S_IFIFO if link.starts_with("pipe:") => ("pipe".to_owned(), String::new()),
        SFlag::S_IFIFO => ("fifo".to_owned(), link),
        SFlag::S_IFCHR | SFlag::S_IFBLK => ("device".to_owned(), link),
        SFlag::S_IFDIR => ("directory".to_owned(), link),
        // pidfs is a file system of its own since Linux 6.9, and its files are regular ones.
        SFlag::S_IFREG if link.starts_with("pidfd:") => ("pidfd".to_owned(), process(fd.as_fd())),
        _ => ("file".to_owned(), link),
    }
}

/// Of a pidfd.
fn process(fd: BorrowedFd<'_>) -> String {
    match super::proc::pid_of(fd) {
        Some(pid) => format!("process {pid}"),
        None => "a process that has ended".to_owned(),
    }
}

/// `unix datagram /run/motherd/notify/web`, `tcp 0.0.0.0:80, listening`
fn socket(fd: BorrowedFd<'_>) -> String {
    let kind = getsockopt(&fd, sockopt::SockType).ok();
    let address = getsockname::<SockaddrStorage>(fd.as_raw_fd()).ok();
    let family = address.as_ref().and_then(SockaddrLike::family);
    let sort = match (family, kind) {
        (Some(AddressFamily::Inet | AddressFamily::Inet6), Some(SockType::Stream)) => "tcp",
        (Some(AddressFamily::Inet | AddressFamily::Inet6), Some(SockType::Datagram)) => "udp",
        (Some(AddressFamily::Unix), Some(SockType::Stream)) => "unix stream",
        (Some(AddressFamily::Unix), Some(SockType::Datagram)) => "unix datagram",
        (Some(AddressFamily::Unix), Some(SockType::SeqPacket)) => "unix seqpacket",
        (Some(AddressFamily::Netlink), _) => "netlink",
        (_, _) => "another",
    };
    let address = address.and_then(|address| match family {
        Some(AddressFamily::Unix) => address
            .as_unix_addr()
            .and_then(|unix| Some(unix.path()?.display().to_string()).filter(|path| !path.is_empty())),
        Some(AddressFamily::Inet | AddressFamily::Inet6) => Some(address.to_string()),
        _ => None,
    });
    let address = address.map(|address| format!(" {address}")).unwrap_or_default();
    let listens = getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false);
    format!("{sort}{address}{}", if listens { ", listening" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_says_whose_it_is() {
        assert_eq!(parts("process/web"), ("process", Some("web"), None));
        assert_eq!(parts("s/worker@a/3"), ("socket", Some("worker@a"), Some("3")));
        assert_eq!(parts("fd/web/12;a:b"), ("pushed", Some("web"), Some("a:b")));
        assert_eq!(parts("control"), ("control", None, None));
        for odd in ["process", "fd/web", "s/web", "something/else", ""] {
            assert_eq!(parts(odd), ("other", None, None), "{odd}");
        }
    }

    #[test]
    fn a_descriptor_is_described_by_what_the_kernel_says_of_it() {
        let pidfd = crate::sys::process::pidfd_open(std::process::id()).unwrap();
        assert_eq!(describe(&pidfd), ("pidfd".into(), format!("process {}", std::process::id())));
        let memory = nix::sys::memfd::memfd_create(c"x", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        assert_eq!(describe(&memory), ("memfd".into(), "x, 0 bytes".into()));
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(describe(&reader.into()), ("pipe".into(), String::new()));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(describe(&file.into()), ("device".into(), "/dev/null".into()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(describe(&listener.into()), ("socket".into(), format!("tcp {address}, listening")));
        let (one, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        assert_eq!(describe(&one.into()), ("socket".into(), "unix datagram".into()));
    }
}
