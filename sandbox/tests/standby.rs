//! A process that waits is confined as one that was launched is, executes what it is told when it is told, and nothing
//! otherwise.

mod inside;

use std::{
    fs::{self, File},
    io::Read,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use inside::is_root;
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use sandbox::{
    Plan,
    compile::{Subject, compile},
    kernel::Kernel,
    launch::{Handed, Launch, LaunchError, LaunchFailure, Launched, launch},
    policy::{Store, load_text},
    standby::{EXIT_FORGOTTEN, Missed, Release, Standby, park},
};

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn subject() -> Subject {
    Subject { name: "standby".to_owned(), root: "/".into(), sockets: vec![] }
}

fn plan(text: &str) -> Arc<Plan> {
    let policy =
        load_text(Path::new("test.toml"), text, &Store::new(vec![policies()])).expect("a step of this test");
    let kernel = Kernel::probe(None).expect("a step of this test");
    compile(&policy, &subject(), &kernel).expect("a step of this test")
}

fn parked(plan: &Arc<Plan>) -> Standby {
    try_to_park(plan).expect("a step of this test")
}

fn try_to_park(plan: &Arc<Plan>) -> Result<Standby, LaunchError> {
    let null = File::open("/dev/null").expect("a step of this test");
    let standby = park(&Launch::new(plan, &[], [null.as_fd(); 3]))?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while !standby.waits() {
        assert!(Instant::now() < deadline, "it does not come to wait: {standby:?}");
        std::thread::yield_now();
    }
    Ok(standby)
}

/// What a launched program says, and what a released one does.
struct Said {
    launched: Option<String>,
    released: Option<String>,
}

fn shell(script: &str) -> [String; 3] {
    ["/usr/bin/sh", "-c", script].map(str::to_owned)
}

fn output(launched: &Launched, mut reader: impl Read) -> String {
    let mut output = String::new();
    reader.read_to_string(&mut output).expect("a step of this test");
    waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("a step of this test");
    output
}

fn both(plan: &Arc<Plan>, script: &str, environment: &[(String, String)], handed: Handed<'_>) -> Said {
    let null = File::open("/dev/null").expect("a step of this test");
    let argv = shell(script);
    let (reader, writer) = std::io::pipe().expect("a step of this test");
    let stdio = [null.as_fd(), writer.as_fd(), writer.as_fd()];
    let launched = launch(&Launch { environment, handed, ..Launch::new(plan, &argv, stdio) });
    drop(writer);
    let said = launched.ok().map(|launched| output(&launched, reader));
    let standby = match (try_to_park(plan), &said) {
        (Ok(standby), _) => standby,
        (Err(error), None) => {
            eprintln!("neither can be had on this host: {error}");
            return Said { launched: None, released: None };
        }
        (Err(error), Some(_)) => panic!("it can be launched, and not be parked: {error}"),
    };
    let pid = standby.pid();
    let (reader, writer) = std::io::pipe().expect("a step of this test");
    let stdio = [null.as_fd(), writer.as_fd(), writer.as_fd()];
    let released = standby.release(&Release { plan, argv: &argv, environment, stdio, handed });
    drop(writer);
    let released = released.ok().map(|launched| {
        assert_eq!(launched.pid, pid, "it is the process that waited");
        output(&launched, reader)
    });
    Said { launched: said, released }
}

/// What a service can tell of its world; see `template.rs`.
const LOOK: &str = r#"
    cut -d' ' -f4- /proc/self/mountinfo | sort
    for name in / /dev /tmp /run /sys /proc; do
        echo "$name: $(ls -A $name 2>&1 | grep -v '^[0-9]*$' | tr '\n' ' ')"
        if touch $name/x 2>/dev/null; then echo "$name can be written to"; rm $name/x; fi
    done
    grep -E '^(Name|Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigPnd|SigBlk|SigIgn|SigCgt|Umask)' /proc/self/status
    cat /proc/self/cgroup /proc/self/limits /proc/self/oom_score_adj; pwd; env | sort; ls /proc/self/fd
    readlink /proc/self/ns/user /proc/self/ns/time; hostname; id; cat /etc/shadow; echo $$; ps 2>&1 | head -3
"#;

#[test]
fn a_released_process_of_every_shipped_policy_is_as_a_launched_one() {
    if !is_root() {
        return;
    }
    let mut compared = Vec::new();
    for name in Store::new(vec![policies()]).names() {
        let policy = Store::new(vec![policies()]).load(&name).expect("a step of this test");
        let Ok(plan) = compile(&policy, &subject(), &Kernel::probe(None).expect("a step of this test"))
        else {
            eprintln!("{name}: cannot be compiled on this host");
            continue;
        };
        // Those that see the whole host see it change between the two.
        let script = if plan.has_template() {
            LOOK
        } else {
            "grep -E '^(Uid|Gid|Cap|NoNewPrivs|Seccomp)' /proc/self/status; ls /proc/self/fd"
        };
        let said = both(&plan, script, &[], Handed::default());
        assert!(said.launched.as_ref().is_none_or(|said| said.len() > 20), "{name}: {:?}", said.launched);
        assert_eq!(said.released, said.launched, "{name}");
        compared.push(name);
    }
    eprintln!("compared: {compared:?}");
    assert!(compared.iter().any(|name| name == "base/default"), "{compared:?}");
}

#[test]
fn what_belongs_to_one_run_comes_with_the_release() {
    if !is_root() {
        return;
    }
    let plan = plan("extends = [\"base/default\"]\n");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a step of this test");
    let (reader, writer) = std::io::pipe().expect("a step of this test");
    let listen = [("web", socket.as_fd()), ("again", socket.as_fd())];
    let handed = Handed { listen: &listen, at: Some((9, writer.as_fd())), own_pid: &["WATCHDOG_PID"] };
    let environment =
        [("COLOUR".to_owned(), "blue".to_owned()), ("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    let script = "env | sort; echo $$; ls /proc/self/fd; readlink /proc/self/fd/3 /proc/self/fd/9 | tr -d '0-9'; echo said >&9";
    let said = both(&plan, script, &environment, handed);
    assert_eq!(said.released, said.launched);
    let text = said.released.expect("it ran");
    for line in
        ["COLOUR=blue", "LISTEN_FDS=2", "LISTEN_FDNAMES=web:again", "LISTEN_PID=1", "WATCHDOG_PID=1", "9"]
    {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
    assert!(!text.lines().any(|line| ["6", "7", "8"].contains(&line)), "a filler was left: {text}");
    drop(writer);
    let mut words = String::new();
    (&reader).read_to_string(&mut words).expect("a step of this test");
    assert_eq!(words, "said\nsaid\n", "one each");
}

#[test]
fn a_process_that_waits_is_confined_already() {
    if !is_root() {
        return;
    }
    let plan = plan("extends = [\"base/default\"]\n");
    let standby = parked(&plan);
    let status = fs::read_to_string(format!("/proc/{}/status", standby.pid())).expect("it is there");
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name));
        found.map(|rest| rest.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default()
    };
    assert_eq!(line("Name:"), ["(standby)"]);
    assert_eq!(line("NoNewPrivs:"), ["1"]);
    assert_eq!(line("Seccomp:"), ["2"], "base/default lets it wait with its filter on");
    assert_eq!(line("CapEff:"), ["0000000000000000"]);
    assert_ne!(line("Uid:")[0], "0");
    // It holds nothing of ours: two descriptors, of which one is the gate; and no memory.
    let descriptors = fs::read_dir(format!("/proc/{}/fd", standby.pid())).expect("root may look").count();
    assert_eq!(descriptors, 1, "the gate alone");
    let maps = fs::read_to_string(format!("/proc/{}/maps", standby.pid())).expect("root may look");
    let mapped = |what: &str| maps.lines().any(|line| line.contains(what));
    assert!(mapped("motherd-standby") && mapped("motherd-order"), "{maps}");
    assert!(!mapped("/standby-") && !mapped("libc"), "{maps}");
    assert!(status.lines().any(|line| line.starts_with("VmRSS:") && line.len() < 24), "{status}");
}

#[test]
fn without_its_launcher_it_ends_and_executes_nothing() {
    if !is_root() {
        return;
    }
    for text in ["extends = [\"base/default\"]\n", "extends = [\"unconfined\"]\n"] {
        let standby = parked(&plan(text));
        let pid = Pid::from_raw(i32::try_from(standby.pid()).expect("a pid"));
        drop(standby);
        let status = nix::sys::wait::waitpid(pid, None).expect("it is our child");
        assert_eq!(status, WaitStatus::Exited(pid, EXIT_FORGOTTEN));
    }
}

#[test]
fn a_filter_that_does_not_let_it_wait_is_applied_at_the_release() {
    if !is_root() {
        return;
    }
    let plan = plan("extends = [\"base/default\"]\n[seccomp]\ndeny = { add = [\"recvmsg\"] }\n");
    let standby = parked(&plan);
    let status = fs::read_to_string(format!("/proc/{}/status", standby.pid())).expect("it is there");
    assert!(status.contains("Seccomp:\t0"), "{status}");
    drop(standby);
    let said = both(&plan, "grep Seccomp: /proc/self/status", &[], Handed::default());
    assert_eq!(said.released.as_deref(), Some("Seccomp:\t2\n"));
    assert_eq!(said.released, said.launched);
}

#[test]
fn what_cannot_be_executed_is_told_as_a_launch_tells_it() {
    if !is_root() {
        return;
    }
    let plan = plan("extends = [\"base/default\"]\n");
    let null = File::open("/dev/null").expect("a step of this test");
    for (program, kind) in
        [("/nowhere/at/all", LaunchFailure::NotFound), ("/etc/passwd", LaunchFailure::NotExecutable)]
    {
        let argv = [program.to_owned()];
        let launched = launch(&Launch::new(&plan, &argv, [null.as_fd(); 3])).expect_err("it is no program");
        let release = Release {
            plan: &plan,
            argv: &argv,
            environment: &[],
            stdio: [null.as_fd(); 3],
            handed: Handed::default(),
        };
        let Err(Missed::Failed(error)) = parked(&plan).release(&release) else { panic!("it is no program") };
        assert_eq!((error.kind(), error.to_string()), (kind, launched.to_string()));
    }
}

#[test]
fn one_that_was_killed_is_not_released() {
    if !is_root() {
        return;
    }
    let plan = plan("extends = [\"base/default\"]\n");
    let standby = parked(&plan);
    let pid = Pid::from_raw(i32::try_from(standby.pid()).expect("a pid"));
    kill(pid, Signal::SIGKILL).expect("it is our child");
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED).expect("it is our child");
    let null = File::open("/dev/null").expect("a step of this test");
    let release = Release {
        plan: &plan,
        argv: &shell("true"),
        environment: &[],
        stdio: [null.as_fd(); 3],
        handed: Handed::default(),
    };
    let missed = standby.release(&release);
    assert!(matches!(missed, Err(Missed::Unfit(_))), "{missed:?}");
}

#[test]
fn one_that_would_show_something_else_than_a_launch_is_not_current() {
    if !is_root() {
        return;
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("standby-{}", std::process::id()));
    fs::create_dir_all(folder.join("shown")).expect("a step of this test");
    let secret = folder.join("secret");
    fs::write(&secret, "one").expect("a step of this test");
    let shown = folder.join("shown");
    let text = format!(
        "extends = [\"base/default\"]\n[filesystem]\nbind = [{{ from = \"{}\", to = \"/run/shown\", read_only = true }}]\n\
         [credentials]\nsecret = {{ file = \"{}\" }}\n",
        shown.display(),
        secret.display()
    );
    let plan = plan(&text);
    let standby = parked(&plan);
    assert!(standby.is_current());
    fs::write(shown.join("file"), "").expect("a step of this test");
    assert!(standby.is_current(), "what is in a folder is seen through it");
    fs::write(&secret, "two").expect("a step of this test");
    assert!(!standby.is_current(), "another secret");
    let standby = parked(&plan);
    fs::rename(&shown, folder.join("away")).expect("a step of this test");
    fs::create_dir(&shown).expect("a step of this test");
    assert!(!standby.is_current(), "another folder");
    let standby = parked(&plan);
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&shown).status();
    assert!(mounted.is_ok_and(|status| status.success()));
    let current = standby.is_current();
    let unmounted = std::process::Command::new("umount").arg(&shown).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    assert!(!current, "something was mounted");
    fs::remove_dir_all(&folder).expect("a step of this test");
}

#[test]
fn nobody_of_its_user_can_attach_to_a_process_that_waits() {
    if !is_root() {
        return;
    }
    // A policy without a pid namespace: an earlier run of the service sees the process that waits.
    let plan = plan("extends = [\"base/default\"]\n[namespaces]\npid = \"host\"\n");
    let standby = parked(&plan);
    let read = format!(
        "cat /proc/{0}/maps >/dev/null 2>&1 && echo read; ls /proc/{0}/fd 2>/dev/null; id -u",
        standby.pid()
    );
    let null = File::open("/dev/null").expect("a step of this test");
    let (reader, writer) = std::io::pipe().expect("a step of this test");
    let stdio = [null.as_fd(), writer.as_fd(), null.as_fd()];
    let launched = launch(&Launch::new(&plan, &shell(&read), stdio)).expect("a step of this test");
    drop(writer);
    let said = output(&launched, reader);
    let uid = fs::read_to_string(format!("/proc/{}/status", standby.pid())).expect("it is there");
    assert!(
        uid.contains(&format!("Uid:\t{}\t", said.trim())),
        "the same user, and nothing else said: {said}"
    );
    assert!(null.as_raw_fd() >= 0);
}
