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
