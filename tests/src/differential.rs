//! What `motherctl policy can` says of random policies, held to what a probe experiences inside of their sandboxes.
//!
//! Every policy is drawn from a seed, written as TOML, loaded, compiled for this machine and launched with the probe,
//! which attempts a set of acts; then each answer of the plan is compared. File modes and owners, which a plan does not
//! decide, are made not to matter: everything in the scratch folder is open to everybody. A denied call gets an errno
//! that no kernel returns, so that the filter's no is told from the kernel's.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use sandbox::Plan;
use sandbox::compile::{Subject, compile};
use sandbox::kernel::Kernel;
use sandbox::launch::{Launch, launch};
use sandbox::policy::{Policy, Store, load_text};
use sandbox::question::{Question, can};

use crate::probe::Outcome;

/// What came of it.
#[derive(Debug, Default)]
pub struct Figures {
    /// Policies that were launched.
    pub policies: u32,
    /// Texts that were no policy, or not for this machine, such as two roles for one path.
    pub refused: u32,
    /// Questions that were asked and compared.
    pub questions: u32,
    /// Of them, those that the plan answers with yes.
    pub allowed: u32,
    /// By act: questions, and how many of them were yes.
    pub acts: BTreeMap<String, (u32, u32)>,
    /// Every disagreement, and every launch that failed.
    pub wrong: Vec<String>,
}

/// SplitMix64: small, and the same everywhere for ever.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }

    /// True `of` times in a hundred.
    fn percent(&mut self, of: u64) -> bool {
        self.next() % 100 < of
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn some<T: Clone>(&mut self, from: &[T], percent: u64) -> Vec<T> {
        from.iter().filter(|_| self.percent(percent)).cloned().collect()
    }
}

/// The folders of the scratch folder that policies are about.
const FOLDERS: [&str; 8] = ["a", "a/b", "a/b/c", "d", "d/e", "f", "m", "n"];
const LINKS: [(&str, &str); 3] = [("l", "a/b"), ("a/up", "../d"), ("d/self", ".")];

/// A folder that everybody may use, gone in the end.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new(probe: &Path) -> Result<Self> {
        // Not below /tmp, which the policies may cover.
        let scratch =
            Self(Path::new("/var/tmp").join(format!("motherd-differential-{}", std::process::id())));
        let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777));
        fs::create_dir_all(&scratch.0).with_context(|| format!("make {}", scratch.0.display()))?;
        open(&scratch.0)?;
        for folder in FOLDERS.into_iter().chain(["bin"]) {
            let folder = scratch.0.join(folder);
            fs::create_dir_all(&folder)?;
            open(&folder)?;
            let file = folder.join("file");
            fs::write(&file, "text\n")?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o666))?;
            fs::copy("/bin/true", folder.join("tool"))?;
            open(&folder.join("tool"))?;
        }
        for (link, target) in LINKS {
            symlink(target, scratch.0.join(link))?;
        }
        let own = scratch.0.join("bin/probe");
        fs::copy(probe, &own).with_context(|| format!("copy {}", probe.display()))?;
        open(&own)?;
        Ok(scratch)
    }

    fn path(&self, path: &str) -> String {
        self.0.join(path).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Compares `count` random policies. Needs root.
pub fn run(probe: &Path, seed: u64, count: u32) -> Result<Figures> {
    let scratch = Scratch::new(probe)?;
    let kernel = Kernel::probe(None)?;
    let mut figures = Figures::default();
    let mut number = 0;
    while figures.policies < count {
        // Each has a seed of its own, so that one that disagrees can be made again by itself.
        let own = seed.wrapping_add(number);
        number += 1;
        ensure!(number < u64::from(count) * 50 + 100, "hardly any of the drawn policies loads");
        let mut random = Random(own.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let text = policy_text(&mut random, &scratch);
        let Ok(policy) = load_text(Path::new("random.toml"), &text, &Store::new(Vec::new())) else {
            figures.refused += 1;
            continue;
        };
        let subject = Subject { name: "differential".to_owned(), root: "/".into(), sockets: Vec::new() };
        let Ok(plan) = compile(&policy, &subject, &kernel) else {
            figures.refused += 1;
            continue;
        };
        figures.policies += 1;
        compare(&mut figures, &scratch, (own, &text), &policy, &plan)?;
    }
    Ok(figures)
}

fn list(values: &[String]) -> String {
    format!("[{}]", values.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(", "))
}

/// Paths that are no error where a mount of the policy's covers them.
fn optional(values: &[String]) -> String {
    let one = |value: &String| format!("{{ path = \"{value}\", optional = true }}");
    format!("[{}]", values.iter().map(one).collect::<Vec<_>>().join(", "))
}

const CAPABILITIES: [&str; 4] = ["CAP_NET_BIND_SERVICE", "CAP_KILL", "CAP_SYS_TIME", "CAP_NET_RAW"];
const PORTS: [u16; 4] = [701, 702, 41_701, 41_702];
/// Calls that change nothing when all their arguments are zero, and that no other key rules on.
const CALLS: [&str; 20] = [
    "add_key",
    "bpf",
    "clock_settime",
    "delete_module",
    "eventfd2",
    "flock",
    "getcwd",
    "getpid",
    "getuid",
    "inotify_init1",
    "io_uring_setup",
    "keyctl",
    "mount",
    "perf_event_open",
    "process_vm_readv",
    "ptrace",
    "sched_yield",
    "swapon",
    "sysinfo",
    "times",
];

fn policy_text(random: &mut Random, scratch: &Scratch) -> String {
    let folders: Vec<String> = FOLDERS.iter().map(|folder| scratch.path(folder)).collect();
    let mut files: Vec<String> = folders.clone();
    files.extend(["a/file", "a/b/tool", "d/e/file", "l", "a/up"].map(|path| scratch.path(path)));
    // Roles: most folders have none, none has two.
    let (mut read_only, mut read_write, mut hidden, mut tmpfs, mut bind) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    if random.percent(60) {
        read_only.push("/".to_owned());
    }
    for folder in &folders {
        match random.below(12) {
            0 => read_only.push(folder.clone()),
            1 | 2 => read_write.push(folder.clone()),
            3 => hidden.push(folder.clone()),
            4 => {
                let noexec = random.pick(&["", ", noexec = true", ", noexec = false"]);
                tmpfs.push(format!("{{ path = \"{folder}\", size = \"1M\", mode = \"0777\"{noexec} }}"));
            }
            5 | 6 => {
                let from = random.pick(&folders);
                let flags = format!("read_only = {}, noexec = {}", random.percent(50), random.percent(30));
                bind.push(format!("{{ from = \"{from}\", to = \"{folder}\", {flags} }}"));
            }
            _ => {}
        }
    }
    if random.percent(20) {
        hidden.push(scratch.path("d/file"));
    }
    let system = ["/usr", "/lib", "/lib64", "/bin"].map(str::to_owned);
    let own = scratch.path("bin");
    let mut grants = |extra: &[String]| {
        let mut all = random.some(&files, 22);
        all.extend(random.some(extra, 40));
        all
    };
    let kernel_files = ["/proc", "/dev", "/etc", "/sys", "/dev/null"].map(str::to_owned);
    let mut read = grants(&kernel_files);
    let mut execute = grants(&[]);
    let write = grants(&kernel_files);
    for list in [&mut read, &mut execute] {
        list.extend(system.iter().cloned());
        list.push(own.clone());
    }
    let keep = random.some(&CAPABILITIES.map(str::to_owned), 40);
    let ambient = random.some(&keep, 50);
    let mut ports = || match random.below(4) {
        0 => "\"any\"".to_owned(),
        1 => "[]".to_owned(),
        _ => format!("{:?}", random.some(&PORTS, 50)),
    };
    let (bind_tcp, connect_tcp) = (ports(), ports());
    let mut allow = vec!["@system-service".to_owned()];
    allow.extend(random.some(&CALLS.map(str::to_owned), 40));
    let mut deny = random.some(&CALLS.map(str::to_owned), 30);
    deny.extend(random.some(&["bind".to_owned(), "connect".to_owned()], 8));
    let families =
        ["", "\"AF_UNIX\"", "\"AF_UNIX\", \"AF_INET\"", "\"AF_INET6\"", "\"AF_INET\", \"AF_INET6\""];
    let rule = match random.pick(&families) {
        "" => String::new(),
        families => format!("[[seccomp.rule]]\ncall = \"socket\"\narg = 0\nin = [{families}]\n"),
    };
    format!(
        "[namespaces]\nnet = \"{net}\"\npid = \"{pid}\"\n[filesystem]\nread_only = {read_only}\nhidden = {hidden}\n\
         read_write = {read_write}\ntmpfs = [{tmpfs}]\nbind = [{bind}]\nproc = \"{proc}\"\ndev = \"{dev}\"\n\
         sys = \"{sys}\"\n[process]\nuser = {user}\ngroup = 65534\numask = \"0000\"\nmemory_deny_write_execute = {mdwe}\n\
         [capabilities]\nkeep = {keep}\nambient = {ambient}\n[landlock]\nread = {read}\nexecute = {execute}\n\
         write = {write}\nbind_tcp = {bind_tcp}\nconnect_tcp = {connect_tcp}\n[seccomp]\ndefault = \"errno:EL2HLT\"\n\
         allow = {allow}\ndeny = {deny}\n{rule}",
        net = random.pick(&["private", "private", "none", "host"]),
        pid = random.pick(&["private", "host"]),
        read_only = list(&read_only),
        hidden = list(&hidden),
        read_write = list(&read_write),
        tmpfs = tmpfs.join(", "),
        bind = bind.join(", "),
        proc = random.pick(&["self", "full", "none"]),
        dev = random.pick(&["minimal", "minimal", "none", "host"]),
        sys = random.pick(&["read-only", "none"]),
        user = random.pick(&["0", "65534", "\"auto\""]),
        mdwe = random.percent(60),
        keep = list(&keep),
        ambient = list(&ambient),
        read = optional(&unique(read)),
        execute = optional(&unique(execute)),
        write = optional(&unique(write)),
        allow = list(&unique(allow)),
        deny = list(&deny),
    )
}

fn unique(mut values: Vec<String>) -> Vec<String> {
    values.sort();
    values.dedup();
    values
}

/// What is asked: the act and the object of `policy can`, and the probe's act.
fn questions(scratch: &Scratch) -> Vec<(&'static str, String, String)> {
    let mut questions = Vec::new();
    let mut ask = |act, object: String, probe: String| questions.push((act, object, probe));
    let links = LINKS.iter().map(|(link, _)| *link);
    for folder in FOLDERS.into_iter().chain(links) {
        let path = |name: &str| scratch.path(&format!("{folder}/{name}"));
        ask("read", path("file"), format!("read {}", path("file")));
        ask("read", scratch.path(folder), format!("list {}", scratch.path(folder)));
        ask("write", path("file"), format!("write-or-create {}", path("file")));
        ask("write", path("new"), format!("create {}", path("new")));
        ask("exec", path("tool"), format!("run {}", path("tool")));
    }
    for path in ["/etc/passwd", "/proc/self/status", "/dev/zero", "/dev/null", "/usr/bin/env", "/no/such"] {
        ask("read", path.to_owned(), format!("read {path}"));
    }
    ask("write", "/dev/null".to_owned(), "write /dev/null".to_owned());
    ask("write", "/dev/new".to_owned(), "create /dev/new".to_owned());
    for port in PORTS {
        ask("bind", port.to_string(), format!("bind-any {port}"));
        ask("connect", port.to_string(), format!("connect-any {port}"));
    }
    for call in CALLS {
        ask("call", call.to_owned(), format!("call-errno {call}"));
    }
    for (name, number) in CAPABILITIES.into_iter().zip([10, 5, 25, 13]) {
        ask("cap", name.to_owned(), format!("cap {number}"));
    }
    questions
}

fn compare(
    figures: &mut Figures,
    scratch: &Scratch,
    (seed, text): (u64, &str),
    policy: &Policy,
    plan: &Arc<Plan>,
) -> Result<()> {
    let questions = questions(scratch);
    let acts: Vec<String> = questions.iter().map(|(_, _, act)| act.clone()).collect();
    let answers: Vec<_> = questions
        .iter()
        .map(|(act, object, _)| Question::parse(act, object).map(|question| can(policy, plan, &question)))
        .collect::<std::result::Result<_, String>>()
        .map_err(anyhow::Error::msg)?;
    let output = match probe(plan, &scratch.path("bin/probe"), &acts) {
        Ok(output) => output,
        Err(error) => {
            figures.wrong.push(format!("seed {seed}: it could not be launched: {error:#}\n{text}"));
            return Ok(());
        }
    };
    let lines: Vec<&str> = output.lines().collect();
    if lines.len() != acts.len() {
        figures.wrong.push(format!(
            "seed {seed}: {} answers to {} acts:\n{output}\n{text}",
            lines.len(),
            acts.len()
        ));
        return Ok(());
    }
    for (((act, object, attempted), answer), line) in questions.iter().zip(&answers).zip(lines) {
        // The host's /dev is root's: there its mode decides.
        if object == "/dev/new" && text.contains("dev = \"host\"") {
            continue;
        }
        let outcome = Outcome::read(line, i32::from(line != "allowed")).with_context(|| attempted.clone())?;
        let experienced = match (*act, outcome) {
            // EL2HLT is the filter's; of io_uring's calls ENOSYS, which elsewhere is a kernel's that was built without.
            ("call", Outcome::Denied(Errno::EL2HLT)) => false,
            ("call", Outcome::Denied(Errno::ENOSYS)) => !object.starts_with("io_uring_"),
            ("call", Outcome::Denied(_)) => true,
            (_, outcome) => outcome == Outcome::Allowed,
        };
        let count = figures.acts.entry((*act).to_owned()).or_default();
        count.0 += 1;
        count.1 += u32::from(answer.allowed);
        figures.questions += 1;
        figures.allowed += u32::from(answer.allowed);
        if experienced != answer.allowed {
            figures
                .wrong
                .push(format!("seed {seed}: can {act} {object}: {answer}but the probe: {outcome}\n{text}"));
        }
    }
    Ok(())
}

/// What the probe says of each act inside of the sandbox.
fn probe(plan: &Arc<Plan>, program: &str, acts: &[String]) -> Result<String> {
    let (mut reader, writer) = std::io::pipe()?;
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    let argv: Vec<String> =
        [program, "each"].into_iter().map(str::to_owned).chain(acts.iter().cloned()).collect();
    let launched = launch(&Launch::new(plan, &argv, [null.as_fd(), writer.as_fd(), writer.as_fd()]))?;
    drop(writer);
    let mut output = String::new();
    reader.read_to_string(&mut output)?;
    let end = waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
    ensure!(
        matches!(end, nix::sys::wait::WaitStatus::Exited(_, 0)),
        "the probe ended with {end:?}: {output}"
    );
    Ok(output)
}
