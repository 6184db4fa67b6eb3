//! What `base/default` forbids, attempted on both kernels; and each attempt's control: the same act, unconfined,
//! succeeds. What a service needs every day is attempted too, since a sandbox that forbids everything proves nothing.

use anyhow::{Context, Result, bail, ensure};
use e2e::fetch::Kernel;
use e2e::initramfs::{Image, SharedImage};
use e2e::machine::Machine;
use e2e::on_both_kernels;
use e2e::probe::Outcome;
use e2e::system::{nginx_serves, running, under};
use nix::errno::Errno::{self, EACCES, ECONNREFUSED, ENOENT, ENOSYS, EPERM, EROFS, ESRCH};

/// An act of the probe, and the refusals of which any is right: the wall that stands first depends on the kernel.
type Forbidden = (&'static str, &'static [Errno]);

/// What no kernel may let through.
const FILES: &[Forbidden] = &[
    ("read /root/secret", &[EACCES, ENOENT]),
    ("list /root", &[EACCES]),
    ("list /home", &[EACCES]),
    ("read /var/cache/secret", &[EACCES]),
    ("list /var", &[EACCES]),
    ("read /sys/kernel/notes", &[EACCES]),
    ("read /run/secret", &[EACCES, ENOENT]),
    ("write /dev/kmsg", &[EACCES, ENOENT]),
    ("write /etc/hosts", &[EACCES, EROFS]),
    ("write /proc/sys/kernel/core_pattern", &[EACCES, ENOENT, EROFS]),
    ("create /usr/probe", &[EACCES, EROFS]),
    ("create /etc/probe", &[EACCES, EROFS]),
    ("create /dev/probe", &[EACCES, EROFS]),
    ("create /var/cache/probe", &[EACCES, EROFS]),
    ("execute /var/cache/true", &[EACCES]),
    ("chown /etc/hosts", &[EPERM, EROFS]),
    ("mknod /tmp/memory", &[EACCES, EPERM]),
];

const PRIVILEGES: &[Forbidden] = &[
    ("setuid 0", &[EPERM]),
    ("chroot /usr", &[EPERM]),
    ("mount /tmp", &[EPERM]),
    ("unshare user", &[EPERM]),
    ("unshare mount", &[EPERM]),
    ("unshare net", &[EPERM]),
    ("sethostname", &[EPERM]),
    ("map write-execute", &[EACCES, EPERM]),
    ("map execute-later", &[EACCES, EPERM]),
    ("socket netlink", &[EPERM]),
    ("socket packet", &[EPERM]),
];

const CALLS: &[Forbidden] = &[
    ("call add_key", &[EPERM]),
    ("call bpf", &[EPERM]),
    ("call clock_settime", &[EPERM]),
    ("call delete_module", &[EPERM]),
    ("call fsopen", &[EPERM]),
    ("call init_module", &[EPERM]),
    ("call io_uring_setup", &[EPERM, ENOSYS]),
    ("call kexec_load", &[EPERM]),
    ("call keyctl", &[EPERM]),
    ("call open_by_handle_at", &[EPERM]),
    ("call perf_event_open", &[EPERM]),
    ("call process_vm_readv", &[EPERM]),
    ("call ptrace", &[EPERM]),
    ("call reboot", &[EPERM]),
    ("call swapon", &[EPERM]),
    ("call userfaultfd", &[EPERM]),
];

/// What has to work all the same.
const EVERYDAY: &[&str] = &[
    "read /etc/passwd",
    "list /usr/bin",
    "execute /bin/true",
    "create /tmp/probe",
    "write /dev/null",
    "read /dev/urandom",
    "read /proc/self/status",
    "socket unix",
    "socket inet",
    "socket inet6",
    "call getpid",
];

static IMAGE: SharedImage = SharedImage::new("confinement", || {
    let mut image = Image::system()?;
    image.file("/root/secret", 0o644, "secret\n")?;
    image.file("/var/cache/secret", 0o644, "secret\n")?;
    image.file("/var/cache/true", 0o755, "#!/bin/sh\n")?;
    Ok(image)
});

/// Attempts an act under a policy.
fn attempt(machine: &mut Machine, policy: &str, act: &str) -> Result<Outcome> {
    let answer = machine.run(&format!("motherctl run --policy {policy} -- /usr/bin/probe {act}"))?;
    Outcome::read(&answer.output, answer.status).with_context(|| format!("{act} under {policy}"))
}

/// Every act is refused in the sandbox and succeeds outside; all that is wrong is told at once.
fn are_forbidden(machine: &mut Machine, acts: &[Forbidden]) -> Result<()> {
    let mut wrong = Vec::new();
    for (act, refusals) in acts {
        let confined = attempt(machine, "base/default", act)?;
        if !refusals.iter().any(|errno| confined == Outcome::Denied(*errno)) {
            wrong.push(format!("{act} under base/default: {confined}"));
        }
        let control = attempt(machine, "unconfined", act)?;
        if control != Outcome::Allowed {
            wrong.push(format!("control: {act} unconfined: {control}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

on_both_kernels! {
    IMAGE:
    files_outside_of_the_policy_are_out_of_reach
    privileges_and_namespaces_are_out_of_reach
    calls_outside_of_the_policy_do_not_reach_the_kernel
    the_network_and_other_processes_are_out_of_reach
    everyday_acts_work
    denied_calls_reach_the_log_of_the_kernel
    nothing_of_the_caller_leaks_in
    own_ids_names_and_credentials_hold
}

fn files_outside_of_the_policy_are_out_of_reach(machine: &mut Machine) -> Result<()> {
    machine.ok("echo secret >/run/secret")?;
    are_forbidden(machine, FILES)
}

fn privileges_and_namespaces_are_out_of_reach(machine: &mut Machine) -> Result<()> {
    are_forbidden(machine, PRIVILEGES)
}

fn calls_outside_of_the_policy_do_not_reach_the_kernel(machine: &mut Machine) -> Result<()> {
    are_forbidden(machine, CALLS)?;
    // The i386 gate has numbers of its own; whoever comes through it does not come back, or gets nothing.
    let gate = attempt(machine, "base/default", "call-i386 getpid")?;
    let refused = [Outcome::Killed(libc::SIGSYS), Outcome::Denied(EPERM), Outcome::Denied(ENOSYS)];
    ensure!(refused.contains(&gate), "call-i386 getpid under base/default: {gate}");
    ensure!(
        attempt(machine, "unconfined", "call-i386 getpid")? == Outcome::Allowed,
        "control: the kernel has the gate"
    );
    // These kernels refuse x32 by themselves; that the filter does so too is the compiler's unit test.
    ensure!(attempt(machine, "base/default", "call-x32 getpid")? != Outcome::Allowed);
    Ok(())
}

fn the_network_and_other_processes_are_out_of_reach(machine: &mut Machine) -> Result<()> {
    let nginx = running(machine, "nginx")?;
    nginx_serves(machine)?;
    let signal = format!("signal {nginx}");
    ensure!(attempt(machine, "base/default", &signal)? == Outcome::Denied(ESRCH), "another pid namespace");
    ensure!(attempt(machine, "unconfined", &signal)? == Outcome::Allowed, "control: {signal}");
    let see = format!("list /proc/{nginx}");
    ensure!(attempt(machine, "base/default", &see)? == Outcome::Denied(ENOENT), "its own proc");
    ensure!(attempt(machine, "unconfined", &see)? == Outcome::Allowed, "control: {see}");
    // Where Landlock knows ports it says no; before, the network namespace has nobody on that port.
    let refusal = match machine.kernel() {
        Kernel::V6_1 => ECONNREFUSED,
        Kernel::V6_12 => EACCES,
    };
    ensure!(attempt(machine, "base/default", "connect 80")? == Outcome::Denied(refusal), "connect 80");
    ensure!(attempt(machine, "unconfined", "connect 80")? == Outcome::Allowed, "control: connect 80");
    if machine.kernel() == Kernel::V6_12 {
        ensure!(attempt(machine, "base/default", "bind 8080")? == Outcome::Denied(EACCES), "bind 8080");
        ensure!(attempt(machine, "unconfined", "bind 8080")? == Outcome::Allowed, "control: bind 8080");
    }
    Ok(())
}

fn everyday_acts_work(machine: &mut Machine) -> Result<()> {
    for act in EVERYDAY {
        let outcome = attempt(machine, "base/default", act)?;
        ensure!(outcome == Outcome::Allowed, "{act} under base/default: {outcome}");
    }
    Ok(())
}

/// SECCOMP_FILTER_FLAG_LOG: an audit record (type 1326, AUDIT_SECCOMP) of each denial, without any auditd.
fn denied_calls_reach_the_log_of_the_kernel(machine: &mut Machine) -> Result<()> {
    let denied = |machine: &mut Machine, call: &str| -> Result<Vec<String>> {
        let number = sandbox::syscalls::number(call).context("no such call")?;
        let log = machine.ok("dmesg")?;
        let about = |line: &&str| line.contains("type=1326") && line.contains(&format!(" syscall={number} "));
        Ok(log.lines().filter(about).map(str::to_owned).collect())
    };
    ensure!(denied(machine, "add_key")?.is_empty(), "control: nothing before");
    ensure!(attempt(machine, "base/default", "call add_key")? == Outcome::Denied(EPERM), "add_key");
    let lines = denied(machine, "add_key")?;
    ensure!(lines.len() == 1 && lines[0].contains("exe=\"/usr/bin/probe\""), "{lines:?}");
    ensure!(lines[0].contains("code=0x50000"), "SECCOMP_RET_ERRNO: {}", lines[0]);
    // A call that is allowed leaves none, nor does one that is denied by who wants no log.
    ensure!(attempt(machine, "base/default", "call getpid")? == Outcome::Allowed, "getpid");
    ensure!(denied(machine, "getpid")?.is_empty(), "control: an allowed call");
    let quiet = under(machine, &["[seccomp]", "log = false"], "/usr/bin/probe call keyctl")?;
    ensure!(last(&quiet.output) == "denied EPERM", "{}", quiet.output);
    ensure!(denied(machine, "keyctl")?.is_empty(), "control: log = false");
    Ok(())
}

fn nothing_of_the_caller_leaks_in(machine: &mut Machine) -> Result<()> {
    let run = |machine: &mut Machine, policy: &str, command: &str| {
        machine.run(&format!(
            "SECRET=of-the-caller motherctl run --policy {policy} -- {command} 2>/dev/null 9</etc/passwd"
        ))
    };
    let environment = run(machine, "base/default", "/usr/bin/env")?.ok()?;
    ensure!(!environment.contains("of-the-caller"), "{environment}");
    ensure!(environment.lines().any(|line| line == "PATH=/usr/sbin:/usr/bin:/sbin:/bin"), "{environment}");
    let descriptors = run(machine, "base/default", "/bin/ls /proc/self/fd")?.ok()?;
    let beyond: Vec<&str> =
        descriptors.split_whitespace().filter(|fd| !["0", "1", "2"].contains(fd)).collect();
    // ls has one open while it reads the directory.
    ensure!(beyond == ["3"], "descriptors {descriptors}");
    let own = run(machine, "base/default", "/bin/cat /proc/self/status")?.ok()?;
    let field = |name: &str| own.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    ensure!(
        field("CapBnd:") == Some("0000000000000000") && field("CapPrm:") == Some("0000000000000000"),
        "{own}"
    );
    ensure!(field("NoNewPrivs:") == Some("1") && field("Seccomp:") == Some("2"), "{own}");
    ensure!(field("Groups:") == Some("") && field("Umask:") == Some("0077"), "{own}");
    ensure!(field("Uid:").is_some_and(|uids| !uids.split_whitespace().any(|uid| uid == "0")), "{own}");
    Ok(())
}

/// What the command itself said, after what was left out on this machine.
fn last(output: &str) -> &str {
    output.trim().lines().last().unwrap_or_default()
}

fn own_ids_names_and_credentials_hold(machine: &mut Machine) -> Result<()> {
    let script = "id -u; uname -n; cat /run/credentials/key; stat -c %u /etc/passwd; cat /proc/self/uid_map";
    let own = [
        "[namespaces]",
        "user = \"auto\"",
        "hostname = \"inside\"",
        "[credentials]",
        "key = { file = \"/root/secret\" }",
    ];
    let output = under(machine, &own, script)?.ok()?;
    // What was left out is told first.
    let words: Vec<&str> = output.split_whitespace().skip_while(|word| *word != "1000").collect();
    ensure!(words.starts_with(&["1000", "inside", "secret", "65534", "0"]), "{output}");
    ensure!(words.len() == 7 && words[6] == "65536", "{output}");
    let plain = under(machine, &[], script)?.output;
    ensure!(!plain.contains("inside") && !plain.contains("secret\n"), "control: {plain}");

    // These kernels have overlayfs as a module, which the image does not carry: then nothing runs.
    let overlay = "overlay = [{ lower = [\"/etc\"], path = \"/run/etc\", size = \"1M\" }]";
    let refused = under(machine, &["[filesystem]", overlay], "echo ran")?;
    let told = refused.output.contains("own.toml:3:12: mount new: /run/etc: ENODEV");
    ensure!(refused.status == 125 && told, "{}", refused.output);

    // What the older kernel cannot do is refused there, at its place.
    machine.ok("mkdir -p /mnt && mount -t tmpfs idmap /mnt && echo words >/mnt/a && chown 33:33 /mnt/a")?;
    let bind = "bind = [{ from = \"/mnt\", to = \"/tmp/mnt\", \
                idmap = { uid_map = [\"33 77 1\"], gid_map = [\"33 78 1\"] } }]";
    let mapped = under(machine, &["[filesystem]", bind], "stat -c %u:%g /tmp/mnt/a")?;
    let plain = under(
        machine,
        &["[filesystem]", "bind = [{ from = \"/mnt\", to = \"/tmp/mnt\" }]"],
        "stat -c %u:%g /tmp/mnt/a",
    )?;
    machine.ok("umount /mnt")?;
    ensure!(last(&plain.output) == "33:33", "control: {}", plain.output);
    let offset = ["[namespaces]", "time = \"private\"", "time_offset_boottime = \"2h\""];
    let offset = under(machine, &offset, "cat /proc/self/timens_offsets")?;
    match machine.kernel() {
        Kernel::V6_1 => {
            let idmap = &mapped.output;
            ensure!(mapped.status == 125 && idmap.contains("mount_setattr idmap: /mnt: EINVAL"), "{idmap}");
            let time = &offset.output;
            ensure!(offset.status == 125 && time.contains("time offsets need Linux 6.2"), "{time}");
        }
        Kernel::V6_12 => {
            ensure!(last(&mapped.output) == "77:78", "{}", mapped.output);
            let words: Vec<&str> = offset.output.split_whitespace().collect();
            ensure!(words == ["monotonic", "0", "0", "boottime", "7200", "0"], "{}", offset.output);
        }
    }
    Ok(())
}
