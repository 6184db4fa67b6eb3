//! Each key of `[cgroup]` that needs a controller, and what else needs a module of the kernel, as a process inside feels
//! it, on both kernels: in one table what it says with the key, and what it says under the same policy without it, which is
//! the control. What is a share of something that others want as well is felt by two at once.
//!
//! The kernels are those for every machine, with swap in compressed memory before which zswap can stand, a disk with
//! nothing in it, two memory nodes, huge pages and a device of software RDMA.

use anyhow::{Context, Result, bail, ensure};
use e2e::fetch::{Flavour, Kernel};
use e2e::initramfs::{Image, SharedImage};
use e2e::machine::{Answer, Machine, Setup, run_with};
use e2e::say;
use e2e::system::{START, policy_at, status, under};

const MODULES: [&str; 9] =
    ["nvme", "zram", "lz4", "overlay", "dummy", "rdma_rxe", "ib_uverbs", "zsmalloc", "crc32_generic"];

/// A system without daemons.
static IMAGE: SharedImage = SharedImage::new("limits", || {
    let mut image = Image::system()?;
    image.file(
        "/usr/lib/motherd/services/system.toml",
        0o644,
        "[dependencies]\nwants = [\"console\", \"commands\"]\n",
    )?;
    for kernel in Kernel::ALL {
        image.modules(kernel, Flavour::Whole, &MODULES)?;
    }
    Ok(image)
});

/// Two nodes with a processor each.
const NODES: [&str; 8] = [
    "-object",
    "memory-backend-ram,id=m0,size=256M",
    "-object",
    "memory-backend-ram,id=m1,size=256M",
    "-numa",
    "node,nodeid=0,cpus=0,memdev=m0",
    "-numa",
    "node,nodeid=1,cpus=1,memdev=m1",
];

/// What comes of a script under `base/default` and some lines.
struct Felt {
    key: &'static str,
    /// The lines with the key, and those of the control.
    lines: [&'static str; 2],
    script: &'static str,
    /// What it says at last with the key, and without; or how it was ended.
    says: [&'static str; 2],
    /// The first kernel that has it.
    since: Kernel,
}

const fn felt(
    key: &'static str,
    lines: [&'static str; 2],
    script: &'static str,
    says: [&'static str; 2],
) -> Felt {
    Felt { key, lines, script, says, since: Kernel::V6_1 }
}

/// The service sees its own cgroup in /sys/fs/cgroup: the kernel's own account of what was done to it.
const SEE: &str = "[landlock]\nread = { add = [\"/sys\"] }\n";
/// Memory that goes to the swap device if it may.
const SWAPS: &str = "memory_high = \"max\"\nmemory_max = \"16M\"\nswap_max = \"max\"\n";

const TABLE: &[Felt] = &[
    felt(
        "cgroup.memory_max",
        [
            "[cgroup]\nmemory_high = \"max\"\nmemory_max = \"24M\"",
            "[cgroup]\nmemory_high = \"max\"\nmemory_max = \"64M\"",
        ],
        "exec probe touch 32",
        ["killed 9", "allowed"],
    ),
    felt(
        "cgroup.memory_high",
        [
            "@see@[cgroup]\nswap_max = \"max\"\nmemory_high = \"8M\"",
            "@see@[cgroup]\nswap_max = \"max\"\nmemory_high = \"max\"",
        ],
        "probe touch 16 >/dev/null; [ $(sed -n \"s/^high //p\" /sys/fs/cgroup/memory.events) -gt 0 ] && echo held || echo free",
        ["held", "free"],
    ),
    felt(
        "cgroup.swap_max",
        [
            "[cgroup]\nmemory_high = \"max\"\nmemory_max = \"24M\"\nswap_max = 0",
            "[cgroup]\nmemory_high = \"max\"\nmemory_max = \"24M\"\nswap_max = \"max\"",
        ],
        "exec probe touch 32",
        ["killed 9", "allowed"],
    ),
    felt(
        "cgroup.swap_high",
        ["@see@[cgroup]\n@swaps@swap_high = \"2M\"", "@see@[cgroup]\n@swaps@"],
        // Whoever is above it sleeps for seconds at a time: the first time will do.
        "(probe touch 20 >/dev/null; : >/tmp/done) & held() { [ $(sed -n \"s/^high //p\" /sys/fs/cgroup/memory.swap.events) -gt 0 ]; }; \
         until held || [ -e /tmp/done ]; do sleep 0.1; done; held && echo held || echo free",
        ["held", "free"],
    ),
    felt(
        "cgroup.oom_group",
        [
            "[cgroup]\nmemory_high = \"max\"\nmemory_max = \"24M\"\noom_group = true",
            "[cgroup]\nmemory_high = \"max\"\nmemory_max = \"24M\"\noom_group = false",
        ],
        "probe touch 32; echo alone",
        ["killed 9", "alone"],
    ),
    felt(
        "cgroup.pids_max",
        ["[cgroup]\npids_max = 4", "[cgroup]\npids_max = 16"],
        "for i in 1 2 3 4 5 6; do sleep 60 & done; echo all",
        ["/bin/sh: can't fork: Resource temporarily unavailable", "all"],
    ),
    felt(
        "cgroup.cpu_max",
        ["@see@[cgroup]\ncpu_max = \"5%\"", "@see@[cgroup]\ncpu_max = \"max\""],
        "probe figure cpu 500 >/dev/null; [ $(sed -n \"s/^nr_throttled //p\" /sys/fs/cgroup/cpu.stat) -gt 0 ] && echo held || echo free",
        ["held", "free"],
    ),
    felt(
        "cgroup.cpu_burst",
        ["@see@[cgroup]\ncpu_max = \"20%\"\ncpu_burst = \"20ms\"", "@see@[cgroup]\ncpu_max = \"20%\""],
        "for i in 1 2 3; do sleep 0.5; probe figure cpu 30 >/dev/null; done; [ $(sed -n \"s/^nr_bursts //p\" /sys/fs/cgroup/cpu.stat) -gt 0 ] && echo saved || echo none",
        ["saved", "none"],
    ),
    felt(
        "cgroup.cpuset_cpus",
        ["[cgroup]\ncpuset_cpus = [1]", ""],
        "sed -n \"s/^Cpus_allowed_list:.//p\" /proc/self/status",
        ["1", "0-1"],
    ),
    felt(
        "cgroup.cpuset_mems",
        ["[cgroup]\ncpuset_mems = [1]", ""],
        "sed -n \"s/^Mems_allowed_list:.//p\" /proc/self/status",
        ["1", "0-1"],
    ),
    felt(
        "cgroup.hugetlb",
        ["[cgroup]\nhugetlb = { 2MB = \"2M\" }", "[cgroup]\nhugetlb = { 2MB = \"4M\" }"],
        "exec probe huge 2",
        ["killed 7", "allowed"], // SIGBUS
    ),
    felt(
        "cgroup.rdma",
        ["@rdma@[cgroup]\nrdma = [{ device = \"rxe0\", hca_handle = 0 }]", "@rdma@"],
        "exec probe rdma /dev/infiniband/uverbs0 0",
        ["denied EAGAIN", "allowed"],
    ),
    felt(
        "cgroup.rdma.device",
        [
            "@rdma@[cgroup]\nrdma = [{ device = \"rxe0\", hca_handle = 0 }]",
            "@rdma@[cgroup]\nrdma = [{ device = \"rxe1\", hca_handle = 0 }]",
        ],
        "exec probe rdma /dev/infiniband/uverbs0 0",
        ["denied EAGAIN", "allowed"],
    ),
    felt(
        "cgroup.rdma.hca_handle",
        [
            "@rdma@[cgroup]\nrdma = [{ device = \"rxe0\", hca_handle = 0 }]",
            "@rdma@[cgroup]\nrdma = [{ device = \"rxe0\", hca_handle = 1 }]",
        ],
        "exec probe rdma /dev/infiniband/uverbs0 1",
        ["denied EAGAIN", "allowed"],
    ),
    felt(
        "cgroup.rdma.hca_object",
        [
            "@rdma@[cgroup]\nrdma = [{ device = \"rxe0\", hca_object = 2 }]",
            "@rdma@[cgroup]\nrdma = [{ device = \"rxe0\", hca_object = 3 }]",
        ],
        "exec probe rdma /dev/infiniband/uverbs0 3",
        ["denied EAGAIN", "allowed"],
    ),
    felt(
        "cgroup.memory_zswap_max",
        ["@see@[cgroup]\n@swaps@memory_zswap_max = 0", "@see@[cgroup]\n@swaps@"],
        "probe touch 24 >/dev/null; [ $(sed -n \"s/^zswpout //p\" /sys/fs/cgroup/memory.stat) -gt 0 ] && echo compressed || echo not",
        ["not", "compressed"],
    ),
    Felt {
        since: Kernel::V6_12,
        // What zswap may not take and may not pass on stays in memory.
        ..felt(
            "cgroup.memory_zswap_writeback",
            [
                "[cgroup]\n@swaps@memory_zswap_max = 0\nmemory_zswap_writeback = false",
                "[cgroup]\n@swaps@memory_zswap_max = 0\nmemory_zswap_writeback = true",
            ],
            "exec probe touch 24",
            ["killed 9", "allowed"],
        )
    },
    felt(
        "seccomp.architectures",
        ["[seccomp]\narchitectures = [\"native\", \"i386\"]", ""],
        "exec probe call-i386 getpid",
        ["allowed", "killed 31"], // SIGSYS
    ),
    felt(
        "seccomp.architectures",
        ["[seccomp]\narchitectures = [\"native\", \"x32\"]", ""],
        "exec probe call-x32 getpid",
        ["allowed", "denied ENOSYS"],
    ),
    felt(
        "seccomp.architectures",
        [
            "[seccomp]\narchitectures = [\"native\", \"x32\"]\nallow = { add = [\"keyctl\"] }\ndeny = []",
            "[seccomp]\narchitectures = [\"native\", \"x32\"]",
        ],
        "exec probe call-x32 keyctl",
        ["allowed", "denied EPERM"],
    ),
    felt(
        "filesystem.overlay",
        [
            "[filesystem]\noverlay = [{ lower = [\"/etc\"], path = \"/etc\", size = \"1M\" }]\n[landlock]\nwrite = { add = [\"/etc\"] }",
            "[landlock]\nwrite = { add = [\"/etc\"] }",
        ],
        "echo words 2>/dev/null >/etc/new; cat /etc/new 2>/dev/null || echo not",
        ["words", "not"],
    ),
];

/// A device to itself, in a minimal /dev or not.
const RDMA: &str = "[process]\nuser = \"root\"\n[filesystem]\ndev = \"host\"\n[landlock]\nwrite = { add = [\"/dev/infiniband\"] }\n";
/// The disk, for root to read and write.
const DISK: &str = "[process]\nuser = \"root\"\n[filesystem]\ndev = \"host\"\n[landlock]\nwrite = { add = [\"/dev/nvme0n1\"] }\n";

fn on(kernel: Kernel) -> Result<()> {
    let setup = || {
        Ok(Setup {
            flavour: Flavour::Whole,
            arguments: NODES.to_vec(),
            // Debian builds x32, and has it off.
            words: "syscall.x32=y".to_owned(),
            ..Setup::default()
        })
    };
    run_with(kernel, IMAGE.path()?, &setup, |machine| {
        machine.ready()?;
        prepare(machine)?;
        let mut wrong = table(machine)?;
        for (what, check, attempts) in CHECKS {
            let mut outcome = check(machine);
            for _ in 1..*attempts {
                if let Err(error) = &outcome {
                    say(&format!("measured again, for this machine may be busy: {what}: {error:#}"));
                    outcome = check(machine);
                }
            }
            if let Err(error) = outcome {
                wrong.push(format!("{what}: {error:#}"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
    })
}

#[test]
fn every_limit_is_felt_on_6_1() -> Result<()> {
    on(Kernel::V6_1)
}

#[test]
fn every_limit_is_felt_on_6_12() -> Result<()> {
    on(Kernel::V6_12)
}

/// Swap behind zswap, huge pages, and a device of software RDMA.
fn prepare(machine: &mut Machine) -> Result<()> {
    for command in [
        "for module in nvme zram overlay dummy rdma_rxe ib_uverbs; do modprobe $module; done",
        "echo 128M >/sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0",
        "echo 1 >/sys/module/zswap/parameters/enabled",
        "echo 8 >/proc/sys/vm/nr_hugepages",
        "for name in rdma0 rdma1; do ip link add $name type dummy && ip link set $name up; done",
        "probe rdma-link rxe0 rdma0 && probe rdma-link rxe1 rdma1",
    ] {
        machine.ok(command)?;
    }
    machine.eventually("the disk is there", std::time::Duration::from_secs(30), |machine| {
        Ok((machine.run("test -b /dev/nvme0n1 && test -c /dev/infiniband/uverbs0")?.status == 0)
            .then_some(()))
    })
}

/// What a script said at last, or how it was ended.
fn last(answer: &Answer) -> String {
    match answer.status {
        ended @ 129.. => format!("killed {}", ended - 128),
        _ => answer.output.trim().lines().last().unwrap_or_default().to_owned(),
    }
}

fn table(machine: &mut Machine) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for Felt { key, lines, script, says, since } in TABLE {
        if *since == Kernel::V6_12 && machine.kernel() == Kernel::V6_1 {
            continue;
        }
        for (lines, expected) in lines.iter().zip(says) {
            let lines = [("@see@", SEE), ("@swaps@", SWAPS), ("@rdma@", RDMA)]
                .iter()
                .fold((*lines).to_owned(), |text, (word, instead)| text.replace(word, instead));
            // The lines are inside of quotes.
            let answer = under(machine, &lines.lines().collect::<Vec<_>>(), script)?;
            let said = last(&answer);
            if said != *expected {
                wrong.push(format!("{key}: {lines:?}: {said:?}, not {expected:?}: {}", answer.output));
            }
        }
        ensure!(says[0] != says[1], "{key}: the control is no control");
    }
    Ok(wrong)
}

type Check = fn(&mut Machine) -> Result<()>;
/// What takes more than a line, and how often it is tried: what measures, thrice, since a busy host disturbs it.
const CHECKS: &[(&str, Check, u32)] = &[
    ("io_max", each_limit_of_a_device_slows_its_own_transfers, 3),
    ("cpu_weight, cpu_idle", a_processor_is_shared_by_weight, 3),
    ("io_weight", a_device_is_shared_by_weight, 3),
    ("memory_min, memory_low", protected_memory_stays, 3),
    ("landlock.optional", what_landlock_lacks_is_refused_unless_it_is_optional, 1),
    ("pressure", who_waits_too_much_for_memory_is_reported_or_ended, 1),
    ("memory_zswap_writeback", what_a_kernel_has_no_file_for_is_told, 1),
];

/// The number that a measuring probe printed.
fn number(answer: &Answer) -> Result<f64> {
    ensure!(answer.status == 0, "exit status {}: {}", answer.status, answer.output);
    last(answer).parse().with_context(|| answer.output.clone())
}

/// `io_max` by `rbps`, `wbps`, `riops` and `wiops`: transfers in its own direction take their time, the others none.
fn each_limit_of_a_device_slows_its_own_transfers(machine: &mut Machine) -> Result<()> {
    for (limit, way, block, count) in [
        ("rbps = \"1M\"", "read", 1 << 18, 8),
        ("wbps = \"1M\"", "write", 1 << 18, 8),
        ("riops = 20", "read", 4096, 40),
        ("wiops = 20", "write", 4096, 40),
    ] {
        let other = if way == "read" { "write" } else { "read" };
        let mut took = |key: &str, way: &str| {
            let device = format!("io_max = [{{ device = \"/dev/nvme0n1\", {key} }}]");
            let lines = format!("{DISK}[cgroup]\n{}", if key.is_empty() { "" } else { &device });
            let script = format!("exec probe figure transfer {way} /dev/nvme0n1 {block} {count}");
            number(&under(machine, &lines.lines().collect::<Vec<_>>(), &script)?)
        };
        let (limited, free, other) = (took(limit, way)?, took("", way)?, took(limit, other)?);
        say(&format!("{limit}: {limited} ms, without {free} ms, the other way {other} ms"));
        ensure!(limited > 1000.0 && free < limited / 2.0, "{limit}: {limited} ms, without {free} ms");
        ensure!(other < limited / 2.0, "{limit}: the other way {other} ms, like {limited} ms");
    }
    Ok(())
}

/// What each of two who run at once under their lines got in the same three seconds: how much a number in a file of its
/// cgroup grew, which `sed` finds. What they measured by themselves would not be of the same time.
fn both(machine: &mut Machine, lines: [&str; 2], figure: &str, file: &str, sed: &str) -> Result<[f64; 2]> {
    let [first, second] = [("/root/a.toml", lines[0]), ("/root/b.toml", lines[1])]
        .map(|(path, lines)| policy_at(machine, path, &lines.lines().collect::<Vec<_>>()));
    let (first, second) = (first?, second?);
    let answer = machine.ok(&format!(
        "{first} /usr/bin/probe figure {figure} >/dev/null 2>&1 & a=$!; {second} /usr/bin/probe figure {figure} >/dev/null \
         2>&1 & b=$!; of() {{ n=$(sed -n \"{sed}\" /sys/fs/cgroup/run.slice/run-$1.service/{file} 2>/dev/null); \
         echo ${{n:-0}}; }}; until [ $(of $a) -gt 0 ] && [ $(of $b) -gt 0 ]; do sleep 0.1; done; \
         a1=$(of $a); b1=$(of $b); sleep 3; a2=$(of $a); b2=$(of $b); kill $a $b; wait; echo $((a2-a1)) $((b2-b1))"
    ))?;
    let mut words = answer.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(second))) => Ok([first, second]),
        _ => bail!("they got {answer:?}"),
    }
}

fn a_processor_is_shared_by_weight(machine: &mut Machine) -> Result<()> {
    const ONE: &str = "[cgroup]\ncpuset_cpus = [1]\n";
    let mut shares = |keys: [&str; 2]| {
        let lines = keys.map(|key| format!("{ONE}{key}\n"));
        let lines = lines.each_ref().map(String::as_str);
        both(machine, lines, "cpu 600000", "cpu.stat", "s/^usage_usec //p")
    };
    let [light, heavy] = shares(["cpu_weight = 10", "cpu_weight = 1000"])?;
    let [idle, busy] = shares(["cpu_idle = true", ""])?;
    let [one, other] = shares(["", ""])?;
    say(&format!(
        "us of a processor: {light} to {heavy} by weight, {idle} to {busy} if idle, {one} to {other} equal"
    ));
    ensure!(heavy > 4.0 * light, "cpu_weight: {light} to {heavy}");
    ensure!(busy > 4.0 * idle, "cpu_idle: {idle} to {busy}");
    ensure!(one < 3.0 * other && other < 3.0 * one, "control: {one} to {other}");
    Ok(())
}

/// By iocost, with a model that says what the disk can do: the weights share that.
fn a_device_is_shared_by_weight(machine: &mut Machine) -> Result<()> {
    machine.ok(
        "disk=$(cat /sys/class/block/nvme0n1/dev); cd /sys/fs/cgroup; \
         echo $disk ctrl=user model=linear rbps=4000000 rseqiops=1000 rrandiops=1000 wbps=4000000 wseqiops=1000 \
         wrandiops=1000 >io.cost.model; \
         echo $disk enable=1 ctrl=user rpct=0 rlat=0 wpct=0 wlat=0 min=100.00 max=100.00 >io.cost.qos",
    )?;
    let mut shares = |keys: [&str; 2]| {
        let lines = keys.map(|key| format!("{DISK}[cgroup]\n{key}\n"));
        let lines = lines.each_ref().map(String::as_str);
        both(
            machine,
            lines,
            "read-for 600000 /dev/nvme0n1 65536",
            "io.stat",
            "s/^259:.* *rbytes=\\([0-9]*\\).*/\\1/p",
        )
    };
    let [light, heavy] = shares(["io_weight = 10", "io_weight = 1000"])?;
    let [one, other] = shares(["", ""])?;
    say(&format!("of a disk: {light} to {heavy} bytes by weight, {one} to {other} equal"));
    ensure!(heavy > 3.0 * light, "io_weight: {light} to {heavy}");
    ensure!(one < 2.5 * other && other < 2.5 * one, "control: {one} to {other}");
    machine.ok("echo $(cat /sys/class/block/nvme0n1/dev) enable=0 >/sys/fs/cgroup/io.cost.qos")?;
    Ok(())
}

/// What one has read stays in memory, or has to be read again, when another in its slice takes more than the slice holds;
/// that one's memory can go to the swap device.
fn protected_memory_stays(machine: &mut Machine) -> Result<()> {
    let other = "[cgroup]\nmemory_high = \"max\"\nswap_max = \"max\"\n";
    let other = policy_at(machine, "/root/b.toml", &other.lines().collect::<Vec<_>>())?;
    for (key, kept) in [("memory_min = \"20M\"", true), ("memory_low = \"20M\"", true), ("", false)] {
        let lines = format!("{DISK}[cgroup]\n{key}\n");
        let one = policy_at(machine, "/root/a.toml", &lines.lines().collect::<Vec<_>>())?;
        machine.ok(&format!(
            "rm -f /root/go /root/a; mkfifo /root/go; \
             {one} /usr/bin/probe figure again /dev/nvme0n1 0 12 </root/go >/root/a 2>&1 & exec 3>/root/go; \
             until grep -q read /root/a; do sleep 0.1; done; echo 32M >/sys/fs/cgroup/run.slice/memory.max && \
             {other} /usr/bin/probe touch 48; \
             echo go >&3; wait; echo max >/sys/fs/cgroup/run.slice/memory.max"
        ))?;
        let again: f64 = machine.ok("tail -n 1 /root/a")?.trim().parse()?;
        say(&format!("{key:22} of 12288 KiB {again} had to be read again"));
        ensure!((again < 2048.0) == kept && (kept || again > 6144.0), "{key:?}: {again} KiB were read again");
    }
    Ok(())
}

/// Landlock of 6.1 knows neither ports nor scopes.
fn what_landlock_lacks_is_refused_unless_it_is_optional(machine: &mut Machine) -> Result<()> {
    let required = under(machine, &["[landlock]", "optional = []"], "echo it-was-started")?;
    let optional = under(machine, &["[landlock]", "optional = [\"net\", \"scope\"]"], "echo it-was-started")?;
    ensure!(optional.status == 0 && last(&optional) == "it-was-started", "control: {optional:?}");
    match machine.kernel() {
        Kernel::V6_1 => {
            ensure!(required.status == 125 && !required.output.contains("it-was-started"), "{required:?}");
            ensure!(optional.output.contains("left out on this machine: landlock"), "{}", optional.output);
        }
        Kernel::V6_12 => ensure!(required.output == "it-was-started\n", "{required:?}"),
    }
    Ok(())
}

/// `pressure` by who needs more memory than it may have at once, and so waits for it; who needs less is the control.
fn who_waits_too_much_for_memory_is_reported_or_ended(machine: &mut Machine) -> Result<()> {
    let lines = |action: &str| {
        let trigger = "{ resource = \"memory\", kind = \"some\", stall = \"50ms\", window = \"1s\"";
        format!(
            "[cgroup]\nmemory_high = \"12M\"\nmemory_max = \"max\"\nswap_max = \"max\"\n\
             pressure = [{trigger}, action = \"{action}\" }}]\n"
        )
    };
    let hog = "while true; do probe touch 24; done";
    let meek = "for i in 1 2 3; do probe touch 1; done >/dev/null; sleep 2; echo meek";
    let entry = "pressure: memory some: 50ms in 1s";
    let under_it = |machine: &mut Machine, action: &str, script: &str| {
        under(machine, &lines(action).lines().collect::<Vec<_>>(), script)
    };
    let killed = under_it(machine, "kill", hog)?;
    ensure!(killed.status == 137 && killed.output.contains(&format!("{entry}: killed")), "{killed:?}");
    let control = under_it(machine, "kill", meek)?;
    let told = control.output.contains("pressure:");
    ensure!(last(&control) == "meek" && !told, "control: {control:?}");
    // The same of services.
    for (name, action, script) in [
        ("reported", "report", hog),
        ("restarted", "restart", hog),
        ("killed", "kill", hog),
        ("meek", "kill", meek),
    ] {
        let text = format!("extends = [\"base/default\"]\n{}", lines(action));
        let service = format!(
            "exec = [\"/bin/sh\", \"-c\", \"{script}; sleep 600\"]\npolicy = \"{name}\"\n[stop]\ntimeout = \"1s\"\n\
             [restart]\ndelay = \"100ms\"\n"
        );
        for (folder, text) in [("policies", &text), ("services", &service)] {
            let words: String = text.lines().map(|line| format!(" '{line}'")).collect();
            machine.ok(&format!(
                "mkdir -p /etc/motherd/{folder}; printf '%s\\n'{words} >/etc/motherd/{folder}/{name}.toml"
            ))?;
        }
    }
    machine.ok("motherctl reload-config && motherctl start meek reported")?;
    for name in ["restarted", "killed"] {
        // It may be ended before its start is answered: then the answer says why.
        let start = machine.run(&format!("motherctl start {name}"))?;
        ensure!(start.status == 0 || start.output.contains(entry), "{start:?}");
    }
    for (name, action) in [("restarted", "restart"), ("killed", "kill")] {
        let cause = machine.eventually(&format!("{name} is started again"), START, |machine| {
            let status = status(machine, name)?;
            let again = status["restarts"].as_u64() > Some(0);
            Ok(again.then(|| status["cause"]["words"].as_str().unwrap_or_default().to_owned()))
        })?;
        ensure!(cause.contains(entry), "{name}: {cause}");
        let events = machine.ok(&format!("motherctl events {name}"))?;
        ensure!(events.contains(&format!("{entry}: {action}")), "{events}");
        machine.ok(&format!("motherctl stop {name}"))?;
    }
    machine.eventually("it is reported", START, |machine| {
        let line = status(machine, "reported")?["pressure"][0].as_str().unwrap_or_default().to_owned();
        Ok(line.ends_with(" s ago").then_some(()))
    })?;
    ensure!(machine.ok("motherctl events reported")?.contains(entry), "it is in the events");
    ensure!(status(machine, "reported")?["restarts"] == 0, "a report ends nobody");
    let meek = status(machine, "meek")?;
    ensure!(
        meek["restarts"] == 0 && meek["pressure"][0] == "memory some: 50ms in 1s: kill; never yet",
        "{meek}"
    );
    machine.ok("motherctl stop reported meek")?;
    Ok(())
}

/// What a kernel has no file for is refused where it is written, and nothing runs.
fn what_a_kernel_has_no_file_for_is_told(machine: &mut Machine) -> Result<()> {
    let refused = |machine: &mut Machine, line: &str, what: &str| -> Result<()> {
        let answer = under(machine, &["[cgroup]", line], "echo it-was-started")?;
        ensure!(answer.status == 125 && !answer.output.contains("it-was-started"), "{line}: {answer:?}");
        ensure!(
            answer.output.contains("own.toml:3:") && answer.output.contains(what),
            "{line}: {}",
            answer.output
        );
        Ok(())
    };
    // Debian builds no kernel with CONFIG_BLK_CGROUP_IOLATENCY.
    let latency = "io_latency = [{ device = \"/dev/nvme0n1\", target = \"10ms\" }]";
    refused(machine, latency, "io.latency")?;
    // No machine without memory encryption has a resource of the misc controller.
    refused(machine, "misc = { sev = 4 }", "misc.max")?;
    if machine.kernel() == Kernel::V6_1 {
        refused(machine, "memory_zswap_writeback = false", "memory.zswap.writeback")?;
    }
    Ok(())
}
