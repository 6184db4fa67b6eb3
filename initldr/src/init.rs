//! The loop: what the kernel and motherd say becomes an [`Event`], and what [`Phase::step`] returns is done.
//!
//! ```text
//! reap everything -> act on the clock -> say what is to be said -> wait -> signals -> motherd's messages -> again
//! ```
//!
//! Invariants: `wait` is the one place that blocks, and with nothing due it blocks for ever; each round does a bounded
//! amount of each kind of work, so no storm of one keeps the others waiting; what motherd sends is believed only as far
//! as the store and the ring can check it.

use crate::{
    boot::{self, Log, Role},
    end,
    program::Program,
};
use core::time::Duration;
use initldr::{
    abi::{self, Poll},
    link::{ExitRecord, MESSAGE_SIZE, STATE_SIZE, ToInit},
    outbox::{Greeting, Outbox},
    phase::{Effect, Event, Phase},
    ring::Ring,
    store::Store,
    sys::{self, Errno, Fd, Reaped, Result},
};

/// So many children are reaped, signals read and messages received in one round.
const BATCH: u32 = 256;
/// So many messages are read off a link that has ended. A socket holds some 280 of them; a process that inherited the
/// other end of a dead motherd's link could go on sending for ever.
const LAST_WORDS: u32 = 4096;
/// Where the kernel has no memory for a message, or for a signalfd, this much later is soon enough.
const RETRY: Duration = Duration::from_millis(100);

/// Everything that PID 1 is.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) role: Role,
    pub(crate) log: Log,
    pub(crate) signals: Option<Fd>,
    pub(crate) motherd: Option<u32>,
    rescue: Option<u32>,
    program: Program,
    phase: Phase,
    link: Option<Fd>,
    /// What cannot be sent now is tried again later, without waiting for the socket.
    congested: bool,
    outbox: Outbox,
    ring: &'static mut Ring,
    store: &'static mut Store,
    /// The state memfd.
    state: Option<Fd>,
    down_since: Duration,
    bad_messages: u64,
}

impl Init {
    /// Nothing runs yet.
    pub(crate) fn new(
        role: Role,
        log: Log,
        program: Program,
        ring: &'static mut Ring,
        store: &'static mut Store,
    ) -> Init {
        Init {
            role,
            log,
            signals: None,
            motherd: None,
            rescue: None,
            program,
            phase: Phase::START,
            link: None,
            congested: false,
            outbox: Outbox::SILENT,
            ring,
            store,
            state: None,
            down_since: Duration::ZERO,
            bad_messages: 0,
        }
    }

    /// For ever.
    pub(crate) fn run(mut self) -> ! {
        loop {
            let more = self.reap();
            self.act_on_the_clock();
            self.say();
            let (signals, link) = self.wait(more);
            if signals {
                self.take_signals();
            }
            if link & (abi::POLLHUP | abi::POLLERR) != 0 {
                self.lose_link();
            } else if link & abi::POLLIN != 0 {
                self.listen();
            }
        }
    }

    /// Whether there may be more.
    fn reap(&mut self) -> bool {
        for _ in 0..BATCH {
            match sys::reap() {
                Ok(Some(child)) => self.reaped(child),
                Ok(None) | Err(_) => return false, // ECHILD: there are no children at all
            }
        }
        true
    }

    fn reaped(&mut self, child: Reaped) {
        if self.motherd == Some(child.pid) {
            self.motherd = None;
            self.down_since = sys::boottime();
            self.lose_link(); // its last words first: what it stored and acknowledged, and perhaps End
            let what = if child.code == abi::CLD_EXITED { "exit code" } else { "signal" };
            self.log.say(format_args!("motherd (pid {}) ended: {what} {}", child.pid, child.status));
            self.step(Event::Died { code: child.code, status: child.status });
        } else if self.rescue == Some(child.pid) {
            self.rescue = None;
        } else {
            self.ring.push(ExitRecord {
                sequence: 0, // the ring counts
                pid: child.pid,
                code: child.code,
                status: child.status,
                boottime_ns: nanoseconds(sys::boottime()),
                user_time_us: microseconds(child.user),
                system_time_us: microseconds(child.system),
                max_rss_kib: child.max_rss_kib,
            });
        }
    }

    /// Every deadline that has passed. Each tick moves its deadline into the future or away.
    fn act_on_the_clock(&mut self) {
        while self.phase.deadline().is_some_and(|deadline| deadline <= sys::monotonic()) {
            self.step(Event::Tick);
        }
    }

    fn step(&mut self, event: Event) {
        let (phase, effect) = self.phase.step(event, sys::monotonic());
        self.phase = phase;
        match effect {
            Effect::Nothing => {}
            Effect::PassOn => {} // `take_signals` did, for it knows the sender
            Effect::Launch => match self.launch() {
                Ok(()) => self.step(Event::Launched),
                Err(errno) => {
                    self.log.say(format_args!("launch motherd: {errno}"));
                    self.step(Event::LaunchFailed);
                }
            },
            Effect::Abort => self.kill_motherd(abi::SIGABRT, "said nothing for too long"),
            Effect::Kill => self.kill_motherd(abi::SIGKILL, "hangs or closed the link"),
            Effect::Rescue => {
                if self.rescue.is_none() {
                    self.rescue = self.program.start_rescue(&self.log);
                }
            }
            Effect::End { how, mercy } => end::end(self, how, mercy),
        }
    }

    fn launch(&mut self) -> Result<()> {
        let state = match self.state.take() {
            Some(state) => state,
            None => sys::memfd(c"motherd-state", STATE_SIZE)?,
        };
        let state = self.state.insert(state);
        let (ours, theirs) = sys::socketpair()?;
        self.motherd = Some(self.program.start_motherd(&theirs, state, &self.log)?);
        self.link = Some(ours);
        self.outbox.reset();
        if let Some(signal) = self.phase.stop_signal() {
            self.outbox.signal(signal, (0, 0)); // the one before may have died of it, or before it
        }
        Ok(())
    }

    fn kill_motherd(&self, signal: u32, why: &str) {
        let Some(pid) = self.motherd else { return };
        self.log.say(format_args!("motherd (pid {pid}) {why}: signal {signal}"));
        // It was not reaped, so the pid is its own; the kill can fail for nothing but that.
        sys::kill(pid.cast_signed(), signal).unwrap_or_default();
    }

    /// Whether there are signals, and what there is on the link.
    fn wait(&mut self, more: bool) -> (bool, i16) {
        if self.signals.is_none() {
            self.signals = boot::open_signals();
        }
        let mut link = if self.outbox.listens() { abi::POLLIN } else { 0 };
        if !self.congested && self.next().is_some() {
            link |= abi::POLLOUT;
        }
        let number = |fd: &Option<Fd>| fd.as_ref().map_or(-1, Fd::raw);
        let mut polls = [
            Poll { fd: number(&self.signals), events: abi::POLLIN, revents: 0 },
            Poll { fd: number(&self.link), events: link, revents: 0 },
        ];
        let due = self.phase.deadline().map(|deadline| deadline.saturating_sub(sys::monotonic()));
        let retry = (self.congested || self.signals.is_none()).then_some(RETRY);
        let timeout = if more { Some(Duration::ZERO) } else { due.into_iter().chain(retry).min() };
        self.congested = false;
        match sys::ppoll(&mut polls, timeout) {
            Ok(()) => (polls[0].revents != 0, polls[1].revents),
            Err(_) => {
                // No memory for two pollfds: look at everything, a little later.
                sys::ppoll(&mut [], Some(RETRY)).unwrap_or_default();
                (true, abi::POLLIN)
            }
        }
    }

    fn take_signals(&mut self) {
        for _ in 0..BATCH {
            let Some(signal) = self.signals.as_ref().and_then(sys::next_signal) else { break };
            if signal.number != abi::SIGCHLD {
                self.log
                    .say(format_args!("signal {} from pid {} uid {}", signal.number, signal.pid, signal.uid));
                self.outbox.signal(signal.number, (signal.pid, signal.uid));
                self.step(Event::Signal(signal.number));
            }
        }
    }

    fn next(&self) -> Option<(initldr::link::ToManager, Option<i32>)> {
        let greeting = Greeting {
            generation: self.phase.generation(),
            pid1: self.role != Role::Process,
            cause: self.phase.cause(),
            down_since_boottime_ns: nanoseconds(self.down_since),
        };
        self.link.as_ref()?;
        self.outbox.next(greeting, self.ring, self.store)
    }

    /// As much as the socket takes.
    fn say(&mut self) {
        let mut bytes = [0; MESSAGE_SIZE];
        while let Some((message, fd)) = self.next() {
            message.encode(&mut bytes);
            let sent = self.link.as_ref().map_or(Err(Errno(abi::EPIPE)), |link| sys::send(link, &bytes, fd));
            match sent {
                Ok(()) => self.outbox.sent(&message, self.ring, self.store),
                Err(Errno(abi::EAGAIN)) => return,
                Err(Errno(abi::EPIPE | abi::ECONNRESET)) => return self.lose_link(),
                Err(_) => {
                    self.congested = true;
                    return;
                }
            }
        }
    }

    /// motherd's messages, as long as there is no answer to be sent.
    fn listen(&mut self) {
        for _ in 0..BATCH {
            if !self.outbox.listens() {
                return;
            }
            match self.receive() {
                Ok(true) => {}
                Ok(false) | Err(Errno(abi::EAGAIN)) => return,
                Err(_) => return self.lose_link(),
            }
        }
    }

    /// The other end is closed: what is still in the socket, and then the end of it.
    fn lose_link(&mut self) {
        for _ in 0..LAST_WORDS {
            if !matches!(self.receive(), Ok(true)) {
                break;
            }
        }
        if self.link.take().is_some() {
            self.step(Event::LinkLost);
        }
    }

    /// Whether there was a message.
    fn receive(&mut self) -> Result<bool> {
        let Some(link) = &self.link else { return Ok(false) };
        let mut bytes = [0; MESSAGE_SIZE + 1]; // one more, so that a longer one is seen to be longer
        let (size, fd) = sys::receive(link, &mut bytes)?;
        if size == 0 {
            return Err(Errno(abi::EPIPE));
        }
        match ToInit::decode(bytes.get(..size).unwrap_or_default()) {
            Ok(message) => self.obey(message, fd),
            Err(error) => {
                self.bad_messages += 1;
                if self.bad_messages.is_power_of_two() {
                    self.log
                        .say(format_args!("bad message number {} from motherd: {error}", self.bad_messages));
                }
            }
        }
        Ok(true)
    }

    /// A descriptor that comes with anything but Store is closed on the way out.
    fn obey(&mut self, message: ToInit, fd: Option<Fd>) {
        match message {
            ToInit::Hello { .. } => self.outbox.hello(),
            ToInit::Acknowledge { sequence } => self.ring.acknowledge(self.outbox.acknowledged(sequence)),
            ToInit::Store { name } => self.outbox.answer(name, self.store.put(name, fd)),
            ToInit::Drop { name } => self.outbox.answer(name, self.store.remove(name)),
            ToInit::Alive => self.step(Event::Alive),
            ToInit::End { how } => {
                self.log.say(format_args!("motherd asks for the end: {how:?}"));
                self.step(Event::End(how));
            }
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
