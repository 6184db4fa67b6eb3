//! Another initldr in the place of this one: what it is left, and what happens where it cannot be.

use std::os::unix::process::CommandExt;

use super::*;
use e2e::scratch::write_program;

impl Machine {
    /// What initldr has open, by number.
    fn open(&self) -> Result<Vec<(i32, String)>> {
        let mut open = vec![];
        for entry in fs::read_dir(format!("/proc/{}/fd", self.initldr))? {
            let entry = entry?;
            let target = fs::read_link(entry.path())?.to_string_lossy().into_owned();
            open.push((entry.file_name().to_string_lossy().parse()?, target));
        }
        open.sort();
        Ok(open)
    }

    /// A copy of the program, which is another file.
    pub(super) fn copy(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        write_program(&path, &fs::read(initldr())?)?;
        Ok(path)
    }

    fn runs(&self) -> Result<PathBuf> {
        Ok(fs::read_link(format!("/proc/{}/exe", self.initldr))?)
    }
}

fn descriptors(pid: Pid) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

impl Motherd {
    /// Has `path` executed in initldr's place.
    pub(super) fn succeed(&mut self, path: &Path, errno: i32) -> Result<()> {
        self.tell(&format!("execute {}", path.display()))?;
        self.expect(&format!("answer {} {errno}", path.display()))
    }
}

#[test]
fn another_initldr_takes_over_and_motherd_does_not_notice() -> Result<()> {
    let mut machine = Machine::start("succession")?;
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    for name in ["one", "two", "three"] {
        let path = machine.folder.join(name);
        fs::write(&path, format!("text {name}\n"))?;
        motherd.store(&format!("slot/{name}"), &path)?;
        fs::remove_file(path)?;
    }
    motherd.tell("drop slot/two")?;
    assert_eq!(motherd.exits("(sh -c 'exit 3' &) ; sleep 0.1; (sh -c 'exit 4' &)", 2)?, [(1, 3), (2, 4)]);
    motherd.tell("acknowledge 1")?;
    motherd.tell("write remember me")?;
    motherd.expect("written")?;

    let (before, successor) = (machine.open()?, machine.copy("successor")?);
    motherd.succeed(&successor, 0)?;
    assert_eq!(machine.runs()?, successor.canonicalize()?);
    assert_eq!(machine.children()?, [motherd.pid.as_raw()]);
    // The link goes on where it was: the numbers count on, and what was told is not told again.
    assert_eq!(motherd.exits("(sh -c 'exit 5' &)", 1)?, [(3, 5)]);
    let targets = |open: &[(i32, String)]| {
        let mut targets: Vec<_> = open.iter().map(|(_, target)| target.clone()).collect();
        targets.sort();
        targets
    };
    assert_eq!(targets(&machine.open()?), targets(&before), "nothing is lost and nothing leaks");
    machine.signal(Signal::SIGHUP)?;
    motherd.expect(&format!("signal {}", libc::SIGHUP))?;
    motherd.kill()?;

    let mut second = machine.motherd()?;
    let expected = [
        "welcome generation=2 pid1=false cause=Signaled(9) lost=0 was_down=true",
        "stored slot/one text one",
        "stored slot/three text three",
        "exit 2 code=1 status=4",
        "exit 3 code=1 status=5",
    ];
    assert_eq!(second.hello()?, expected);
    second.tell("read 11")?;
    second.expect(&format!("state {} remember me", 4 << 20))?;
    second.tell("end")?;
    assert_eq!(machine.ended()?.code(), Some(0));
    Ok(())
}

/// Each request has its answer, of this initldr or the next, also where they came together.
#[test]
fn what_is_asked_right_after_it_is_answered_too() -> Result<()> {
    let mut machine = Machine::start("succession-then")?;
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    let successor = machine.copy("successor")?;
    for (path, errno) in [(successor.as_path(), 0), (Path::new("/nowhere"), libc::ENOENT)] {
        machine.signal(Signal::SIGSTOP)?;
        motherd.tell(&format!("execute {}", path.display()))?;
        motherd.tell("drop nothing")?;
        motherd.tell("shell true")?; // both were sent by then
        motherd.expect("shell 0")?;
        machine.signal(Signal::SIGCONT)?;
        motherd.expect(&format!("answer {} {errno}", path.display()))?;
        motherd.expect(&format!("answer nothing {}", libc::ENOENT))?;
    }
    assert_eq!(machine.runs()?, successor.canonicalize()?);
    Ok(())
}

#[test]
fn a_program_that_cannot_be_executed_changes_nothing() -> Result<()> {
    let mut machine = Machine::start("no-succession")?;
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    let (first, text) = (machine.runs()?, machine.folder.join("text"));
    fs::write(&text, "no program")?;
    motherd.store("slot/text", &text)?;
    assert_eq!(motherd.exits("(sh -c 'exit 3' &)", 1)?, [(1, 3)]);
    let (before, of_motherd) = (machine.open()?, descriptors(motherd.pid)?);
    motherd.succeed(Path::new("/no/such/file"), libc::ENOENT)?;
    motherd.succeed(&text, libc::EACCES)?;
    let long = format!("/{}", "x".repeat(159));
    motherd.succeed(Path::new(&long), libc::EINVAL)?;
    assert_eq!((machine.runs()?, machine.open()?.len()), (first, before.len()));
    assert_eq!(motherd.exits("(sh -c 'exit 4' &)", 1)?, [(2, 4)]);
    motherd.kill()?;
    let mut second = machine.motherd()?;
    let said = second.hello()?;
    assert_eq!(
        said[1..],
        ["stored slot/text no program", "exit 1 code=1 status=3", "exit 2 code=1 status=4"]
    );
    // What was to stay open for the other program does not stay open for a motherd: one more is what it was just sent.
    assert_eq!(descriptors(second.pid)?, of_motherd + 1);
    // An end that is under way is not disturbed.
    machine.signal(Signal::SIGTERM)?;
    second.expect(&format!("signal {}", libc::SIGTERM))?;
    second.succeed(&initldr(), libc::EBUSY)
}

#[test]
fn early_deaths_count_on_over_a_succession() -> Result<()> {
    let mut machine = Machine::start("succession-ladder")?;
    let successor = machine.copy("successor")?;
    for death in 1..=3 {
        let mut motherd = machine.motherd()?;
        let said = motherd.hello()?;
        assert!(!said[0].ends_with(" safe"), "{death}: {said:?}");
        motherd.succeed(&successor, 0)?;
        motherd.tell("exit 1")?;
    }
    let said = machine.motherd()?.hello()?;
    assert!(said[0].ends_with(" safe") && said[0].contains("generation=4 "), "{said:?}");
    Ok(())
}

#[test]
fn thirty_successions_with_two_hundred_slots_lose_and_leak_nothing() -> Result<()> {
    let mut machine = Machine::start("successions")?;
    let mut motherd = machine.motherd()?;
    motherd.hello()?;
    let file = machine.folder.join("file");
    fs::write(&file, "text")?;
    for slot in 0..200 {
        motherd.store(&format!("kind/service-{slot}/x"), &file)?;
    }
    let successors = [machine.copy("a")?, machine.copy("b")?];
    motherd.exits("i=0; while [ $i -lt 300 ]; do (exit 9 & ); i=$((i+1)); done", 300)?;
    let open = machine.open()?.len();
    for round in 0..30 {
        motherd.succeed(&successors[round % 2], 0)?;
        // One less until it waits for signals, for which it needs a descriptor.
        let now = machine.open()?.len();
        ensure!(now == open || now + 1 == open, "round {round}: {now} not {open}");
    }
    // Children that end while there is no initldr to reap them are reaped by the next.
    assert_eq!(motherd.exits("(sh -c 'exit 6' &)", 1)?, [(301, 6)]);
    motherd.kill()?;
    let said = machine.motherd()?.hello()?;
    assert_eq!(said.len(), 1 + 200 + 301);
    assert!(
        said[1..=200]
            .iter()
            .all(|line| line.starts_with("stored kind/service-") && line.ends_with("/x text"))
    );
    let sequences: Vec<u64> = said[201..].iter().map(|line| Ok(exit(line)?.0)).collect::<Result<_>>()?;
    assert_eq!(sequences, (1..=301).collect::<Vec<_>>());
    Ok(())
}

/// Starts initldr as if another one had left it this.
fn with_left(name: &str, left: &[u8]) -> Result<Machine> {
    let folder = env::temp_dir().join(format!("initldr-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("left"), left)?;
    let socket = folder.join("control");
    let listener = UnixListener::bind(&socket)?;
    listener.set_nonblocking(true)?;
    // Beside what was left: four descriptors that nothing tells of.
    let script = "exec 3<\"$1\" 4<\"$1\" 5<\"$1\" 6<\"$1\" 7<\"$1\"; shift; exec \"$@\"";
    let initldr = Command::new("/bin/sh")
        .arg0("sh")
        .args(["-c", script, "sh"])
        .arg(folder.join("left"))
        .arg(initldr())
        .args(["--motherd", env!("CARGO_BIN_EXE_fake_motherd"), "--"])
        .arg(&socket)
        .env("INITLDR_RESUME", "3")
        .stdin(Stdio::null())
        .stderr(fs::File::create(folder.join("log"))?)
        .spawn()?;
    let pid = Pid::from_raw(initldr.id().cast_signed());
    Ok(Machine { outer: initldr, initldr: pid, listener, folder })
}

#[test]
fn what_was_left_is_taken_as_far_as_it_is_whole() -> Result<()> {
    use initldr::link::{ExitRecord, SlotName, ToManager};
    let slot = |name: &str, number| -> Result<ToManager> {
        Ok(ToManager::Stored(SlotName::new(name).context("a name")?, number))
    };
    let exit =
        ToManager::Exit(ExitRecord { sequence: 7, pid: 4711, code: 1, status: 3, ..ExitRecord::default() });
    // Two slots have one number, and one has that of nothing; the checksum is wrong, so no pid and no link is believed.
    let left = [slot("a", 4)?, slot("b", 4)?, slot("c", 99)?, slot("d", 5)?, exit, ToManager::ReplayEnd];
    let mut left: Vec<u8> = left.iter().flat_map(ToManager::encode).collect();
    left.extend(ToManager::Left([1, 1, 6, 7, 7, 0, 0, 4711]).encode());
    let mut damaged = left.clone();
    damaged[3 * 256 + 90] ^= 1; // of the name of `d`, which therefore is another name

    for (name, left, expected) in [
        ("left-nothing", vec![], &[][..]),
        ("left-garbage", vec![0xa5; 2000], &[]),
        ("left-some", left, &["stored a", "stored d", "exit 7 code=1 status=3"]),
        ("left-damaged", damaged, &["stored a", "exit 7 code=1 status=3"]),
    ] {
        let mut machine = with_left(name, &left)?;
        let mut motherd = machine.motherd()?;
        let said = motherd.hello()?;
        assert!(said[0].starts_with("welcome generation=1 "), "{name}: {said:?}");
        assert_eq!(said.len(), 1 + expected.len(), "{name}: {said:?}");
        for (said, expected) in said[1..].iter().zip(expected) {
            assert!(said.starts_with(expected), "{name}: {said:?}");
        }
        let left = machine.folder.join("left").to_string_lossy().into_owned();
        let open =
            machine.open()?.into_iter().filter(|(number, target)| *number > 3 && *target == left).count();
        assert_eq!(
            open,
            expected.iter().filter(|line| line.starts_with("stored")).count(),
            "{name}: the rest is closed"
        );
        assert!(
            machine.log().contains("in the place of another initldr: not everything"),
            "{}",
            machine.log()
        );
        assert_eq!(motherd.exits("(sh -c 'exit 6' &)", 1)?[0].1, 6);
        motherd.tell("end")?;
        machine.ended()?;
    }
    Ok(())
}
