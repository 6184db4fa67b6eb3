//! What another generation of service files changes, a line for each service.

use std::fmt::Write;

use crate::control::protocol::{Change, ConfigPlan};

pub(crate) fn plan(plan: &ConfigPlan) -> String {
    let mut text = String::new();
    for said in plan.errors.iter().chain(&plan.warnings) {
        line(&mut text, said.trim_end());
    }
    for change in &plan.changes {
        let (what, when) = match (change.change, change.runs) {
            (Change::Added, false) => ("added", ""),
            (Change::Added, true) => ("added", "runs under its former file until it is started again"),
            (Change::Changed, false) => ("changed", ""),
            (Change::Changed, true) => ("changed", "runs on; takes effect when it is started again"),
            (Change::Removed, false) => ("removed", ""),
            (Change::Removed, true) => ("removed", "runs on until it is stopped"),
        };
        line(&mut text, format!("{what:8} {:24} {when}", change.service).trim_end());
    }
    let end = match (plan.applied, plan.errors.is_empty(), plan.changes.is_empty()) {
        (_, false, _) => "nothing was changed: these errors come first",
        (_, true, true) => "nothing is different",
        (true, true, false) => "done",
        (false, true, false) => "nothing was changed: this is what would be",
    };
    line(&mut text, end);
    text
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::ConfigChange;

    fn check(applied: bool, errors: &[&str], changes: &[(&str, Change, bool)], expected: &str) {
        let changes = changes.iter().map(|(service, change, runs)| ConfigChange {
            service: (*service).to_owned(),
            change: *change,
            runs: *runs,
        });
        let errors = errors.iter().map(|error| (*error).to_owned()).collect();
        let given = ConfigPlan { applied, errors, warnings: vec![], changes: changes.collect() };
        assert_eq!(plan(&given), expected);
    }

    #[test]
    fn a_plan_says_what_changes_and_when() {
        check(true, &[], &[], "nothing is different\n");
        check(
            false,
            &[],
            &[("a", Change::Added, false), ("web", Change::Changed, true)],
            "added    a\nchanged  web                      runs on; takes effect when it is started again\n\
             nothing was changed: this is what would be\n",
        );
        check(
            false,
            &["a.toml:1:1: no\n"],
            &[],
            "a.toml:1:1: no\nnothing was changed: these errors come first\n",
        );
    }
}
