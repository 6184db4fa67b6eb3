//! `reload-config`: the files are read into another generation, compared with the one that runs, and take its place whole
//! or not at all.
//!
//! What runs goes on under the definition that it was started with; its new one takes effect when it is started again.
//! Relations and everything of services that do not run are the new generation's at once. Nothing is stopped, and nothing
//! is started but what a service that is meant to be up requires now. One file that is wrong, and nothing is changed.

use std::collections::BTreeSet;

use super::{Daemon, Fatal, networks, now};
use crate::{
    control::protocol::{Change, ConfigChange, ConfigPlan},
    graph::{Built, Graph},
    service::{self, Catalog},
    supervise::{Cause, Requester},
};

impl Daemon {
    /// Reads the files; without `dry_run` and without errors they are what holds from here on.
    pub(super) fn reload_config(&mut self, dry_run: bool, who: Requester) -> Result<ConfigPlan, Fatal> {
        let mut catalog = service::load_with_enabled(&self.paths.services, &self.paths.enabled);
        self.keep_instances(&mut catalog);
        networks::imply_needs(&mut catalog, &self.store);
        let services: Vec<_> = std::mem::take(&mut catalog.services).into_values().collect();
        let broken: BTreeSet<String> = catalog.broken.keys().cloned().collect();
        let Built { graph, refused, warnings } = Graph::build(services, &broken);
        let mut errors: Vec<String> =
            catalog.problems.iter().map(|problem| problem.message.clone()).collect();
        errors.extend(catalog.broken.values().chain(refused.values()).map(ToString::to_string));
        let changes = self.changes(&graph);
        let applied = !dry_run && errors.is_empty();
        let warnings = warnings.iter().map(ToString::to_string).collect();
        if applied {
            tracing::info!(
                "{}: {} changes",
                Cause::request("configuration reloaded", who).words,
                changes.len()
            );
            for change in changes.iter().filter(|change| !change.runs) {
                // What was compiled for its last run is read and compiled anew.
                if let Some(id) = self.manager.graph().find(&change.service)
                    && let Some(runtime) = self.runtime.get_mut(&id)
                {
                    runtime.outdate();
                }
            }
            self.catalog = catalog;
            let effects = self.manager.reload(graph, now());
            self.dispatch(effects)?;
            self.note_relations();
            self.load_sockets()?;
            self.load_timers()?;
        }
        Ok(ConfigPlan { applied, errors, warnings, changes })
    }

    /// Instances that somebody started by name are described by their template.
    fn keep_instances(&self, catalog: &mut Catalog) {
        let graph = self.manager.graph();
        let known = graph.names().filter(|(_, id)| !self.is_gone(*id)).map(|(name, _)| name.to_owned());
        service::make_instances(catalog, known.filter(|name| name.contains('@')).collect());
    }

    /// What another generation says differently, by name.
    fn changes(&self, new: &Graph) -> Vec<ConfigChange> {
        let old = self.manager.graph();
        let mut changes = Vec::new();
        for (name, id) in old.names().filter(|(_, id)| !old.is_retired(*id)) {
            let described = old.next(id).unwrap_or(old.service(id));
            let change = match new.find(name).map(|id| new.service(id)) {
                None => Change::Removed,
                Some(service) if !service.says_the_same_as(described) => Change::Changed,
                Some(_) => continue,
            };
            let runs = self.manager.unit(id).is_active();
            changes.push(ConfigChange { service: name.to_owned(), change, runs });
        }
        for (name, _) in new.names() {
            let id = old.find(name);
            if id.is_none_or(|id| old.is_retired(id)) {
                let runs = id.is_some_and(|id| self.manager.unit(id).is_active());
                changes.push(ConfigChange { service: name.to_owned(), change: Change::Added, runs });
            }
        }
        changes.sort_by(|one, other| one.service.cmp(&other.service));
        changes
    }
}
