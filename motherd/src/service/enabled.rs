//! What the boot wants beyond the file of its group: `/etc/motherd/enabled/NAME`, which `motherctl enable` writes.
//!
//! Each service has a file of its own there, so a package, an administrator and a tool that manages machines each change
//! theirs and nobody rewrites a list. The group's own file stays as its package has it. A name is written whole or not at
//! all, and what stands there is read with the service files: it is one `wants` more of the group.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use sandbox::{
    diagnostic::{Diagnostic, Located, Place},
    policy::read_file,
};

use super::{Catalog, Relation, words::check_service_name};

/// Where the names are, below the root.
pub const FOLDER: &str = "etc/motherd/enabled";
/// What a boot starts, and has them started.
pub const GROUP: &str = "system";

/// The names. A folder that is not there is empty.
///
/// # Errors
/// It cannot be read.
pub fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // Being written.
        if !name.starts_with('.') {
            names.insert(name);
        }
    }
    Ok(names)
}

/// The group wants them too.
pub(super) fn apply(folder: &Path, catalog: &mut Catalog) {
    let names = match names(folder) {
        Ok(names) => names,
        Err(error) => {
            let message = format!("read {}: {error}", folder.display());
            return catalog.problems.push(Diagnostic::error_nowhere("folder-unreadable", message));
        }
    };
    for name in names {
        let path = folder.join(&name);
        if let Err(why) = check_service_name(&name) {
            let message = format!("{}: `{name}` is not the name of a service", path.display());
            catalog.problems.push(Diagnostic::error_nowhere("bad-name", message).help(why));
            continue;
        }
        let text = match read_file(&path) {
            Ok(text) => text,
            Err(problem) => {
                catalog.problems.push(*problem);
                continue;
            }
        };
        if let Some(group) = catalog.services.get_mut(GROUP) {
            group.want(&name, &path, text);
        } else if !catalog.broken.contains_key(GROUP) {
            let message = format!("{}: there is no group `{GROUP}` that could want it", path.display());
            catalog.problems.push(Diagnostic::error_nowhere("missing-need", message));
        }
    }
}

impl super::Service {
    /// One want more, written in a file of its own; none where the service names it already.
    fn want(&mut self, name: &str, path: &Path, text: String) {
        if self.dependencies.each().any(|(relation, other)| relation.starts() && other.value == name) {
            return;
        }
        let end = text.trim_end().len();
        let at = Place { file: self.sources.add(path, text), span: 0..end };
        self.dependencies.add(Relation::Wants, Located::new(name.to_owned(), at));
    }
}

/// Writes a name. Whether it was not there.
///
/// # Errors
/// What was done, and what the kernel said.
pub fn write(folder: &Path, name: &str) -> io::Result<bool> {
    let path = folder.join(name);
    if path.exists() {
        return Ok(false);
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o644).open(&temporary)?;
    let written = writeln!(file, "{name}").and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, &path)) {
        fs::remove_file(&temporary)?;
        return Err(error);
    }
    File::open(folder)?.sync_all()?;
    Ok(true)
}

/// Removes a name. Whether it was there.
///
/// # Errors
/// What was done, and what the kernel said.
pub fn remove(folder: &Path, name: &str) -> io::Result<bool> {
    match fs::remove_file(folder.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        removed => removed?,
    }
    File::open(folder)?.sync_all()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::PathBuf};

    use super::*;
    use crate::{
        graph::Graph,
        scratch::Scratch,
        service::{load_dirs, load_with_enabled},
    };

    const EXEC: &str = "exec = [\"/bin/a\"]\n";

    fn folders(scratch: &Scratch, files: &[(&str, &str)]) -> (Vec<PathBuf>, PathBuf) {
        let services = scratch.path().join("services");
        fs::create_dir_all(&services).unwrap();
        fs::set_permissions(&services, fs::Permissions::from_mode(0o755)).unwrap();
        for (name, text) in files {
            let path = services.join(format!("{name}.toml"));
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        (vec![services], scratch.path().join("enabled"))
    }

    #[test]
    fn what_is_enabled_is_wanted_by_the_group_until_it_is_disabled() {
        let scratch = Scratch::new();
        let files =
            [(GROUP, "[dependencies]\nwants = [\"web\"]\n"), ("web", EXEC), ("db", EXEC), ("job@", EXEC)];
        let (services, enabled) = folders(&scratch, &files);
        assert_eq!(names(&enabled).unwrap().len(), 0, "the folder need not be there");
        for name in ["db", "web", "job@night"] {
            assert!(write(&enabled, name).unwrap(), "{name}");
            assert!(!write(&enabled, name).unwrap(), "{name} is written already");
        }
        let catalog = load_with_enabled(&services, &enabled);
        assert!(catalog.problems.is_empty(), "{:?}", catalog.problems);
        let plain = load_dirs(&services);
        assert!(!catalog.services[GROUP].says_the_same_as(&plain.services[GROUP]), "a reload has to see it");
        let built = Graph::build(catalog.services.into_values().collect(), &BTreeSet::new());
        let wants = |built: &crate::graph::Built| -> Vec<String> {
            let id = built.graph.find(GROUP).unwrap();
            built.graph.edges(id).wants.iter().map(|id| built.graph.name(*id).to_owned()).collect()
        };
        assert_eq!(wants(&built), ["web", "db", "job@night"], "web once, and an instance is made");
        assert!(remove(&enabled, "db").unwrap() && !remove(&enabled, "db").unwrap());
        let catalog = load_with_enabled(&services, &enabled);
        let built = Graph::build(catalog.services.into_values().collect(), &BTreeSet::new());
        assert_eq!(wants(&built), ["web", "job@night"]);
    }

    #[test]
    fn a_name_without_a_service_is_told_at_its_file_and_what_is_no_name_is_refused() {
        let scratch = Scratch::new();
        let (services, enabled) = folders(&scratch, &[(GROUP, "description = \"all\"\n")]);
        write(&enabled, "gone").unwrap();
        let catalog = load_with_enabled(&services, &enabled);
        let built = Graph::build(catalog.services.into_values().collect(), &BTreeSet::new());
        let warning = built.warnings[0].to_string();
        assert!(warning.contains("enabled/gone:1:1") && built.refused.is_empty(), "{warning}");
        fs::write(enabled.join("a b"), "").unwrap();
        fs::write(enabled.join("open"), "").unwrap();
        fs::set_permissions(enabled.join("open"), fs::Permissions::from_mode(0o666)).unwrap();
        let codes: Vec<&str> =
            load_with_enabled(&services, &enabled).problems.iter().map(|problem| problem.code).collect();
        assert_eq!(codes, ["bad-name", "unsafe-file"]);
        let (none, _) = folders(&Scratch::new(), &[]);
        remove(&enabled, "a b").unwrap();
        remove(&enabled, "open").unwrap();
        let lonely = load_with_enabled(&none, &enabled);
        assert!(lonely.problems[0].message.contains("no group `system`"), "{:?}", lonely.problems);
    }
}
