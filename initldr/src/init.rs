//! The loop: what the kernel and motherd say becomes an [`Event`], and what [`Phase::step`] returns is done.
//!
//! ```text
//! reap after a signal -> act on the clock -> say what is to be said -> wait -> signals -> motherd's messages -> again
//! ```
//!
//! Invariants: `wait` is the one place that blocks, and with nothing due it blocks for ever; each round does a bounded
//! amount of each kind of work, so no storm of one keeps the others waiting; what motherd sends is believed only as far
//! as the store and the ring can check it.

use crate::{boot, boot::Log, boot::Role, end, end::Ending, program::Program, watchdog::Watchdog};
use core::time::Duration;
use initldr::link::{ExitRecord, MESSAGE_SIZE, STATE_SIZE, Signal, SlotName, ToInit, ToManager, Welcome};
use initldr::sys::{self, Errno, Fd, Result};
use initldr::{abi::*, outbox::Outbox, phase::Effect, phase::Event, phase::Phase};

/// So many children are reaped, signals read and messages received in one round.
const BATCH: u32 = 256;
/// Where children end in a storm, 32 rounds reap at once, and then one in this time does: by the armful, so that neither this
/// process nor motherd is woken for each. The exit of a service is told so much later then, at worst.
const PACE: Duration = Duration::from_millis(20);
/// So many messages are read off a link that has ended. A socket holds some 280 of them; a process that inherited the
/// other end of a dead motherd's link could go on sending for ever.
const LAST_WORDS: u32 = 4096;
/// Where the kernel has no memory for what is asked of it, this much later is soon enough.
const RETRY: Duration = Duration::from_millis(100);

/// Everything that PID 1 is.
pub(crate) struct Init {
    role: Role,
    pub(crate) log: Log,
    pub(crate) held: Held,
    pub(crate) program: Program,
    pub(crate) outbox: &'static mut Outbox,
    pub(crate) phase: Phase,
}

/// Descriptors, pids and figures that come and go; at first there is none of them.
#[derive(Default)]
pub(crate) struct Held {
    signals: Option<Fd>,
    /// The time, as of this round: when the wait was over.
    now: Duration,
    /// When children are looked for again. What is left of the last 32 [`PACE`]s may be spent.
    due: Duration,
    pub(crate) motherd: Option<u32>,
    pub(crate) rescue: Option<u32>,
    pub(crate) link: Option<Fd>,
    /// The state memfd.
    pub(crate) state: Option<Fd>,
    /// What is to be executed in the place of this initldr.
    pub(crate) successor: Option<SlotName>,
    /// Since when there is no motherd.
    pub(crate) down_since: u64,
    pub(crate) bad_messages: u64,
    pub(crate) watchdog: Watchdog,
}

/// For ever.
pub(crate) fn run(mut init: Init) -> ! {
    init.held.now = sys::monotonic();
    let mut ended = true;
    loop {
        // Only where somebody may have ended: the kernel looks at every child for it.
        let more = ended && init.reap();
        init.held.successor.take().into_iter().for_each(|path| init.give_way(path));
        let timeout = init.say().or(more.then_some(Duration::ZERO));
        if init.held.link.is_none() {
            init.step(Event::LinkLost); // which is news only where motherd still runs
        }
        init.step(Event::Owes(init.outbox.is_owed() || init.held.watchdog.device.is_some()));
        // Each tick moves its deadline into the future or away.
        while init.phase.deadline().is_some_and(|deadline| deadline <= init.held.now) {
            init.step(Event::Tick);
        }
        let unheard = init.held.signals.is_none() || init.held.due >= init.held.now;
        let [signals, link] = init.wait(timeout);
        ended = more || unheard || signals != 0;
        (0..BATCH).take_while(|_| signals != 0 && init.take_signal()).for_each(drop);
        // Where there is nobody to listen to any more, one of `receive` and `say` finds it out. What comes after a request to
        // execute another is for that one, or for this one when it knows that it stays.
        let listens = |init: &Init| link != 0 && init.held.successor.is_none() && init.outbox.listens();
        (0..BATCH).take_while(|_| listens(&init) && init.receive()).for_each(drop);
    }
}

/// What a launch of motherd takes is not there for the store.
fn spares(fd: &Fd) -> bool {
    sys::file_limit().is_ok_and(|[soft, _]| fd.raw() as u64 + 8 < soft)
}

impl Init {
    /// Nothing runs yet.
    pub(crate) fn new(role: Role, log: Log, program: Program, outbox: &'static mut Outbox) -> Init {
        let phase = Phase::of(role == Role::Machine);
        Init { role, log, held: Held::default(), program, outbox, phase }
    }

    /// Whether there may be more.
    fn reap(&mut self) -> bool {
        let (now, due, before) = (self.held.now, self.held.due, self.outbox.ring.last);
        // ECHILD, which is the one failure, says that there are no children at all.
        let reap = |_| sys::wait(WEXITED).ok().flatten().map(|exit| self.reaped(exit)).is_some();
        let more = due <= now && (0..BATCH).all(reap);
        let spent = PACE * u32::from(!more && self.outbox.ring.last > before);
        self.held.due = due.max(now.saturating_sub(PACE * 32)) + spent;
        more
    }

    fn reaped(&mut self, exit: ExitRecord) {
        if self.held.motherd == Some(exit.pid) {
            self.held.motherd = None;
            self.held.down_since = exit.boottime_ns;
            self.lose_link(); // its last words first: what it stored and acknowledged, and perhaps End
            let what = if exit.code == CLD_EXITED { "exit code" } else { "signal" };
            self.log.say(format_args!("motherd (pid {}) ended: {what} {}", exit.pid, exit.status));
            self.step(Event::Died(exit.code, exit.status));
        } else if self.held.rescue.take_if(|pid| *pid == exit.pid).is_none() {
            self.outbox.ring.push(exit);
        }
    }

    fn step(&mut self, event: Event) {
        let (phase, effect) = self.phase.step(event, self.held.now);
        self.phase = phase;
        match effect {
            Effect::Nothing => {}
            Effect::Launch => {
                let launched = self.launch();
                launched.unwrap_or_else(|errno| self.log.say(format_args!("launch motherd: {errno}")));
                self.step(if launched.is_ok() { Event::Launched } else { Event::LaunchFailed });
            }
            Effect::Kill(signal) => {
                let Some(pid) = self.held.motherd else { return };
                self.log.say(format_args!("motherd (pid {pid}) gets signal {signal}"));
                // It was not reaped, so the pid is its own, and the kill cannot fail.
                sys::kill(pid.cast_signed(), signal).unwrap_or_default();
            }
            Effect::Rescue => {
                self.held.rescue = self.held.rescue.or_else(|| self.program.start_rescue(&self.log))
            }
            Effect::PassOn(signal) => self.outbox.signal(signal),
            Effect::End(how, mercy) => {
                let (signals, watchdog) = (self.held.signals.as_ref(), self.held.watchdog.device);
                let ending = Ending { role: self.role, log: &self.log, signals, watchdog };
                end::end(ending, Some(&self.program), how, mercy)
            }
        }
    }

    fn launch(&mut self) -> Result<()> {
        let fd =
            self.held.state.take().map_or_else(|| sys::sealed_memfd(c"motherd-state", STATE_SIZE), Ok)?;
        let state = self.held.state.insert(fd);
        let (ours, theirs) = sys::socketpair()?;
        let motherd = self.program.start_motherd(self.phase.rung().1, &theirs, state, &self.log)?;
        (self.held.motherd, self.held.link) = (Some(motherd), Some(ours));
        // The one before may have died of a request to stop, or before it.
        self.outbox.reset(self.phase.stop_signal());
        Ok(())
    }

    /// What there is of signals and on the link. This is where PID 1 waits.
    fn wait(&mut self, timeout: Option<Duration>) -> [i32; 2] {
        self.held.signals = self.held.signals.take().or_else(boot::open_signals);
        let hear = if self.outbox.listens() { POLLIN } else { 0 };
        let say = if timeout.is_none() && self.next().is_some() { POLLOUT } else { 0 };
        let number = |fd: &Option<Fd>| fd.as_ref().map_or(-1, Fd::raw);
        let pause = self.held.due.checked_sub(self.held.now);
        let signals = if pause.is_some() { -1 } else { number(&self.held.signals) };
        let polls = [[signals, POLLIN], [number(&self.held.link), hear | say]];
        let due = self.phase.deadline().map(|deadline| deadline.saturating_sub(self.held.now));
        let retry = self.held.signals.is_none().then_some(RETRY);
        let ping = self.held.watchdog.ping(&self.log);
        let found = sys::ppoll(polls, [timeout, due, retry, ping, pause].into_iter().flatten().min());
        self.held.now = sys::monotonic();
        found.unwrap_or([POLLIN; 2]) // no memory for two pollfds: look at everything
    }

    /// Takes one signal; whether there may be more.
    fn take_signal(&mut self) -> bool {
        let signal = self.held.signals.as_ref().and_then(sys::next_signal);
        let news = signal.filter(|signal| signal.number != SIGCHLD);
        if let Some(signal @ Signal { number, sender_pid, sender_uid }) = news {
            self.log.say(format_args!("signal {number} from pid {sender_pid} uid {sender_uid}"));
            self.step(Event::Signal(signal));
        }
        signal.is_some()
    }

    pub(crate) fn next(&self) -> Option<(ToManager, Option<i32>)> {
        let (generation, cause) = self.phase.launch();
        let (pid1, lost_exits) = (self.role != Role::Process, self.outbox.ring.lost);
        let (down_since_boottime_ns, (safe, _)) = (self.held.down_since, self.phase.rung());
        self.outbox.next(Welcome { generation, pid1, cause, lost_exits, down_since_boottime_ns, safe })
    }

    /// As much as the socket takes. Where the kernel has no memory for more: when to try again.
    fn say(&mut self) -> Option<Duration> {
        while let Some((message, fd)) = self.next()
            && let Some(link) = &self.held.link
        {
            match sys::send(link, &message.encode(), fd) {
                Ok(()) => self.outbox.sent(&message),
                Err(Errno(EAGAIN)) => break,
                Err(Errno(EPIPE | ECONNRESET)) => self.lose_link(),
                Err(_) => return Some(RETRY),
            }
        }
        None
    }

    /// The other end is closed: what is still in the socket, and then the end of it.
    fn lose_link(&mut self) {
        (0..LAST_WORDS).take_while(|_| self.receive()).for_each(drop);
        self.held.link = None;
    }

    /// Takes one message of motherd's; whether there may be more.
    fn receive(&mut self) -> bool {
        let Some(link) = &self.held.link else { return false };
        let mut bytes = [0; MESSAGE_SIZE + 1]; // one more, so that a longer one is seen to be longer
        let (size, fd) = match sys::receive(link, &mut bytes) {
            Ok(received) if received.0 > 0 => received,
            Err(Errno(EAGAIN)) => return false,
            Err(Errno(ECONNRESET | ENOMEM)) => return true, // the kernel says the former once, before the last words
            Ok(_) | Err(_) => return self.held.link.take().is_none(), // there was one: no more of it
        };
        let message = ToInit::decode(bytes.get(..size).unwrap_or_default());
        if message.is_ok() {
            self.outbox.asked = false;
            self.step(Event::Heard);
        }
        // A descriptor that comes with anything but Store is closed on the way out.
        match message {
            Ok(ToInit::Hello) => self.outbox.hello(),
            Ok(ToInit::Acknowledge(sequence)) => self.outbox.acknowledge(sequence),
            Ok(ToInit::Store(name)) => self.outbox.answer(name, |store| store.put(name, fd.filter(spares))),
            Ok(ToInit::Drop(name)) => self.outbox.answer(name, |store| store.remove(name)),
            Ok(ToInit::Alive) => {}
            Ok(ToInit::List) => self.outbox.list(),
            Ok(ToInit::Retire) => self.step(Event::Retires),
            Ok(ToInit::Execute(path)) => self.held.successor = Some(path),
            Ok(ToInit::End(how)) => self.step(Event::End(how)),
            Ok(ToInit::CarryOn) => self.step(Event::CarriesOn),
            Err(error) => {
                self.held.bad_messages += 1;
                if self.held.bad_messages.is_power_of_two() {
                    self.log.say(format_args!("bad message number {}: {error:?}", self.held.bad_messages));
                }
            }
        }
        self.held.watchdog.hear(message, &self.outbox.store);
        true
    }
}
