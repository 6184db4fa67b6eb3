//! Files of the kernel that are one piece: it makes all of the text at once, and gives as much of it as there is room for
//! (seq_file with one record: `/proc/PID/status`, the flat and nested files of a cgroup). A read that leaves room has had
//! all of it, so that there is no need to ask for the end.

use std::{
    fs::File,
    io::{self, Read},
};

/// All of it, in one call where `room` is enough.
pub(crate) fn read(mut file: File, room: usize, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; room];
    let size = loop {
        match file.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    bytes.truncate(size);
    if size == room {
        file.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_file_is_read_however_little_room_there_is() {
        let whole = std::fs::read("/proc/self/limits").unwrap();
        for room in [1, 7, whole.len() - 1, whole.len(), whole.len() + 1, 8192] {
            let file = File::open("/proc/self/limits").unwrap();
            assert_eq!(read(file, room, 1 << 20).unwrap(), whole, "room for {room}");
        }
    }
}
