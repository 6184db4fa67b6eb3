//! What this machine offers to sandboxes and where it is lax, in plain words: `motherctl doctor`.
//!
//! [`Facts::probe`] reads, [`examine`] judges: pure, so that every machine can be described in a test.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::kernel::Kernel;

/// What a finding means to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// There, and as strict as it can be.
    Good,
    /// It works, and an attacker has it easier than need be.
    Lax,
    /// Policies that ask for it are refused here, unless they call it optional.
    Lacking,
}

/// One thing about this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub grade: Grade,
    /// `landlock`, `cgroup memory`, `sysctl dev.tty.legacy_tiocsti`.
    pub subject: String,
    /// What it is and what follows from it.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// What doctor looks at besides the [`Kernel`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `dev.tty.legacy_tiocsti` and its value; absent where the kernel has no such sysctl.
    pub sysctls: BTreeMap<String, String>,
    /// Files of the cgroup that services live below: `memory.peak` may be missing where `memory.max` is there.
    pub cgroup_files: Vec<String>,
    /// CAP_SYS_ADMIN among the effective capabilities of the asking process.
    pub is_admin: bool,
}

/// A sysctl that matters to sandboxes: its strict values, what the lax one lets happen, and what to set.
struct Sysctl {
    name: &'static str,
    strict: &'static [&'static str],
    lax: &'static str,
    set: &'static str,
}

/// Documentation/admin-guide/sysctl/{kernel,fs,vm}.rst, Documentation/admin-guide/LSM/Yama.rst.
const SYSCTLS: [Sysctl; 13] = [
    Sysctl {
        name: "dev.tty.legacy_tiocsti",
        strict: &["0"],
        lax: "a process can push input into its terminal (TIOCSTI); sandboxes of MotherD have none, other programs do",
        set: "0",
    },
    Sysctl {
        name: "fs.protected_symlinks",
        strict: &["1"],
        lax: "symbolic links in /tmp are followed for others",
        set: "1",
    },
    Sysctl {
        name: "fs.protected_hardlinks",
        strict: &["1"],
        lax: "anybody can link to files that are not theirs",
        set: "1",
    },
    Sysctl {
        name: "fs.protected_regular",
        strict: &["1", "2"],
        lax: "root can be tricked into writing to a file that another made in /tmp",
        set: "2",
    },
    Sysctl {
        name: "fs.protected_fifos",
        strict: &["1", "2"],
        lax: "root can be tricked into writing to a FIFO that another made in /tmp",
        set: "2",
    },
    Sysctl {
        name: "fs.suid_dumpable",
        strict: &["0"],
        lax: "programs that changed their identity dump core",
        set: "0",
    },
    Sysctl {
        name: "kernel.yama.ptrace_scope",
        strict: &["1", "2", "3"],
        lax: "processes of one user can trace one another; services have a user each unless their policy names one",
        set: "1",
    },
    Sysctl {
        name: "kernel.kptr_restrict",
        strict: &["1", "2"],
        lax: "kernel addresses are shown to everybody",
        set: "1",
    },
    Sysctl {
        name: "kernel.dmesg_restrict",
        strict: &["1"],
        lax: "the kernel's log is shown to everybody",
        set: "1",
    },
    Sysctl {
        name: "kernel.unprivileged_bpf_disabled",
        strict: &["1", "2"],
        lax: "anybody can load BPF programs",
        set: "2",
    },
    Sysctl {
        name: "kernel.io_uring_disabled",
        strict: &["1", "2"],
        lax: "io_uring passes by seccomp; MotherD's filters answer ENOSYS to it unless a policy allows it",
        set: "1",
    },
    Sysctl {
        name: "kernel.perf_event_paranoid",
        strict: &["2", "3", "4"],
        lax: "anybody can watch the kernel's performance events",
        set: "2",
    },
    Sysctl {
        name: "vm.unprivileged_userfaultfd",
        strict: &["0"],
        lax: "anybody can stall the kernel's page faults, which makes races in it easy to win",
        set: "0",
    },
];

/// Limits and figures, and the file that shows that a controller carries them.
const CONTROLLERS: [(&str, &str); 4] = [
    ("memory", "memory_high, memory_max, swap_max and oom_group, and the memory figures"),
    ("pids", "pids_max and the count of processes"),
    ("cpu", "cpu_weight and cpu_max"),
    ("io", "io_weight and the bytes read and written"),
];

impl Facts {
    /// Reads them from this machine. What cannot be read is absent.
    #[must_use]
    pub fn probe(kernel: &Kernel) -> Self {
        let read = |name: &str| {
            let path = PathBuf::from("/proc/sys").join(name.replace('.', "/"));
            fs::read_to_string(path).map(|value| (name.to_owned(), value.trim().to_owned())).ok()
        };
        let names = SYSCTLS.iter().map(|sysctl| sysctl.name);
        let others = ["user.max_user_namespaces", "kernel.apparmor_restrict_unprivileged_userns"];
        let admin = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN);
        Self {
            sysctls: names.chain(others).filter_map(read).collect(),
            cgroup_files: kernel.cgroup_root.as_deref().map(files_of_a_child).unwrap_or_default(),
            is_admin: admin.unwrap_or(false),
        }
    }
}

/// The files of some cgroup below the root: the root itself has fewer than its children.
fn files_of_a_child(root: &Path) -> Vec<String> {
    let names = |path: &Path| -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let child = names(root).into_iter().map(|name| root.join(name)).find(|path| path.is_dir());
    child.map(|path| names(&path)).unwrap_or_default()
}

/// What follows from all of it, the worst first.
#[must_use]
pub fn examine(kernel: &Kernel, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![landlock(kernel)];
    findings.extend(cgroups(kernel, facts));
    findings.push(user_namespaces(facts));
    if !facts.is_admin {
        findings.push(Finding {
            grade: Grade::Lacking,
            subject: "privileges".to_owned(),
            message: "this process lacks CAP_SYS_ADMIN: mounts, new namespaces and filters are refused"
                .to_owned(),
            help: Some("run as root".to_owned()),
        });
    }
    findings.extend(SYSCTLS.iter().filter_map(|sysctl| judge(sysctl, facts)));
    // Stable: within a grade the order above stays.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.grade));
    findings
}

fn finding(grade: Grade, subject: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding { grade, subject: subject.into(), message: message.into(), help: None }
}

fn landlock(kernel: &Kernel) -> Finding {
    let abi = kernel.landlock.0;
    let lacks: Vec<&str> =
        [(3, "truncate"), (4, "bind_tcp and connect_tcp"), (5, "ioctl on devices"), (6, "scope")]
            .into_iter()
            .filter(|(since, _)| abi < *since)
            .map(|(_, what)| what)
            .collect();
    if abi == 0 {
        return Finding {
            help: Some("boot a kernel with CONFIG_SECURITY_LANDLOCK and landlock in lsm=".to_owned()),
            ..finding(Grade::Lacking, "landlock", "this kernel has none")
        };
    }
    if lacks.is_empty() {
        return finding(Grade::Good, "landlock", format!("ABI {abi}"));
    }
    let message = format!("ABI {abi}, without {}", lacks.join(", "));
    Finding {
        help: Some("run a newer kernel, or name what may be missing in `optional` of [landlock]".to_owned()),
        ..finding(Grade::Lacking, "landlock", message)
    }
}

fn cgroups(kernel: &Kernel, facts: &Facts) -> Vec<Finding> {
    let Some(base) = &kernel.cgroup_base else {
        return vec![Finding {
            help: Some("mount -t cgroup2 none /sys/fs/cgroup".to_owned()),
            ..finding(Grade::Lacking, "cgroup", "no cgroup2 tree is mounted: services cannot be contained")
        }];
    };
    let mut findings: Vec<Finding> = CONTROLLERS
        .into_iter()
        .map(|(controller, carries)| {
            let subject = format!("cgroup {controller}");
            if kernel.controllers.contains(controller) {
                return finding(Grade::Good, subject, format!("available at {}", base.display()));
            }
            Finding {
                help: Some("a v1 hierarchy may hold it: boot with cgroup_no_v1=all".to_owned()),
                ..finding(
                    Grade::Lacking,
                    subject,
                    format!("not in the cgroup2 tree at {}: no {carries}", base.display()),
                )
            }
        })
        .collect();
    for (controller, file, since) in [("memory", "memory.peak", "5.19"), ("cpu", "cpu.pressure", "4.20")] {
        let known = !facts.cgroup_files.is_empty() && kernel.controllers.contains(controller);
        if known && !facts.cgroup_files.iter().any(|name| name == file) {
            let message = format!("this kernel has no such file (since {since}): `status` goes without it");
            findings.push(finding(Grade::Lacking, format!("cgroup {file}"), message));
        }
    }
    findings
}

fn user_namespaces(facts: &Facts) -> Finding {
    let subject = "user namespaces";
    let value = |name: &str| facts.sysctls.get(name).map(String::as_str);
    match (value("user.max_user_namespaces"), value("kernel.apparmor_restrict_unprivileged_userns")) {
        (None, _) => finding(Grade::Lacking, subject, "this kernel has none"),
        (Some("0"), _) => finding(Grade::Lacking, subject, "switched off by user.max_user_namespaces = 0"),
        (Some(_), Some("1")) => {
            finding(Grade::Good, subject, "for root; AppArmor keeps ordinary users from making them")
        }
        (Some(most), _) => finding(Grade::Good, subject, format!("at most {most} a user")),
    }
}

fn judge(sysctl: &Sysctl, facts: &Facts) -> Option<Finding> {
    let subject = format!("sysctl {}", sysctl.name);
    let value = facts.sysctls.get(sysctl.name)?;
    if sysctl.strict.contains(&value.as_str()) {
        return Some(finding(Grade::Good, subject, format!("= {value}")));
    }
    Some(Finding {
        help: Some(format!("sysctl -w {}={}", sysctl.name, sysctl.set)),
        ..finding(Grade::Lax, subject, format!("= {value}: {}", sysctl.lax))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::described;

    fn facts(sysctls: &[(&str, &str)]) -> Facts {
        let sysctls = sysctls.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Facts { sysctls, cgroup_files: vec!["cgroup.procs".to_owned()], is_admin: true }
    }

    fn graded(kernel: &Kernel, facts: &Facts, grade: Grade) -> Vec<String> {
        let findings = examine(kernel, facts).into_iter().filter(|finding| finding.grade == grade);
        findings.map(|finding| finding.subject).collect()
    }

    #[test]
    fn a_strict_machine_lacks_nothing() {
        let strict = SYSCTLS.iter().map(|sysctl| (sysctl.name, sysctl.strict[0])).collect::<Vec<_>>();
        let mut facts = facts(&strict);
        facts.sysctls.insert("user.max_user_namespaces".to_owned(), "100".to_owned());
        facts.cgroup_files = ["memory.peak", "cpu.pressure"].map(str::to_owned).to_vec();
        let kernel = described::kernel(7);
        assert_eq!(graded(&kernel, &facts, Grade::Lacking), Vec::<String>::new());
        assert_eq!(graded(&kernel, &facts, Grade::Lax), Vec::<String>::new());
    }

    #[test]
    fn every_lax_sysctl_is_named_with_what_to_set() {
        let lax = SYSCTLS.iter().map(|sysctl| (sysctl.name, "-1")).collect::<Vec<_>>();
        let findings = examine(&described::kernel(7), &facts(&lax));
        for sysctl in &SYSCTLS {
            let found = findings.iter().find(|finding| finding.subject.ends_with(sysctl.name)).unwrap();
            assert_eq!(found.grade, Grade::Lax);
            assert_eq!(found.help, Some(format!("sysctl -w {}={}", sysctl.name, sysctl.set)));
        }
    }

    #[test]
    fn each_landlock_abi_says_what_it_lacks() {
        for (abi, words) in
            [(0, "none"), (2, "truncate, bind_tcp"), (4, "ioctl on devices, scope"), (5, "without scope")]
        {
            let found = landlock(&described::kernel(abi));
            assert_eq!(found.grade, Grade::Lacking);
            assert!(found.message.contains(words), "{}", found.message);
        }
        assert_eq!(landlock(&described::kernel(6)).grade, Grade::Good);
    }

    #[test]
    fn a_missing_controller_names_what_goes_with_it() {
        let mut kernel = described::kernel(7);
        kernel.controllers.remove("memory");
        let lacking = graded(&kernel, &facts(&[("user.max_user_namespaces", "9")]), Grade::Lacking);
        assert_eq!(lacking, ["cgroup memory", "cgroup cpu.pressure"]);
    }
}
