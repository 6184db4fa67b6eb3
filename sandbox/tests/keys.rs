//! Keys of `[process]`, `[seccomp]` and `[rlimits]` as a confined process experiences them, on this host: each with its
//! control, the same act under the same policy without the key.
//!
//! The whole way is walked: text, policy, plan, launch. Perl is the probe where no tool shows the effect: it can make
//! any system call, and belongs to what Debian calls essential.

mod inside;

use std::sync::Arc;

use inside::{command, is_root, plan_for, try_plan_for};
use nix::sys::wait::WaitStatus;
use sandbox::{
    Plan,
    kernel::{Kernel, Mitigation},
    launch::LaunchError,
};

/// `base/default` with these sections on top, compiled for this machine, or what is wrong with it.
fn plan(sections: &str) -> Result<Arc<Plan>, String> {
    try_plan_for("keys", sections).map_err(|report| report.to_string())
}

/// Runs a command under a policy: what it printed on both, and how it ended.
fn run(sections: &str, argv: &[&str]) -> Result<(String, WaitStatus), LaunchError> {
    let (output, ended) = command(&plan_for("keys", sections), argv)?;
    Ok((output.trim().to_owned(), ended))
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

/// Runs a line of Perl that makes one system call and says what came of it.
fn call(sections: &str, arguments: &str) -> String {
    perl(sections, &format!("print {} >= 0 ? 'done' : $!", made(arguments)))
}

/// A system call in Perl, which may write to its arguments and so takes no constants.
fn made(arguments: &str) -> String {
    format!("do {{ my ($n, @a) = ({arguments}); syscall($n, @a) }}")
}

const DENIED: &str = "Operation not permitted";
const UNKNOWN: &str = "Function not implemented";

#[test]
fn a_realtime_scheduler_is_out_of_reach_even_with_the_capability() {
    if !is_root() {
        return;
    }
    let policy = |restrict: bool| {
        format!(
            "[process]\nuser = \"root\"\nrestrict_realtime = {restrict}\n[capabilities]\nkeep = [\"CAP_SYS_NICE\"]\n"
        )
    };
    let fifo = "144, 0, 1, pack('i', 5)";
    assert_eq!(call(&policy(true), fifo), DENIED);
    assert_eq!(call(&policy(false), fifo), "done", "control");
    assert_eq!(call(&policy(true), "144, 0, 3, pack('i', 0)"), "done", "SCHED_BATCH is no realtime one");
    // sched_setattr(2): size, SCHED_RR, flags, nice, priority 5, and nothing else.
    let attributes = "314, 0, pack('LLQlLQQQ', 48, 2, 0, 0, 5, 0, 0, 0), 0";
    assert_eq!(call(&policy(true), attributes), UNKNOWN);
    assert_eq!(call(&policy(false), attributes), "done", "control");
}

#[test]
fn no_set_user_id_bit_is_set_by_any_call() {
    if !is_root() {
        return;
    }
    let prepare = "open(F, '>', '/tmp/f'); my ($f, $d) = (\"/tmp/f\\0\", \"/tmp/d\\0\");";
    let attempt = |sections: &str, arguments: &str| {
        perl(sections, &format!("{prepare} print {} >= 0 ? 'done' : $!", made(arguments)))
    };
    let free = "[process]\nrestrict_suid = false\n";
    let creat = libc::O_CREAT | libc::O_WRONLY;
    let temporary = libc::O_TMPFILE | libc::O_WRONLY;
    let acts = [
        "90, $f, 04755".to_owned(),
        "90, $f, 02755".to_owned(),
        "91, fileno(F), 04755".to_owned(),
        "268, -100, $f, 04755".to_owned(),
        "452, -100, $f, 04755, 0".to_owned(),
        format!("2, $d, {creat}, 04755"),
        format!("257, -100, $d, {creat}, 02755"),
        format!("257, -100, \"/tmp\\0\", {temporary}, 04755"),
        "85, $d, 04755".to_owned(),
        "83, $d, 02755".to_owned(),
        "258, -100, $d, 02755".to_owned(),
        "133, $d, 0104755, 0".to_owned(),
        "259, -100, $d, 0104755, 0".to_owned(),
    ];
    for act in &acts {
        assert_eq!(attempt("", act), DENIED, "{act}");
        assert_eq!(attempt(free, act), "done", "control: {act}");
    }
    let how = format!("437, -100, $d, pack('QQQ', {creat}, 04755, 0), 24");
    assert_eq!(attempt("", &how), UNKNOWN);
    assert_eq!(attempt(free, &how), "done", "control: openat2");
    for plain in ["90, $f, 01755".to_owned(), format!("2, $d, {creat}, 0644"), "83, $d, 0755".to_owned()] {
        assert_eq!(attempt("", &plain), "done", "{plain}");
    }
}

#[test]
fn namespaces_are_made_of_the_kinds_that_are_named() {
    if !is_root() {
        return;
    }
    let policy = |restrict: &str| {
        format!(
            "[process]\nrestrict_namespaces = {restrict}\n[seccomp]\nallow = {{ add = [\"unshare\", \"setns\"] }}\n\
             deny = {{ remove = [\"@privileged\"] }}\n"
        )
    };
    let (user, uts) = (libc::CLONE_NEWUSER, libc::CLONE_NEWUTS);
    let unshare = |restrict: &str, flags: i32| call(&policy(restrict), &format!("272, {flags}"));
    assert_eq!(unshare("true", user), DENIED);
    assert_eq!(unshare("[\"user\"]", user), "done");
    assert_eq!(unshare("[\"user\"]", user | uts), DENIED);
    assert_eq!(unshare("[\"uts\"]", user | uts), DENIED);
    assert_eq!(unshare("[\"user\", \"uts\"]", user | uts), "done");
    assert_eq!(unshare("false", user | uts), "done", "control");

    let clone = |restrict: &str, flags: i32| {
        let flags = flags | libc::SIGCHLD;
        let script = format!(
            "my $p = syscall(56, {flags}, 0, 0, 0, 0); exit 0 if $p == 0; print $p > 0 ? 'done' : $!; wait"
        );
        perl(&policy(restrict), &script)
    };
    assert_eq!(clone("true", 0), "done");
    assert_eq!(clone("true", user), DENIED);
    assert_eq!(clone("[\"user\"]", user), "done");
    assert_eq!(clone("[\"user\"]", user | uts), DENIED);
    assert_eq!(clone("false", user | uts), "done", "control");

    // clone3 with a structure that is too small is EINVAL where it reaches the kernel.
    assert_eq!(call(&policy("[\"user\"]"), "435, 0, 0"), UNKNOWN);
    assert_eq!(call(&policy("false"), "435, 0, 0"), "Invalid argument", "control");

    let enter = |restrict: &str, kind: i32| {
        let script = format!(
            "open(N, '<', '/proc/self/ns/user'); print syscall(308, fileno(N), {kind}) == 0 ? 'done' : $!"
        );
        perl(&policy(restrict), &script)
    };
    // One's own user namespace is EINVAL to the kernel.
    assert_eq!(enter("[\"uts\"]", user), DENIED);
    assert_eq!(enter("[\"user\"]", 0), DENIED, "0 would be any kind");
    assert_eq!(enter("[\"user\"]", user), "Invalid argument", "control");
    assert_eq!(enter("false", 0), "Invalid argument", "control");
}

#[test]
fn sockets_are_those_of_the_table() {
    if !is_root() {
        return;
    }
    let table =
        "[seccomp]\nsocket = [{ family = \"AF_UNIX\", type = \"SOCK_STREAM\" }, { family = \"AF_INET\" }]\n";
    let socket = |sections: &str, family: i32, kind: i32| call(sections, &format!("41, {family}, {kind}, 0"));
    let pair = |sections: &str, kind: i32| {
        call(sections, &format!("53, {}, {kind}, 0, pack('ii', 0, 0)", libc::AF_UNIX))
    };
    let (stream, datagram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    for (family, kind, wanted) in [
        (libc::AF_UNIX, stream, "done"),
        (libc::AF_UNIX, stream | flags, "done"),
        (libc::AF_UNIX, datagram, DENIED),
        (libc::AF_UNIX, datagram | flags, DENIED),
        (libc::AF_INET, datagram, "done"),
        (libc::AF_INET6, stream, DENIED),
    ] {
        assert_eq!(socket(table, family, kind), wanted, "{family} {kind:#x}");
        assert_eq!(socket("", family, kind), "done", "control: {family} {kind:#x}");
    }
    // A protocol that is named is the only one.
    let icmp = libc::IPPROTO_ICMP;
    let named =
        "[seccomp]\nsocket = [{ family = \"AF_INET\", type = \"SOCK_DGRAM\", protocol = \"IPPROTO_UDP\" }]\n";
    let datagrams = |sections: &str, protocol: i32| {
        call(sections, &format!("41, {}, {datagram}, {protocol}", libc::AF_INET))
    };
    assert_eq!(datagrams(named, libc::IPPROTO_UDP), "done");
    assert_eq!(datagrams(named, icmp), DENIED);
    assert_ne!(datagrams(table, icmp), DENIED, "control: the kernel's own answer");
    assert_eq!(datagrams(named, 0), DENIED, "0 is the default protocol, and not named");
    assert_eq!(pair(table, stream | flags), "done");
    assert_eq!(pair(table, datagram), DENIED);
    assert_eq!(pair("", datagram), "done", "control");
    assert_eq!(socket("[seccomp]\nsocket = []\n", libc::AF_UNIX, stream), DENIED);
    assert_eq!(pair("[seccomp]\nsocket = []\n", stream), DENIED);
}

#[test]
fn requests_and_operations_are_those_of_the_lists() {
    if !is_root() {
        return;
    }
    // On a pipe: FIONREAD is answered, TCGETS is ENOTTY where it reaches the kernel.
    let ioctl = |sections: &str, request: &str| {
        let script = format!(
            "pipe(R, W); my $b = \"\\0\" x 64; print syscall(16, fileno(R), {request}, $b) == 0 ? 'done' : $!"
        );
        perl(sections, &script)
    };
    let listed = "[seccomp]\nioctl = [\"FIONREAD\"]\n";
    assert_eq!(ioctl(listed, "0x541b"), "done");
    assert_eq!(ioctl(listed, "0x5401"), DENIED);
    assert_eq!(ioctl(listed, "0x5401 | 1 << 32"), DENIED, "the kernel takes the low half");
    assert_eq!(ioctl("", "0x5401"), "Inappropriate ioctl for device", "control");
    assert_eq!(ioctl("[seccomp]\nioctl = []\n", "0x541b"), DENIED);

    let listed = "[seccomp]\nprctl = [\"PR_GET_SECUREBITS\", 30]\n";
    assert_eq!(call(listed, "157, 27"), "done");
    assert_eq!(call(listed, "157, 30"), "done");
    assert_eq!(call(listed, "157, 3"), DENIED, "PR_GET_DUMPABLE");
    assert_eq!(call("", "157, 3"), "done", "control");
    assert_eq!(call("[seccomp]\nprctl = []\n", "157, 27"), DENIED);
}

#[test]
fn io_uring_needs_its_switch_besides_its_calls() {
    if !is_root() {
        return;
    }
    let policy = |switch: &str| {
        format!(
            "[process]\nrestrict_suid = false\n[seccomp]\n{switch}\nallow = {{ add = [\"@aio\"] }}\n\
             deny = {{ remove = [\"io_uring_setup\"] }}\nrule = {{ remove = [\"socket\"] }}\n"
        )
    };
    // io_uring_setup(2) without parameters is EFAULT where it reaches the kernel.
    assert_eq!(call(&policy(""), "425, 1, 0"), UNKNOWN);
    assert_eq!(call(&policy("io_uring = true"), "425, 1, 0"), "Bad address", "control");
    let unseen = plan(
        "[seccomp]\nio_uring = true\nallow = { add = [\"@aio\"] }\ndeny = { remove = [\"io_uring_setup\"] }\n",
    );
    let unseen = unseen.unwrap_err();
    assert_eq!(unseen.matches("error[io-uring-unseen]: ").count(), 2, "{unseen}");
}

#[test]
fn a_denied_call_gets_what_its_action_says() {
    if !is_root() {
        return;
    }
    let getppid = &["/usr/bin/perl", "-e", "print syscall(110) >= 0 ? 'done' : $!"];
    let attempt = |action: &str| {
        let sections = format!("[seccomp]\ndeny = {{ add = [\"getppid\"] }}\n[seccomp.action]\n{action}\n");
        run(&sections, getppid).unwrap()
    };
    assert_eq!(attempt("").0, DENIED, "the default");
    assert_eq!(attempt("getppid = \"errno:EBADF\"").0, "Bad file descriptor");
    assert_eq!(attempt("getppid = \"log\"").0, "done");
    for action in ["kill-process", "trap"] {
        let (output, status) = attempt(&format!("getppid = \"{action}\""));
        let WaitStatus::Signaled(_, signal, _) = status else { panic!("{action}: {status:?} {output}") };
        assert_eq!(signal, nix::sys::signal::Signal::SIGSYS);
    }
    assert_eq!(perl("", "print syscall(110) >= 0 ? 'done' : $!"), "done", "control");
}

/// A program of i386 that makes one call and exits with the errno of it, or with the low byte of the negative of what came
/// back: an ELF header, one segment, and a dozen instructions.
fn i386_program(number: u32, arguments: [u32; 5]) -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let mut code = Vec::new();
    // mov eax, ebx, ecx, edx, esi, edi
    for (register, value) in
        [0xb8, 0xbb, 0xb9, 0xba, 0xbe, 0xbf].into_iter().zip([&[number], &arguments[..]].concat())
    {
        code.push(register);
        code.extend(value.to_le_bytes());
    }
    // int 0x80; mov ebx, eax; neg ebx; mov eax, 1; int 0x80
    code.extend([0xcd, 0x80, 0x89, 0xc3, 0xf7, 0xdb, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    let size = HEADERS + u32::try_from(code.len()).expect("it is short");
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2_u16, 3].map(u16::to_le_bytes).concat()); // ET_EXEC, EM_386
    elf.extend([1, BASE + HEADERS, 52, 0, 0].map(u32::to_le_bytes).concat());
    elf.extend([52_u16, 32, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    elf.extend([1, 0, BASE, BASE, size, size, 5, 0x1000].map(u32::to_le_bytes).concat()); // PT_LOAD, PF_R | PF_X
    elf.extend(code);
    elf
}

#[test]
fn another_architecture_is_dead_unless_it_is_named() {
    if !is_root() {
        return;
    }
    let folder = inside::scratch("i386");
    let program = folder.join("program");
    let call = |sections: &str, number: u32, arguments: &[u32]| {
        let mut all = [0; 5];
        all[..arguments.len()].copy_from_slice(arguments);
        std::fs::write(&program, i386_program(number, all)).expect("the folder is ours");
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("it is ours");
        let dir = folder.display();
        let lines = format!(
            "[landlock]\nexecute = {{ add = [\"{dir}\"] }}\n[seccomp]\ndefault = \"errno:EXDEV\"\n{sections}"
        );
        match run(&lines, &[program.to_str().expect("our names are UTF-8")]) {
            Ok((_, WaitStatus::Exited(_, status))) => status,
            Ok((_, WaitStatus::Signaled(_, signal, _))) => -(signal as i32),
            other => panic!("{number}: {other:?}"),
        }
    };
    // The control of all: as root, outside of any sandbox, it runs.
    std::fs::write(&program, i386_program(20, [0; 5])).expect("the folder is ours");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    if std::process::Command::new(&program).status().is_err() {
        inside::skip("this kernel runs no programs of i386");
        return;
    }
    const FILTER: i32 = libc::EXDEV;
    const REACHED: i32 = libc::EFAULT; // with null for an address
    let i386 = "architectures = [\"native\", \"i386\"]\n";
    assert_eq!(call("", 20, &[]), -libc::SIGSYS, "getpid");
    assert_eq!(call("architectures = [\"native\", \"x32\"]\n", 20, &[]), -libc::SIGSYS);
    assert_eq!(call(i386, 20, &[]), 255, "getpid of PID 1");
    assert_eq!(call(i386, 21, &[]), FILTER, "mount");
    assert_eq!(call(i386, 17, &[]), libc::ENOSYS, "break was never a call");
    // A rule on an argument means the same where the argument stands there, and bars where it lies in memory.
    let (inet, netlink) = (libc::AF_INET.unsigned_abs(), libc::AF_NETLINK.unsigned_abs());
    assert!(call(i386, 359, &[inet, 1, 0]) > 200, "socket: a descriptor");
    assert_eq!(call(i386, 359, &[netlink, 3, 0]), FILTER);
    assert_eq!(call(i386, 102, &[1, 0]), FILTER, "socketcall: socket");
    assert_eq!(call(i386, 102, &[3, 0]), REACHED, "socketcall: connect");
    let free = format!("{i386}rule = {{ remove = [\"socket\"] }}\n");
    assert_eq!(call(&free, 102, &[1, 0]), REACHED, "control");
    assert_eq!(call(&free, 359, &[netlink, 3, 0]), 253, "control: a descriptor");
    assert_eq!(call(i386, 90, &[0]), FILTER, "mmap with its arguments in memory");
    let pages = |protection: i32| [0, 4096, protection.unsigned_abs(), 0x22, u32::MAX];
    assert_eq!(call(i386, 192, &pages(libc::PROT_WRITE | libc::PROT_EXEC)), FILTER, "mmap2");
    assert_ne!(call(i386, 192, &pages(libc::PROT_READ | libc::PROT_WRITE)), FILTER, "mmap2");
    let loose = format!("{i386}[process]\nmemory_deny_write_execute = false\n");
    assert_eq!(call(&loose, 90, &[0]), REACHED, "control");
    assert_ne!(call(&loose, 192, &pages(libc::PROT_WRITE | libc::PROT_EXEC)), FILTER, "control");
    assert_eq!(call(i386, 117, &[23, 0, 4096, 0o700]), 0, "ipc: shmget makes the first");
    let barred = format!("{i386}deny = {{ add = [\"shmget\"] }}\n");
    assert_eq!(call(&barred, 117, &[23, 0, 4096, 0o700]), FILTER, "ipc: shmget");
    assert_eq!(call(&barred, 395, &[0, 4096, 0o700]), FILTER, "shmget");
    assert_eq!(call(i386, 310, &[libc::CLONE_NEWUSER.unsigned_abs()]), FILTER, "unshare");
    let old = format!("{i386}[[seccomp.rule.add]]\ncall = \"umask\"\narg = 0\nin = [7]\n");
    assert_eq!(call(&old, 60, &[8]), FILTER, "umask");
    assert_ne!(call(&old, 60, &[7]), FILTER, "umask");
}

#[test]
fn no_memory_is_writable_and_executable() {
    if !is_root() {
        return;
    }
    let free = "[process]\nmemory_deny_write_execute = false\n";
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let map = |protection: i32| format!("9, 0, 4096, {protection}, {anonymous}, -1, 0");
    let (read, write, execute) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
    assert_eq!(call("", &map(read | write | execute)), DENIED);
    assert_eq!(call(free, &map(read | write | execute)), "done", "control");
    assert_eq!(call("", &map(read | write)), "done");
    assert_eq!(call("", &map(read | execute)), "done");

    let later = |sections: &str, number: i64, more: &str| {
        let map = map(read | write);
        let script = format!(
            "my $a = syscall({map}); print syscall({number}, $a, 4096, {}{more}) == 0 ? 'done' : $!",
            read | execute
        );
        perl(sections, &script)
    };
    assert_eq!(later("", libc::SYS_mprotect, ""), DENIED);
    assert_eq!(later(free, libc::SYS_mprotect, ""), "done", "control");
    let pkeys = |key: &str| format!("{key}[seccomp]\nallow = {{ add = [\"@pkey\"] }}\n");
    assert_eq!(later(&pkeys(""), libc::SYS_pkey_mprotect, ", -1"), DENIED);
    assert_eq!(later(&pkeys(free), libc::SYS_pkey_mprotect, ", -1"), "done", "control");

    let shared = |sections: &str| {
        let flags = libc::SHM_EXEC;
        perl(
            sections,
            &format!(
                "my $i = syscall(29, 0, 4096, 0700); print syscall(30, $i, 0, {flags}) > 0 ? 'done' : $!"
            ),
        )
    };
    assert_eq!(shared(""), DENIED);
    assert_eq!(shared(free), "done", "control");

    // A program written into a memfd: it cannot be made executable, and the one that can be made cannot be executed.
    let memfd = |sections: &str, flags: u32| {
        let script = format!(
            "my $n = \"x\\0\"; my $f = syscall(319, $n, {flags}); if ($f < 0) {{ print $!; exit }} \
             open(O, \">&=$f\"); binmode O; open(I, '<', '/usr/bin/true'); binmode I; local $/; print O <I>; close I; \
             O->flush; exec \"/proc/self/fd/$f\"; print $!"
        );
        output(sections, &["/usr/bin/perl", "-MIO::Handle", "-e", &script])
    };
    let noexec_seal = 8;
    assert_eq!(memfd("", 0), DENIED);
    assert_eq!(memfd("", noexec_seal), "Permission denied");
    assert_eq!(memfd(free, noexec_seal), "Permission denied");
    assert_eq!(memfd(free, 0), "", "control: it is executed, and says nothing");
    // READ_IMPLIES_EXEC would make each of these executable after the fact.
    assert_eq!(call("", "135, 0x0400000"), DENIED);
    let unlocked = "[process]\nlock_personality = false\n";
    assert_eq!(call(unlocked, "135, 0x0400000"), "done", "control");
}

/// Of the 16 those that any root can lower, with the line of `/proc/self/limits` that shows it.
const RLIMITS: [(&str, &str, &str, [&str; 2]); 14] = [
    ("cpu", "Max cpu time", "\"1000:2000\"", ["1000", "2000"]),
    ("fsize", "Max file size", "\"1M:1G\"", ["1048576", "1073741824"]),
    ("data", "Max data size", "\"64M:max\"", ["67108864", "unlimited"]),
    ("stack", "Max stack size", "\"4M:16M\"", ["4194304", "16777216"]),
    ("core", "Max core file size", "\"0:0\"", ["0", "0"]),
    ("rss", "Max resident set", "\"1G\"", ["1073741824", "1073741824"]),
    ("nproc", "Max processes", "\"50:60\"", ["50", "60"]),
    ("nofile", "Max open files", "\"100:200\"", ["100", "200"]),
    ("memlock", "Max locked memory", "\"4K:8K\"", ["4096", "8192"]),
    ("as", "Max address space", "\"1G:2G\"", ["1073741824", "2147483648"]),
    ("locks", "Max file locks", "7", ["7", "7"]),
    ("sigpending", "Max pending signals", "\"8:9\"", ["8", "9"]),
    ("msgqueue", "Max msgqueue size", "\"1K:2K\"", ["1024", "2048"]),
    ("rttime", "Max realtime timeout", "\"5:6\"", ["5", "6"]),
];

/// The limits of a confined process: the soft and the hard one of each line.
fn limits(sections: &str) -> Vec<(String, [String; 2])> {
    let text = output(sections, &["/usr/bin/cat", "/proc/self/limits"]);
    let line = |line: &str| {
        // Names have spaces, and stand in 26 columns.
        let (name, values) = line.split_at_checked(26)?;
        let mut values = values.split_whitespace().map(str::to_owned);
        Some((name.trim().to_owned(), [values.next()?, values.next()?]))
    };
    text.lines().skip(1).filter_map(line).collect()
}

#[test]
fn each_resource_limit_is_the_one_that_is_named() {
    if !is_root() {
        return;
    }
    let of = |limits: &[(String, [String; 2])], wanted: &str| {
        let line = limits.iter().find(|(name, _)| name == wanted);
        line.unwrap_or_else(|| panic!("{wanted} in {limits:?}")).1.clone()
    };
    // Without limits of its own on anything.
    let control = limits("[process]\ncore_dumps = true\n[rlimits]\nnofile = \"300:400\"\ncore = \"1:2\"\n");
    assert_eq!(control.len(), 16);
    let all: Vec<String> = RLIMITS.iter().map(|(key, _, value, _)| format!("{key} = {value}")).collect();
    let all = limits(&format!("[process]\ncore_dumps = true\n[rlimits]\n{}\n", all.join("\n")));
    for (key, line, _, expected) in RLIMITS {
        assert_eq!(of(&all, line), expected, "{key}");
        assert_ne!(of(&control, line), expected, "control: {key}");
    }
    assert_eq!(
        of(&limits(""), "Max core file size"),
        ["1", "1"],
        "core_dumps = false, whatever core_pattern says"
    );
}

/// Their hard limits are usually 0, and raising one takes CAP_SYS_RESOURCE, which not every root has.
#[test]
fn the_limits_on_priorities_are_set_or_the_service_does_not_start() {
    if !is_root() {
        return;
    }
    let may = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE).unwrap();
    for (key, line) in [("nice", "Max nice priority"), ("rtprio", "Max realtime priority")] {
        let sections = format!("[rlimits]\n{key} = \"10:20\"\n");
        if may {
            let found = limits(&sections).into_iter().find(|(name, _)| name == line).unwrap().1;
            assert_eq!(found, ["10", "20"], "{key}");
            let control = limits("").into_iter().find(|(name, _)| name == line).unwrap().1;
            assert_ne!(control, ["10", "20"], "control: {key}");
        } else {
            let error = run(&sections, &["/usr/bin/true"]).unwrap_err();
            assert_eq!(
                error.to_string(),
                "test.toml:3:".to_owned() + &format!("{}: rlimit: 10:20: EPERM", key.len() + 4)
            );
            assert!(run("", &["/usr/bin/true"]).is_ok(), "control");
        }
    }
}
