//! A memfd mapped shared: memory that outlives this process, because initldr holds the other reference to it.

use std::{num::NonZeroUsize, os::fd::AsFd, ptr::NonNull, sync::atomic::AtomicU32};

use nix::{
    errno::Errno,
    sys::mman::{MapFlags, ProtFlags, mmap},
};

/// mallopt(3), M_TRIM_THRESHOLD: what is free at the end of the heap goes back to the kernel. glibc would keep up to twice as much
/// as the largest piece that was ever freed, which is a long reply.
pub(crate) fn keep_little() {
    #[cfg(target_env = "gnu")]
    {
        /// glibc's own default.
        const KEPT_BYTES: i32 = 128 << 10;
        // SAFETY: a plain call with two numbers; it changes how much the allocator keeps, and nothing that anybody refers to.
        let taken = unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES) };
        if taken == 0 {
            tracing::debug!("mallopt: the heap keeps what is freed");
        }
    }
}

/// malloc_trim(3): whole pages that are free go back to the kernel, wherever in the heap they are.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: a plain call with a number; only memory that was freed is let go of. Whether there was any does not matter.
        let _any = unsafe { libc::malloc_trim(0) };
    }
}

/// Of this program and its libraries only what runs from here on stays mapped: reading files and compiling policies is most of
/// it, and over. What is run again is mapped again out of the file's pages, which nobody has let go of; no call is needed
/// for that, and none of the process's own memory is touched.
pub(crate) fn unmap_what_ran() -> std::io::Result<()> {
    for (start, len) in clean_files(&std::fs::read_to_string("/proc/self/smaps")?) {
        // SAFETY: a private mapping of a file that nobody may write to and of which no page was ever written (neither by us
        // nor by the loader, which leaves `Anonymous:` behind): each page of it is what the file has, now and when it is
        // read again (madvise(2), MADV_DONTNEED).
        let done =
            unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), len, libc::MADV_DONTNEED) };
        Errno::result(done)?;
    }
    Ok(())
}

/// Where the mappings are that are of files, private, not to be written to, and of which no page was written; out of
/// `/proc/PID/smaps` (proc_pid_smaps(5)).
fn clean_files(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some((start, end)) = first.split_once('-') {
            let address = |text| usize::from_str_radix(text, 16).ok();
            let path = words.clone().nth(4).unwrap_or_default();
            let is_file = path.starts_with('/') && !line.ends_with(" (deleted)");
            let fixed = words.next().is_some_and(|rights| rights.starts_with("r-") && rights.ends_with('p'));
            let range = address(start).zip(address(end)).filter(|_| is_file && fixed);
            current = range.and_then(|(start, end)| Some((start, end.checked_sub(start)?)));
        } else if first == "Anonymous:" && words.next() == Some("0") {
            found.extend(current.take());
        }
    }
    found
}

/// A shared mapping, for the life of the process.
#[derive(Debug)]
pub(crate) struct Shared {
    start: NonNull<u8>,
    len: usize,
}

impl Shared {
    /// Maps `len` bytes of a file that has at least as many (mmap(2)). The mapping is never undone: the one owner of it
    /// lives as long as the process.
    pub(crate) fn map(fd: impl AsFd, len: usize) -> Result<Self, Errno> {
        let length = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let size = usize::try_from(nix::sys::stat::fstat(&fd)?.st_size).map_err(|_| Errno::EOVERFLOW)?;
        if size < len {
            return Err(Errno::ENODATA);
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing of ours.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self { start: start.cast(), len })
    }

    /// Copies bytes out.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(
            offset.checked_add(into.len()).is_some_and(|end| end <= self.len),
            "a record lies in the mapping"
        );
        // SAFETY: the range lies in the mapping (just checked), which lives as long as the process; `into` is memory of
        // ours and not of the mapping, since nothing here hands out references to the bytes that this copies.
        unsafe {
            self.start.as_ptr().wrapping_add(offset).copy_to_nonoverlapping(into.as_mut_ptr(), into.len())
        }
    }

    /// Copies bytes in.
    pub(crate) fn write(&mut self, offset: usize, from: &[u8]) {
        assert!(
            offset.checked_add(from.len()).is_some_and(|end| end <= self.len),
            "a record lies in the mapping"
        );
        // SAFETY: as in `read`, the other way round; `&mut self` keeps other readers and writers of this process away.
        unsafe {
            self.start.as_ptr().wrapping_add(offset).copy_from_nonoverlapping(from.as_ptr(), from.len())
        }
    }

    /// A cell that the kernel may write to at any time (clone3's `parent_tid`). Its four bytes are reached in no other
    /// way: the layout of `state` keeps them apart from what `read` and `write` copy.
    pub(crate) fn cell(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len, "a cell lies in the mapping, aligned");
        // SAFETY: aligned (the mapping begins on a page, and the offset was just checked) and inside the mapping, which
        // outlives `&self`; an atomic allows for other writers, of which the kernel is one.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().wrapping_add(offset).cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_its_file_is_unmapped() {
        let mapping = |head: &str, anonymous: u32| {
            format!("{head}\nSize: 64 kB\nRss: 64 kB\nAnonymous: {anonymous} kB\nVmFlags: rd mr\n")
        };
        let smaps = [
            mapping("1000-3000 r--p 00000000 00:1c 7   /usr/sbin/motherd", 0),
            mapping("3000-8000 r-xp 00002000 00:1c 7   /usr/sbin/motherd", 0),
            mapping("8000-9000 r--p 00007000 00:1c 7   /usr/sbin/motherd", 4),
            mapping("9000-a000 rw-p 00008000 00:1c 7   /usr/sbin/motherd", 0),
            mapping("a000-b000 r-xp 00000000 00:1c 8   /usr/lib/gone.so (deleted)", 0),
            mapping("b000-c000 rw-p 00000000 00:00 0   [heap]", 0),
            mapping("c000-d000 r--p 00000000 00:00 0", 0),
            mapping("d000-e000 r--s 00000000 00:1c 9   /usr/lib/gconv.cache", 0),
            mapping("e000-f000 r-xp 00000000 00:00 0   [vdso]", 0),
            mapping("7f00000-7f02000 r-xp 00000000 00:1c 9   /usr/lib/libc.so.6", 0),
        ];
        assert_eq!(clean_files(&smaps.concat()), [(0x1000, 0x2000), (0x3000, 0x5000), (0x7f0_0000, 0x2000)]);
    }

    #[test]
    fn a_program_runs_on_without_what_was_unmapped() {
        let mapped = |name: &str| {
            let rollup = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let of = rollup.split(name).skip(1).filter_map(|part| {
                part.lines().find_map(|line| {
                    line.strip_prefix("Rss:")?.split_whitespace().next()?.parse::<u64>().ok()
                })
            });
            of.sum::<u64>()
        };
        let program = std::env::current_exe().unwrap().display().to_string();
        let before = mapped(&program);
        unmap_what_ran().unwrap();
        let after = mapped(&program);
        assert!(after < before, "{after} kB of {before}");
    }
}
