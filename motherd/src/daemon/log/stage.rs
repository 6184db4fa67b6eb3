//! No byte is lost and none is written twice when motherd dies between the pipe and the file.
//!
//! ```text
//!   1  the stage is empty; its owner and the number of the next chunk are written down
//!   2  pipe --splice--> stage      the kernel moves bytes and makes the stage longer in one: its size says how many
//!   3  stage --lines--> file
//!   4  the book of the log says: this chunk is in the file, which is so long now, and what is carried on
//!   5  the stage is made empty
//! ```
//!
//! Both are memfds that initldr keeps. A motherd that finds something in the stage looks into its owner's book: if the
//! book has the chunk, only step 5 is missing; else the file is cut back to where the book says it ended, and steps 3 to
//! 5 are done. There is one stage for all logs, because motherd does one thing at a time.
//!
//! A book has two slots; the one that is not the newest is written, with a sequence number and a checksum, as the
//! records of services are.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
    unistd::{Whence, ftruncate, lseek},
};

use super::lines::Carry;
use crate::{
    fnv::fnv,
    service::NAME_MAX,
    sys::{memory::Shared, process::splice},
};

/// What one wake-up moves at most, so that a service that writes without end has the others wait for no more than this.
pub(crate) const CHUNK: usize = 64 << 10;
/// "MotherDl", little endian.
const MAGIC: u64 = u64::from_le_bytes(*b"MotherDl");
/// Magic, and the layout of a slot: another version is not read.
pub(crate) const LAYOUT: u64 = 1;
/// One slot.
const SLOT: usize = 160;
/// Two slots a book; the first book is the header and the owner of the stage.
const BOOK: usize = 2 * SLOT;
/// As many as initldr keeps log pipes.
const BOOKS: usize = 2048;
/// 640 KiB, of which only what is used is ever there.
const SIZE: usize = BOOK * BOOKS;

/// What is known of one log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Page {
    /// The service.
    pub(crate) name: String,
    /// The last chunk that is in its file; of the stage's owner: the chunk that is in the stage.
    pub(crate) chunk: u64,
    /// The file that was written to last.
    pub(crate) inode: u64,
    /// How long it was.
    pub(crate) size: u64,
    /// Bytes that no disk took, and that were not told of yet.
    pub(crate) lost: u64,
    pub(crate) carry: Carry,
}

/// The stage and the books.
#[derive(Debug)]
pub(crate) struct Stage {
    stage: File,
    books: Shared,
    by_name: BTreeMap<String, Place>,
    free: Vec<usize>,
    owner: Place,
    buffer: Vec<u8>,
}

/// Where a book is, and which of its slots is the newest.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    index: usize,
    newest: usize,
    sequence: u64,
}

/// What the motherd before this one left in the stage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Whose log it belongs to.
    pub(crate) name: String,
    /// It is not in the file yet: the file is to be cut back to what its book says first.
    pub(crate) undone: bool,
}

impl Stage {
    /// New memory for [`Stage::open`].
    pub(crate) fn memory() -> Result<(OwnedFd, OwnedFd), Errno> {
        let stage = memfd_create(c"motherd-stage", MFdFlags::MFD_CLOEXEC)?;
        let books = memfd_create(c"motherd-books", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&books, i64::try_from(SIZE).unwrap_or(i64::MAX))?;
        Ok((stage, books))
    }

    /// Over the memory that initldr keeps, and what is left in it.
    pub(crate) fn open(stage: OwnedFd, books: impl AsFd) -> io::Result<(Self, Option<Left>)> {
        let ours = [MAGIC.to_le_bytes(), LAYOUT.to_le_bytes()].concat();
        // By a call: where no book was written there is no page, and whoever reads through the mapping gets one.
        let mut all = Vec::new();
        let file = File::from(books.as_fd().try_clone_to_owned()?);
        let mut books = Shared::map(books, SIZE)?;
        // Without a page all of it is zeros, and reading those takes longer than all else that is done with new books.
        if lseek(&file, 0, Whence::SeekData) != Err(Errno::ENXIO) {
            all.resize(SIZE, 0);
            file.read_exact_at(&mut all, 0)?;
        }
        let mut this = if all.starts_with(&ours) {
            let mut this = Self::over(stage, books);
            this.find(&all);
            this
        } else {
            let written = |(_, book): &(usize, &[u8])| book.iter().any(|byte| *byte != 0);
            for (index, _) in all.chunks_exact(BOOK).enumerate().filter(written) {
                books.write(index * BOOK, &[0; BOOK]);
            }
            books.write(0, &ours);
            let mut this = Self::over(stage, books);
            this.free = (2..BOOKS).rev().collect();
            this.stage.set_len(0)?;
            this
        };
        let left = this.left()?;
        Ok((this, left))
    }

    fn over(stage: OwnedFd, books: Shared) -> Self {
        let owner = Place { index: 1, newest: 1, sequence: 0 };
        let buffer = Vec::with_capacity(CHUNK);
        Self { stage: stage.into(), books, by_name: BTreeMap::new(), free: Vec::new(), owner, buffer }
    }

    fn find(&mut self, all: &[u8]) {
        for (index, book) in all.chunks_exact(BOOK).enumerate().skip(1).rev() {
            match newest(index, book) {
                Some((place, _)) if index == 1 => self.owner = place,
                Some((place, page)) if !self.by_name.contains_key(&page.name) => {
                    self.by_name.insert(page.name, place);
                }
                Some(_) | None if index > 1 => self.free.push(index),
                Some(_) | None => {}
            }
        }
    }

    fn left(&mut self) -> io::Result<Option<Left>> {
        if self.stage.metadata()?.len() == 0 {
            return Ok(None);
        }
        let Some((_, owner)) = self.read(1) else {
            tracing::error!("what is in the log stage belongs to nobody");
            self.stage.set_len(0)?;
            return Ok(None);
        };
        let done = self.page(&owner.name).is_some_and(|page| page.chunk == owner.chunk);
        Ok(Some(Left { name: owner.name, undone: !done }))
    }

    /// The book of a log.
    pub(crate) fn page(&self, name: &str) -> Option<Page> {
        let place = self.by_name.get(name)?;
        Some(self.read(place.index)?.1)
    }

    /// Writes into the book of a log. `false`: there is no room for one more.
    #[must_use]
    pub(crate) fn write(&mut self, page: &Page) -> bool {
        let place = match self.by_name.get(&page.name) {
            Some(place) => *place,
            None => match self.free.pop() {
                Some(index) => Place { index, newest: 1, sequence: 0 },
                None => return false,
            },
        };
        let place = self.put(place, page);
        self.by_name.insert(page.name.clone(), place);
        true
    }

    /// Gives a book back.
    pub(crate) fn forget(&mut self, name: &str) {
        if let Some(place) = self.by_name.remove(name) {
            self.books.write(place.index * BOOK, &[0; BOOK]);
            self.free.push(place.index);
        }
    }

    /// Moves what a pipe has into the stage. The bytes, or EAGAIN where the pipe has none.
    pub(crate) fn fill(&mut self, pipe: BorrowedFd<'_>, name: &str, chunk: u64) -> Result<&[u8], Errno> {
        let page = Page { name: name.to_owned(), chunk, ..Page::default() };
        self.owner = self.put(self.owner, &page);
        nix::unistd::lseek(&self.stage, 0, nix::unistd::Whence::SeekSet)?;
        if splice(pipe, self.stage.as_fd(), CHUNK)? == 0 {
            // Nobody can write to it any more.
            return Err(Errno::EAGAIN);
        }
        self.staged()
    }

    /// What is in the stage.
    pub(crate) fn staged(&mut self) -> Result<&[u8], Errno> {
        let of = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        let size = usize::try_from(self.stage.metadata().map_err(of)?.len()).map_err(|_| Errno::EFBIG)?;
        self.buffer.resize(size, 0);
        self.stage.read_exact_at(&mut self.buffer, 0).map_err(of)?;
        Ok(&self.buffer)
    }

    /// The stage is of no more use: what was in it is in the file, and in the book.
    pub(crate) fn done(&mut self) {
        if let Err(error) = self.stage.set_len(0) {
            // It would be written again by the next motherd: said, since it cannot be helped.
            tracing::error!("empty the log stage: {error}");
        }
    }

    fn put(&mut self, place: Place, page: &Page) -> Place {
        let place = Place { newest: 1 - place.newest, sequence: place.sequence + 1, ..place };
        self.books.write(place.index * BOOK + place.newest * SLOT, &encode(page, place.sequence));
        place
    }

    fn read(&self, index: usize) -> Option<(Place, Page)> {
        let mut book = [0; BOOK];
        self.books.read(index * BOOK, &mut book);
        newest(index, &book)
    }
}

/// The newest slot of the book of that number.
fn newest(index: usize, book: &[u8]) -> Option<(Place, Page)> {
    let slots = (0..).zip(book.as_chunks::<SLOT>().0);
    let whole = slots.filter_map(|(newest, slot)| {
        let (sequence, page) = decode(slot)?;
        Some((Place { index, newest, sequence }, page))
    });
    whole.max_by_key(|(place, _)| place.sequence)
}

fn encode(page: &Page, sequence: u64) -> [u8; SLOT] {
    let Page { name, chunk, inode, size, lost, carry } = page;
    let nanoseconds = u64::try_from(carry.window.as_nanos()).unwrap_or(u64::MAX);
    let mut bytes = vec![0; 8];
    for word in [sequence, *chunk, *inode, *size, *lost, nanoseconds, carry.unsaid, carry.dropped] {
        bytes.extend(word.to_le_bytes());
    }
    for word in [carry.open.unwrap_or(u32::MAX), carry.in_window] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([u8::from(carry.dropping), u8::try_from(name.len()).unwrap_or_default()]);
    bytes.extend(name.as_bytes());
    let mut slot = [0; SLOT];
    slot[..bytes.len()].copy_from_slice(&bytes);
    let sum = fnv(&slot[8..]);
    slot[..8].copy_from_slice(&sum.to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT]) -> Option<(u64, Page)> {
    let (sum, rest) = slot.split_first_chunk()?;
    let (words, rest) = rest.split_at_checked(8 * 8)?;
    let mut words = words.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    let mut next = || words.next();
    let sequence = next()?;
    if sequence == 0 || u64::from_le_bytes(*sum) != fnv(&slot[8..]) {
        return None;
    }
    let (chunk, inode, size, lost) = (next()?, next()?, next()?, next()?);
    let (window, unsaid, dropped) = (Duration::from_nanos(next()?), next()?, next()?);
    let (open, rest) = rest.split_first_chunk()?;
    let (in_window, rest) = rest.split_first_chunk()?;
    let ([dropping, name], rest) = rest.split_first_chunk()?;
    let open = Some(u32::from_le_bytes(*open)).filter(|open| *open != u32::MAX);
    let in_window = u32::from_le_bytes(*in_window);
    let carry = Carry { open, dropping: *dropping == 1, window, in_window, unsaid, dropped };
    let name = rest.get(..usize::from(*name)).filter(|name| name.len() <= NAME_MAX)?;
    let name = str::from_utf8(name).ok()?.to_owned();
    Some((sequence, Page { name, chunk, inode, size, lost, carry }))
}
