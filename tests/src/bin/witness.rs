//! The command inside a reaper, for `tests/command.rs`: it says to the socket that the first argument names what it is and
//! which signals come, and does what comes back from there, a line each.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::{env, fs, process};

use anyhow::{Context, Result, bail};
use e2e::witness::{as_found, next_signal, take_every_signal};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

fn main() -> Result<ExitCode> {
    let found = as_found()?;
    let path = env::args().nth(1).context("usage: witness SOCKET [plain]")?;
    let mut control = UnixStream::connect(path)?;
    // One thread and no more: glibc keeps some signals to itself in a process with threads.
    let signals =
        if env::args().nth(2).as_deref() == Some("plain") { None } else { Some(take_every_signal()?) };
    tell(&mut control, &found)?;
    let mut lines = BufReader::new(control.try_clone()?);
    loop {
        let mut fds = vec![PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        fds.extend(signals.as_ref().map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [commanded, signalled] = [0, 1].map(|nth| fds.get(nth).and_then(PollFd::any).unwrap_or_default());
        if signalled && let Some(signals) = &signals {
            let signal = next_signal(signals)?;
            // Its own children's ends are no news.
            if signal != libc::SIGCHLD.unsigned_abs() {
                tell(&mut control, &format!("signal {signal}"))?;
            }
        }
        if !commanded {
            continue;
        }
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let line = line.trim_end();
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "exit" => return Ok(ExitCode::from(rest.parse::<u8>()?)),
            "shell" => {
                let output = Command::new("/bin/sh").args(["-c", rest]).output()?;
                let text = String::from_utf8_lossy(&output.stdout).trim_end().replace('\n', "\\n");
                tell(&mut control, &format!("shell {} {text}", output.status.code().unwrap_or(-1)))?;
            }
            "read" => {
                let mut text = String::new();
                std::io::stdin().lock().read_line(&mut text)?;
                tell(&mut control, &format!("read {}", text.trim_end()))?;
            }
            "status" => {
                let status = fs::read_to_string("/proc/self/status")?;
                let value = |key: &str| {
                    status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim()
                };
                tell(&mut control, &format!("status {}", value(rest)))?;
            }
            "pid" => tell(&mut control, &format!("pid {}", process::id()))?,
            other => bail!("unknown command {other}"),
        }
    }
}

/// In one write.
fn tell(control: &mut UnixStream, line: &str) -> Result<()> {
    Ok(control.write_all(format!("{line}\n").as_bytes())?)
}
