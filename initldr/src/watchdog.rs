//! The hardware watchdog: a device that resets the machine unless it is written to in time.
//!
//! ```text
//! device <-- written to, four times within its timeout -- initldr <-- Alive, or it is killed and launched anew -- motherd
//! ```
//!
//! motherd opens it and has it kept like any other descriptor; while it is kept, motherd owes a word always. So a machine on
//! which PID 1 hangs is reset by the device, and a motherd that hangs is launched anew by PID 1, without a reset: for
//! [`UNHEARD`], which is how long one launch after the other may fail. Without a watchdog nothing of this wakes anybody.

use crate::{boot::Log, end::Ending};
use core::time::Duration;
use initldr::link::{DecodeError, End, SlotName, ToInit};
use initldr::{store::Store, sys};

/// The slot of the store.
const SLOT: &str = "watchdog";
/// What is assumed of a device that does not say its timeout.
const TIMEOUT: u32 = 10;
/// After so long without a motherd that says it is alive a reset is the better hope.
const UNHEARD: Duration = Duration::from_secs(600);
/// For the kernel to shut its devices down, and for the next one to come so far that it has the device written to.
const LAST_TIMEOUT: u32 = 120;

/// See the module; at first there is none.
#[derive(Default)]
pub(crate) struct Watchdog {
    /// The store's descriptor.
    pub(crate) device: Option<i32>,
    every: Duration,
    due: Duration,
    until: Duration,
}

impl Watchdog {
    /// What motherd said was done.
    pub(crate) fn hear(&mut self, message: Result<ToInit, DecodeError>, store: &Store) {
        match message {
            Ok(ToInit::Alive) => self.heard(),
            Ok(ToInit::Store(slot) | ToInit::Drop(slot)) => self.look(slot, store),
            _ => {}
        }
    }

    /// A slot of the store may be another one now, or none.
    pub(crate) fn look(&mut self, slot: SlotName, store: &Store) {
        if slot.as_str() == SLOT {
            let mut slots = (0..).map_while(|index| store.get(index));
            self.device = slots.find(|(name, _)| *name == slot).map(|(_, device)| device);
            let timeout = self.device.map_or(TIMEOUT, |device| sys::timeout(device).unwrap_or(TIMEOUT));
            self.every = Duration::from_secs(timeout.into()) / 4;
            self.heard();
        }
    }

    fn heard(&mut self) {
        (self.due, self.until) = (Duration::ZERO, sys::monotonic() + UNHEARD);
    }

    /// Writes to the device if it is time, and says how long it is until it is again.
    pub(crate) fn ping(&mut self, log: &Log) -> Option<Duration> {
        let (device, now) = (self.device?, sys::monotonic());
        if now >= self.until {
            if self.due < Duration::MAX {
                log.say(format_args!(
                    "no motherd is alive for {UNHEARD:?}: the watchdog may reset the machine"
                ));
                self.due = Duration::MAX;
            }
            return None;
        }
        if now >= self.due {
            sys::write(device, b"w").unwrap_or_default(); // whatever it fails with, the device tells us soon
            self.due = now + self.every;
        }
        Some(self.due - now)
    }
}

impl Ending<'_> {
    /// Each step of the end has a time of its own, and each wait for it is one of somebody who is alive.
    pub(crate) fn ping(&self) {
        self.watchdog.map_or(Ok(0), |device| sys::write(device, b"w")).unwrap_or_default();
    }

    /// Before the kernel is asked: it has its time to end, and the next one to come up. A machine that is to be off, or to
    /// stand, is not reset.
    pub(crate) fn leave_watchdog(&mut self, how: End) {
        let Some(device) = self.watchdog.take() else { return };
        let left = if matches!(how, End::Halt | End::PowerOff | End::Exit(_)) {
            sys::write(device, b"V").and_then(|_| sys::close(device)) // no process is left that has it open too
        } else {
            sys::set_timeout(device, &mut { LAST_TIMEOUT }).and_then(|()| sys::write(device, b"w").map(drop))
        };
        self.log.tried("watchdog", left);
    }
}
