//! `motherctl enable` and `disable`: which services the next boot starts beyond what its group says.
//!
//! The files under `/etc/motherd/enabled` are changed here and not by motherd, so that works the same on an image, in an
//! installer and where motherd does not run. All names are checked before anything is written, and what was written is
//! taken back if a later name cannot be.

use std::{collections::BTreeSet, io, path::Path};

use sandbox::diagnostic::{Report, nearest};
use serde_json::{Value, json};

use super::{
    args::Global,
    failure::Failure,
    output::{print, print_json},
    remote,
    render::printable,
};
use crate::{
    control::protocol::{Request, RequestError, VERSION},
    graph::Graph,
    service::{Catalog, enabled, load_dirs, load_with_enabled},
};

/// What became of a name.
struct Done {
    name: String,
    changed: bool,
    /// Where the group's own file names it, if it does.
    named_at: Option<String>,
}

/// Has the next boot start them; and with `now` motherd start them at once.
pub(super) fn enable(global: &Global, names: &[String], now: bool) -> Result<u8, Failure> {
    let catalog = load_dirs(&global.services());
    let folder = global.enabled();
    if !catalog.services.contains_key(enabled::GROUP) {
        let why = format!("there is no group `{}` that could have them started", enabled::GROUP);
        return Err(Failure::say(1, why));
    }
    for name in names {
        known(&catalog, name)?;
    }
    let mut done = Vec::new();
    for name in names {
        let named_at = named_at(&catalog, name);
        let changed = if named_at.is_some() { Ok(false) } else { enabled::write(&folder, name) };
        match changed {
            Ok(changed) => done.push(Done { name: name.clone(), changed, named_at }),
            Err(error) => return Err(undone(&folder, &done, &folder.join(name), &error, enabled::remove)),
        }
    }
    if let Err(report) = still_boots(global, &catalog, &folder) {
        for written in done.iter().filter(|written| written.changed) {
            enabled::remove(&folder, &written.name)
                .map_err(|error| failed(&folder.join(&written.name), &error))?;
        }
        return Err(Failure::report(1, &report).advise("the boot would not start them; nothing was changed"));
    }
    tell(global, &done, true, now)?;
    if now { remote::ask(global, &Request::Start { services: names.to_vec() }) } else { Ok(0) }
}

/// The contrary.
pub(super) fn disable(global: &Global, names: &[String], now: bool) -> Result<u8, Failure> {
    let catalog = load_dirs(&global.services());
    let folder = global.enabled();
    let there = enabled::names(&folder).map_err(|error| failed(&folder, &error))?;
    for name in names {
        // Its service may be gone: then this is how its name goes.
        if !there.contains(name) {
            known(&catalog, name)?;
        }
        if let Some(at) = named_at(&catalog, name) {
            let why = format!("{}: {at} has it started: change that file", printable(name));
            return Err(Failure::say(1, why));
        }
    }
    let mut done = Vec::new();
    for name in names {
        match enabled::remove(&folder, name) {
            Ok(changed) => done.push(Done { name: name.clone(), changed, named_at: None }),
            Err(error) => return Err(undone(&folder, &done, &folder.join(name), &error, enabled::write)),
        }
    }
    tell(global, &done, false, now)?;
    if now { remote::ask(global, &Request::Stop { services: names.to_vec(), force: false }) } else { Ok(0) }
}

/// Whether there is a service of this name that can be started.
fn known(catalog: &Catalog, name: &str) -> Result<(), Failure> {
    if let Some(report) = catalog.broken.get(name) {
        return Err(Failure::report(1, report));
    }
    let template =
        |name: &str| name.split_once('@').is_some_and(|(name, _)| catalog.templates.contains_key(name));
    match name.strip_suffix('@') {
        Some(bare) if template(name) => {
            let why = format!("`{0}@` is a template: name an instance of it, `{0}@NAME`", printable(bare));
            return Err(Failure::say(1, why));
        }
        Some(_) | None => {}
    }
    if name == enabled::GROUP {
        return Err(Failure::say(1, format!("`{name}` is what each boot starts")));
    }
    if catalog.services.contains_key(name) || template(name) {
        return Ok(());
    }
    let near = nearest(name, catalog.services.keys().map(String::as_str)).map(str::to_owned);
    let unknown = RequestError::NoSuchService { service: name.to_owned(), near };
    Err(Failure::new(unknown.exit_status(), &unknown))
}

/// Where the group names it itself.
fn named_at(catalog: &Catalog, name: &str) -> Option<String> {
    let group = catalog.services.get(enabled::GROUP)?;
    let mut named = group.dependencies().each();
    let (_, found) = named.find(|(relation, other)| relation.starts() && other.value == name)?;
    Some(group.sources().locate(&found.at))
}

/// Whether all that could be started before still can.
fn still_boots(global: &Global, before: &Catalog, folder: &Path) -> Result<(), Report> {
    let refused = |catalog: &Catalog| {
        let broken: BTreeSet<String> = catalog.broken.keys().cloned().collect();
        Graph::build(catalog.services.values().cloned().collect(), &broken).refused
    };
    let known = refused(before);
    let after = refused(&load_with_enabled(&global.services(), folder));
    match after.into_iter().find(|(name, _)| !known.contains_key(name)) {
        Some((_, report)) => Err(report),
        None => Ok(()),
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let status = if error.kind() == io::ErrorKind::PermissionDenied { 5 } else { 1 };
    let what = match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).to_string(),
        None => error.to_string(),
    };
    Failure::say(status, format!("{}: {what}", path.display()))
}

/// One could not be done: neither are those before it.
fn undone(
    folder: &Path,
    done: &[Done],
    path: &Path,
    error: &io::Error,
    back: fn(&Path, &str) -> io::Result<bool>,
) -> Failure {
    for name in done.iter().filter(|done| done.changed).map(|done| &done.name) {
        if let Err(error) = back(folder, name) {
            return failed(path, &error).advise(&format!("and {name} was changed all the same"));
        }
    }
    failed(path, error)
}

fn tell(global: &Global, done: &[Done], enabled: bool, now: bool) -> Result<(), Failure> {
    if global.json {
        // With --now there is one object, and it is what came of that.
        if now {
            return Ok(());
        }
        let services: Vec<Value> = done
            .iter()
            .map(|done| json!({ "service": done.name, "enabled": enabled, "changed": done.changed }))
            .collect();
        return print_json(&json!({ "version": VERSION, "services": services }));
    }
    let mut text = String::new();
    for Done { name, changed, named_at } in done {
        let already = if *changed { "" } else { " already" };
        let word = if enabled { "enabled" } else { "disabled" };
        let by = named_at.as_ref().map(|at| format!(" by {at}")).unwrap_or_default();
        text.push_str(&format!("{}:{already} {word}{by}\n", printable(name)));
    }
    print(&text)
}
