//! What becomes of services when what supervises them dies: MotherD, runit, s6 and supervisor on this host, and systemd and
//! MotherD as what a machine runs, in QEMU: `cargo run --release -p e2e --bin peers_crash -- [--rounds N] [--host]`, as root;
//! with 0 rounds the guests alone.
//!
//! Each round has a supervisor of its own with three services: one that stays, one that answers on a TCP port while a client
//! never stops asking, and one that ends with a status of its own when it is told to. The process that supervises gets
//! SIGKILL. Counted are copies of the first, connections of the second that were refused, and whether the supervisor ever
//! tells with what status the third ended while nobody was there; as a control it is asked the same while somebody is.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    fetch::{Cache, Kernel},
    peers::{contender::Contender, image, run::Boot},
    scratch::Scratch,
};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);
/// After its death, until what follows from it has followed: the slowest looks every five seconds.
const AFTERMATH: Duration = Duration::from_secs(8);
const SERVICES: [&str; 3] = ["stays", "answers", "leaves"];
/// How the third ends.
const STATUS: i32 = 7;

fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, folder, name] = &words[..]
        && first == "--serve"
    {
        return serve(Path::new(folder), name);
    }
    let (mut rounds, mut guests) = (5, true);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => rounds = words.next().context("--rounds needs a number")?.parse()?,
            "--host" => guests = false,
            other => bail!("not understood: {other}"),
        }
    }
    if rounds > 0 {
        on_this_host(rounds)?;
    }
    if guests {
        in_guests()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn on_this_host(rounds: u64) -> Result<()> {
    println!(
        "### SIGKILL to the process that supervises, {rounds} rounds\n\n| | copies of a service afterwards | of them left when \
         it was stopped | connections refused, of | exit statuses lost, of | told where nothing was killed |\n| --- | --- | --- \
         | --- | --- | --- |"
    );
    for peer in Peer::ALL {
        let mut sum = Round::default();
        for number in 0..rounds {
            let round = round(peer).with_context(|| format!("{}, round {number}", peer.name()))?;
            sum.add(&round);
        }
        println!("{}", sum.row(peer, rounds));
    }
    Ok(())
}

/// The services, in the program's other life.
fn serve(folder: &Path, name: &str) -> Result<ExitCode> {
    let mut ledger = File::options().create(true).append(true).open(folder.join(format!("{name}.ledger")))?;
    ledger.write_all(b"S\n")?;
    if name == "answers" {
        let port: u16 = fs::read_to_string(folder.join("port"))?.trim().parse()?;
        // A second copy finds the port taken, and ends.
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        for stream in listener.incoming() {
            stream?.write_all(b"here")?;
        }
    }
    let leave = folder.join("leave");
    loop {
        if name == "leaves" && leave.exists() {
            fs::remove_file(&leave)?;
            return Ok(ExitCode::from(u8::try_from(STATUS)?));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    MotherD,
    Runit,
    S6,
    Supervisor,
}

impl Peer {
    const ALL: [Self; 4] = [Self::MotherD, Self::Runit, Self::S6, Self::Supervisor];

    fn name(self) -> &'static str {
        match self {
            Self::MotherD => "MotherD",
            Self::Runit => "runit",
            Self::S6 => "s6",
            Self::Supervisor => "supervisor",
        }
    }
}

/// What a round came to; of several, the sum.
#[derive(Default)]
struct Round {
    copies: usize,
    left: usize,
    refused: u64,
    asked: u64,
    lost: u64,
    told: u64,
}

impl Round {
    fn add(&mut self, other: &Self) {
        self.copies += other.copies;
        self.left += other.left;
        self.refused += other.refused;
        self.asked += other.asked;
        self.lost += other.lost;
        self.told += other.told;
    }

    fn row(&self, peer: Peer, rounds: u64) -> String {
        let Self { copies, left, refused, asked, lost, told } = self;
        format!(
            "| {} | {copies} in {rounds} rounds | {left} | {refused} of {asked} | {lost} of {rounds} | {told} of {rounds} |",
            peer.name()
        )
    }
}

fn round(peer: Peer) -> Result<Round> {
    let mut scene = Scene::new(peer)?;
    scene.start()?;
    for name in SERVICES {
        eventually(&format!("{name} runs"), || (copies(&scene.folder, name) == 1).then_some(()))?;
    }
    eventually("it answers", || ask(scene.port).is_ok().then_some(()))?;
    let mut round = Round::default();
    // Control: with everybody there, the status is told.
    scene.leave()?;
    round.told = u64::from(scene.told(1));
    eventually("it is started again", || (copies(&scene.folder, "leaves") == 1).then_some(()))?;
    let client = Client::start(scene.port);
    // It ends while nobody is there to see it.
    let supervising = scene.supervising("leaves")?;
    kill(Pid::from_raw(supervising), Signal::SIGSTOP)?;
    scene.leave()?;
    for name in SERVICES {
        if peer != Peer::Supervisor
            && let Ok(pid) = scene.supervising(name)
        {
            kill_if_there(pid);
        }
    }
    if peer == Peer::Supervisor {
        let mut child = scene.children.pop().context("not started")?;
        child.kill()?;
        child.wait()?;
        // Nobody does it for it; whoever runs it has its unit file do it.
        scene.start()?;
    }
    thread::sleep(AFTERMATH);
    round.lost = u64::from(!scene.told(1 + round.told));
    round.copies = copies(&scene.folder, "stays");
    (round.asked, round.refused) = client.stop()?;
    scene.stop("stays")?;
    round.left = copies(&scene.folder, "stays");
    Ok(round)
}

/// A supervisor and its services, in a folder of their own.
struct Scene {
    peer: Peer,
    folder: PathBuf,
    port: u16,
    scratch: Scratch,
    tree: PathBuf,
    children: Vec<Child>,
}

impl Scene {
    fn new(peer: Peer) -> Result<Self> {
        let scratch = Scratch::new("peers_crash")?.context("run it as root")?;
        let folder = scratch.path("scene");
        fs::create_dir_all(&folder)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        fs::write(folder.join("port"), port.to_string())?;
        let cache = Cache::open()?;
        let tree = match peer {
            Peer::MotherD => PathBuf::new(),
            Peer::Runit => cache.peer("runit")?,
            Peer::S6 => cache.peer("s6")?,
            Peer::Supervisor => cache.peer("supervisor")?,
        };
        let scene = Self { peer, folder, port, scratch, tree, children: Vec::new() };
        for name in SERVICES {
            scene.describe(name)?;
        }
        let text = match peer {
            Peer::MotherD => "[dependencies]\nwants = [\"stays\", \"answers\", \"leaves\"]\n".to_owned(),
            Peer::Runit | Peer::S6 => return Ok(scene),
            Peer::Supervisor => scene.supervisor()?,
        };
        if peer == Peer::MotherD {
            scene.scratch.service("system", &text)?;
        } else {
            fs::write(scene.folder.join("conf"), text)?;
        }
        Ok(scene)
    }

    /// Its service file, or what stands for one.
    fn describe(&self, name: &str) -> Result<()> {
        let program = std::env::current_exe()?.display().to_string();
        let folder = self.folder.display();
        match self.peer {
            Peer::MotherD => {
                let text = format!(
                    "exec = [\"{program}\", \"--serve\", \"{folder}\", \"{name}\"]\npolicy = \"unconfined\"\n[restart]\n\
                     when = \"always\"\n"
                );
                self.scratch.service(name, &text).map(drop)
            }
            Peer::Runit | Peer::S6 => {
                let dir = self.folder.join("scan").join(name);
                fs::create_dir_all(&dir)?;
                let run = format!("exec {program} --serve {folder} {name}");
                // The first argument is the exit status.
                let finish = format!("echo \"status $1\" >> {folder}/{name}.told");
                for (file, text) in [("run", run), ("finish", finish)] {
                    let path = dir.join(file);
                    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
                }
                Ok(())
            }
            Peer::Supervisor => Ok(()),
        }
    }

    fn supervisor(&self) -> Result<String> {
        let program = std::env::current_exe()?.display().to_string();
        let folder = self.folder.display();
        let mut text = format!(
            "[unix_http_server]\nfile={folder}/sock\n[supervisord]\nlogfile={folder}/log\npidfile={folder}/pid\nnodaemon=true\n\
             [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
             [supervisorctl]\nserverurl=unix://{folder}/sock\n"
        );
        for name in SERVICES {
            text.push_str(&format!(
                "[program:{name}]\ncommand={program} --serve {folder} {name}\nautorestart=true\nstartsecs=0\n"
            ));
        }
        Ok(text)
    }

    /// A program of the package's.
    fn tool(&self, name: &str) -> Result<Command> {
        let at = |path: &str| self.tree.join(path);
        let libraries =
            ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|path| at(path).display().to_string());
        let mut command = match self.peer {
            Peer::Supervisor => {
                let python = fs::read_dir(at("usr/bin"))?
                    .flatten()
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .find(|name| {
                        name.strip_prefix("python3.")
                            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
                    });
                let mut command = Command::new(at("usr/bin").join(python.context("no python3")?));
                command.arg(at("usr/bin").join(name)).arg("-c").arg(self.folder.join("conf"));
                command.env("PYTHONHOME", at("usr")).env("PYTHONPATH", at("usr/lib/python3/dist-packages"));
                command
            }
            Peer::MotherD | Peer::Runit | Peer::S6 => Command::new(at("usr/bin").join(name)),
        };
        let path = format!("{}:/usr/bin:/bin", at("usr/bin").display());
        command.env("LD_LIBRARY_PATH", libraries.join(":")).env("PATH", path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }

    fn start(&mut self) -> Result<()> {
        let scan = self.folder.join("scan");
        let mut command = match self.peer {
            Peer::MotherD => return self.scratch.start(),
            Peer::Runit => {
                let mut command = self.tool("runsvdir")?;
                command.arg("-P").arg(&scan);
                command
            }
            Peer::S6 => {
                // It knows its other program by an absolute path, which a mount namespace of its own gives it.
                let bin = self.tree.join("usr/bin");
                let inner = self.tool("s6-svscan")?;
                let mut command = Command::new("unshare");
                let script = format!(
                    "mount -t overlay none -o lowerdir={}:/usr/bin /usr/bin && exec s6-svscan {}",
                    bin.display(),
                    scan.display()
                );
                command.args(["--mount", "/bin/sh", "-c", &script]);
                command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
                command
            }
            Peer::Supervisor => self.tool("supervisord")?,
        };
        let said = File::options().create(true).append(true).open(self.folder.join("said"))?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        // A signal to its group is not one to this program.
        command.process_group(0);
        self.children.push(command.spawn()?);
        Ok(())
    }

    /// The process that supervises this service.
    fn supervising(&self, name: &str) -> Result<i32> {
        let find = |program: &str| {
            let ours =
                |pid: i32| parents(pid).any(|parent| self.children.iter().any(|child| child.id() == parent));
            processes().find(|(pid, words)| {
                let is = words.first().is_some_and(|word| word.ends_with(program));
                is && words.get(1).is_some_and(|word| word == name) && ours(*pid)
            })
        };
        match self.peer {
            Peer::MotherD => self.scratch.motherd(),
            Peer::Runit => Ok(find("runsv").context("no runsv")?.0),
            Peer::S6 => Ok(find("s6-supervise").context("no s6-supervise")?.0),
            Peer::Supervisor => Ok(i32::try_from(self.children.last().context("not started")?.id())?),
        }
    }

    /// Has the third service end, and waits until its process is dead, reaped or not.
    fn leave(&self) -> Result<()> {
        let before = alive(&self.folder, "leaves").next().context("leaves does not run")?;
        let leave = self.folder.join("leave");
        fs::write(&leave, "")?;
        eventually("it has ended", || (!alive(&self.folder, "leaves").any(|pid| pid == before)).then_some(()))
    }

    /// Whether its supervisor has told so often with what status it ended.
    fn told(&self, times: u64) -> bool {
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            let count = self.count_told().unwrap_or_default();
            if count >= times || Instant::now() > deadline {
                return count >= times;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn count_told(&self) -> Result<u64> {
        let count =
            |text: &str, wanted: &str| text.lines().filter(|line| line.contains(wanted)).count() as u64;
        Ok(match self.peer {
            Peer::MotherD => {
                let ran = self.scratch.motherctl(&["--json", "events", "leaves"])?;
                let reply: serde_json::Value = serde_json::from_str(&ran.out)?;
                let ended = format!("exited with status {STATUS}");
                let is = |event: &&serde_json::Value| {
                    // Once as what it is tried again after.
                    event["state"] == "backoff"
                        && event["words"].as_str().is_some_and(|words| words.contains(&ended))
                };
                reply["events"].as_array().context("no events")?.iter().filter(is).count() as u64
            }
            Peer::Runit | Peer::S6 => {
                let told = fs::read_to_string(self.folder.join("leaves.told"))?;
                count(&told, &format!("status {STATUS}"))
            }
            Peer::Supervisor => {
                let log = fs::read_to_string(self.folder.join("log"))?;
                count(&log, &format!("exited: leaves (exit status {STATUS}"))
            }
        })
    }

    fn stop(&self, name: &str) -> Result<()> {
        let dir = self.folder.join("scan").join(name);
        let mut command = match self.peer {
            Peer::MotherD => {
                let ran = self.scratch.motherctl(&["stop", name])?;
                ensure!(ran.status == 0, "{ran:?}");
                return Ok(());
            }
            Peer::Runit => {
                let mut command = self.tool("sv")?;
                command.arg("down").arg(dir);
                command
            }
            Peer::S6 => {
                let mut command = self.tool("s6-svc")?;
                command.arg("-d").arg(dir);
                command
            }
            Peer::Supervisor => {
                let mut command = self.tool("supervisorctl")?;
                command.args(["stop", name]);
                command
            }
        };
        let status = command.status()?;
        ensure!(status.success(), "stop: {status}");
        thread::sleep(Duration::from_secs(2));
        Ok(())
    }
}

impl Drop for Scene {
    /// Whoever starts others first, then the services.
    fn drop(&mut self) {
        let mut supervisors: Vec<i32> = SERVICES
            .iter()
            .filter(|_| self.peer != Peer::MotherD)
            .filter_map(|name| self.supervising(name).ok())
            .collect();
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
        supervisors.retain(|pid| !self.children.iter().any(|child| Ok(child.id()) == u32::try_from(*pid)));
        for pid in supervisors {
            kill_if_there(pid);
        }
        if self.peer == Peer::MotherD {
            return;
        }
        for name in SERVICES {
            for pid in alive(&self.folder, name).collect::<Vec<_>>() {
                kill_if_there(pid);
            }
        }
    }
}

fn kill_if_there(pid: i32) {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => eprintln!("kill {pid}: {errno}"),
    }
}

/// All processes: pid and command line.
fn processes() -> impl Iterator<Item = (i32, Vec<String>)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_string_lossy().parse().ok()?;
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, words.split_terminator('\0').map(str::to_owned).collect()))
    })
}

/// Its parent, and so on.
fn parents(pid: i32) -> impl Iterator<Item = u32> {
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok().filter(|parent| *parent > 1)
    };
    std::iter::successors(u32::try_from(pid).ok(), move |pid| parent(*pid)).skip(1)
}

/// The processes of a service that live; the dead have no command line.
fn alive(folder: &Path, name: &str) -> impl Iterator<Item = i32> {
    let words = ["--serve".to_owned(), folder.display().to_string(), name.to_owned()];
    processes().filter(move |(_, line)| line.ends_with(&words)).map(|(pid, _)| pid)
}

fn copies(folder: &Path, name: &str) -> usize {
    alive(folder, name).count()
}

fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = check() {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn ask(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)
}

/// Asks without end, over a new connection each time.
struct Client {
    end: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    thread: thread::JoinHandle<u64>,
}

impl Client {
    fn start(port: u16) -> Self {
        let (end, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, failed) = (end.clone(), refused.clone());
        let thread = thread::spawn(move || {
            let mut asked = 0;
            while !ended.load(Ordering::Relaxed) {
                asked += 1;
                failed.fetch_add(u64::from(ask(port).is_err()), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
            asked
        });
        Self { end, refused, thread }
    }

    fn stop(self) -> Result<(u64, u64)> {
        self.end.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(asked) => Ok((asked, self.refused.load(Ordering::Relaxed))),
            Err(_) => bail!("the asking thread panicked"),
        }
    }
}

/// What has the whole machine: a real fault in it, which no signal of root's is for a PID 1.
fn in_guests() -> Result<()> {
    const SERVICES: usize = 50;
    println!(
        "\n### A real SIGSEGV in the manager of a machine, {SERVICES} services, in QEMU\n\n| | services that run on as they \
         were | one that ends afterwards is started again |\n| --- | --- | --- |"
    );
    let measures = ["crash".to_owned()];
    for contender in [Contender::MotherD, Contender::Systemd, Contender::Runit, Contender::S6] {
        let (image, version) = image::write(contender)?;
        let boot = Boot { contender, services: SERVICES, measures: &measures, counted: false };
        let report = boot.run(Kernel::V6_12, &image)?;
        ensure!(report.faulted, "{}: no fault: {report:?}", contender.name());
        let kept = match report.figures.get("kept of").map(Vec::as_slice) {
            Some([kept, of]) => format!("{kept:.0} of {of:.0}"),
            _ => "none".to_owned(),
        };
        let after = report.notes.get("restarted-after-it").map_or("unknown", String::as_str);
        println!("| {} {version} | {kept} | {after} |", contender.name());
    }
    Ok(())
}
