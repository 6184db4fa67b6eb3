//! Keys of every section as a shell inside experiences them, in one table: what it prints with the key, and what it prints
//! under the same policy without it, which is the control.
//!
//! Keys whose effect takes more than a line have tests of their own; `every_key.rs` knows where each is.

mod inside;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Command, Stdio},
};

use inside::{complaints, is_root, scratch, try_run};
use sandbox::{
    compile::{Subject, compile},
    kernel::Kernel,
    policy::{Store, load_text},
};

/// What comes of a script under `base/default` and some lines.
struct Felt {
    key: &'static str,
    /// The lines with the key, and those of the control.
    lines: [&'static str; 2],
    script: &'static str,
    /// What it prints with the key, and without.
    prints: [&'static str; 2],
}

const fn felt(
    key: &'static str,
    lines: [&'static str; 2],
    script: &'static str,
    prints: [&'static str; 2],
) -> Felt {
    Felt { key, lines, script, prints }
}

/// The host's tree as it is.
const AS_HOST: &str = "[filesystem]\nread_only = []\nhidden = []\ntmpfs = []\nproc = \"full\"\ndev = \"host\"\nsys = \"host\"\n";

/// `@dir@` is a folder that everybody may write, with a file `file`; `@KIND@` is the host's namespace of that kind, which
/// a shell inside compares with its own; `@AS_HOST@` is [`AS_HOST`].
const TABLE: &[Felt] = &[
    // [namespaces]
    felt(
        "namespaces.mount",
        ["@AS_HOST@[namespaces]\nmount = \"host\"", "@AS_HOST@"],
        "[ $(readlink /proc/self/ns/mnt) = @mnt@ ] && echo host || echo own",
        ["host", "own"],
    ),
    felt(
        "namespaces.pid",
        ["[namespaces]\npid = \"host\"", ""],
        "[ $$ = 1 ] && echo one || echo more",
        ["more", "one"],
    ),
    felt(
        "namespaces.ipc",
        ["[namespaces]\nipc = \"host\"", ""],
        "[ $(readlink /proc/self/ns/ipc) = @ipc@ ] && echo host || echo own",
        ["host", "own"],
    ),
    felt(
        "namespaces.uts",
        ["[namespaces]\nuts = \"host\"", ""],
        "[ $(readlink /proc/self/ns/uts) = @uts@ ] && echo host || echo own",
        ["host", "own"],
    ),
    felt(
        "namespaces.cgroup",
        ["[namespaces]\ncgroup = \"host\"", ""],
        "[ $(readlink /proc/self/ns/cgroup) = @cgroup@ ] && echo host || echo own",
        ["host", "own"],
    ),
    felt(
        "namespaces.net",
        ["[namespaces]\nnet = \"host\"\n[filesystem]\nsys = \"host\"", "[filesystem]\nsys = \"host\""],
        "[ $(readlink /proc/self/ns/net) = @net@ ] && echo host || echo own",
        ["host", "own"],
    ),
    felt(
        "namespaces.net",
        [
            "[namespaces]\nnet = \"none\"\n[landlock]\nread = { add = [\"/sys\"] }",
            "[landlock]\nread = { add = [\"/sys\"] }",
        ],
        "cat /sys/class/net/lo/flags",
        ["0x8", "0x9"], // IFF_LOOPBACK, and IFF_UP
    ),
    felt(
        "namespaces.time",
        ["[namespaces]\ntime = \"private\"", ""],
        "[ $(readlink /proc/self/ns/time) = @time@ ] && echo host || echo own",
        ["own", "host"],
    ),
    // [filesystem]
    felt(
        "filesystem.root",
        [
            "[filesystem]\nroot = \"empty\"\nhidden = []\nbind = [{ from = \"/usr\", to = \"/usr\" }, { from = \"/lib\", to = \"/lib\" }, \
             { from = \"/lib64\", to = \"/lib64\" }, { from = \"/bin\", to = \"/bin\" }]\n[landlock]\nread = [\"/usr\"]",
            "",
        ],
        "[ -e /etc/passwd ] && echo host || echo empty",
        ["empty", "host"],
    ),
    felt(
        "filesystem.read_only",
        [
            "[filesystem]\nread_only = [\"@dir@\"]\n[landlock]\nwrite = { add = [\"@dir@\"] }",
            "[filesystem]\nread_only = []\n[landlock]\nwrite = { add = [\"@dir@\"] }",
        ],
        "touch @dir@/file && echo written || echo not",
        ["touch: cannot touch '@dir@/file': Read-only file system\nnot", "written"],
    ),
    felt(
        "filesystem.read_write",
        [
            "[filesystem]\nread_write = [\"@dir@\"]\n[landlock]\nwrite = { add = [\"@dir@\"] }",
            "[landlock]\nwrite = { add = [\"@dir@\"] }",
        ],
        "touch @dir@/file 2>/dev/null && echo written || echo not",
        ["written", "not"],
    ),
    felt(
        "filesystem.read_write.path",
        [
            "[filesystem]\nread_write = [{ path = \"@dir@\" }]\n[landlock]\nwrite = { add = [\"@dir@\"] }",
            "[filesystem]\nread_write = [{ path = \"@dir@/sub\" }]\n[landlock]\nwrite = { add = [\"@dir@\"] }",
        ],
        "touch @dir@/file 2>/dev/null && echo written || echo not",
        ["written", "not"],
    ),
    felt(
        "filesystem.hidden",
        ["[filesystem]\nhidden = { add = [\"/etc/passwd\"] }", ""],
        "head -c 4 /etc/passwd 2>/dev/null || echo hidden",
        ["hidden", "root"],
    ),
    felt(
        "filesystem.tmpfs",
        ["[filesystem]\ntmpfs = { add = [{ path = \"/mnt\", size = \"1M\" }] }", ""],
        "stat -f -c %T /mnt",
        ["tmpfs", "@fs@"],
    ),
    felt(
        "filesystem.tmpfs.path",
        [
            "[filesystem]\ntmpfs = { add = [{ path = \"/mnt\", size = \"1M\" }] }",
            "[filesystem]\ntmpfs = { add = [{ path = \"/media\", size = \"1M\" }] }",
        ],
        "stat -f -c %T /mnt",
        ["tmpfs", "@fs@"],
    ),
    felt(
        "filesystem.tmpfs.size",
        [
            "[filesystem]\ntmpfs = [{ path = \"/mnt\", size = \"8K\" }]",
            "[filesystem]\ntmpfs = [{ path = \"/mnt\", size = \"16K\" }]",
        ],
        "stat -f -c %b /mnt",
        ["2", "4"],
    ),
    felt(
        "filesystem.tmpfs.mode",
        [
            "[filesystem]\ntmpfs = [{ path = \"/mnt\", size = \"8K\", mode = \"0711\" }]",
            "[filesystem]\ntmpfs = [{ path = \"/mnt\", size = \"8K\" }]",
        ],
        "stat -c %a /mnt",
        ["711", "755"],
    ),
    felt(
        "filesystem.tmpfs.inodes",
        [
            "[filesystem]\ntmpfs = [{ path = \"/mnt\", size = \"1M\", inodes = 3 }]",
            "[filesystem]\ntmpfs = [{ path = \"/mnt\", size = \"1M\" }]",
        ],
        "stat -f -c %c /mnt",
        ["3", "256"],
    ),
    felt(
        "filesystem.proc",
        ["[filesystem]\nproc = \"full\"", ""],
        "[ -e /proc/uptime ] && echo all || echo self",
        ["all", "self"],
    ),
    felt(
        "filesystem.proc",
        ["[filesystem]\nproc = \"none\"", ""],
        "[ -e /proc/self ] && echo there || echo none",
        ["none", "there"],
    ),
    felt(
        "filesystem.dev",
        ["[filesystem]\ndev = \"none\"\n[landlock]\nread = { remove = [\"/dev\"] }\nwrite = [\"/tmp\"]", ""],
        "[ -e /dev/null ] && echo there || echo none",
        ["none", "there"],
    ),
    felt(
        "filesystem.dev",
        ["[filesystem]\ndev = \"host\"", ""],
        "[ $(stat -c %i /dev/null) = @null@ ] && echo host || echo own",
        ["host", "own"],
    ),
    felt(
        "filesystem.sys",
        ["[filesystem]\nsys = \"none\"", ""],
        "[ -e /sys/kernel ] && echo there || echo none",
        ["none", "there"],
    ),
    felt(
        "filesystem.bind",
        [
            "[filesystem]\nbind = [{ from = \"@dir@\", to = \"/mnt\" }]\n[landlock]\nread = { add = [\"/mnt\"] }",
            "[landlock]\nread = { add = [\"/mnt\"] }",
        ],
        "cat /mnt/file 2>/dev/null || echo none",
        ["text", "none"],
    ),
    felt(
        "filesystem.bind.from",
        [
            "[filesystem]\nbind = [{ from = \"@dir@\", to = \"/mnt\" }]\n[landlock]\nread = { add = [\"/mnt\"] }",
            "[filesystem]\nbind = [{ from = \"@dir@/sub\", to = \"/mnt\" }]\n[landlock]\nread = { add = [\"/mnt\"] }",
        ],
        "cat /mnt/file 2>/dev/null || echo none",
        ["text", "none"],
    ),
    felt(
        "filesystem.bind.to",
        [
            "[filesystem]\nbind = [{ from = \"@dir@\", to = \"/mnt\" }]\n[landlock]\nread = { add = [\"/mnt\"] }",
            "[filesystem]\nbind = [{ from = \"@dir@\", to = \"/media\" }]\n[landlock]\nread = { add = [\"/mnt\"] }",
        ],
        "cat /mnt/file 2>/dev/null || echo none",
        ["text", "none"],
    ),
    felt(
        "filesystem.bind.read_only",
        [
            "[filesystem]\nbind = [{ from = \"@dir@\", to = \"/mnt\", read_only = false }]\n[landlock]\nwrite = { add = [\"/mnt\"] }",
            "[filesystem]\nbind = [{ from = \"@dir@\", to = \"/mnt\" }]\n[landlock]\nwrite = { add = [\"/mnt\"] }",
        ],
        "touch /mnt/file 2>/dev/null && echo written || echo not",
        ["written", "not"],
    ),
    // [process]
    felt("process.user", ["[process]\nuser = 4321", "[process]\nuser = 4322"], "id -u", ["4321", "4322"]),
    felt("process.group", ["[process]\ngroup = 4321", "[process]\ngroup = 4322"], "id -g", ["4321", "4322"]),
    felt(
        "process.supplementary_groups",
        ["[process]\ngroup = 1\nsupplementary_groups = [7, 8]", "[process]\ngroup = 1"],
        "id -G",
        ["1 7 8", "1"],
    ),
    felt(
        "process.no_new_privs",
        [
            "[process]\nuser = \"root\"\nno_new_privs = false\n[capabilities]\nkeep = [\"CAP_SYS_ADMIN\"]",
            "[process]\nuser = \"root\"\n[capabilities]\nkeep = [\"CAP_SYS_ADMIN\"]",
        ],
        "sed -n 's/^NoNewPrivs:.//p' /proc/self/status",
        ["0", "1"],
    ),
    felt("process.umask", ["[process]\numask = \"0027\"", ""], "umask", ["0027", "0077"]),
    felt(
        "process.working_directory",
        ["[process]\nworking_directory = \"/usr/share\"", ""],
        "pwd",
        ["/usr/share", "/"],
    ),
    felt(
        "process.environment",
        ["[process.environment]\nGREETING = \"hello\"", ""],
        "echo ${GREETING:-nothing}",
        ["hello", "nothing"],
    ),
    felt(
        "process.oom_score_adj",
        ["[process]\noom_score_adj = 321", ""],
        "cat /proc/self/oom_score_adj",
        ["321", "0"],
    ),
    felt("process.nice", ["[process]\nnice = 7", ""], "nice", ["7", "0"]),
    felt(
        "process.lock_personality",
        ["", "[process]\nlock_personality = false"],
        "setarch -R echo changed 2>/dev/null || echo locked",
        ["locked", "changed"],
    ),
    felt(
        "process.core_dumps",
        ["", "[process]\ncore_dumps = true\n[rlimits]\ncore = \"4K\""],
        "sed -n 's/^Max core file size *\\([0-9]*\\) .*/\\1/p' /proc/self/limits",
        ["1", "4096"],
    ),
    felt(
        "process.keyring",
        [
            "[process]\nuser = \"root\"\nkeyring = \"host\"\n[seccomp]\nallow = { add = [\"keyctl\"] }",
            "[process]\nuser = \"root\"\n[seccomp]\nallow = { add = [\"keyctl\"] }",
        ],
        // KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING.
        "perl -e 'print syscall(250, 0, -3, 0) == @session@ ? \"host\" : \"own\"'",
        ["host", "own"],
    ),
    // [capabilities]
    felt(
        "capabilities.keep",
        ["[process]\nuser = \"root\"\n[capabilities]\nkeep = [\"CAP_KILL\"]", "[process]\nuser = \"root\""],
        "sed -n 's/^CapEff:.//p; s/^CapBnd:.//p' /proc/self/status",
        ["0000000000000020\n0000000000000020", "0000000000000000\n0000000000000000"],
    ),
    felt(
        "capabilities.ambient",
        [
            "[capabilities]\nkeep = [\"CAP_KILL\"]\nambient = [\"CAP_KILL\"]",
            "[capabilities]\nkeep = [\"CAP_KILL\"]",
        ],
        "sed -n 's/^CapEff:.//p' /proc/self/status",
        ["0000000000000020", "0000000000000000"],
    ),
    // [landlock]
    felt(
        "landlock.read",
        ["[landlock]\nread = { add = [\"@dir@\"] }", ""],
        "cat @dir@/file 2>/dev/null || echo denied",
        ["text", "denied"],
    ),
    felt(
        "landlock.read.path",
        [
            "[landlock]\nread = { add = [{ path = \"@dir@\" }] }",
            "[landlock]\nread = { add = [{ path = \"@dir@/sub\" }] }",
        ],
        "cat @dir@/file 2>/dev/null || echo denied",
        ["text", "denied"],
    ),
    felt(
        "landlock.execute",
        ["[landlock]\nexecute = { add = [\"@dir@\"] }", "[landlock]\nread = { add = [\"@dir@\"] }"],
        "@dir@/program 2>/dev/null || echo denied",
        ["ran", "denied"],
    ),
    felt(
        "landlock.write",
        [
            "[filesystem]\nread_only = []\n[landlock]\nwrite = { add = [\"@dir@\"] }",
            "[filesystem]\nread_only = []",
        ],
        "touch @dir@/made 2>/dev/null && rm @dir@/made && echo written || echo denied",
        ["written", "denied"],
    ),
    felt(
        "landlock.bind_tcp",
        ["[landlock]\nbind_tcp = [4321]", "[landlock]\nbind_tcp = [4322]"],
        "perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 0); print bind(S, sockaddr_in(4321, INADDR_LOOPBACK)) ? 1 : $!'",
        ["1", "Permission denied"],
    ),
    felt(
        "landlock.connect_tcp",
        ["[landlock]\nconnect_tcp = [4321]", "[landlock]\nconnect_tcp = [4322]"],
        "perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 0); print connect(S, sockaddr_in(4321, INADDR_LOOPBACK)) ? 1 : $!'",
        ["Connection refused", "Permission denied"],
    ),
    felt(
        "landlock.scope",
        [
            "[process]\nuser = 54321\n[namespaces]\npid = \"host\"\n[landlock]\nscope = [\"signal\"]",
            "[process]\nuser = 54321\n[namespaces]\npid = \"host\"\n[landlock]\nscope = []",
        ],
        "kill -0 @sleeper@ 2>/dev/null && echo reached || echo denied",
        ["denied", "reached"],
    ),
    // [seccomp]
    felt(
        "seccomp.default",
        ["[seccomp]\ndefault = \"errno:EXDEV\"", ""],
        "perl -e 'syscall(165, 0, 0, 0, 0, 0); print $!'", // mount
        ["Invalid cross-device link", "Operation not permitted"],
    ),
    felt(
        "seccomp.allow",
        ["[seccomp]\nallow = { add = [\"keyctl\"] }", ""],
        "perl -e 'syscall(250, 9999); print $!'",
        ["Operation not supported", "Operation not permitted"],
    ),
    felt(
        "seccomp.deny",
        ["[seccomp]\ndeny = { add = [\"mkdir\"] }", ""],
        "perl -e 'print mkdir(\"/tmp/x\") ? \"made\" : $!'",
        ["Operation not permitted", "made"],
    ),
    felt(
        "seccomp.rule",
        ["[[seccomp.rule.add]]\ncall = \"prctl\"\narg = 0\nin = [\"PR_GET_NAME\"]", ""],
        "perl -e 'syscall(157, 3) < 0 ? print $! : print \"done\"'", // PR_GET_DUMPABLE
        ["Operation not permitted", "done"],
    ),
    felt(
        "seccomp.rule.call",
        [
            "[[seccomp.rule.add]]\ncall = \"prctl\"\narg = 0\nin = [\"PR_GET_NAME\"]",
            "[[seccomp.rule.add]]\ncall = \"umask\"\narg = 0\nin = [\"0x10\"]",
        ],
        "perl -e 'syscall(157, 3) < 0 ? print $! : print \"done\"'",
        ["Operation not permitted", "done"],
    ),
    felt(
        "seccomp.rule.arg",
        [
            "[[seccomp.rule.add]]\ncall = \"socket\"\narg = 1\nin = [\"SOCK_STREAM|SOCK_CLOEXEC\"]",
            "[[seccomp.rule.add]]\ncall = \"socket\"\narg = 2\nin = [0, 17]",
        ],
        "perl -MSocket -e 'print socket(S, AF_INET, SOCK_DGRAM, 17) ? \"made\" : $!'",
        ["Operation not permitted", "made"],
    ),
    felt(
        "seccomp.rule.in",
        [
            "[[seccomp.rule.add]]\ncall = \"prctl\"\narg = 0\nin = [\"PR_GET_NAME\"]",
            "[[seccomp.rule.add]]\ncall = \"prctl\"\narg = 0\nin = [3]",
        ],
        "perl -e 'syscall(157, 3) < 0 ? print $! : print \"done\"'",
        ["Operation not permitted", "done"],
    ),
    // [rlimits] and the keys of the file itself
    felt("rlimits", ["[rlimits]\nnofile = 64", ""], "ulimit -n", ["64", "1024"]),
    felt("extends", ["", "[process]\numask = \"0001\""], "umask", ["0077", "0001"]),
];

/// Two policies that differ in one key: with it the first machine-dependent complaint goes away.
const OPTIONAL: &[(&str, &str, &str)] = &[
    (
        "filesystem.read_write.optional",
        "[filesystem]\nread_write = [{ path = \"/no/such\", optional = @ }]",
        "missing-path",
    ),
    (
        "filesystem.bind.optional",
        "[filesystem]\nbind = [{ from = \"/no/such\", to = \"/mnt\", optional = @ }]",
        "missing-path",
    ),
    (
        "filesystem.bind.control_socket",
        "[filesystem]\nbind = [{ from = \"/run/docker.sock\", to = \"/mnt\", optional = true, control_socket = @ }]",
        "control-socket",
    ),
    (
        "landlock.read.optional",
        "[landlock]\nread = { add = [{ path = \"/no/such\", optional = @ }] }",
        "missing-path",
    ),
    ("credentials.NAME.optional", "[credentials]\nx = { file = \"/no/such\", optional = @ }", "missing-path"),
];

#[test]
fn each_key_changes_what_is_seen_inside() {
    if !is_root() {
        return;
    }
    let dir = scratch("felt");
    fs::create_dir_all(dir.join("sub")).expect("it is ours");
    for (name, text, mode) in [("file", "text\n", 0o666), ("program", "#!/bin/sh\necho ran\n", 0o755)] {
        fs::write(dir.join(name), text).expect("it is ours");
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).expect("it is ours");
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let printed = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().expect("it is installed");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    // Perl writes a 64-bit number as it is; the child of this process has its session keyring.
    let session = printed("/usr/bin/perl", &["-e", "print syscall(250, 0, -3, 0)"]);
    let mut sleeper = Command::new("/usr/bin/setpriv")
        .args(["--reuid=54321", "--regid=54321", "--clear-groups", "/usr/bin/sleep", "600"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it is installed");
    let uid = |pid: u32| fs::metadata(format!("/proc/{pid}")).map(|of| of.uid());
    while uid(sleeper.id()).expect("it is our child") != 54_321 {
        std::thread::yield_now();
    }
    let mut words = vec![
        ("@AS_HOST@".to_owned(), AS_HOST.to_owned()),
        ("@dir@".to_owned(), dir.display().to_string()),
        ("@fs@".to_owned(), printed("/usr/bin/stat", &["-f", "-c", "%T", "/mnt"])),
        ("@null@".to_owned(), fs::metadata("/dev/null").expect("it is there").ino().to_string()),
        ("@session@".to_owned(), session),
        ("@sleeper@".to_owned(), sleeper.id().to_string()),
    ];
    for kind in ["mnt", "ipc", "uts", "cgroup", "net", "time"] {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).expect("it is there");
        words.push((format!("@{kind}@"), link.display().to_string()));
    }
    let fill = |text: &str| {
        words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word.as_str(), value))
    };
    let mut wrong = Vec::new();
    for Felt { key, lines, script, prints } in TABLE {
        for (lines, expected) in lines.iter().zip(prints) {
            let found = try_run(&fill(lines), &fill(script)).map_or_else(|error| error, |ran| ran.output);
            if found.trim() != fill(expected) {
                wrong.push(format!("{key}: {lines:?}: {script}: {found:?}, not {expected:?}"));
            }
        }
        assert_ne!(prints[0], prints[1], "{key}: the control is no control");
    }
    sleeper.kill().expect("it is our child");
    sleeper.wait().expect("it is our child");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_missing_is_an_error_unless_it_is_optional() {
    for (key, lines, code) in OPTIONAL {
        assert_eq!(complaints(&lines.replace('@', "true")), [""; 0], "{key}");
        assert_eq!(complaints(&lines.replace('@', "false")), [*code], "control: {key}");
    }
}

#[test]
fn an_unconfined_command_has_what_its_launcher_has() {
    if !is_root() {
        return;
    }
    let kernel = Kernel::probe(None).expect("this machine can be asked");
    let subject = Subject { name: "free".to_owned(), root: "/".into(), sockets: vec![] };
    let policy = load_text("free.toml".as_ref(), "unconfined = true", &Store::new(Vec::new()));
    let free =
        compile(&policy.expect("it loads"), &subject, &kernel).expect("nothing is asked of the kernel");
    let script = "readlink /proc/self/ns/*; grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; cat /proc/mounts | wc -l";
    let own = Command::new("/bin/sh").args(["-c", script]).output().expect("there is a shell");
    let own = String::from_utf8(own.stdout).expect("it is text");
    assert_eq!(inside::run_plan(&free, script).expect("it is launched").output, own);
    assert_ne!(try_run("", script).expect("it is launched").output, own, "control");
}

/// On a kernel without any controller: what is not optional stops the launch, and what is runs without and is told.
#[test]
fn what_no_controller_enforces_is_left_out_if_the_policy_says_so() {
    if !is_root() {
        return;
    }
    let kernel = Kernel::probe(None).expect("this machine can be asked");
    let kernel = Kernel { controllers: BTreeSet::new(), ..kernel };
    let on_it = |optional: &str| {
        let lines = format!("[cgroup]\nmemory_max = \"32M\"\noptional = [{optional}]\n");
        let subject = Subject { name: "poor".to_owned(), root: "/".into(), sockets: vec![] };
        compile(&inside::policy(&lines), &subject, &kernel)
    };
    let plan = on_it("\"memory\", \"pids\", \"cpu\", \"bpf\"").unwrap_or_else(|report| panic!("{report}"));
    let told: Vec<&str> = plan.left_out().iter().map(|left| left.what.as_str()).collect();
    assert!(told.contains(&"cgroup memory.max"), "{told:?}");
    assert_eq!(inside::run_plan(&plan, "echo ran").expect("it is launched").output, "ran\n");
    let report = on_it("\"pids\", \"cpu\", \"bpf\"").expect_err("the controller is missing").to_string();
    assert!(report.contains("error[no-controller]") && report.contains("memory.max"), "control: {report}");
}
