//! What a motherd makes of a state that another one shows it: `motherd --check-state`, with the state as standard input.
//!
//! It starts nothing and changes nothing: it reads a copy of the records, the service files and their policies as it would
//! after a relaunch, and says what it could read, as JSON. So a motherd that runs can ask one that is to take over.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
    path::PathBuf,
};

use initldr::link;
use sandbox::policy::Store;
use serde_json::{Value, json};

use crate::{
    eventlog,
    graph::Graph,
    service,
    state::{self, Found, Table},
};

use super::super::log;

/// Reads all of it.
pub(super) fn look(
    state: impl AsFd,
    services: &[PathBuf],
    policies: &[PathBuf],
) -> Result<Value, nix::errno::Errno> {
    let (table, found, records) = Table::map(state)?;
    let (found, torn, foreign) = match found {
        Found::Fresh => ("fresh", 0, 0),
        Found::Alien => ("alien", 0, 0),
        Found::Known { torn, foreign, .. } => ("known", torn, foreign),
    };
    let names: Vec<&str> = records.iter().map(|record| record.name.as_str()).collect();

    let mut catalog = service::load_dirs(services);
    service::make_instances(&mut catalog, super::super::adopt::instances(&records, &BTreeMap::new()));
    let broken: BTreeSet<String> = catalog.broken.keys().cloned().collect();
    let built = Graph::build(catalog.services.values().cloned().collect(), &broken);
    let mut problems: Vec<String> = catalog.problems.iter().map(|problem| problem.message.clone()).collect();
    for (name, report) in catalog.broken.iter().chain(&built.refused) {
        problems.push(format!("{name}: {}", first_line(&report.to_string())));
    }
    let store = Store::new(policies.to_vec());
    let used: BTreeSet<&str> = catalog
        .services
        .values()
        .filter_map(|service| Some(service.program()?.policy.value.as_str()))
        .collect();
    let mut read = BTreeSet::new();
    for policy in used {
        match store.load(policy) {
            Ok(_) => {
                read.insert(policy);
            }
            Err(report) => problems.push(format!("policy {policy}: {}", first_line(&report.to_string()))),
        }
    }
    let loaded: Vec<&str> = built.graph.names().map(|(name, _)| name).collect();
    Ok(json!({
        "motherd": env!("CARGO_PKG_VERSION"),
        "layouts": {
            "link": link::VERSION,
            "state": state::LAYOUT,
            "records": state::FIELDS,
            "events": eventlog::LAYOUT,
            "logs": log::LAYOUT,
        },
        "in_use": { "state": table.layout() },
        "state": found,
        "records": names,
        "torn": torn,
        "foreign": foreign,
        "services": loaded,
        "policies": read,
        "problems": problems,
    }))
}

/// A report's first line says what is wrong and in which file; the rest shows the place.
fn first_line(report: &str) -> String {
    let mut lines = report.lines();
    let (first, place) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    format!("{first} ({})", place.trim().trim_start_matches("--> "))
}
