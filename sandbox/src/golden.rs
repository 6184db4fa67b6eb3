//! What the policy tools print about the shipped policies, on a described host and a described kernel, compared with
//! `tests/golden/*.txt`; and what they say that such a machine lacks, in `tests/refusals/*.txt`. With `BLESS=1` the texts are written anew, to be read in the diff.

use std::{fs, io, path::PathBuf};

use crate::{
    compile::{FileKind, Host, codes, compile_on, described},
    doctor::{self, Facts},
    explain,
    kernel::{Kernel, Mitigation, PressureWindows},
    ordinary::OrdinaryUser,
    plan::Plan,
    policy::{self, DeviceKind, Policy, Store, load_text},
    question::{ACTS, Question, can_on},
};

/// A Debian with the daemons that have a policy.
#[derive(Debug)]
struct Debian;

const FOLDERS: &str = "/ /usr /usr/bin /usr/sbin /usr/lib /usr/lib64 /etc /proc /proc/sys /sys /dev /dev/shm /tmp /run \
                       /root /home /boot /srv /var /var/www /var/log /var/log/nginx /var/lib /var/lib/motherd \
                       /var/lib/nginx /var/lib/postgresql /var/lib/redis";
const FILES: &str = "/dev/null /dev/urandom /etc/passwd /etc/shadow /usr/bin/cat /usr/sbin/nginx /var/www/index.html \
                     /root/key /run/docker.sock /proc/sys/kernel/hostname";
const LINKS: [(&str, &str); 4] =
    [("/bin", "usr/bin"), ("/sbin", "usr/sbin"), ("/lib", "usr/lib"), ("/lib64", "usr/lib64")];

impl Host for Debian {
    fn kind(&self, path: &str) -> io::Result<FileKind> {
        let mut path = path.to_owned();
        for (from, to) in LINKS {
            if let Some(rest) =
                path.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('/'))
            {
                path = format!("/{to}{rest}");
                break;
            }
        }
        if FOLDERS.split_whitespace().any(|known| known == path) {
            return Ok(FileKind::Directory);
        }
        let file = FILES.split_whitespace().any(|known| known == path);
        file.then_some(FileKind::Other).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn link(&self, path: &str) -> Option<String> {
        LINKS.iter().find(|(from, _)| *from == path).map(|(_, to)| (*to).to_owned())
    }

    fn user(&self, name: &str) -> io::Result<Option<(u32, u32)>> {
        Ok([("root", 0), ("www-data", 33), ("redis", 105), ("postgres", 106), ("memcache", 107)]
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, id)| (*id, *id)))
    }

    fn device(&self, path: &str) -> io::Result<Option<(DeviceKind, u32, u32)>> {
        Ok((path == "/dev/kmsg").then_some((DeviceKind::Char, 1, 11)))
    }
    fn majors(&self, _kind: DeviceKind, _driver: &str) -> io::Result<Vec<u32>> {
        Ok(Vec::new())
    }

    fn primary_group(&self, _uid: u32) -> io::Result<Option<u32>> {
        Ok(None)
    }

    fn group(&self, name: &str) -> io::Result<Option<u32>> {
        Ok(self.user(name)?.map(|(id, _)| id))
    }
}

fn shipped() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

/// A copy with the modes that a loader insists on, whatever the umask of the checkout was.
fn store() -> (PathBuf, Store) {
    use std::{os::unix::fs::PermissionsExt, sync::atomic};
    static NUMBER: atomic::AtomicU32 = atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("golden-{}-{number}", std::process::id()));
    for name in all() {
        let (from, to) = (shipped().join(format!("{name}.toml")), folder.join(format!("{name}.toml")));
        let above = to.parent().unwrap();
        fs::create_dir_all(above).unwrap();
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).unwrap();
        for dir in [&folder, above] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    (folder.clone(), Store::new(vec![folder]))
}

/// The names of all shipped policies.
pub(crate) fn all() -> Vec<String> {
    let names = Store::new(vec![shipped()]).names();
    let known = ["base/default", "boot/sysctl", "hello", "nginx", "redis", "unconfined"];
    assert!(known.iter().all(|name| names.iter().any(|shipped| shipped == name)), "{names:?}");
    names
}

/// Loads a shipped policy; its files seem to be where they are installed.
pub(crate) fn load(name: &str) -> Policy {
    let (folder, store) = store();
    let policy = store.load(name).unwrap_or_else(|report| panic!("{report}"));
    fs::remove_dir_all(folder).unwrap();
    policy
}

/// What is wrong with a policy that extends the shipped ones.
pub(crate) fn refused(text: &str) -> String {
    let (folder, store) = store();
    let report = load_text(std::path::Path::new("t.toml"), text, &store).unwrap_err();
    fs::remove_dir_all(folder).unwrap();
    report.to_string()
}

fn plan(policy: &Policy, kernel: &Kernel) -> Plan {
    compile_on(policy, &described::subject(), kernel, &Debian).unwrap_or_else(|report| panic!("{report}"))
}

/// Compares with a file; the temporary folder of the policies becomes the installed one.
fn check(name: &str, text: &str, wrong: &mut Vec<String>) {
    let temporary = std::env::temp_dir().join("golden-");
    let mut shown = String::new();
    for (number, part) in text.split(&temporary.display().to_string()).enumerate() {
        if number == 0 {
            shown.push_str(part);
            continue;
        }
        shown.push_str("/usr/lib/motherd/policies");
        shown.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-'));
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &shown).unwrap();
    }
    if fs::read_to_string(&file).unwrap_or_default() != shown {
        wrong.push(format!("{}: BLESS=1 writes it anew; what is printed now:\n{shown}", file.display()));
    }
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn show_and_explain_print_this_about_the_shipped_policies() {
    let mut wrong = Vec::new();
    for name in all() {
        let policy = load(&name);
        let file = name.replace('/', "-");
        check(&format!("show-{file}"), &policy::show(&policy), &mut wrong);
        let topics = explain::explain(&policy, &plan(&policy, &described::kernel(7)), &Debian);
        check(&format!("explain-{file}"), &explain::text(&topics, str::to_owned), &mut wrong);
    }
    let policy = load("base/default");
    let old = Kernel { controllers: ["cpu".to_owned()].into(), cgroup_bpf: None, ..described::kernel(2) };
    let topics = explain::explain(&policy, &plan(&policy, &old), &Debian);
    check("explain-base-default-on-an-old-kernel", &explain::text(&topics, str::to_owned), &mut wrong);
    none(&wrong);
}

/// A policy without the places in it.
fn meaning(policy: &Policy) -> String {
    let text = format!("{:?}", policy.rules());
    let mut parts = text.split("Place { file: FileId(");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('}').map_or("", |(_, rest)| rest))
}

#[test]
fn what_show_prints_of_a_shipped_policy_loads_and_means_the_same() {
    for name in all() {
        let policy = load(&name);
        let shown = policy::show(&policy);
        let again = load_text("shown.toml".as_ref(), &shown, &Store::new(Vec::new()))
            .unwrap_or_else(|report| panic!("{report}\n{shown}"));
        assert_eq!(meaning(&again), meaning(&policy), "{shown}");
        assert_eq!(again.description(), policy.description());
    }
}

#[test]
fn diff_prints_this_about_the_shipped_policies() {
    let mut wrong = Vec::new();
    let kernel = described::kernel(7);
    let names = all();
    let others =
        names.iter().filter(|name| *name != "base/default").map(|name| ("base/default", name.as_str()));
    for (a, b) in others.chain([("nginx", "redis"), ("nginx", "nginx-socket"), ("hello", "hello")]) {
        let (first, second) = (load(a), load(b));
        let plans = (plan(&first, &kernel), plan(&second, &kernel));
        let difference = explain::diff((&first, &plans.0), (&second, &plans.1), &Debian);
        let name = format!("diff-{a}-{b}").replace('/', "-");
        check(&name, &difference.text(a, b), &mut wrong);
    }
    none(&wrong);
}

/// Questions that differ from policy to policy, and such as show each kind of answer.
const QUESTIONS: [&str; 37] = [
    "read /etc/passwd",
    "read /etc/missing",
    "read /root/key",
    "read /var/www/index.html",
    "read /bin/cat",
    "read /proc/self/status",
    "read /dev/urandom",
    "read /dev/sda",
    "write /etc/passwd",
    "write /tmp/new",
    "write /tmp/no/new",
    "write /run/nginx.pid",
    "write /var/lib/redis/dump.rdb",
    "write /var/lib/postgresql/data",
    "write /var/lib/motherd/seed",
    "write /proc/sys/kernel/hostname",
    "write /dev/null",
    "write /dev/new",
    "exec /usr/sbin/nginx",
    "exec /bin/cat",
    "exec /tmp/new",
    "exec /etc/passwd",
    "bind 80",
    "bind 5432",
    "bind 6379",
    "bind 11211",
    "bind 0",
    "connect 443",
    "call ptrace",
    "call sethostname",
    "call io_uring_setup",
    "call socket",
    "call mmap",
    "call openat",
    "call 999",
    "cap CAP_NET_BIND_SERVICE",
    "cap sys_admin",
];

#[test]
fn can_answers_this_about_the_shipped_policies() {
    let mut wrong = Vec::new();
    for name in all() {
        let policy = load(&name);
        let plan = plan(&policy, &described::kernel(7));
        let mut text = String::new();
        for question in QUESTIONS {
            let (act, object) = question.split_once(' ').unwrap();
            let asked = Question::parse(act, object).unwrap();
            text.push_str(&format!("$ motherctl policy can {name} {question}\n"));
            text.push_str(&format!("{}\n", can_on(&policy, &plan, &asked, &Debian)));
        }
        check(&format!("can-{}", name.replace('/', "-")), &text, &mut wrong);
    }
    none(&wrong);
}

#[test]
fn a_question_that_cannot_be_asked_says_how() {
    for (act, object, expected) in [
        ("call", "opnat", "no syscall is named `opnat` on x86_64: did you mean `openat`?"),
        ("call", "@mount", "`@mount` is a group: `motherctl policy groups @mount` lists its calls"),
        (
            "cap",
            "net_bind_servce",
            "no capability is named `net_bind_servce`: did you mean `CAP_NET_BIND_SERVICE`?",
        ),
        ("read", "etc", "`etc` is no path of the sandbox: one starts with `/`"),
        ("read", "/a/../b", "`/a/../b` cannot be asked about: write it without `.`, `..` and `//`"),
        ("bind", "65536", "`65536` is no port: 0 to 65535, as `80`, `udp:53` or `10.1.2.3:443`"),
        (
            "raed",
            "/",
            "nothing can be asked about `raed`: did you mean `read`?; one can ask about read, write, exec, bind, connect, call, cap",
        ),
    ] {
        assert_eq!(Question::parse(act, object), Err(expected.to_owned()));
    }
    assert_eq!(ACTS.len(), 7);
    assert_eq!(Question::parse("read", "/tmp/"), Ok(Question::Read("/tmp".to_owned())));
}

/// A kernel that lacks what a diagnostic of this code is about, or one of today.
fn kernel_for(code: &str) -> Kernel {
    let today = described::kernel(7);
    match code {
        "needs-root" => today.for_ordinary_user(OrdinaryUser { uid: 1000, gid: 1000, lowest_nice: 0 }),
        "no-cgroup-bpf" => Kernel { cgroup_bpf: Some(false), ..today },
        "no-controller" => {
            Kernel { controllers: ["cpu", "memory", "pids"].map(str::to_owned).into(), ..today }
        }
        "no-landlock" => described::kernel(2),
        "no-mitigation" => Kernel { store_bypass: Mitigation::Unavailable, ..today },
        "no-pressure" => Kernel { pressure: PressureWindows::None, ..today },
        "no-time-offset" => Kernel { release: "6.1.0".to_owned(), ..today },
        "no-user-namespace" => Kernel { user_namespaces: false, ..today },
        "pressure-window" => Kernel { pressure: PressureWindows::Whole, ..today },
        _ => today,
    }
}

/// `tests/refusals/CODE.toml` is a policy that loads and that some machine cannot enforce, `CODE.txt` what is printed.
#[test]
fn what_a_machine_lacks_is_told_like_this() {
    let numbers: Vec<String> = (0..4200).map(|number| (number * 7).to_string()).collect();
    let binds: Vec<String> =
        (0..300).map(|number| format!("{{ from = \"/usr/bin\", to = \"/tmp/{number}\" }}")).collect();
    let mut wrong = Vec::new();
    for (code, _) in codes::CODES {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/refusals/{code}.toml"));
        let Ok(text) = fs::read_to_string(&file) else {
            wrong.push(format!("{code}: there is no {}", file.display()));
            continue;
        };
        let text =
            text.replace("MANY_NUMBERS", &numbers.join(", ")).replace("MANY_BINDS", &binds.join(",\n"));
        let (folder, store) = store();
        let policy = load_text(format!("{code}.toml").as_ref(), &text, &store);
        fs::remove_dir_all(folder).unwrap();
        let policy = policy.unwrap_or_else(|report| panic!("{report}"));
        match compile_on(&policy, &described::subject(), &kernel_for(code), &Debian) {
            Ok(_) => wrong.push(format!("{code}: it compiles")),
            Err(report) => {
                if report.diagnostics.iter().all(|diagnostic| diagnostic.code != *code) {
                    wrong.push(format!("{code}: nothing of this code is said"));
                }
                check(&format!("../refusals/{code}"), &report.to_string(), &mut wrong);
            }
        }
    }
    none(&wrong);
}

#[test]
fn doctor_prints_this_about_two_machines() {
    let mut wrong = Vec::new();
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut facts = Facts {
        cgroup_files: words("cgroup.procs cpu.pressure memory.max memory.peak io.max io.weight"),
        namespaces: words("cgroup ipc mnt net pid time user uts").into_iter().collect(),
        is_admin: true,
        ..Facts::default()
    };
    for (name, value) in [
        ("kernel.seccomp.actions_avail", "kill_process kill_thread trap errno user_notif trace log allow"),
        ("user.max_user_namespaces", "127000"),
        ("dev.tty.legacy_tiocsti", "0"),
        ("fs.protected_symlinks", "1"),
        ("fs.protected_hardlinks", "1"),
        ("fs.protected_regular", "2"),
        ("fs.protected_fifos", "1"),
        ("fs.suid_dumpable", "0"),
        ("kernel.yama.ptrace_scope", "1"),
        ("kernel.kptr_restrict", "0"),
        ("kernel.dmesg_restrict", "1"),
        ("kernel.unprivileged_bpf_disabled", "2"),
        ("kernel.io_uring_disabled", "0"),
        ("kernel.perf_event_paranoid", "3"),
        ("vm.unprivileged_userfaultfd", "0"),
    ] {
        facts.sysctls.insert(name.to_owned(), value.to_owned());
    }
    let print = |kernel: &Kernel, facts: &Facts| {
        doctor::table(&doctor::examine(kernel, facts), |_, word| word.to_owned())
    };
    check("doctor-a-machine-of-today", &print(&described::kernel(7), &facts), &mut wrong);
    let old = Kernel { controllers: ["cpu".to_owned()].into(), cgroup_bpf: None, ..described::kernel(2) };
    check("doctor-an-old-machine", &print(&old, &Facts::default()), &mut wrong);
    none(&wrong);
}
