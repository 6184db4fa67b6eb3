//! Launches whose launcher does something else meanwhile.

mod inside;

use std::{
    fs::{self, File},
    io::Read,
    os::fd::AsFd,
    sync::atomic::{AtomicU32, Ordering},
};

use inside::{is_root, plan_for};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use sandbox::launch::{Handed, Launch, LaunchFailure, Underway};

#[test]
fn many_are_under_way_at_once_and_each_is_what_was_asked_for() {
    if !is_root() {
        return;
    }
    let plan = plan_for("underway", "");
    let null = File::open("/dev/null").expect("it is there");
    let mut begun = Vec::new();
    for number in 0..24 {
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        // What is handed over goes out of this scope while the child is on its way.
        let argv = ["/bin/sh", "-c", "echo $NUMBER $OWN $$; cat <&7"].map(str::to_owned);
        let environment = [("NUMBER".to_owned(), number.to_string())];
        let (given, mut text) = std::io::pipe().expect("a pipe can be made");
        std::io::Write::write_all(&mut text, format!("given to {number}\n").as_bytes()).expect("it has room");
        let cell = AtomicU32::new(0);
        let request = Launch {
            pid_cell: Some(&cell),
            environment: &environment,
            handed: Handed { at: Some((7, given.as_fd())), own_pid: &["OWN"], ..Handed::default() },
            ..Launch::new(&plan, &argv, [null.as_fd(), writer.as_fd(), writer.as_fd()])
        };
        let underway = Underway::begin(&request).expect("it can be begun");
        begun.push((number, reader, underway, cell.load(Ordering::Acquire)));
    }
    // The last one first.
    while let Some((number, mut reader, underway, pid)) = begun.pop() {
        let launched = underway.launched().expect("it runs");
        assert_eq!(launched.pid, pid, "the cell has its pid");
        let mut output = String::new();
        reader.read_to_string(&mut output).expect("shells write UTF-8 here");
        // PID 1 of its namespace.
        assert_eq!(output, format!("{number} 1 1\ngiven to {number}\n"));
        let ended = waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("it is our child");
        assert!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
    }
}

#[test]
fn who_lets_go_of_one_under_way_takes_nothing_from_it() {
    if !is_root() {
        return;
    }
    let plan = plan_for("underway", "");
    let null = File::open("/dev/null").expect("it is there");
    for _ in 0..20 {
        let (mut reader, writer) = std::io::pipe().expect("a pipe can be made");
        let argv = ["/bin/echo", "it was executed"].map(str::to_owned);
        let cell = AtomicU32::new(0);
        let request = Launch::new(&plan, &argv, [null.as_fd(), writer.as_fd(), writer.as_fd()]);
        let request = Launch { pid_cell: Some(&cell), ..request };
        drop(Underway::begin(&request).expect("it can be begun"));
        drop(writer);
        let mut output = String::new();
        reader.read_to_string(&mut output).expect("it is a text");
        assert_eq!(output, "it was executed\n");
        let pid = Pid::from_raw(cell.load(Ordering::Acquire).cast_signed());
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED).expect("it is our child");
    }
}

#[test]
fn one_that_is_killed_on_its_way_is_waited_for_no_longer() {
    if !is_root() {
        return;
    }
    let plan = plan_for("underway", "");
    let null = File::open("/dev/null").expect("it is there");
    let (mut ended_before, mut executed) = (0, 0);
    for _ in 0..40 {
        let (mut reader, writer) = std::io::pipe().expect("a pipe can be made");
        let argv = ["/bin/sh", "-c", "echo executed; exec sleep 60"].map(str::to_owned);
        let cell = AtomicU32::new(0);
        let request = Launch::new(&plan, &argv, [null.as_fd(), writer.as_fd(), writer.as_fd()]);
        let request = Launch { pid_cell: Some(&cell), ..request };
        let underway = Underway::begin(&request).expect("it can be begun");
        let pid = Pid::from_raw(cell.load(Ordering::Acquire).cast_signed());
        kill(pid, Signal::SIGKILL).expect("it is our child");
        let launched = underway.launched().expect("no step of it failed");
        drop(writer);
        let mut output = String::new();
        reader.read_to_string(&mut output).expect("it is a text");
        let ended = waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("it is our child");
        assert!(matches!(ended, WaitStatus::Signaled(_, Signal::SIGKILL, _)), "{ended:?}");
        *(if output.is_empty() { &mut ended_before } else { &mut executed }) += 1;
    }
    assert!(ended_before > 0, "control: {executed} had come to execve first");
}

#[test]
fn one_that_fails_says_why_and_is_reaped() {
    if !is_root() {
        return;
    }
    let plan = plan_for("underway", "");
    let null = File::open("/dev/null").expect("it is there");
    let argv = ["/usr/bin/no-such-program".to_owned()];
    let request = Launch::new(&plan, &argv, [null.as_fd(); 3]);
    let error = Underway::begin(&request).expect("it can be begun").launched().expect_err("there is none");
    assert_eq!(error.kind(), LaunchFailure::NotFound);
    assert_eq!(error.to_string(), "execve /usr/bin/no-such-program: ENOENT");
    assert!(!std::path::Path::new(&format!("/proc/{}", error.pid())).exists(), "it was reaped");
}

/// The kernel writes the score of a process to all that share its memory, but for one that a vfork waits for.
#[test]
fn what_a_child_sets_of_itself_its_launcher_does_not_get() {
    if !is_root() {
        return;
    }
    const OWN: &str = "/proc/self/oom_score_adj";
    let own = || fs::read_to_string(OWN).expect("it is there").trim().to_owned();
    let nice = || {
        let stat = fs::read_to_string("/proc/self/stat").expect("it is there");
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16).map(str::to_owned))
    };
    let before = (own(), nice());
    let plan = plan_for("underway", "[process]\noom_score_adj = 321\nnice = 7\n");
    let null = File::open("/dev/null").expect("it is there");
    fs::write(OWN, "200").expect("root may");
    for _ in 0..20 {
        let (mut reader, writer) = std::io::pipe().expect("a pipe can be made");
        let argv = ["/bin/sh", "-c", "read score < /proc/self/oom_score_adj; echo $score $(nice)"];
        let argv = argv.map(str::to_owned);
        let request = Launch::new(&plan, &argv, [null.as_fd(), writer.as_fd(), writer.as_fd()]);
        let launched = Underway::begin(&request).expect("it can be begun").launched().expect("it runs");
        drop(writer);
        let mut output = String::new();
        reader.read_to_string(&mut output).expect("it is a text");
        waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("it is our child");
        assert_eq!((output.as_str(), own().as_str()), ("321 7\n", "200"));
    }
    fs::write(OWN, &before.0).expect("root may");
    assert_eq!((own(), nice()), before);
}
