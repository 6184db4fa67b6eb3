//! Every example of the reference that shows a command is run: `docs/policy.md` promises nothing that it does not do.

mod inside;

use std::collections::BTreeSet;

use inside::{is_root, plan_for, run, run_in_cgroup};

const REFERENCE: &str = include_str!("../../docs/policy.md");

/// An example: lines of a policy, a command inside, and what it prints.
struct Example<'t> {
    section: &'t str,
    policy: &'t str,
    command: &'t str,
    output: &'t str,
}

/// A block of TOML that a block of console follows.
fn examples() -> Vec<Example<'static>> {
    let mut found = Vec::new();
    for section in REFERENCE.split("\n## ").skip(1) {
        let (title, text) = section.split_once('\n').expect("a section has a text");
        let mut rest = text;
        while let Some((before, console)) = rest.split_once("\n```console\n$ ") {
            let (console, after) = console.split_once("\n```").expect("a block ends");
            let (command, output) = console.split_once('\n').expect("a command has output");
            let (_, policy) =
                before.rsplit_once("```toml\n").expect("lines of a policy come before a command");
            let (policy, _) = policy.split_once("```").expect("a block ends");
            found.push(Example { section: title, policy, command, output });
            rest = after;
        }
    }
    found
}

#[test]
fn every_section_has_an_example_that_does_what_it_says() {
    let sections: BTreeSet<&str> = REFERENCE
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|title| title.starts_with('['))
        .collect();
    let shown: BTreeSet<&str> = examples().iter().map(|example| example.section).collect();
    assert_eq!(shown, sections);
    if !is_root() {
        return;
    }
    for example in examples() {
        // What is said of the cgroup is so in one that was made for the policy.
        let ran = |lines: &str| {
            let in_cgroup = (example.section == "[cgroup]")
                .then(|| run_in_cgroup(&plan_for("test", lines), example.command))
                .flatten();
            in_cgroup
                .unwrap_or_else(|| Ok(run(lines, example.command)))
                .unwrap_or_else(|error| panic!("{error}"))
        };
        let control = ran("");
        let ran = ran(example.policy);
        assert_eq!(
            (ran.output.trim(), ran.status),
            (example.output, 0),
            "{}: {}",
            example.section,
            example.command
        );
        // The control: without the lines the command prints something else.
        let same_everywhere = example.policy.contains("memory_max"); // limits need controllers; QEMU shows those
        assert_eq!(
            control.output.trim() == example.output,
            same_everywhere,
            "{}: {control:?}",
            example.section
        );
    }
}
