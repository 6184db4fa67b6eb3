//! What a child begins with because its launcher has it, asked cheaply before each launch.

use std::{cell::RefCell, fs::File, io, os::unix::fs::FileExt};

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
