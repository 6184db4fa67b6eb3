//! The readiness socket of a service with `start.type = "notify"`: sd_notify(3), as daemons speak it.
//!
//! Invariants: initldr holds the socket too, so what a service says while there is no motherd waits in it; a datagram is
//! believed if the kernel says that its sender lives in the service's cgroup, and not because of what is in it.

use std::{
    fs,
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc::ucred,
    sys::socket::{
        AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, bind, recvmsg,
        setsockopt, socket, sockopt,
    },
};

/// Longer ones are cut by the kernel, as systemd's are.
const MESSAGE_BYTES: usize = 4096;

/// One service's readiness socket.
#[derive(Debug)]
pub(super) struct Readiness {
    socket: OwnedFd,
    path: PathBuf,
}

/// What was said, and who said it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notice {
    /// By SCM_CREDENTIALS.
    pub(super) pid: u32,
    /// `READY=1` was in it.
    pub(super) ready: bool,
}

impl Readiness {
    /// A new socket at this path, in the place of what is there.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        bind(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
        // Services run as users of their own. Who else writes here is not believed.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        Ok(Self { socket, path })
    }

    /// The socket that initldr kept.
    pub(super) fn adopt(socket: OwnedFd, path: PathBuf) -> Self {
        Self { socket, path }
    }

    /// For NOTIFY_SOCKET.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// For epoll and for initldr.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next notice; `None` where there is none.
    pub(super) fn next(&self) -> Option<Notice> {
        loop {
            let mut bytes = [0; MESSAGE_BYTES];
            let mut space = cmsg_space!(ucred);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let message = match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Ok(message) => message,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return None,
                Err(errno) => {
                    tracing::error!("read {}: {errno}", self.path.display());
                    return None;
                }
            };
            let credentials = |control| {
                if let ControlMessageOwned::ScmCredentials(who) = control {
                    u32::try_from(who.pid()).ok()
                } else {
                    None
                }
            };
            let pid = message.cmsgs().ok().and_then(|mut controls| controls.find_map(credentials));
            let length = message.bytes;
            if let Some(pid) = pid {
                return Some(Notice {
                    pid,
                    ready: bytes[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1"),
                });
            }
        }
    }
}

impl Drop for Readiness {
    /// The path goes with the service; a motherd that is killed does not come by here, and its successor adopts.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!("remove {}: {error}", self.path.display());
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
        assert_eq!(readiness.next(), None);
        client.send_to(b"STATUS=almost", readiness.path()).unwrap();
        client.send_to(b"STATUS=now\nREADY=1\n", readiness.path()).unwrap();
        client.send_to(b"NOTREADY=1", readiness.path()).unwrap();
        let said = |ready| Some(Notice { pid: std::process::id(), ready });
        assert_eq!(
            [readiness.next(), readiness.next(), readiness.next()],
            [said(false), said(true), said(false)]
        );
        assert_eq!(readiness.next(), None);
    }

    #[test]
    fn what_is_said_while_nobody_listens_waits() {
        let scratch = Scratch::new();
        let path = scratch.path().join("web");
        let readiness = Readiness::create(path.clone()).unwrap();
        let kept = readiness.fd().try_clone_to_owned().unwrap();
        std::mem::forget(readiness); // a motherd that was killed
        UnixDatagram::unbound().unwrap().send_to(b"READY=1", &path).unwrap();
        assert!(Readiness::adopt(kept, path).next().is_some_and(|notice| notice.ready));
    }
}
