//! `net = "service:NAME"`: whose network a service joins, what follows from that for the order of things, and the process
//! that stands for the network.
//!
//! A network lives as long as a process is in it. So who joins one needs its owner, whether its file says so or not; it
//! is handed the owner's main process, by the pidfd by which that is known; and it is restarted when the owner was started
//! anew, since what it is in then is the network of a service that is no more.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use sandbox::{
    diagnostic::{Diagnostic, Report},
    policy::{Net, Policy, Rules, Store},
};

use super::{Daemon, now};
use crate::{
    graph::Id,
    manager::Effect,
    service::{Catalog, Service, Start},
    supervise::Cause,
};

/// Gives each service of a catalog the need that its policy implies.
pub(super) fn imply_needs(catalog: &mut Catalog, store: &Store) {
    // Many services share few policies.
    let mut joined: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut broken = Vec::new();
    for (name, service) in &mut catalog.services {
        let Some(program) = service.program() else { continue };
        let policy = &program.policy.value;
        let owner = joined.entry(policy.clone()).or_insert_with(|| owner_of(policy, store));
        if let Err(report) = imply(service, owner.as_deref()) {
            broken.push((name.clone(), report));
        }
    }
    let has_none =
        |service: &Service| service.program().is_none_or(|program| program.start == Start::Oneshot);
    let empty: Vec<&str> =
        catalog.services.values().filter(|service| has_none(service)).map(Service::name).collect();
    for service in catalog.services.values() {
        if let Some(owner) = service.network_of().filter(|owner| empty.contains(owner)) {
            let message =
                format!("`{}` joins the network of `{owner}`, which has no process", service.name());
            broken.push((
                service.name().to_owned(),
                refusal(service, message, "a oneshot and a group are up without one: join another service"),
            ));
        }
    }
    for (name, report) in broken {
        catalog.services.remove(&name);
        catalog.broken.insert(name, report);
    }
}

/// The same for one service that is made later, out of a template.
pub(super) fn imply_need(service: &mut Service, store: &Store) -> Result<(), Report> {
    let owner = service.program().and_then(|program| owner_of(&program.policy.value, store));
    imply(service, owner.as_deref())
}

/// Whose network a policy joins. One that is not good is told when the service is launched.
fn owner_of(policy: &str, store: &Store) -> Option<String> {
    store.load(policy).ok().as_ref().and_then(joined).map(str::to_owned)
}

fn joined(policy: &Policy) -> Option<&str> {
    let Rules::Confined(rules) = policy.rules() else { return None };
    match &rules.namespaces.net.value {
        Net::Service(owner) => Some(owner),
        Net::Private | Net::None | Net::Host => None,
    }
}

fn imply(service: &mut Service, owner: Option<&str>) -> Result<(), Report> {
    let Some(owner) = owner else { return Ok(()) };
    if owner == service.name() {
        let message = format!("`{owner}` joins its own network");
        return Err(refusal(service, message, "write net = \"private\" in its policy"));
    }
    service.join_network_of(owner);
    Ok(())
}

/// Said where the service's file names the policy.
fn refusal(service: &Service, message: String, help: &str) -> Report {
    let problem = match service.program() {
        Some(program) => Diagnostic::error("no-network", program.policy.at.clone(), message),
        None => Diagnostic::error_nowhere("no-network", message),
    };
    Report { sources: service.sources().clone(), diagnostics: vec![problem.help(help)] }
}

impl Daemon {
    /// The main process of the service whose network a plan joins, by its pidfd; `None` for a plan that joins none.
    pub(super) fn network(&self, owner: Option<&str>) -> Result<Option<OwnedFd>, String> {
        let Some(owner) = owner else { return Ok(None) };
        let graph = self.manager.graph();
        let id = graph.find(owner).ok_or_else(|| {
            format!("its policy joins the network of `{owner}`, and there is no such service")
        })?;
        let runs = self.manager.unit(id).main().is_some();
        let pidfd = self.runtime.get(&id).and_then(|runtime| runtime.pidfd.as_ref()).filter(|_| runs);
        match pidfd {
            Some(pidfd) => match pidfd.try_clone() {
                Ok(pidfd) => Ok(Some(pidfd)),
                Err(error) => Err(format!("keep hold of `{owner}`: {error}")),
            },
            None => Err(format!("its policy joins the network of `{owner}`, which has no process now")),
        }
    }

    /// The main process of a service that has one now.
    pub(super) fn main_of(&self, name: &str) -> Option<u32> {
        let id = self.manager.graph().find(name)?;
        self.manager.unit(id).main().map(|main| main.pid)
    }

    /// A service was started anew: who is in the network that it had is restarted, to be in the one that it has.
    pub(super) fn renew_network(&mut self, owner: Id) -> Vec<Effect> {
        let graph = self.manager.graph();
        let runs = |id: &Id| self.manager.unit(*id).main().is_some();
        let ids: Vec<Id> = graph.joined_to(owner).filter(runs).collect();
        if ids.is_empty() {
            return vec![];
        }
        let name = graph.name(owner);
        let cause = Cause::new(format!("restarted: it is in the network of {name}, which was started anew"));
        self.manager.restart(&ids, &cause, now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::load_dirs;

    /// The services of some files beside some policies.
    fn catalog(services: &[(&str, &str)], policies: &[(&str, &str)]) -> Catalog {
        let scratch = crate::scratch::Scratch::new();
        for (folder, files) in [("services", services), ("policies", policies)] {
            let folder = scratch.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            for (name, text) in files {
                std::fs::write(folder.join(format!("{name}.toml")), text).unwrap();
            }
        }
        let mut catalog = load_dirs(&[scratch.path().join("services")]);
        assert!(catalog.broken.is_empty(), "{:?}", catalog.broken);
        imply_needs(&mut catalog, &Store::new(vec![scratch.path().join("policies")]));
        catalog
    }

    #[test]
    fn who_joins_a_network_needs_its_owner_without_saying() {
        let catalog = catalog(
            &[
                ("db", "exec = [\"/bin/db\"]\npolicy = \"plain\"\n"),
                ("client", "exec = [\"/bin/client\"]\npolicy = \"joins\"\n"),
                ("says", "exec = [\"/bin/says\"]\npolicy = \"joins\"\n[dependencies]\nneeds = [\"db\"]\n"),
            ],
            &[("plain", ""), ("joins", "[namespaces]\nnet = \"service:db\"\n")],
        );
        for (name, owner) in [("db", None), ("client", Some("db")), ("says", Some("db"))] {
            let service = &catalog.services[name];
            let needs: Vec<&str> = service
                .dependencies()
                .of(crate::service::Relation::Needs)
                .iter()
                .map(|need| need.value.as_str())
                .collect();
            assert_eq!((service.network_of(), needs), (owner, owner.into_iter().collect()), "{name}");
        }
    }

    #[test]
    fn a_network_of_nobody_is_refused_where_the_policy_is_named() {
        let catalog = catalog(
            &[
                ("self", "exec = [\"/bin/self\"]\npolicy = \"self\"\n"),
                ("once", "exec = [\"/bin/once\"]\npolicy = \"plain\"\n[start]\ntype = \"oneshot\"\n"),
                ("client", "exec = [\"/bin/client\"]\npolicy = \"once\"\n"),
            ],
            &[
                ("plain", ""),
                ("self", "[namespaces]\nnet = \"service:self\"\n"),
                ("once", "[namespaces]\nnet = \"service:once\"\n"),
            ],
        );
        assert_eq!(catalog.services.keys().collect::<Vec<_>>(), ["once"]);
        let told = catalog.broken["client"].to_string();
        let expected = "error[no-network]: `client` joins the network of `once`, which has no process\n";
        assert!(told.starts_with(expected) && told.contains("client.toml:2:10"), "{told}");
        assert!(catalog.broken["self"].to_string().contains("`self` joins its own network"));
    }
}
