//! `Tree`: who names whom, with the state of each; and what has the next boot start a service.

use std::collections::{BTreeMap, BTreeSet};

use super::{Daemon, answer::Named};
use crate::{
    control::protocol::{RequestError, TreeEdge, TreeNode},
    graph::Id,
    service::enabled,
};

impl Daemon {
    /// Some services with all that they name, near and far; all services where none is named.
    pub(super) fn tree(&self, names: &[String]) -> Result<Vec<TreeNode>, RequestError> {
        let graph = self.manager.graph();
        let mut found: BTreeSet<Id> = BTreeSet::new();
        let mut left: Vec<Id> = Vec::new();
        for name in names {
            match self.find(name)? {
                Named::Service(id) => left.push(id),
                Named::Broken | Named::Orphan | Named::Unmade => {
                    let why = format!("{name} is not among the services that can be started");
                    return Err(RequestError::Refused { why });
                }
            }
        }
        if names.is_empty() {
            left.extend(graph.ids().filter(|id| !self.is_gone(*id)));
        }
        while let Some(id) = left.pop() {
            if found.insert(id) {
                let named = graph.service(id).dependencies().each();
                left.extend(named.filter_map(|(_, name)| graph.find(&name.value)));
            }
        }
        let mut nodes: Vec<TreeNode> = found.into_iter().map(|id| self.node(id)).collect();
        nodes.sort_by(|one, other| one.service.cmp(&other.service));
        Ok(nodes)
    }

    fn node(&self, id: Id) -> TreeNode {
        let graph = self.manager.graph();
        let edges = graph.service(id).dependencies().each().map(|(relation, name)| TreeEdge {
            relation: relation.key().to_owned(),
            service: name.value.clone(),
        });
        TreeNode {
            service: graph.name(id).to_owned(),
            state: self.shown_state(id),
            sub_state: self.sub_state(id),
            asked: self.manager.unit(id).explicit,
            edges: edges.collect(),
        }
    }

    /// What has the next boot start a service, apart from who needs it. The folder is read at each request: what stands
    /// there is what the next boot does, whoever changed it.
    pub(super) fn boot_reasons(&self) -> BTreeMap<String, &'static str> {
        let mut reasons = BTreeMap::new();
        let graph = self.manager.graph();
        if let Some(group) = graph.find(enabled::GROUP) {
            let group = graph.next(group).unwrap_or(graph.service(group));
            let own = |file| !group.sources().path(file).starts_with(&self.paths.enabled);
            let named = group.dependencies().each();
            let named = named.filter(|(relation, name)| relation.starts() && own(name.at.file));
            reasons.extend(named.map(|(_, name)| (name.value.clone(), enabled::GROUP)));
        }
        match enabled::names(&self.paths.enabled) {
            Ok(names) => {
                for name in names {
                    reasons.entry(name).or_insert("enabled");
                }
            }
            Err(error) => tracing::error!("read {}: {error}", self.paths.enabled.display()),
        }
        reasons
    }
}
