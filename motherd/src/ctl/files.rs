//! What the service files say, without asking motherd: `check` and `graph`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use sandbox::policy::Store;
use serde_json::json;

use super::{
    args::Global,
    failure::Failure,
    output::{complain, print, print_json},
    render::plural,
};
use crate::{
    control::protocol::VERSION,
    graph::{Built, Graph},
    service::{Catalog, Relation, load_with_enabled},
};

/// Everything that the folders of service files say, with the policies that the services name.
struct Checked {
    services: usize,
    policies: usize,
    /// As they are shown.
    errors: Vec<String>,
    warnings: Vec<String>,
    graph: Graph,
}

impl Checked {
    fn of(dirs: &[PathBuf], enabled: &Path, store: &Store) -> Self {
        let Catalog { services, broken, problems, .. } = load_with_enabled(dirs, enabled);
        let mut errors: Vec<String> = problems
            .iter()
            .map(|problem| format!("error[{}]: {}\n", problem.code, problem.message))
            .collect();
        errors.extend(broken.values().map(ToString::to_string));
        let mut policies = BTreeMap::new();
        for service in services.values() {
            if let Some(program) = service.program() {
                policies.entry(program.policy.value.clone()).or_insert_with(|| {
                    format!("`{}`, {}", service.name(), service.sources().locate(&program.policy.at))
                });
            }
        }
        for (policy, service) in &policies {
            if let Err(report) = store.load(policy) {
                errors.push(format!("{report}  = note: it is the policy of {service}\n"));
            }
        }
        let count = services.len();
        let broken: BTreeSet<String> = broken.into_keys().collect();
        let Built { graph, refused, warnings } = Graph::build(services.into_values().collect(), &broken);
        errors.extend(refused.values().map(ToString::to_string));
        let warnings = warnings.iter().map(ToString::to_string).collect();
        Self { services: count, policies: policies.len(), errors, warnings, graph }
    }
}

/// Says all that is wrong; the exit status is 1 if anything is.
pub(super) fn check(global: &Global) -> Result<u8, Failure> {
    let checked = Checked::of(&global.services(), &global.enabled(), &Store::new(global.policies()));
    let Checked { services, policies, errors, warnings, .. } = &checked;
    if global.json {
        print_json(&json!({
            "version": VERSION,
            "services": services,
            "policies": policies,
            "errors": errors,
            "warnings": warnings,
        }))?;
    } else {
        let count = |count: usize, what| plural(u64::try_from(count).unwrap_or(u64::MAX), what);
        for said in errors.iter().chain(warnings) {
            complain(said);
        }
        print(&format!(
            "{} with {policies} {}: {}, {}\n",
            count(*services, "service"),
            if *policies == 1 { "policy" } else { "policies" },
            count(errors.len(), "error"),
            count(warnings.len(), "warning")
        ))?;
    }
    Ok(u8::from(!errors.is_empty()))
}

/// The graph of all services that can be started, for dot(1).
pub(super) fn graph(global: &Global) -> Result<u8, Failure> {
    let checked = Checked::of(&global.services(), &global.enabled(), &Store::new(global.policies()));
    let text = dot(&checked.graph);
    if global.json {
        print_json(&json!({ "version": VERSION, "dot": text }))?;
    } else {
        print(&text)?;
    }
    Ok(0)
}

/// An arrow leads from a service to what it names.
fn dot(graph: &Graph) -> String {
    let mut text = String::from("digraph services {\n    rankdir = LR;\n");
    for (name, id) in graph.names() {
        let shape = if graph.service(id).is_group() { "folder" } else { "box" };
        text.push_str(&format!("    \"{name}\" [shape = {shape}];\n"));
        for (relation, other) in graph.service(id).dependencies().each() {
            let style = match relation {
                Relation::Needs | Relation::BoundTo | Relation::PreparedBy | Relation::Milestone => "solid",
                Relation::Wants => "dashed",
                Relation::After | Relation::Before => "dotted",
                Relation::Conflicts => "bold",
            };
            if graph.find(&other.value).is_some() {
                let label = relation.key();
                let other = &other.value;
                text.push_str(&format!(
                    "    \"{name}\" -> \"{other}\" [label = \"{label}\", style = {style}];\n"
                ));
            }
        }
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn checked(files: &[(&str, &str)]) -> Checked {
        let scratch = Scratch::new();
        for (name, text) in files {
            std::fs::write(scratch.path().join(format!("{name}.toml")), text).unwrap();
        }
        let policies = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../policies"));
        Checked::of(&[scratch.path().to_owned()], Path::new("/nowhere"), &Store::new(vec![policies]))
    }

    #[test]
    fn services_policies_and_the_graph_are_checked_at_once() {
        let found = checked(&[
            ("good", "exec = [\"/bin/a\"]"),
            ("typing", "exce = [\"/bin/a\"]"),
            ("lost", "exec = [\"/bin/a\"]\npolicy = \"nowhere\""),
            ("one", "exec = [\"/bin/a\"]\n[dependencies]\nneeds = [\"two\"]"),
            ("two", "exec = [\"/bin/a\"]\n[dependencies]\nafter = [\"one\"]"),
            ("soft", "exec = [\"/bin/a\"]\n[dependencies]\nwants = [\"nobody\"]"),
        ]);
        let text = found.errors.join("");
        for part in [
            "unknown-key",
            "nowhere",
            "it is the policy of `lost`, ",
            "lost.toml:2:10",
            "`one` needs `two`",
            "`two` is after `one`",
        ] {
            assert!(text.contains(part), "{part} in:\n{text}");
        }
        assert_eq!(found.warnings.len(), 1);
        assert!(checked(&[("good", "exec = [\"/bin/a\"]")]).errors.is_empty());
    }

    #[test]
    fn the_graph_is_text_for_dot() {
        let found = checked(&[
            ("all", "[dependencies]\nwants = [\"web\"]"),
            ("web", "exec = [\"/bin/a\"]\n[dependencies]\nneeds = [\"db\"]"),
            ("db", "exec = [\"/bin/a\"]"),
        ]);
        assert_eq!(
            dot(&found.graph),
            "digraph services {\n    rankdir = LR;\n    \"all\" [shape = folder];\n    \"all\" -> \"web\" \
             [label = \"wants\", style = dashed];\n    \"db\" [shape = box];\n    \"web\" [shape = box];\n    \
             \"web\" -> \"db\" [label = \"needs\", style = solid];\n}\n"
        );
    }
}
