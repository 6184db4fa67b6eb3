//! A motherd without a mind, for `tests/initldr.rs`: whatever initldr says on the link goes, as a line of text, to the
//! socket that the first argument names, and each line that comes back from there is done.

use anyhow::{Context, Result, bail};
use initldr::link::{End, LINK_FD, MESSAGE_SIZE, STATE_FD, SlotName, ToInit, ToManager, Welcome};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, recvmsg, sendmsg, shutdown};
use std::{
    env, fs,
    io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    process::{self, Command, ExitCode},
    thread,
};

fn main() -> Result<ExitCode> {
    let path = env::args().nth(1).context("usage: fake_motherd SOCKET")?;
    let mut control = UnixStream::connect(path)?;
    // Only where it is asked for: this needs /proc.
    let state = || fs::OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{STATE_FD}"));
    tell(&mut control, &format!("here {}", process::id()))?;
    let mut told = control.try_clone()?;
    thread::spawn(move || {
        loop {
            match hear() {
                Ok(Some(line)) if tell(&mut told, &line).is_ok() => {}
                Ok(_) => break,
                Err(error) => {
                    eprintln!("fake_motherd: {error:#}"); // to the log of the test
                    break;
                }
            }
        }
        told.shutdown(std::net::Shutdown::Both) // which ends `main` too
    });
    for line in BufReader::new(control.try_clone()?).lines() {
        let line = line?;
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match verb {
            "hello" => say(ToInit::Hello, None)?,
            "acknowledge" => say(ToInit::Acknowledge(rest.parse()?), None)?,
            "store" => {
                let (name, path) = rest.split_once(' ').context("store NAME PATH")?;
                let file = fs::File::open(path)?;
                say(ToInit::Store(slot(name)?), Some(file.as_raw_fd()))?;
            }
            "store-writable" => {
                let (name, path) = rest.split_once(' ').context("store-writable NAME PATH")?;
                let file = fs::OpenOptions::new().write(true).open(path)?;
                say(ToInit::Store(slot(name)?), Some(file.as_raw_fd()))?;
            }
            "store-nothing" => say(ToInit::Store(slot(rest)?), None)?,
            "drop" => say(ToInit::Drop(slot(rest)?), None)?,
            "alive" => say(ToInit::Alive, None)?,
            "list" => say(ToInit::List, None)?,
            "retire" => say(ToInit::Retire, None)?,
            "execute" => say(ToInit::Execute(slot(rest)?), None)?,
            "end" => say(ToInit::End(End::PowerOff), None)?,
            "exit-with" => say(ToInit::End(End::Exit(rest.parse()?)), None)?,
            "carry-on" => say(ToInit::CarryOn, None)?,
            "flood" => {
                let mut seed = rest.parse::<u64>()? | 1;
                for _ in 0..20_000 {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    // Requests that are answered, lists that are long to answer, and what is no message at all.
                    let message = match seed % 4 {
                        0 => ToInit::Drop(slot("none")?).encode().to_vec(),
                        1 => ToInit::List.encode().to_vec(),
                        2 => ToInit::Acknowledge(seed).encode().to_vec(),
                        _ => seed.to_le_bytes().repeat(usize::try_from(seed >> 8 & 63)? + 1),
                    };
                    send(&message, None)?;
                }
                tell(&mut control, "flooded")?;
            }
            "leak" => {
                // A child that holds the link, and goes on when this process is gone.
                let script = "trap '' PIPE; while head -c 4096 /dev/zero >&3; do :; done 2>/dev/null; exit 9";
                Command::new("/bin/sh").args(["-c", script]).spawn()?;
                tell(&mut control, "leaked")?;
            }
            "garbage" => {
                for size in [1, 255, 256, 257, 4096] {
                    send(&vec![0xa5; size], None)?;
                }
            }
            "shell" => {
                // Not to hold the link open when this process is killed.
                let script = format!("exec 3>&- 4>&-; {rest}");
                let status = Command::new("/bin/sh").args(["-c", &script]).status()?;
                tell(&mut control, &format!("shell {}", status.code().unwrap_or(-1)))?;
            }
            "write" => {
                let mut state = state()?;
                state.seek(SeekFrom::Start(1 << 20))?;
                state.write_all(rest.as_bytes())?;
                tell(&mut control, "written")?;
            }
            "read" => {
                let mut text = vec![0; rest.parse()?];
                let mut state = state()?;
                state.seek(SeekFrom::Start(1 << 20))?;
                state.read_exact(&mut text)?;
                tell(
                    &mut control,
                    &format!("state {} {}", state.metadata()?.len(), String::from_utf8_lossy(&text)),
                )?;
            }
            "close-and-hang" => {
                shutdown(LINK_FD, Shutdown::Both)?;
                loop {
                    thread::park();
                }
            }
            "exit" => return Ok(ExitCode::from(rest.parse::<u8>()?)),
            other => bail!("unknown command {other}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// In one write: two threads use the socket.
fn tell(control: &mut UnixStream, line: &str) -> Result<()> {
    Ok(control.write_all(format!("{line}\n").as_bytes())?)
}

fn slot(name: &str) -> Result<SlotName> {
    SlotName::new(name).context("a slot name")
}

fn say(message: ToInit, fd: Option<RawFd>) -> Result<()> {
    send(&message.encode(), fd)
}

fn send(bytes: &[u8], fd: Option<RawFd>) -> Result<()> {
    let fds: Vec<RawFd> = fd.into_iter().collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[] } else { &rights[..] };
    sendmsg::<()>(LINK_FD, &[IoSlice::new(bytes)], rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// The next message as a line; `None` at the end of the link. With a stored descriptor goes what can be read from it.
fn hear() -> Result<Option<String>> {
    let mut bytes = [0; MESSAGE_SIZE];
    let mut iov = [IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!(RawFd);
    let received = recvmsg::<()>(LINK_FD, &mut iov, Some(&mut space), MsgFlags::empty())?;
    let size = received.bytes;
    let mut fd = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = message {
            fd = fds.first().copied();
        }
    }
    if size == 0 {
        return Ok(None);
    }
    Ok(Some(match ToManager::decode(&bytes[..size]).map_err(|error| anyhow::anyhow!("{error:?}"))? {
        ToManager::Welcome(Welcome { generation, pid1, cause, lost_exits, down_since_boottime_ns, safe }) => {
            let down = down_since_boottime_ns != 0;
            let safe = if safe { " safe" } else { "" };
            format!(
                "welcome generation={generation} pid1={pid1} cause={cause:?} lost={lost_exits} was_down={down}{safe}"
            )
        }
        ToManager::Stored(name, _) => {
            let fd = fd.context("a descriptor with Stored")?;
            format!(
                "stored {} {}",
                name.as_str(),
                fs::read_to_string(format!("/proc/self/fd/{fd}"))?.trim_end()
            )
        }
        ToManager::Exit(exit) => {
            format!("exit {} code={} status={}", exit.sequence, exit.code, exit.status)
        }
        ToManager::ReplayEnd => "replay-end".to_owned(),
        ToManager::StoreAnswer { name, errno } => format!("answer {} {errno}", name.as_str()),
        ToManager::Signal(signal) => format!("signal {}", signal.number),
        ToManager::Left(words) => format!("left {words:?}"),
    }))
}
