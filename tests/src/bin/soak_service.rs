//! A service of `soak_kill`: it keeps a ledger of what happened to it, so that motherd's account can be held against it.
//!
//! `soak_service MODE FOLDER NAME [ARGUMENT]...`: the ledger is `FOLDER/NAME.ledger`, a line for each event: `S` it
//! started, `D` it started while another copy ran, `H` it got SIGHUP, `X STATUS` it is about to exit, `L COUNT` it has
//! logged so many lines and logs no more, `O COUNT` it has made so many orphans. While `FOLDER/quiet` exists nobody exits or logs by itself.

use std::{
    fs::File,
    io::{self, BufWriter, IoSlice, Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, exit},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use e2e::soak::audit::LINE;
use nix::sys::{
    signal::{SigSet, Signal},
    socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt},
};

/// How often a quiet one looks whether it may go on.
const LOOK: Duration = Duration::from_millis(20);

struct Service {
    folder: PathBuf,
    name: String,
}

fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [mode, folder, name, rest @ ..] = &words[..] else { bail!("MODE FOLDER NAME [ARGUMENT]...") };
    let service = Service { folder: folder.into(), name: name.clone() };
    // Before the first thread, which inherits it.
    let mut handled = SigSet::empty();
    handled.add(Signal::SIGTERM);
    handled.add(Signal::SIGHUP);
    handled.thread_block()?;
    let number = |index: usize| -> Result<u64> { Ok(rest.get(index).context("a number")?.parse()?) };

    // Held for as long as this process lives, and by no other.
    let lock = File::create(service.path("lock"))?;
    service.write(if lock.try_lock().is_ok() { "S" } else { "D" })?;
    match mode.as_str() {
        "once" => {
            service.write("X 0")?;
            return Ok(ExitCode::SUCCESS);
        }
        "idle" => {}
        "crash" => {
            let service = Service { folder: folder.into(), name: name.clone() };
            let life = number(0)?;
            thread::spawn(move || or_die(crash(&service, life)));
        }
        "log" => {
            let service = Service { folder: folder.into(), name: name.clone() };
            let (burst, pause) = (number(0)?, Duration::from_millis(number(1)?));
            thread::spawn(move || or_die(log(&service, burst, pause)));
        }
        "echo" => {
            let listener = TcpListener::bind(("127.0.0.1", u16::try_from(number(0)?)?))?;
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || echo(stream));
                }
            });
        }
        "storm" => {
            let service = Service { folder: folder.into(), name: name.clone() };
            thread::spawn(move || or_die(storm(&service)));
        }
        "push" => push(number(0)?)?,
        "linger" => linger()?,
        other => bail!("no mode {other}"),
    }
    ready()?;
    loop {
        if handled.wait()? != Signal::SIGHUP {
            service.write("X 0")?;
            return Ok(ExitCode::SUCCESS);
        }
        service.write("H")?;
    }
}

fn or_die(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("{error:#}");
        exit_with(101);
    }
}

#[allow(clippy::exit, reason = "a thread ends the process, as a crash would")]
fn exit_with(status: i32) -> ! {
    exit(status)
}

impl Service {
    fn path(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.name))
    }

    /// One line, in one write.
    fn write(&self, line: &str) -> io::Result<()> {
        let mut ledger = File::options().create(true).append(true).open(self.path("ledger"))?;
        ledger.write_all(format!("{line}\n").as_bytes())
    }

    fn is_quiet(&self) -> bool {
        self.folder.join("quiet").exists()
    }
}

fn ready() -> Result<()> {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
        UnixDatagram::unbound()?.send_to(b"READY=1", Path::new(&path))?;
    }
    if let Some(number) = std::env::var_os("READY_FD") {
        let number = number.to_str().and_then(|number| number.parse().ok()).context("READY_FD")?;
        File::from(e2e::descriptors::handed(number)?).write_all(b"\n")?;
    }
    Ok(())
}

/// Gives away so many open files, one a message, under one name.
fn push(count: u64) -> Result<()> {
    let path = std::env::var_os("NOTIFY_SOCKET").context("NOTIFY_SOCKET")?;
    let socket = UnixDatagram::unbound()?;
    socket.connect(Path::new(&path))?;
    for _ in 0..count {
        // Each is another open file, and FDPOLL=0: nobody hangs up on it.
        let file = File::open("/dev/null")?;
        let fds = [file.as_raw_fd()];
        let message = [IoSlice::new(b"FDSTORE=1\nFDNAME=gift\nFDPOLL=0")];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(socket.as_raw_fd(), &message, &rights, MsgFlags::empty(), None)?;
    }
    Ok(())
}

/// Gives away sockets whose last close waits for an hour: its own are closed by then, and nobody reads what is in them.
fn linger() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let lingering = || -> Result<OwnedFd> {
        let mut socket = TcpStream::connect(listener.local_addr()?)?;
        socket.set_nonblocking(true)?;
        while socket.write(&[0; 1 << 16]).is_ok() {}
        setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 3600 })?;
        Ok(socket.into())
    };
    let path = std::env::var_os("NOTIFY_SOCKET").context("NOTIFY_SOCKET")?;
    let notify = UnixDatagram::unbound()?;
    notify.connect(Path::new(&path))?;
    let give = |text: &str, fd: OwnedFd| -> Result<()> {
        let (fds, message) = ([fd.as_raw_fd()], [IoSlice::new(text.as_bytes())]);
        sendmsg::<()>(
            notify.as_raw_fd(),
            &message,
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::empty(),
            None,
        )?;
        thread::spawn(move || drop(fd)); // which waits where everybody else was quicker
        Ok(())
    };
    // Kept, with another one in it that nobody has received; refused, since that is all that is kept; not to be kept; in a
    // message that is too long; and let go.
    let (one, other) = UnixDatagram::pair()?;
    let inside = lingering()?;
    let message = [IoSlice::new(b"x")];
    let rights = [inside.as_raw_fd()];
    sendmsg::<()>(one.as_raw_fd(), &message, &[ControlMessage::ScmRights(&rights)], MsgFlags::empty(), None)?;
    drop((one, inside));
    give("FDSTORE=1\nFDNAME=inside\nFDPOLL=0", other.into())?;
    give("FDSTORE=1\nFDNAME=kept\nFDPOLL=0", lingering()?)?;
    for _ in 0..8 {
        give("FDSTORE=1\nFDNAME=refused", lingering()?)?;
        give("STATUS=not to be kept", lingering()?)?;
        give(&format!("STATUS={}", "x".repeat(5000)), lingering()?)?;
    }
    for name in ["inside", "kept"] {
        notify.send(format!("FDSTOREREMOVE=1\nFDNAME={name}").as_bytes())?;
    }
    std::mem::forget(listener); // open for as long as this process lives, and with it those that nobody accepted
    Ok(())
}

/// Makes as many orphans as the file `storm` says, each time there is one; each ends by itself, and says so with status 9.
fn storm(service: &Service) -> Result<()> {
    let wanted = service.folder.join("storm");
    loop {
        let Ok(text) = std::fs::read_to_string(&wanted) else {
            thread::sleep(LOOK);
            continue;
        };
        let mut left: u64 = text.trim().parse()?;
        while left > 0 {
            // Each shell makes a hundred, and ends before they do.
            let batch = left.min(100);
            let script = format!("i=0; while [ $i -lt {batch} ]; do (exit 9) & i=$((i+1)); done");
            let status = Command::new("/bin/sh").args(["-c", &script]).status()?;
            anyhow::ensure!(status.success(), "{status}");
            left -= batch;
        }
        service.write(&format!("O {}", text.trim()))?;
        std::fs::remove_file(&wanted)?;
    }
}

/// Lives for so many milliseconds, or up to eleven times as many, and ends with a status that nobody can guess.
fn crash(service: &Service, life: u64) -> Result<()> {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos();
    thread::sleep(Duration::from_millis(life + u64::from(nanoseconds / 1_000) % (10 * life)));
    while service.is_quiet() {
        thread::sleep(LOOK);
    }
    // From 1 to 120: 125 is what tells motherd not to try again.
    let status = i32::try_from(nanoseconds / 7_000 % 120)? + 1;
    service.write(&format!("X {status}"))?;
    exit_with(status)
}

/// Numbered lines, in bursts.
fn log(service: &Service, burst: u64, pause: Duration) -> Result<()> {
    let mut count: u64 = 0;
    let mut told = false;
    loop {
        if service.is_quiet() {
            if !told {
                service.write(&format!("L {count}"))?;
            }
            told = true;
            thread::sleep(LOOK);
            continue;
        }
        told = false;
        let mut output = BufWriter::with_capacity(4 << 10, io::stdout().lock());
        for _ in 0..burst {
            count += 1;
            writeln!(output, "{count} {LINE}")?;
        }
        output.flush()?;
        drop(output);
        thread::sleep(pause);
    }
}

/// What comes goes back, until the client has said all.
fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 256];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..count]).is_err() {
            return; // the client is gone
        }
    }
}
