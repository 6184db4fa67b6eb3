//! What a reaper around one command is expected to do, as questions with one right answer each: the documented behaviour
//! of tini (`-g`, `-s`) and dumb-init (`--single-child`), restated. `tests/command.rs` puts them to `initldr -- COMMAND`,
//! and `bin/reapers.rs` to all of them.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::pty::openpty;

use crate::witness::{self, Case, Reaper, SOON, code};

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// As a sentence about a reaper.
    pub says: &'static str,
    /// Puts it to a reaper that is PID 1, or is not; the answer in a few words.
    pub ask: fn(&Reaper, bool) -> Result<String>,
    /// The right one.
    pub expected: &'static str,
    /// It is asked only of who signals the whole group, or only of who does not.
    pub group: Option<bool>,
}

const fn question(
    says: &'static str,
    ask: fn(&Reaper, bool) -> Result<String>,
    expected: &'static str,
) -> Question {
    Question { says, ask, expected, group: None }
}

/// All of them.
pub const QUESTIONS: [Question; 19] = [
    question("exits with each of the 256 statuses of its command", statuses, "each"),
    question("exits with 128 and the signal that ended its command", ending_signals, "each"),
    question(
        "exits with 127 where there is no such command, with 126 where it cannot be executed",
        not_run,
        "127 127 126",
    ),
    question("looks for a command without a slash in PATH", in_path, "found"),
    question("passes every signal on, but KILL, STOP and CHLD", forwarding, "each"),
    Question { group: Some(false), ..question("signals the command alone", to_whom, "command") },
    Question {
        group: Some(true),
        ..question("signals the command's whole process group", to_whom, "command and child")
    },
    question("ends by SIGTERM if its command does", terminated, "143"),
    question("goes on with a command that was stopped and is continued", continued, "goes on"),
    question("reaps 300 orphans", orphans, "none is left"),
    question("is the parent of what loses its own", adoption, "parent"),
    question("ends what its command leaves behind, gently", left_behind, "ended by SIGTERM"),
    question(
        "kills what its command leaves behind and does not hear SIGTERM, forty generations deep",
        left_deaf,
        "killed",
    ),
    question(
        "starts its command with no signal blocked, and ignored ones ignored",
        dispositions,
        "blocked 0, SIGHUP ignored",
    ),
    question("knows the status though SIGCHLD was ignored when it was started", child_ignored, "7"),
    question("hands descriptors, folder, umask and environment on", handed_on, "as given"),
    question("gives its command the terminal, and Ctrl-C to it alone", terminal, "foreground, SIGINT once"),
    question("stops with its command at Ctrl-Z, and continues it", job_control, "stopped, continued"),
    question("gives the terminal back", terminal_back, "read"),
];

fn status(reaper: &Reaper, as_pid_1: bool, command: &[&str]) -> Result<ExitStatus> {
    let mut process = reaper.command(as_pid_1, command);
    process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = process.spawn()?;
    let end = Instant::now() + SOON;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            bail!("{command:?} did not end");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn statuses(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    // Making a namespace costs more than the rest: as PID 1 those are asked that mean something to somebody.
    let asked: Vec<i32> =
        if as_pid_1 { vec![0, 1, 2, 77, 125, 126, 127, 128, 143, 255] } else { (0..=255).collect() };
    let mut wrong = Vec::new();
    for number in asked {
        let found = code(status(reaper, as_pid_1, &["/bin/sh", "-c", &format!("exit {number}")])?);
        if found != number {
            wrong.push(format!("{number}: {found}"));
        }
    }
    Ok(all_but(&wrong))
}

fn ending_signals(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let fatal = (1..=64).filter(|number| ![17, 18, 19, 20, 21, 22, 23, 28, 32, 33].contains(number));
    let mut wrong = Vec::new();
    for number in fatal.filter(|number| !as_pid_1 || [1, 6, 9, 11, 15, 64].contains(number)) {
        let script = format!("ulimit -c 0; kill -{number} $$");
        let found = code(status(reaper, as_pid_1, &["/bin/sh", "-c", &script])?);
        if found != 128 + number {
            wrong.push(format!("{number}: {found}"));
        }
    }
    Ok(all_but(&wrong))
}

fn not_run(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let of = |command: &str| Ok::<_, anyhow::Error>(code(status(reaper, as_pid_1, &[command])?).to_string());
    Ok([of("no-such-command")?, of("/no/such/command")?, of("/etc/passwd")?].join(" "))
}

fn in_path(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let found = code(status(reaper, as_pid_1, &["true"])?);
    Ok(if found == 0 { "found".to_owned() } else { found.to_string() })
}

fn forwarding(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let mut missing = Vec::new();
    let mut case = Case::start(reaper, as_pid_1)?;
    for number in (1..=64).filter(|number| ![9, 17, 19].contains(number)) {
        case.signal(number)?;
        // initldr has all the time that it may need; who does not pass a signal on shall not cost a minute of waiting.
        let limit = if reaper.name.starts_with("initldr") { SOON } else { Duration::from_millis(700) };
        let heard = case.witness.signal_within(limit);
        if heard.ok().flatten() != u32::try_from(number).ok() {
            missing.push(number.to_string());
            case = Case::start(reaper, as_pid_1)?;
        }
    }
    Ok(all_but(&missing))
}

fn to_whom(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let mut case = Case::start(reaper, as_pid_1)?;
    let (program, socket) = (witness::program()?, case.socket());
    let start = format!("shell {} {} >/dev/null 2>&1 &", program.display(), socket.display());
    ensure!(case.witness.ask(&start)?.starts_with('0'));
    let mut child = case.another()?;
    case.signal(libc::SIGUSR1)?;
    let usr1 = u32::try_from(libc::SIGUSR1)?;
    ensure!(case.witness.signal_within(SOON)? == Some(usr1), "the command hears it");
    // Sent after that one and to the child itself: where it comes first, the other never does.
    case.witness.tell(&format!("shell kill -USR2 {}", child.of("pid")?))?;
    let heard = child.signal_within(SOON)?.context("the child hears nothing")?;
    Ok(if heard == usr1 { "command and child" } else { "command" }.to_owned())
}

fn terminated(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let mut case = Case::start_with(reaper, as_pid_1, &["plain"], |_| {})?;
    case.signal(libc::SIGTERM)?;
    Ok(case.ended()?.to_string())
}

fn continued(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let mut case = Case::start_with(reaper, as_pid_1, &["plain"], |_| {})?;
    let command = case.children()?.first().context("it has a child")?.0;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(command), nix::sys::signal::Signal::SIGSTOP)?;
    eventually("it is stopped", || Ok(case.children()?.first().is_some_and(|(_, state)| *state == 'T')))?;
    case.signal(libc::SIGCONT)?;
    case.witness.ask("pid")?;
    Ok(if case.state()? == 'T' { "is stopped itself".to_owned() } else { "goes on".to_owned() })
}

fn orphans(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let mut case = Case::start(reaper, as_pid_1)?;
    let command = case.children()?.first().context("it has a child")?.0;
    case.witness.ask("shell i=0; while [ $i -lt 300 ]; do (exit 0 & ); i=$((i+1)); done")?;
    let reaped =
        eventually("they are reaped", || Ok(case.children()?.iter().all(|(child, _)| *child == command)));
    let zombies = case.children()?.iter().filter(|(_, state)| *state == 'Z').count();
    Ok(if reaped.is_ok() { "none is left".to_owned() } else { format!("{zombies} zombies") })
}

fn adoption(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let mut case = Case::start(reaper, as_pid_1)?;
    let command = case.children()?.first().context("it has a child")?.0;
    // Its own parent ends before the answer comes.
    case.witness.ask("shell (sleep 1000 >/dev/null 2>&1 & )")?;
    let sleeps = case.children()?.into_iter().find(|(child, _)| *child != command);
    Ok(if sleeps.is_some() { "parent" } else { "somebody else is" }.to_owned())
}

fn left_behind(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let script = "exec sh -c 'trap \"echo term >LEFT.heard; exit 0\" TERM; echo up >LEFT; while :; do sleep 0.05; done'";
    leave(reaper, as_pid_1, script).map(|(alive, heard)| match (alive, heard) {
        (true, _) => "it lives on".to_owned(),
        (false, true) => "ended by SIGTERM".to_owned(),
        (false, false) => "killed".to_owned(),
    })
}

/// The last of forty, each the parent of the next, none of which hears SIGTERM.
fn left_deaf(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let script = "trap '' TERM; if [ $1 -gt 1 ]; then sh $0 $(($1-1)) & wait; exit; fi; \
                  exec sh -c 'echo up >LEFT; while :; do sleep 0.05; done'";
    leave(reaper, as_pid_1, script)
        .map(|(alive, _)| if alive { "it lives on".to_owned() } else { "killed".to_owned() })
}

/// Has the command leave behind what runs this script with the argument 40, and exit. Whether the process lives that has the
/// file LEFT in its command line, which it made, when the reaper has ended, and whether it heard SIGTERM. It is ended here then.
fn leave(reaper: &Reaper, as_pid_1: bool, script: &str) -> Result<(bool, bool)> {
    let mut case = Case::start(reaper, as_pid_1)?;
    let file = case.socket().with_extension("left");
    let path = file.display();
    let script_file = file.with_extension("sh");
    fs::write(&script_file, script.replace("LEFT", &path.to_string()))?;
    case.witness.ask(&format!("shell (cd / && exec sh {} 40 >/dev/null 2>&1 & )", script_file.display()))?;
    eventually("it is there", || Ok(file.exists()))?;
    let pid = find(&file)?;
    case.witness.tell("exit 0")?;
    case.ended()?;
    let alive = Path::new(&format!("/proc/{pid}")).exists();
    if alive {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    }
    let heard = Path::new(&format!("{path}.heard")).exists();
    Ok((alive, heard))
}

/// The process, as this host sees it, whose command line has this path in it.
fn find(path: &Path) -> Result<i32> {
    let text = path.to_str().context("UTF-8")?;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command.starts_with(b"sh\0") && String::from_utf8_lossy(&command).contains(text) {
            return Ok(pid);
        }
    }
    bail!("no process has {text} in its command line")
}

fn dispositions(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let case = Case::start_with(reaper, as_pid_1, &[], |command| {
        witness::start_with_signals(command, libc::SIGHUP, libc::SIGUSR1);
    })?;
    let blocked = u64::from_str_radix(case.witness.of("blocked")?, 16)?;
    let ignored = u64::from_str_radix(case.witness.of("ignored")?, 16)?;
    Ok(format!("blocked {blocked:x}, SIGHUP {}", if ignored & 1 == 1 { "ignored" } else { "not ignored" }))
}

fn child_ignored(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let mut case = Case::start_with(reaper, as_pid_1, &[], |command| {
        // unshare(1) itself waits for a child.
        witness::start_with_signals(command, if as_pid_1 { 0 } else { libc::SIGCHLD }, 0);
    })?;
    case.witness.tell("exit 7")?;
    Ok(case.ended()?.to_string())
}

fn handed_on(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let script = "cd \"$1\" && umask 027 && exec 9</dev/zero && export HANDED=on && shift && exec \"$@\"";
    let inner = "echo $(readlink /proc/self/fd/9) $(pwd) $(umask) $HANDED";
    let words = reaper.command(as_pid_1, &["/bin/sh", "-c", inner]);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh", "/usr/share"]).arg(words.get_program()).args(words.get_args());
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(if text == "/dev/zero /usr/share 0027 on" { "as given".to_owned() } else { text })
}

fn terminal(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    let (mut master, slave) = pty()?;
    let mut case =
        Case::start_with(reaper, as_pid_1, &[], |command| witness::start_on_terminal(command, slave))?;
    let (group, foreground) = (case.witness.of("pgid")?, case.witness.of("tpgid")?);
    let place = if group == foreground { "foreground" } else { "background" };
    master.write_all(b"\x03")?;
    let mut count = 0;
    let limit = if place == "foreground" { SOON } else { Duration::from_secs(1) };
    if case.witness.signal_within(limit)? == Some(2) {
        count = 1;
        // What is asked after it is answered after it.
        case.witness.tell("pid")?;
        while case.witness.hear()? == "signal 2" {
            count += 1;
        }
    }
    Ok(match count {
        0 => format!("{place}, no SIGINT"),
        1 => format!("{place}, SIGINT once"),
        more => format!("{place}, SIGINT {more} times"),
    })
}

fn job_control(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    if as_pid_1 {
        return Ok("stopped, continued".to_owned()); // there is no shell above it that could see it stop
    }
    let (mut master, slave) = pty()?;
    // A shell with job control is what sees it: with -m each job is a group of its own, and one of them the foreground's.
    let log = std::env::temp_dir().join(format!("job-control-{}-{}", std::process::id(), reaper.words.len()));
    let path = log.display();
    let script = format!("exec 9>{path}; \"$@\"; echo status $? >&9; fg >/dev/null; echo status $? >&9");
    let above = ["/bin/bash", "-mc", &script, "bash"].map(str::to_owned);
    let words = above.into_iter().chain(reaper.words.iter().cloned()).collect();
    let shell = Reaper { name: reaper.name, words };
    let errors = slave.try_clone()?; // where bash looks for its terminal
    let mut case = Case::start_with(&shell, false, &["plain"], |command| {
        witness::start_on_terminal(command, slave);
        command.stderr(errors);
    })?;
    master.write_all(b"\x1a")?;
    let said = |text: &str| Ok(fs::read_to_string(&log)?.contains(text));
    // 128 and SIGTSTP.
    let stopped = eventually("the shell sees it stopped", || said("status 148")).is_ok();
    // `fg` follows by itself.
    let goes_on = stopped && case.witness.ask("pid").is_ok();
    case.witness.tell("exit 5")?;
    let known = goes_on && eventually("the shell sees its status", || said("status 5")).is_ok();
    fs::remove_file(log)?;
    Ok(match (stopped, known) {
        (true, true) => "stopped, continued",
        (true, false) => "stopped for good",
        (false, _) => "the shell waits for it for ever",
    }
    .to_owned())
}

fn terminal_back(reaper: &Reaper, as_pid_1: bool) -> Result<String> {
    if as_pid_1 {
        return Ok("read".to_owned()); // nobody is left who could read
    }
    let (mut master, slave) = pty()?;
    let words = reaper.command(false, &["true"]);
    let mut command = Command::new("/bin/sh");
    let script = "\"$@\"; echo ended; read line && echo \"read-$line\"";
    command.args(["-c", script, "sh"]).arg(words.get_program()).args(words.get_args());
    let output = slave.try_clone()?;
    witness::start_on_terminal(command.stdout(output), slave);
    let mut shell = command.spawn()?;
    drop(command); // which holds the other end of the terminal
    let text = follow(&mut master, "ended")?;
    ensure!(text.contains("ended"), "{text:?}");
    master.write_all(b"something\n")?;
    let text = follow(&mut master, "read-something")?;
    shell.kill().unwrap_or_default();
    shell.wait()?;
    Ok(if text.contains("read-something") {
        "read".to_owned()
    } else {
        "it cannot be read any more".to_owned()
    })
}

/// A terminal: the end that a person has, and the other.
fn pty() -> Result<(fs::File, OwnedFd)> {
    let pair = openpty(None, None)?;
    Ok((fs::File::from(pair.master), pair.slave))
}

/// Reads until a text comes, nobody writes any more, or it takes too long.
fn follow(master: &mut fs::File, until: &str) -> Result<String> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut text = String::new();
    while !text.contains(until) && Instant::now() < end {
        let mut fds = [nix::poll::PollFd::new(master.as_fd(), nix::poll::PollFlags::POLLIN)];
        if nix::poll::poll(&mut fds, 100_u16)? == 0 {
            continue;
        }
        let mut bytes = [0; 256];
        match master.read(&mut bytes) {
            Ok(count @ 1..) => text.push_str(&String::from_utf8_lossy(&bytes[..count])),
            Ok(0) | Err(_) => break, // EIO: the other end is closed
        }
    }
    Ok(text)
}

fn eventually(what: &str, mut check: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if check()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    bail!("not within 10 s: {what}")
}

fn all_but(wrong: &[String]) -> String {
    if wrong.is_empty() { "each".to_owned() } else { format!("each but {}", wrong.join(" ")) }
}
