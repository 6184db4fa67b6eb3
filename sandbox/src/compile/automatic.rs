//! Ids that follow from a service's name alone: the same on every start and every machine, without a registry.

/// First uid of `user = "auto"`: 1,879,048,192. systemd's table of uids (UIDS-GIDS.md) has the range from here to
/// 2,147,352,575 as unused; above it lies what nobody may assign.
const AUTO_FIRST: u32 = 0x7000_0000;
/// How many there are.
const AUTO_COUNT: u32 = 0x0FFE_0000;

/// The uid (and gid) of `auto` for a service: the same on every start and every machine, since it is a function of the
/// name alone. Two names can meet (1,000 services: once in 540 fleets); whoever loads several services compares.
#[must_use]
pub fn auto_id(name: &str) -> u32 {
    AUTO_FIRST + u32::try_from(spread(name) % u64::from(AUTO_COUNT)).unwrap_or(0)
}

/// A number that differs from name to name.
pub(crate) fn spread(name: &str) -> u64 {
    // FNV-1a, 64 bits: spreads short names well and is written in one line.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    // Folded, because the low bits alone of FNV differ too little for names that differ in their last letter.
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_automatic_id_is_stable_and_within_its_range() {
        assert_eq!(auto_id("web"), auto_id("web"));
        for name in ["web", "web1", "web2", "a", "b", ""] {
            let id = auto_id(name);
            assert!((AUTO_FIRST..AUTO_FIRST + AUTO_COUNT).contains(&id), "{name}: {id}");
        }
    }

    #[test]
    fn a_thousand_numbered_names_have_a_thousand_ids() {
        let ids: std::collections::BTreeSet<u32> =
            (0..1000).map(|n| auto_id(&format!("worker-{n}"))).collect();
        assert_eq!(ids.len(), 1000);
    }
}
