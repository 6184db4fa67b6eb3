//! Services without anybody's file: `motherctl run --service`. Each is defined by a text that somebody sent, and known until
//! it is stopped and nothing of it is left.
//!
//! The text is kept as a file, so that the next motherd and `reload-config` find it like any other:
//!
//! ```text
//! run/transient/NAME          a mark: this definition is ours to remove     written first, removed last
//! run/services/NAME.toml      the definition                                renamed into place
//! ```
//!
//! A mark that says `held` keeps the service known after it has ended, until somebody stops it: whoever waits for its
//! exit status can still ask for it.
//!
//! Invariants: a file without a mark is never removed; a motherd that ends between any two of these steps leaves what the
//! next one puts away.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{Daemon, Fatal, networks::imply_need, now};
use crate::{
    control::{
        protocol::{Reply, RequestError},
        server::Incoming,
    },
    failpoint,
    graph::{Graph, Id},
    manager::Verb,
    service::{self, check_service_name},
    supervise::{Goal, Requester, State},
};

/// What a mark says of a service that stays known after its end.
const HELD: &str = "held\n";

/// Whose definitions are ours to remove, and whether each is held.
#[derive(Debug, Default)]
pub(super) struct Transients(BTreeMap<String, bool>);

impl Daemon {
    fn definition(&self, name: &str) -> PathBuf {
        self.paths.run.join("services").join(format!("{name}.toml"))
    }

    fn mark(&self, name: &str) -> PathBuf {
        self.paths.run.join("transient").join(name)
    }

    /// Defines a service and starts it; the answer is that of the start.
    pub(super) fn run_transient(
        &mut self,
        incoming: &Incoming,
        name: &str,
        text: &str,
        hold: bool,
    ) -> Result<(), Fatal> {
        let Incoming { connection, peer, .. } = incoming;
        match self.define(name, text, hold)? {
            Ok(id) => {
                let who = Requester { uid: peer.uid, pid: peer.pid };
                self.act(*connection, Verb::Start, &[id], who)
            }
            Err(error) => {
                self.server.reply(*connection, &Reply::Error(error), now());
                Ok(())
            }
        }
    }

    fn define(&mut self, name: &str, text: &str, hold: bool) -> Result<Result<Id, RequestError>, Fatal> {
        if let Err(why) = check_service_name(name) {
            let parameter = format!("service: `{name}` is not the name of a service: {why}");
            return Ok(Err(RequestError::InvalidParameter { parameter }));
        }
        let refused = |why: String| RequestError::Refused { why: format!("{name}: {why}") };
        if let Some(why) = self.taken(name) {
            return Ok(Err(refused(why)));
        }
        let path = self.definition(name);
        if !path.parent().is_some_and(|folder| self.paths.services.iter().any(|known| known == folder)) {
            let folder = path.parent().unwrap_or(&path).display();
            let why = format!(
                "motherd was started with --services and without {folder}: it would not outlive motherd"
            );
            return Ok(Err(refused(why)));
        }
        let checked = service::parse(name, &path, text.to_owned()).and_then(|mut service| {
            imply_need(&mut service, &self.store)?;
            if let Some(program) = service.program() {
                self.store.load(&program.policy.value)?;
            }
            Ok(service)
        });
        let service = match checked {
            Ok(service) => service,
            Err(report) => return Ok(Err(refused(format!("\n{}", report.to_string().trim_end())))),
        };
        // One that has ended and is still known makes room for the next of its name.
        let mut services = self.manager.graph().described();
        services.retain(|known| known.name() != name);
        services.push(service.clone());
        let broken = self.catalog.broken.keys().cloned().collect();
        let built = Graph::build(services, &broken);
        if let Some(report) = built.refused.values().next() {
            return Ok(Err(refused(format!("\n{}", report.to_string().trim_end()))));
        }
        if let Err(error) = self.keep(name, text, hold) {
            return Ok(Err(refused(format!("keep {}: {error}", path.display()))));
        }
        failpoint::hit("transient.kept");
        self.transients.0.insert(name.to_owned(), hold);
        self.catalog.services.insert(name.to_owned(), service);
        if let Some(before) = self.manager.graph().find(name) {
            self.forget_run(before)?;
        }
        self.manager.grow(built.graph);
        self.note_relations();
        self.load_sockets()?;
        self.load_timers()?;
        Ok(self.manager.graph().find(name).ok_or_else(|| refused("it is not in the graph".to_owned())))
    }

    /// Why no service of this name can be made, if so.
    fn taken(&self, name: &str) -> Option<String> {
        if let Some(id) = self.manager.graph().find(name).filter(|id| !self.is_gone(*id)) {
            let unit = self.manager.unit(id);
            let ours = self.transients.0.contains_key(name);
            let over = unit.state == State::Stopped && unit.goal == Goal::Down;
            if ours && (over || unit.state == State::Failed) {
                return None;
            }
            let service = self.manager.graph().service(id);
            let path = service.sources().files().next().map(|file| service.sources().path(file));
            let path = path.map(|path| format!(", from {}", path.display())).unwrap_or_default();
            let advice = if ours { ": stop it first, or choose another name" } else { "" };
            return Some(format!("there is a service of this name{path}{advice}"));
        }
        if let Some((template, _)) =
            name.split_once('@').filter(|(template, _)| self.catalog.templates.contains_key(*template))
        {
            return Some(format!(
                "it would be an instance of {template}@: `motherctl start {name}` starts that"
            ));
        }
        self.catalog
            .broken
            .contains_key(name)
            .then(|| "there is a file of this name, which has errors".to_owned())
    }

    /// Nobody describes it, and nothing of it is left: it is known to nobody but to this motherd's memory.
    pub(super) fn is_gone(&self, id: Id) -> bool {
        let unit = self.manager.unit(id);
        self.manager.graph().is_retired(id) && !unit.is_active() && unit.goal == Goal::Down
    }

    /// The mark, then the definition, each whole or not at all. Root's alone to read: its variables may be secrets.
    fn keep(&self, name: &str, text: &str, hold: bool) -> io::Result<()> {
        put(&self.mark(name), if hold { HELD } else { "" })?;
        failpoint::hit("transient.marked");
        put(&self.definition(name), text)
    }

    /// Somebody stops it: it need not stay known for whoever waited for its end.
    pub(super) fn let_transient_go(&mut self, id: Id) -> Result<(), Fatal> {
        let name = self.manager.graph().name(id).to_owned();
        if let Some(held) = self.transients.0.get_mut(&name)
            && std::mem::take(held)
        {
            let mark = self.mark(&name);
            put(&mark, "").map_err(Fatal::system(format!("write {}", mark.display())))?;
            // One that has ended already changes its state no more.
            self.ended.insert(id);
        }
        Ok(())
    }

    /// A service is at rest. One of ours that nobody means to be up, and that is not held, is forgotten.
    pub(super) fn put_away(&mut self, id: Id) -> Result<(), Fatal> {
        let name = self.manager.graph().name(id).to_owned();
        let unit = self.manager.unit(id);
        let over = unit.state == State::Stopped && unit.goal == Goal::Down;
        if self.transients.0.get(&name) != Some(&false) || !over {
            return Ok(());
        }
        let path = self.definition(&name);
        let described = self.catalog.services.get(&name);
        let ours = described.is_none_or(|service| {
            service.sources().files().next().is_some_and(|file| service.sources().path(file) == path)
        });
        if ours {
            let mut services = self.manager.graph().described();
            services.retain(|known| known.name() != name);
            let broken = self.catalog.broken.keys().cloned().collect();
            let built = Graph::build(services, &broken);
            if let Some(other) = built.refused.keys().next() {
                tracing::debug!("{name}: {other} requires it: it stays known");
                return Ok(());
            }
            self.remove_definition(&name)?;
            self.catalog.services.remove(&name);
            let effects = self.manager.reload(built.graph, now());
            self.dispatch(effects)?;
            self.note_relations();
            self.load_sockets()?;
            self.load_timers()?;
            self.forget_run(id)?;
            self.table.forget(&name);
        } else {
            // Somebody has written a file of this name since, which comes before ours.
            self.remove_definition(&name)?;
        }
        self.transients.0.remove(&name);
        // Who required it may have been what another one waited for.
        self.ended.extend(self.transients.0.keys().filter_map(|name| self.manager.graph().find(name)));
        Ok(())
    }

    /// Nothing of the service that was is told of the next one of its name.
    fn forget_run(&mut self, id: Id) -> Result<(), Fatal> {
        self.let_go_of_all(id)?;
        if let Some(readiness) = self.runtime.remove(&id).and_then(|runtime| runtime.readiness) {
            readiness.remove();
        }
        self.said.remove(id);
        self.log_due.remove(&id);
        self.ended.remove(&id);
        self.guarded.remove(id);
        self.searches.forget(id);
        self.checks.forget(id);
        self.sockets.forget(id);
        self.timers.forget(id);
        self.conditions.forget(id);
        // Whoever waits for a command of it still knows its id.
        self.manager.reset(id, !self.jobs.is_about(id));
        Ok(())
    }

    fn remove_definition(&self, name: &str) -> Result<(), Fatal> {
        for path in [self.definition(name), self.mark(name)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Fatal::system(format!("remove {}", path.display()))(error));
                }
                Ok(()) | Err(_) => failpoint::hit("transient.removed"),
            }
        }
        Ok(())
    }

    /// What a motherd before this one has marked. Those that are over are put away as soon as what runs is adopted.
    pub(super) fn load_transients(&mut self) -> Result<(), Fatal> {
        for folder in ["transient", "services"] {
            remove_unfinished(&self.paths.run.join(folder));
        }
        let folder = self.paths.run.join("transient");
        let marks = match fs::read_dir(&folder) {
            Ok(marks) => marks,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Fatal::system(format!("read {}", folder.display()))(error)),
        };
        for mark in marks.flatten() {
            let name = mark.file_name().to_string_lossy().into_owned();
            let held = fs::read_to_string(mark.path()).is_ok_and(|text| text == HELD);
            match self.manager.graph().find(&name) {
                Some(id) => {
                    self.transients.0.insert(name, held);
                    self.ended.insert(id);
                }
                // It has errors by now, which are told: the file stays for whoever reads them.
                None if self.definition(&name).exists() => {
                    self.transients.0.insert(name, held);
                }
                None => self.remove_definition(&name)?,
            }
        }
        Ok(())
    }
}

/// Writes a file whole, in the place of what was there.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(folder)?;
    let unfinished = folder.join(format!(".{}.new", name.to_string_lossy()));
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&unfinished, path)
}

/// What a motherd that ended while it wrote has left.
fn remove_unfinished(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.')
            && name.ends_with(".new")
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!("remove {}: {error}", entry.path().display());
        }
    }
}
