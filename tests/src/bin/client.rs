//! `client notify [WORD]...` speaks for a service with the crate `sd-notify`, as `tests/clients/notify.py` does with
//! Python's modules; `client descriptors` says what it was handed (see [`e2e::descriptors`]), and with `flip`
//! leaves it in the other mode; `client attack WHAT SOCKET` does
//! something bad (see [`e2e::hostile`]).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitCode};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe;
use sd_notify::NotifyState;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((word, first)) if word == "notify" => speak(first),
        Some((word, [])) if word == "descriptors" => e2e::descriptors::describe(),
        Some((word, [flip])) if word == "descriptors" && flip == "flip" => {
            e2e::descriptors::describe_and_flip()
        }
        Some((word, [what, path])) if word == "attack" => e2e::hostile::attack(what, Path::new(path)),
        _ => Err(anyhow::anyhow!("usage: client notify [WORD]... | descriptors [flip] | attack WHAT SOCKET")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A first message, and then those that are ordered on descriptor 3.
fn speak(first: &[String]) -> Result<()> {
    let child = Command::new("/bin/sleep").arg("1000").spawn()?;
    let mut orders = None;
    let mut names = Vec::new();
    for (number, name) in sd_notify::listen_fds_with_names()? {
        let mut file = File::from(e2e::descriptors::handed(number)?);
        if name == "chest" {
            let mut word = String::new();
            file.read_to_string(&mut word)?;
            println!("found {word}");
        }
        orders = orders.or(Some(file));
        names.push(name);
    }
    println!("has {}", names.join(":"));
    let mut orders = orders.context("no orders")?;
    if !first.is_empty() {
        say(&child, &first.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    let (mut feeding, mut text) = (false, Vec::new());
    loop {
        let pause = if feeding { PollTimeout::from(200_u8) } else { PollTimeout::NONE };
        if poll(&mut [PollFd::new(orders.as_fd(), PollFlags::POLLIN)], pause)? == 0 {
            sd_notify::notify(&[NotifyState::Watchdog])?;
            continue;
        }
        let mut bytes = [0; 4096];
        let length = orders.read(&mut bytes)?;
        text.extend_from_slice(bytes.get(..length).unwrap_or_default());
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let line = str::from_utf8(&line)?.trim_end_matches('\n');
            match line.split('\t').collect::<Vec<_>>().as_slice() {
                ["@feed"] => feeding = true,
                ["@quiet"] => feeding = false,
                words => say(&child, words)?,
            }
        }
    }
}

fn say(child: &Child, words: &[&str]) -> Result<()> {
    let (mut descriptors, mut barrier) = (Vec::new(), None);
    for word in words {
        match *word {
            "@pipe" => {
                let (read, write) = pipe()?;
                File::from(write).write_all(b"treasure")?;
                descriptors.push(read);
            }
            "@null" => descriptors.push(OwnedFd::from(File::open("/dev/null")?)),
            "@barrier" => {
                let (read, write) = pipe()?;
                barrier = Some(read);
                descriptors.push(write);
            }
            _ => {}
        }
    }
    let text: Vec<String> = words
        .iter()
        .filter(|word| !word.starts_with('@'))
        .map(|word| word.replace("@child", &child.id().to_string()))
        .collect();
    let states: Vec<NotifyState<'_>> = text.iter().map(|word| state(word)).collect();
    if descriptors.is_empty() {
        sd_notify::notify(&states)?;
    } else {
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        sd_notify::notify_with_fds(&states, &borrowed)?;
    }
    drop(descriptors);
    if let Some(barrier) = barrier {
        let ended = File::from(barrier).read(&mut [0])? == 0;
        ensure!(ended, "a barrier that says something");
    }
    println!("said 0: {}", words.join(" "));
    Ok(())
}

/// As the crate has it, where it has it.
fn state(word: &str) -> NotifyState<'_> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let number = || value.parse().unwrap_or_default();
    match (name, value) {
        ("READY", "1") => NotifyState::Ready,
        ("RELOADING", "1") => NotifyState::Reloading,
        ("STOPPING", "1") => NotifyState::Stopping,
        ("STATUS", text) => NotifyState::Status(text),
        ("ERRNO", _) => NotifyState::Errno(number()),
        ("MAINPID", _) => NotifyState::MainPid(number()),
        ("WATCHDOG", "1") => NotifyState::Watchdog,
        ("WATCHDOG", "trigger") => NotifyState::WatchdogTrigger,
        ("WATCHDOG_USEC", _) => NotifyState::WatchdogUsec(number()),
        ("EXTEND_TIMEOUT_USEC", _) => NotifyState::ExtendTimeoutUsec(number()),
        ("MONOTONIC_USEC", text) => NotifyState::MonotonicUsec(text.parse().unwrap_or_default()),
        ("FDSTORE", "1") => NotifyState::FdStore,
        ("FDSTOREREMOVE", "1") => NotifyState::FdStoreRemove,
        ("FDNAME", text) => NotifyState::FdName(text),
        _ => NotifyState::Custom(word),
    }
}
