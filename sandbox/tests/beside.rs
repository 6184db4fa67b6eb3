//! A process beside one that runs sees what that one sees, and may do what that one may.

mod inside;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::AsFd,
    sync::Arc,
};

use inside::{is_root, plan_for};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use sandbox::{
    Plan,
    beside::launch_beside,
    launch::{Launch, Launched, launch},
};

/// A shell in a sandbox, which waits until it is dropped.
struct Service {
    plan: Arc<Plan>,
    launched: Launched,
    stdin: Option<std::io::PipeWriter>,
}

fn start(lines: &str, script: &str) -> Service {
    let plan = plan_for("beside", lines);
    let (reader, writer) = std::io::pipe().expect("a step of this test");
    let (stdin, keep) = std::io::pipe().expect("a step of this test");
    let argv = ["/bin/sh", "-c", &format!("{script}; echo up; read line")].map(str::to_owned);
    let launched = launch(&Launch::new(&plan, &argv, [stdin.as_fd(), writer.as_fd(), writer.as_fd()]))
        .expect("a step of this test");
    drop(writer);
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).expect("a step of this test");
    assert_eq!(line, "up\n");
    Service { plan, launched, stdin: Some(keep) }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stdin.take();
        waitid(Id::PIDFd(self.launched.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("a step of this test");
    }
}

/// As the script [`NAMESPACES`] prints them.
fn namespaces_of(pid: u32) -> String {
    let link = |kind| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a step of this test");
    ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"]
        .map(|kind| format!("{}\n", link(kind).display()))
        .concat()
}

/// What a script prints beside the service; `None`: by itself under the same policy.
fn output(plan: &Arc<Plan>, service: Option<&Service>, script: &str) -> String {
    let (mut reader, writer) = std::io::pipe().expect("a step of this test");
    let null = File::options().read(true).write(true).open("/dev/null").expect("a step of this test");
    let argv = ["/bin/sh", "-c", script].map(str::to_owned);
    let request = Launch::new(plan, &argv, [null.as_fd(), writer.as_fd(), writer.as_fd()]);
    let launched = match service {
        Some(service) => launch_beside(service.launched.pidfd.as_fd(), &request),
        None => launch(&request),
    };
    let launched = launched.expect("a step of this test");
    drop(writer);
    let mut output = String::new();
    reader.read_to_string(&mut output).expect("a step of this test");
    waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("a step of this test");
    output
}

const NAMESPACES: &str = "for kind in mnt pid net ipc uts cgroup user; do readlink /proc/self/ns/$kind; done";

#[test]
fn it_is_in_the_namespaces_of_the_service_and_sees_its_files_and_processes() {
    if !is_root() {
        return;
    }
    let service = start("", "echo secret >/tmp/private");
    let script = "cat /tmp/private; kill -0 1 && echo there; grep -E 'NoNewPrivs|Seccomp:|CapEff|CapBnd' /proc/self/status";
    let beside = output(&service.plan, Some(&service), script);
    assert!(beside.starts_with("secret\nthere\n"), "{beside}");
    // It is confined as the service is, by the oracle of a process launched by itself.
    let alone = output(&service.plan, None, script);
    let confinement = |text: &str| {
        text.lines()
            .filter(|line| line.contains(':') && !line.contains("/tmp"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(confinement(&beside), confinement(&alone));
    assert_eq!(confinement(&beside).len(), 4, "{beside}");
    // The control: by itself it has its own /tmp.
    assert!(alone.contains("/tmp/private"), "{alone}");
    // Who launches it is where it was.
    let own = std::fs::read_link("/proc/thread-self/ns/pid_for_children").expect("a step of this test");
    assert_eq!(own, std::fs::read_link("/proc/thread-self/ns/pid").expect("a step of this test"));
    let pid = service.launched.pid;
    let of_service = namespaces_of(pid);
    assert_eq!(output(&service.plan, Some(&service), NAMESPACES), of_service);
    assert_ne!(output(&service.plan, None, NAMESPACES), of_service);
}

#[test]
fn it_enters_a_user_namespace_with_what_that_owns() {
    if !is_root() {
        return;
    }
    let service =
        start("[namespaces]\nuser = \"auto\"\n[process]\nuser = \"root\"\ngroup = \"root\"", "true");
    let pid = service.launched.pid;
    let of_service = namespaces_of(pid);
    assert_eq!(output(&service.plan, Some(&service), NAMESPACES), of_service);
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("a step of this test");
    assert_eq!(output(&service.plan, Some(&service), "cat /proc/self/uid_map; id -u"), format!("{map}0\n"));
}

#[test]
fn beside_who_has_ended_nothing_runs() {
    if !is_root() {
        return;
    }
    let service = start("", "true");
    let plan = service.plan.clone();
    let pidfd = service.launched.pidfd.try_clone().expect("a step of this test");
    drop(service);
    let null = File::options().read(true).write(true).open("/dev/null").expect("a step of this test");
    let error =
        launch_beside(pidfd.as_fd(), &Launch::new(&plan, &["/bin/true".to_owned()], [null.as_fd(); 3]))
            .unwrap_err();
    assert_eq!(error.errno(), nix::errno::Errno::ESRCH);
}
