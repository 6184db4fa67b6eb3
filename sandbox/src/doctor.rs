//! What this machine offers to sandboxes and where it is lax, in plain words: `motherctl doctor`.
//!
//! [`Facts::probe`] reads, [`examine`] judges: pure, so that every machine can be described in a test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use crate::kernel::{Kernel, PressureWindows};

/// What a finding means to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// There, and as strict as it can be.
    Good,
    /// It works, and a figure or a convenience is missing; no policy is refused for it.
    Less,
    /// It works, and an attacker has it easier than need be.
    Lax,
    /// Policies that ask for it are refused here, unless they call it optional.
    Lacking,
}

impl Grade {
    /// As it is printed.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Less => "less",
            Self::Lax => "lax",
            Self::Lacking => "lacking",
        }
    }
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
    /// Files of some cgroup below the root: `memory.peak` may be missing where `memory.max` is there.
    pub cgroup_files: Vec<String>,
    /// The kinds of namespaces that this kernel has: `/proc/self/ns`.
    pub namespaces: BTreeSet<String>,
    /// CAP_SYS_ADMIN among the effective capabilities of the asking process.
    pub is_admin: bool,
}

/// A sysctl that matters to sandboxes: its strict values, what the lax one lets happen, and what to set.
struct Sysctl {
    name: &'static str,
    strict: &'static [&'static str],
    /// Why a kernel without it is as lax as can be. Where there is no reason, such a kernel lacks what it is about.
    absent: Option<&'static str>,
    lax: &'static str,
    set: &'static str,
}

/// Documentation/admin-guide/sysctl/{kernel,fs,vm}.rst, Documentation/admin-guide/LSM/Yama.rst.
const SYSCTLS: [Sysctl; 13] = [
    Sysctl {
        name: "dev.tty.legacy_tiocsti",
        strict: &["0"],
        absent: Some("kernels before 6.2 have no such switch"),
        lax: "a process can push input into its terminal (TIOCSTI); sandboxes of MotherD have none, other programs do",
        set: "0",
    },
    Sysctl {
        name: "fs.protected_symlinks",
        strict: &["1"],
        absent: None,
        lax: "symbolic links in /tmp are followed for others",
        set: "1",
    },
    Sysctl {
        name: "fs.protected_hardlinks",
        strict: &["1"],
        absent: None,
        lax: "anybody can link to files that are not theirs",
        set: "1",
    },
    Sysctl {
        name: "fs.protected_regular",
        strict: &["1", "2"],
        absent: None,
        lax: "root can be tricked into writing to a file that another made in /tmp",
        set: "2",
    },
    Sysctl {
        name: "fs.protected_fifos",
        strict: &["1", "2"],
        absent: None,
        lax: "root can be tricked into writing to a FIFO that another made in /tmp",
        set: "2",
    },
    Sysctl {
        name: "fs.suid_dumpable",
        strict: &["0"],
        absent: None,
        lax: "programs that changed their identity dump core",
        set: "0",
    },
    Sysctl {
        name: "kernel.yama.ptrace_scope",
        strict: &["1", "2", "3"],
        absent: Some("this kernel has no Yama"),
        lax: "processes of one user can trace one another; services have a user each unless their policy names one",
        set: "1",
    },
    Sysctl {
        name: "kernel.kptr_restrict",
        strict: &["1", "2"],
        absent: None,
        lax: "kernel addresses are shown to everybody",
        set: "1",
    },
    Sysctl {
        name: "kernel.dmesg_restrict",
        strict: &["1"],
        absent: None,
        lax: "the kernel's log is shown to everybody",
        set: "1",
    },
    Sysctl {
        name: "kernel.unprivileged_bpf_disabled",
        strict: &["1", "2"],
        absent: None,
        lax: "anybody can load BPF programs",
        set: "2",
    },
    Sysctl {
        name: "kernel.io_uring_disabled",
        strict: &["1", "2"],
        absent: Some("kernels before 6.6 have no such switch"),
        lax: "io_uring passes by seccomp; MotherD's filters answer ENOSYS to it unless a policy allows it",
        set: "1",
    },
    Sysctl {
        name: "kernel.perf_event_paranoid",
        strict: &["2", "3", "4"],
        absent: None,
        lax: "anybody can watch the kernel's performance events",
        set: "2",
    },
    Sysctl {
        name: "vm.unprivileged_userfaultfd",
        strict: &["0"],
        absent: None,
        lax: "anybody can stall the kernel's page faults, which makes races in it easy to win",
        set: "0",
    },
];

/// Limits and figures, and the file that shows that a controller carries them.
const CONTROLLERS: [(&str, &str); 4] = [
    ("memory", "memory_high, memory_max, swap_max, oom_group and the memory figures"),
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
        let others = [
            "user.max_user_namespaces",
            "kernel.apparmor_restrict_unprivileged_userns",
            "kernel.unprivileged_userns_clone",
            SECCOMP_ACTIONS,
        ];
        let admin = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN);
        Self {
            sysctls: names.chain(others).filter_map(read).collect(),
            cgroup_files: kernel.cgroup_root.as_deref().map(files_of_a_child).unwrap_or_default(),
            namespaces: names_in(Path::new("/proc/self/ns")).collect(),
            is_admin: admin.unwrap_or(false),
        }
    }
}

/// The files of some cgroup below the root, of one that has most: the root itself has fewer than its children, and a
/// child has the files of those controllers alone that are enabled for it.
fn files_of_a_child(root: &Path) -> Vec<String> {
    let children = names_in(root).map(|name| root.join(name)).filter(|path| path.is_dir());
    children.map(|path| names_in(&path).collect()).max_by_key(Vec::len).unwrap_or_default()
}

fn names_in(path: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// What follows from all of it, the worst first.
#[must_use]
pub fn examine(kernel: &Kernel, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![landlock(kernel)];
    findings.extend(cgroups(kernel, facts));
    findings.push(seccomp(facts));
    findings.extend(namespaces(facts));
    findings.push(user_namespaces(facts));
    findings.extend(cgroup_bpf(kernel));
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

/// What [`examine`] found, a line each, in columns; help lines are indented beneath. `paint` colours the word of a grade,
/// or leaves it.
#[must_use]
pub fn table(findings: &[Finding], paint: impl Fn(Grade, &str) -> String) -> String {
    let width = findings.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0);
    let grade_width = Grade::Lacking.word().len();
    let mut text = String::new();
    for finding in findings {
        let word = paint(finding.grade, &format!("{:grade_width$}", finding.grade.word()));
        // Writing to a String cannot fail.
        let wrote =
            writeln!(text, "{word}  {:width$}  {}", finding.subject, finding.message).and_then(|()| {
                finding.help.iter().try_for_each(|help| {
                    writeln!(text, "{:indent$}help: {help}", "", indent = grade_width + width + 4)
                })
            });
        debug_assert!(wrote.is_ok());
    }
    text
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
                    format!("not in the cgroup2 tree at {}; it carries {carries}", base.display()),
                )
            }
        })
        .collect();
    findings.extend(cgroup_files(facts));
    findings.push(pressure(kernel.pressure));
    findings
}

fn pressure(windows: PressureWindows) -> Finding {
    let subject = "cgroup pressure";
    match windows {
        PressureWindows::Any => finding(Grade::Good, subject, "figures, and triggers on them"),
        PressureWindows::Whole => Finding {
            help: Some("give motherd CAP_SYS_RESOURCE, or write such windows".to_owned()),
            ..finding(
                Grade::Lacking,
                subject,
                "triggers with windows of whole 2 s alone: this process lacks CAP_SYS_RESOURCE",
            )
        },
        PressureWindows::None => Finding {
            help: Some("boot with psi=1, or a kernel with CONFIG_PSI".to_owned()),
            ..finding(
                Grade::Lacking,
                subject,
                "not accounted (PSI): `status` has no such figures, and `pressure` of [cgroup] is refused",
            )
        },
    }
}

/// A file that may be missing although the controller is there: the file that shows the controller, what goes without
/// the missing one, and what to do.
const FILES: [(&str, &str, Grade, &str, &str); 2] = [
    ("memory.max", "memory.peak", Grade::Less, "`status` has no peak", "run Linux 5.19 or newer"),
    (
        "io.max",
        "io.weight",
        Grade::Lacking,
        "`io_weight` cannot be set",
        "run a kernel with CONFIG_BLK_CGROUP_IOCOST, or leave io_weight out",
    ),
];

fn cgroup_files(facts: &Facts) -> impl Iterator<Item = Finding> {
    let has = |wanted: &str| facts.cgroup_files.iter().any(|name| name == wanted);
    FILES.into_iter().filter(move |(shows, file, ..)| has(shows) && !has(file)).map(
        |(_, file, grade, without, help)| Finding {
            help: Some(help.to_owned()),
            ..finding(grade, format!("cgroup file {file}"), format!("this kernel has none: {without}"))
        },
    )
}

/// The sysctl that lists what a filter may answer; it is there if filters are.
const SECCOMP_ACTIONS: &str = "kernel.seccomp.actions_avail";

fn seccomp(facts: &Facts) -> Finding {
    let Some(actions) = facts.sysctls.get(SECCOMP_ACTIONS) else {
        return Finding {
            help: Some("run a kernel with CONFIG_SECCOMP_FILTER".to_owned()),
            ..finding(Grade::Lacking, "seccomp", "this kernel has no filters: no confining policy can start")
        };
    };
    let wanted = ["kill_process", "trap", "errno", "log"];
    let missing: Vec<&str> =
        wanted.into_iter().filter(|wanted| !actions.split(' ').any(|action| action == *wanted)).collect();
    if missing.is_empty() {
        return finding(Grade::Good, "seccomp", "filters, with every answer that policies can ask for");
    }
    finding(Grade::Lacking, "seccomp", format!("a filter cannot answer {}", missing.join(", ")))
}

/// The kinds that policies can ask for besides `user`, which has a finding of its own.
const NAMESPACES: [(&str, &str); 7] = [
    ("mnt", "mount"),
    ("pid", "pid"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("net", "net"),
    ("time", "time"),
];

fn namespaces(facts: &Facts) -> Vec<Finding> {
    let missing = NAMESPACES.into_iter().filter(|(file, _)| !facts.namespaces.contains(*file));
    let findings: Vec<Finding> = missing
        .map(|(_, key)| Finding {
            help: Some(format!("write {key} = \"host\" in [namespaces], or run another kernel")),
            ..finding(Grade::Lacking, format!("{key} namespaces"), "this kernel has none")
        })
        .collect();
    if findings.is_empty() {
        return vec![finding(Grade::Good, "namespaces", "mount, pid, ipc, uts, cgroup, net and time")];
    }
    findings
}

fn cgroup_bpf(kernel: &Kernel) -> Option<Finding> {
    // Without a cgroup2 tree there is nothing to attach to, which has been said.
    kernel.cgroup_root.as_ref()?;
    Some(match kernel.cgroup_bpf {
        Some(true) => finding(Grade::Good, "cgroup bpf", "devices, addresses and ports can be restricted"),
        Some(false) => Finding {
            help: Some(
                "run a kernel with CONFIG_CGROUP_BPF, or write optional = [\"bpf\"] in [cgroup]".to_owned(),
            ),
            ..finding(
                Grade::Less,
                "cgroup bpf",
                "devices, ip_allow, ip_deny, socket_bind and socket_connect of [cgroup] are refused: this kernel attaches no programs to cgroups",
            )
        },
        None => finding(Grade::Less, "cgroup bpf", "not known: only root may ask"),
    })
}

fn user_namespaces(facts: &Facts) -> Finding {
    let subject = "user namespaces";
    let value = |name: &str| facts.sysctls.get(name).map(String::as_str);
    match (value("user.max_user_namespaces"), value("kernel.apparmor_restrict_unprivileged_userns")) {
        (None, _) => Finding {
            help: Some("write user = \"host\", or run a kernel with CONFIG_USER_NS".to_owned()),
            ..finding(Grade::Lacking, subject, "this kernel has none")
        },
        (Some("0"), _) => Finding {
            help: Some("sysctl -w user.max_user_namespaces=10000, if a policy shall have one".to_owned()),
            ..finding(Grade::Lacking, subject, "switched off by user.max_user_namespaces = 0")
        },
        (Some(_), Some("1")) => {
            finding(Grade::Good, subject, "for root; AppArmor keeps ordinary users from making them")
        }
        (Some(_), _) if value("kernel.unprivileged_userns_clone") == Some("0") => {
            finding(Grade::Good, subject, "for root; kernel.unprivileged_userns_clone keeps others from it")
        }
        (Some(most), _) => finding(Grade::Good, subject, format!("at most {most} a user")),
    }
}

fn judge(sysctl: &Sysctl, facts: &Facts) -> Option<Finding> {
    let subject = format!("sysctl {}", sysctl.name);
    let Some(value) = facts.sysctls.get(sysctl.name) else {
        let why = sysctl.absent?;
        return Some(finding(Grade::Lax, subject, format!("{why}: {}", sysctl.lax)));
    };
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
        let mut facts = Facts { sysctls, is_admin: true, ..Facts::default() };
        facts.cgroup_files = vec!["cgroup.procs".to_owned()];
        facts.namespaces = NAMESPACES.iter().map(|(file, _)| (*file).to_owned()).collect();
        let actions = "kill_process kill_thread trap errno user_notif trace log allow";
        facts.sysctls.insert(SECCOMP_ACTIONS.to_owned(), actions.to_owned());
        facts
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
        facts.cgroup_files =
            ["cgroup.procs", "memory.max", "memory.peak", "io.max", "io.weight"].map(str::to_owned).to_vec();
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
        assert_eq!(lacking, ["cgroup memory"]);
    }

    #[test]
    fn a_file_is_missed_only_where_its_controller_is_enabled() {
        let subjects = |files: &[&str]| -> Vec<String> {
            let facts =
                Facts { cgroup_files: files.iter().map(|name| (*name).to_owned()).collect(), ..facts(&[]) };
            cgroup_files(&facts)
                .map(|finding| format!("{} {}", finding.grade.word(), finding.subject))
                .collect()
        };
        assert_eq!(subjects(&["cgroup.procs"]), Vec::<String>::new());
        assert_eq!(
            subjects(&["cgroup.procs", "memory.max", "io.max"]),
            ["less cgroup file memory.peak", "lacking cgroup file io.weight"]
        );
    }

    #[test]
    fn a_kernel_without_pressure_says_what_is_refused() {
        for (windows, grade) in [
            (PressureWindows::Any, Grade::Good),
            (PressureWindows::Whole, Grade::Lacking),
            (PressureWindows::None, Grade::Lacking),
        ] {
            let kernel = Kernel { pressure: windows, ..described::kernel(7) };
            assert!(graded(&kernel, &facts(&[]), grade).contains(&"cgroup pressure".to_owned()));
        }
    }

    #[test]
    fn a_switch_that_a_kernel_does_not_have_is_not_taken_for_a_strict_one() {
        let findings = examine(&described::kernel(7), &facts(&[]));
        let lax: Vec<&str> = findings
            .iter()
            .filter(|finding| finding.grade == Grade::Lax)
            .map(|finding| finding.subject.as_str())
            .collect();
        let expected = [
            "sysctl dev.tty.legacy_tiocsti",
            "sysctl kernel.yama.ptrace_scope",
            "sysctl kernel.io_uring_disabled",
        ];
        assert_eq!(lax, expected);
    }

    #[test]
    fn what_the_kernel_was_built_without_is_named() {
        let facts = Facts { is_admin: true, ..Facts::default() };
        let lacking = graded(&described::kernel(7), &facts, Grade::Lacking);
        assert!(lacking.contains(&"seccomp".to_owned()) && lacking.contains(&"time namespaces".to_owned()));
    }
}
