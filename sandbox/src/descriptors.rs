//! Where a launcher of many services keeps its descriptors.
//!
//! A child begins with copies of those that lie below the highest one that it uses, and its execve closes them again. So
//! what is held for long belongs far up, and the low numbers are for what a launch uses: then a launch costs the same
//! however many services run.

use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, fcntl};

/// Above what a launcher needs besides its services, and below any limit on open files that lets it have hundreds of them.
const FAR_UP: i32 = 1024;

/// The same by a number far up. Where there is none free, or the limit on open files is too low for it, it stays as it is.
#[must_use]
pub fn far_up(fd: OwnedFd) -> OwnedFd {
    match fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(FAR_UP)) {
        Ok(number) => crate::sys::adopt(number),
        Err(_) => fd,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
        os::fd::AsRawFd,
    };

    use super::*;

    #[test]
    fn a_pipe_works_by_numbers_far_up_and_the_low_ones_are_free_again() {
        let (reader, writer) = std::io::pipe().unwrap();
        let low = (reader.as_raw_fd(), writer.as_raw_fd());
        let (reader, writer) = (far_up(reader.into()), far_up(writer.into()));
        assert!(low.0 < FAR_UP && low.1 < FAR_UP, "control");
        assert!(reader.as_raw_fd() >= FAR_UP && writer.as_raw_fd() >= FAR_UP);
        File::from(writer).write_all(b"through").unwrap();
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }
}
