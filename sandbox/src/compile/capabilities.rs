//! `[capabilities]` and the change of identity: the bounding set, ids, the five sets, locked securebits.

use crate::{
    compile::{Builder, users::Ids},
    plan::{Op, Phase},
    policy::{Confinement, Securebit},
};

// linux/securebits.h
const NOROOT: u32 = 1 << 0;
const NOROOT_LOCKED: u32 = 1 << 1;
const NO_SETUID_FIXUP_LOCKED: u32 = 1 << 3;
const KEEP_CAPS_LOCKED: u32 = 1 << 5;
const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
const NO_CAP_AMBIENT_RAISE_LOCKED: u32 = 1 << 7;

/// A bit of a capability mask.
fn bit(capability: caps::Capability) -> u64 {
    1 << capability.index()
}

/// The steps, in the order in which each can still be done: dropping from the bounding set and setting securebits need
/// CAP_SETPCAP, so it is held until the last capset. The groups were set before, by `process`, while CAP_SETGID was there.
pub(crate) fn compile(rules: &Confinement, ids: &Ids, uid: u32, builder: &mut Builder<'_>) {
    let capabilities = &rules.capabilities;
    let keep = capabilities.keep.iter().fold(0, |mask, kept| mask | bit(kept.value));
    let ambient = capabilities.ambient.iter().fold(0, |mask, raised| mask | bit(raised.value));
    let during = keep | bit(caps::Capability::CAP_SETPCAP);

    let bounding = match ids {
        Ids::Host => Phase::Bounding,
        Ids::Own(_) => Phase::Identity,
    };
    let known = caps::all();
    for number in 0..=builder.kernel.last_capability {
        if keep & (1 << number) == 0 {
            builder.step(bounding, Op::DropBounding(number), name(number, &known), None);
        }
    }
    let user_at = Some(rules.process.user.at.clone());
    builder.step(Phase::Identity, Op::SetUid { keep_capabilities: true }, "", user_at);
    let sets = Op::SetCapabilities { permitted: during, effective: during, inheritable: ambient };
    builder.step(Phase::Identity, sets, "to the kept ones and CAP_SETPCAP", None);
    for raised in &capabilities.ambient {
        let at = Some(raised.at.clone());
        builder.step(Phase::Identity, Op::RaiseAmbient(raised.value.index()), raised.value.to_string(), at);
    }
    let chosen: Vec<Securebit> = rules.process.securebits.iter().map(|bit| bit.value).collect();
    let at = rules.process.securebits.first().map(|bit| bit.at.clone());
    builder.step(Phase::Identity, Op::Securebits(securebits(uid, keep, &chosen)), "locked", at);
    let sets = Op::SetCapabilities { permitted: keep, effective: keep, inheritable: ambient };
    builder.step(Phase::Identity, sets, "to the kept ones", None);
}

/// uid 0 regains every capability of the bounding set at exec unless SECBIT_NOROOT stands (capabilities(7)). That is
/// wanted for a root service that keeps some, where the bounding set is exactly those, and for nobody else; unless the
/// policy chose `noroot`. The bits about keeping and raising are locked unless the policy left them to the service.
fn securebits(uid: u32, keep: u64, chosen: &[Securebit]) -> u32 {
    let mut bits = NO_SETUID_FIXUP_LOCKED | NOROOT_LOCKED;
    if uid != 0 || keep == 0 || chosen.contains(&Securebit::NoRoot) {
        bits |= NOROOT;
    }
    if !chosen.contains(&Securebit::MayKeepCaps) {
        bits |= KEEP_CAPS_LOCKED;
    }
    if !chosen.contains(&Securebit::MayRaiseAmbient) {
        bits |= NO_CAP_AMBIENT_RAISE | NO_CAP_AMBIENT_RAISE_LOCKED;
    }
    bits
}

fn name(number: u8, known: &caps::CapsHashSet) -> String {
    known
        .iter()
        .find(|capability| capability.index() == number)
        .map_or_else(|| format!("capability {number}"), |capability| capability.to_string())
}
