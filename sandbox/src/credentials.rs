//! [`Secret`]: what a credential's file holds, between the parent's reading it and the child's writing it.
//!
//! It is read before each launch, so that a service that is restarted gets the present one; it is never formatted, and
//! its memory is overwritten when it goes.

use std::{fmt, io::Read};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::{Mode, SFlag, fstat},
};

use crate::plan::CredentialPlan;

/// The most bytes that one has.
const LIMIT: u64 = 1 << 20;

/// The bytes of a credential.
pub(crate) struct Secret(Vec<u8>);

impl Secret {
    /// Reads one; `None` for an optional one that is missing.
    pub(crate) fn read(wanted: &CredentialPlan) -> Result<Option<Self>, Errno> {
        // Never wait for a fifo, follow a link or pass the descriptor on.
        let carefully =
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = match open(wanted.file.as_str(), carefully, Mode::empty()) {
            Err(Errno::ENOENT) if wanted.optional => return Ok(None),
            answer => answer?,
        };
        let status = fstat(&file)?;
        if status.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            return Err(Errno::EINVAL);
        }
        let size = u64::try_from(status.st_size).unwrap_or(u64::MAX);
        if size > LIMIT {
            return Err(Errno::EFBIG);
        }
        // Room for one more than there is, so that the bytes stay in one place: a larger copy would leave a smaller one.
        let mut secret = Self(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
        let room = u64::try_from(secret.0.capacity()).unwrap_or(LIMIT);
        let mut file = std::fs::File::from(file).take(room);
        while secret.0.len() < secret.0.capacity() {
            let filled = secret.0.len();
            secret.0.resize(secret.0.capacity(), 0);
            let read = file
                .read(&mut secret.0[filled..])
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
            secret.0.truncate(filled + read);
            if read == 0 {
                return Ok(Some(secret));
            }
        }
        // It grew meanwhile: what was read would be a part of it.
        Err(Errno::EAGAIN)
    }

    /// What it holds.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without this the compiler may see that nobody reads the zeroes and leave them out.
        std::hint::black_box(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret(b"hunter2".to_vec())), "Secret(7 bytes)");
    }
}
