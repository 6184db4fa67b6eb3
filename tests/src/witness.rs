//! A program that says what it finds and which signals come to it (`src/bin/witness.rs`), put inside of whatever is to be
//! examined, and the reapers that are: initldr, and those whose documented behaviour is the measure, tini and dumb-init.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Pid;

use crate::sys;

/// For anything that should happen soon, on a machine that does other things too.
pub const SOON: Duration = Duration::from_secs(30);

/// `here pid= ppid= pgid= sid= tpgid= blocked= ignored=`: what this process was started with, before it changes any of it.
pub fn as_found() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
    let (group, session) = (nix::unistd::getpgrp(), nix::unistd::getsid(None)?);
    let (pid, parent) = (std::process::id(), nix::unistd::getppid());
    let (blocked, ignored) = (value("SigBlk:"), value("SigIgn:"));
    // 0: no terminal, or another session's.
    let terminal = nix::unistd::tcgetpgrp(std::io::stdin()).map_or(0, Pid::as_raw);
    Ok(format!(
        "here pid={pid} ppid={parent} pgid={group} sid={session} tpgid={terminal} blocked={blocked} ignored={ignored}"
    ))
}

/// Has every signal that can be taken wait for [`next_signal`], those too that glibc keeps for itself.
pub fn take_every_signal() -> Result<OwnedFd> {
    Ok(sys::take_every_signal()?)
}

/// The number of the next one.
pub fn next_signal(signals: &OwnedFd) -> Result<u32> {
    Ok(sys::next_signal(signals)?)
}

/// A reaper to be examined.
#[derive(Debug, Clone)]
pub struct Reaper {
    /// As the table calls it.
    pub name: &'static str,
    /// The program and its own words, up to the command.
    pub words: Vec<String>,
}

impl Reaper {
    /// initldr.
    #[must_use]
    pub fn initldr(program: &Path, group: bool) -> Self {
        let mut words = vec![program.display().to_string()];
        words.extend(group.then(|| "--group".to_owned()));
        words.push("--".to_owned());
        Self { name: if group { "initldr --group" } else { "initldr" }, words }
    }

    /// tini or dumb-init, with these words before the command.
    #[must_use]
    pub fn other(name: &'static str, program: &Path, words: &[&str]) -> Self {
        let program = program.display().to_string();
        let words = words.iter().map(|word| (*word).to_owned());
        Self { name, words: std::iter::once(program).chain(words).collect() }
    }

    /// The command that runs `command` inside of it, as an ordinary process, or as PID 1.
    #[must_use]
    pub fn command(&self, as_pid_1: bool, command: &[&str]) -> Command {
        let mut words: Vec<&str> = Vec::new();
        if as_pid_1 {
            words.extend(["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]);
        }
        words.extend(self.words.iter().map(String::as_str));
        words.extend(command);
        let mut process = Command::new(words[0]);
        crate::sys::start_with_default_signals(process.args(&words[1..]));
        process
    }
}

/// A reaper that runs, with the witness inside.
#[derive(Debug)]
pub struct Case {
    /// What the harness started: the reaper, or unshare above it.
    outer: Child,
    /// The reaper, as this host's processes see it.
    pub reaper: Pid,
    folder: PathBuf,
    listener: UnixListener,
    /// The first witness.
    pub witness: Witness,
}

/// The harness' end of a witness.
#[derive(Debug)]
pub struct Witness {
    lines: BufReader<UnixStream>,
    stream: UnixStream,
    /// What it said first.
    pub found: String,
}

impl Case {
    /// Starts the witness inside of a reaper.
    pub fn start(reaper: &Reaper, as_pid_1: bool) -> Result<Self> {
        Self::start_with(reaper, as_pid_1, &[], |_| {})
    }

    /// As [`Case::start`], with more words for the witness, and a change of the command first.
    pub fn start_with(
        reaper: &Reaper,
        as_pid_1: bool,
        words: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("witness-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let socket = folder.join("control");
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        let program = program()?;
        let mut inside = vec![program.to_str().context("a path in UTF-8")?];
        inside.push(socket.to_str().context("a path in UTF-8")?);
        inside.extend(words);
        let mut command = reaper.command(as_pid_1, &inside);
        command.stdin(Stdio::null());
        change(&mut command);
        let outer = command.spawn().with_context(|| format!("start {}", reaper.name))?;
        let pid = Pid::from_raw(i32::try_from(outer.id())?);
        let witness = accept(&listener)?;
        let reaper = if as_pid_1 { first_child(pid)? } else { pid };
        Ok(Self { outer, reaper, folder, listener, witness })
    }

    /// Another witness that the first one was told to start; the socket it has to be given is [`Case::socket`].
    pub fn another(&self) -> Result<Witness> {
        accept(&self.listener)
    }

    /// Where witnesses report.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("control")
    }

    /// Sends a signal to the reaper, by its number.
    pub fn signal(&self, number: i32) -> Result<()> {
        Ok(sys::send_signal(self.reaper.as_raw(), number)?)
    }

    /// The status with which it ended: the exit status, or 1000 and the signal that killed it.
    pub fn ended(&mut self) -> Result<i32> {
        let end = Instant::now() + SOON;
        while Instant::now() < end {
            if let Some(status) = self.outer.try_wait()? {
                return Ok(code(status));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("it still runs")
    }

    /// The state of the reaper in /proc, `S` or `T` or another.
    pub fn state(&self) -> Result<char> {
        state(self.reaper.as_raw())
    }

    /// The children of the reaper, each with its state.
    pub fn children(&self) -> Result<Vec<(i32, char)>> {
        let pid = self.reaper;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let mut all = Vec::new();
        for child in children.split_whitespace() {
            let child = child.parse()?;
            // One that was reaped just now is none.
            all.extend(state(child).map(|state| (child, state)));
        }
        Ok(all)
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        // Whatever is left of a case that failed, children first: without their parents they could not be found.
        for pid in descendants(self.outer.id()) {
            sys::send_signal(pid, libc::SIGKILL).unwrap_or_default();
        }
        self.outer.kill().unwrap_or_default();
        self.outer.wait().map(drop).unwrap_or_default();
        fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}

impl Witness {
    /// Has it do something.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        Ok(writeln!(self.stream, "{command}")?)
    }

    /// The next line it says.
    pub fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.lines.read_line(&mut line)? > 0, "the witness is gone");
        Ok(line.trim_end().to_owned())
    }

    /// Has it do something that is answered by one line, which is returned without the word itself.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        let verb = command.split(' ').next().unwrap_or_default();
        self.tell(command)?;
        let line = self.hear()?;
        line.strip_prefix(verb).map(|rest| rest.trim().to_owned()).with_context(|| format!("heard {line}"))
    }

    /// One of the words it said first: `pgid`.
    pub fn of(&self, key: &str) -> Result<&str> {
        let mut words = self.found.split(' ').filter_map(|word| word.split_once('='));
        words.find_map(|(name, value)| (name == key).then_some(value)).context("no such word")
    }

    /// The signal that it says has come; `None` if none comes for a while.
    pub fn signal_within(&mut self, limit: Duration) -> Result<Option<u32>> {
        self.stream.set_read_timeout(Some(limit))?;
        let heard = self.hear();
        self.stream.set_read_timeout(Some(SOON))?;
        match heard {
            Ok(line) => Ok(Some(line.strip_prefix("signal ").context("a signal")?.parse()?)),
            Err(error) => match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                Some(std::io::ErrorKind::WouldBlock) => Ok(None),
                _ => Err(error),
            },
        }
    }
}

/// What the shell and this harness call the end of a process.
#[must_use]
pub fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 1000 + signal)).unwrap_or(-1)
}

/// The built witness.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // target/debug/deps/TEST or target/debug/PROGRAM
    let found =
        own.ancestors().skip(1).take(2).map(|folder| folder.join("witness")).find(|path| path.exists());
    found.context("cargo build -p e2e --bin witness")
}

/// The child of a process that has one, as soon as it has.
fn first_child(pid: Pid) -> Result<Pid> {
    let end = Instant::now() + SOON;
    loop {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        if let Some(child) = children.split_whitespace().next() {
            return Ok(Pid::from_raw(child.parse()?));
        }
        ensure!(Instant::now() < end, "{pid} has no child");
    }
}

fn accept(listener: &UnixListener) -> Result<Witness> {
    let end = Instant::now() + SOON;
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if Instant::now() > end => return Err(error).context("no witness came"),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SOON))?;
    let mut witness = Witness { lines: BufReader::new(stream.try_clone()?), stream, found: String::new() };
    witness.found = witness.hear()?;
    Ok(witness)
}

/// The children of a process and theirs, the deepest first.
fn descendants(pid: u32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut all = Vec::new();
    for child in children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()) {
        all.extend(descendants(child));
        all.extend(i32::try_from(child));
    }
    all
}

fn state(pid: i32) -> Result<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).context("a state")
}

/// Has a command start with these signals ignored, and these blocked.
pub fn start_with_signals(command: &mut Command, ignored: i32, blocked: i32) {
    sys::start_with_signals(command, ignored, blocked);
}

/// Has a command start in a session of its own, with this terminal as its own and its standard input.
pub fn start_on_terminal(command: &mut Command, terminal: OwnedFd) {
    command.stdin(Stdio::from(terminal));
    sys::start_on_terminal(command);
}

/// Has a command lead a process group of its own.
pub fn start_in_group(command: &mut Command) {
    command.process_group(0);
}
