//! What initldr still has to say on a link: a cursor over the store and the ring, never a queue that could grow.
//!
//! ```text
//! Silent --Hello--> Welcome --> Stored 0..n --> Replay ..=last at Hello --> ReplayEnd --> Live
//! ```
//!
//! Invariants: nothing is said before motherd's Hello; a message leaves the outbox when the kernel has taken it and not
//! before, so a full socket delays and loses nothing; while the replay runs and while an answer waits, nothing more is
//! read, so neither the store nor the answers can run away.

use crate::link::{SlotName, ToManager};
use crate::{ring::Ring, store::Store};

/// One signal each, as the kernel itself keeps pending signals.
const SIGNALS: usize = crate::abi::SIGRTMAX as usize + 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Silent,
    Welcome,
    Stored { index: usize },
    Replay { until: u64 },
    Live,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    stage: Stage,
    /// The newest exit that was sent on this link.
    sent: u64,
    answer: Option<(SlotName, i32)>,
    /// By number: who sent it, while it is pending.
    signals: [Option<(u32, u32)>; SIGNALS],
}

impl Outbox {
    /// For a new link.
    pub const SILENT: Outbox =
        Outbox { stage: Stage::Silent, sent: 0, answer: None, signals: [None; SIGNALS] };

    /// There is a new link. What motherd of before was not told of signals is kept for the next.
    pub fn reset(&mut self) {
        *self = Outbox { signals: self.signals, ..Outbox::SILENT };
    }

    /// motherd said Hello: everything is said, from the beginning.
    pub fn hello(&mut self) {
        self.stage = Stage::Welcome;
    }

    /// A store request was dealt with.
    pub fn answer(&mut self, name: SlotName, errno: i32) {
        self.answer = Some((name, errno));
    }

    /// A signal is to be passed on; an equal one that still waits is replaced.
    pub fn signal(&mut self, number: u32, sender: (u32, u32)) {
        self.set(number, Some(sender));
    }

    fn set(&mut self, number: u32, sender: Option<(u32, u32)>) {
        self.signals.iter_mut().skip(number as usize).take(1).for_each(|slot| *slot = sender);
    }

    /// Whether motherd may be listened to now.
    pub fn listens(&self) -> bool {
        matches!(self.stage, Stage::Silent | Stage::Live) && self.answer.is_none()
    }

    /// An acknowledgement cannot reach further than what was sent.
    pub fn acknowledged(&self, sequence: u64) -> u64 {
        sequence.min(self.sent)
    }

    /// The next message, with the number of the descriptor that goes with it. It is `welcome` where that is next.
    pub fn next(&self, welcome: ToManager, ring: &Ring, store: &Store) -> Option<(ToManager, Option<i32>)> {
        let message = match self.stage {
            Stage::Silent => return None,
            Stage::Welcome => welcome,
            Stage::Stored { index } => {
                let (name, fd) = store.get(index)?; // `sent` moved on where there is none
                return Some((ToManager::Stored { name }, Some(fd)));
            }
            Stage::Replay { until } => match ring.after(self.sent) {
                Some(exit) if exit.sequence <= until => ToManager::Exit(exit),
                _ => ToManager::ReplayEnd,
            },
            Stage::Live => self.live(ring)?,
        };
        Some((message, None))
    }

    /// The kernel has taken what [`Outbox::next`] gave.
    pub fn sent(&mut self, message: &ToManager, ring: &Ring, store: &Store) {
        let replay = Stage::Replay { until: ring.counts().1 };
        let stored =
            |index| if index < usize::from(store.length()) { Stage::Stored { index } } else { replay };
        match *message {
            ToManager::Welcome { .. } => {
                self.sent = 0;
                self.stage = stored(0);
            }
            ToManager::Stored { .. } => {
                let Stage::Stored { index } = self.stage else { return };
                self.stage = stored(index + 1);
            }
            ToManager::Exit(exit) => self.sent = exit.sequence,
            ToManager::ReplayEnd => self.stage = Stage::Live,
            ToManager::StoreAnswer { .. } => self.answer = None,
            ToManager::Signal { number, .. } => self.set(number, None),
        }
    }

    fn live(&self, ring: &Ring) -> Option<ToManager> {
        if let Some((name, errno)) = self.answer {
            return Some(ToManager::StoreAnswer { name, errno });
        }
        let signal = (0..).zip(&self.signals).find_map(|(number, sender)| {
            sender.map(|(pid, uid)| ToManager::Signal { number, sender_pid: pid, sender_uid: uid })
        });
        signal.or_else(|| ring.after(self.sent).map(ToManager::Exit))
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

    fn welcome(ring: &Ring, store: &Store) -> ToManager {
        ToManager::Welcome {
            generation: 2,
            pid1: true,
            cause: Relaunch::Signaled(9),
            stored: store.length(),
            unacknowledged: ring.counts().0,
            lost_exits: 0,
            down_since_boottime_ns: 5,
        }
    }

    fn name(text: &str) -> SlotName {
        SlotName::new(text).expect("a valid name")
    }

    fn push(ring: &mut Ring, pid: u32) {
        ring.push(ExitRecord { pid, ..ExitRecord::default() });
    }

    /// Takes messages until there is nothing to say, as words.
    fn drain(outbox: &mut Outbox, ring: &Ring, store: &Store) -> Vec<String> {
        let mut said = vec![];
        while let Some((message, fd)) = outbox.next(welcome(ring, store), ring, store) {
            assert_eq!(
                outbox.next(welcome(ring, store), ring, store),
                Some((message, fd)),
                "asking changes nothing"
            );
            assert_eq!(fd.is_some(), matches!(message, ToManager::Stored { .. }));
            said.push(match message {
                ToManager::Welcome { stored, unacknowledged, .. } => {
                    format!("welcome {stored} {unacknowledged}")
                }
                ToManager::Stored { name } => format!("stored {name}"),
                ToManager::Exit(exit) => format!("exit {}", exit.pid),
                ToManager::ReplayEnd => "end of replay".to_owned(),
                ToManager::StoreAnswer { name, errno } => format!("answer {name} {errno}"),
                ToManager::Signal { number, .. } => format!("signal {number}"),
            });
            outbox.sent(&message, ring, store);
        }
        said
    }

    #[test]
    fn nothing_is_said_before_hello_and_then_everything_in_order() {
        let (mut ring, mut store) = (Box::new(Ring::EMPTY), Box::new(Store::EMPTY));
        let mut outbox = Outbox::SILENT;
        (1..=3).for_each(|pid| push(&mut ring, pid));
        ring.acknowledge(1);
        for slot in ["a", "b"] {
            store.put(name(slot), Some(sys::open(c"/dev/null", O_RDWR).expect("/dev/null")));
        }
        outbox.signal(15, (1, 0));
        assert_eq!(drain(&mut outbox, &ring, &store), [""; 0]);
        assert!(outbox.listens());

        outbox.hello();
        assert!(!outbox.listens());
        let all = ["welcome 2 2", "stored a", "stored b", "exit 2", "exit 3", "end of replay", "signal 15"];
        assert_eq!(drain(&mut outbox, &ring, &store), all);
        assert!(outbox.listens());
    }

    #[test]
    fn an_exit_during_the_replay_comes_after_its_end() {
        let (mut ring, store) = (Box::new(Ring::EMPTY), Box::new(Store::EMPTY));
        let mut outbox = Outbox::SILENT;
        push(&mut ring, 1);
        outbox.hello();
        for _ in ["welcome", "exit 1"] {
            let (message, _) = outbox.next(welcome(&ring, &store), &ring, &store).expect("more");
            outbox.sent(&message, &ring, &store);
        }
        push(&mut ring, 2);
        assert_eq!(drain(&mut outbox, &ring, &store), ["end of replay", "exit 2"]);
    }

    #[test]
    fn an_answer_goes_first_and_closes_the_ear_until_it_is_sent() {
        let (mut ring, store) = (Box::new(Ring::EMPTY), Box::new(Store::EMPTY));
        let mut outbox = Outbox { stage: Stage::Live, ..Outbox::SILENT };
        push(&mut ring, 1);
        outbox.signal(1, (0, 0));
        outbox.signal(1, (0, 0));
        outbox.answer(name("x"), 28);
        assert!(!outbox.listens());
        assert_eq!(drain(&mut outbox, &ring, &store), ["answer x 28", "signal 1", "exit 1"]);
        assert!(outbox.listens());
    }

    #[test]
    fn nobody_acknowledges_what_was_not_sent() {
        let outbox = Outbox { stage: Stage::Live, sent: 5, ..Outbox::SILENT };
        assert_eq!((outbox.acknowledged(3), outbox.acknowledged(u64::MAX)), (3, 5));
    }

    #[test]
    fn a_second_hello_is_answered_with_everything_again() {
        let (mut ring, store) = (Box::new(Ring::EMPTY), Box::new(Store::EMPTY));
        let mut outbox = Outbox::SILENT;
        push(&mut ring, 1);
        for _ in 0..2 {
            outbox.hello();
            assert_eq!(drain(&mut outbox, &ring, &store), ["welcome 0 1", "exit 1", "end of replay"]);
        }
    }
}
