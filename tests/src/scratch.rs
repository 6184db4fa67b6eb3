//! The programs on this very host: a root directory and a cgroup of their own, and initldr as an ordinary process.
//!
//! All of it needs root, for namespaces, mounts and cgroups. [`Scratch::new`] therefore tells a test to stop early
//! where it is not root; that is said on standard error and counted, see [`SKIPPED`].

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

use crate::programs::Programs;

/// Under `target/`: a line for each test that did not run. `cargo verify` empties it first and counts it at the end.
pub const SKIPPED: &str = "e2e-skipped";

/// How long anything on this host may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A root directory for motherd, a place for its cgroups, and initldr once it is started.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
    cgroup: PathBuf,
    init: Option<Init>,
}

#[derive(Debug)]
struct Init {
    pid: Pid,
    /// Says how it ended, once it has.
    end: mpsc::Receiver<std::io::Result<ExitStatus>>,
}

/// What a program came to.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status; a signal is 128 and its number.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub errors: String,
}

impl Scratch {
    /// A fresh one, with the shipped policies; or `None`, loudly, where this is not root.
    pub fn new(test: &str) -> Result<Option<Self>> {
        if !geteuid().is_root() {
            skip(test, "it needs root")?;
            return Ok(None);
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("motherd-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let root = crate::target_dir().join("tmp").join(&name);
        let scratch = Self { cgroup: cgroup2()?.join(&name), root, init: None };
        copy(&crate::workspace().join("policies"), &scratch.path("usr/lib/motherd/policies"))?;
        for dir in ["etc/motherd/policies", "etc/motherd/services", "run", "var/log"] {
            fs::create_dir_all(scratch.path(dir))?;
        }
        Ok(Some(scratch))
    }

    /// A path under the root directory.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Where its services' cgroups are.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Writes a policy file and returns its path.
    pub fn policy(&self, name: &str, text: &str) -> Result<PathBuf> {
        self.write(&format!("etc/motherd/policies/{name}.toml"), text)
    }

    /// Writes a service file and returns its path.
    pub fn service(&self, name: &str, text: &str) -> Result<PathBuf> {
        self.write(&format!("etc/motherd/services/{name}.toml"), text)
    }

    fn write(&self, path: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(path);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        // Whatever the umask of who runs the tests: files that others may write are refused.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        Ok(path)
    }

    /// Runs motherctl.
    pub fn motherctl(&self, arguments: &[&str]) -> Result<Ran> {
        let output = Command::new(&Programs::built()?.motherctl)
            .arg("--root")
            .arg(&self.root)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("cannot run motherctl")?;
        use std::os::unix::process::ExitStatusExt;
        let status = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal));
        Ok(Ran {
            status: status.context("neither exited nor killed")?,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// What `motherctl status --json` says of a service.
    pub fn status(&self, service: &str) -> Result<Value> {
        let ran = self.motherctl(&["--json", "status", service])?;
        let reply: Value =
            serde_json::from_str(&ran.out).with_context(|| format!("status of {service}: {ran:?}"))?;
        Ok(reply["services"][0].clone())
    }

    /// Starts initldr, and by it motherd, as ordinary processes. Their words go to [`Self::log`].
    pub fn start(&mut self) -> Result<()> {
        let programs = Programs::built()?;
        self.start_as(&programs.initldr, &programs.motherd, &[])
    }

    /// As [`Self::start`], with other programs, and more words for initldr.
    pub fn start_as(&mut self, initldr: &Path, motherd: &Path, words: &[&str]) -> Result<()> {
        ensure!(self.init.is_none(), "it runs already");
        let log = fs::File::options().create(true).append(true).open(self.path("log"))?;
        let mut child = Command::new(initldr)
            .args(words)
            .arg("--motherd")
            .arg(motherd)
            .arg("--")
            .arg("--root")
            .arg(&self.root)
            .arg("--cgroup")
            .arg(&self.cgroup)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start initldr")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let (send, end) = mpsc::channel();
        std::thread::spawn(move || {
            // A test that has ended does not listen any more, and need not.
            drop(send.send(Child::wait(&mut child)));
        });
        self.init = Some(Init { pid, end });
        Ok(())
    }

    /// The pid of initldr.
    pub fn init(&self) -> Result<Pid> {
        Ok(self.init.as_ref().context("initldr was not started")?.pid)
    }

    /// The motherd that initldr has started: its one child with that program.
    pub fn motherd(&self) -> Result<i32> {
        let init = self.init()?;
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
        let program = Programs::built()?.motherd.canonicalize()?;
        let is_motherd =
            |pid: &&str| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
        let found = children.split_whitespace().find(is_motherd).context("initldr has no motherd")?;
        Ok(found.parse()?)
    }

    /// Waits until motherd answers.
    pub fn answers(&self) -> Result<()> {
        self.eventually("motherd answers", |scratch| {
            Ok((scratch.motherctl(&["list"])?.status == 0).then_some(()))
        })
    }

    /// Kills motherd, and waits until the next one answers.
    pub fn kill_motherd(&self) -> Result<()> {
        let before = self.motherd()?;
        kill(Pid::from_raw(before), Signal::SIGKILL)?;
        self.eventually("another motherd is there", |scratch| {
            Ok(scratch.motherd().ok().filter(|pid| *pid != before))
        })?;
        self.answers()
    }

    /// What initldr and motherd have said.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.path("log"))?)
    }

    /// Asks again and again until there is an answer.
    pub fn eventually<T>(&self, what: &str, mut check: impl FnMut(&Self) -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(found) = check(self)? {
                return Ok(found);
            }
            // Whoever asks without a pause takes the processor from who is to answer.
            std::thread::sleep(Duration::from_millis(20));
            if Instant::now() > deadline {
                bail!("not within {LIMIT:?}: {what}; the log:\n{}", self.log().unwrap_or_default());
            }
        }
    }

    /// Waits until a service runs, and returns its main process.
    pub fn running(&self, service: &str) -> Result<u64> {
        self.eventually(&format!("{service} runs"), |scratch| {
            // No answer at all is what one gets until motherd listens.
            let Ok(status) = scratch.status(service) else { return Ok(None) };
            Ok((status["state"] == "running").then(|| status["main_pid"].as_u64()).flatten())
        })
    }

    /// Starts a service, once motherd listens, and returns its main process.
    pub fn running_by_request(&self, service: &str) -> Result<u64> {
        self.answers()?;
        let started = self.motherctl(&["start", service])?;
        ensure!(started.status == 0, "{started:?}; the log:\n{}", self.log()?);
        self.running(service)
    }

    /// Ends initldr as an administrator would, and waits until it has ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let init = self.init.take().context("initldr was not started")?;
        kill(init.pid, Signal::SIGTERM)?;
        match init.end.recv_timeout(LIMIT) {
            Ok(status) => Ok(status?),
            Err(_) => {
                kill(init.pid, Signal::SIGKILL)?;
                bail!("initldr did not end within {LIMIT:?} of SIGTERM; the log:\n{}", self.log()?)
            }
        }
    }

    /// Waits until initldr has ended by itself.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let init = self.init.take().context("initldr was not started")?;
        match init.end.recv_timeout(LIMIT) {
            Ok(status) => Ok(status?),
            Err(_) => {
                let log = self.log().unwrap_or_default();
                self.init = Some(init);
                bail!("initldr did not end within {LIMIT:?}; the log:\n{log}")
            }
        }
    }

    /// Ends what is left and removes what was made.
    fn clean(&mut self) -> Result<()> {
        let stopped = if self.init.is_some() { self.stop().map(drop) } else { Ok(()) };
        remove_cgroup(&self.cgroup)?;
        fs::remove_dir_all(&self.root).with_context(|| format!("cannot remove {}", self.root.display()))?;
        stopped
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.clean() {
            eprintln!("cannot clean up: {error:#}");
        }
    }
}

/// A handle of a process, whose end it tells.
pub fn pidfd_of(pid: i32) -> Result<std::os::fd::OwnedFd> {
    Ok(crate::sys::pidfd_open(pid)?)
}

/// A copy of a descriptor that another process has.
pub fn descriptor_of(pid: i32, fd: i32) -> Result<std::os::fd::OwnedFd> {
    crate::sys::descriptor_of(pid, fd).with_context(|| format!("descriptor {fd} of process {pid}"))
}

/// Does this work with every system call forbidden, and ends the process: with 0, or by SIGSYS at the first call.
pub fn without_system_calls(work: impl FnOnce()) -> Result<()> {
    match crate::sys::without_system_calls(work)? {}
}

/// Says, past the test runner's capture, that a test did not run, and counts it.
pub fn skip(test: &str, why: &str) -> Result<()> {
    let line = format!("SKIPPED {test}: {why}");
    crate::say(&line);
    let path = crate::target_dir().join(SKIPPED);
    fs::File::options().create(true).append(true).open(path)?.write_all(format!("{line}\n").as_bytes())?;
    Ok(())
}

/// Where this host has its cgroup2 hierarchy.
pub fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let found = mounts.lines().find_map(cgroup2_mount);
    found
        .map(PathBuf::from)
        .context("no cgroup2 is mounted on this host: mount -t cgroup2 none /sys/fs/cgroup")
}

/// The mount point in a line of mountinfo that is cgroup2's.
fn cgroup2_mount(line: &str) -> Option<&str> {
    let (mount, device) = line.split_once(" - ")?;
    device.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4)).flatten()
}

/// Ends every process of a cgroup and removes it with all below it.
fn remove_cgroup(cgroup: &Path) -> Result<()> {
    if !cgroup.exists() {
        return Ok(());
    }
    fs::write(cgroup.join("cgroup.kill"), "1")
        .with_context(|| format!("cannot empty {}", cgroup.display()))?;
    let deadline = Instant::now() + LIMIT;
    // The killed are in it until they are reaped.
    while fs::read_to_string(cgroup.join("cgroup.events"))?.contains("populated 1") {
        ensure!(Instant::now() < deadline, "{} does not become empty", cgroup.display());
    }
    remove_empty_cgroups(cgroup)
}

fn remove_empty_cgroups(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty_cgroups(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup).with_context(|| format!("cannot remove {}", cgroup.display()))
}

/// A program at this path. Another process writes it: what a thread of this one has open for writing, a process that
/// another thread is just making has as well until it executes, and meanwhile nobody can execute it (ETXTBSY).
pub fn write_program(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"]).arg(path).stdin(Stdio::piped());
    let mut writer = command.spawn()?;
    writer.stdin.take().context("a pipe")?.write_all(bytes)?;
    let status = writer.wait()?;
    ensure!(status.success(), "write {}: {status}", path.display());
    Ok(())
}

/// A folder with all that is in it, each file readable by everybody.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::cgroup2_mount;

    #[test]
    fn cgroup2_is_found_wherever_it_is_mounted() {
        let check = |line: &str, expected: Option<&str>| assert_eq!(cgroup2_mount(line), expected, "{line}");
        check(
            "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
            Some("/sys/fs/cgroup/unified"),
        );
        check("35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory", None);
        check(
            "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup rw,nsdelegate",
            Some("/sys/fs/cgroup"),
        );
    }
}
