//! The compiler against described kernels and hosts, and one real launch.

#[path = "../../tests/inside/skipped.rs"]
mod skipped;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::File,
    io::Read,
    os::fd::AsFd,
    sync::{Arc, Mutex},
};

use nix::errno::Errno;

use skipped::is_root;

use super::{
    compile_on,
    described::{DescribedHost, beneath, here, kernel, paths, policy, strict, subject, writable},
};
use crate::{
    berth::Berth,
    diagnostic::Report,
    launch::{Ahead, Fault, Launch, LaunchError, LaunchFailure, Launched, Underway, launch, launch_with},
    netpool::PooledNetwork,
    plan::{Op, Plan, Step},
    policy::{
        Account, Bind, Confinement, Credential, IdMap, IdRange, IndexRange, IoClass, LandlockFeature, Limit,
        Net, NumaPolicy, Overlay, Share, UserNamespace,
    },
    template::{Template, TemplateMeanwhile},
};

fn compiled(rules: Confinement, abi: u32, host: &DescribedHost) -> Result<Plan, Report> {
    compile_on(&policy(rules), &subject(), &kernel(abi), host)
}

fn codes(outcome: Result<Plan, Report>) -> Vec<&'static str> {
    outcome.unwrap_err().diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

#[test]
fn the_strict_rules_compile_for_the_newest_kernel_with_nothing_left_out() {
    let plan = compiled(strict(), 7, &DescribedHost::debian()).unwrap();
    assert_eq!(plan.left_out(), []);
    assert_eq!(plan.landlock_abi(), Some(7));
}

#[test]
fn a_kernel_without_landlock_is_an_error() {
    assert_eq!(codes(compiled(strict(), 0, &DescribedHost::debian())), ["no-landlock"]);
}

#[test]
fn a_right_that_an_old_kernel_lacks_is_an_error_unless_it_is_optional() {
    assert_eq!(codes(compiled(strict(), 2, &DescribedHost::debian())), ["no-landlock", "no-landlock"]);
    let mut rules = strict();
    rules.landlock.optional = [LandlockFeature::Net, LandlockFeature::Scope].into();
    let plan = compiled(rules, 2, &DescribedHost::debian()).unwrap();
    let left_out: Vec<&str> = plan.left_out().iter().map(|left| left.what.as_str()).collect();
    assert_eq!(left_out, ["landlock net", "landlock scope"]);
}

#[test]
fn a_missing_controller_is_an_error_unless_it_is_optional() {
    let mut bare = kernel(7);
    bare.controllers.clear();
    let host = DescribedHost::debian();
    let outcome = compile_on(&policy(strict()), &subject(), &bare, &host);
    let text = outcome.unwrap_err().to_string();
    assert!(
        text.contains("the memory controller is not available in the cgroup2 tree at /sys/fs/cgroup"),
        "{text}"
    );
    let mut rules = strict();
    rules.cgroup.optional = ["memory", "pids"].map(str::to_owned).into();
    let plan = compile_on(&policy(rules), &subject(), &bare, &host).unwrap();
    assert_eq!(plan.left_out().len(), 2);
    assert_eq!(*plan.cgroup, []);
}

#[test]
fn a_missing_path_is_an_error_at_its_place() {
    let mut rules = strict();
    rules.landlock.read = beneath(&["/srv/none"]);
    assert_eq!(codes(compiled(rules, 7, &DescribedHost::debian())), ["missing-path"]);
}

#[test]
fn a_hidden_path_that_is_not_there_is_hidden_already() {
    let plan = compiled(strict(), 7, &DescribedHost::debian().without("/boot")).unwrap();
    assert!(!plan.to_string().contains("/boot"));
}

#[test]
fn a_path_beneath_a_hidden_one_is_refused() {
    let mut rules = strict();
    rules.filesystem.hidden = super::described::paths(&["/srv"]);
    rules.filesystem.read_write = super::described::writable(&["/srv/www"]);
    let mut host = DescribedHost::debian();
    host = host.with("/srv");
    assert_eq!(codes(compiled(rules, 7, &host)), ["beneath-hidden"]);
}

#[test]
fn an_unknown_user_is_named() {
    let mut rules = strict();
    rules.process.user = here(Account::Name("nobody-here".to_owned()));
    let text = compiled(rules, 7, &DescribedHost::debian()).unwrap_err().to_string();
    assert!(text.contains("no user is named `nobody-here` on this host"), "{text}");
}

#[test]
fn mounts_in_the_hosts_namespace_are_refused() {
    let mut rules = strict();
    rules.namespaces.mount = here(Share::Host);
    let codes = codes(compiled(rules, 7, &DescribedHost::debian()));
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == "needs-mount-namespace"), "{codes:?}");
}

#[test]
fn seccomp_is_the_last_step_and_landlock_comes_before_it() {
    let plan = compiled(strict(), 7, &DescribedHost::debian()).unwrap();
    let position = |wanted: fn(&Op) -> bool| plan.steps.iter().position(|step| wanted(&step.op)).unwrap();
    let seccomp = position(|op| matches!(op, Op::Seccomp { .. }));
    let landlock = position(|op| matches!(op, Op::LandlockRestrict));
    let uid = position(|op| matches!(op, Op::SetUid { .. }));
    let pivot = position(|op| matches!(op, Op::PivotRoot { .. }));
    assert_eq!(seccomp, plan.steps.len() - 1);
    assert!(pivot < uid && uid < landlock && landlock < seccomp);
}

#[test]
fn groups_are_set_before_the_uid_that_could_no_longer_set_them() {
    let plan = compiled(strict(), 7, &DescribedHost::debian()).unwrap();
    let names: Vec<&str> = plan.steps.iter().map(|step| step.op.name()).collect();
    let position = |name| names.iter().position(|other| *other == name).unwrap();
    assert!(position("setgroups") < position("setgid") && position("setgid") < position("setuid"));
}

#[test]
fn a_cgroup_setting_is_written_as_the_kernel_takes_it() {
    let mut rules = strict();
    rules.cgroup.cpu_max = Some(here(Limit::Value(150_000)));
    let plan = compiled(rules, 7, &DescribedHost::debian()).unwrap();
    let settings: Vec<(&str, &str)> =
        plan.cgroup.iter().map(|setting| (setting.file.as_str(), setting.value.as_str())).collect();
    assert_eq!(settings, [("memory.max", "536870912"), ("pids.max", "64"), ("cpu.max", "150000 100000")]);
}

#[test]
fn a_time_offset_needs_a_kernel_whose_execve_enters_the_namespace() {
    let mut rules = strict();
    rules.namespaces.time = here(Share::Private);
    rules.namespaces.time_offset_monotonic = Some(here(-1_500_000_000));
    let host = DescribedHost::debian();
    let mut old = kernel(7);
    old.release = "6.1.0-40-amd64".to_owned();
    let outcome = compile_on(&policy(rules.clone()), &subject(), &old, &host);
    assert_eq!(codes(outcome), ["no-time-offset"]);
    let plan = compiled(rules, 7, &host).unwrap();
    let text = plan.steps.iter().find_map(|step| {
        let Op::TimeOffsets(text) = &step.op else { return None };
        Some(String::from_utf8_lossy(text).into_owned())
    });
    assert_eq!(text.unwrap(), "monotonic -2 500000000\n");
}

/// `text` on top of nothing, compiled for the described kernel: what goes into which file.
fn cgroup_files(text: &str) -> Result<Vec<String>, Vec<&'static str>> {
    let store = crate::policy::Store::new(Vec::new());
    let text = format!("[seccomp]\nallow = [\"execve\"]\n[cgroup]\n{text}");
    let policy = crate::policy::load_text(std::path::Path::new("test.toml"), &text, &store)
        .unwrap_or_else(|report| panic!("{report}"));
    let plan = compile_on(&policy, &subject(), &kernel(7), &DescribedHost::debian());
    let plan =
        plan.map_err(|report| report.diagnostics.iter().map(|found| found.code).collect::<Vec<_>>())?;
    Ok(plan.cgroup.iter().map(|setting| format!("{} = {}", setting.file, setting.value)).collect())
}

#[test]
fn every_limit_is_written_as_the_kernel_takes_it() {
    for (text, expected) in [
        ("memory_min = \"1M\"", &["memory.min = 1048576"][..]),
        ("memory_low = \"max\"", &["memory.low = max"]),
        ("swap_high = \"64M\"", &["memory.swap.high = 67108864"]),
        ("memory_zswap_max = 0", &["memory.zswap.max = 0"]),
        ("memory_zswap_writeback = false", &["memory.zswap.writeback = 0"]),
        ("cpu_idle = true\ncpu_weight = 10", &["cpu.idle = 1"]),
        ("cpu_idle = false\ncpu_weight = 10", &["cpu.weight = 10", "cpu.idle = 0"]),
        ("cpu_max = \"50%\"\ncpu_burst = \"20ms\"", &["cpu.max = 50000 100000", "cpu.max.burst = 20000"]),
        ("cpuset_cpus = [3, \"0-1\", 1]", &["cpuset.cpus = 0-1,3"]),
        ("cpuset_mems = [\"0-1\"]", &["cpuset.mems = 0-1"]),
        (
            "io_max = [{ device = \"/dev/vda\", wiops = \"max\", rbps = \"1M\" }, { device = \"8:16\", riops = 9 }]",
            &["io.max = 254:0 rbps=1048576 wiops=max", "io.max = 8:16 riops=9"],
        ),
        ("io_latency = [{ device = \"8:0\", target = \"5ms\" }]", &["io.latency = 8:0 target=5000"]),
        (
            "hugetlb = { 2MB = \"4M\", 1GB = \"max\" }",
            &["hugetlb.2MB.max = 4194304", "hugetlb.1GB.max = max"],
        ),
        (
            "rdma = [{ device = \"mlx5_0\", hca_handle = 2, hca_object = \"max\" }]",
            &["rdma.max = mlx5_0 hca_handle=2 hca_object=max"],
        ),
        ("misc = { sev = 4, sev_es = \"max\" }", &["misc.max = sev 4", "misc.max = sev_es max"]),
    ] {
        assert_eq!(cgroup_files(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn what_this_host_does_not_have_is_an_error() {
    for (text, code) in [
        ("cpuset_cpus = [\"2-9\"]", "no-processor"),
        ("cpuset_mems = [2]", "no-memory-node"),
        ("io_max = [{ device = \"/dev/vdz\", rbps = 1 }]", "no-device"),
        ("io_latency = [{ device = \"/dev/null\", target = \"1ms\" }]", "no-device"),
        ("hugetlb = { 16KB = \"max\" }", "no-huge-pages"),
    ] {
        assert_eq!(cgroup_files(text).unwrap_err(), [code], "{text}");
    }
}

/// Each controller on a kernel that has it, on one that has not, and there with `optional`.
#[test]
fn each_controller_is_enabled_where_it_is_needed_and_an_error_where_it_is_missing() {
    for (controller, text) in [
        ("cpu", "cpu_weight = 1"),
        ("memory", "memory_min = 4096"),
        ("pids", "pids_max = 1"),
        ("io", "io_weight = 1"),
        ("cpuset", "cpuset_cpus = [0]"),
        ("hugetlb", "hugetlb = { 2MB = 0 }"),
        ("rdma", "rdma = [{ device = \"a\", hca_handle = 0 }]"),
        ("misc", "misc = { sev = 0 }"),
    ] {
        let load = |text: &str| {
            let store = crate::policy::Store::new(Vec::new());
            let text = format!("[seccomp]\nallow = [\"execve\"]\n[cgroup]\n{text}");
            crate::policy::load_text(std::path::Path::new("test.toml"), &text, &store).unwrap()
        };
        let host = DescribedHost::debian();
        let on = |policy: &crate::policy::Policy, kernel: &crate::kernel::Kernel| {
            compile_on(policy, &subject(), kernel, &host)
        };
        let there = kernel(7);
        let mut lacking = kernel(7);
        lacking.controllers.remove(controller);
        let plan = on(&load(text), &there).unwrap();
        assert!(plan.controllers.iter().any(|name| name == controller), "{controller}");
        let carries_figures = ["cpu", "io", "memory", "pids"].contains(&controller);
        let silent = on(&load(""), &there).unwrap();
        assert_eq!(silent.controllers.iter().any(|name| name == controller), carries_figures, "{controller}");
        assert_eq!(codes(on(&load(text), &lacking)), ["no-controller"], "{controller}");
        let optional = on(&load(&format!("{text}\noptional = [\"{controller}\"]")), &lacking).unwrap();
        assert_eq!(optional.left_out().len(), 1, "{controller}");
        assert_eq!(*optional.cgroup, [], "{controller}");
        assert!(!optional.controllers.iter().any(|name| name == controller), "{controller}");
    }
}

/// The one controller that a hybrid host is likely to leave to cgroup2.
#[test]
fn a_limit_on_huge_pages_is_in_the_kernel_before_the_service_is() {
    let kernel = crate::kernel::Kernel::probe(None).unwrap();
    let Some(base) = kernel
        .cgroup_base
        .clone()
        .filter(|_| is_root() && kernel.controllers.contains("hugetlb") && kernel.huge_pages.contains("2MB"))
    else {
        eprintln!("SKIPPED: needs root and the hugetlb controller of cgroup2");
        return;
    };
    let base = base.join(format!("sandbox-test-{}.slice", std::process::id()));
    let store = crate::policy::Store::new(Vec::new());
    let text = "[seccomp]\nallow = [\"execve\"]\n[cgroup]\nhugetlb = { 2MB = \"6M\" }\n";
    let policy = crate::policy::load_text(std::path::Path::new("test.toml"), text, &store).unwrap();
    let plan = compile_on(&policy, &subject(), &kernel, &DescribedHost::debian()).unwrap();
    let cgroup = crate::cgroup::Cgroup::create(&base, "a.service", &plan).unwrap();
    assert_eq!(cgroup.read("hugetlb.2MB.max").unwrap().trim(), "6291456");
    cgroup.remove().unwrap();
    std::fs::remove_dir(&base).unwrap();
}

#[test]
fn automatic_ids_are_told_to_whoever_compares_services() {
    let ids = |user: UserNamespace| {
        let mut rules = strict();
        rules.namespaces.user = here(user);
        compiled(rules, 7, &DescribedHost::debian()).unwrap().automatic_ids()
    };
    let range = vec![IdRange { inside: 0, outside: 100_000, count: 65_536 }];
    assert_eq!(ids(UserNamespace::Host), None);
    assert_eq!(
        ids(UserNamespace::Mapped(IdMap { uid: range.clone(), gid: range })),
        None,
        "the author's choice"
    );
    let automatic = ids(UserNamespace::Auto).unwrap();
    assert_eq!(automatic.end() - automatic.start(), 65_535);
}

/// Runs a command confined by `rules` on the real host and answers its output and wait status; only root can.
fn run(rules: Confinement, argv: &[&str]) -> Result<(String, i32), crate::launch::LaunchError> {
    let plan = super::compile(&policy(rules), &subject(), &this_machine()).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let argv: Vec<String> = argv.iter().map(|argument| (*argument).to_owned()).collect();
    let launched = launch(&Launch::new(&plan, &argv, [null.as_fd(), writer.as_fd(), writer.as_fd()]))?;
    drop(writer);
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let ended = waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap();
    let WaitStatus::Exited(_, status) = ended else { panic!("{ended:?}") };
    Ok((output, status))
}

#[test]
fn the_right_to_execute_is_enough_to_execute() {
    if !is_root() {
        return;
    }
    let mut rules = strict();
    rules.landlock.read = beneath(&["/etc"]);
    assert_eq!(run(rules.clone(), &["/usr/bin/true"]).unwrap().1, 0);
    // The control: without it, reading is not enough.
    rules.landlock.read = beneath(&["/usr", "/lib", "/lib64", "/etc"]);
    rules.landlock.execute = Vec::new();
    assert_eq!(run(rules, &["/usr/bin/true"]).unwrap_err().errno(), Errno::EACCES);
}

#[test]
fn what_a_service_wrote_it_can_read_back() {
    if !is_root() {
        return;
    }
    let write_and_read = ["/usr/bin/sh", "-c", "echo kept > /tmp/a && cat /tmp/a"];
    assert_eq!(run(strict(), &write_and_read).unwrap(), ("kept\n".to_owned(), 0));
    // The control: without the right to write there, neither works.
    let mut rules = strict();
    rules.landlock.write = beneath(&["/dev/null"]);
    let (_, status) = run(rules, &write_and_read).unwrap();
    assert_ne!(status, 0);
}

#[test]
fn a_confined_command_runs_with_its_own_uid_no_capability_and_a_filter() {
    if !is_root() {
        return;
    }
    let (output, status) = run(strict(), &["/usr/bin/cat", "/proc/self/status"]).unwrap();
    assert_eq!(status, 0, "{output}");
    let line = |key: &str| output.lines().find(|line| line.starts_with(key)).unwrap_or("").to_owned();
    assert!(line("Uid:").contains(&super::auto_id("web").to_string()), "{output}");
    assert_eq!(line("CapEff:"), "CapEff:\t0000000000000000");
    assert_eq!(line("CapBnd:"), "CapBnd:\t0000000000000000");
    assert_eq!(line("NoNewPrivs:"), "NoNewPrivs:\t1");
    assert_eq!(line("Seccomp:"), "Seccomp:\t2");
    assert_eq!(line("Pid:"), "Pid:\t1");
    assert_eq!(line("SigIgn:"), "SigIgn:\t0000000000000000");
    assert_eq!(line("SigBlk:"), "SigBlk:\t0000000000000000");
}

#[test]
fn a_program_that_is_not_there_is_told_from_a_sandbox_that_failed() {
    if !is_root() {
        return;
    }
    let error = run(strict(), &["/usr/bin/no-such-program"]).unwrap_err();
    assert_eq!(error.kind(), LaunchFailure::NotFound);
    assert_eq!(error.to_string(), "execve /usr/bin/no-such-program: ENOENT");
    let mut rules = strict();
    rules.process.working_directory = here("/no/such/directory".to_owned());
    let error = run(rules, &["/usr/bin/true"]).unwrap_err();
    assert_eq!(error.kind(), LaunchFailure::Sandbox);
    assert_eq!(error.to_string(), "strict.toml:1:1: working directory: /no/such/directory: ENOENT");
}

#[test]
fn only_the_host_of_a_network_keeps_its_interfaces() {
    if !is_root() {
        return;
    }
    let list = &["/usr/bin/cat", "/proc/self/net/dev"];
    let (private, _) = run(strict(), list).unwrap();
    let mut rules = strict();
    rules.namespaces.net = here(Net::Host);
    let (host, _) = run(rules, list).unwrap();
    let interfaces = |text: &str| text.lines().filter(|line| line.contains(':')).count();
    assert_eq!(interfaces(&private), 1, "{private}");
    assert!(interfaces(&host) >= interfaces(&private), "{host}");
}

/// What a launch that fails must leave as it was: mounts, open descriptors and children of this process.
struct Traces {
    mounts: BTreeSet<String>,
    descriptors: usize,
    children: String,
}

fn traces() -> Traces {
    // The one descriptor that launches keep.
    assert!(crate::inherited::oom_score_adj().is_some());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    // The options of a whole file system, after the dash, are everybody's.
    let own = |line: &str| line.split(" - ").next().unwrap_or_default().to_owned();
    let thread = nix::unistd::gettid();
    Traces {
        mounts: mounts.lines().map(own).collect(),
        descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        children: std::fs::read_to_string(format!("/proc/self/task/{thread}/children")).unwrap(),
    }
}

impl Traces {
    /// Fewer mounts are no trace of ours: one goes from every namespace when somebody removes its folder.
    fn none_since(&self) {
        let now = traces();
        let more: Vec<_> = now.mounts.difference(&self.mounts).collect();
        assert!(more.is_empty(), "mounts are left: {more:#?}");
        assert_eq!((now.descriptors, now.children), (self.descriptors, self.children.clone()));
    }
}

/// Run in a process of its own, because other tests' descriptors and children would be in the way, and among mounts of its
/// own, because what the host mounts meanwhile would.
#[test]
fn a_step_that_fails_in_any_way_is_told_and_leaves_nothing_behind() {
    if !is_root() {
        return;
    }
    const ALONE: &str = "SANDBOX_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "compile::tests::a_step_that_fails_in_any_way_is_told_and_leaves_nothing_behind";
        let this = std::env::current_exe().unwrap();
        let mut alone = std::process::Command::new("/usr/bin/unshare");
        alone.args(["--mount", "--propagation", "private", "--"]).arg(this);
        let status = alone.args([name, "--exact", "--nocapture"]).env(ALONE, "1").status();
        assert!(status.unwrap().success());
        return;
    }
    fail_every_step(strict());
    let mut rules = strict();
    rules.process.cpu_affinity = Some(vec![here(range(0, 0))]);
    rules.process.numa_policy = Some(here(NumaPolicy::Bind));
    rules.process.numa_nodes = vec![here(range(0, 0))];
    rules.process.io_priority = Some(here((IoClass::Idle, 0)));
    rules.process.timer_slack = Some(here(1_000_000));
    if this_machine().store_bypass == crate::kernel::Mitigation::PerProcess {
        let kind = crate::policy::Speculation::StoreBypass;
        rules.process.disable_speculation =
            vec![here(crate::policy::DisabledSpeculation { kind, optional: false })];
    }
    fail_every_step(rules);
    let mut rules = strict();
    rules.namespaces.user = here(UserNamespace::Auto);
    rules.filesystem.bind = vec![here(idmapped("/usr/share", "/tmp/share"))];
    rules.filesystem.overlay = vec![here(Overlay {
        path: "/tmp/overlay".to_owned(),
        lower: paths(&["/usr/share", "/etc"]),
        size_bytes: 1 << 20,
        inodes: 100,
        mode: 0o755,
        noexec: Some(true),
    })];
    let (name, file) = ("users".to_owned(), here("/etc/passwd".to_owned()));
    rules.credentials = vec![here(Credential { name, file, optional: false })];
    fail_every_step(rules);
    let mut rules = strict();
    rules.namespaces.hostname = Some(here("inside".to_owned()));
    rules.namespaces.domainname = Some(here("example.org".to_owned()));
    rules.namespaces.time = here(Share::Private);
    rules.namespaces.time_offset_monotonic = Some(here(1_000_000_000));
    rules.filesystem.read_write = writable(&["/var"]);
    rules.filesystem.hidden.extend(paths(&["/var/log", "/etc/passwd"]));
    let bind = caps::Capability::CAP_NET_BIND_SERVICE;
    (rules.capabilities.keep, rules.capabilities.ambient) = (vec![here(bind)], vec![here(bind)]);
    fail_every_step(rules);
    fail_every_call();
    fail_every_step_with_a_network_on_its_way();
    fail_every_step_with_a_template_on_its_way();
    every_kind_of_step_has_failed();
}

fn range(first: u32, last: u32) -> IndexRange {
    IndexRange { first, last }
}

/// What is described has more than this host: the kernel takes the part that it has and says nothing, and the child does.
#[test]
fn a_processor_that_the_kernel_drops_without_a_word_is_an_error() {
    if !is_root() {
        return;
    }
    let launched = |processors: [IndexRange; 2]| {
        let mut kernel = crate::kernel::Kernel::probe(None).unwrap();
        kernel.controllers = super::described::kernel(0).controllers;
        kernel.processors = (0..2000).collect();
        let mut rules = strict();
        rules.process.cpu_affinity = Some(processors.map(here).to_vec());
        let plan = super::compile(&policy(rules), &subject(), &kernel).unwrap();
        launch_true(&plan)
    };
    let error = launched([range(0, 0), range(1999, 1999)]).unwrap_err();
    assert_eq!(error.to_string(), "strict.toml:1:1: cpu affinity: 0,1999: ENXIO");
    assert!(launched([range(0, 0), range(0, 0)]).is_ok(), "control");
}

/// As execvp(3) does along PATH.
#[test]
fn the_first_program_that_is_there_is_executed_and_one_that_cannot_be_is_told_of_where_none_is() {
    if !is_root() {
        return;
    }
    let mut kernel = crate::kernel::Kernel::probe(None).unwrap();
    kernel.controllers = super::described::kernel(0).controllers;
    let plan = super::compile(&policy(strict()), &subject(), &kernel).unwrap();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let launched = |programs: [&str; 4]| {
        let [first, others @ ..] = programs.map(str::to_owned);
        let launched = launch(&Launch {
            others: &others,
            ..Launch::new(&plan, &[first], [null.as_fd(), null.as_fd(), null.as_fd()])
        })?;
        let flags = nix::sys::wait::WaitPidFlag::WEXITED;
        nix::sys::wait::waitid(nix::sys::wait::Id::PIDFd(launched.pidfd.as_fd()), flags).unwrap();
        Ok::<_, crate::launch::LaunchError>(())
    };
    launched(["/usr/bin/true", "/nowhere/b", "/nowhere/c", "/nowhere/d"]).unwrap();
    launched(["/nowhere/a", "/nowhere/b", "/nowhere/c", "/usr/bin/true"]).unwrap();
    launched(["/etc/passwd", "/nowhere/b", "/usr/bin/true", "/nowhere/d"]).unwrap();
    let missing = launched(["/nowhere/a", "/nowhere/b", "/nowhere/c", "/nowhere/d"]).unwrap_err();
    assert_eq!((missing.kind(), missing.errno()), (crate::launch::LaunchFailure::NotFound, Errno::ENOENT));
    let refused = launched(["/nowhere/a", "/nowhere/b", "/etc/passwd", "/etc/group"]).unwrap_err();
    assert_eq!(refused.kind(), crate::launch::LaunchFailure::NotExecutable);
    assert_eq!(refused.to_string(), "execve /etc/passwd: EACCES");
}

#[test]
fn a_memory_node_that_the_kernel_drops_without_a_word_is_an_error() {
    if !is_root() {
        return;
    }
    let launched = |nodes: [IndexRange; 2]| {
        let mut kernel = crate::kernel::Kernel::probe(None).unwrap();
        kernel.controllers = super::described::kernel(0).controllers;
        kernel.memory_nodes = (0..1000).collect();
        let mut rules = strict();
        rules.process.numa_policy = Some(here(NumaPolicy::Bind));
        rules.process.numa_nodes = nodes.map(here).to_vec();
        let plan = super::compile(&policy(rules), &subject(), &kernel).unwrap();
        launch_true(&plan)
    };
    // A node that the kernel cannot have is EINVAL, one that it could have is dropped.
    let error = launched([range(0, 0), range(1, 1)]).unwrap_err();
    assert_eq!(error.to_string(), "strict.toml:1:1: numa policy: bind 0-1: ENXIO");
    assert!(launched([range(0, 0), range(0, 0)]).is_ok(), "control");
}

/// The step itself, whatever was described: on a processor that cannot do it the child says so and executes nothing.
#[test]
fn a_processor_that_does_not_stop_speculating_is_an_error() {
    if !is_root() {
        return;
    }
    let real = crate::kernel::Kernel::probe(None).unwrap();
    let mut kernel = real.clone();
    kernel.controllers = super::described::kernel(0).controllers;
    kernel.store_bypass = crate::kernel::Mitigation::PerProcess;
    let mut rules = strict();
    let kind = crate::policy::Speculation::StoreBypass;
    rules.process.disable_speculation =
        vec![here(crate::policy::DisabledSpeculation { kind, optional: false })];
    let plan = super::compile(&policy(rules), &subject(), &kernel).unwrap();
    let launched = launch_true(&plan);
    if real.store_bypass == crate::kernel::Mitigation::PerProcess {
        assert!(launched.is_ok());
    } else {
        let error = launched.unwrap_err();
        assert_eq!(error.to_string(), "strict.toml:1:1: disable speculation: store-bypass: ENXIO");
    }
}

fn launch_true(plan: &Arc<Plan>) -> Result<(), crate::launch::LaunchError> {
    launch_true_ahead(plan, Ahead::default())
}

fn launch_true_ahead(plan: &Arc<Plan>, ahead: Ahead<'_>) -> Result<(), crate::launch::LaunchError> {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let launched = launch(&Launch {
        ahead,
        ..Launch::new(plan, &["/usr/bin/true".to_owned()], [null.as_fd(), null.as_fd(), null.as_fd()])
    })?;
    nix::sys::wait::waitid(
        nix::sys::wait::Id::PIDFd(launched.pidfd.as_fd()),
        nix::sys::wait::WaitPidFlag::WEXITED,
    )
    .unwrap();
    Ok(())
}

fn idmapped(from: &str, to: &str) -> Bind {
    let ranges = vec![IdRange { inside: 0, outside: 100_000, count: 10 }];
    Bind {
        from: here(from.to_owned()),
        to: here(to.to_owned()),
        read_only: true,
        optional: false,
        nosuid: true,
        nodev: true,
        noexec: Some(true),
        nosymfollow: true,
        control_socket: false,
        idmap: Some(here(IdMap { uid: ranges.clone(), gid: ranges })),
    }
}

/// What a launch says that failed there: the place in the file, the step, what it concerns, and the errno.
fn told(plan: &Plan, step: &Step, errno: Errno) -> String {
    let place = step.at.as_ref().map(|at| plan.sources.locate(at).to_string());
    let object = Some(plan.object(step).into_owned()).filter(|object| !object.is_empty());
    let words = [place, Some(step.op.name().to_owned()), object, Some(format!("{errno:?}"))];
    FAILED.lock().unwrap().insert(step.op.name());
    words.into_iter().flatten().collect::<Vec<_>>().join(": ")
}

/// The names of the steps that were made to fail.
static FAILED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

/// Every step there is but these, which others of their kind stand for, or which no launch of its own has.
fn every_kind_of_step_has_failed() {
    let source = include_str!("../plan.rs");
    let (_, names) = source.split_once("fn name(&self) -> &'static str {").unwrap();
    let (names, _) = names.split_once("\n    }\n").unwrap();
    let names = names.split('"').skip(1).step_by(2);
    // `template` finds a stale template, which is answered by a launch without it: see the tests of templates.
    let mut besides = vec!["template"];
    // The launch without a fault has to succeed, which it does not where no process can have it disabled.
    if this_machine().store_bypass != crate::kernel::Mitigation::PerProcess {
        besides.push("disable speculation");
    }
    let failed = FAILED.lock().unwrap();
    let missing: Vec<&str> = names.filter(|name| !failed.contains(name) && !besides.contains(name)).collect();
    assert!(missing.is_empty(), "never made to fail: {missing:?}");
}

/// Each way in which a call can be refused.
const ERRNOS: [Errno; 4] = [Errno::EPERM, Errno::ENOSYS, Errno::EINVAL, Errno::ENOMEM];

type Way = fn(&Launch<'_>, Fault) -> Result<Launched, LaunchError>;

/// Waiting, and doing something else.
const WAYS: [Way; 2] = [launch_with, |request, fault| {
    let underway = Underway::begin_with(request, fault)?;
    let other = vec![0; 4096];
    std::hint::black_box(&other);
    underway.launched()
}];

/// What the parent does by itself: for a launch, for a template, for a namespace of the pool.
fn fail_every_call() {
    let plan = super::compile(&policy(strict()), &subject(), &this_machine()).unwrap();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let argv = ["/usr/bin/true".to_owned()];
    let request = Launch::new(&plan, &argv, [null.as_fd(), null.as_fd(), null.as_fd()]);
    let mut pool = crate::netpool::NetworkPool::new(1);
    let before = traces();
    let mut refused = 0;
    for errno in ERRNOS {
        for call in ["landlock", "stdio", "clone3"] {
            for launch in WAYS {
                let error = launch(&request, Fault { at: None, call: Some((call, errno)) }).unwrap_err();
                assert_eq!((error.kind(), error.errno()), (LaunchFailure::Sandbox, errno));
                assert!(error.to_string().starts_with(call), "{error}");
                refused += 1;
            }
        }
        for call in ["socketpair", "clone3"] {
            let fault = Fault { at: None, call: Some((call, errno)) };
            let error = Template::build_with(&plan, fault).unwrap_err();
            assert_eq!(error.to_string(), format!("template: {call}: {errno:?}"));
            for error in [pool.add_with(fault).unwrap_err(), PooledNetwork::begin_with(fault).unwrap_err()] {
                let error = error.to_string();
                assert!(error.contains(&format!("{call}: {errno:?}")), "{error}");
            }
            refused += 3;
        }
        let parts = plan.template.as_ref().unwrap();
        for (number, step) in (0_u32..).zip(&parts.build.steps) {
            let fault = Fault { at: Some((number, errno)), call: None };
            let error = Template::build_with(&plan, fault).unwrap_err();
            assert_eq!(error.errno(), errno, "{step:?}");
            assert_eq!(error.to_string(), told(&plan, step, errno));
        }
        let error = pool.add_with(Fault { at: Some((0, errno)), call: None }).unwrap_err();
        assert!(error.to_string().contains(&format!("loopback up: {errno:?}")), "{error}");
    }
    assert!(pool.has_room());
    before.none_since();
    println!("{refused} calls of the parent refused");
    // The control: none refused, all of it is made, and a launch takes it.
    pool.add().unwrap();
    let template = Template::build(&plan).unwrap().unwrap();
    launch_true_ahead(
        &plan,
        Ahead { template: Some(&template), network: Some(&pool.take().into()), ..Ahead::default() },
    )
    .unwrap();
}

/// A launch that fails while its network is on its way leaves nothing behind; one whose network never comes makes its own, and
/// one whose network stays down brings it up.
fn fail_every_step_with_a_network_on_its_way() {
    let plan = super::compile(&policy(strict()), &subject(), &this_machine()).unwrap();
    assert!(plan.takes_network());
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let argv = ["/usr/bin/true".to_owned()];
    let network = RefCell::new(None);
    let request = Launch {
        ahead: Ahead { network: Some(&network), ..Ahead::default() },
        ..Launch::new(&plan, &argv, [null.as_fd(), null.as_fd(), null.as_fd()])
    };
    let before = traces();
    let errno = Errno::EPERM;
    for (number, step) in (0_u32..).zip(plan.steps.iter()) {
        network.replace(Some(PooledNetwork::begin().unwrap()));
        let error = launch_with(&request, Fault { at: Some((number, errno)), call: None }).unwrap_err();
        assert_eq!(error.to_string(), told(&plan, step, errno));
    }
    for ahead in [
        PooledNetwork::that_never_comes().unwrap(),
        PooledNetwork::that_stays_down().unwrap(),
        PooledNetwork::begin().unwrap(),
    ] {
        let seen = network_seen(&plan, Some(ahead));
        assert!(seen.is_up && seen.interfaces == ["lo"], "{seen:?}");
    }
    // The control: what is down is seen to be down.
    let mut down = strict();
    down.namespaces.net = here(Net::None);
    let down = super::compile(&policy(down), &subject(), &this_machine()).unwrap();
    assert!(!network_seen(&down, None).is_up);
    before.none_since();
}

/// A launch that fails while its template is being built leaves nothing behind; one whose template never comes builds everything.
fn fail_every_step_with_a_template_on_its_way() {
    let plan = super::compile(&policy(strict()), &subject(), &this_machine()).unwrap();
    let parts = plan.template.as_ref().unwrap();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let argv = ["/usr/bin/true".to_owned()];
    let meanwhile = RefCell::new(None);
    let request = Launch {
        ahead: Ahead { meanwhile: Some(&meanwhile), ..Ahead::default() },
        ..Launch::new(&plan, &argv, [null.as_fd(), null.as_fd(), null.as_fd()])
    };
    let before = traces();
    let errno = Errno::EPERM;
    for (number, step) in (0_u32..).zip(parts.launch.iter()) {
        // One that finds it stale is answered by a launch without it.
        if matches!(step.op, Op::StillMounted { .. }) {
            continue;
        }
        meanwhile.replace(TemplateMeanwhile::begin(&plan).unwrap());
        let error = launch_with(&request, Fault { at: Some((number, errno)), call: None }).unwrap_err();
        assert_eq!(error.to_string(), told(&plan, step, errno));
    }
    for (call, errno) in ["socketpair", "clone3"].into_iter().zip(ERRNOS) {
        let fault = Fault { at: None, call: Some((call, errno)) };
        let error = TemplateMeanwhile::begin_with(&plan, fault).unwrap_err();
        assert_eq!(error.to_string(), format!("{call}: {errno:?}"));
    }
    let launched = |template: Option<TemplateMeanwhile>| {
        meanwhile.replace(template);
        launch_true_ahead(&plan, request.ahead).unwrap();
        assert!(meanwhile.take().is_none(), "it was taken");
    };
    for number in (0_u32..).take(parts.build.steps.len()) {
        let fault = Fault { at: Some((number, errno)), call: None };
        launched(TemplateMeanwhile::begin_with(&plan, fault).unwrap());
    }
    let killed = TemplateMeanwhile::begin(&plan).unwrap().unwrap();
    nix::sys::signal::kill(killed.builder(), nix::sys::signal::Signal::SIGKILL).unwrap();
    launched(Some(killed));
    // The control: what failed above were steps of a launch that has a template.
    launched(TemplateMeanwhile::begin(&plan).unwrap());
    before.none_since();
}

#[derive(Debug)]
struct NetworkSeen {
    interfaces: Vec<String>,
    is_up: bool,
}

/// What a process of this plan sees of its network.
fn network_seen(plan: &Arc<Plan>, ahead: Option<PooledNetwork>) -> NetworkSeen {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let argv = ["/usr/bin/cat", "/proc/self/net/dev", "/proc/self/net/fib_trie"].map(str::to_owned);
    let network = RefCell::new(ahead);
    let launched = launch(&Launch {
        ahead: Ahead { network: Some(&network), ..Ahead::default() },
        ..Launch::new(plan, &argv, [null.as_fd(), writer.as_fd(), null.as_fd()])
    });
    let pidfd = launched.unwrap().pidfd;
    nix::sys::wait::waitid(nix::sys::wait::Id::PIDFd(pidfd.as_fd()), nix::sys::wait::WaitPidFlag::WEXITED)
        .unwrap();
    assert!(network.take().is_none(), "it was taken");
    drop(writer);
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    let names = output.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let interfaces = names
        .filter(|name| !name.contains('|') && !["Main", "Local"].contains(name))
        .map(str::to_owned)
        .collect();
    // An address that is reached, which one that is down has none of.
    NetworkSeen { interfaces, is_up: output.contains("|-- 127.0.0.1\n") }
}

/// With a socket of the launcher's, which each launch binds by itself.
fn fail_every_step(rules: Confinement) {
    let socket = std::env::temp_dir().join(format!("sandbox-steps-{}", std::process::id()));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let subject = super::Subject { sockets: vec![socket.to_str().unwrap().to_owned()], ..subject() };
    fail_every_step_for(rules, &subject);
    drop(listener);
    std::fs::remove_file(socket).unwrap();
}

fn fail_every_step_for(rules: Confinement, subject: &super::Subject) {
    let plan = super::compile(&policy(rules), subject, &this_machine()).unwrap();
    let template = Template::build(&plan).unwrap();
    fail_every_step_of(&plan, &plan.steps.in_one(), None, &|| None);
    if let (Some(template), Some(parts)) = (&template, &plan.template) {
        fail_every_step_of(&plan, &parts.launch.in_one(), Some(template), &|| None);
        if let Some(berth) = &parts.berth {
            fail_every_step_ahead(&plan, &berth.ahead.in_one(), template);
            fail_every_step_of(&plan, &berth.launch.in_one(), None, &|| {
                Berth::make(&plan, template).unwrap()
            });
        }
    }
}

/// What is made for a launch beforehand.
fn fail_every_step_ahead(plan: &Arc<Plan>, steps: &[Step], template: &Template) {
    let before = traces();
    for (number, step) in (0_u32..).zip(steps) {
        // One that finds the template stale says so.
        if matches!(step.op, Op::StillMounted { .. }) {
            continue;
        }
        for errno in ERRNOS {
            let fault = Fault { at: Some((number, errno)), call: None };
            let error = Berth::make_with(plan, template, fault).unwrap_err();
            assert_eq!(error.errno(), errno, "{step:?}");
            assert_eq!(error.to_string(), told(plan, step, errno));
        }
    }
    for (call, errno) in ["socketpair", "clone3"].into_iter().zip(ERRNOS) {
        let fault = Fault { at: None, call: Some((call, errno)) };
        let error = Berth::make_with(plan, template, fault).unwrap_err();
        assert_eq!(error.to_string(), format!("berth: {call}: {errno:?}"));
    }
    before.none_since();
    println!("{} steps ahead, each failed in 4 ways", steps.len());
}

fn fail_every_step_of(
    plan: &Arc<Plan>,
    steps: &[Step],
    template: Option<&Arc<Template>>,
    berth: &dyn Fn() -> Option<Berth>,
) {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let argv = ["/usr/bin/echo".to_owned(), "ran".to_owned()];
    let kept = RefCell::new(None);
    let request = Launch {
        ahead: Ahead { template, berth: Some(&kept), ..Ahead::default() },
        ..Launch::new(plan, &argv, [null.as_fd(), writer.as_fd(), null.as_fd()])
    };
    let before = traces();
    for (number, step) in (0_u32..).zip(steps) {
        // One that finds the template stale is answered by a launch without it.
        if matches!(step.op, Op::StillMounted { .. }) {
            continue;
        }
        for errno in ERRNOS {
            let fault = Fault { at: Some((number, errno)), call: None };
            for launch in WAYS {
                kept.replace(berth());
                let error = launch(&request, fault).unwrap_err();
                assert_eq!((error.kind(), error.errno()), (LaunchFailure::Sandbox, errno), "{step:?}");
                assert_eq!(error.to_string(), told(plan, step, errno));
            }
        }
    }
    for errno in ERRNOS {
        let fault = Fault { at: Some((crate::apply::OWN_DESCRIPTORS, errno)), call: None };
        for launch in WAYS {
            let error = launch(&request, fault).unwrap_err();
            assert_eq!((error.kind(), error.errno()), (LaunchFailure::Sandbox, errno));
            assert!(error.to_string().starts_with("close_range: "), "{error}");
        }
    }
    before.none_since();
    // The control: without a fault the command does run, and its word is the only one in the pipe.
    kept.replace(berth());
    let launched = launch(&request).unwrap();
    drop(writer);
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    assert_eq!(output, "ran\n");
    nix::sys::wait::waitid(
        nix::sys::wait::Id::PIDFd(launched.pidfd.as_fd()),
        nix::sys::wait::WaitPidFlag::WEXITED,
    )
    .unwrap();
    println!("{} steps, each failed in 4 ways", steps.len());
}

/// This machine with every controller: no cgroup is made in these tests.
fn this_machine() -> crate::kernel::Kernel {
    let probed = crate::kernel::Kernel::probe(None).unwrap();
    crate::kernel::Kernel { controllers: kernel(0).controllers, ..probed }
}
