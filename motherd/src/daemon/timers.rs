//! Timers: their stamps, the clock they wait for, and what they start.
//!
//! A stamp is a small file, `/var/lib/motherd/timers/SERVICE.NUMBER`: it outlives the machine, for `persistent`, and
//! motherd, so that no time counts twice. Calendar times wait for CLOCK_REALTIME on a descriptor of their own, which the
//! kernel wakes when somebody sets the clock; all others wait for CLOCK_BOOTTIME with the daemon's other deadlines.

use std::{collections::BTreeMap, fs, io, os::fd::AsFd, path::PathBuf, time::Duration};

use nix::{
    errno::Errno,
    sys::{
        epoll::EpollFlags,
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::{ClockId as Clock, clock_gettime},
};

use super::{
    Daemon, Fatal,
    events::{Source, watch},
    now,
};
use crate::{
    calendar::timestamp,
    control::protocol::TimerStatus,
    eventlog::What,
    graph::Id,
    service::Timer,
    supervise::{Cause, State},
    timing::{Due, Now, Stamp, due, fired},
};

/// A timer of a service, by its number in the file.
type Key = (Id, usize);

/// All timers.
#[derive(Debug)]
pub(super) struct Timers {
    /// CLOCK_REALTIME.
    clock: TimerFd,
    armed: Option<Duration>,
    folder: PathBuf,
    boot_id: String,
    machine_id: String,
    stamps: BTreeMap<Key, Stamp>,
    due: BTreeMap<Key, Due>,
    /// When each service was started last, on CLOCK_BOOTTIME.
    started: BTreeMap<Id, Duration>,
    /// There are services that were not looked at.
    stale: bool,
    /// The end that is to come (`schedule.rs`).
    pub(super) end: Option<super::schedule::Plan>,
}

fn both() -> Now {
    let realtime = clock_gettime(Clock::CLOCK_REALTIME).map(Duration::from).unwrap_or_default();
    Now { realtime, boottime: now() }
}

impl Timers {
    /// The service is not there any more.
    pub(super) fn forget(&mut self, id: Id) {
        self.started.remove(&id);
    }

    /// No timer yet; stamps are in `folder`.
    pub(super) fn new(folder: PathBuf) -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
        Ok(Self {
            clock: TimerFd::new(ClockId::CLOCK_REALTIME, flags)?,
            armed: None,
            folder,
            boot_id: read("/proc/sys/kernel/random/boot_id")?,
            // Machines without one all have the same jitter, and nothing worse.
            machine_id: read("/etc/machine-id").unwrap_or_default(),
            stamps: BTreeMap::new(),
            due: BTreeMap::new(),
            started: BTreeMap::new(),
            stale: false,
            end: None,
        })
    }

    /// Services were added.
    pub(super) fn services_changed(&mut self) {
        self.stale = true;
    }

    /// Whether [`Daemon::load_timers`] is to be called.
    pub(super) fn are_stale(&self) -> bool {
        self.stale
    }

    /// The next deadline on CLOCK_BOOTTIME.
    pub(super) fn next_boot(&self) -> Option<Duration> {
        self.due.values().filter_map(|due| if let Due::Boot(at) = due { Some(*at) } else { None }).min()
    }

    fn next_real(&self) -> Option<Duration> {
        let timers =
            self.due.values().filter_map(|due| if let Due::Real(at) = due { Some(*at) } else { None });
        timers.chain(self.end.as_ref().map(super::schedule::Plan::next)).min()
    }

    /// Something else is to come at another time.
    pub(super) fn arm_anew(&mut self) -> io::Result<()> {
        self.arm(true)
    }

    /// Has the clock wake us at the next calendar time, and when it is set; not at all where there is no such timer.
    fn arm(&mut self, anew: bool) -> io::Result<()> {
        let next = self.next_real();
        if next == self.armed && !anew {
            return Ok(());
        }
        match next {
            Some(at) => {
                let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
                let at = TimeSpec::from(at.max(Duration::from_nanos(1)));
                self.clock.set(Expiration::OneShot(at), flags)?;
            }
            None => self.clock.unset()?,
        }
        self.armed = next;
        Ok(())
    }

    fn path(&self, name: &str, number: usize) -> PathBuf {
        self.folder.join(format!("{name}.{number}"))
    }

    /// What the file says, if it is of this very timer.
    fn read(&self, name: &str, number: usize, timer: &Timer) -> Option<Stamp> {
        let text = fs::read_to_string(self.path(name, number)).ok()?;
        let mut fields = text.trim_end().splitn(5, ' ');
        let boot = fields.next()?;
        let mut nanoseconds = || fields.next()?.parse().ok().map(Duration::from_nanos);
        let (realtime, boottime) = (nanoseconds()?, nanoseconds()?);
        let fired = fields.next()? == "fired";
        let this_boot = boot == self.boot_id;
        (fields.next()? == timer.to_string()).then_some(Stamp { this_boot, fired, realtime, boottime })
    }

    fn write(&self, name: &str, number: usize, timer: &Timer, stamp: &Stamp) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let path = self.path(name, number);
        let temporary = path.with_added_extension("new");
        let what = if stamp.fired { "fired" } else { "known" };
        let (realtime, boottime) = (stamp.realtime.as_nanos(), stamp.boottime.as_nanos());
        fs::write(&temporary, format!("{} {realtime} {boottime} {what} {timer}\n", self.boot_id))?;
        fs::rename(temporary, path)
    }

    /// Tells timers and machines apart.
    fn seed(&self, name: &str, number: usize) -> u64 {
        let bytes = self.machine_id.bytes().chain(name.bytes()).chain(number.to_le_bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

impl Daemon {
    /// Reads the stamps of all timers and finds out when each goes off. To be called when services are loaded.
    pub(super) fn load_timers(&mut self) -> Result<(), Fatal> {
        let now = both();
        self.timers.stale = false;
        self.timers.stamps.clear();
        self.timers.due.clear();
        for id in self.manager.graph().ids().filter(|id| !self.manager.graph().is_retired(*id)) {
            let name = self.manager.graph().name(id);
            if let Some(main) = self.manager.unit(id).main() {
                self.timers.started.entry(id).or_insert(main.launched);
            }
            for (number, timer) in self.manager.graph().service(id).timers().iter().enumerate() {
                let known = self.timers.read(name, number, timer);
                let stamp = known.unwrap_or(Stamp {
                    this_boot: true,
                    fired: false,
                    realtime: now.realtime,
                    boottime: now.boottime,
                });
                if known.is_none()
                    && let Err(error) = self.timers.write(name, number, timer, &stamp)
                {
                    let folder = self.timers.folder.display();
                    tracing::warn!("{name}: no stamp of its timer in {folder}: {error}");
                }
                self.timers.stamps.insert((id, number), stamp);
            }
        }
        self.plan_timers(true)
    }

    /// When each timer goes off.
    fn plan_timers(&mut self, anew: bool) -> Result<(), Fatal> {
        let now = both();
        for ((id, number), stamp) in &self.timers.stamps {
            let service = self.manager.graph().service(*id);
            let Some(timer) = service.timers().get(*number) else { continue };
            let started = self.timers.started.get(id).copied();
            let seed = self.timers.seed(service.name(), *number);
            match due(timer, stamp, &now, started, seed) {
                Some(at) => self.timers.due.insert((*id, *number), at),
                None => self.timers.due.remove(&(*id, *number)),
            };
        }
        self.timers.arm(anew).map_err(Fatal::system("timerfd_settime"))
    }

    /// Has the clock wake us.
    pub(super) fn watch_clock(&self) -> io::Result<()> {
        watch(&self.epoll, self.timers.clock.as_fd(), Source::Clock, EpollFlags::EPOLLIN)
    }

    /// The clock came to a calendar time, or was set.
    pub(super) fn clock_ready(&mut self) -> Result<(), Fatal> {
        match self.timers.clock.wait() {
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(Errno::ECANCELED) => tracing::info!("the clock was set: timers are counted anew"),
            Err(errno) => return Err(Fatal::system("read the clock")(errno.into())),
        }
        self.follow_plan()?;
        self.plan_timers(true)?;
        self.fire_timers()
    }

    /// A service was started: what counts from there is counted anew.
    pub(super) fn timer_started(&mut self, id: Id) -> Result<(), Fatal> {
        if self.manager.graph().service(id).timers().is_empty() {
            return Ok(());
        }
        self.timers.started.insert(id, now());
        self.plan_timers(false)
    }

    /// Every timer whose time has come starts its service.
    pub(super) fn fire_timers(&mut self) -> Result<(), Fatal> {
        let now = both();
        let come: Vec<(Key, Due)> = self
            .timers
            .due
            .iter()
            .filter(|(_, due)| due.has_come(&now))
            .map(|(key, due)| (*key, *due))
            .collect();
        if come.is_empty() || self.manager.ending().is_some() {
            return Ok(());
        }
        for ((id, number), due) in come {
            let service = self.manager.graph().service(id);
            let (name, timer) = (service.name().to_owned(), service.timers().get(number).cloned());
            let (Some(timer), Some(before)) = (timer, self.timers.stamps.get(&(id, number)).copied()) else {
                continue;
            };
            let stamp = fired(&timer, &before, due, &now);
            // Before it is started: a motherd that dies in between may leave one time out, and never has one twice.
            if let Err(error) = self.timers.write(&name, number, &timer, &stamp) {
                tracing::warn!("{name}: no stamp of its timer in {}: {error}", self.timers.folder.display());
            }
            self.timers.stamps.insert((id, number), stamp);
            let cause = Cause::new(format!("timer: {timer}"));
            let unit = self.manager.unit(id);
            if unit.is_active() && unit.state != State::Done {
                let skipped = cause.because(format!("{}; it is running already", cause.words));
                self.note(What::Timer, &name, &skipped);
                continue;
            }
            let effects = if unit.state == State::Done {
                self.manager.restart(&[id], &cause, now.boottime)
            } else {
                self.manager.boot(id, &cause, now.boottime)
            };
            self.note(What::Timer, &name, &cause);
            if let Some(runtime) = self.runtime.get_mut(&id) {
                // As after a request: the policy is read anew.
                runtime.outdate();
            }
            self.dispatch(effects)?;
        }
        self.plan_timers(false)
    }

    /// All timers, or those of one service.
    pub(super) fn timer_status(&self, only: Option<Id>) -> Vec<TimerStatus> {
        if only.is_some_and(|only| self.manager.graph().service(only).timers().is_empty()) {
            return Vec::new();
        }
        let now = both();
        let mut all = Vec::new();
        for ((id, number), stamp) in &self.timers.stamps {
            let service = self.manager.graph().service(*id);
            let Some(timer) = service.timers().get(*number).filter(|_| only.is_none_or(|only| only == *id))
            else {
                continue;
            };
            let next = self.timers.due.get(&(*id, *number)).map(|due| match due {
                Due::Real(at) => at.saturating_sub(now.realtime),
                Due::Boot(at) => at.saturating_sub(now.boottime),
            });
            all.push(TimerStatus {
                service: service.name().to_owned(),
                schedule: timer.to_string(),
                persistent: timer.persistent,
                next: next.map(|left| timestamp(now.realtime.saturating_add(left))),
                next_in_usec: next.map(|left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX)),
                last: stamp.fired.then(|| timestamp(stamp.realtime)),
            });
        }
        all
    }
}
