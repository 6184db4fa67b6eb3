//! Descriptors that a service is handed beside the standard three, and the variables that tell it of them.
//!
//! Every test looks from inside, with a shell under a policy; each says what a service without them sees.

mod inside;

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd},
};

use inside::{is_root, plan_for};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use sandbox::launch::{Handed, Launch, LaunchError, launch};

const LISTENING: &str = "echo \"$LISTEN_FDS|$LISTEN_FDNAMES|${LISTEN_PID:-none}|$$\"; ls /proc/self/fd";

fn run(lines: &str, script: &str, handed: Handed<'_>) -> Result<String, LaunchError> {
    let plan = plan_for("handed", lines);
    let (mut reader, writer) = std::io::pipe().expect("a pipe can be made");
    let null = File::options().read(true).write(true).open("/dev/null").expect("it is there");
    let launched = launch(&Launch {
        environment: &[("LISTEN_PID".to_owned(), "12345".to_owned())],
        handed,
        ..Launch::new(
            &plan,
            &["/bin/sh", "-c", script].map(str::to_owned),
            [null.as_fd(), writer.as_fd(), writer.as_fd()],
        )
    })?;
    drop(writer);
    let mut output = String::new();
    reader.read_to_string(&mut output).expect("shells write UTF-8 here");
    waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("it is our child");
    Ok(output)
}

/// Three files whose text is their name.
fn files() -> Vec<(String, File)> {
    let file = |name: &str| {
        let path = inside::scratch("handed").join(name);
        File::create(&path).and_then(|mut file| file.write_all(name.as_bytes())).expect("the folder is ours");
        (name.to_owned(), File::open(&path).expect("it was just made"))
    };
    ["http", "tls", "admin"].map(file).into()
}

#[test]
fn descriptors_come_from_three_on_in_order_with_their_names() {
    if !is_root() {
        return;
    }
    let files = files();
    let listen: Vec<(&str, BorrowedFd<'_>)> =
        files.iter().map(|(name, file)| (name.as_str(), file.as_fd())).collect();
    let handed = Handed { listen: &listen, ..Handed::default() };
    let script = format!("{LISTENING}; cat <&3; cat <&4; cat <&5");
    // In a pid namespace of its own the service is process 1; without one it has the number that everybody sees.
    let own = run("[namespaces]\npid = \"private\"", &script, handed).unwrap();
    assert_eq!(own, "3|http:tls:admin|1|1\n0\n1\n2\n3\n4\n5\n6\nhttptlsadmin", "6 is ls's own");
    let files = self::files();
    let listen: Vec<(&str, BorrowedFd<'_>)> =
        files.iter().map(|(name, file)| (name.as_str(), file.as_fd())).collect();
    let shared =
        run("[namespaces]\npid = \"host\"", LISTENING, Handed { listen: &listen, ..handed }).unwrap();
    let first = shared.lines().next().unwrap();
    let (pid, shell) = first.trim_start_matches("3|http:tls:admin|").split_once('|').unwrap();
    assert_eq!(pid, shell);
    assert_ne!(pid, "1");
    // The control: what is not handed on is not there, and nothing tells of it but what the caller wrote.
    let none = run("[namespaces]\npid = \"private\"", LISTENING, Handed::default()).unwrap();
    assert_eq!(none, "||12345|1\n0\n1\n2\n3\n", "3 is ls's own");
}

#[test]
fn a_descriptor_at_a_number_of_its_own_is_told_of_by_nobody() {
    if !is_root() {
        return;
    }
    let (mut reader, writer) = std::io::pipe().unwrap();
    let handed = Handed { at: Some((9, writer.as_fd())), own_pid: &["WATCHDOG_PID"], ..Handed::default() };
    let output =
        run("[namespaces]\npid = \"private\"", "echo ready >&9; echo \"$LISTEN_FDS|$WATCHDOG_PID\"", handed)
            .unwrap();
    assert_eq!(output, "|1\n");
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said, "ready\n");
}

#[test]
fn two_things_at_one_number_are_refused() {
    if !is_root() {
        return;
    }
    let null = File::open("/dev/null").unwrap();
    let listen = [("http", null.as_fd())];
    let at = |number| Handed { listen: &listen, at: Some((number, null.as_fd())), ..Handed::default() };
    let error = run("", "true", at(3)).unwrap_err();
    assert_eq!(error.to_string(), "descriptor 3 is one of those that the service is passed: EINVAL");
    assert_eq!(run("", "echo $LISTEN_FDS", at(4)).unwrap(), "1\n");
    let colon = [("a:b", null.as_fd())];
    assert!(run("", "true", Handed { listen: &colon, ..Handed::default() }).is_err());
}
