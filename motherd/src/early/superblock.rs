//! What a file system says of itself in its superblock: kind, UUID, label. Of those that a root is made of.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// A file system that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    /// As mount(2) calls it.
    pub(super) kind: &'static str,
    /// In lower case with dashes; `None` where this kind has none.
    pub(super) uuid: Option<String>,
    /// `None` where it was given none.
    pub(super) label: Option<String>,
}

/// Where a kind of file system has what.
struct Layout {
    kind: &'static str,
    magic: (u64, &'static [u8]),
    uuid: Option<u64>,
    /// Place and length.
    label: Option<(u64, usize)>,
}

/// Documentation/filesystems/ext4/super.rst; fs/btrfs/disk-io.c; fs/xfs/libxfs/xfs_format.h; squashfs.rst; erofs.rst.
/// The kernel's ext4 mounts ext2 and ext3 as well.
const LAYOUTS: [Layout; 5] = [
    Layout { kind: "ext4", magic: (0x438, &[0x53, 0xef]), uuid: Some(0x468), label: Some((0x478, 16)) },
    Layout {
        kind: "btrfs",
        magic: (0x1_0040, b"_BHRfS_M"),
        uuid: Some(0x1_0020),
        label: Some((0x1_012b, 256)),
    },
    Layout { kind: "xfs", magic: (0, b"XFSB"), uuid: Some(32), label: Some((108, 12)) },
    Layout { kind: "squashfs", magic: (0, b"hsqs"), uuid: None, label: None },
    Layout {
        kind: "erofs",
        magic: (1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
        uuid: Some(1072),
        label: Some((1088, 16)),
    },
];

/// Reads the one of a device or an image. `None`: it has none that is known here.
pub(super) fn read(path: &Path) -> io::Result<Option<Superblock>> {
    let file = File::open(path)?;
    let at = |offset: u64, length: usize| -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; length];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    };
    for layout in &LAYOUTS {
        let (offset, magic) = layout.magic;
        if at(offset, magic.len())?.as_deref() != Some(magic) {
            continue;
        }
        let uuid = layout.uuid.map(|offset| at(offset, 16)).transpose()?.flatten();
        let label = layout.label.map(|(offset, length)| at(offset, length)).transpose()?.flatten();
        return Ok(Some(Superblock {
            kind: layout.kind,
            uuid: uuid.as_deref().map(uuid_text),
            label: label.and_then(|bytes| label_text(&bytes)),
        }));
    }
    Ok(None)
}

/// 8-4-4-4-12.
fn uuid_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn label_text(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// A file that is one layout's superblock and nothing else.
    fn image(scratch: &Scratch, layout: &Layout) -> std::path::PathBuf {
        let path = scratch.path().join(layout.kind);
        let file = File::create(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(layout.magic.1, layout.magic.0).unwrap();
        if let Some(offset) = layout.uuid {
            file.write_all_at(&(0..16).collect::<Vec<u8>>(), offset).unwrap();
        }
        if let Some((offset, _)) = layout.label {
            file.write_all_at(b"the root", offset).unwrap();
        }
        path
    }

    #[test]
    fn each_kind_is_recognised_by_its_magic() {
        let scratch = Scratch::new();
        for layout in &LAYOUTS {
            let found = read(&image(&scratch, layout)).unwrap().unwrap();
            let uuid = layout.uuid.map(|_| "00010203-0405-0607-0809-0a0b0c0d0e0f".to_owned());
            let label = layout.label.map(|_| "the root".to_owned());
            assert_eq!(found, Superblock { kind: layout.kind, uuid, label });
        }
    }

    #[test]
    fn what_is_none_and_what_is_too_short_is_nothing() {
        let scratch = Scratch::new();
        let path = scratch.path().join("x");
        std::fs::write(&path, "short").unwrap();
        assert_eq!(read(&path).unwrap(), None);
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    /// The one that is not made by this file's own idea of the layout.
    #[test]
    fn mkfs_and_this_reader_agree() {
        let scratch = Scratch::new();
        let path = scratch.path().join("ext4");
        File::create(&path).unwrap().set_len(4 << 20).unwrap();
        let uuid = "12345678-9abc-def0-1234-56789abcdef0";
        let mut command = std::process::Command::new("mkfs.ext4");
        let made = command.args(["-q", "-U", uuid, "-L", "box"]).arg(&path).status();
        assert!(made.expect("this test needs mkfs.ext4: apt-get install e2fsprogs").success());
        let expected =
            Superblock { kind: "ext4", uuid: Some(uuid.to_owned()), label: Some("box".to_owned()) };
        assert_eq!(read(&path).unwrap(), Some(expected));
    }
}
