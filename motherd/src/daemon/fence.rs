//! One motherd for one `/run/motherd` and one tree of cgroups: a lock on each of the two folders, which initldr holds.
//!
//! initldr never has two motherds. But there can be two pairs: a second one that is started by hand with the same paths
//! would take the control socket of the first and find its services as orphans. flock(2) belongs to the open file, so the
//! lock outlives motherd in initldr's store and goes with initldr; and a folder can be locked without a file in it.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use nix::errno::Errno;

use super::{Fatal, link::Link};
use crate::sys::process::flock;

/// Locks both folders, as far as they are there, or says who is in the way.
pub(super) fn close(
    link: &Link,
    stored: &mut BTreeMap<String, OwnedFd>,
    run: &Path,
    cgroups: Option<&Path>,
) -> Result<(), Fatal> {
    let folders = [("lock-run", Some(run)), ("lock-cgroups", cgroups)];
    for (slot, folder) in folders.into_iter().filter_map(|(slot, folder)| Some((slot, folder?))) {
        let fail = |source: io::Error| Fatal::system(format!("lock {}", folder.display()))(source);
        let here = File::open(folder).map_err(fail)?;
        let identity = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
        // One that was kept is of use only if the path still leads to it.
        let kept = stored.remove(slot).map(File::from);
        let same = match &kept {
            Some(kept) => identity(kept).map_err(fail)? == identity(&here).map_err(fail)?,
            None => false,
        };
        let lock = if same { kept.unwrap_or(here) } else { here };
        match flock(lock.as_fd()) {
            Ok(()) if same => {}
            Ok(()) => link.store(slot, lock.as_fd())?,
            Err(Errno::EWOULDBLOCK) => {
                return Err(Fatal::Managed { folder: folder.to_owned(), initldr: holder(&lock) });
            }
            Err(errno) => return Err(fail(errno.into())),
        }
    }
    Ok(())
}

/// The process that took a lock, as far as the kernel says; it may have ended, and its initldr holds it still.
fn holder(lock: &File) -> Option<String> {
    // `1: FLOCK  ADVISORY  WRITE 4711 00:1c:5 0 EOF`
    let inode = lock.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().find(|line| {
        let mut words = line.split_whitespace();
        let file = words.clone().nth(5).unwrap_or_default();
        words.any(|word| word == "FLOCK") && file.rsplit(':').next() == Some(&inode)
    })?;
    line.split_whitespace().nth(4).map(str::to_owned)
}
