//! The loop: what the kernel and motherd say becomes an [`Event`], and what [`Phase::step`] returns is done.
//!
//! ```text
//! reap everything -> act on the clock -> say what is to be said -> wait -> signals -> motherd's messages -> again
//! ```
//!
//! Invariants: `wait` is the one place that blocks, and with nothing due it blocks for ever; each round does a bounded
//! amount of each kind of work, so no storm of one keeps the others waiting; what motherd sends is believed only as far
//! as the store and the ring can check it.

use crate::boot::{self, Log, Role};
use crate::{end, program::Program};
use core::time::Duration;
use initldr::link::{ExitRecord, MESSAGE_SIZE, STATE_SIZE, ToInit, ToManager};
use initldr::phase::{Effect, Event, Phase};
use initldr::sys::{self, Errno, Fd, Result};
use initldr::{abi::*, outbox::Outbox, ring::Ring, store::Store};

/// So many children are reaped, signals read and messages received in one round.
const BATCH: u32 = 256;
/// So many messages are read off a link that has ended. A socket holds some 280 of them; a process that inherited the
/// other end of a dead motherd's link could go on sending for ever.
const LAST_WORDS: u32 = 4096;
/// Where the kernel has no memory for what is asked of it, this much later is soon enough.
const RETRY: Duration = Duration::from_millis(100);

/// Everything that PID 1 is.
pub(crate) struct Init {
    pub(crate) role: Role,
    pub(crate) log: Log,
    pub(crate) signals: Option<Fd>,
    pub(crate) motherd: Option<u32>,
    rescue: Option<u32>,
    program: Program,
    phase: Phase,
    link: Option<Fd>,
    outbox: Outbox,
    ring: &'static mut Ring,
    store: &'static mut Store,
    /// The state memfd.
    state: Option<Fd>,
    /// Since when there is no motherd.
    down_since: u64,
    bad_messages: u64,
}

/// For ever.
pub(crate) fn run(mut init: Init) -> ! {
    loop {
        let more = init.reap();
        // Each tick moves its deadline into the future or away.
        while init.phase.deadline().is_some_and(|deadline| deadline <= sys::monotonic()) {
            init.step(Event::Tick);
        }
        let timeout = init.say().or(more.then_some(Duration::ZERO));
        let (signals, link) = init.wait(timeout);
        if signals {
            init.take_signals();
        }
        if link & (POLLHUP | POLLERR) != 0 {
            init.lose_link();
        } else if link & POLLIN != 0 {
            init.listen();
        }
    }
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
        let (phase, outbox) = (Phase::START, Outbox::SILENT);
        let (signals, motherd, rescue, link, state) = (None, None, None, None, None);
        let (down_since, bad_messages) = (0, 0);
        Init {
            role,
            log,
            signals,
            motherd,
            rescue,
            program,
            phase,
            link,
            outbox,
            ring,
            store,
            state,
            down_since,
            bad_messages,
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

    fn reaped(&mut self, exit: ExitRecord) {
        if self.motherd == Some(exit.pid) {
            self.motherd = None;
            self.down_since = exit.boottime_ns;
            self.lose_link(); // its last words first: what it stored and acknowledged, and perhaps End
            let what = if exit.code == CLD_EXITED { "exit code" } else { "signal" };
            self.log.say(format_args!("motherd (pid {}) ended: {what} {}", exit.pid, exit.status));
            self.step(Event::Died { code: exit.code, status: exit.status });
        } else if self.rescue == Some(exit.pid) {
            self.rescue = None;
        } else {
            self.ring.push(exit);
        }
    }

    fn step(&mut self, event: Event) {
        let (phase, effect) = self.phase.step(event, sys::monotonic());
        self.phase = phase;
        match effect {
            Effect::Nothing => {}
            Effect::Launch => match self.launch() {
                Ok(()) => self.step(Event::Launched),
                Err(errno) => {
                    self.log.say(format_args!("launch motherd: {errno}"));
                    self.step(Event::LaunchFailed);
                }
            },
            Effect::Kill(signal) => {
                let Some(pid) = self.motherd else { return };
                self.log.say(format_args!("motherd (pid {pid}) hangs, or has no link: signal {signal}"));
                // It was not reaped, so the pid is its own, and the kill cannot fail.
                sys::kill(pid.cast_signed(), signal).unwrap_or_default();
            }
            Effect::Rescue => self.rescue = self.rescue.or_else(|| self.program.start_rescue(&self.log)),
            Effect::PassOn { signal, sender } => self.outbox.signal(signal, sender),
            Effect::End { how, mercy } => end::end(self, how, mercy),
        }
    }

    fn launch(&mut self) -> Result<()> {
        if self.state.is_none() {
            self.state = Some(sys::sealed_memfd(c"motherd-state", STATE_SIZE)?);
        }
        let state = self.state.as_ref().ok_or(Errno(EBADF))?;
        let (ours, theirs) = sys::socketpair()?;
        self.motherd = Some(self.program.start_motherd(&theirs, state, &self.log)?);
        self.link = Some(ours);
        self.outbox.reset();
        if let Some((signal, sender)) = self.phase.stop_signal() {
            self.outbox.signal(signal, sender); // the one before may have died of it, or before it
        }
        Ok(())
    }

    /// Whether there are signals, and what there is on the link. This is where PID 1 waits.
    fn wait(&mut self, timeout: Option<Duration>) -> (bool, i16) {
        self.signals = self.signals.take().or_else(boot::open_signals);
        let hear = if self.outbox.listens() { POLLIN } else { 0 };
        let say = if timeout.is_none() && self.next().is_some() { POLLOUT } else { 0 };
        let number = |fd: &Option<Fd>| fd.as_ref().map_or(-1, Fd::raw);
        let mut polls = [
            Poll { fd: number(&self.signals), events: POLLIN, revents: 0 },
            Poll { fd: number(&self.link), events: hear | say, revents: 0 },
        ];
        let due = self.phase.deadline().map(|deadline| deadline.saturating_sub(sys::monotonic()));
        let retry = self.signals.is_none().then_some(RETRY);
        match sys::ppoll(&mut polls, [timeout, due, retry].into_iter().flatten().min()) {
            Ok(()) => (polls[0].revents != 0, polls[1].revents),
            Err(_) => (true, POLLIN), // no memory for two pollfds: look at everything
        }
    }

    fn take_signals(&mut self) {
        for _ in 0..BATCH {
            let Some((signal, pid, uid)) = self.signals.as_ref().and_then(sys::next_signal) else { break };
            if signal != SIGCHLD {
                self.log.say(format_args!("signal {signal} from pid {pid} uid {uid}"));
                self.step(Event::Signal { signal, sender: (pid, uid) });
            }
        }
    }

    fn next(&self) -> Option<(ToManager, Option<i32>)> {
        self.link.as_ref()?;
        let (unacknowledged, _, lost_exits) = self.ring.counts();
        let welcome = ToManager::Welcome {
            generation: self.phase.generation(),
            pid1: self.role != Role::Process,
            cause: self.phase.cause(),
            stored: self.store.length(),
            unacknowledged,
            lost_exits,
            down_since_boottime_ns: self.down_since,
        };
        self.outbox.next(welcome, self.ring, self.store)
    }

    /// As much as the socket takes. Where the kernel has no memory for more: when to try again.
    fn say(&mut self) -> Option<Duration> {
        let mut bytes = [0; MESSAGE_SIZE];
        while let Some((message, fd)) = self.next() {
            message.encode(&mut bytes);
            match self.link.as_ref().map(|link| sys::send(link, &bytes, fd)) {
                Some(Ok(())) => self.outbox.sent(&message, self.ring, self.store),
                Some(Err(Errno(EAGAIN))) | None => break,
                Some(Err(Errno(EPIPE | ECONNRESET))) => self.lose_link(),
                Some(Err(_)) => return Some(RETRY),
            }
        }
        None
    }

    /// motherd's messages, as long as there is no answer to be sent.
    fn listen(&mut self) {
        for _ in 0..BATCH {
            match if self.outbox.listens() { self.receive() } else { Ok(false) } {
                Ok(true) => {}
                Ok(false) | Err(Errno(EAGAIN)) => return,
                Err(_) => return self.lose_link(),
            }
        }
    }

    /// The other end is closed: what is still in the socket, and then the end of it.
    fn lose_link(&mut self) {
        (0..LAST_WORDS).take_while(|_| self.receive() == Ok(true)).for_each(drop);
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
            return Err(Errno(EPIPE));
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
            ToInit::End { how } => self.step(Event::End(how)),
        }
    }
}
