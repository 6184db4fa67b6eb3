//! A socket of a service file to a descriptor that listens.

use std::{
    fs::{self, OpenOptions, Permissions},
    io,
    net::SocketAddr,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, getsockname,
            getsockopt, listen, setsockopt, socket, sockopt,
        },
        stat::Mode,
    },
    unistd::mkfifo,
};
use sandbox::compile::{Host, RealHost};

use crate::{
    control::address,
    service::{Address, Socket},
};

/// Makes one of the sockets of a service. Paths are below `root`.
pub(super) fn open(socket: &Socket, all: &[Socket], root: &Path) -> io::Result<OwnedFd> {
    let backlog = socket.backlog.min(libc::SOMAXCONN);
    let unix = |path: &Path, kind, backlog: Option<i32>| -> io::Result<OwnedFd> {
        let path = below(root, path);
        let (owner, group) = (user(socket, root)?, group(socket, root)?);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        address::bound(&path, kind, socket.mode, owner, group, backlog)
    };
    match &socket.listen.value {
        Address::Tcp(at) => ip(at, SockType::Stream, socket, all, Some(backlog)),
        Address::Udp(at) => ip(at, SockType::Datagram, socket, all, None),
        Address::Unix(path) => unix(path, SockType::Stream, Some(backlog)),
        Address::UnixDgram(path) => unix(path, SockType::Datagram, None),
        Address::UnixSeqpacket(path) => unix(path, SockType::SeqPacket, Some(backlog)),
        Address::Fifo(path) => fifo(&below(root, path), socket, root),
    }
}

/// Whether a descriptor that was kept is what this would make.
pub(super) fn is_it(fd: BorrowedFd<'_>, socket: &Socket, root: &Path) -> bool {
    let kind = || getsockopt(&fd, sockopt::SockType).ok();
    let bound = |at: &SocketAddr| {
        getsockname::<SockaddrStorage>(fd.as_raw_fd()).is_ok_and(|name| name == storage(at))
    };
    // The last part of its name alone: of a path that is too long for an address the folder is another's.
    let named = |path: &Path| {
        let name = getsockname::<UnixAddr>(fd.as_raw_fd()).ok();
        name.as_ref().and_then(UnixAddr::path).is_some_and(|name| name.file_name() == path.file_name())
    };
    let there = |path: &Path| {
        named(path) && fs::symlink_metadata(below(root, path)).is_ok_and(|file| file.file_type().is_socket())
    };
    match &socket.listen.value {
        Address::Tcp(at) => kind() == Some(SockType::Stream) && bound(at),
        Address::Udp(at) => kind() == Some(SockType::Datagram) && bound(at),
        Address::Unix(path) => kind() == Some(SockType::Stream) && there(path),
        Address::UnixDgram(path) => kind() == Some(SockType::Datagram) && there(path),
        Address::UnixSeqpacket(path) => kind() == Some(SockType::SeqPacket) && there(path),
        Address::Fifo(path) => {
            let (held, there) = (nix::sys::stat::fstat(fd), fs::symlink_metadata(below(root, path)));
            held.is_ok_and(|held| {
                there.is_ok_and(|there| (held.st_dev, held.st_ino) == (there.dev(), there.ino()))
            })
        }
    }
}

/// Sets O_NONBLOCK, or takes it away (fcntl(2), F_SETFL).
pub(super) fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    let now = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    let mut wanted = now;
    wanted.set(OFlag::O_NONBLOCK, nonblocking);
    if wanted != now {
        fcntl(fd, FcntlArg::F_SETFL(wanted))?;
    }
    Ok(())
}

/// Removes what others would find at the path of a socket that nobody listens on any more.
pub(super) fn remove(at: &Address, root: &Path) -> io::Result<()> {
    let Some(path) = at.path() else { return Ok(()) };
    match fs::remove_file(below(root, path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn storage(at: &SocketAddr) -> SockaddrStorage {
    match at {
        SocketAddr::V4(at) => (*at).into(),
        SocketAddr::V6(at) => (*at).into(),
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn ip(
    at: &SocketAddr,
    kind: SockType,
    socket_of: &Socket,
    all: &[Socket],
    backlog: Option<i32>,
) -> io::Result<OwnedFd> {
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if kind == SockType::Stream {
        // Connections of the socket before it, which have ended, do not keep the port.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    if shares_its_port(&socket_of.listen.value, all) {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    if socket_of.reuse_port {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    bind(fd.as_raw_fd(), &storage(at))?;
    if let Some(backlog) = backlog {
        listen(&fd, Backlog::new(backlog)?)?;
    }
    Ok(fd)
}

/// Whether this is all of IPv6 on a port of which the service has all of IPv4 as a socket of its own: `[::]` would take that
/// as well, and the two could not be had together.
fn shares_its_port(address: &Address, all: &[Socket]) -> bool {
    let any = |at: &SocketAddr, v6: bool| at.ip().is_unspecified() && at.is_ipv6() == v6;
    all.iter().any(|other| match (address, &other.listen.value) {
        (Address::Tcp(at), Address::Tcp(other)) | (Address::Udp(at), Address::Udp(other)) => {
            any(at, true) && any(other, false) && at.port() == other.port()
        }
        _ => false,
    })
}

/// Opened for both directions, so that it neither waits for the other end nor ends with it.
fn fifo(path: &Path, socket: &Socket, root: &Path) -> io::Result<OwnedFd> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match mkfifo(path, Mode::from_bits_truncate(0o600)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        return Err(Errno::EEXIST.into());
    }
    chown(path, user(socket, root)?, group(socket, root)?)?;
    file.set_permissions(Permissions::from_mode(socket.mode))?;
    Ok(file.into())
}

fn user(socket: &Socket, root: &Path) -> io::Result<Option<u32>> {
    let Some(name) = &socket.owner else { return Ok(None) };
    let found = match name.value.parse() {
        Ok(uid) => Some(uid),
        Err(_) => RealHost::new(root).user(&name.value)?.map(|(uid, _)| uid),
    };
    found.map(Some).ok_or_else(|| io::Error::other(format!("there is no user `{}`", name.value)))
}

fn group(socket: &Socket, root: &Path) -> io::Result<Option<u32>> {
    let Some(name) = &socket.group else { return Ok(None) };
    let found = match name.value.parse() {
        Ok(gid) => Some(gid),
        Err(_) => RealHost::new(root).group(&name.value)?,
    };
    found.map(Some).ok_or_else(|| io::Error::other(format!("there is no group `{}`", name.value)))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
        os::unix::net::{UnixDatagram, UnixStream},
    };

    use sandbox::diagnostic::Located;

    use super::*;
    use crate::{scratch::Scratch, service::parse_text};

    fn socket_of(listen: &str, more: &str) -> Socket {
        let text = format!("exec = [\"/bin/x\"]\n[[socket]]\nlisten = \"{listen}\"\n{more}");
        parse_text("x", &text).map_err(|report| report.to_string()).unwrap().sockets()[0].clone()
    }

    #[test]
    fn each_kind_takes_what_is_sent_to_it_and_is_known_again() {
        let scratch = Scratch::new();
        let root = scratch.path();
        let mut open_ones = Vec::new();
        for listen in ["unix:/run/s", "unix-dgram:/run/d", "unix-seqpacket:/run/q", "fifo:/run/f"] {
            let socket = socket_of(listen, "mode = \"640\"\n");
            let fd = open(&socket, &[], root).unwrap();
            let path = below(root, socket.listen.value.path().unwrap());
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640, "{listen}");
            assert!(is_it(fd.as_fd(), &socket, root), "{listen}");
            if let Some(name) = getsockname::<UnixAddr>(fd.as_raw_fd()).ok().as_ref().and_then(UnixAddr::path)
            {
                assert_eq!(name, path, "its own name is the path that was asked for");
            }
            for other in
                ["unix:/run/s", "unix-dgram:/run/d", "unix-seqpacket:/run/q", "fifo:/run/f", "tcp:0.0.0.0:1"]
            {
                assert_eq!(
                    is_it(fd.as_fd(), &socket_of(other, ""), root),
                    other == listen,
                    "{listen} {other}"
                );
            }
            open_ones.push(fd);
        }
        let stream = UnixStream::connect(root.join("run/s"));
        assert!(stream.is_ok(), "{stream:?}");
        UnixDatagram::unbound().unwrap().send_to(b"x", root.join("run/d")).unwrap();
        remove(&socket_of("unix:/run/s", "").listen.value, root).unwrap();
        assert!(!root.join("run/s").exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_taken_port_is_refused() {
        let scratch = Scratch::new();
        drop(open(&socket_of("unix:/s", ""), &[], scratch.path()).unwrap());
        let again = open(&socket_of("unix:/s", ""), &[], scratch.path()).unwrap();
        assert!(UnixStream::connect(scratch.path().join("s")).is_ok());
        drop(again);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = socket_of("tcp:127.0.0.1:1", "");
        socket.listen = Located::new(Address::Tcp(taken.local_addr().unwrap()), socket.listen.at.clone());
        let error = open(&socket, &[], scratch.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(taken);
        let fd = open(&socket, &[], scratch.path()).unwrap();
        assert!(is_it(fd.as_fd(), &socket, scratch.path()));
        let Address::Tcp(at) = socket.listen.value else { panic!() };
        let mut client = TcpStream::connect(at).unwrap();
        let (mut served, _) = TcpListener::from(fd).accept().unwrap();
        client.write_all(b"x").unwrap();
        assert_eq!(served.read(&mut [0; 2]).unwrap(), 1);
    }

    #[test]
    fn both_families_share_a_port_where_a_file_has_both() {
        let addresses = |text: &[&str]| text.iter().map(|at| socket_of(at, "")).collect::<Vec<_>>();
        let both =
            addresses(&["tcp:0.0.0.0:80", "tcp:[::]:80", "udp:[::]:80", "tcp:[::]:81", "tcp:[::1]:80"]);
        let shared: Vec<bool> =
            both.iter().map(|socket| shares_its_port(&socket.listen.value, &both)).collect();
        assert_eq!(shared, [false, true, false, false, false]);
        let scratch = Scratch::new();
        let Ok(free) = TcpListener::bind("[::]:0") else { return };
        let port = free.local_addr().unwrap().port();
        drop(free);
        let both = addresses(&[&format!("tcp:0.0.0.0:{port}"), &format!("tcp:[::]:{port}")]);
        let open = |all: &[Socket]| {
            let first = open(&both[0], all, scratch.path()).unwrap();
            open(&both[1], all, scratch.path()).map(|second| (first, second))
        };
        let made = open(&both);
        assert!(made.is_ok(), "{made:?}");
        drop(made);
        assert_eq!(open(&[]).unwrap_err().kind(), io::ErrorKind::AddrInUse, "control");
    }

    #[test]
    fn an_owner_that_does_not_exist_is_told() {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.path().join("etc")).unwrap();
        fs::write(scratch.path().join("etc/passwd"), "").unwrap();
        let error =
            open(&socket_of("unix:/s", "owner = \"nobody-here\"\n"), &[], scratch.path()).unwrap_err();
        assert_eq!(error.to_string(), "there is no user `nobody-here`");
    }
}
