//! Versions of the groups, so that an upgrade never changes what a policy means that says which version it was written
//! for (`seccomp.groups = 1`).
//!
//! The table in [`super::groups`] is version 1, for ever: a golden file holds it to that. What a later version changes
//! stands in [`CHANGES`], as what it adds and what it takes away; taking away narrows a list of what is allowed and
//! widens one of what is denied, so both wait until a policy asks for them.

/// The version that a policy gets which names none.
pub const VERSION: u32 = 1;

/// What one version changed in one group.
struct Change {
    version: u32,
    group: &'static str,
    added: &'static [&'static str],
    removed: &'static [&'static str],
}

/// Every change since version 1, in the order of the versions.
const CHANGES: &[Change] = &[];

/// The highest number that `@known` of each version has: later calls have higher numbers.
const KNOWN: &[(u32, u32)] = &[(1, 470)];

/// The members of a group that are written in it, calls and groups, as of a version.
pub(super) fn written(
    group: &str,
    members: &'static [&'static str],
    version: u32,
) -> impl Iterator<Item = &'static str> {
    applied(CHANGES, group, members, version).into_iter()
}

fn applied(
    changes: &[Change],
    group: &str,
    members: &'static [&'static str],
    version: u32,
) -> Vec<&'static str> {
    let mut members = members.to_vec();
    for change in changes.iter().filter(|change| change.group == group && change.version <= version) {
        members.retain(|member| !change.removed.contains(member));
        members.extend(change.added);
    }
    members
}

/// Whether every group but `@known` is as of this version what is written in the table.
pub(super) fn is_as_written(version: u32) -> bool {
    CHANGES.iter().all(|change| change.version > version)
}

/// The highest number of `@known` as of a version.
pub(super) fn highest_known(version: u32) -> u32 {
    KNOWN.iter().filter(|(since, _)| *since <= version).map(|(_, highest)| *highest).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write, fs, path::PathBuf};

    use super::*;
    use crate::syscalls::{groups, highest, name};

    #[test]
    fn a_version_has_what_it_and_those_before_it_changed() {
        const CHANGES: &[Change] = &[
            Change { version: 2, group: "@a", added: &["new"], removed: &[] },
            Change { version: 2, group: "@b", added: &["other"], removed: &[] },
            Change { version: 3, group: "@a", added: &["newer"], removed: &["old"] },
        ];
        let members = |version| applied(CHANGES, "@a", &["old", "older"], version);
        assert_eq!(members(1), ["old", "older"]);
        assert_eq!(members(2), ["old", "older", "new"]);
        assert_eq!(members(3), ["older", "new", "newer"]);
        assert_eq!(members(9), members(3));
    }

    #[test]
    fn each_change_belongs_to_a_version_that_is_there_and_the_last_knows_every_call() {
        assert!(CHANGES.iter().all(|change| change.version > 1));
        assert_eq!(CHANGES.iter().map(|change| change.version).max().unwrap_or(1), VERSION);
        assert_eq!(
            highest_known(VERSION),
            highest(),
            "a call came to the table: @known needs a version for it"
        );
    }

    /// What a version had it has for ever: there is no BLESS for a file that is there.
    #[test]
    fn the_members_of_every_version_are_those_of_its_golden_file() {
        for version in 1..=VERSION {
            let mut text = String::new();
            for (group, _) in groups::all() {
                let calls = groups::members_of_version(group, version).expect("it is a group");
                let calls: Vec<&str> = calls.into_iter().filter_map(name).collect();
                writeln!(text, "{group}: {}", calls.join(" ")).expect("a String takes everything");
            }
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
            let file = folder.join(format!("groups-{version}.txt"));
            if !file.exists() && std::env::var_os("BLESS").is_some() {
                fs::write(&file, &text).expect("the folder is ours");
            }
            let golden = fs::read_to_string(&file).unwrap_or_default();
            for (now, then) in text.lines().zip(golden.lines()) {
                assert_eq!(now, then, "version {version} is frozen: write what changed into CHANGES");
            }
            assert_eq!(text.lines().count(), golden.lines().count(), "{}", file.display());
        }
    }
}
