//! The one wait, and what each descriptor means.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{self, Seek},
    os::fd::BorrowedFd,
    time::Duration,
};

use initldr::link::{ExitRecord, Signal, ToManager};
use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout},
        time::TimeSpec,
        timerfd::{Expiration, TimerSetTimeFlags},
    },
};

use super::{Daemon, Fatal, conditions::Kind, now, proc, upgrade::Upgrade};
use crate::{
    control::server::Token,
    eventlog::What,
    failpoint,
    graph::Id,
    manager::End,
    supervise::{Cause, Event, Exit, ExitHow, Requester, State},
};

/// What a descriptor in the epoll set is, packed into `epoll_event.data`: the kind in the low four bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Link,
    Timer,
    Control(Token),
    Log(Id),
    Cgroup(Id),
    Notify(Id),
    Ready(Id),
    Held(Id),
    Health(Id),
    Main(Id),
    Socket(Id),
    Clock,
    Upgrade,
    Mounts,
    Conditions(Kind),
    /// The trigger of this number.
    Pressure(Id, u8),
}

impl Source {
    pub(super) fn pack(self) -> u64 {
        match self {
            Self::Link => 0,
            Self::Timer => 1,
            Self::Control(token) => token.as_u64() << 4 | 2,
            Self::Log(id) => (id.0 as u64) << 4 | 3,
            Self::Cgroup(id) => (id.0 as u64) << 4 | 4,
            Self::Notify(id) => (id.0 as u64) << 4 | 5,
            Self::Socket(id) => (id.0 as u64) << 4 | 6,
            Self::Clock => 7,
            Self::Held(id) => (id.0 as u64) << 4 | 8,
            Self::Health(id) => (id.0 as u64) << 4 | 9,
            Self::Main(id) => (id.0 as u64) << 4 | 10,
            Self::Upgrade => 11,
            Self::Mounts => 12,
            Self::Conditions(kind) => kind.number() << 4 | 13,
            Self::Ready(id) => (id.0 as u64) << 4 | 15,
            Self::Pressure(id, number) => (id.0 as u64) << 12 | u64::from(number) << 4 | 14,
        }
    }

    fn unpack(data: u64) -> Option<Self> {
        let id = || usize::try_from(data >> 4).ok().map(Id);
        match data & 15 {
            0 => Some(Self::Link),
            1 => Some(Self::Timer),
            2 => Some(Self::Control(Token::from_u64(data >> 4))),
            3 => id().map(Self::Log),
            4 => id().map(Self::Cgroup),
            5 => id().map(Self::Notify),
            6 => id().map(Self::Socket),
            7 => Some(Self::Clock),
            8 => id().map(Self::Held),
            9 => id().map(Self::Health),
            10 => id().map(Self::Main),
            11 => Some(Self::Upgrade),
            12 => Some(Self::Mounts),
            13 => Kind::of_number(data >> 4).map(Self::Conditions),
            14 => {
                let number = u8::try_from(data >> 4 & 0xff).ok()?;
                usize::try_from(data >> 12).ok().map(|id| Self::Pressure(Id(id), number))
            }
            15 => id().map(Self::Ready),
            _ => None,
        }
    }
}

/// Which of the control server's descriptors are in the epoll set, and for what.
#[derive(Debug, Default)]
pub(super) struct Watching(BTreeMap<Token, EpollFlags>);

/// Adds a descriptor to the epoll set. It leaves the set by being closed.
pub(super) fn watch(epoll: &Epoll, fd: BorrowedFd<'_>, source: Source, flags: EpollFlags) -> io::Result<()> {
    Ok(epoll.add(fd, EpollEvent::new(flags, source.pack()))?)
}

impl Daemon {
    /// The descriptors that are always there.
    pub(super) fn watch_all(&mut self) -> io::Result<()> {
        watch(&self.epoll, self.link.fd(), Source::Link, EpollFlags::EPOLLIN)?;
        self.epoll.add(&self.timer, EpollEvent::new(EpollFlags::EPOLLIN, Source::Timer.pack()))?;
        self.watch_clock()?;
        watch(&self.epoll, self.stock.fd(), Source::Mounts, EpollFlags::EPOLLPRI)?;
        self.watch_control()
    }

    /// Follows what the control server wants to be woken for.
    fn watch_control(&mut self) -> io::Result<()> {
        let mut current = BTreeMap::new();
        for watch in self.server.watches() {
            let mut flags = EpollFlags::empty();
            flags.set(EpollFlags::EPOLLIN, watch.read);
            flags.set(EpollFlags::EPOLLOUT, watch.write);
            let mut event = EpollEvent::new(flags, Source::Control(watch.token).pack());
            match self.watching.0.get(&watch.token) {
                None => self.epoll.add(watch.fd, event)?,
                Some(known) if *known != flags => self.epoll.modify(watch.fd, &mut event)?,
                Some(_) => {}
            }
            current.insert(watch.token, flags);
        }
        self.watching = Watching(current);
        Ok(())
    }

    /// Whether somebody has not yet been sent all that it is to be sent.
    pub(super) fn is_answering(&self) -> bool {
        self.watching.0.values().any(|flags| flags.contains(EpollFlags::EPOLLOUT))
    }

    /// Events in, effects out, for ever.
    pub(super) fn run(&mut self) -> Result<Infallible, Fatal> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            self.feed_streams();
            if self.timers.are_stale() {
                self.load_timers()?;
            }
            // The socket does not wake us for what was taken off it while there was no room to send.
            while self.link.has_kept() {
                self.handle(Source::Link)?;
            }
            self.watch_control().map_err(Fatal::system("epoll_ctl"))?;
            self.arm().map_err(Fatal::system("timerfd_settime"))?;
            // What launches can have ready is made when nothing else is to be done, and then there is nothing to wait for.
            let behind = self.is_behind();
            let idle = !behind && self.stock.wants(now());
            let wait = if idle || behind { EpollTimeout::ZERO } else { EpollTimeout::NONE };
            if !idle && !behind {
                self.rest_before_waiting();
            }
            let count = match self.epoll.wait(&mut events, wait) {
                Ok(0) if idle => {
                    self.stock.make(now());
                    0
                }
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(Fatal::system("epoll_wait")(errno.into())),
            };
            for event in &events[..count] {
                if let Some(source) = Source::unpack(event.data()) {
                    self.handle(source)?;
                }
            }
            if self.is_behind() {
                self.go_on()?;
            }
        }
    }

    /// The timer goes off when the next deadline comes, and not at all where there is none.
    fn arm(&mut self) -> io::Result<()> {
        // What is for when nothing else is to be done does not come between turns.
        let idly = if self.is_behind() {
            None
        } else {
            self.stock.next(now()).into_iter().chain(self.rest.next()).min()
        };
        let next = self
            .manager
            .next_deadline()
            .into_iter()
            .chain(self.server.deadline())
            .chain(self.searches.next())
            .chain(self.jobs.next())
            .chain(self.next_log_deadline())
            .chain(self.next_silence())
            .chain(self.next_check())
            .chain(self.timers.next_boot())
            .chain(self.next_report())
            .chain(self.upgrade.as_ref().map(Upgrade::deadline))
            .chain(self.about.says_at())
            .chain(idly)
            .chain(self.conditions.next())
            .chain(self.watchdog.next())
            .min();
        if next == self.armed {
            return Ok(());
        }
        match next {
            // 0 would disarm it.
            Some(deadline) => {
                let at = TimeSpec::from(deadline.max(Duration::from_nanos(1)));
                self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
            None => self.timer.unset()?,
        }
        self.armed = next;
        Ok(())
    }

    fn handle(&mut self, source: Source) -> Result<(), Fatal> {
        self.complete_launches();
        match source {
            Source::Link => self.link_ready(),
            Source::Timer => self.timer_ready(),
            Source::Control(token) => {
                for incoming in self.server.ready(token, now()) {
                    self.answer(&incoming)?;
                }
                Ok(())
            }
            Source::Log(id) => {
                self.log_ready(id);
                Ok(())
            }
            Source::Cgroup(id) => self.cgroup_ready(id),
            Source::Notify(id) => self.notified(id),
            Source::Ready(id) => self.ready_written(id),
            Source::Held(id) => self.held_ready(id),
            Source::Health(id) => self.health_ready(id),
            Source::Pressure(id, number) => self.pressure_ready(id, number),
            Source::Main(id) => self.main_ready(id),
            Source::Socket(id) => self.socket_ready(id),
            Source::Clock => self.clock_ready(),
            Source::Upgrade => self.upgrade_ready(),
            Source::Mounts => {
                self.stock.mounts_changed(now());
                Ok(())
            }
            Source::Conditions(kind) => self.conditions_ready(kind),
        }
    }

    fn timer_ready(&mut self) -> Result<(), Fatal> {
        match self.timer.wait() {
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(Fatal::system("read the timer")(errno.into())),
        }
        self.armed = None;
        self.server.expire(now());
        self.search(now())?;
        self.end_jobs(now())?;
        self.end_upgrade(now())?;
        self.say_alive(now())?;
        self.arm_watchdog(now())?;
        self.tell_dropped();
        self.end_silences(now())?;
        self.run_checks(now())?;
        self.fire_timers()?;
        self.look_at_sockets(now())?;
        self.report_ending();
        self.rest();
        failpoint::hit("timer.due");
        let effects = self.manager.tick(now());
        self.dispatch(effects)
    }

    /// All that initldr has to say, and then one acknowledgement.
    fn link_ready(&mut self) -> Result<(), Fatal> {
        let mut exits = Vec::new();
        while let Some((message, _fd)) = self.link.receive(false)? {
            match message {
                ToManager::Exit(exit) => {
                    failpoint::hit("exit.heard");
                    self.exited(&exit)?;
                    failpoint::hit("exit.handled");
                    exits.push(exit);
                }
                ToManager::Signal(Signal { number, sender_pid, sender_uid }) => {
                    self.signalled(number, Requester { uid: sender_uid, pid: sender_pid })?;
                    self.link.alive()?;
                }
                ToManager::StoreAnswer { name, errno } if self.executed(&name, errno)? => {}
                ToManager::StoreAnswer { name, errno } if errno != 0 => {
                    self.not_kept(name.as_str(), Errno::from_raw(errno));
                }
                ToManager::StoreAnswer { .. } => {}
                ToManager::Welcome(_) | ToManager::Stored(..) | ToManager::ReplayEnd | ToManager::Left(_) => {
                    tracing::error!("initldr says {message:?} out of turn");
                }
            }
        }
        if !exits.is_empty() {
            // What is to be started again at once is, and does not wait for the timer to say so.
            let effects = self.manager.tick(now());
            self.dispatch(effects)?;
        }
        self.acknowledge(&exits)
    }

    /// initldr does not keep a descriptor. What it is of runs on, and is told of: it would notice the end of this motherd.
    fn not_kept(&mut self, slot: &str, errno: Errno) {
        let service = slot.split('/').nth(1).unwrap_or_default().to_owned();
        if self.link.refused(slot, errno) {
            tracing::error!("initldr does not keep {slot}: {errno}");
            self.note(What::Manager, &service, &Cause::new(format!("initldr does not keep {slot}: {errno}")));
        } else {
            tracing::warn!("initldr does not keep {slot}: {errno}");
        }
        if slot == super::watchdog::SLOT {
            self.watchdog_refused();
        }
    }

    /// A process was reaped. Only main processes are known here; the others are told of by their cgroup.
    pub(super) fn exited(&mut self, record: &ExitRecord) -> Result<(), Fatal> {
        let exit = exit_of(record);
        let of = |id: &Id| {
            self.manager
                .unit(*id)
                .main()
                .is_some_and(|main| main.pid == record.pid && main.launched <= exit.at)
        };
        let id = self.manager.graph().ids().find(of);
        match id {
            Some(id) => self.main_exited(id, exit),
            None => match self.command_of(record.pid, &exit) {
                Some(id) => self.event(id, Event::CommandExited(exit)),
                None if self.standby_exited(record.pid, &exit)? => Ok(()),
                None => self.job_exited(record.pid, &exit),
            },
        }
    }

    /// A main process has ended. What it said before is heard first: it may have named another one, or said that it is ready.
    pub(super) fn main_exited(&mut self, id: Id, exit: Exit) -> Result<(), Fatal> {
        let pid = self.manager.unit(id).main().map(|main| main.pid);
        self.hear_all(id)?;
        if self.manager.unit(id).main().map(|main| main.pid) != pid {
            return Ok(());
        }
        let exit = self.judged(id, exit);
        self.event(id, Event::Exited(exit))
    }

    /// Everything down, then the machine.
    pub(super) fn end(&mut self, how: End, cause: &Cause) -> Result<(), Fatal> {
        tracing::info!("{how:?}: {}", cause.words);
        self.note(What::Manager, "", cause);
        let effects = self.manager.end(how, cause, now());
        self.table.set_ending(how);
        self.announce_the_end();
        self.report_later();
        self.stock.close();
        self.dispatch(effects)
    }

    /// `populated` of a service's cgroup changed.
    pub(super) fn cgroup_ready(&mut self, id: Id) -> Result<(), Fatal> {
        // Reading is what lets the next change wake us.
        if let Some(watch) = self.runtime.get_mut(&id).and_then(|runtime| runtime.watch.as_mut())
            && let Err(error) = watch.rewind().and_then(|()| proc::read_small(watch))
        {
            tracing::debug!("cgroup.events of {}: {error}", self.manager.graph().name(id));
        }
        let state = &self.manager.unit(id).state;
        if matches!(state, State::Stopping { main: None, .. } | State::Orphan) && self.sweep(id) {
            self.event(id, Event::Gone)?;
        }
        Ok(())
    }
}

/// An exit as the manager wants it.
pub(super) fn exit_of(record: &ExitRecord) -> Exit {
    let how = match record.code {
        libc::CLD_EXITED => ExitHow::Exited,
        libc::CLD_DUMPED => ExitHow::Dumped,
        _ => ExitHow::Killed,
    };
    Exit { how, status: record.status, at: Duration::from_nanos(record.boottime_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_comes_back_out_of_the_epoll_set() {
        for source in [
            Source::Link,
            Source::Timer,
            Source::Control(Token::LISTENER),
            Source::Control(Token::from_u64(1 << 40)),
            Source::Log(Id(0)),
            Source::Cgroup(Id(2045)),
            Source::Notify(Id(7)),
            Source::Ready(Id(7)),
            Source::Held(Id(2045)),
            Source::Health(Id(3)),
            Source::Pressure(Id(2045), 15),
            Source::Main(Id(2045)),
            Source::Socket(Id(2045)),
            Source::Clock,
            Source::Upgrade,
            Source::Mounts,
            Source::Conditions(Kind::Network),
        ] {
            assert_eq!(Source::unpack(source.pack()), Some(source));
        }
    }
}
