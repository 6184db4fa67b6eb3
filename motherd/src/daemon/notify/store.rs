//! Descriptors that services give away to get them back when they start again: FDSTORE=1, FDNAME, FDSTOREREMOVE=1,
//! FDPOLL (sd_pid_notify_with_fds(3)). initldr holds them too, so they outlive motherd as well as the service.
//!
//! A slot is called `fd/SERVICE/NUMBER:NAME`, with `;` for `:` where FDPOLL=0 was said: the number tells descriptors of one
//! name apart and keeps their order, and the rest is in the slot because nothing else outlives motherd. So a name has what room a slot has: 64 bytes in all.
//!
//! Invariant: a service has at most `notify.fd_store_max` of them, and all together a quarter of initldr's slots; what is one too many, or has a name that is none, is closed
//! and said.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
};

use initldr::link::SlotName;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::epoll::{EpollEvent, EpollFlags},
};

use super::{
    super::{Daemon, Fatal, events::Source},
    message::Message,
};
use crate::{
    graph::Id,
    sys::{given::Given, notify::is_same_file},
};

/// All services together have at most so many, a quarter of initldr's slots: however many are given away, there is room for
/// what services need to run.
const ALL_MAX: usize = initldr::store::CAPACITY / 4;

/// FDNAME of a descriptor that came without one.
const UNNAMED: &str = "stored";

/// A descriptor that is kept for a service.
#[derive(Debug)]
pub(in crate::daemon) struct Held {
    number: u32,
    /// Without FDPOLL=0: it is let go when its other side hangs up.
    polled: bool,
    /// FDNAME
    pub(in crate::daemon) name: String,
    /// Itself.
    pub(in crate::daemon) fd: Given,
}

impl Held {
    fn slot(&self, service: &str) -> String {
        let mark = if self.polled { ':' } else { ';' };
        format!("fd/{service}/{}{mark}{}", self.number, self.name)
    }
}

/// Whether a slot of initldr's is one of these.
pub(in crate::daemon) fn is_held(slot: &str) -> bool {
    slot.starts_with("fd/")
}

/// What initldr kept, by the service.
pub(in crate::daemon) fn held_slots(stored: BTreeMap<String, OwnedFd>) -> BTreeMap<String, Vec<Held>> {
    let mut by_service: BTreeMap<String, Vec<Held>> = BTreeMap::new();
    for (slot, fd) in stored {
        let parts = slot.strip_prefix("fd/").and_then(|rest| rest.split_once('/'));
        let Some((service, rest)) = parts else { continue };
        let Some(end) = rest.find([':', ';']) else { continue };
        let Ok(number) = rest[..end].parse() else { continue };
        let (polled, name) = (rest[end..].starts_with(':'), rest[end + 1..].to_owned());
        by_service.entry(service.to_owned()).or_default().push(Held { number, polled, name, fd: fd.into() });
    }
    for held in by_service.values_mut() {
        held.sort_by_key(|held| held.number);
    }
    by_service
}

impl Daemon {
    /// FDSTORE=1. What is not kept stays where it is.
    pub(super) fn hold(
        &mut self,
        id: Id,
        message: &Message,
        descriptors: &mut Vec<Given>,
    ) -> Result<(), Fatal> {
        let name = self.manager.graph().name(id).to_owned();
        let max = self.manager.graph().service(id).program().map_or(0, |program| program.notify.fd_store_max);
        let fd_name = message.fd_name.clone().unwrap_or_else(|| UNNAMED.to_owned());
        let mut closed = Vec::new();
        for fd in std::mem::take(descriptors) {
            let held = &self.runtime.entry(id).or_default().held;
            if held.iter().any(|known| is_same_file(known.fd.as_fd(), fd.as_fd())) {
                closed.push(fd);
                continue;
            }
            let number = held.last().map_or(0, |last| last.number.saturating_add(1));
            let new = Held { number, polled: !message.no_poll, name: fd_name.clone(), fd };
            let slot = new.slot(&name);
            let held = held.len();
            let all = self.runtime.values().map(|runtime| runtime.held.len()).sum::<usize>();
            let why = if held >= max {
                format!("it has {max} descriptors kept (`notify.fd_store_max`): `{fd_name}` is closed")
            } else if all >= ALL_MAX {
                format!("services have {ALL_MAX} descriptors kept already: `{fd_name}` is closed")
            } else if SlotName::new(&slot).is_none() {
                format!("`{fd_name}` is too long a name for a descriptor: it is closed")
            } else {
                self.link.store(&slot, new.fd.as_fd())?;
                self.watch_held(id, &new);
                self.runtime.entry(id).or_default().held.push(new);
                continue;
            };
            tracing::warn!("{name}: {why}");
            closed.push(new.fd);
        }
        *descriptors = closed;
        Ok(())
    }

    /// Has the end of its other side wake us. A descriptor that cannot be waited for has none.
    fn watch_held(&self, id: Id, held: &Held) {
        if !held.polled {
            return;
        }
        let event = EpollEvent::new(EpollFlags::empty(), Source::Held(id).pack());
        match self.epoll.add(&held.fd, event) {
            Ok(()) | Err(Errno::EPERM | Errno::EEXIST) => {}
            Err(errno) => tracing::error!("watch a descriptor of {}: {errno}", self.manager.graph().name(id)),
        }
    }

    /// FDSTOREREMOVE=1
    pub(super) fn let_go_of(&mut self, id: Id, fd_name: &str) -> Result<(), Fatal> {
        self.release(id, |held| held.name == fd_name)
    }

    /// Everything that is kept for it.
    pub(in crate::daemon) fn let_go_of_all(&mut self, id: Id) -> Result<(), Fatal> {
        self.release(id, |_| true)
    }

    /// The other side of one of its descriptors is gone.
    pub(in crate::daemon) fn held_ready(&mut self, id: Id) -> Result<(), Fatal> {
        self.release(id, |held| {
            let mut fds = [PollFd::new(held.fd.as_fd(), PollFlags::empty())];
            let over = PollFlags::POLLHUP | PollFlags::POLLERR;
            held.polled
                && matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
                && fds[0].revents().is_some_and(|events| events.intersects(over))
        })
    }

    fn release(&mut self, id: Id, over: impl Fn(&Held) -> bool) -> Result<(), Fatal> {
        let Some(runtime) = self.runtime.get_mut(&id) else { return Ok(()) };
        let (gone, kept) = std::mem::take(&mut runtime.held).into_iter().partition(|held| over(held));
        runtime.held = kept;
        let gone: Vec<Held> = gone;
        let name = self.manager.graph().name(id);
        for held in gone {
            // initldr holds a copy, and perhaps the service does: it would stay in the set after it is closed here.
            match self.epoll.delete(&held.fd) {
                Ok(()) | Err(Errno::ENOENT | Errno::EPERM) => {}
                Err(errno) => tracing::error!("epoll_ctl: {errno}"),
            }
            self.link.forget(&held.slot(name))?;
        }
        Ok(())
    }

    /// What initldr kept for a service.
    pub(in crate::daemon) fn adopt_held(&mut self, held: BTreeMap<String, Vec<Held>>) {
        for (service, held) in held {
            // Without a file it is not started and gets nothing back; with one it does, on the day that is there again.
            let Some(id) = self.manager.graph().find(&service) else { continue };
            for one in &held {
                self.watch_held(id, one);
            }
            self.runtime.entry(id).or_default().held = held;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back_by_service_in_the_order_in_which_they_were_stored() {
        let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let slot = |service: &str, number, name: &str| {
            let polled = number != 10;
            (Held { number, polled, name: name.to_owned(), fd: fd().into() }.slot(service), fd())
        };
        let stored = BTreeMap::from([slot("web", 10, "c d"), slot("web", 9, "a"), slot("w@x", 0, "stored")]);
        assert!(stored.keys().all(|slot| is_held(slot)));
        let held = held_slots(stored);
        let names = |service: &str| held[service].iter().map(|held| held.name.as_str()).collect::<Vec<_>>();
        assert_eq!((names("web"), names("w@x")), (vec!["a", "c d"], vec!["stored"]));
        assert_eq!(held["web"].iter().map(|held| held.polled).collect::<Vec<_>>(), [true, false]);
        assert!(
            held_slots(BTreeMap::from([("fd/x".to_owned(), fd()), ("fd/x/y".to_owned(), fd())])).is_empty()
        );
    }
}
