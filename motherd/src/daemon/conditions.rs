//! The shell of conditions: what is looked at for whom, and what wakes motherd when it changes.
//!
//! | condition | is looked at again when |
//! | --- | --- |
//! | `path` | an entry changes in a folder on the way to it, links included (inotify); the mounts change |
//! | `mount` | the mounts change (`/proc/self/mountinfo` polls so) |
//! | `network` | a link, an address or a route changes (rtnetlink) |
//! | `socket` | its path changes; any service comes up; and, since listen(2) tells nobody, after a pause that doubles from 10 ms to 5 s |
//!
//! Invariants. Nothing is watched but for a service that waits for it, or that is to go down without it: no descriptor is
//! open and no timer runs for conditions that nobody waits for. What is watched is watched before it is looked at, so no
//! change falls between the two.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        epoll::EpollFlags,
        inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
        },
    },
};

use super::{
    Daemon, Fatal,
    events::{Source, watch},
    machine::{below, holds, steps_to},
    now,
};
use crate::{
    eventlog::What,
    graph::Id,
    manager::Effect,
    service::{OnLoss, Resource},
    supervise::State,
};

/// The first pause before sockets are looked at again, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE (linux/rtnetlink.h).
const NETWORK_GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// What can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Paths,
    Mounts,
    Network,
    Sockets,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Paths, Self::Mounts, Self::Network, Self::Sockets];

    /// For `epoll_event.data`.
    pub(super) fn number(self) -> u64 {
        self as u64
    }

    /// From `epoll_event.data`.
    pub(super) fn of_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// What the change of this may change.
    fn concerns(self, resource: &Resource) -> bool {
        match resource {
            Resource::Path(_) => matches!(self, Self::Paths | Self::Mounts),
            Resource::Unix(_) => matches!(self, Self::Paths | Self::Mounts | Self::Sockets),
            Resource::Tcp(_) => self == Self::Sockets,
            Resource::Mount(_) => self == Self::Mounts,
            Resource::Address | Resource::Route | Resource::Link(_) => self == Self::Network,
        }
    }
}

/// What is looked at.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// For whom, which conditions by their places, and what was found last.
    looked_at: BTreeMap<Id, BTreeMap<usize, bool>>,
    /// Whose state changed since the last look.
    changed: BTreeSet<Id>,
    folders: Option<Folders>,
    mounts: Option<File>,
    network: Option<OwnedFd>,
    /// When sockets are looked at again, and the pause before that.
    again: Option<(Duration, Duration)>,
}

/// The folders on the way to what is waited for.
#[derive(Debug)]
struct Folders {
    inotify: Inotify,
    /// Which names matter in each.
    names: BTreeMap<WatchDescriptor, BTreeSet<OsString>>,
}

impl Conditions {
    /// A service with conditions came into another state.
    pub(super) fn changed(&mut self, id: Id) {
        self.changed.insert(id);
    }

    /// The service is not there any more.
    pub(super) fn forget(&mut self, id: Id) {
        self.looked_at.remove(&id);
        self.changed.remove(&id);
    }

    /// When sockets are looked at again.
    pub(super) fn next(&self) -> Option<Duration> {
        self.again.map(|(at, _)| at)
    }

    /// Something happened after which somebody may listen.
    pub(super) fn hint(&mut self, now: Duration) {
        if self.again.is_some() {
            self.again = Some((now, PAUSE_MIN));
        }
    }
}

impl Daemon {
    /// All conditions of a service, looked at from now on.
    pub(super) fn look(&mut self, id: Id) -> Result<Vec<(usize, bool)>, Fatal> {
        let count = self.manager.graph().service(id).conditions().len();
        self.conditions.looked_at.insert(id, (0..count).map(|place| (place, false)).collect());
        self.watch_conditions().map_err(Fatal::system("watch what conditions are about"))?;
        let found: Vec<(usize, bool)> =
            (0..count).map(|place| (place, self.condition_holds(id, place))).collect();
        self.conditions.looked_at.insert(id, found.iter().copied().collect());
        Ok(found)
    }

    /// What a service that was adopted cannot be without is looked at again; what is to be done for that.
    pub(super) fn adopt_conditions(&mut self) -> Result<Vec<Effect>, Fatal> {
        let mut effects = Vec::new();
        for id in self.manager.graph().ids() {
            let expects = matches!(self.manager.unit(id).state, State::Expecting { .. });
            if !self.wanted_conditions(id).is_empty() && !expects {
                let found = self.look(id)?;
                effects.extend(self.manager.conditions(id, &found, now()));
                self.record();
                self.conditions.changed(id);
            }
        }
        Ok(effects)
    }

    fn condition_holds(&self, id: Id, place: usize) -> bool {
        let condition = self.manager.graph().service(id).conditions().get(place);
        condition.is_some_and(|condition| holds(&condition.resource, &self.paths.root))
    }

    /// Which conditions matter to a service in its state: all while it waits for them, and those whose loss ends it.
    fn wanted_conditions(&self, id: Id) -> BTreeSet<usize> {
        let conditions = self.manager.graph().service(id).conditions().iter().enumerate();
        let unit = self.manager.unit(id);
        let waits = matches!(unit.state, State::Expecting { .. });
        let there = unit.is_active() && unit.state != State::Orphan;
        conditions
            .filter(|(_, condition)| waits || there && condition.on_loss != OnLoss::Ignore)
            .map(|(place, _)| place)
            .collect()
    }

    /// What follows from the states of services for what is looked at.
    pub(super) fn settle_conditions(&mut self) -> Result<(), Fatal> {
        let changed = std::mem::take(&mut self.conditions.changed);
        if changed.is_empty() {
            return Ok(());
        }
        for id in changed {
            let wanted = self.wanted_conditions(id);
            let Some(known) = self.conditions.looked_at.get_mut(&id) else { continue };
            known.retain(|place, _| wanted.contains(place));
            if known.is_empty() {
                self.conditions.looked_at.remove(&id);
            }
        }
        self.watch_conditions().map_err(Fatal::system("watch what conditions are about"))
    }

    /// Opens what wakes us for all that is looked at, and closes what is not needed.
    fn watch_conditions(&mut self) -> io::Result<()> {
        let root = self.paths.root.clone();
        let (mut kinds, mut paths, mut missing) = (BTreeSet::new(), BTreeSet::new(), false);
        for (id, places) in &self.conditions.looked_at {
            let all = self.manager.graph().service(*id).conditions();
            for (place, holds) in places {
                let Some(condition) = all.get(*place) else { continue };
                match &condition.resource {
                    Resource::Path(path) | Resource::Unix(path) => {
                        kinds.extend([Kind::Paths, Kind::Mounts]);
                        paths.insert(below(&root, path));
                    }
                    Resource::Mount(_) => _ = kinds.insert(Kind::Mounts),
                    Resource::Address | Resource::Route | Resource::Link(_) => {
                        kinds.insert(Kind::Network);
                    }
                    Resource::Tcp(_) => {}
                }
                missing |= !holds && Kind::Sockets.concerns(&condition.resource);
            }
        }
        let conditions = &mut self.conditions;
        if !kinds.contains(&Kind::Mounts) {
            conditions.mounts = None;
        } else if conditions.mounts.is_none() {
            let mut file = File::open("/proc/self/mountinfo")?;
            watch(&self.epoll, file.as_fd(), Source::Conditions(Kind::Mounts), EpollFlags::EPOLLPRI)?;
            // What was so when it was opened is no news, once it was read.
            io::copy(&mut file, &mut io::sink())?;
            conditions.mounts = Some(file);
        }
        if !kinds.contains(&Kind::Network) {
            conditions.network = None;
        } else if conditions.network.is_none() {
            let netlink = rtnetlink()?;
            watch(&self.epoll, netlink.as_fd(), Source::Conditions(Kind::Network), EpollFlags::EPOLLIN)?;
            conditions.network = Some(netlink);
        }
        if paths.is_empty() {
            conditions.folders = None;
        } else {
            if conditions.folders.is_none() {
                let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
                let source = Source::Conditions(Kind::Paths);
                watch(&self.epoll, inotify.as_fd(), source, EpollFlags::EPOLLIN)?;
                conditions.folders = Some(Folders { inotify, names: BTreeMap::new() });
            }
            if let Some(folders) = &mut conditions.folders {
                folders.follow(&paths)?;
            }
        }
        conditions.again = match conditions.again {
            again @ Some(_) if missing => again,
            None if missing => Some((now().saturating_add(PAUSE_MIN), PAUSE_MIN)),
            Some(_) | None => None,
        };
        Ok(())
    }

    /// Something of this kind changed.
    pub(super) fn conditions_ready(&mut self, kind: Kind) -> Result<(), Fatal> {
        let news = match kind {
            Kind::Paths => self.conditions.folders.as_mut().is_some_and(Folders::news),
            Kind::Mounts => {
                // Reading is what lets the next change wake us.
                let read = self
                    .conditions
                    .mounts
                    .as_mut()
                    .map(|file| io::Seek::rewind(file).and_then(|()| file.read_to_end(&mut Vec::new())));
                if let Some(Err(error)) = &read {
                    tracing::error!("/proc/self/mountinfo: {error}");
                }
                read.is_some()
            }
            Kind::Network => self.conditions.network.as_ref().is_some_and(drain),
            Kind::Sockets => true,
        };
        if !news {
            return Ok(());
        }
        // What is on the way to a path may be another folder now.
        self.watch_conditions().map_err(Fatal::system("watch what conditions are about"))?;
        self.look_at_all(kind)
    }

    /// Sockets are due.
    pub(super) fn look_at_sockets(&mut self, now: Duration) -> Result<(), Fatal> {
        let Some((_, pause)) = self.conditions.again.filter(|(at, _)| *at <= now) else { return Ok(()) };
        let longer = (pause * 2).min(PAUSE_MAX);
        self.conditions.again = Some((now.saturating_add(pause), longer));
        self.look_at_all(Kind::Sockets)
    }

    /// Looks at all conditions of a kind again, and says what changed.
    fn look_at_all(&mut self, kind: Kind) -> Result<(), Fatal> {
        let looked_at: Vec<Id> = self.conditions.looked_at.keys().copied().collect();
        for id in looked_at {
            // Those before may have ended the wait of this one.
            let Some(known) = self.conditions.looked_at.get(&id).cloned() else { continue };
            let all = self.manager.graph().service(id).conditions();
            let of_kind = |place: &usize| all.get(*place).is_some_and(|one| kind.concerns(&one.resource));
            let found = known.into_iter().filter(|(place, _)| of_kind(place));
            let changes: Vec<(usize, bool)> = found
                .filter_map(|(place, before)| {
                    let holds = self.condition_holds(id, place);
                    (holds != before).then_some((place, holds))
                })
                .collect();
            if changes.is_empty() {
                continue;
            }
            if let Some(known) = self.conditions.looked_at.get_mut(&id) {
                known.extend(changes.iter().copied());
            }
            let effects = self.manager.conditions(id, &changes, now());
            self.dispatch(effects)?;
        }
        self.watch_conditions().map_err(Fatal::system("watch what conditions are about"))
    }

    /// Says what a service waits for, once it was looked at.
    pub(super) fn tell_expectation(&mut self, id: Id) {
        if !matches!(self.manager.unit(id).state, State::Expecting { .. }) {
            return;
        }
        let Some(obstacle) = self.manager.waits_for(id) else { return };
        let name = self.manager.graph().name(id).to_owned();
        tracing::info!("{name}: {obstacle}");
        let cause = self.manager.unit(id).cause.because(obstacle);
        let state = if self.manager.is_blocked(id) { "blocked" } else { "waiting" };
        self.write_event(What::Became, &name, state, &cause);
    }
}

impl Folders {
    /// Watches every folder on the way to these paths, until what is on the way is what is watched.
    fn follow(&mut self, paths: &BTreeSet<PathBuf>) -> io::Result<()> {
        let steps =
            || -> BTreeSet<(PathBuf, OsString)> { paths.iter().flat_map(|path| steps_to(path)).collect() };
        let mut found = steps();
        loop {
            let mut names: BTreeMap<WatchDescriptor, BTreeSet<OsString>> = BTreeMap::new();
            for (folder, name) in &found {
                match self.inotify.add_watch(folder, flags()) {
                    Ok(folder) => _ = names.entry(folder).or_default().insert(name.clone()),
                    // It went a moment ago: what went is told by the folder before it.
                    Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            for folder in self.names.keys().filter(|folder| !names.contains_key(folder)) {
                // One whose folder is gone has gone with it.
                match self.inotify.rm_watch(*folder) {
                    Ok(()) | Err(Errno::EINVAL) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            self.names = names;
            let now = steps();
            if now == found {
                return Ok(());
            }
            found = now;
        }
    }

    /// Takes what was told; whether any of it matters.
    fn news(&mut self) -> bool {
        let mut news = false;
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        let matters =
                            |name| self.names.get(&event.wd).is_some_and(|names| names.contains(name));
                        news |= match &event.name {
                            Some(name) => matters(name),
                            // About the folder itself, or more happened than the kernel keeps; or what we took out.
                            None => !event.mask.contains(AddWatchFlags::IN_IGNORED),
                        };
                    }
                }
                Err(Errno::EAGAIN) => return news,
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    tracing::error!("inotify: {errno}");
                    return true;
                }
            }
        }
    }
}

fn flags() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
}

/// A socket that is told of every change of links, addresses and routes (rtnetlink(7)).
fn rtnetlink() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, NETWORK_GROUPS))?;
    Ok(fd)
}

/// Takes what was told, which is not looked into: what is so now is asked anew. Whether there was anything.
fn drain(netlink: &OwnedFd) -> bool {
    let mut buffer = [0; 8192];
    let mut news = false;
    loop {
        match recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(_) | Err(Errno::ENOBUFS) => news = true,
            Err(Errno::EAGAIN) => return news,
            Err(Errno::EINTR) => {}
            Err(errno) => {
                tracing::error!("rtnetlink: {errno}");
                return news;
            }
        }
    }
}
