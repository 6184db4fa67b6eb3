//! Attacks on other services and on what counts and ends processes.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno::{
    self, EACCES, EAGAIN, ECONNREFUSED, EFBIG, ENETUNREACH, ENOENT, ENOSPC, EPERM, EROFS, ESRCH,
};

use super::lab::Lab;
use super::{Verdict, attacks};
use crate::probe::Outcome;

attacks! {
    ptrace_between_services_of_one_uid [20]
        "a pid namespace each, the filter, and Landlock where both are open";
    credentials_of_a_neighbour [36]
        "a mount namespace and a user each; mode 0400 on a ramfs";
    double_fork_out_of_supervision [30]
        "the cgroup: cgroup.kill ends whatever was born in it";
    fork_bomb [31]
        "pids.max, held in the kernel before the first instruction";
    file_flood_in_a_tmpfs [31]
        "size and nr_inodes of every tmpfs";
    cgroup_escape_and_limits_raised [32]
        "a cgroup namespace whose tree is read-only";
    frozen_cgroup_that_does_not_end [33]
        "cgroup.kill wakes what is frozen";
    landlock_gap_metadata [37]
        "mounts: what is hidden is not there";
    landlock_gap_change_of_owner_mode_and_attributes [37]
        "read-only mounts, users of one's own, no capability";
    landlock_gap_pathname_socket [37]
        "a /run, /tmp and /dev/shm of one's own";
    landlock_gap_udp_raw_and_listen [37]
        "a network namespace of one's own; the filter for families";
    landlock_gap_shared_memory_and_signals [37]
        "IPC and pid namespaces, Landlock scopes";
}

fn ptrace_between_services_of_one_uid(lab: &Lab) -> Result<Verdict> {
    let same = "[process]\nuser = 65534\ngroup = 65534\n";
    let mut victim = lab.start(same, &["stay"])?;
    ensure!(victim.line()? == "here", "the victim runs");
    let acts = ["trace", "read-memory-of", "take-descriptor-of"].map(|act| format!("{act} {}", victim.pid()));
    let memory = format!("open-read-write /proc/{}/mem", victim.pid());
    let gone: &[Errno] = &[EPERM, ESRCH, ENOENT];
    let mut acts: Vec<(&str, &[Errno])> = acts.iter().map(|act| (act.as_str(), gone)).collect();
    acts.push((&memory, &[ENOENT, EACCES]));
    lab.resists(same, &acts)?;
    // In one pid namespace, with the filter open and /proc writable: Landlock is what is left.
    let near = format!(
        "{same}[namespaces]\npid = \"host\"\n[filesystem]\nproc = \"full\"\n[landlock]\nwrite = {{ add = [\"/proc\"] }}\n\
         [seccomp]\nallow = {{ add = [\"@debug\"] }}\ndeny = {{ remove = [\"@debug\"] }}\n"
    );
    let denied: &[Errno] = &[EPERM, EACCES];
    let acts: Vec<(&str, &[Errno])> = acts.iter().map(|(act, _)| (*act, denied)).collect();
    let verdict = lab.resists(&near, &acts)?;
    victim.tell("call getpid\n")?;
    ensure!(victim.line()? == "allowed", "the victim goes on");
    Ok(verdict)
}

fn credentials_of_a_neighbour(lab: &Lab) -> Result<Verdict> {
    let key = lab.file("key", "secret\n")?;
    lab.mode("key", 0o600)?;
    let sections = format!("[credentials]\nkey = {{ file = \"{key}\" }}\n");
    let mut holder = lab.start(&sections, &["stay"])?;
    ensure!(holder.line()? == "here", "the holder runs");
    holder.tell("read /run/credentials/key\n")?;
    ensure!(holder.line()? == "allowed", "control: the holder reads it");
    let root = format!("read /proc/{}/root/run/credentials/key", holder.pid());
    let near = "[namespaces]\npid = \"host\"\n[filesystem]\nproc = \"full\"\n[process]\nuser = 65534\n";
    let verdict = lab.resists(near, &[(&root, &[EACCES, EPERM, ENOENT])])?;
    let environment = std::fs::read(format!("/proc/{}/environ", holder.pid()))?;
    ensure!(!String::from_utf8_lossy(&environment).contains("secret"), "it is in the environment");
    Ok(verdict)
}

/// Waits until a cgroup has nobody in it.
fn becomes_empty(cgroup: &sandbox::cgroup::Cgroup) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while cgroup.populated()? {
        ensure!(Instant::now() < deadline, "{} is not empty: {:?}", cgroup.path().display(), cgroup.procs());
    }
    Ok(())
}

fn double_fork_out_of_supervision(lab: &Lab) -> Result<Verdict> {
    // Without a pid namespace the death of the first process ends nobody.
    let sections = "[namespaces]\npid = \"host\"\n";
    let Some(cgroup) = lab.cgroup("double-fork", sections)? else {
        return Ok(Verdict::NotHere("no cgroup2 is mounted".to_owned()));
    };
    let mut service = lab.start_in(sections, &["daemonise"], Some(&cgroup.0), None)?;
    // Both write to one output: whichever comes first, one line says who was started.
    let lines = [service.line()?, service.line()?];
    let child = lines.iter().find(|line| line.starts_with("started ")).context("nobody was started")?;
    let child: u32 = child.strip_prefix("started ").with_context(|| child.clone())?.parse()?;
    let procs = cgroup.0.procs()?;
    ensure!(procs.contains(&service.pid()) && procs.contains(&child), "both are in it: {procs:?}, {child}");
    // Control: ending the process that was started leaves the other.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(service.pid().cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )?;
    nix::sys::wait::waitpid(
        nix::unistd::Pid::from_raw(service.pid().cast_signed()),
        Some(nix::sys::wait::WaitPidFlag::WNOWAIT | nix::sys::wait::WaitPidFlag::WEXITED),
    )
    .or_else(|_| {
        nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(service.pid().cast_signed())),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        )
    })?;
    ensure!(cgroup.0.procs()?.contains(&child), "control: {child} goes on");
    cgroup.0.kill()?;
    drop(service);
    becomes_empty(&cgroup.0)?;
    Ok(Verdict::Resisted)
}

fn fork_bomb(lab: &Lab) -> Result<Verdict> {
    let controllers = &lab.kernel().controllers;
    if !controllers.contains("pids") {
        return Ok(Verdict::NotHere("the cgroup2 tree has no pids controller".to_owned()));
    }
    let sections = "[cgroup]\npids_max = 8\n";
    let cgroup = lab.cgroup("bomb", sections)?.context("a controller is in a tree")?;
    let said = lab.start_in(sections, &["fork", "40"], Some(&cgroup.0), None)?.end()?;
    let outcome = said.outcome()?;
    ensure!(outcome == Outcome::Denied(EAGAIN), "{outcome}");
    drop(cgroup);
    let sections = "[cgroup]\npids_max = 64\n";
    let cgroup = lab.cgroup("control", sections)?.context("a controller is in a tree")?;
    let free = lab.start_in(sections, &["fork", "40"], Some(&cgroup.0), None)?.end()?.outcome()?;
    ensure!(free == Outcome::Allowed, "control: with a higher limit: {free}");
    Ok(Verdict::Resisted)
}

fn file_flood_in_a_tmpfs(lab: &Lab) -> Result<Verdict> {
    let sections = "[filesystem]\ntmpfs = [{ path = \"/tmp\", size = \"2M\", mode = \"1777\", inodes = 100 }, \
        { path = \"/run\", size = \"1M\", mode = \"0755\" }]\n";
    lab.resists(sections, &[("fill /tmp 200", &[ENOSPC]), ("fill-bytes /tmp/x 4", &[ENOSPC, EFBIG])])?;
    for everyday in ["fill /tmp 50", "fill-bytes /tmp/x 1"] {
        let answer = lab.outcome(sections, everyday)?;
        ensure!(answer == Outcome::Allowed, "control: {everyday}: {answer}");
    }
    // What comes with /dev has limits too.
    lab.resists(
        "[landlock]\nwrite = { add = [\"/dev/shm\"] }\n",
        &[("fill-bytes /dev/shm/x 100", &[ENOSPC, EFBIG])],
    )
}

fn cgroup_escape_and_limits_raised(lab: &Lab) -> Result<Verdict> {
    let sections =
        "[process]\nuser = \"root\"\n[landlock]\nread = { add = [\"/sys\"] }\nwrite = { add = [\"/sys\"] }\n";
    let Some(cgroup) = lab.cgroup("escape", sections)? else {
        return Ok(Verdict::NotHere("no cgroup2 is mounted".to_owned()));
    };
    let root = lab.kernel().cgroup_root.clone().context("it is mounted")?;
    let refusals: &[Errno] = &[EROFS, EACCES, ENOENT, EPERM];
    for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.kill", "memory.max", "release_agent"] {
        let inside = format!("write /sys/fs/cgroup/{file}");
        let answer = lab.start_in(sections, &inside.split(' ').collect::<Vec<_>>(), Some(&cgroup.0), None)?;
        let answer = answer.end()?.outcome()?;
        ensure!(refusals.iter().any(|errno| answer == Outcome::Denied(*errno)), "{inside}: {answer}");
    }
    let outside = format!("write {}", cgroup.0.path().join("cgroup.procs").display());
    let answer = lab.outcome(sections, &outside)?;
    ensure!(refusals.iter().any(|errno| answer == Outcome::Denied(*errno)), "{outside}: {answer}");
    let control = lab.control(&outside)?;
    ensure!(control == Outcome::Allowed, "control: {outside}: {control}");
    // What it sees is its own cgroup, as the root.
    let own = lab.start_in(sections, &["show", "/proc/self/cgroup"], Some(&cgroup.0), None)?.end()?.ok()?;
    let line = own.lines().find(|line| line.starts_with("0::")).context("in no cgroup2")?;
    ensure!(line == "0::/", "it sees {line}");
    let control = lab.unconfined(&["show", "/proc/self/cgroup"])?.ok()?;
    ensure!(root.exists() && control.contains("0::/"), "control: {control}");
    Ok(Verdict::Resisted)
}

fn frozen_cgroup_that_does_not_end(lab: &Lab) -> Result<Verdict> {
    let Some(cgroup) = lab.cgroup("frozen", "")? else {
        return Ok(Verdict::NotHere("no cgroup2 is mounted".to_owned()));
    };
    let mut service = lab.start_in("", &["stay"], Some(&cgroup.0), None)?;
    ensure!(service.line()? == "here", "it runs");
    cgroup.write("cgroup.freeze", "1")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !cgroup.0.read("cgroup.events")?.contains("frozen 1") {
        ensure!(Instant::now() < deadline, "it does not freeze");
    }
    // Control: a signal that it would die of does not reach it.
    let pid = nix::unistd::Pid::from_raw(service.pid().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    ensure!(cgroup.0.populated()?, "control: frozen, it is not ended by SIGTERM");
    cgroup.0.kill()?;
    drop(service);
    becomes_empty(&cgroup.0)?;
    Ok(Verdict::Resisted)
}

fn landlock_gap_metadata(lab: &Lab) -> Result<Verdict> {
    let folder = lab.folder("private")?;
    let file = lab.file("private/file", "text")?;
    std::os::unix::fs::symlink("/etc", format!("{folder}/link"))?;
    let sections = format!("[filesystem]\nhidden = {{ add = [\"{folder}\"] }}\n");
    let gone: &[Errno] = &[ENOENT, EACCES];
    let acts = [
        format!("stat {file}"),
        format!("enter {folder}"),
        format!("read-link {folder}/link"),
        format!("open {file}"),
    ];
    let acts: Vec<(&str, &[Errno])> = acts.iter().map(|act| (act.as_str(), gone)).collect();
    lab.resists(&sections, &acts)?;
    lab.resists("", &[("enter /root", &[EACCES])])
}

fn landlock_gap_change_of_owner_mode_and_attributes(lab: &Lab) -> Result<Verdict> {
    let file = lab.file("file", "text")?;
    let refusals: &[Errno] = &[EROFS, EPERM, EACCES];
    let acts = ["chmod", "touch", "chown", "set-attribute"].map(|act| format!("{act} {file}"));
    let acts: Vec<(&str, &[Errno])> = acts.iter().map(|act| (act.as_str(), refusals)).collect();
    lab.resists("", &acts)?;
    lab.resists("[process]\nuser = \"root\"\n", &acts)
}

fn landlock_gap_pathname_socket(lab: &Lab) -> Result<Verdict> {
    let places =
        ["/run", "/tmp", "/dev/shm"].map(|place| format!("{place}/motherd-attack-{}", std::process::id()));
    let mut listeners = Vec::new();
    for path in &places {
        listeners.push(UnixListener::bind(path).with_context(|| path.clone())?);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    }
    let acts = places.each_ref().map(|path| format!("unix-connect {path}"));
    let acts: Vec<(&str, &[Errno])> = acts.iter().map(|act| (act.as_str(), &[ENOENT][..])).collect();
    let verdict = lab.resists("", &acts);
    for path in &places {
        std::fs::remove_file(path)?;
    }
    verdict
}

fn landlock_gap_udp_raw_and_listen(lab: &Lab) -> Result<Verdict> {
    // Loopback alone is up in its network; the host's own port is not there.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let act = format!("udp-send {}", socket.local_addr()?);
    lab.outcome("", &act)?;
    socket.set_nonblocking(true)?;
    ensure!(socket.recv(&mut [0; 8]).is_err(), "a datagram came out of the sandbox");
    socket.set_nonblocking(false)?;
    ensure!(lab.control(&act)? == Outcome::Allowed, "control: {act}");
    ensure!(socket.recv(&mut [0; 8])? == 1, "control: a datagram of an unconfined process comes");
    let beyond = lab.outcome("", "udp-send 192.0.2.1:9")?;
    ensure!(beyond == Outcome::Denied(ENETUNREACH), "it has no way out: {beyond}");
    let verdict = lab.resists(
        "",
        &[("raw-socket", &[EPERM]), ("socket packet", &[EPERM]), ("socket netlink", &[EPERM])],
    )?;
    // It listens in a network of its own, where nobody is.
    let seen = lab.confined("", &["show", "/proc/self/net/dev"])?.ok()?;
    ensure!(seen.lines().filter(|line| line.contains(':')).count() == 1 && seen.contains("lo:"), "{seen}");
    Ok(verdict)
}

fn landlock_gap_shared_memory_and_signals(lab: &Lab) -> Result<Verdict> {
    let key = 0x6d6f_0000 + std::process::id() % 0xffff;
    let made = nix::libc::IPC_CREAT | 0o777;
    let segment = super::sys::call(
        libc::SYS_shmget,
        &mut [
            super::sys::Argument::Number(key.into()),
            super::sys::Argument::Number(4096),
            super::sys::Argument::Number(made.cast_unsigned().into()),
        ],
    )?;
    let name = format!("motherd-attack-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    let near = "[namespaces]\nnet = \"host\"\npid = \"host\"\n[process]\nuser = \"root\"\n";
    let shared = format!("shared-memory {key}");
    let connect = format!("abstract-connect {name}");
    let signal = format!("signal {}", std::process::id());
    let verdict =
        lab.resists("", &[(&shared, &[ENOENT]), (&connect, &[ECONNREFUSED, EPERM]), (&signal, &[ESRCH])]);
    // Where network and processes are the host's, scopes say no, on kernels that have them.
    let scoped = match lab.kernel().landlock.0 {
        6.. => lab.resists(near, &[(&connect, &[EPERM]), (&signal, &[EPERM])]).map(drop),
        _ => Ok(()),
    };
    super::sys::call(
        libc::SYS_shmctl,
        &mut [
            super::sys::Argument::Number(segment.cast_unsigned()),
            super::sys::Argument::Number(0), // IPC_RMID
            super::sys::Argument::Number(0),
        ],
    )?;
    scoped?;
    verdict
}
