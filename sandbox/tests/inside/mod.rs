//! Runs a shell under a policy and answers what it saw.

#![allow(dead_code, unused_imports, reason = "each test file uses its part of this")]

mod skipped;

use std::{
    fs,
    io::Read,
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

pub(crate) use skipped::{is_root, skip};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use sandbox::{
    Plan,
    cgroup::Cgroup,
    compile::{Subject, compile},
    diagnostic::Report,
    kernel::Kernel,
    launch::{Launch, LaunchError, launch},
    policy::{Policy, Store, load_text},
};

/// What came of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Standard output and standard error, as they came.
    pub(crate) output: String,
    /// The exit status; a signal is negative.
    pub(crate) status: i32,
}

/// The shipped policies, with the modes that a loader insists on whatever the umask of the checkout was.
pub(crate) fn store() -> Store {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    let copy = COPY.get_or_init(|| {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/base/default.toml");
        let folder = scratch("policies");
        fs::create_dir_all(folder.join("base")).expect("the folder is ours");
        fs::copy(shipped, folder.join("base/default.toml")).expect("the folder is ours");
        for (path, mode) in [("", 0o755), ("base", 0o755), ("base/default.toml", 0o644)] {
            fs::set_permissions(folder.join(path), fs::Permissions::from_mode(mode)).expect("it is ours");
        }
        folder
    });
    Store::new(vec![copy.clone()])
}

/// A new, empty folder for one test that everybody may enter, on the file system of the build.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    if path.exists() {
        fs::remove_dir_all(&path).expect("it is ours");
    }
    fs::create_dir_all(&path).expect("the target folder is ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

/// A policy that extends `base/default` by these lines.
pub(crate) fn policy(lines: &str) -> Policy {
    try_policy(lines).unwrap_or_else(|report| panic!("{report}"))
}

fn try_policy(lines: &str) -> Result<Policy, Report> {
    let text = format!("extends = [\"base/default\"]\n{lines}");
    load_text(Path::new("test.toml"), &text, &store())
}

/// That policy for this machine, as the service `name`.
pub(crate) fn plan_for(name: &str, lines: &str) -> Arc<Plan> {
    try_plan_for(name, lines).unwrap_or_else(|report| panic!("{lines}\n{report}"))
}

/// The same, or everything that is wrong with it.
pub(crate) fn try_plan_for(name: &str, lines: &str) -> Result<Arc<Plan>, Report> {
    let kernel = Kernel::probe(None).expect("this machine can be asked");
    let subject = Subject { name: name.to_owned(), root: "/".into(), sockets: vec![] };
    compile(&try_policy(lines)?, &subject, &kernel)
}

/// Runs `script` in a shell under `base/default` and these lines; a launch that fails is the error's text.
pub(crate) fn try_run(lines: &str, script: &str) -> Result<Ran, String> {
    run_plan(&plan_for("test", lines), script)
}

/// The same, for what must be launched.
pub(crate) fn run(lines: &str, script: &str) -> Ran {
    try_run(lines, script).unwrap_or_else(|error| panic!("{error}"))
}

/// The same in a cgroup of its own, with what the plan puts on it; `None` where there is no cgroup2 tree.
pub(crate) fn run_in_cgroup(plan: &Arc<Plan>, script: &str) -> Option<Result<Ran, String>> {
    let kernel = Kernel::probe(None).expect("this machine can be asked");
    let base = kernel.cgroup_base?;
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("sandbox-test-{}-{number}.service", std::process::id());
    let cgroup = match Cgroup::create(&base, &name, plan) {
        Ok(cgroup) => cgroup,
        Err(error) => return Some(Err(error.to_string())),
    };
    let ran = shell(plan, script, Some(&cgroup));
    cgroup.remove().expect("the shell was the only process in it");
    Some(ran)
}

/// The same, for a plan, without the limits and programs of a cgroup.
pub(crate) fn run_plan(plan: &Arc<Plan>, script: &str) -> Result<Ran, String> {
    shell(plan, script, None)
}

fn shell(plan: &Arc<Plan>, script: &str, cgroup: Option<&Cgroup>) -> Result<Ran, String> {
    let (output, ended) =
        command_in(plan, &["/bin/sh", "-c", script], cgroup).map_err(|error| error.to_string())?;
    let status = match (ended, ended.pid()) {
        (WaitStatus::Exited(_, status), _) => status,
        (WaitStatus::Signaled(_, signal, _), _) => -(signal as i32),
        (_, of) => panic!("{of:?} did not end: {ended:?}"),
    };
    Ok(Ran { output, status })
}

/// Runs a command under a plan: what it printed on both, and how it ended.
pub(crate) fn command(plan: &Arc<Plan>, argv: &[&str]) -> Result<(String, WaitStatus), LaunchError> {
    command_in(plan, argv, None)
}

fn command_in(
    plan: &Arc<Plan>,
    argv: &[&str],
    cgroup: Option<&Cgroup>,
) -> Result<(String, WaitStatus), LaunchError> {
    let (mut reader, writer) = std::io::pipe().expect("a pipe can be made");
    let null = fs::File::options().read(true).write(true).open("/dev/null").expect("it is there");
    let argv: Vec<String> = argv.iter().map(|argument| (*argument).to_owned()).collect();
    let launched = launch(&Launch {
        cgroup,
        ..Launch::new(plan, &argv, [null.as_fd(), writer.as_fd(), writer.as_fd()])
    })?;
    drop(writer);
    let mut output = Vec::new();
    reader.read_to_end(&mut output).expect("a pipe can be read");
    let ended = waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("it is our child");
    Ok((String::from_utf8_lossy(&output).into_owned(), ended))
}

/// The codes of what compiling these lines for this machine complains about.
pub(crate) fn complaints(lines: &str) -> Vec<&'static str> {
    match try_plan_for("test", lines) {
        Ok(_) => Vec::new(),
        Err(report) => report.diagnostics.iter().map(|diagnostic| diagnostic.code).collect(),
    }
}
