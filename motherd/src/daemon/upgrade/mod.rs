//! `motherctl upgrade`: another program in the place of motherd's, or of initldr's.
//!
//! ```text
//! Upgrade --> helper (prepare.rs): checks and installs --> motherd:  said, Retire, end; initldr launches the new one
//!                                  |                       initldr:  Execute over the link, and its answer
//!                                  '-> refused: nothing is different
//! ```
//!
//! Upgrading motherd is the path of its crash: what is adopted, replayed and said afterwards is the same. Should the new
//! one die early again and again, initldr's ladder ends at the one that was kept.
//!
//! Invariant: motherd does not wait for any of it. The helper has a limit, and so has initldr's answer.

mod candidate;
mod prepare;

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    time::Duration,
};

use initldr::link::SlotName;
use nix::{
    errno::Errno,
    sys::{
        epoll::EpollFlags,
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, killpg},
    },
    unistd::Pid,
};
use serde_json::Value;

pub(super) use self::prepare::Which;
use self::prepare::{Wanted, prepare};
use super::{
    Args, Daemon, Fatal, Paths,
    events::{Source, watch},
    now,
};
use crate::{
    control::{
        protocol::{Reply, RequestError, Upgraded},
        server::Token,
    },
    eventlog::What,
    failpoint,
    supervise::{Cause, Requester},
    sys::process::pidfd_open,
};

/// Copying two programs to a slow disk, and running one of them.
const HELPER_WITHIN: Duration = Duration::from_secs(60);
/// initldr does it at once, or not at all.
const INITLDR_WITHIN: Duration = Duration::from_secs(20);
/// What initldr launches instead of a motherd that dies early again and again, where its command line says nothing.
const PREVIOUS: &str = "/usr/sbin/motherd.prev";

/// The one upgrade that is under way.
#[derive(Debug)]
pub(super) struct Upgrade {
    token: Token,
    who: Requester,
    which: Which,
    check: bool,
    deadline: Duration,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The helper is at work.
    Prepares { child: Child, said: File, _watched: OwnedFd },
    /// initldr was asked to execute this path, and this is to be answered when it has.
    Executes { path: String, upgraded: Upgraded },
}

impl Upgrade {
    /// When it has taken too long.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// Where the programs are of which this motherd is one.
#[derive(Debug)]
pub(super) struct Installed {
    /// What initldr launches.
    pub(super) motherd: PathBuf,
    /// What it launches instead, at last.
    pub(super) previous: PathBuf,
}

impl Installed {
    /// initldr names motherd by the path at which it found it; of the other one its command line tells.
    pub(super) fn find(root: &Path) -> Self {
        let motherd =
            std::env::args_os().next().map_or_else(|| PathBuf::from("/usr/sbin/motherd"), PathBuf::from);
        let words =
            fs::read(format!("/proc/{}/cmdline", std::os::unix::process::parent_id())).unwrap_or_default();
        Self { motherd: Path::new("/").join(motherd), previous: previous(&words, root) }
    }

    /// Whether this process runs the previous program.
    pub(super) fn is_previous(&self) -> bool {
        let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
        let running = identity(Path::new("/proc/self/exe"));
        running.is_some() && running == identity(&self.previous) && running != identity(&self.motherd)
    }
}

/// What follows `--previous` on a command line of initldr. Where nothing does, its own choice, but never outside of the root: one
/// that is not the machine's leaves the machine's alone.
fn previous(cmdline: &[u8], root: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut words = cmdline.split(|byte| *byte == 0).skip(1).take_while(|word| *word != b"--");
    let mut found = None;
    while let Some(word) = words.next() {
        if word == b"--previous" {
            found = words.next();
        }
    }
    found.map_or_else(
        || super::machine::below(root, Path::new(PREVIOUS)),
        |path| OsString::from_vec(path.to_vec()).into(),
    )
}

/// The modes of this program in which it is no service manager; `None`: it is to be one.
pub(super) fn beside(args: &Args) -> Option<ExitCode> {
    let paths = Paths::new(args);
    let said = if args.check_state {
        match candidate::look(io::stdin(), &paths.services, &paths.policies) {
            Ok(said) => said,
            Err(errno) => {
                eprintln!("motherd: the state on standard input cannot be mapped: {errno}");
                return Some(ExitCode::FAILURE);
            }
        }
    } else {
        let wanted = args.prepare_upgrade.as_deref()?;
        prepare(wanted, &paths.services, &paths.policies, &own_arguments())
    };
    match io::stdout().write_all(format!("{said}\n").as_bytes()) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(_) => Some(ExitCode::FAILURE),
    }
}

/// What this process was started with, without what made it a helper.
fn own_arguments() -> Vec<String> {
    let mut words = std::env::args().skip(1);
    let mut own = Vec::new();
    while let Some(word) = words.next() {
        if word == "--prepare-upgrade" {
            drop(words.next());
        } else {
            own.push(word);
        }
    }
    own
}

impl Daemon {
    /// Begins an upgrade; whoever asked is answered when it has come to something.
    pub(super) fn upgrade(
        &mut self,
        token: Token,
        who: Requester,
        which: Which,
        path: Option<&str>,
        check: bool,
    ) -> Result<(), RequestError> {
        let refuse = |why: String| RequestError::Refused { why };
        if self.upgrade.is_some() {
            return Err(refuse("another upgrade is under way".to_owned()));
        }
        if self.manager.ending().is_some() && !check {
            return Err(refuse("the machine is being ended".to_owned()));
        }
        if let Some(path) = path.filter(|path| !path.starts_with('/')) {
            return Err(refuse(format!("{path}: the path of a program begins with a slash")));
        }
        let wanted = match which {
            Which::Motherd => Wanted {
                which,
                candidate: path.map(PathBuf::from),
                installed: self.installed.motherd.clone(),
                kept: self.installed.previous.clone(),
                running: format!("/proc/{}/exe", std::process::id()).into(),
                check,
            },
            Which::Initldr => {
                let running = PathBuf::from(format!("/proc/{}/exe", std::os::unix::process::parent_id()));
                let installed = program_of(&running)
                    .map_err(|error| refuse(format!("read {}: {error}", running.display())))?;
                let kept = format!("{}.prev", installed.display()).into();
                Wanted { which, candidate: path.map(PathBuf::from), installed, kept, running, check }
            }
        };
        let (child, watched, said) =
            self.start_helper(&wanted).map_err(|error| refuse(format!("start a helper: {error}")))?;
        let deadline = now() + HELPER_WITHIN;
        let stage = Stage::Prepares { child, said, _watched: watched };
        self.upgrade = Some(Upgrade { token, who, which, check, deadline, stage });
        Ok(())
    }

    fn start_helper(&self, wanted: &Wanted) -> io::Result<(Child, OwnedFd, File)> {
        let said = File::from(memfd_create(c"motherd-upgrade", MFdFlags::MFD_CLOEXEC)?);
        let state = self.table.copy()?;
        // What runs, whatever the installed file is by now.
        let child = Command::new("/proc/self/exe")
            .args(std::env::args_os().skip(1))
            .arg("--prepare-upgrade")
            .arg(wanted.encode().to_string())
            .stdin(state)
            .stdout(said.try_clone()?)
            .process_group(0)
            .spawn()?;
        let pidfd = pidfd_open(child.id())?;
        watch(&self.epoll, pidfd.as_fd(), Source::Upgrade, EpollFlags::EPOLLIN)?;
        Ok((child, pidfd, said))
    }

    /// The helper has ended. Or the one of an upgrade before had: a child of ours that is about to execute has a copy of its
    /// descriptor for a moment, and as long as that is open the kernel goes on telling of it.
    pub(super) fn upgrade_ready(&mut self) -> Result<(), Fatal> {
        let ended = |upgrade: &mut Upgrade| match &mut upgrade.stage {
            Stage::Prepares { child, .. } => child.try_wait().transpose(),
            Stage::Executes { .. } => None,
        };
        let Some(ended) = self.upgrade.as_mut().and_then(ended) else { return Ok(()) };
        let Some(Upgrade { token, who, which, check, stage: Stage::Prepares { mut said, .. }, .. }) =
            self.upgrade.take()
        else {
            return Ok(());
        };
        let upgraded = ended.map_err(|error| format!("the helper: {error}")).and_then(|status| {
            let mut text = Vec::new();
            said.rewind()
                .and_then(|()| said.take(1 << 20).read_to_end(&mut text))
                .map_err(|error| format!("read what the helper said: {error}"))?;
            read(&text, which, check).ok_or_else(|| format!("the helper: {status}"))?
        });
        failpoint::hit("upgrade.prepared");
        let upgraded = match upgraded {
            Ok(upgraded) => upgraded,
            Err(why) => return self.upgrade_refused(token, who, which, why),
        };
        if check {
            self.server.reply(token, &Reply::Upgraded(upgraded), now());
            return Ok(());
        }
        let kept =
            upgraded.kept.as_ref().map(|kept| format!("; {kept} is the one before")).unwrap_or_default();
        let words = format!("upgrade to {} of {}{kept}, requested", upgraded.release, upgraded.candidate);
        let cause = Cause::request(&words, who);
        self.note(What::Manager, "", &cause);
        tracing::info!("{}", cause.words);
        if which == Which::Initldr {
            let Some(path) = SlotName::new(&upgraded.installed) else {
                let why = format!("{}: a path of initldr has at most 159 bytes", upgraded.installed);
                return self.upgrade_refused(token, who, which, why);
            };
            self.link.execute(path)?;
            failpoint::hit("upgrade.asked");
            let deadline = now() + INITLDR_WITHIN;
            let stage = Stage::Executes { path: path.as_str().to_owned(), upgraded };
            self.upgrade = Some(Upgrade { token, who, which, check, deadline, stage });
            return Ok(());
        }
        self.server.reply(token, &Reply::Upgraded(upgraded), now());
        failpoint::hit("upgrade.answered");
        self.link.retire()?;
        failpoint::hit("upgrade.retired");
        Err(Fatal::Retired)
    }

    fn upgrade_refused(
        &mut self,
        token: Token,
        who: Requester,
        which: Which,
        why: String,
    ) -> Result<(), Fatal> {
        tracing::error!("upgrade of {}: {why}", which.name());
        let words = format!("upgrade of {} refused ({why}), requested", which.name());
        self.note(What::Manager, "", &Cause::request(&words, who));
        self.server.reply(token, &Reply::Error(RequestError::Refused { why }), now());
        Ok(())
    }

    /// initldr's answer to an Execute; `false`: it is the answer to something else.
    pub(super) fn executed(&mut self, name: &SlotName, errno: i32) -> Result<bool, Fatal> {
        let asked = self.upgrade.take_if(
            |upgrade| matches!(&upgrade.stage, Stage::Executes { path, .. } if path == name.as_str()),
        );
        let Some(Upgrade { token, who, which, stage: Stage::Executes { upgraded, .. }, .. }) = asked else {
            return Ok(false);
        };
        let name = name.as_str();
        if errno == 0 {
            tracing::info!("another initldr has taken over: {name}");
            self.note(What::Manager, "", &Cause::new(format!("another initldr has taken over: {name}")));
            self.server.reply(token, &Reply::Upgraded(upgraded), now());
        } else {
            let why = format!("initldr: execute {name}: {}", Errno::from_raw(errno));
            self.upgrade_refused(token, who, which, why)?;
        }
        Ok(true)
    }

    /// What takes too long is given up.
    pub(super) fn end_upgrade(&mut self, now: Duration) -> Result<(), Fatal> {
        let late = self.upgrade.take_if(|upgrade| upgrade.deadline <= now);
        let Some(Upgrade { token, who, which, stage, .. }) = late else { return Ok(()) };
        let why = match stage {
            Stage::Prepares { mut child, .. } => {
                // Not reaped yet, so the group is still its own.
                let group = Pid::from_raw(child.id().cast_signed());
                if let Err(errno) = killpg(group, Signal::SIGKILL) {
                    tracing::error!("SIGKILL to the helper: {errno}");
                }
                if let Err(error) = child.wait() {
                    tracing::error!("wait for the helper: {error}");
                }
                format!("it was not prepared within {} s", HELPER_WITHIN.as_secs())
            }
            Stage::Executes { path, .. } => {
                format!("initldr did not say within {} s what came of {path}", INITLDR_WITHIN.as_secs())
            }
        };
        self.upgrade_refused(token, who, which, why)
    }
}

/// What a process runs, without what the kernel adds where the file was removed.
fn program_of(link: &Path) -> io::Result<PathBuf> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let path = fs::read_link(link)?;
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    Ok(OsString::from_vec(bytes.to_vec()).into())
}

/// What the helper said; `None`: nothing that is understood.
fn read(text: &[u8], which: Which, check: bool) -> Option<Result<Upgraded, String>> {
    let value: Value = serde_json::from_slice(text).ok()?;
    if let Some(why) = value["refused"].as_str() {
        return Some(Err(why.to_owned()));
    }
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let found = value["found"].as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Some(Ok(Upgraded {
        program: which.name().to_owned(),
        candidate: text("candidate")?,
        release: text("release")?,
        found,
        installed: text("installed")?,
        kept: text("kept"),
        only_checked: check,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_previous_motherd_is_the_one_that_initldr_was_told_of() {
        let check = |words: &[&str], expected: &str| {
            let found = previous(words.join("\0").as_bytes(), Path::new("/"));
            assert_eq!(found, Path::new(expected), "{words:?}");
        };
        check(&["initldr", "--motherd", "/m", "--previous", "/p", "--", "--previous", "/x"], "/p");
        check(&["initldr", "--", "--previous", "/x"], PREVIOUS);
        check(&["/sbin/init", "--previous"], PREVIOUS);
        check(&[], PREVIOUS);
        let below = |words: &[&str]| previous(words.join("\0").as_bytes(), Path::new("/srv/own"));
        assert_eq!(below(&["initldr", "--motherd", "/m"]), Path::new("/srv/own/usr/sbin/motherd.prev"));
        assert_eq!(below(&["initldr", "--previous", "/p"]), Path::new("/p"), "what was said is done");
    }

    #[test]
    fn a_helper_that_says_nothing_of_use_is_no_success() {
        assert!(read(b"", Which::Motherd, false).is_none() && read(b"{}", Which::Motherd, false).is_none());
        let refused = read(br#"{"refused": "no"}"#, Which::Motherd, true);
        assert_eq!(refused, Some(Err("no".to_owned())));
    }
}
