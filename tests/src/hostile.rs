//! Clients that mean no good: each does one bad thing to a socket of motherd's, again and again, until it is killed. The
//! program `client attack` is one; [`Attack::begin`] starts it as whom one likes.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::programs::Programs;

/// A user of nothing on this host.
pub const NOBODY: u32 = 54_321;

/// More connections than motherd takes from everybody together.
const MANY: usize = 100;
/// How long one that holds connections holds them.
const HOLD: Duration = Duration::from_secs(2);

/// Something bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// A hundred connections, each of which sends a byte now and then and never a whole message.
    Trickle,
    /// A hundred connections on which nothing is said.
    Silent,
    /// Connections by the thousand, each closed at once.
    Connects,
    /// Messages of a mebibyte.
    Long,
    /// A request, no more after it, and no answer read.
    HalfClosed,
    /// Streams of events that nobody reads.
    Streams,
    /// Bytes that are no message.
    Garbage,
    /// Everything about everything, as fast as it comes.
    Greedy,
    /// Thousands of instances of a template, by name.
    Names,
    /// Datagrams to a readiness socket, as fast as it takes them.
    Datagrams,
}

impl Attack {
    /// Those that are about the control socket.
    pub const ON_CONTROL: [Self; 9] = [
        Self::Trickle,
        Self::Silent,
        Self::Connects,
        Self::Long,
        Self::HalfClosed,
        Self::Streams,
        Self::Garbage,
        Self::Greedy,
        Self::Names,
    ];

    /// As a word of a command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Trickle => "trickle",
            Self::Silent => "silent",
            Self::Connects => "connects",
            Self::Long => "long",
            Self::HalfClosed => "half-closed",
            Self::Streams => "streams",
            Self::Garbage => "garbage",
            Self::Greedy => "greedy",
            Self::Names => "names",
            Self::Datagrams => "datagrams",
        }
    }

    fn of(word: &str) -> Result<Self> {
        let all = Self::ON_CONTROL.into_iter().chain([Self::Datagrams]);
        all.into_iter().find(|attack| attack.word() == word).with_context(|| format!("{word} is no attack"))
    }

    /// Starts it as a user, against the socket at `path`.
    pub fn begin(self, user: u32, path: &Path) -> Result<Attacker> {
        let id = user.to_string();
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
        command.arg(&Programs::built()?.client).args(["attack", self.word()]).arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child =
            crate::sys::end_with_this_thread(&mut command).spawn().context("cannot run setpriv")?;
        // It says a word once it has begun.
        let mut word = [0];
        let said = child.stdout.as_mut().context("no output")?.read(&mut word)?;
        if said == 0 {
            bail!("{} did not begin: {}", self.word(), child.wait()?);
        }
        Ok(Attacker(child))
    }
}

/// One at work. Dropping it ends it.
#[derive(Debug)]
pub struct Attacker(Child);

impl Drop for Attacker {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("cannot end an attacker: {error}");
        }
    }
}

/// Does it, until this process is killed: `client attack WORD PATH`.
pub fn attack(word: &str, path: &Path) -> Result<()> {
    let attack = Attack::of(word)?;
    let mut told = false;
    loop {
        // One that is refused comes again; that there is nobody is what a motherd that died would look like.
        match once(attack, path, &mut told) {
            Ok(()) => {}
            Err(error) if is_refusal(&error) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error),
        }
        began(&mut told)?;
    }
}

/// Whoever started this one waits for a word.
fn began(told: &mut bool) -> Result<()> {
    if !std::mem::replace(told, true) {
        println!("begun");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn is_refusal(error: &anyhow::Error) -> bool {
    let kinds = [
        ErrorKind::WouldBlock,
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
        ErrorKind::NotConnected,
        ErrorKind::NotFound,
        ErrorKind::UnexpectedEof,
        ErrorKind::TimedOut,
    ];
    error.downcast_ref::<std::io::Error>().is_some_and(|error| kinds.contains(&error.kind()))
}

fn once(attack: Attack, path: &Path, told: &mut bool) -> Result<()> {
    match attack {
        Attack::Trickle => hold(path, b"{\"method\":\"", told, |peer| drop(peer.write(b" "))),
        Attack::Silent => hold(path, b"", told, |_peer| {}),
        Attack::Streams => {
            let follow = b"{\"method\":\"io.altimatos.MotherD.Events\",\"more\":true}\0";
            hold(path, follow, told, |_peer| {})
        }
        Attack::HalfClosed => {
            let list = b"{\"method\":\"io.altimatos.MotherD.Status\"}\0";
            hold(path, list, told, |peer| drop(peer.shutdown(Shutdown::Write)))
        }
        Attack::Connects => {
            for _ in 0..1000 {
                drop(connected(path)?);
            }
            Ok(())
        }
        Attack::Long => {
            let mut peer = connected(path)?;
            peer.write_all(b"{\"method\":\"")?;
            Ok(peer.write_all(&vec![b'x'; 1 << 20])?)
        }
        Attack::Garbage => {
            for garbage in [&b"\0\0\0"[..], b"[1,2]\0", b"\xff\xfe{}\0", b"{\"method\":{}}\0", b"{}{}{}\0\0"]
            {
                let mut peer = connected(path)?;
                peer.write_all(garbage)?;
                peer.read(&mut [0; 512]).map(drop)?;
            }
            Ok(())
        }
        Attack::Greedy => call(path, "{\"method\":\"io.altimatos.MotherD.Status\"}\0"),
        Attack::Names => {
            let names: Vec<String> = (0..2000).map(|number| format!("\"worker@{number}\"")).collect();
            let services = names.join(",");
            call(
                path,
                &format!(
                    "{{\"method\":\"io.altimatos.MotherD.Status\",\"parameters\":{{\"services\":[{services}]}}}}\0"
                ),
            )
        }
        Attack::Datagrams => {
            let socket = UnixDatagram::unbound()?;
            for _ in 0..1000 {
                socket.send_to(b"READY=1\nSTATUS=forged\nMAINPID=1", path)?;
            }
            Ok(())
        }
    }
}

fn connected(path: &Path) -> std::io::Result<UnixStream> {
    let peer = UnixStream::connect(path)?;
    peer.set_write_timeout(Some(HOLD))?;
    peer.set_read_timeout(Some(HOLD))?;
    Ok(peer)
}

/// Asks, and reads the answer to its end.
fn call(path: &Path, message: &str) -> Result<()> {
    let mut peer = connected(path)?;
    peer.write_all(message.as_bytes())?;
    let mut part = [0; 64 << 10];
    loop {
        let read = peer.read(&mut part)?;
        if read == 0 || part[..read].contains(&0) {
            return Ok(());
        }
    }
}

/// As many connections as there are to be had, held for a while.
fn hold(path: &Path, first: &[u8], told: &mut bool, mut again: impl FnMut(&mut UnixStream)) -> Result<()> {
    let mut peers = Vec::new();
    for _ in 0..MANY {
        match connected(path).and_then(|mut peer| peer.write_all(first).map(|()| peer)) {
            Ok(peer) => peers.push(peer),
            // It is full: what is held already is held on.
            Err(_) => break,
        }
    }
    began(told)?;
    let until = Instant::now() + HOLD;
    while Instant::now() < until {
        peers.iter_mut().for_each(&mut again);
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
