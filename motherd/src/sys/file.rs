//! Files: those that are trusted are judged by the descriptor that is read.

use std::{
    fs::OpenOptions,
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use sandbox::diagnostic::Diagnostic;

/// No configuration file is larger (1 MiB).
const MAX_BYTES: u64 = 1 << 20;

/// The text of a file that nobody but root, or who runs this, can have written.
pub(crate) fn read_checked(path: &Path) -> Result<String, Box<Diagnostic>> {
    let refuse = |code, what: &str, help: &str| {
        let problem = Diagnostic::error_nowhere(code, format!("{}: {what}", path.display()));
        Box::new(if help.is_empty() { problem } else { problem.help(help) })
    };
    let unreadable = |what: &str| refuse("file-unreadable", what, "");
    let told = |error: &std::io::Error| unreadable(&error.to_string());
    // O_NONBLOCK: a FIFO of that name must not hold the manager up.
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|e| told(&e))?;
    let about = file.metadata().map_err(|error| told(&error))?;
    if !about.is_file() {
        return Err(unreadable("it is not a regular file"));
    }
    if about.uid() != 0 && about.uid() != nix::unistd::geteuid().as_raw() {
        return Err(refuse(
            "file-owner",
            &format!("owned by user {}", about.uid()),
            "it has to be owned by root",
        ));
    }
    if about.mode() & 0o022 != 0 {
        let what = format!("writable by others (mode {:04o})", about.mode() & 0o7777);
        return Err(refuse("file-mode", &what, "chmod go-w"));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| told(&error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(unreadable("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// A folder for one test, gone afterwards.
#[cfg(test)]
pub(crate) struct Scratch(std::path::PathBuf);

#[cfg(test)]
impl Scratch {
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("motherd-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let scratch = Scratch::new();
        let path = scratch.path().join("a.toml");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_checked(&path).unwrap(), "x");
        for mode in [0o664, 0o646, 0o666] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_checked(&path).unwrap_err().code, "file-mode");
        }
        assert_eq!(read_checked(scratch.path()).unwrap_err().code, "file-unreadable");
    }
}
