//! The sockets of services: made before the service runs, kept by initldr, handed over at each start.
//!
//! | | not lazy | lazy |
//! | --- | --- | --- |
//! | listens | from when its service is started | from when its service is loaded |
//! | until | its service is down, and is not started by itself | its service is not there any more, or the machine ends |
//! | a connection | waits in the backlog for the service | starts the service, if it is down |
//!
//! In between, restarts, crashes and deaths of motherd refuse no connection: the descriptor is initldr's too. Nothing is
//! ever accepted or read here; a connection is only seen to be waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::sys::epoll::EpollFlags;

use super::{
    Daemon, Fatal,
    events::{Source, watch},
    listen, now,
};
use crate::{
    control::protocol::SocketStatus,
    eventlog::What,
    failpoint,
    graph::Id,
    supervise::{Cause, State},
    sys::given::Given,
};

/// More starts by connections than this in so much time, and connections start it no more until somebody does: it does
/// not take what is waiting.
const STARTS_MAX: u32 = 20;
const STARTS_TIME: Duration = Duration::from_secs(2);

/// All sockets, by service and number in its file.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    held: BTreeMap<(Id, usize), Given>,
    /// Why one is not there.
    refused: BTreeMap<(Id, usize), String>,
    /// Which services are started by a connection now.
    watched: BTreeSet<Id>,
    /// How often connections started each lately.
    starts: BTreeMap<Id, Starts>,
    /// Whose state changed since the last look.
    changed: BTreeSet<Id>,
    /// What initldr kept was taken over: from now on they follow the states of their services.
    loaded: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Starts {
    since: Duration,
    count: u32,
}

impl Sockets {
    /// A service with sockets came into another state.
    pub(super) fn changed(&mut self, id: Id) {
        self.changed.insert(id);
    }

    /// The service is not there any more, and none of its sockets.
    pub(super) fn forget(&mut self, id: Id) {
        self.refused.retain(|(of, _), _| *of != id);
        self.starts.remove(&id);
        self.changed.remove(&id);
    }

    /// The descriptors of a service with their numbers.
    pub(super) fn of(&self, id: Id) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.held.range((id, 0)..=(id, usize::MAX)).map(|((_, number), fd)| (*number, fd.as_fd()))
    }
}

/// The name under which initldr keeps a socket: 2 + 56 + 1 + 2 bytes at most.
fn slot(name: &str, number: usize) -> String {
    format!("s/{name}/{number}")
}

impl Daemon {
    /// Every socket of a service is there, or why one is not.
    pub(super) fn prepare_sockets(&mut self, id: Id) -> Result<Result<(), (String, io::Error)>, Fatal> {
        let service = self.manager.graph().service(id);
        if service.sockets().is_empty() && self.sockets.of(id).next().is_none() {
            return Ok(Ok(()));
        }
        let service = service.clone();
        let root = self.paths.root.clone();
        // Another generation may have others.
        self.drop_sockets(id, |number, fd| {
            !service.sockets().get(number).is_some_and(|socket| listen::is_it(fd, socket, &root))
        })?;
        for (number, socket) in service.sockets().iter().enumerate() {
            if self.sockets.held.contains_key(&(id, number)) {
                continue;
            }
            match listen::open(socket, service.sockets(), &self.paths.root) {
                Ok(fd) => {
                    failpoint::hit("socket.made");
                    self.link.store(&slot(service.name(), number), fd.as_fd())?;
                    failpoint::hit("socket.kept");
                    self.sockets.refused.remove(&(id, number));
                    self.sockets.held.insert((id, number), fd.into());
                }
                Err(error) => {
                    let place = service.sources().locate(&socket.listen.at);
                    let what = format!("{place}: listen on {}", socket.listen.value);
                    self.sockets.refused.insert((id, number), format!("{what}: {error}"));
                    return Ok(Err((what, error)));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Each is in the mode that its file asks for, whatever who had it before has done: the mode belongs to the socket, and not
    /// to who holds it.
    pub(super) fn hand_over_sockets(&self, id: Id) -> Result<(), (String, io::Error)> {
        let sockets = self.manager.graph().service(id).sockets();
        for (number, fd) in self.sockets.of(id) {
            let Some(socket) = sockets.get(number) else { continue };
            listen::set_nonblocking(fd, socket.nonblocking)
                .map_err(|error| (format!("fcntl of {}", socket.listen.value), error))?;
        }
        Ok(())
    }

    /// A socket that initldr kept; `slot` is its name without `s/`. One that no file describes any more is let go.
    pub(super) fn adopt_socket(&mut self, slot_name: &str, fd: OwnedFd) -> Result<(), Fatal> {
        let found = slot_name.rsplit_once('/').and_then(|(name, number)| {
            let (id, number) = (self.manager.graph().find(name)?, number.parse().ok()?);
            let socket = self.manager.graph().service(id).sockets().get(number)?;
            listen::is_it(fd.as_fd(), socket, &self.paths.root).then_some((id, number))
        });
        match found {
            Some(key) => {
                self.sockets.held.insert(key, fd.into());
                Ok(())
            }
            None => Ok(self.link.forget(&format!("s/{slot_name}"))?),
        }
    }

    /// The lazy sockets listen, and every socket is as the state of its service wants it. To be called when services are
    /// loaded.
    pub(super) fn load_sockets(&mut self) -> Result<(), Fatal> {
        self.sockets.loaded = true;
        for id in self.manager.graph().ids() {
            if self.manager.graph().is_retired(id) {
                self.close_sockets(id)?;
                continue;
            }
            let sockets = self.manager.graph().service(id).sockets();
            if sockets.is_empty() && self.sockets.of(id).next().is_none() {
                continue;
            }
            if sockets.iter().any(|socket| socket.lazy)
                && let Err((what, error)) = self.prepare_sockets(id)?
            {
                let name = self.manager.graph().name(id).to_owned();
                tracing::error!("{name}: {what}: {error}");
                self.note(What::Socket, &name, &Cause::new(format!("{what}: {error}")));
            }
            self.sockets.changed(id);
        }
        self.settle_sockets()
    }

    /// What follows from the states of services for their sockets.
    pub(super) fn settle_sockets(&mut self) -> Result<(), Fatal> {
        if !self.sockets.loaded {
            return Ok(());
        }
        for id in std::mem::take(&mut self.sockets.changed) {
            let service = self.manager.graph().service(id);
            let lazy = service.sockets().iter().any(|socket| socket.lazy);
            let state = &self.manager.unit(id).state;
            let ending = self.manager.ending().is_some();
            let down = matches!(state, State::Stopped | State::Failed);
            let waits_for_connections =
                lazy && !ending && *state == State::Stopped && !self.starts_too_often(id);
            if down && (!lazy || ending) {
                self.close_sockets(id)?;
            }
            self.watch_sockets(id, waits_for_connections)?;
        }
        Ok(())
    }

    fn close_sockets(&mut self, id: Id) -> Result<(), Fatal> {
        let service = self.manager.graph().service(id).clone();
        let held: Vec<usize> = self.sockets.of(id).map(|(number, _)| number).collect();
        self.drop_sockets(id, |_, _| true)?;
        for (number, socket) in service.sockets().iter().enumerate() {
            if held.contains(&number)
                && let Err(error) = listen::remove(&socket.listen.value, &self.paths.root)
            {
                tracing::warn!("{}: remove {}: {error}", service.name(), socket.listen.value);
            }
        }
        Ok(())
    }

    /// Gives sockets up. They leave the epoll set first: what initldr still holds would stay in it.
    fn drop_sockets(
        &mut self,
        id: Id,
        unwanted: impl Fn(usize, BorrowedFd<'_>) -> bool,
    ) -> Result<(), Fatal> {
        let numbers: Vec<usize> = self
            .sockets
            .of(id)
            .filter(|(number, fd)| unwanted(*number, *fd))
            .map(|(number, _)| number)
            .collect();
        if !numbers.is_empty() {
            self.watch_sockets(id, false)?;
        }
        let name = self.manager.graph().name(id).to_owned();
        for number in numbers {
            self.sockets.held.remove(&(id, number));
            self.link.forget(&slot(&name, number))?;
        }
        Ok(())
    }

    fn watch_sockets(&mut self, id: Id, wanted: bool) -> Result<(), Fatal> {
        if wanted == self.sockets.watched.contains(&id) {
            return Ok(());
        }
        let service = self.manager.graph().service(id);
        for (number, fd) in self.sockets.of(id) {
            if !service.sockets().get(number).is_some_and(|socket| socket.lazy) {
                continue;
            }
            let done = if wanted {
                watch(&self.epoll, fd, Source::Socket(id), EpollFlags::EPOLLIN)
            } else {
                self.epoll.delete(fd).map_err(io::Error::from)
            };
            done.map_err(Fatal::system("watch a socket"))?;
        }
        if wanted {
            self.sockets.watched.insert(id);
        } else {
            self.sockets.watched.remove(&id);
        }
        Ok(())
    }

    /// Somebody connects to a service that is down.
    pub(super) fn socket_ready(&mut self, id: Id) -> Result<(), Fatal> {
        if !self.sockets.watched.contains(&id) {
            return Ok(());
        }
        self.watch_sockets(id, false)?;
        let now = now();
        let starts = self.sockets.starts.entry(id).or_default();
        if now.saturating_sub(starts.since) > STARTS_TIME {
            *starts = Starts { since: now, count: 0 };
        }
        starts.count += 1;
        let service = self.manager.graph().service(id);
        let name = service.name().to_owned();
        let names: Vec<String> =
            service.sockets().iter().map(|socket| socket.listen.value.to_string()).collect();
        let cause = if self.starts_too_often(id) {
            let cause = Cause::new(
                "it was started by connections too often and took none: start it to have it listen again",
            );
            tracing::error!("{name}: {}", cause.words);
            self.note(What::Socket, &name, &cause);
            return Ok(());
        } else {
            Cause::new(format!("a connection to {}", names.join(" or ")))
        };
        self.note(What::Socket, &name, &cause);
        let effects = self.manager.boot(id, &cause, now);
        self.dispatch(effects)
    }

    fn starts_too_often(&self, id: Id) -> bool {
        self.sockets.starts.get(&id).is_some_and(|starts| starts.count > STARTS_MAX)
    }

    /// Somebody asked for the service: connections may start it again.
    pub(super) fn forgive_starts(&mut self, id: Id) {
        self.sockets.starts.remove(&id);
    }

    /// For `status`.
    pub(super) fn socket_status(&self, id: Id) -> Vec<SocketStatus> {
        let sockets = self.manager.graph().service(id).sockets().iter().enumerate();
        sockets
            .map(|(number, socket)| SocketStatus {
                name: socket.name.clone(),
                listen: socket.listen.value.to_string(),
                lazy: socket.lazy,
                listening: self.sockets.held.contains_key(&(id, number)),
                starts_it: self.sockets.watched.contains(&id) && socket.lazy,
                error: self.sockets.refused.get(&(id, number)).cloned(),
            })
            .collect()
    }
}
