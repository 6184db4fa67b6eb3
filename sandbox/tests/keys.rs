//! Keys of `[process]`, `[seccomp]` and `[rlimits]` as a confined process experiences them, on this host: each with its
//! control, the same act under the same policy without the key.
//!
//! The whole way is walked: text, policy, plan, launch. Perl is the probe where no tool shows the effect: it can make
//! any system call, and belongs to what Debian calls essential.

use std::{
    fs::{self, File},
    io::Read,
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use sandbox::{
    Plan,
    compile::{Subject, compile},
    kernel::{Kernel, Mitigation},
    launch::{Launch, LaunchError, Parent, launch},
    policy::{Store, load_text},
};

/// A folder with the shipped policies and the modes that a loader insists on.
fn policies() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("keys");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/base/default.toml");
        fs::create_dir_all(folder.join("base")).expect("the target folder is ours");
        let copy = folder.join("base/default.toml");
        fs::write(&copy, fs::read(shipped).expect("it ships")).expect("the target folder is ours");
        for (path, mode) in [(&folder, 0o755), (&folder.join("base"), 0o755), (&copy, 0o644)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the file is ours");
        }
        folder
    })
}

/// `base/default` with these sections on top, compiled for this machine, or what is wrong with it.
fn plan(sections: &str) -> Result<Plan, String> {
    let text = format!("extends = [\"base/default\"]\n{sections}");
    let store = Store::new(vec![policies().to_owned()]);
    let policy =
        load_text(Path::new("test.toml"), &text, &store).map_err(|report| format!("{text}\n{report}"))?;
    let subject = Subject { name: "keys".to_owned(), root: "/".into(), sockets: vec![] };
    let kernel = Kernel::probe(None).expect("the kernel can be asked");
    compile(&policy, &subject, &kernel).map_err(|report| report.to_string())
}

/// Runs a command under a policy: what it printed on both, and how it ended.
fn run(sections: &str, argv: &[&str]) -> Result<(String, WaitStatus), LaunchError> {
    let plan = plan(sections).unwrap_or_else(|report| panic!("{report}"));
    let (mut reader, writer) = std::io::pipe().expect("there are descriptors");
    let null = File::options().read(true).write(true).open("/dev/null").expect("/dev is there");
    let argv: Vec<String> = argv.iter().map(|argument| (*argument).to_owned()).collect();
    let launched = launch(&Launch {
        plan: &plan,
        argv: &argv,
        environment: &[],
        stdio: [null.as_fd(), writer.as_fd(), writer.as_fd()],
        cgroup: None,
        parent: Parent::Caller,
        pid_cell: None,
    })?;
    drop(writer);
    let mut output = Vec::new();
    reader.read_to_end(&mut output).expect("a pipe can be read");
    let status = waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("it is our child");
    Ok((String::from_utf8_lossy(&output).trim().to_owned(), status))
}

/// What a command prints that ends well.
fn output(sections: &str, argv: &[&str]) -> String {
    let (output, status) = run(sections, argv).unwrap_or_else(|error| panic!("{sections}: {error}"));
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{sections}\n{argv:?}: {status:?}\n{output}");
    output
}

/// What a line of Perl prints.
fn perl(sections: &str, script: &str) -> String {
    output(sections, &["/usr/bin/perl", "-e", script])
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

#[test]
fn the_scheduler_is_the_one_that_is_named() {
    if !is_root() {
        return;
    }
    let scheduler = |sections: &str| output(sections, &["/usr/bin/chrt", "-p", "1"]);
    assert!(scheduler("").contains("SCHED_OTHER"), "control");
    for (name, expected) in [
        ("\"other\"", "SCHED_OTHER"),
        ("\"batch\"", "SCHED_BATCH"),
        ("\"idle\"", "SCHED_IDLE"),
        ("\"fifo\"\nscheduler_priority = 7", "SCHED_FIFO"),
        ("\"rr\"\nscheduler_priority = 7", "SCHED_RR"),
    ] {
        let printed = scheduler(&format!("[process]\nscheduler = {name}\n"));
        assert!(printed.contains(expected), "{name}: {printed}");
        let priority = if name.contains('7') { "7" } else { "0" };
        assert!(printed.ends_with(&format!("priority: {priority}")), "{name}: {printed}");
    }
}

/// The value of a line of `/proc/self/status`.
fn status(sections: &str, name: &str) -> String {
    let text = output(sections, &["/usr/bin/cat", "/proc/self/status"]);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {text}")).trim().to_owned()
}

#[test]
fn it_runs_on_the_named_processors_alone() {
    if !is_root() {
        return;
    }
    let all = status("", "Cpus_allowed_list");
    for one in [0, 1] {
        let named = status(&format!("[process]\ncpu_affinity = [{one}]\n"), "Cpus_allowed_list");
        assert_eq!(named, one.to_string());
        assert_ne!(named, all, "control: this host has more than one processor");
    }
    assert_eq!(status("[process]\ncpu_affinity = [\"0-1\"]\n", "Cpus_allowed_list"), "0-1");
    let refused = plan("[process]\ncpu_affinity = [0, 8191]\n").unwrap_err();
    assert!(refused.contains("error[no-processor]: processor 8191 is not online here"), "{refused}");
}

#[test]
fn its_memory_comes_from_the_named_nodes() {
    if !is_root() {
        return;
    }
    let policies = |sections: &str| {
        let maps = output(sections, &["/usr/bin/cat", "/proc/self/numa_maps"]);
        let words: std::collections::BTreeSet<_> =
            maps.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect();
        words.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(policies(""), "default", "control");
    for (key, expected) in [
        ("numa_policy = \"bind\"\nnuma_nodes = [0]", "bind:0"),
        ("numa_policy = \"preferred\"\nnuma_nodes = [0]", "prefer:0"),
        ("numa_policy = \"interleave\"\nnuma_nodes = [0]", "interleave:0"),
        ("numa_policy = \"local\"", "local"),
        ("numa_policy = \"default\"", "default"),
    ] {
        assert_eq!(policies(&format!("[process]\n{key}\n")), expected, "{key}");
    }
    let refused = plan("[process]\nnuma_policy = \"bind\"\nnuma_nodes = [1000]\n").unwrap_err();
    assert!(refused.contains("error[no-memory-node]: memory node 1000 is not there"), "{refused}");
}

#[test]
fn io_goes_in_the_named_class() {
    if !is_root() {
        return;
    }
    // ioprio_get(2) of this process: the class from bit 13 on, the level below.
    let class = |sections: &str| perl(sections, "my $p = syscall(252, 1, 0); print $p >> 13, ' ', $p & 7");
    // Without a class the level follows `nice`; newer kernels then answer the class that counts, best-effort at 4.
    assert!(["0 0", "0 4", "2 4"].contains(&class("").as_str()), "control: {}", class(""));
    for (key, expected) in [
        ("io_class = \"idle\"", "3 0"),
        ("io_class = \"best-effort\"\nio_priority = 7", "2 7"),
        ("io_class = \"best-effort\"\nio_priority = 1", "2 1"),
        ("io_class = \"realtime\"\nio_priority = 2", "1 2"),
    ] {
        assert_eq!(class(&format!("[process]\n{key}\n")), expected, "{key}");
    }
}

#[test]
fn timers_are_as_late_as_the_slack_says() {
    if !is_root() {
        return;
    }
    let slack = |sections: &str| perl(sections, "print syscall(157, 30)"); // PR_GET_TIMERSLACK
    assert_eq!(slack(""), "50000", "control: the kernel's own 50 us");
    assert_eq!(slack("[process]\ntimer_slack = \"3ms\"\n"), "3000000");
    assert_eq!(slack("[process]\ntimer_slack = \"1ns\"\n"), "1");
}

/// What this machine can do decides what is right; each of the four answers is a claim that is checked.
#[test]
fn speculation_is_disabled_or_the_policy_is_refused() {
    if !is_root() {
        return;
    }
    let kernel = Kernel::probe(None).unwrap();
    let kinds = [
        ("store-bypass", kernel.store_bypass, "Speculation_Store_Bypass", "thread force mitigated"),
        (
            "indirect-branch",
            kernel.indirect_branch,
            "SpeculationIndirectBranch",
            "conditional force disabled",
        ),
    ];
    for (kind, mitigation, line, disabled) in kinds {
        let required = format!("[process]\ndisable_speculation = [\"{kind}\"]\n");
        let optional =
            format!("[process]\ndisable_speculation = [{{ kind = \"{kind}\", optional = true }}]\n");
        println!("{kind}: {mitigation:?}, {}", status("", line));
        match mitigation {
            Mitigation::PerProcess => {
                assert_ne!(status("", line), disabled, "control");
                assert_eq!(status(&required, line), disabled);
            }
            Mitigation::Unavailable => {
                let refused = plan(&required).unwrap_err();
                assert!(refused.contains("error[no-mitigation]: "), "{refused}");
                let plan = plan(&optional).unwrap();
                let left_out: Vec<_> = plan.left_out().iter().map(|left| left.what.as_str()).collect();
                assert!(left_out.contains(&format!("speculation {kind}").as_str()), "{left_out:?}");
            }
            Mitigation::NotAffected | Mitigation::Always => {
                assert_eq!(status(&required, line), status("", line))
            }
        }
    }
}

/// SECBIT_* of capabilities(7): noroot 1, its lock 2, no_setuid_fixup's lock 8, keep_caps' lock 32, no_cap_ambient_raise
/// 64, its lock 128.
#[test]
fn securebits_are_strict_but_for_what_is_chosen() {
    if !is_root() {
        return;
    }
    let bits = |sections: &str| perl(sections, "print syscall(157, 27)"); // PR_GET_SECUREBITS
    let keeps = |sections: &str| perl(sections, "print syscall(157, 8, 1) == 0 ? 'kept' : $!"); // PR_SET_KEEPCAPS
    assert_eq!(bits(""), (1 | 2 | 8 | 32 | 64 | 128).to_string());
    assert_eq!(keeps(""), "Operation not permitted", "control");
    let may_keep = "[process]\nsecurebits = [\"may-keep-caps\"]\n";
    assert_eq!(bits(may_keep), (1 | 2 | 8 | 64 | 128).to_string());
    assert_eq!(keeps(may_keep), "kept");

    let root = |bits: &str| {
        format!("[process]\nuser = \"root\"\nsecurebits = [{bits}]\n[capabilities]\nkeep = [\"CAP_KILL\"]\n")
    };
    assert_eq!(status(&root(""), "CapEff"), "0000000000000020", "control: root has what is kept");
    assert_eq!(status(&root("\"noroot\""), "CapEff"), "0000000000000000");

    // PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL: what is permitted and inheritable, and was lowered before.
    let raises = |sections: &str| {
        perl(
            sections,
            "syscall(157, 47, 3, 5, 0, 0); print syscall(157, 47, 2, 5, 0, 0) == 0 ? 'raised' : $!",
        )
    };
    let ambient = |bits: &str| {
        format!(
            "[process]\nsecurebits = [{bits}]\n[capabilities]\nkeep = [\"CAP_KILL\"]\nambient = [\"CAP_KILL\"]\n"
        )
    };
    assert_eq!(raises(&ambient("")), "Operation not permitted", "control");
    assert_eq!(raises(&ambient("\"may-raise-ambient\"")), "raised");
}

#[test]
fn an_inherited_variable_can_be_taken_away() {
    if !is_root() {
        return;
    }
    let environment = |sections: &str| output(sections, &["/usr/bin/env"]);
    assert_eq!(environment(""), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "control");
    assert_eq!(environment("[process.environment]\nPATH = false\nLANG = \"C\"\n"), "LANG=C");
    let refused = plan("[process.environment]\nLANG = false\n").unwrap_err();
    assert!(refused.contains("`LANG` is not among what is inherited"), "{refused}");
}
