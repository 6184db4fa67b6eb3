//! Named points between two steps, at which a test has motherd end or stop.
//!
//! They exist in a build with the feature `failpoints` alone; in any other one [`hit`] is nothing, and a test looks for
//! the names in the release binary. In such a build the file `failpoint` beside the control socket arms one point:
//! `launch.cloned=kill@3` is SIGKILL the third time it is reached. The file goes when its point fires, so that the
//! motherd after this one lives, and so that whoever wrote it sees that it did fire.

#[cfg(feature = "failpoints")]
pub(crate) use armed::{arm, hit};

/// Nothing, outside of a build for tests.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn hit(_point: &'static str) {}

/// Nothing, outside of a build for tests.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn arm(_folder: &std::path::Path) {}

#[cfg(feature = "failpoints")]
mod armed {
    use std::{
        fs,
        path::{Path, PathBuf},
        sync::{
            OnceLock,
            atomic::{AtomicU32, Ordering},
        },
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::getpid,
    };

    static FILE: OnceLock<PathBuf> = OnceLock::new();
    /// How often the armed point was reached by this process.
    static REACHED: AtomicU32 = AtomicU32::new(0);

    /// From now on the file in this folder counts.
    pub(crate) fn arm(folder: &Path) {
        FILE.get_or_init(|| folder.join("failpoint"));
    }

    /// This point is reached.
    pub(crate) fn hit(point: &'static str) {
        let Some(file) = FILE.get() else { return };
        let Ok(text) = fs::read_to_string(file) else { return };
        let Some((name, action)) = text.trim().split_once('=') else { return };
        let (action, nth) = action.split_once('@').unwrap_or((action, "1"));
        if name != point || REACHED.fetch_add(1, Ordering::Relaxed) + 1 < nth.parse().unwrap_or(1) {
            return;
        }
        fs::remove_file(file).expect("the file was read a moment ago");
        let signal = match action {
            "kill" => Signal::SIGKILL,
            "stop" => Signal::SIGSTOP,
            "segv" => Signal::SIGSEGV,
            _ => panic!("failpoint {point}: {action}"),
        };
        // Rust's runtime takes the first SIGSEGV for a fault that comes again, and goes on.
        let times = if signal == Signal::SIGSEGV { 2 } else { 1 };
        for _ in 0..times {
            kill(getpid(), signal).expect("a process may signal itself");
        }
    }
}
