//! `cgroup.pressure`: the triggers as the kernel takes them.
//!
//! A trigger lives as long as its descriptor is open, so it is none of the files that are written once and read back: whoever
//! launches arms it (`Cgroup::arm`) and waits for it.

use super::Builder;
use crate::{
    diagnostic::Diagnostic,
    kernel::{Kernel, PressureWindows},
    plan::Trigger,
    policy::{CgroupLimits, Policy, PressureTrigger, Rules},
};

/// The name in `cgroup.optional`.
const OPTIONAL: &str = "pressure";
/// What the kernel grants to who lacks CAP_SYS_RESOURCE, nanoseconds (PSI_FREQ of kernel/sched/psi.c).
const WHOLE: u64 = 2_000_000_000;

/// Why a kernel does not take one.
fn refusal(trigger: &PressureTrigger, kernel: &Kernel) -> Option<(&'static str, String)> {
    match kernel.pressure {
        PressureWindows::Any => None,
        PressureWindows::Whole if trigger.window.is_multiple_of(WHOLE) => None,
        PressureWindows::Whole => Some((
            "write a window of 2s, 4s, 6s, 8s or 10s, or run with CAP_SYS_RESOURCE",
            "without CAP_SYS_RESOURCE this kernel takes windows of whole 2s alone".to_owned(),
        )),
        PressureWindows::None => Some((
            "boot with psi=1, or a kernel with CONFIG_PSI; or write optional = [\"pressure\"] in [cgroup] to go without",
            "this kernel does not account pressure (PSI)".to_owned(),
        )),
    }
}

fn armed(limits: &CgroupLimits, policy: &Policy) -> impl Iterator<Item = Trigger> {
    limits
        .pressure
        .iter()
        .map(|trigger| Trigger { entry: trigger.value, at: policy.sources.locate(&trigger.at).to_string() })
}

/// The section's triggers; one that the kernel does not take is an error, unless PSI is optional and not there.
pub(crate) fn compile(policy: &Policy, limits: &CgroupLimits, builder: &mut Builder<'_>) -> Vec<Trigger> {
    if builder.kernel.pressure == PressureWindows::None && limits.optional.contains(OPTIONAL) {
        for trigger in &limits.pressure {
            let why = "this kernel does not account pressure (PSI)";
            builder.left_out(format!("cgroup pressure {}", trigger.value), why);
        }
        return Vec::new();
    }
    for trigger in &limits.pressure {
        if let Some((help, why)) = refusal(&trigger.value, builder.kernel) {
            let code = if builder.kernel.pressure == PressureWindows::None {
                "no-pressure"
            } else {
                "pressure-window"
            };
            builder.error(Diagnostic::error(code, trigger.at.clone(), why).help(help));
        }
    }
    armed(limits, policy).collect()
}

/// The triggers of a policy on a kernel that was asked already: for whoever did not launch the service, and comes after who
/// did. None where the kernel does not account it.
#[must_use]
pub fn triggers(policy: &Policy, kernel: &Kernel) -> Vec<Trigger> {
    match policy.rules() {
        Rules::Confined(rules) if kernel.pressure != PressureWindows::None => {
            armed(&rules.cgroup, policy).collect()
        }
        Rules::Confined(_) | Rules::Unconfined(_) => Vec::new(),
    }
}
