//! What whoever started all of this is told: a container's manager, or the service manager under which initldr is an
//! ordinary service. `READY=1` when the boot target is up and `STOPPING=1` when the end begins, to the socket in
//! $NOTIFY_SOCKET (sd_notify(3)), which initldr hands on.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use super::Daemon;
use crate::graph::Id;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outward {
    address: Option<SocketAddr>,
    /// The boot target, until it was said that it is up.
    target: Option<Id>,
}

impl Outward {
    /// To whom this motherd was told to speak. One that is told nothing says nothing.
    pub(super) fn new(variable: Option<&OsStr>) -> Self {
        let Some(text) = variable else { return Self::default() };
        match address(text) {
            Ok(address) => Self { address: Some(address), target: None },
            Err(error) => {
                tracing::warn!("NOTIFY_SOCKET={}: {error}: nobody is told of readiness", text.display());
                Self::default()
            }
        }
    }

    fn say(&self, text: &str) {
        let Some(address) = &self.address else { return };
        let send = || -> io::Result<usize> {
            let socket = UnixDatagram::unbound()?;
            // Whoever does not read must not be what motherd waits for.
            socket.set_nonblocking(true)?;
            socket.send_to_addr(text.as_bytes(), address)
        };
        if let Err(error) = send() {
            tracing::warn!("{} to $NOTIFY_SOCKET: {error}", text.trim_end());
        }
    }
}

/// A path, or with `@` a name of the abstract namespace.
fn address(text: &OsStr) -> io::Result<SocketAddr> {
    match text.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(text),
        _ => Err(io::Error::other("neither a path nor an abstract name")),
    }
}

impl Daemon {
    /// It is said when this is up.
    pub(super) fn announce_later(&mut self, target: &str) {
        self.outward.target = self.manager.graph().find(target);
    }

    /// Says that the boot target is up, once.
    pub(super) fn announce(&mut self) {
        if self.outward.target.is_some_and(|target| self.manager.unit(target).is_up()) {
            self.outward.target = None;
            self.outward.say("READY=1\n");
        }
    }

    /// Says that the end has begun.
    pub(super) fn announce_the_end(&mut self) {
        self.outward.target = None;
        self.outward.say("STOPPING=1\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_by_either_kind_of_name() {
        let scratch = crate::scratch::Scratch::new();
        let name = format!("motherd-outward-{}", std::process::id());
        let path = scratch.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (variable, socket) in [(path.display().to_string(), by_path), (format!("@{name}"), by_name)] {
            Outward::new(Some(OsStr::new(&variable))).say("READY=1\n");
            let mut bytes = [0; 64];
            let length = socket.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"READY=1\n", "{variable}");
        }
        assert!(Outward::new(Some(OsStr::new("relative"))).address.is_none());
    }
}
