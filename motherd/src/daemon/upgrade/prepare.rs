//! The work of an upgrade that takes time: a process of motherd's own program beside motherd, which goes on meanwhile.
//!
//! ```text
//! open the candidate, as its owner and mode allow -> copy it beside the installed program -> run the copy, to see what it
//! reads -> keep the program that runs as NAME.prev -> rename the copy over the installed program
//! ```
//!
//! Invariants: what is installed is the very file that was checked; at any instant the installed path and the kept one
//! name a whole program; where any step fails, nothing is different but that a copy beside it may be left, which the next
//! upgrade overwrites.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use initldr::link;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::memfd::{MFdFlags, memfd_create},
};
use serde_json::{Value, json};

use super::candidate::look;
use crate::sys::process::pidfd_open;

/// A candidate that has not said what it can read by then never will.
const CHECK_WITHIN: Duration = Duration::from_secs(20);

/// Which of the two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Which {
    Motherd,
    Initldr,
}

impl Which {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Motherd => "motherd",
            Self::Initldr => "initldr",
        }
    }
}

/// What is to be prepared.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) which: Which,
    /// `None`: what is installed already, by a package say.
    pub(super) candidate: Option<PathBuf>,
    /// What is launched.
    pub(super) installed: PathBuf,
    /// Where the one that runs now is kept.
    pub(super) kept: PathBuf,
    /// What runs now: a path of /proc, which is there even where the file was removed.
    pub(super) running: PathBuf,
    /// Change nothing.
    pub(super) check: bool,
}

impl Wanted {
    /// For the command line of the helper.
    pub(super) fn encode(&self) -> Value {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        json!({
            "which": self.which.name(),
            "candidate": self.candidate.as_deref().map(text),
            "installed": text(&self.installed),
            "kept": text(&self.kept),
            "running": text(&self.running),
            "check": self.check,
        })
    }

    fn decode(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let path = |key: &str| value[key].as_str().map(PathBuf::from);
        let which = if value["which"] == "initldr" { Which::Initldr } else { Which::Motherd };
        Some(Self {
            which,
            candidate: path("candidate"),
            installed: path("installed")?,
            kept: path("kept")?,
            running: path("running")?,
            check: value["check"].as_bool()?,
        })
    }
}

/// Why nothing was installed.
type Refused = String;

/// The helper: does what `text` describes, with a copy of the state as standard input; what came of it, for standard
/// output. `arguments` are motherd's own, which the candidate gets as well.
pub(in super::super) fn prepare(
    text: &str,
    services: &[PathBuf],
    policies: &[PathBuf],
    arguments: &[String],
) -> Value {
    let Some(wanted) = Wanted::decode(text) else { return json!({ "refused": "not understood" }) };
    let result = match wanted.which {
        Which::Motherd => look(io::stdin(), services, policies)
            .map_err(|errno| format!("read the state: {errno}"))
            .and_then(|ours| install(&wanted, |program| check_motherd(program, arguments, &ours))),
        Which::Initldr => install(&wanted, check_initldr),
    };
    result.unwrap_or_else(|why| json!({ "refused": why }))
}

/// What a check found: what the program calls itself, and what it can read, in words.
type Checked = (String, Vec<String>);

fn install(wanted: &Wanted, check: impl FnOnce(&Path) -> Result<Checked, Refused>) -> Result<Value, Refused> {
    let candidate = wanted.candidate.as_ref().unwrap_or(&wanted.installed);
    let (file, metadata) = open(candidate)?;
    let running =
        fs::metadata(&wanted.running).map_err(|error| format!("{}: {error}", wanted.running.display()))?;
    let is = |other: &fs::Metadata| (metadata.dev(), metadata.ino()) == (other.dev(), other.ino());
    let same = is(&running);
    // A link is followed: what it points to is what is replaced.
    let installed = fs::canonicalize(&wanted.installed)
        .map_err(|error| format!("{}: {error}", wanted.installed.display()))?;
    let copies = wanted.candidate.is_some()
        && !wanted.check
        && !fs::metadata(&installed).is_ok_and(|metadata| is(&metadata));
    let fresh = beside(&installed);
    let mut descriptor = None;
    let program = if copies {
        copy(file, &fresh)?;
        fresh.clone()
    } else {
        // The file that was looked at, whatever its path names by now.
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&file));
        descriptor = Some(file);
        PathBuf::from(path)
    };
    let checked = check(&program);
    drop(descriptor);
    let (release, found) = checked.inspect_err(|_| {
        if copies && let Err(error) = fs::remove_file(&fresh) {
            tracing::warn!("remove {}: {error}", fresh.display());
        }
    })?;
    let mut kept = None;
    if !wanted.check && !same {
        let is_kept = fs::metadata(&wanted.kept)
            .is_ok_and(|kept| (kept.dev(), kept.ino()) == (running.dev(), running.ino()));
        if !is_kept {
            let copied = beside(&wanted.kept);
            // Below a root of its own there may be no such folder.
            let folder = wanted.kept.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
            let source = File::open(&wanted.running)
                .map_err(|error| format!("{}: {error}", wanted.running.display()))?;
            copy(source, &copied)?;
            rename(&copied, &wanted.kept)?;
        }
        kept = Some(wanted.kept.to_string_lossy().into_owned());
    }
    if copies {
        rename(&fresh, &installed)?;
    }
    Ok(json!({
        "candidate": candidate.to_string_lossy(),
        "release": release,
        "found": found,
        "installed": installed.to_string_lossy(),
        "kept": kept,
        "replaced": copies,
        "same": same,
    }))
}

/// Opens a program, if nobody but root can have written it.
fn open(path: &Path) -> Result<(File, fs::Metadata), Refused> {
    let say = |what: &str| format!("{}: {what}", path.display());
    let file = File::open(path).map_err(|error| say(&error.to_string()))?;
    let metadata = file.metadata().map_err(|error| say(&error.to_string()))?;
    if !metadata.is_file() {
        return Err(say("is no regular file"));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(say(&format!("belongs to uid {}, and not to root", metadata.uid())));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(say(&format!(
            "may be written by others (mode {:04o}): chmod go-w",
            metadata.mode() & 0o7777
        )));
    }
    if metadata.mode() & 0o100 == 0 {
        return Err(say(&format!("is not executable (mode {:04o})", metadata.mode() & 0o7777)));
    }
    Ok((file, metadata))
}

/// Beside a file, on its file system.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn copy(mut from: File, to: &Path) -> Result<(), Refused> {
    let say = |error: io::Error| match error.raw_os_error() {
        Some(libc::EROFS) => {
            let folder = to.parent().unwrap_or(to).display();
            format!("{folder} is on a read-only file system: nothing can be installed there")
        }
        _ => format!("write {}: {error}", to.display()),
    };
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(say(error)),
        Ok(()) | Err(_) => {}
    }
    let copied = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(to)?;
        from.rewind()?;
        io::copy(&mut from, &mut file)?;
        file.flush()?;
        // The disk has it before the name has.
        file.sync_all()
    })();
    copied.map_err(|error| {
        // What was copied of it is of no use; that it cannot be removed is no second reason.
        drop(fs::remove_file(to));
        say(error)
    })
}

fn rename(from: &Path, to: &Path) -> Result<(), Refused> {
    let renamed = fs::rename(from, to).and_then(|()| match to.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    });
    renamed.map_err(|error| format!("rename {} to {}: {error}", from.display(), to.display()))
}

/// Has a program read a copy of the state and the service files, and compares that with what `ours` could read.
fn check_motherd(program: &Path, arguments: &[String], ours: &Value) -> Result<Checked, Refused> {
    let mut command = Command::new(program);
    command.args(arguments).arg("--check-state").stdin(Stdio::inherit());
    let Output { status, out, errors } = run(&mut command)?;
    let theirs: Value = match serde_json::from_slice(&out) {
        Ok(theirs) if status.success() => theirs,
        Ok(_) | Err(_) => {
            let said = first_words(if errors.is_empty() { &out } else { &errors });
            return Err(format!("it is no motherd, or cannot read the state: {status}{said}"));
        }
    };
    compare(ours, &theirs)
}

/// Whether one motherd can take over from the other.
fn compare(ours: &Value, theirs: &Value) -> Result<Checked, Refused> {
    let Some(version) = theirs["motherd"].as_str() else {
        return Err("it is no motherd: it does not say which version it is".to_owned());
    };
    let mut wrong = Vec::new();
    let number = |of: &Value, key: &str| of["layouts"][key].as_u64().unwrap_or(0);
    let link = [number(ours, "link"), number(theirs, "link")];
    if link[0] != link[1] {
        wrong.push(format!("it speaks version {} of the link, and initldr speaks {}", link[1], link[0]));
    }
    for (key, what) in [
        ("state", "the state"),
        ("records", "records"),
        ("events", "the event log"),
        ("logs", "what is between log pipes and files"),
    ] {
        // The newest that this one knows, where it does not say which one it has.
        let used = ours["in_use"][key].as_u64().unwrap_or_else(|| number(ours, key));
        let [ours, theirs] = [used, number(theirs, key)];
        if theirs < ours {
            wrong.push(format!("it knows layout {theirs} of {what}, and {ours} is in use"));
        }
    }
    if theirs["state"] != ours["state"] {
        wrong.push(format!("to it the state is {}, which is {}", theirs["state"], ours["state"]));
    }
    for (key, what) in
        [("records", "the record of"), ("services", "the file of service"), ("policies", "the policy")]
    {
        let names = |of: &Value| -> Vec<String> {
            of[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let known = names(theirs);
        let missing: Vec<String> = names(ours).into_iter().filter(|name| !known.contains(name)).collect();
        match &missing[..] {
            [] => {}
            [one] => wrong.push(format!("it cannot read {what} {one}")),
            [first, rest @ ..] => {
                wrong.push(format!("it cannot read {what} {first}, and {} more", rest.len()));
            }
        }
    }
    if !wrong.is_empty() {
        let told = |of: &Value| -> Vec<String> {
            of["problems"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let known = told(ours);
        wrong.extend(told(theirs).into_iter().filter(|problem| !known.contains(problem)).take(5));
        return Err(format!("motherd {version} cannot take over: {}", wrong.join("; ")));
    }
    let count = |key: &str| theirs[key].as_array().map_or(0, Vec::len);
    let found = vec![
        format!("{} records", count("records")),
        format!("{} service files", count("services")),
        format!("{} policies", count("policies")),
    ];
    Ok((format!("motherd {version}"), found))
}

/// Whether a program can be executed in the place of initldr: it says in its file that it speaks this version of the link,
/// and run as an ordinary process with a word that none understands it answers as an initldr does.
fn check_initldr(program: &Path) -> Result<Checked, Refused> {
    let bytes = fs::read(program).map_err(|error| format!("read it: {error}"))?;
    let mark = b"initldr speaks link version ";
    // motherd's own file has these words too, but no digit behind them.
    let digit = bytes.windows(mark.len() + 1).find_map(|window| match window.strip_prefix(mark) {
        Some([digit @ b'0'..=b'9']) => Some(digit - b'0'),
        Some(_) | None => None,
    });
    let version = digit.map(u16::from);
    match version {
        None => return Err("it is no initldr, or one that cannot take the place of another".to_owned()),
        Some(version) if version != link::VERSION => {
            return Err(format!(
                "it speaks version {version} of the link, and what runs {}: that takes a reboot",
                link::VERSION
            ));
        }
        Some(_) => {}
    }
    let mut command = Command::new(program);
    command.arg("--is-this-initldr").stdin(Stdio::null()).env_clear();
    let Output { status, errors, .. } = run(&mut command)?;
    if status.code() != Some(2) || !String::from_utf8_lossy(&errors).contains("usage: initldr") {
        return Err(format!("it does not answer as an initldr: {status}{}", first_words(&errors)));
    }
    Ok(("initldr".to_owned(), vec![format!("version {} of the link", link::VERSION)]))
}

struct Output {
    status: ExitStatus,
    out: Vec<u8>,
    errors: Vec<u8>,
}

/// Runs a program to its end, but no longer than [`CHECK_WITHIN`].
fn run(command: &mut Command) -> Result<Output, Refused> {
    let fail = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("{what}: {error}")
    };
    // Not pipes: nobody reads them until it has ended.
    let memory = || memfd_create(c"said", MFdFlags::MFD_CLOEXEC).map(File::from).map_err(io::Error::from);
    let (mut out, mut errors) = (memory().map_err(fail("memfd"))?, memory().map_err(fail("memfd"))?);
    let mut child = command
        .stdout(out.try_clone().map_err(fail("dup"))?)
        .stderr(errors.try_clone().map_err(fail("dup"))?)
        .spawn()
        .map_err(fail("it cannot be executed"))?;
    let pidfd = pidfd_open(child.id()).map_err(|errno| format!("pidfd_open: {errno}"))?;
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(CHECK_WITHIN).unwrap_or(PollTimeout::MAX);
    if poll(&mut fds, timeout) == Ok(0) {
        child.kill().and_then(|()| child.wait()).map_err(fail("kill it"))?;
        return Err(format!("it was not done within {CHECK_WITHIN:?}, and was killed"));
    }
    let status = child.wait().map_err(fail("wait for it"))?;
    let take = |file: &mut File| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.take(1 << 20).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let (out, errors) = (take(&mut out).map_err(fail("read"))?, take(&mut errors).map_err(fail("read"))?);
    Ok(Output { status, out, errors })
}

/// `: what it said`, or nothing.
fn first_words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
    if line.is_empty() { line } else { format!(": {line}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(link: u64, records: u64, names: &[&str]) -> Value {
        json!({
            "motherd": "1.2.3",
            "layouts": { "link": link, "state": 2, "records": records, "events": 1, "logs": 1 },
            "state": "known",
            "records": names,
            "services": names,
            "policies": ["base/default"],
            "problems": names.is_empty().then_some("web: error[unknown-key]").into_iter().collect::<Vec<_>>(),
        })
    }

    #[test]
    fn one_that_reads_all_of_it_can_take_over_and_may_know_more() {
        let (release, found) = compare(&of(3, 4, &["web"]), &of(3, 5, &["web", "new"])).unwrap();
        assert_eq!(release, "motherd 1.2.3");
        assert_eq!(found, ["2 records", "2 service files", "1 policies"]);
    }

    #[test]
    fn one_that_knows_the_layout_of_the_state_there_is_can_take_over() {
        let with = |known: u64, used: u64| {
            let mut of = of(3, 4, &["web"]);
            (of["layouts"]["state"], of["in_use"]) = (known.into(), json!({ "state": used }));
            of
        };
        assert!(
            compare(&with(3, 2), &of(3, 4, &["web"])).is_ok(),
            "made by the one before, and not yet anew"
        );
        assert!(compare(&of(3, 4, &["web"]), &with(3, 2)).is_ok(), "of a motherd that does not say it");
        let refused = compare(&with(3, 3), &of(3, 4, &["web"])).unwrap_err();
        assert_eq!(
            refused,
            "motherd 1.2.3 cannot take over: it knows layout 2 of the state, and 3 is in use"
        );
    }

    #[test]
    fn each_thing_that_it_cannot_read_is_named() {
        let refused = compare(&of(3, 4, &["db", "web"]), &of(4, 3, &[])).unwrap_err();
        assert_eq!(
            refused,
            "motherd 1.2.3 cannot take over: it speaks version 4 of the link, and initldr speaks 3; it knows layout 3 of \
             records, and 4 is in use; it cannot read the record of db, and 1 more; it cannot read the file of service \
             db, and 1 more; web: error[unknown-key]"
        );
        let refused = compare(&of(3, 4, &[]), &json!({ "something": "else" })).unwrap_err();
        assert_eq!(refused, "it is no motherd: it does not say which version it is");
    }

    #[test]
    fn what_is_wanted_comes_back_from_a_command_line() {
        let wanted = Wanted {
            which: Which::Initldr,
            candidate: None,
            installed: "/sbin/initldr".into(),
            kept: "/sbin/initldr.prev".into(),
            running: "/proc/1/exe".into(),
            check: true,
        };
        let back = Wanted::decode(&wanted.encode().to_string()).unwrap();
        assert_eq!((back.which, back.candidate, back.installed), (Which::Initldr, None, wanted.installed));
        assert!(Wanted::decode("{}").is_none() && Wanted::decode("").is_none());
    }
}
