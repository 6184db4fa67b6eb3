//! The hardware watchdog of the machine: `motherd.watchdog=30s` on the kernel command line.
//!
//! motherd opens the device and has initldr keep it; initldr writes to it (its `watchdog.rs`) as long as motherd says that it is
//! alive, which is said three times within the time that a silent motherd is given. Without the word nothing is opened and
//! nobody is woken.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use super::{Daemon, Fatal, now};
use crate::{early::cmdline::CommandLine, service, sys};

/// initldr knows it by this name.
pub(super) const SLOT: &str = "watchdog";
/// The first there is.
const DEVICE: &str = "/dev/watchdog0";
/// Less than this a busy machine does not always keep; more than this no device can.
const BETWEEN: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(65535)];
/// What the next user space has until its motherd opens it again. initldr leaves a reboot as much.
const LEFT_SECONDS: i32 = 120;
/// A device that is not there yet may come with its module.
const AGAIN: Duration = Duration::from_secs(5);

/// What the kernel command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    timeout: Duration,
    device: PathBuf,
}

impl Wanted {
    /// `motherd.watchdog=TIME`, and `motherd.watchdog-device=PATH` where it is not the first.
    pub(super) fn of(line: &CommandLine) -> Option<Result<Self, String>> {
        let text = line.value("motherd.watchdog").filter(|text| *text != "off")?;
        let timeout = service::duration(text).filter(|time| (BETWEEN[0]..=BETWEEN[1]).contains(time));
        let device = line.value("motherd.watchdog-device").unwrap_or(DEVICE);
        Some(match timeout {
            Some(timeout) if timeout.subsec_nanos() == 0 => Ok(Self { timeout, device: device.into() }),
            _ => Err(format!(
                "motherd.watchdog={text} on the kernel command line: a time in whole seconds from 5s to 65535s, as \
                 `30s` or `2m`, or `off`; there is no watchdog"
            )),
        })
    }
}

/// The device, and whether there is one.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    wanted: Option<Wanted>,
    /// It is open, and initldr has it.
    kept: Option<OwnedFd>,
    /// When it is tried next to open it.
    due: Option<Duration>,
    /// Why it is not open, as it was said last.
    said: Option<String>,
}

impl Watchdog {
    /// With what initldr kept over the death of the motherd before.
    pub(super) fn new(wanted: Option<Result<Wanted, String>>, kept: Option<OwnedFd>) -> Self {
        let wanted = wanted.and_then(|wanted| wanted.map_err(|why| tracing::error!("{why}")).ok());
        let due = (wanted.is_some() && kept.is_none()).then_some(Duration::ZERO);
        Self { wanted, kept, due, said: None }
    }

    /// When there is something to do.
    pub(super) fn next(&self) -> Option<Duration> {
        self.due
    }

    /// Opens it; how long it has really, and what it is to be set to and could not.
    fn open(wanted: &Wanted) -> io::Result<(File, Duration, Option<nix::errno::Errno>)> {
        let device = OpenOptions::new().write(true).open(&wanted.device)?;
        let seconds = i32::try_from(wanted.timeout.as_secs()).unwrap_or(i32::MAX);
        Ok(match sys::watchdog::set_timeout(device.as_fd(), seconds) {
            Ok(seconds) => (device, Duration::from_secs(seconds.unsigned_abs().into()), None),
            Err(errno) => (device, wanted.timeout, Some(errno)),
        })
    }
}

impl Daemon {
    /// Opens the device, if it is time.
    pub(super) fn arm_watchdog(&mut self, now: Duration) -> Result<(), Fatal> {
        let Some(wanted) =
            self.watchdog.wanted.clone().filter(|_| self.watchdog.due.is_some_and(|due| due <= now))
        else {
            return Ok(());
        };
        let device = wanted.device.display();
        match Watchdog::open(&wanted) {
            Ok((file, timeout, refused)) => {
                let file = sandbox::descriptors::far_up(file.into());
                self.link.store(SLOT, file.as_fd())?;
                match refused {
                    None => tracing::info!("{device} resets the machine if nobody lives for {timeout:?}"),
                    Some(errno) => tracing::error!(
                        "{device} cannot be set to {timeout:?} ({errno}): it has its own time"
                    ),
                }
                (self.watchdog.kept, self.watchdog.due, self.watchdog.said) = (Some(file), None, None);
                self.live();
            }
            Err(error) => {
                let why = error.to_string();
                if self.watchdog.said.as_ref() != Some(&why) {
                    tracing::warn!("{device}: {why}; there is no watchdog yet, it is tried every {AGAIN:?}");
                    self.watchdog.said = Some(why);
                }
                self.watchdog.due = Some(now + AGAIN);
            }
        }
        Ok(())
    }

    /// initldr is told from now on that this motherd is alive, if it keeps a watchdog.
    pub(super) fn live(&mut self) {
        if self.watchdog.kept.is_some() {
            self.about.owes_since.get_or_insert(now());
        }
    }

    /// User space is about to begin anew, perhaps from a root that is slow: nobody writes to it until a motherd runs there.
    pub(super) fn stretch_watchdog(&self) {
        let Some(device) = &self.watchdog.kept else { return };
        match sys::watchdog::set_timeout(device.as_fd(), LEFT_SECONDS) {
            Ok(seconds) => tracing::info!("the watchdog leaves the next user space {seconds} s to come up"),
            Err(errno) => tracing::warn!("the watchdog cannot be set to {LEFT_SECONDS} s: {errno}"),
        }
    }

    /// initldr has no room for it: nobody would write to it, so it is let go of without a reset, and tried again.
    pub(super) fn watchdog_refused(&mut self) {
        if let Some(device) = self.watchdog.kept.take() {
            // `V` is what makes closing it its end.
            if let Err(error) = File::from(device).write_all(b"V") {
                tracing::error!("watchdog: cannot be ended: {error}");
            }
            self.watchdog.due = Some(now() + AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_asks_for_a_watchdog() {
        let of = |line: &str| Wanted::of(&CommandLine::for_test(line));
        let wanted = |seconds, device: &str| {
            Some(Ok(Wanted { timeout: Duration::from_secs(seconds), device: device.into() }))
        };
        assert_eq!(of("ro quiet"), None);
        assert_eq!(of("motherd.watchdog=30s"), wanted(30, "/dev/watchdog0"));
        assert_eq!(
            of("motherd.watchdog=2m motherd.watchdog-device=/dev/watchdog1"),
            wanted(120, "/dev/watchdog1")
        );
        assert_eq!(of("motherd.watchdog=30s motherd.watchdog=off"), None, "the last one wins");
        for wrong in ["30", "4s", "1h30", "20h", "1500ms", "5500ms", ""] {
            let answer = of(&format!("motherd.watchdog={wrong}"));
            assert!(
                matches!(&answer, Some(Err(why)) if why.contains("from 5s to 65535s")),
                "{wrong}: {answer:?}"
            );
        }
    }

    #[test]
    fn what_is_kept_is_not_opened_again() {
        let wanted = || Wanted::of(&CommandLine::for_test("motherd.watchdog=30s"));
        assert_eq!(Watchdog::new(wanted(), None).next(), Some(Duration::ZERO));
        let kept = OwnedFd::from(File::open("/dev/null").unwrap());
        assert_eq!(Watchdog::new(wanted(), Some(kept)).next(), None);
        assert_eq!(Watchdog::new(None, None).next(), None, "idle without the word");
        assert_eq!(Watchdog::new(Some(Err("a word that is none".to_owned())), None).next(), None);
    }
}
