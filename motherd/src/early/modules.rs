//! Kernel modules: what each device asks for by its alias, and what an administrator asks for by name.
//!
//! `modprobe` does the loading: it knows the tables, the options and the block lists.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::Failure;

/// Where names are asked for, one a line (modules-load.d(5)); a file in an earlier folder hides one of its name.
const FOLDERS: [&str; 3] = ["/etc/modules-load.d", "/run/modules-load.d", "/usr/lib/modules-load.d"];
/// Debian's older list.
const LIST: &str = "/etc/modules";
/// The longest chain of devices in /sys is far below this.
const DEPTH: usize = 32;

/// Loads all of them. A name that cannot be loaded is a failure; an alias of a device that no module serves is none.
pub(super) fn load() -> Result<(), Failure> {
    let release = nix::sys::utsname::uname().map_err(Failure::of("uname"))?;
    let folder = Path::new("/lib/modules").join(release.release());
    if !folder.is_dir() {
        println!("{} is not there: nothing to load", folder.display());
        return Ok(());
    }
    let mut aliases = BTreeSet::new();
    find_aliases(Path::new("/sys/devices"), DEPTH, &mut aliases);
    // What one driver brings to light has aliases of its own, so it is looked again until nothing is new.
    let mut asked = BTreeSet::new();
    loop {
        let new: Vec<String> = aliases.difference(&asked).cloned().collect();
        if new.is_empty() {
            break;
        }
        // Most devices have no module; with -q modprobe says nothing of those, and its status tells nothing either.
        modprobe(&["-a", "-b", "-q"], &new)?;
        asked.extend(new);
        find_aliases(Path::new("/sys/devices"), DEPTH, &mut aliases);
    }
    let names = names()?;
    if !names.is_empty() && !modprobe(&["-a", "-b"], &names)? {
        return Err(Failure(format!("modprobe could not load all of {}", names.join(" "))));
    }
    Ok(())
}

/// Whether it succeeded.
fn modprobe(options: &[&str], names: &[String]) -> Result<bool, Failure> {
    let mut command = Command::new("/sbin/modprobe");
    let status = command.args(options).args(names).stdin(Stdio::null()).status();
    Ok(status.map_err(Failure::of("/sbin/modprobe"))?.success())
}

/// The contents of each `modalias` below a folder. A device may vanish while it is looked at.
fn find_aliases(folder: &Path, depth: usize, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth > 0 {
            find_aliases(&entry.path(), depth - 1, found);
        } else if entry.file_name() == "modalias"
            && let Ok(text) = fs::read_to_string(entry.path())
            && !text.trim().is_empty()
        {
            found.insert(text.trim().to_owned());
        }
    }
}

/// What the lists name.
fn names() -> Result<Vec<String>, Failure> {
    let mut files: Vec<PathBuf> = vec![LIST.into()];
    let mut seen = BTreeSet::new();
    for folder in FOLDERS {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(Failure::of(folder))?,
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let is_list = path.extension().is_some_and(|extension| extension == "conf");
            if is_list && seen.insert(path.file_name().map(ToOwned::to_owned)) {
                files.push(path);
            }
        }
    }
    let mut names = Vec::new();
    for file in files {
        match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => names.extend(listed(&other.map_err(Failure::of(file.display()))?)),
        }
    }
    Ok(names)
}

/// The first word of each line that is no comment.
fn listed(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_name_a_line() {
        assert_eq!(listed("# a comment\n loop\n\n; x\nvirtio_blk opt=1\n"), ["loop", "virtio_blk"]);
    }
}
