//! Every Landlock ABI against every set of optional rights: what is enforced, left out or refused.

use super::*;
use crate::compile::{
    compile_on,
    described::{DescribedHost, beneath, kernel, policy, strict, subject},
};

const FEATURES: [LandlockFeature; 3] =
    [LandlockFeature::Filesystem, LandlockFeature::Net, LandlockFeature::Scope];

#[test]
fn what_an_abi_lacks_is_refused_or_left_out_by_name_and_the_rest_is_enforced() {
    for number in 0..=NEWEST + 3 {
        for bits in 0..8_usize {
            let optional = FEATURES.iter().enumerate().filter(|(index, _)| bits & (1 << index) != 0);
            let mut rules = strict();
            rules.landlock.optional = optional.map(|(_, feature)| *feature).collect();
            let is_optional = |feature| rules.landlock.optional.contains(&feature);
            // A kernel without any Landlock lacks all of it at once, and says so once.
            let lacks: Vec<LandlockFeature> = match number {
                0 => vec![LandlockFeature::Filesystem],
                1..NET_SINCE => vec![LandlockFeature::Net, LandlockFeature::Scope],
                NET_SINCE..SCOPE_SINCE => vec![LandlockFeature::Scope],
                _ => Vec::new(),
            };
            let (left, refused): (Vec<_>, Vec<_>) =
                lacks.into_iter().partition(|feature| is_optional(*feature));
            let outcome =
                compile_on(&policy(rules.clone()), &subject(), &kernel(number), &DescribedHost::debian());
            match outcome {
                Err(report) => {
                    let codes: Vec<_> = report.diagnostics.iter().map(|one| one.code).collect();
                    assert!(!refused.is_empty(), "ABI {number}, {bits:03b}: {report}");
                    assert_eq!(codes, vec!["no-landlock"; refused.len()], "ABI {number}, {bits:03b}");
                }
                Ok(plan) => {
                    assert!(refused.is_empty(), "ABI {number}, {bits:03b}: {refused:?} was not refused");
                    assert_eq!(plan.left_out().len(), left.len(), "ABI {number}, {bits:03b}");
                    let abi = (number > 0).then_some(number.min(NEWEST));
                    assert_eq!(
                        plan.landlock_abi(),
                        abi,
                        "never more than is known here, never less than there is"
                    );
                    let ports = plan.landlock.as_ref().is_some_and(|landlock| landlock.bind_tcp.is_some());
                    let scopes = plan.landlock_scopes().is_some_and(|scopes| scopes.len() == 2);
                    assert_eq!((ports, scopes), (number >= NET_SINCE, number >= SCOPE_SINCE), "ABI {number}");
                }
            }
        }
    }
}

/// Each ABI asks for the rights of those before it and more: a later one is the number in NEWEST.
#[test]
fn the_rights_of_an_abi_grow() {
    let rights: Vec<_> = (1..=NEWEST).map(|number| AccessFs::from_all(abi(number))).collect();
    assert!(rights.windows(2).all(|pair| pair[1].contains(pair[0])), "{rights:?}");
    let has = |number: u32, right: AccessFs| AccessFs::from_all(abi(number)).contains(right);
    for (right, since) in [(AccessFs::Refer, 2), (AccessFs::Truncate, 3), (AccessFs::IoctlDev, 5)] {
        assert!(has(since, right) && !has(since - 1, right), "{right:?} since {since}");
    }
}

#[test]
fn no_rule_left_is_an_error() {
    let mut rules = strict();
    let missing = |path: &str| {
        let mut paths = beneath(&[path]);
        paths.iter_mut().for_each(|path| path.value.optional = true);
        paths
    };
    rules.landlock.read = missing("/no/read");
    rules.landlock.execute = missing("/no/execute");
    rules.landlock.write = missing("/no/write");
    let report =
        compile_on(&policy(rules), &subject(), &kernel(NEWEST), &DescribedHost::debian()).unwrap_err();
    let codes: Vec<_> = report.diagnostics.iter().map(|one| one.code).collect();
    assert_eq!(codes, ["no-landlock-rule"], "{report}");
}
