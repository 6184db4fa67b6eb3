//! The readiness socket of a service with `start.type = "notify"`: sd_notify(3), as daemons speak it.
//!
//! Invariants: initldr holds the socket too, so what a service says while there is no motherd waits in it; a datagram is
//! believed if the kernel says that its sender lives in the service's cgroup, and not because of what is in it. It stays in the
//! socket until what it says is recorded: a motherd that ends before that has lost nothing, and the next one hears it.

use std::{
    cell::Cell,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, setsockopt, socket, sockopt},
};

use sandbox::descriptors::far_up;

use super::message::Message;
use crate::sys::{
    given::Given,
    notify::{Datagram, look, pass_pidfd, take},
};

/// Longer ones are not heard, as by systemd.
const MESSAGE_BYTES: usize = 4096;

/// How many messages wait in a socket that nobody reads just now; the kernel's own choice is 10. It is taken from here when
/// a socket is made.
const QUEUE: &str = "/proc/sys/net/unix/max_dgram_qlen";
const QUEUE_LEN: u32 = 512;

/// Makes room in the sockets that are made from here on. On a machine that is not ours the setting is not ours either.
pub(in crate::daemon) fn raise_queue() {
    let enough = |text: String| text.trim().parse().is_ok_and(|now: u32| now >= QUEUE_LEN);
    if fs::read_to_string(QUEUE).is_ok_and(enough) {
        return;
    }
    if let Err(error) = fs::write(QUEUE, QUEUE_LEN.to_string()) {
        tracing::warn!("write {QUEUE}: {error}: what services say while motherd is away may not find room");
    }
}

/// One service's readiness socket.
#[derive(Debug)]
pub(in crate::daemon) struct Readiness {
    socket: Given,
    path: PathBuf,
    /// The next notice was given out, and is still in the socket.
    given: Cell<bool>,
}

/// What was said, and who said it.
#[derive(Debug)]
pub(in crate::daemon) struct Notice {
    /// By SCM_CREDENTIALS; `None` for one whose pid is none here.
    pub(super) pid: Option<u32>,
    /// By SCM_PIDFD, where the kernel has that.
    pub(super) pidfd: Option<OwnedFd>,
    /// What was said.
    pub(super) message: Message,
    /// What came with it. To be closed when it is done with, and not before: taking it out of the socket is a close of each too.
    pub(super) descriptors: Vec<Given>,
}

impl Readiness {
    /// A new socket at this path, in the place of what is there.
    pub(in crate::daemon) fn create(path: PathBuf) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = far_up(socket(AddressFamily::Unix, SockType::Datagram, flags, None)?);
        setsockopt(&socket, sockopt::PassCred, &true)?;
        if !pass_pidfd(socket.as_fd())? {
            tracing::debug!("this kernel names senders by their pids alone");
        }
        bind(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
        // Services run as users of their own. Who else writes here is not believed.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        Ok(Self { socket: socket.into(), path, given: Cell::new(false) })
    }

    /// The socket that initldr kept.
    pub(in crate::daemon) fn adopt(socket: OwnedFd, path: PathBuf) -> Self {
        Self { socket: socket.into(), path, given: Cell::new(false) }
    }

    /// Whether it can be reached; where somebody has cleared the folder, the service needs another.
    pub(in crate::daemon) fn has_path(&self) -> bool {
        self.path.exists()
    }

    /// Its service is at rest, and the path goes. It does not when this is dropped: however motherd ends, its successor
    /// adopts the socket, and services that run on speak to it by its path.
    pub(in crate::daemon) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("remove {}: {error}", self.path.display());
        }
    }

    /// For NOTIFY_SOCKET.
    pub(in crate::daemon) fn path(&self) -> &Path {
        &self.path
    }

    /// For epoll and for initldr.
    pub(in crate::daemon) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next notice, which stays in the socket until [`Readiness::done`] or the next call of this; `None` where there is
    /// none. What is longer than any message is passed over.
    pub(in crate::daemon) fn next(&self) -> Option<Notice> {
        let mut bytes = [0; MESSAGE_BYTES];
        loop {
            self.done();
            match look(self.socket.as_fd(), &mut bytes) {
                Ok(Datagram { cut: true, pid, descriptors, .. }) => {
                    self.given.set(true);
                    self.done();
                    drop(descriptors);
                    tracing::debug!("{}: a message of {pid:?} is too long", self.path.display());
                }
                Ok(Datagram { bytes: length, pid, pidfd, descriptors, .. }) => {
                    self.given.set(true);
                    let message = Message::parse(bytes.get(..length).unwrap_or_default());
                    return Some(Notice { pid, pidfd, message, descriptors });
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return None,
                Err(errno) => {
                    tracing::error!("read {}: {errno}", self.path.display());
                    return None;
                }
            }
        }
    }

    /// What the last notice said is recorded.
    pub(in crate::daemon) fn done(&self) {
        if self.given.take()
            && let Err(errno) = take(self.socket.as_fd())
        {
            tracing::error!("read {}: {errno}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn ready_is_heard_with_the_pid_of_who_said_it() {
        let scratch = Scratch::new();
        let readiness = Readiness::create(scratch.path().join("notify/web")).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        assert!(readiness.next().is_none());
        client.send_to(b"STATUS=almost", readiness.path()).unwrap();
        client.send_to(b"STATUS=now\nREADY=1\n", readiness.path()).unwrap();
        client.send_to(&vec![b'x'; 100_000], readiness.path()).unwrap();
        client.send_to(b"NOTREADY=1", readiness.path()).unwrap();
        for ready in [false, true, false] {
            let notice = readiness.next().unwrap();
            assert_eq!((notice.pid, notice.message.ready), (Some(std::process::id()), ready));
        }
        assert!(readiness.next().is_none());
    }

    #[test]
    fn what_is_said_while_nobody_listens_waits() {
        let scratch = Scratch::new();
        let path = scratch.path().join("web");
        let readiness = Readiness::create(path.clone()).unwrap();
        let kept = readiness.fd().try_clone_to_owned().unwrap();
        UnixDatagram::unbound().unwrap().send_to(b"READY=1", &path).unwrap();
        assert!(readiness.next().is_some_and(|notice| notice.message.ready));
        drop(readiness); // a motherd that has ended before it recorded that
        let readiness = Readiness::adopt(kept, path);
        assert!(readiness.next().is_some_and(|notice| notice.message.ready));
        readiness.done();
        assert!(readiness.next().is_none());
    }
}
