//! What a child begins with because its launcher has it, asked cheaply before each launch.

use std::{cell::RefCell, fs::File, io, os::unix::fs::FileExt, sync::OnceLock};

use nix::errno::Errno;

use crate::sys::raw;

/// _NSIG
const HIGHEST_SIGNAL: i32 = 64;

/// What this process ignores: bit 0 is signal 1. Known once it said that this is final.
static IGNORED: OnceLock<u64> = OnceLock::new();

/// This process changes the disposition of no signal from here on, or hands what it ignores then on to what it launches.
///
/// Caught signals are at their default after exec by themselves, ignored ones are not. Which these are nobody can be asked in
/// one call, so a launch resets all 62, one call each; after this it resets those that are ignored now.
///
/// # Errors
/// rt_sigaction(2). All are reset as before.
pub fn dispositions_are_final() -> Result<(), Errno> {
    let mut ignored = 0;
    for signal in catchable() {
        if raw::is_ignored(signal)? {
            ignored |= bit(signal);
        }
    }
    IGNORED.get_or_init(|| ignored);
    Ok(())
}

/// Those that may be ignored in a child. It allocates nothing and takes no lock: a child asks.
pub(crate) fn signals_to_reset() -> impl Iterator<Item = i32> {
    let ignored = IGNORED.get().copied().unwrap_or(u64::MAX);
    catchable().filter(move |signal| ignored & bit(*signal) != 0)
}

fn catchable() -> impl Iterator<Item = i32> {
    (1..=HIGHEST_SIGNAL).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal))
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

thread_local! {
    /// This process's, by its pid: one that was forked has another.
    static OOM_SCORE_ADJ: RefCell<Option<(u32, File)>> = const { RefCell::new(None) };
}

/// `/proc/self/oom_score_adj` as it reads, without the newline; `None` if it cannot be read. Anybody may change it at any
/// time, so it is read each time; it stays open, since opening it is most of the work.
pub(crate) fn oom_score_adj() -> Option<Box<[u8]>> {
    read().inspect_err(|error| tracing::debug!("read /proc/self/oom_score_adj: {error}")).ok()
}

fn read() -> io::Result<Box<[u8]>> {
    // `-1000` and a newline, and room to see that there is no more.
    let mut text = [0; 8];
    let me = std::process::id();
    OOM_SCORE_ADJ.with_borrow_mut(|open| {
        let file = match open {
            Some((pid, file)) if *pid == me => file,
            other => &mut other.insert((me, File::open("/proc/self/oom_score_adj")?)).1,
        };
        let length = file.read_at(&mut text, 0)?;
        Ok(text.get(..length).unwrap_or_default().trim_ascii_end().into())
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_score_is_what_the_file_says_each_time() {
        let says = || std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        let before = says();
        assert_eq!(super::oom_score_adj().as_deref(), Some(before.trim().as_bytes()));
        // Raising it is everybody's right, and goes no further than this process.
        std::fs::write("/proc/self/oom_score_adj", "1000").unwrap();
        assert_eq!(super::oom_score_adj().as_deref(), Some(b"1000".as_slice()));
        assert_eq!(says().trim(), "1000");
    }
}
