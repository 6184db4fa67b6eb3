//! Where attacks are attempted: a folder of this machine, policies in it, and launches by the sandbox library.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use sandbox::Plan;
use sandbox::cgroup::Cgroup;
use sandbox::compile::{Subject, compile};
use sandbox::kernel::Kernel;
use sandbox::launch::{Launch, Launched, launch};
use sandbox::policy::{Store, load_text};

use super::Verdict;
use crate::probe::Outcome;

/// `base/default` as it ships: the guest of a test and a host find the same one.
const BASE: &str = include_str!("../../../policies/base/default.toml");

/// A folder with policies, and this program in it for whoever is confined.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    program: String,
    kernel: Kernel,
}

/// What an attacker said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// On both outputs.
    pub output: String,
    /// How it ended; `None` where it was started by the standard library.
    pub status: WaitStatus,
}

impl Lab {
    /// A fresh one. Needs root.
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Not below /tmp and /run, which policies cover.
        let dir = PathBuf::from(format!("/var/tmp/motherd-attacks-{}-{number}", std::process::id()));
        fs::create_dir_all(dir.join("policies/base")).with_context(|| format!("make {}", dir.display()))?;
        fs::create_dir_all(dir.join("bin"))?;
        let program = dir.join("bin/attacks");
        fs::copy(std::env::current_exe()?, &program)?;
        let lab = Self { program: program.display().to_string(), kernel: Kernel::probe(None)?, dir };
        for path in ["", "bin", "bin/attacks", "policies", "policies/base"] {
            lab.mode(path, 0o755)?;
        }
        let own = lab.path("bin");
        let own = format!(
            "extends = [\"base/default\"]\n[landlock]\nread = {{ add = [\"{own}\"] }}\n\
             execute = {{ add = [\"{own}\"] }}\n"
        );
        for (path, text) in [("policies/base/default.toml", BASE), ("policies/lab.toml", &own)] {
            lab.file(path, text)?;
        }
        Ok(lab)
    }

    /// A path in it.
    pub fn path(&self, path: &str) -> String {
        self.dir.join(path).display().to_string()
    }

    /// What this machine offers.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The program that attacks.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Sets the mode of a path in it.
    pub fn mode(&self, path: &str, mode: u32) -> Result<()> {
        Ok(fs::set_permissions(self.dir.join(path), fs::Permissions::from_mode(mode))?)
    }

    /// A folder in it, for everybody to read.
    pub fn folder(&self, path: &str) -> Result<String> {
        fs::create_dir_all(self.dir.join(path))?;
        self.mode(path, 0o755)?;
        Ok(self.path(path))
    }

    /// A file in it, for everybody to read.
    pub fn file(&self, path: &str, text: &str) -> Result<String> {
        fs::write(self.dir.join(path), text).with_context(|| format!("write {path}"))?;
        self.mode(path, 0o644)?;
        Ok(self.path(path))
    }

    /// `base/default` with these sections on top, compiled for this machine.
    pub fn plan(&self, sections: &str) -> Result<Arc<Plan>> {
        let text = format!("extends = [\"lab\"]\n{sections}");
        let store = Store::new(vec![self.dir.join("policies")]);
        let policy =
            load_text(Path::new("attack.toml"), &text, &store).map_err(|report| anyhow!("{report}"))?;
        let subject = Subject { name: "attacks".to_owned(), root: "/".into(), sockets: vec![] };
        compile(&policy, &subject, &self.kernel).map_err(|report| anyhow!("{report}"))
    }

    /// Starts the attacker under a policy, with these words.
    pub fn start(&self, sections: &str, words: &[&str]) -> Result<Service> {
        self.start_in(sections, words, None, None)
    }

    /// The same, born into a cgroup, and with this on stdin.
    pub fn start_in(
        &self,
        sections: &str,
        words: &[&str],
        cgroup: Option<&Cgroup>,
        stdin: Option<BorrowedFd<'_>>,
    ) -> Result<Service> {
        self.start_program(&self.program, &self.plan(sections)?, words, cgroup, stdin)
    }

    /// The same of another program, which attacks as well, by a plan.
    pub fn start_program(
        &self,
        program: &str,
        plan: &Arc<Plan>,
        words: &[&str],
        cgroup: Option<&Cgroup>,
        stdin: Option<BorrowedFd<'_>>,
    ) -> Result<Service> {
        let (output, writer) = std::io::pipe()?;
        let (pipe, input) = std::io::pipe()?;
        let argv: Vec<String> = [program, "act"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        let launched = launch(&Launch {
            cgroup,
            ..Launch::new(plan, &argv, [stdin.unwrap_or(pipe.as_fd()), writer.as_fd(), writer.as_fd()])
        })?;
        Ok(Service { launched, output, input: Some(input), ended: false })
    }

    /// Runs the attacker under a policy to its end.
    pub fn confined(&self, sections: &str, words: &[&str]) -> Result<Said> {
        self.start(sections, words)?.end()
    }

    /// What an act comes to under a policy.
    pub fn outcome(&self, sections: &str, act: &str) -> Result<Outcome> {
        let said = self.confined(sections, &act.split(' ').collect::<Vec<_>>())?;
        said.outcome().with_context(|| format!("{act} under:\n{sections}"))
    }

    /// What it comes to without any policy.
    pub fn control(&self, act: &str) -> Result<Outcome> {
        let said = self.unconfined(&act.split(' ').collect::<Vec<_>>())?;
        said.outcome().with_context(|| format!("{act}, unconfined"))
    }

    /// Runs the attacker as an ordinary process of root's.
    pub fn unconfined(&self, words: &[&str]) -> Result<Said> {
        self.plain(&self.program, &["act"].iter().chain(words).copied().collect::<Vec<_>>())
    }

    /// The same of another program, or of a copy of this one.
    pub fn plain(&self, program: &str, words: &[impl AsRef<OsStr>]) -> Result<Said> {
        let (mut reader, writer) = std::io::pipe()?;
        let mut child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let mut output = Vec::new();
        reader.read_to_end(&mut output)?;
        let status = child.wait()?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
        use std::os::unix::process::ExitStatusExt;
        Ok(Said {
            output: String::from_utf8_lossy(&output).into_owned(),
            status: WaitStatus::from_raw(pid, status.into_raw())?,
        })
    }

    /// Every act is refused under the policy with one of its errnos, and succeeds unconfined. All that is wrong is told
    /// at once.
    pub fn resists(&self, sections: &str, acts: &[(&str, &[Errno])]) -> Result<Verdict> {
        let mut wrong = Vec::new();
        let confined = self.each(sections, acts.iter().map(|(act, _)| *act))?;
        let free = self.each_unconfined(acts.iter().map(|(act, _)| *act))?;
        for (((act, refusals), confined), free) in acts.iter().zip(confined).zip(free) {
            if !refusals.iter().any(|errno| confined == Outcome::Denied(*errno)) {
                wrong.push(format!("{act}: {confined}, where it has to be {refusals:?}"));
            }
            if free != Outcome::Allowed {
                wrong.push(format!("control: {act}, unconfined: {free}"));
            }
        }
        if wrong.is_empty() { Ok(Verdict::Resisted) } else { bail!("{}", wrong.join("\n")) }
    }

    /// The same of those acts that succeed unconfined on this machine, `least` of them or more.
    pub fn resists_what_works_here(
        &self,
        sections: &str,
        acts: &[(&str, &[Errno])],
        least: usize,
    ) -> Result<Verdict> {
        let free = self.each_unconfined(acts.iter().map(|(act, _)| *act))?;
        let works: Vec<_> = acts
            .iter()
            .zip(free)
            .filter(|(_, free)| *free == Outcome::Allowed)
            .map(|(act, _)| *act)
            .collect();
        ensure!(works.len() >= least, "control: of {acts:?} only {works:?} work here");
        self.resists(sections, &works)
    }

    /// What each act comes to under a policy, all of them in one process.
    pub fn each<'a>(&self, sections: &str, acts: impl Iterator<Item = &'a str>) -> Result<Vec<Outcome>> {
        let words: Vec<&str> = ["each"].into_iter().chain(acts).collect();
        self.confined(sections, &words)?.outcomes(words.len() - 1)
    }

    /// The same without any policy.
    pub fn each_unconfined<'a>(&self, acts: impl Iterator<Item = &'a str>) -> Result<Vec<Outcome>> {
        let words: Vec<&str> = ["each"].into_iter().chain(acts).collect();
        self.unconfined(&words)?.outcomes(words.len() - 1)
    }

    /// A root of one's own: the folders that policies are about, and the host's programs bound in. Returns the sections
    /// for it, whose `[filesystem]` is left open for more lines.
    pub fn root(&self, name: &str) -> Result<(PathBuf, String)> {
        let root = PathBuf::from(self.folder(name)?);
        let bin = self.path("bin");
        for folder in ["usr", "etc", "proc", "dev", "sys", "tmp", "run", &bin[1..]] {
            fs::create_dir_all(root.join(folder))?;
        }
        let mut binds = vec!["/usr".to_owned(), "/etc".to_owned(), bin];
        for name in ["lib", "lib64", "bin", "sbin"] {
            match fs::read_link(Path::new("/").join(name)) {
                Ok(target) => std::os::unix::fs::symlink(target, root.join(name))?,
                Err(_) => {
                    fs::create_dir_all(root.join(name))?;
                    binds.push(format!("/{name}"));
                }
            }
        }
        let binds: Vec<String> =
            binds.iter().map(|path| format!("{{ from = \"{path}\", to = \"{path}\" }}")).collect();
        let sections = format!(
            "[filesystem]\nroot = \"{}\"\nhidden = []\nbind = [{}]\n",
            root.display(),
            binds.join(", ")
        );
        Ok((root, sections))
    }

    /// A cgroup of this lab's own, for the plan of these sections; `None` where no cgroup2 is mounted.
    pub fn cgroup(&self, name: &str, sections: &str) -> Result<Option<OwnCgroup>> {
        let Some(root) = &self.kernel.cgroup_root else { return Ok(None) };
        let base = self.dir.file_name().context("it has a name")?.to_string_lossy().into_owned();
        let relative = format!("{base}-{name}");
        Ok(Some(OwnCgroup(Cgroup::create(root, &relative, &*self.plan(sections)?)?)))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

impl Said {
    /// What one act came to.
    pub fn outcome(&self) -> Result<Outcome> {
        let status = if let WaitStatus::Exited(_, status) = self.status {
            status
        } else if let WaitStatus::Signaled(_, signal, _) = self.status {
            128 + signal as i32
        } else {
            bail!("{:?}: {}", self.status, self.output)
        };
        Outcome::read(&self.output, status)
    }

    /// What each of several came to.
    pub fn outcomes(&self, count: usize) -> Result<Vec<Outcome>> {
        let lines: Vec<&str> = self.output.lines().collect();
        ensure!(lines.len() == count, "{} answers to {count} acts: {self:?}", lines.len());
        lines.iter().map(|line| Outcome::read(line, i32::from(*line != "allowed"))).collect()
    }

    /// What it printed, if it ended well.
    pub fn ok(self) -> Result<String> {
        ensure!(matches!(self.status, WaitStatus::Exited(_, 0)), "{:?}: {}", self.status, self.output);
        Ok(self.output)
    }
}

/// A confined process, killed when it is dropped.
#[derive(Debug)]
pub struct Service {
    launched: Launched,
    output: PipeReader,
    input: Option<PipeWriter>,
    ended: bool,
}

impl Service {
    /// Its pid, as this process sees it.
    pub fn pid(&self) -> u32 {
        self.launched.pid
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.output.read(&mut byte)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        ensure!(byte == *b"\n", "it said no more than {:?}", String::from_utf8_lossy(&line));
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Says something to it.
    pub fn tell(&mut self, text: &str) -> Result<()> {
        Ok(self.input.as_mut().context("its input is closed")?.write_all(text.as_bytes())?)
    }

    /// Closes its input, and waits for its end.
    pub fn end(mut self) -> Result<Said> {
        self.input = None;
        let mut output = Vec::new();
        self.output.read_to_end(&mut output)?;
        self.ended = true;
        let status = waitid(Id::PIDFd(self.launched.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
        Ok(Said { output: String::from_utf8_lossy(&output).into_owned(), status })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Not reaped yet, so the pid is still its own.
        let pid = nix::unistd::Pid::from_raw(self.launched.pid.cast_signed());
        let killed = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        let reaped = waitid(Id::PIDFd(self.launched.pidfd.as_fd()), WaitPidFlag::WEXITED);
        if let Err(errno) = killed.and(reaped.map(drop)) {
            eprintln!("cannot end {pid}: {errno}");
        }
    }
}

/// A cgroup that is emptied and removed when it is dropped.
#[derive(Debug)]
pub struct OwnCgroup(pub Cgroup);

impl OwnCgroup {
    /// Writes one of its files.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.0.path().join(file);
        File::options().write(true).open(&path)?.write_all(text.as_bytes())?;
        Ok(())
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let mut removed = self.0.kill().and_then(|()| self.0.remove());
        // The killed are in it until somebody has reaped them.
        for _ in 0..10_000 {
            if removed.is_ok() {
                return;
            }
            removed = self.0.remove();
        }
        if let Err(error) = removed {
            eprintln!("cannot remove {}: {error}", self.0.path().display());
        }
    }
}
