//! Health checks of services that are up: tried without ever waiting, judged, and acted upon.
//!
//! A connection is tried in the network of the service's main process, a path is looked up below its root, and a command
//! runs beside it: what is checked is what the service offers where it lives. Nothing here is recorded: a new motherd begins
//! to count anew.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::{
        epoll::{EpollEvent, EpollFlags},
        socket::{
            AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, UnixAddr, connect, getsockopt,
            socket, sockopt,
        },
        stat::Mode,
    },
    unistd::{read, write},
};

use super::{Daemon, Fatal, events::Source, jobs::Purpose, now};
use crate::{
    graph::Id,
    service::{Health, Probe},
    supervise::{Event, State},
    sys::network::socket_beside,
};

/// Enough of an answer to see its status.
const ANSWER_BYTES: usize = 512;

/// One check of a service that runs.
#[derive(Debug)]
struct Check {
    next: Duration,
    attempt: Option<Attempt>,
    /// In a row.
    failed: u32,
    /// What the last one came to; `None` before the first.
    last: Option<Result<(), String>>,
}

/// A check under way.
#[derive(Debug)]
struct Attempt {
    deadline: Duration,
    /// `None`: a command.
    connection: Option<OwnedFd>,
    /// What is to be sent next, of an HTTP request.
    request: Option<String>,
    answer: Vec<u8>,
}

/// The checks of every service that has some and runs.
#[derive(Debug, Default)]
pub(super) struct Checks(BTreeMap<Id, Vec<Check>>);

impl Checks {
    /// The service is not there any more.
    pub(super) fn forget(&mut self, id: Id) {
        self.0.remove(&id);
    }
}

impl Daemon {
    /// A new run.
    pub(super) fn begin_checks(&mut self, id: Id) {
        let program = self.manager.graph().service(id).program();
        let count = program.map_or(0, |program| program.health.len());
        let check = || Check { next: Duration::ZERO, attempt: None, failed: 0, last: None };
        self.checks.0.remove(&id);
        if count > 0 {
            self.checks.0.insert(id, std::iter::repeat_with(check).take(count).collect());
        }
    }

    /// When something is due.
    pub(super) fn next_check(&self) -> Option<Duration> {
        let of = |(id, checks): (&Id, &Vec<Check>)| {
            let since = self.checked_since(*id)?;
            let rules = &self.manager.graph().service(*id).program()?.health;
            checks.iter().zip(rules).map(|(check, health)| due(check, health, since)).min()
        };
        self.checks.0.iter().filter_map(of).min()
    }

    /// Since when it is up, and is to be checked.
    fn checked_since(&self, id: Id) -> Option<Duration> {
        let unit = self.manager.unit(id);
        let ending = self.runtime.get(&id).is_some_and(|runtime| runtime.said.stopping.is_some());
        (matches!(unit.state, State::Running { .. }) && !ending).then_some(unit.since)
    }

    /// Begins the checks that are due, and ends those whose time is over.
    pub(super) fn run_checks(&mut self, now: Duration) -> Result<(), Fatal> {
        let ids: Vec<Id> = self.checks.0.keys().copied().collect();
        for id in ids {
            let Some(since) = self.checked_since(id) else { continue };
            let rules = self.manager.graph().service(id).program().map(|program| program.health.clone());
            for (place, health) in rules.unwrap_or_default().iter().enumerate() {
                let Some(check) = self.checks.0.get(&id).and_then(|checks| checks.get(place)) else { break };
                if due(check, health, since) > now {
                    continue;
                }
                if check.attempt.is_some() {
                    let words = format!("nothing within {} s", health.timeout.as_secs_f64());
                    self.checked(id, place, Err(words))?;
                } else {
                    self.begin_check(id, place, health)?;
                }
            }
        }
        Ok(())
    }

    fn begin_check(&mut self, id: Id, place: usize, health: &Health) -> Result<(), Fatal> {
        let deadline = now().saturating_add(health.timeout);
        let began = match &health.probe {
            Probe::Exec(command) => {
                self.start_job(id, Purpose::Health { place }, command, health.timeout)?.map(|()| None)
            }
            Probe::Tcp(address) => self.connect(id, *address).map(|fd| Some((fd, None))),
            Probe::Unix(path) => self.connect_unix(id, path).map(|fd| Some((fd, None))),
            Probe::Http { address, path } => {
                let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
                self.connect(id, *address).map(|fd| Some((fd, Some(request))))
            }
        };
        let (connection, request) = match began {
            Err(why) => return self.checked(id, place, Err(why)),
            Ok(None) => (None, None),
            Ok(Some((fd, request))) => (Some(fd), request),
        };
        if let Some(fd) = &connection {
            let event = EpollEvent::new(EpollFlags::EPOLLOUT, Source::Health(id).pack());
            if let Err(errno) = self.epoll.add(fd, event) {
                return self.checked(id, place, Err(format!("epoll_ctl: {errno}")));
            }
        }
        if let Some(check) = self.checks.0.get_mut(&id).and_then(|checks| checks.get_mut(place)) {
            check.attempt = Some(Attempt { deadline, connection, request, answer: Vec::new() });
        }
        Ok(())
    }

    fn connect(&self, id: Id, address: SocketAddr) -> Result<OwnedFd, String> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let main = self.runtime.get(&id).and_then(|runtime| runtime.pidfd.as_ref());
        let main = main.ok_or_else(|| "its main process is not held".to_owned())?;
        let fd = socket_beside(main.as_fd(), family).map_err(|errno| format!("socket: {errno}"))?;
        let connected = match address {
            SocketAddr::V4(address) => connect(fd.as_raw_fd(), &SockaddrIn::from(address)),
            SocketAddr::V6(address) => connect(fd.as_raw_fd(), &SockaddrIn6::from(address)),
        };
        begun(connected, fd)
    }

    /// A path is looked up as the service would, so a link in it leads nowhere outside of its root.
    fn connect_unix(&self, id: Id, path: &str) -> Result<OwnedFd, String> {
        let main = self.manager.unit(id).main().ok_or_else(|| "it has no main process".to_owned())?;
        let root = format!("/proc/{}/root", main.pid);
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let how = OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let node = open(Path::new(&root), flags | OFlag::O_DIRECTORY, Mode::empty())
            .and_then(|root| openat2(root, path, how))
            .map_err(|errno| errno.to_string())?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd =
            socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(|errno| errno.to_string())?;
        let address = UnixAddr::new(Path::new(&format!("/proc/self/fd/{}", node.as_raw_fd())));
        begun(address.and_then(|address| connect(fd.as_raw_fd(), &address)), fd)
    }

    /// A connection of one of its checks is ready for more.
    pub(super) fn health_ready(&mut self, id: Id) -> Result<(), Fatal> {
        for place in 0..self.checks.0.get(&id).map_or(0, Vec::len) {
            let attempt =
                self.checks.0.get_mut(&id).and_then(|checks| checks.get_mut(place)?.attempt.as_mut());
            let Some(attempt) = attempt else { continue };
            let sent = attempt.request.is_some();
            if let Some(result) = attempt.advance() {
                self.checked(id, place, result)?;
            } else if sent
                && attempt.request.is_none()
                && let Some(fd) = &attempt.connection
            {
                let mut event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Health(id).pack());
                if let Err(errno) = self.epoll.modify(fd, &mut event) {
                    self.checked(id, place, Err(format!("epoll_ctl: {errno}")))?;
                }
            }
        }
        Ok(())
    }

    /// What a check came to.
    pub(super) fn checked(&mut self, id: Id, place: usize, result: Result<(), String>) -> Result<(), Fatal> {
        let service = self.manager.graph().service(id);
        let Some(health) = service.program().and_then(|program| program.health.get(place)).cloned() else {
            return Ok(());
        };
        let name = service.name().to_owned();
        let Some(check) = self.checks.0.get_mut(&id).and_then(|checks| checks.get_mut(place)) else {
            return Ok(());
        };
        check.attempt = None;
        check.next = now().saturating_add(health.every);
        check.failed = if result.is_ok() { 0 } else { check.failed.saturating_add(1) };
        let (was, failed) = (check.last.replace(result.clone()), check.failed);
        let probe = &health.probe;
        match result {
            Ok(()) if matches!(was, Some(Err(_))) => tracing::info!("{name}: health: {probe}: well again"),
            Ok(()) => {}
            Err(why) => {
                tracing::warn!("{name}: health: {probe}: {why} ({failed} of {})", health.failures);
                if failed == health.failures && health.restart && self.checked_since(id).is_some() {
                    let why = format!("health: {probe}: {why}, {failed} times in a row");
                    self.event(id, Event::Sick { why, signal: None })?;
                }
            }
        }
        Ok(())
    }

    /// One line for each check, for people.
    pub(super) fn health_words(&self, id: Id) -> Vec<String> {
        let rules = self.manager.graph().service(id).program().map_or(&[][..], |program| &program.health[..]);
        let words = |(health, check): (&Health, &Check)| match &check.last {
            None => format!("{}: not checked yet", health.probe),
            Some(Ok(())) => format!("{}: well", health.probe),
            Some(Err(why)) => format!("{}: {why} ({} of {})", health.probe, check.failed, health.failures),
        };
        let checks = self.checks.0.get(&id).filter(|_| self.checked_since(id).is_some());
        checks.map(|checks| rules.iter().zip(checks).map(words).collect()).unwrap_or_default()
    }
}

fn due(check: &Check, health: &Health, since: Duration) -> Duration {
    match &check.attempt {
        // The time of a command is watched where commands are.
        Some(Attempt { connection: None, .. }) => Duration::MAX,
        Some(attempt) => attempt.deadline,
        None => check.next.max(since.saturating_add(health.every)),
    }
}

fn begun(connected: Result<(), Errno>, fd: OwnedFd) -> Result<OwnedFd, String> {
    match connected {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        Err(errno) => Err(errno.to_string()),
    }
}

impl Attempt {
    /// As far as it goes without waiting; what it came to, once it has.
    fn advance(&mut self) -> Option<Result<(), String>> {
        let fd = self.connection.as_ref()?;
        match getsockopt(fd, sockopt::SocketError) {
            Ok(0) => {}
            Ok(errno) => return Some(Err(Errno::from_raw(errno).to_string())),
            Err(errno) => return Some(Err(errno.to_string())),
        }
        if let Some(request) = &self.request {
            // It is far shorter than the smallest send buffer.
            return match write(fd, request.as_bytes()) {
                Err(Errno::EAGAIN | Errno::EINTR) => None,
                Ok(count) if count == request.len() => {
                    self.request = None;
                    self.answer.reserve(ANSWER_BYTES);
                    None
                }
                Ok(_) => Some(Err("the request was not taken".to_owned())),
                Err(errno) => Some(Err(errno.to_string())),
            };
        }
        if self.answer.capacity() == 0 {
            return Some(Ok(()));
        }
        let mut bytes = [0; ANSWER_BYTES];
        match read(fd, &mut bytes) {
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            Err(errno) => Some(Err(errno.to_string())),
            Ok(count) => {
                self.answer.extend_from_slice(&bytes[..count]);
                let whole = count == 0 || self.answer.contains(&b'\n') || self.answer.len() >= ANSWER_BYTES;
                whole.then(|| judge(&self.answer))
            }
        }
    }
}

/// The status line of an answer: `HTTP/1.1 200 OK`.
fn judge(answer: &[u8]) -> Result<(), String> {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status =
        line.strip_prefix("HTTP/").and_then(|rest| rest.split(' ').nth(1)?.trim().parse::<u16>().ok());
    match status {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("status {status}")),
        None => Err("the answer is no HTTP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_its_status() {
        assert_eq!(judge(b"HTTP/1.1 200 OK\r\n"), Ok(()));
        assert_eq!(judge(b"HTTP/1.0 301 Moved\r\n\r\nbody"), Ok(()));
        assert_eq!(judge(b"HTTP/1.1 503 Sorry\r\n"), Err("status 503".to_owned()));
        for text in ["", "SSH-2.0-x\n", "HTTP/1.1\n", "HTTP/1.1 abc\n", "\u{0}\n"] {
            assert_eq!(judge(text.as_bytes()), Err("the answer is no HTTP".to_owned()), "{text:?}");
        }
    }
}
