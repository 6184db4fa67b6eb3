//! `namespaces.user`: which ids of the host the service's ids are.

use crate::{
    compile::Builder,
    diagnostic::{Diagnostic, Located, Place},
    ordinary::OrdinaryUser,
    policy::{Account, Confinement, IdMap, IdRange, UserNamespace},
};

/// First id that `user = "auto"` may give out: what systemd reserves for containers (UIDS-GIDS.md: 524,288 to
/// 1,879,048,191), above what shadow gives out for subuid(5) (SUB_UID_MAX, 600,100,000).
const AUTO_FIRST: u32 = 0x2400_0000;
/// How many ids a service gets.
const AUTO_COUNT: u32 = 1 << 16;
/// How many such ranges there are, up to 0x6FFF_FFFF: 19,456.
const AUTO_RANGES: u32 = (0x7000_0000 - AUTO_FIRST) / AUTO_COUNT;

/// The range of a service: the same on every start and every machine, since it is a function of the name alone.
fn auto_range(name: &str) -> IdRange {
    let number = super::automatic::spread(name) % u64::from(AUTO_RANGES);
    let number = u32::try_from(number).unwrap_or(0);
    IdRange { inside: 0, outside: AUTO_FIRST + number * AUTO_COUNT, count: AUTO_COUNT }
}

/// The ids of a service.
#[derive(Debug, Clone)]
pub(crate) enum Ids {
    /// As the host's.
    Host,
    /// Of a namespace of its own.
    Own(Located<IdMap>),
}

/// Which half of a map.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Half {
    /// Users.
    Users,
    /// Groups.
    Groups,
}

impl Ids {
    /// What the policy asks for.
    pub(crate) fn of(rules: &Confinement, builder: &mut Builder<'_>) -> Self {
        let wanted = &rules.namespaces.user;
        if let Some(user) = builder.kernel.ordinary_user {
            return Self::Own(Located::new(one_id(rules, user, builder), wanted.at.clone()));
        }
        let map = match &wanted.value {
            UserNamespace::Host => return Self::Host,
            UserNamespace::Auto => {
                let range = vec![auto_range(&builder.subject.name)];
                IdMap { uid: range.clone(), gid: range }
            }
            UserNamespace::Mapped(map) => map.clone(),
        };
        refuse_without_support(&wanted.at, builder);
        Self::Own(Located::new(map, wanted.at.clone()))
    }

    fn ranges(&self, half: Half) -> &[IdRange] {
        match (self, half) {
            (Self::Host, _) => &[],
            (Self::Own(map), Half::Users) => &map.value.uid,
            (Self::Own(map), Half::Groups) => &map.value.gid,
        }
    }

    /// The host's id for one of the service's; one that is not mapped is told at `at`, as what it would have been.
    pub(crate) fn outside(&self, half: Half, inside: u32, at: &Place, builder: &mut Builder<'_>) -> u32 {
        if matches!(self, Self::Host) {
            return inside;
        }
        let range = self
            .ranges(half)
            .iter()
            .find(|range| inside.checked_sub(range.inside).is_some_and(|distance| distance < range.count));
        if let Some(range) = range {
            return range.outside + (inside - range.inside);
        }
        let (what, key) = half.words();
        let message = format!("{what} {inside} is not mapped in the service's user namespace");
        let mapped: Vec<String> = self.ranges(half).iter().map(IdRange::to_string).collect();
        let help = format!("{key} has {}: add a line, or choose another {what}", mapped.join(", "));
        builder.error(Diagnostic::error("unmapped-id", at.clone(), message).help(help));
        inside
    }

    /// The id of `auto` in a namespace of its own: the first that is an ordinary user's, or the lowest that is not root.
    pub(crate) fn automatic(&self, half: Half) -> Option<u32> {
        const ORDINARY: u32 = 1000;
        let ranges = self.ranges(half);
        let mapped = |id: u32| {
            ranges
                .iter()
                .any(|range| id.checked_sub(range.inside).is_some_and(|distance| distance < range.count))
        };
        if mapped(ORDINARY) {
            return Some(ORDINARY);
        }
        let lowest = |range: &IdRange| match (range.inside, range.count) {
            (0, 1) => None,
            (0, _) => Some(1),
            (first, _) => Some(first),
        };
        ranges.iter().filter_map(lowest).min()
    }
}

/// The map of an ordinary user, who has one id to give: whoever the policy names is that one, and `auto` is the user's
/// own. Outside is the namespace that the launcher has entered, in which the user is 0.
fn one_id(rules: &Confinement, user: OrdinaryUser, builder: &mut Builder<'_>) -> IdMap {
    let namespace = &rules.namespaces.user;
    if namespace.value != UserNamespace::Host {
        let message = "an ordinary user has one id to map, the own one";
        let help = "run it as root, or leave `namespaces.user` at \"host\"";
        builder.error(Diagnostic::error("needs-root", namespace.at.clone(), message).help(help));
    }
    if let Some(first) = rules.process.supplementary_groups.first() {
        let message = "an ordinary user cannot join groups";
        let help = "run it as root, or take `supplementary_groups` out";
        builder.error(Diagnostic::error("needs-root", first.at.clone(), message).help(help));
    }
    // A name that is not there is told by who reads the account.
    let (uid, primary) = match &rules.process.user.value {
        Account::Auto => (user.uid, Some(user.gid)),
        Account::Id(uid) => (*uid, builder.host.primary_group(*uid).unwrap_or(None)),
        Account::Name(name) => match builder.host.user(name) {
            Ok(Some((uid, gid))) => (uid, Some(gid)),
            Ok(None) | Err(_) => (user.uid, None),
        },
    };
    let gid = match &rules.process.group.value {
        Account::Auto => primary,
        Account::Id(gid) => Some(*gid),
        Account::Name(name) => builder.host.group(name).unwrap_or(None),
    };
    let only = |inside| vec![IdRange { inside, outside: 0, count: 1 }];
    IdMap { uid: only(uid), gid: only(gid.unwrap_or(user.gid)) }
}

impl Half {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Users => ("user", "uid_map"),
            Self::Groups => ("group", "gid_map"),
        }
    }
}

/// A user namespace is also what an idmapped bind is made with.
pub(crate) fn refuse_without_support(at: &Place, builder: &mut Builder<'_>) {
    if !builder.kernel.user_namespaces {
        let message = "this kernel makes no user namespaces";
        let help = "it is built without CONFIG_USER_NS, or user.max_user_namespaces is 0";
        builder.error(Diagnostic::error("no-user-namespace", at.clone(), message).help(help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;

    #[test]
    fn an_automatic_range_is_stable_aligned_and_within_its_bounds() {
        assert_eq!(AUTO_RANGES, 19_456);
        for name in ["web", "web1", "web2", "a", ""] {
            let range = auto_range(name);
            assert_eq!(range, auto_range(name));
            assert!(
                range.outside >= AUTO_FIRST && range.outside.is_multiple_of(AUTO_COUNT),
                "{name}: {range:?}"
            );
            assert!(range.outside + (range.count - 1) < 0x7000_0000, "{name}: {range:?}");
        }
        let ranges: std::collections::BTreeSet<u32> =
            (0..16).map(|n| auto_range(&format!("worker-{n}")).outside).collect();
        assert_eq!(ranges.len(), 16);
    }

    #[test]
    fn auto_is_an_ordinary_user_or_the_lowest_that_is_not_root() {
        let map = |ranges: &[(u32, u32)]| {
            let ranges: Vec<IdRange> = ranges
                .iter()
                .map(|(inside, count)| IdRange { inside: *inside, outside: 5000, count: *count })
                .collect();
            let at = crate::compile::described::here(()).at;
            Ids::Own(Located::new(IdMap { uid: ranges.clone(), gid: ranges }, at)).automatic(Half::Users)
        };
        assert_eq!(map(&[(0, 65_536)]), Some(1000));
        assert_eq!(map(&[(0, 10)]), Some(1));
        assert_eq!(map(&[(0, 1), (33, 1)]), Some(33));
        assert_eq!(map(&[(0, 1)]), None);
    }

    #[test]
    fn an_ordinary_user_makes_no_node_drops_no_group_and_is_whom_the_policy_names() {
        use crate::{
            compile::{compile_on, described},
            plan::Op,
        };
        let user = OrdinaryUser { uid: 1234, gid: 1235, lowest_nice: 5 };
        let kernel = Kernel { ordinary_user: Some(user), ..described::kernel(7) };
        let host = described::DescribedHost::debian();
        let compiled = |rules, kernel: &Kernel| {
            compile_on(&described::policy(rules), &described::subject(), kernel, &host).unwrap()
        };
        let roots = |op: &Op| matches!(op, Op::Mknod { .. } | Op::SetGroups(_));
        let plan = compiled(described::strict(), &kernel);
        assert!(!plan.steps.iter().any(|step| roots(&step.op)));
        // The policy says 0, which takes more than the user has.
        let nice = |plan: &crate::Plan| plan.steps.iter().any(|step| matches!(step.op, Op::Nice(_)));
        assert!(!nice(&plan) && plan.left_out.iter().any(|left| left.what == "nice"), "{:?}", plan.left_out);
        let maps = plan.user_namespace.map(|made| (made.uid_map, made.gid_map));
        assert_eq!(maps, Some(("1234 0 1\n".to_owned(), "1235 0 1\n".to_owned())));
        assert_eq!((plan.uid, plan.inside_uid), (0, 1234));
        let control = compiled(described::strict(), &described::kernel(7));
        assert!(control.user_namespace.is_none() && nice(&control));
        assert_eq!(control.steps.iter().filter(|step| roots(&step.op)).count(), 7);
        let mut rules = described::strict();
        rules.process.user.value = Account::Id(0);
        rules.process.group.value = Account::Id(0);
        let maps = compiled(rules, &kernel).user_namespace.map(|made| (made.uid_map, made.gid_map));
        assert_eq!(maps, Some(("0 0 1\n".to_owned(), "0 0 1\n".to_owned())));
    }
}
