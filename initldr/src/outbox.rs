//! What outlives motherd, and what initldr still has to say of it on a link: a cursor over the store and the ring,
//! never a queue that could grow.
//!
//! ```text
//! Silent --Hello--> Welcome --> Replay: Stored 0..n, exits ..=last at Hello, ReplayEnd --> Live
//! ```
//!
//! Invariants: nothing is said before motherd's Hello; a message leaves the outbox when the kernel has taken it and not
//! before, so a full socket delays and loses nothing; while the replay runs and while an answer waits, nothing more is
//! read, so neither the store nor the answers can run away.

use crate::link::{Signal, SlotName, ToManager, Welcome};
use crate::{ring::Ring, store::Store};

/// One signal each, as the kernel itself keeps pending signals.
const SIGNALS: usize = crate::abi::SIGRTMAX as usize + 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Silent,
    Welcome,
    Replay { index: usize, until: u64 },
    Live,
}

/// How far motherd was told: the newest exit, and the signals that wait.
pub type Cursor = (u64, [Option<Signal>; SIGNALS]);

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    /// The exits that were not acknowledged.
    pub ring: Ring,
    /// The descriptors that are kept.
    pub store: Store,
    stage: Stage,
    /// The newest exit that was sent on this link.
    sent: u64,
    answer: Option<(SlotName, i32)>,
    /// A signal was told, and motherd has said nothing since.
    pub asked: bool,
    /// By number, while it is pending.
    signals: [Option<Signal>; SIGNALS],
}

impl Outbox {
    /// Nothing happened yet. All zero bytes: a static one takes no room in the program.
    pub const EMPTY: Outbox = Outbox {
        ring: Ring::EMPTY,
        store: Store::EMPTY,
        stage: Stage::Silent,
        sent: 0,
        answer: None,
        asked: false,
        signals: [None; SIGNALS],
    };

    /// There is a new link. What motherd of before was not told of signals is kept for the next, and `again` is told
    /// again, if it was.
    pub fn reset(&mut self, again: Option<Signal>) {
        (self.stage, self.sent, self.answer, self.asked) = (Stage::Silent, 0, None, false);
        again.into_iter().for_each(|signal| self.signal(signal));
    }

    /// motherd said Hello: everything is said, from the beginning.
    pub fn hello(&mut self) {
        (self.stage, self.sent) = (Stage::Welcome, 0);
    }

    /// To be given back to [`Outbox::go_on`] after what is held was said to another than motherd.
    pub fn cursor(&self) -> Cursor {
        (self.sent, self.signals)
    }

    /// motherd knows everything up to here.
    pub fn go_on(&mut self, (sent, signals): Cursor) {
        (self.stage, self.sent, self.signals, self.asked) = (Stage::Live, sent, signals, false);
    }

    /// motherd wants to hear again what the store has, and the exits until now.
    pub fn list(&mut self) {
        if self.stage == Stage::Live {
            self.stage = Stage::Replay { index: 0, until: self.ring.last };
        }
    }

    /// Whether motherd owes something: Hello, an acknowledgement, an answer to a signal, or to take what waits.
    pub fn is_owed(&self) -> bool {
        let waits = self.answer.is_some() || self.signals.iter().any(Option::is_some);
        self.stage != Stage::Live || waits || self.asked || self.ring.after(0).is_some()
    }

    /// Does what motherd asks of the store, and answers if there is something to say.
    pub fn answer(&mut self, name: SlotName, request: impl FnOnce(&mut Store) -> Option<i32>) {
        self.answer = request(&mut self.store).map(|errno| (name, errno));
    }

    /// An acknowledgement cannot reach further than what was sent.
    pub fn acknowledge(&mut self, sequence: u64) {
        self.ring.acknowledge(sequence.min(self.sent));
    }

    /// A signal is to be passed on; an equal one that still waits is replaced.
    pub fn signal(&mut self, signal: Signal) {
        self.signals[signal.number as usize % SIGNALS] = Some(signal);
    }

    /// Whether motherd may be listened to now.
    pub fn listens(&self) -> bool {
        matches!(self.stage, Stage::Silent | Stage::Live) && self.answer.is_none()
    }

    /// The next message, with the number of the descriptor that goes with it. It is `welcome` where that is next.
    pub fn next(&self, welcome: Welcome) -> Option<(ToManager, Option<i32>)> {
        let exit = self.ring.after(self.sent);
        let message = match self.stage {
            Stage::Silent => return None,
            Stage::Welcome => ToManager::Welcome(welcome),
            Stage::Replay { index, .. } if let Some((name, fd)) = self.store.get(index) => {
                return Some((ToManager::Stored(name, fd), Some(fd)));
            }
            Stage::Replay { until, .. } => match exit {
                Some(exit) if exit.sequence <= until => ToManager::Exit(exit),
                _ => ToManager::ReplayEnd,
            },
            Stage::Live => {
                let answer = self.answer.map(|(name, errno)| ToManager::StoreAnswer { name, errno });
                let signal = || self.signals.iter().flatten().next().map(|signal| ToManager::Signal(*signal));
                answer.or_else(signal).or(exit.map(ToManager::Exit))?
            }
        };
        Some((message, None))
    }

    /// The kernel has taken what [`Outbox::next`] gave.
    pub fn sent(&mut self, message: &ToManager) {
        match (message, &mut self.stage) {
            (ToManager::Welcome(_), stage) => *stage = Stage::Replay { index: 0, until: self.ring.last },
            (ToManager::Stored(..), Stage::Replay { index, .. }) => *index += 1,
            (ToManager::Stored(..) | ToManager::Left(_), _) => {}
            (ToManager::Exit(exit), _) => self.sent = exit.sequence,
            (ToManager::ReplayEnd, stage) => *stage = Stage::Live,
            (ToManager::StoreAnswer { .. }, _) => self.answer = None,
            (ToManager::Signal(signal), _) => {
                self.signals[signal.number as usize % SIGNALS] = None;
                self.asked = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        abi::O_RDWR,
        link::{ExitRecord, Relaunch},
        sys,
    };

    const WELCOME: Welcome = Welcome {
        generation: 2,
        pid1: true,
        cause: Relaunch::Signaled(9),
        lost_exits: 0,
        down_since_boottime_ns: 5,
        safe: false,
    };

    fn empty() -> Box<Outbox> {
        Box::new(Outbox::EMPTY)
    }

    fn live() -> Box<Outbox> {
        Box::new(Outbox { stage: Stage::Live, sent: 5, ..Outbox::EMPTY })
    }

    fn signal(number: u32) -> Signal {
        Signal { number, sender_pid: 1, sender_uid: 0 }
    }

    fn name(text: &str) -> SlotName {
        SlotName::new(text).expect("a valid name")
    }

    fn push(outbox: &mut Outbox, pid: u32) {
        outbox.ring.push(ExitRecord { pid, ..ExitRecord::default() });
    }

    /// Takes messages until there is nothing to say, as words.
    fn drain(outbox: &mut Outbox) -> Vec<String> {
        let mut said = vec![];
        while let Some((message, fd)) = outbox.next(WELCOME) {
            assert_eq!(outbox.next(WELCOME), Some((message, fd)), "asking changes nothing");
            assert_eq!(fd.is_some(), matches!(message, ToManager::Stored(..)));
            said.push(match message {
                ToManager::Welcome(_) => "welcome".to_owned(),
                ToManager::Stored(name, _) => format!("stored {}", name.as_str()),
                ToManager::Exit(exit) => format!("exit {}", exit.pid),
                ToManager::ReplayEnd => "end of replay".to_owned(),
                ToManager::StoreAnswer { name, errno } => format!("answer {} {errno}", name.as_str()),
                ToManager::Signal(signal) => format!("signal {}", signal.number),
                ToManager::Left(_) => unreachable!("not said to motherd"),
            });
            outbox.sent(&message);
        }
        said
    }

    #[test]
    fn nothing_is_said_before_hello_and_then_everything_in_order() {
        let mut outbox = empty();
        (1..=3).for_each(|pid| push(&mut outbox, pid));
        outbox.ring.acknowledge(1);
        for slot in ["a", "b"] {
            outbox.store.put(name(slot), Some(sys::open(c"/dev/null", O_RDWR).expect("/dev/null")));
        }
        outbox.signal(signal(15));
        assert_eq!(drain(&mut outbox), [""; 0]);
        assert!(outbox.listens());

        outbox.hello();
        assert!(!outbox.listens());
        let all = ["welcome", "stored a", "stored b", "exit 2", "exit 3", "end of replay", "signal 15"];
        assert_eq!(drain(&mut outbox), all);
        assert!(outbox.listens());
    }

    #[test]
    fn an_exit_during_the_replay_comes_after_its_end() {
        let mut outbox = empty();
        push(&mut outbox, 1);
        outbox.hello();
        for _ in ["welcome", "exit 1"] {
            let (message, _) = outbox.next(WELCOME).expect("more");
            outbox.sent(&message);
        }
        push(&mut outbox, 2);
        assert_eq!(drain(&mut outbox), ["end of replay", "exit 2"]);
    }

    #[test]
    fn an_answer_goes_first_and_closes_the_ear_until_it_is_sent() {
        let mut outbox = live();
        (1..=6).for_each(|pid| push(&mut outbox, pid));
        outbox.signal(signal(1));
        outbox.signal(signal(1));
        outbox.answer(name("x"), |_| Some(28));
        assert!(!outbox.listens());
        assert_eq!(drain(&mut outbox), ["answer x 28", "signal 1", "exit 6"]);
        assert!(outbox.listens());
    }

    #[test]
    fn nobody_acknowledges_what_was_not_sent() {
        let mut outbox = live();
        (1..=7).for_each(|pid| push(&mut outbox, pid));
        outbox.acknowledge(3);
        assert_eq!(outbox.ring.after(0).map(|exit| exit.pid), Some(4));
        outbox.acknowledge(u64::MAX);
        assert_eq!(outbox.ring.after(0).map(|exit| exit.pid), Some(6));
    }

    #[test]
    fn a_second_hello_is_answered_with_everything_again() {
        let mut outbox = empty();
        push(&mut outbox, 1);
        for _ in 0..2 {
            outbox.hello();
            assert_eq!(drain(&mut outbox), ["welcome", "exit 1", "end of replay"]);
        }
    }

    #[test]
    fn a_new_link_starts_silent_and_keeps_the_signals_that_wait() {
        let mut outbox = live();
        outbox.signal(signal(15));
        outbox.answer(name("x"), |_| Some(0));
        outbox.reset(Some(signal(1)));
        assert!(outbox.listens());
        assert_eq!(drain(&mut outbox), [""; 0]);
        outbox.hello();
        assert_eq!(drain(&mut outbox), ["welcome", "end of replay", "signal 1", "signal 15"]);
    }

    #[test]
    fn motherd_owes_hello_acknowledgements_and_an_answer_to_signals_and_nothing_else() {
        let mut outbox = empty();
        assert!(outbox.is_owed(), "Hello");
        outbox.hello();
        assert!(outbox.is_owed(), "to take the replay");
        drain(&mut outbox);
        assert!(!outbox.is_owed(), "an idle machine");
        push(&mut outbox, 1);
        drain(&mut outbox);
        assert!(outbox.is_owed());
        outbox.acknowledge(1);
        assert!(!outbox.is_owed());
        outbox.signal(signal(1));
        assert!(outbox.is_owed());
        drain(&mut outbox);
        assert!(outbox.is_owed(), "told, and not answered");
        outbox.asked = false;
        assert!(!outbox.is_owed());
    }

    #[test]
    fn a_listing_says_what_is_stored_and_no_exit_twice() {
        let mut outbox = empty();
        outbox.store.put(name("a"), Some(sys::open(c"/dev/null", O_RDWR).expect("/dev/null")));
        outbox.list();
        assert_eq!(drain(&mut outbox), [""; 0], "before Hello there is nothing to list to");
        outbox.hello();
        drain(&mut outbox);
        push(&mut outbox, 1);
        assert_eq!(drain(&mut outbox), ["exit 1"]);
        push(&mut outbox, 2);
        outbox.list();
        push(&mut outbox, 3);
        assert_eq!(drain(&mut outbox), ["stored a", "exit 2", "end of replay", "exit 3"]);
    }
}
