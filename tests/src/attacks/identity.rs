//! Attacks on identity: capabilities that come back, ids that reach the host's, files that give more than one has.

use std::ffi::CString;
use std::fs;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno::EPERM;

use super::lab::Lab;
use super::sys::{self, Argument};
use super::{Verdict, attacks};
use crate::probe::Outcome;

attacks! {
    capabilities_return_to_root_at_exec [25]
        "empty bounding set; SECBIT_NOROOT and the other bits, locked";
    identity_of_root_taken_back [25]
        "setresuid of all three ids, no capability, and the filter";
    host_root_mapped_into_a_user_namespace [23]
        "a map with the host's 0 is refused";
    setuid_and_file_capabilities [26]
        "no_new_privs, nosuid mounts, empty bounding set";
    set_user_id_files_made_by_a_service [26]
        "the filter, on the mode of every call that takes one";
    speculation_left_to_the_process [49]
        "PR_SPEC_FORCE_DISABLE, or the launch fails";
}

const EMPTY: &str = "0000000000000000";

fn capabilities_return_to_root_at_exec(lab: &Lab) -> Result<Verdict> {
    let program = lab.program().to_owned();
    let shown = |output: &str, set: &str| {
        output.lines().find_map(|line| line.strip_prefix(set)).unwrap_or_default().trim().to_owned()
    };
    let sections = "[process]\nuser = \"root\"\n";
    let first = lab.confined(sections, &["privileges"])?.ok()?;
    let again = lab.confined(sections, &["execute-and-show", &program])?.ok()?;
    for output in [&first, &again] {
        ensure!(output.contains("Uid: 0 0 0 0"), "it is root: {output}");
        ensure!(shown(output, "CapPrm:") == EMPTY && shown(output, "CapEff:") == EMPTY, "{output}");
    }
    let free = lab.unconfined(&["execute-and-show", &program])?.ok()?;
    ensure!(shown(&free, "CapPrm:") != EMPTY, "control: root gets them at exec: {free}");
    // The locks are read back by the kernel's own word: PR_GET_SECUREBITS is 27.
    let bits = lab.outcome(sections, "securebits-are-locked")?;
    ensure!(bits == Outcome::Allowed, "the bits are set and locked: {bits}");
    Ok(Verdict::Resisted)
}

fn identity_of_root_taken_back(lab: &Lab) -> Result<Verdict> {
    let open = "[seccomp]\nallow = { add = [\"@setuid\"] }\ndeny = { remove = [\"@privileged\"] }\n";
    // Once by the filter, and once by the kernel, the filter being open.
    for sections in ["", open] {
        lab.resists(sections, &[("setuid 0", &[EPERM])])?;
    }
    Ok(Verdict::Resisted)
}

fn host_root_mapped_into_a_user_namespace(lab: &Lab) -> Result<Verdict> {
    for map in ["0 0 1", "1000 0 1", "0 0 65536"] {
        let sections =
            format!("[namespaces]\nuser = {{ uid_map = [\"{map}\"], gid_map = [\"0 100000 65536\"] }}\n");
        let told = lab.plan(&sections).map(drop).map_err(|error| format!("{error:#}"));
        ensure!(told.as_ref().is_err_and(|told| told.contains("unsafe-id-map")), "{map}: {told:?}");
    }
    for (map, code) in [
        ("\"0 100000 10\", \"5 200000 10\"", "invalid-id-map"),
        ("\"0 100000 10\", \"20 100005 10\"", "invalid-id-map"),
    ] {
        let sections =
            format!("[namespaces]\nuser = {{ uid_map = [{map}], gid_map = [\"0 100000 65536\"] }}\n");
        let told = lab.plan(&sections).map(drop).map_err(|error| format!("{error:#}"));
        ensure!(told.as_ref().is_err_and(|told| told.contains(code)), "{map}: {told:?}");
    }
    let good = "[namespaces]\nuser = { uid_map = [\"0 100000 65536\"], gid_map = [\"0 100000 65536\"] }\n";
    lab.plan(good).context("control: a map without the host's root")?;
    Ok(Verdict::Resisted)
}

/// VFS_CAP_REVISION_2 with the effective flag, and CAP_NET_ADMIN (linux/capability.h).
const FILE_CAPABILITIES: [u32; 5] = [0x0200_0001, 1 << 12, 0, 0, 0];

fn setuid_and_file_capabilities(lab: &Lab) -> Result<Verdict> {
    for name in ["bin/suid", "bin/capable"] {
        fs::copy(lab.program(), lab.path(name))?;
        lab.mode(name, 0o755)?;
    }
    lab.mode("bin/suid", 0o4755)?;
    let path = CString::new(lab.path("bin/capable"))?;
    let mut value: Vec<u8> = FILE_CAPABILITIES.iter().flat_map(|word| word.to_le_bytes()).collect();
    let size = u64::try_from(value.len())?;
    let set = sys::call(
        libc::SYS_setxattr,
        &mut [
            Argument::Text(&path),
            Argument::Text(c"security.capability"),
            Argument::Buffer(&mut value),
            Argument::Number(size),
            Argument::Number(0),
        ],
    );
    let (suid, capable) = (lab.path("bin/suid"), lab.path("bin/capable"));
    // With no_new_privs and, for who is root, without: the mounts are nosuid and the bounding set is empty.
    let none = lab.confined("", &["execute-and-show", &suid])?.ok()?;
    ensure!(!none.split_whitespace().any(|word| word == "0"), "set-user-ID gave root: {none}");
    let open =
        "[process]\nuser = \"root\"\nno_new_privs = false\n[capabilities]\nkeep = [\"CAP_SYS_ADMIN\"]\n";
    for (sections, kept) in [("", EMPTY), (open, "0000000000200000")] {
        let none = lab.confined(sections, &["execute-and-show", &capable])?.ok()?;
        ensure!(none.contains(&format!("CapPrm: {kept}")), "a file gave capabilities: {none}");
    }
    // The control: an ordinary user outside.
    let plain = |program: &str| lab.unconfined(&["execute-as-nobody", program])?.ok();
    let root = plain(&suid)?;
    ensure!(root.contains("Uid: 65534 0 0 0"), "control: set-user-ID works here: {root}");
    if set.is_ok() {
        let granted = plain(&capable)?;
        ensure!(
            granted.contains("CapPrm: 0000000000001000"),
            "control: file capabilities work here: {granted}"
        );
    }
    Ok(Verdict::Resisted)
}

fn set_user_id_files_made_by_a_service(lab: &Lab) -> Result<Verdict> {
    let verdict = lab.resists("", &[("make-suid /tmp", &[EPERM])])?;
    let free = lab.outcome("[process]\nrestrict_suid = false\n", "make-suid /tmp")?;
    ensure!(free == Outcome::Allowed, "control: without restrict_suid: {free}");
    Ok(verdict)
}

fn speculation_left_to_the_process(lab: &Lab) -> Result<Verdict> {
    use sandbox::kernel::Mitigation;
    let asked = "[process]\ndisable_speculation = [\"store-bypass\"]\n";
    let field = |sections: &str| -> Result<String> {
        let status = lab.confined(sections, &["show", "/proc/self/status"])?.ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Speculation_Store_Bypass:"));
        Ok(line.unwrap_or_default().trim().to_owned())
    };
    match lab.kernel().store_bypass {
        Mitigation::PerProcess => {
            ensure!(field(asked)? == "thread force mitigated", "{}", field(asked)?);
            ensure!(field("")? != "thread force mitigated", "control: {}", field("")?);
            Ok(Verdict::Resisted)
        }
        Mitigation::Unavailable => {
            let told = lab.plan(asked).map(drop).map_err(|error| format!("{error:#}"));
            ensure!(told.is_err(), "it cannot be disabled here, and the policy was taken");
            lab.plan("").context("control: without the key")?;
            Ok(Verdict::Resisted)
        }
        other @ (Mitigation::NotAffected | Mitigation::Always) => {
            Ok(Verdict::NotHere(format!("this processor does not speculate so: {other:?}")))
        }
    }
}
