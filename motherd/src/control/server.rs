//! The server's side of the control socket: it accepts, reads, refuses and writes, and never waits.
//!
//! ```text
//!              a whole message                     the daemon's reply
//!  Reading ----------------------> Waiting -------------------------> Writing
//!     ^  \                            (the peer hangs up: gone)          |
//!     |   `-- refused, introspection: answered here ------------------>  |
//!     `------------------------------------------------------------------' all of it is written
//!
//!                                   Waiting --the first of many replies--> Streaming, until the peer hangs up
//! ```
//!
//! A stream is pulled: the daemon asks [`Server::hungry`] who has taken all that it was given, and gives it the next
//! part. So a slow reader holds one part, not a queue, and one that takes nothing for [`TIME_MAX`] is disconnected.
//!
//! The daemon keeps the epoll: [`Server::watches`] says what to wait for, [`Server::ready`] is told what is ready,
//! [`Server::expire`] what time it is. Invariants:
//!
//! - no call here blocks, and none fails because of a peer;
//! - one request at a time is outstanding on a connection; what a peer sends meanwhile stays in the socket;
//! - a peer's memory here is bounded: [`CONNECTIONS_MAX`], [`MESSAGE_MAX_BYTES`], [`TIME_MAX`];
//! - who a peer is comes from SO_PEERCRED, never from what it says. Uid 0 and the daemon's own user may do
//!   everything, others only read, and they cannot fill the server: a part of it is kept for the privileged.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, getsockopt, send, sockopt::PeerCredentials},
    unistd::geteuid,
};
use serde_json::Value;

use super::protocol::{Call, Message, Reply, Request, RequestError, info, interface_description};
use crate::sys::{given::Given, notify::receive};

/// At most so many connections at a time.
pub const CONNECTIONS_MAX: usize = 64;

/// At most so many of them from peers that may only read: half, so that root always finds a place.
pub const READERS_MAX: usize = CONNECTIONS_MAX / 2;

/// At most so many streams to peers that may only read: a stream may last for ever, and they are to find a place too.
pub const READER_STREAMS_MAX: usize = READERS_MAX / 2;

/// A longer message ends the connection: 1 MiB, some ten thousand names of services.
pub const MESSAGE_MAX_BYTES: usize = 1 << 20;

/// The same for a peer that may only read: 64 KiB, so that all of them together hold 2 MiB at most.
pub const READER_MESSAGE_MAX_BYTES: usize = 64 << 10;

/// How long a peer may take to send one whole message, idleness before it included, and to take one whole reply.
/// The time that the daemon takes between the two is not limited.
pub const TIME_MAX: Duration = Duration::from_secs(60);

/// How long the listener rests when the process has no descriptor left: accept(2) would fail at once, again.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What one [`Server::ready`] reads at most, so that one peer does not starve the others.
const READ_BYTES: usize = 16 << 10;

/// What one [`Server::ready`] accepts at most, for the same reason.
const ACCEPTS: usize = 16;

/// Names the listener or one connection, for as long as the server lives: it is never used again, unlike an fd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

impl Token {
    /// The listener.
    pub const LISTENER: Token = Token(0);

    /// For `epoll_event.data`.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// From `epoll_event.data`; a number that names nothing is harmless.
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

/// What to wait for, level-triggered. Errors and hang-ups are reported by the kernel unasked; hand them in as well.
#[derive(Debug, Clone, Copy)]
pub struct Watch<'a> {
    /// For [`Server::ready`].
    pub token: Token,
    /// For epoll_ctl(2). It leaves the epoll set by being closed.
    pub fd: BorrowedFd<'a>,
    /// EPOLLIN
    pub read: bool,
    /// EPOLLOUT
    pub write: bool,
}

/// Who is at the other end: SO_PEERCRED, as it was when the peer connected (unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// 0 for a process that this PID namespace cannot see.
    pub pid: u32,
    /// Effective.
    pub uid: u32,
    /// Effective.
    pub gid: u32,
}

/// A request that the peer may make, to be answered once, by [`Server::reply`], at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Where the reply goes.
    pub connection: Token,
    /// Who asks.
    pub peer: Peer,
    /// What.
    pub request: Request,
}

/// The listener and its connections.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    /// The user who may do as much as root: the daemon's own.
    owner: u32,
    connections: BTreeMap<Token, Connection>,
    last_token: u64,
    /// No accept before this.
    paused_until: Option<Duration>,
}

#[derive(Debug)]
struct Connection {
    stream: Given,
    peer: Peer,
    privileged: bool,
    phase: Phase,
    /// What was read and is not yet a whole message; while a request is outstanding, what was read after it.
    input: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    Reading {
        deadline: Duration,
    },
    Waiting {
        one_way: bool,
    },
    Writing {
        output: Vec<u8>,
        written: usize,
        /// No part of it is to come any more.
        whole: bool,
        deadline: Duration,
    },
    /// `deadline` is there while something of `output` is not taken.
    Streaming {
        output: Vec<u8>,
        written: usize,
        deadline: Option<Duration>,
    },
}

/// The connection is of no use any more: the peer is gone, or broke the rules.
#[derive(Debug)]
struct Gone(&'static str);

impl Server {
    /// Serves a listening UNIX stream socket, which it makes non-blocking. Times given to the other functions count
    /// from any one epoch; CLOCK_BOOTTIME's is meant.
    ///
    /// # Errors
    /// ioctl(2)
    pub fn new(listener: OwnedFd) -> io::Result<Self> {
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            owner: geteuid().as_raw(),
            connections: BTreeMap::new(),
            last_token: Token::LISTENER.0,
            paused_until: None,
        })
    }

    /// What to wait for now; ask again after every other call.
    pub fn watches(&self) -> impl Iterator<Item = Watch<'_>> {
        let listener = Watch {
            token: Token::LISTENER,
            fd: self.listener.as_fd(),
            read: self.paused_until.is_none(),
            write: false,
        };
        std::iter::once(listener).chain(self.connections.iter().map(|(token, connection)| {
            let (read, write) = connection.interest();
            Watch { token: *token, fd: connection.stream.as_fd(), read, write }
        }))
    }

    /// Something happened on a watch. What came in is for the daemon; a token that is gone is ignored.
    #[must_use]
    pub fn ready(&mut self, token: Token, now: Duration) -> Vec<Incoming> {
        if token == Token::LISTENER {
            self.accept(now);
            return Vec::new();
        }
        let Some(connection) = self.connections.get_mut(&token) else { return Vec::new() };
        match connection.ready(now) {
            Ok(request) => request
                .map(|request| Incoming { connection: token, peer: connection.peer, request })
                .into_iter()
                .collect(),
            Err(gone) => {
                self.close(token, &gone);
                Vec::new()
            }
        }
    }

    /// Answers a request. A peer that has gone meanwhile is no error.
    pub fn reply(&mut self, connection: Token, reply: &Reply, now: Duration) {
        let Some(open) = self.connections.get_mut(&connection) else { return };
        let Phase::Waiting { one_way } = open.phase else {
            tracing::error!(connection = connection.0, "a reply to a request that was answered already");
            return;
        };
        let sent = if one_way {
            open.phase = Phase::Reading { deadline: now + TIME_MAX };
            Ok(())
        } else {
            open.answer(reply.to_text(), now)
        };
        if let Err(gone) = sent {
            self.close(connection, &gone);
        }
    }

    /// The same in parts, one right after the other within one call of the daemon's; `last` ends it.
    pub fn reply_part(&mut self, connection: Token, part: &[u8], last: bool, now: Duration) {
        let Some(open) = self.connections.get_mut(&connection) else { return };
        let sent = match open.phase {
            Phase::Waiting { one_way: true } if !last => Ok(()),
            Phase::Waiting { one_way: true } => {
                open.phase = Phase::Reading { deadline: now + TIME_MAX };
                Ok(())
            }
            Phase::Waiting { one_way: false } | Phase::Writing { whole: false, .. } => {
                open.answer_part(part, last, now)
            }
            Phase::Reading { .. } | Phase::Writing { whole: true, .. } | Phase::Streaming { .. } => {
                tracing::error!(connection = connection.0, "a part of a reply that was whole already");
                Ok(())
            }
        };
        if let Err(gone) = sent {
            self.close(connection, &gone);
        }
    }

    /// The same with one of many replies: the connection is a stream from now on.
    pub fn reply_more(&mut self, connection: Token, reply: &Reply, now: Duration) {
        let streams =
            self.connections.values().filter(|open| !open.privileged && open.is_streaming()).count();
        let Some(open) = self.connections.get_mut(&connection) else { return };
        let sent = match open.phase {
            Phase::Waiting { .. } if !open.privileged && streams >= READER_STREAMS_MAX => {
                let why = "too many streams are open".into();
                open.answer(Reply::Error(RequestError::Refused { why }).to_text(), now)
            }
            Phase::Waiting { one_way: true } => Err(Gone("it wants a stream and no reply")),
            Phase::Waiting { one_way: false } | Phase::Streaming { .. } => open.stream(reply.encode(), now),
            Phase::Reading { .. } | Phase::Writing { .. } => {
                tracing::error!(connection = connection.0, "a part of a stream that nobody asked for");
                Ok(())
            }
        };
        if let Err(gone) = sent {
            self.close(connection, &gone);
        }
    }

    /// Whether a connection is a stream, and has taken all that it was given. `None`: it is no stream (any more).
    #[must_use]
    pub fn hungry(&self, connection: Token) -> Option<bool> {
        match &self.connections.get(&connection)?.phase {
            Phase::Streaming { output, .. } => Some(output.is_empty()),
            Phase::Reading { .. } | Phase::Waiting { .. } | Phase::Writing { .. } => None,
        }
    }

    /// When [`Server::expire`] has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.connections
            .values()
            .filter_map(|connection| connection.phase.deadline())
            .chain(self.paused_until)
            .min()
    }

    /// Ends the connections that took too long.
    pub fn expire(&mut self, now: Duration) {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self.connections.retain(|token, connection| {
            let late = connection.phase.deadline().is_some_and(|deadline| deadline <= now);
            if late {
                tracing::debug!(connection = token.0, peer = ?connection.peer, "closed: took too long");
            }
            !late
        });
    }

    fn accept(&mut self, now: Duration) {
        for _ in 0..ACCEPTS {
            match self.listener.accept().and_then(|(stream, _)| stream.set_nonblocking(true).map(|()| stream))
            {
                Ok(stream) => self.admit(stream, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It went away between connect(2) and here.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "control socket: accept4; no connection for a second");
                    self.paused_until = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream, now: Duration) {
        match getsockopt(&stream, PeerCredentials) {
            Ok(who) => {
                let peer = Peer { pid: who.pid().cast_unsigned(), uid: who.uid(), gid: who.gid() };
                self.seat(stream, peer, now);
            }
            Err(errno) => tracing::warn!(%errno, "control socket: SO_PEERCRED; connection refused"),
        }
    }

    /// Takes a connected, non-blocking stream in, or tells it why not.
    fn seat(&mut self, stream: UnixStream, peer: Peer, now: Duration) {
        let privileged = peer.uid == 0 || peer.uid == self.owner;
        let mut connection = Connection {
            stream: OwnedFd::from(stream).into(),
            peer,
            privileged,
            phase: Phase::Reading { deadline: now + TIME_MAX },
            input: Vec::new(),
        };
        let readers = self.connections.values().filter(|other| !other.privileged).count();
        if self.connections.len() >= CONNECTIONS_MAX || (!privileged && readers >= READERS_MAX) {
            let why = "too many connections to the control socket are open".into();
            let refusal = Reply::Error(RequestError::Refused { why });
            if let Err(Gone(how)) = connection.answer(refusal.to_text(), now) {
                tracing::debug!(?peer, how, "refused a connection, which did not hear it");
            }
            return;
        }
        self.last_token += 1;
        self.connections.insert(Token(self.last_token), connection);
    }

    fn close(&mut self, token: Token, gone: &Gone) {
        if let Some(connection) = self.connections.remove(&token) {
            tracing::debug!(connection = token.0, peer = ?connection.peer, why = gone.0, "closed");
        }
    }
}

impl Connection {
    fn interest(&self) -> (bool, bool) {
        match &self.phase {
            // A whole message that came together with the one before it: no byte may follow to wake us, but the
            // socket can be written to, so that does.
            Phase::Reading { .. } => (true, self.input.contains(&0)),
            // A hang-up is reported all the same.
            Phase::Waiting { .. } => (false, false),
            Phase::Writing { .. } => (false, true),
            Phase::Streaming { output, .. } => (false, !output.is_empty()),
        }
    }

    /// Does what can be done without waiting; returns what the daemon is to answer.
    fn ready(&mut self, now: Duration) -> Result<Option<Request>, Gone> {
        match self.phase {
            Phase::Reading { .. } => {
                if !self.input.contains(&0) {
                    self.receive()?;
                }
                self.take_message(now)
            }
            Phase::Waiting { .. } => self.still_there().map(|()| None),
            Phase::Writing { .. } => self.write(now).map(|()| None),
            Phase::Streaming { ref output, .. } if output.is_empty() => self.still_there().map(|()| None),
            Phase::Streaming { .. } => self.write(now).map(|()| None),
        }
    }

    fn is_streaming(&self) -> bool {
        matches!(self.phase, Phase::Streaming { .. })
    }

    /// Begins one of many replies.
    fn stream(&mut self, mut message: Value, now: Duration) -> Result<(), Gone> {
        message["continues"] = Value::Bool(true);
        let mut next = message.to_string().into_bytes();
        next.push(0);
        match &mut self.phase {
            Phase::Streaming { output, deadline, .. } => {
                output.append(&mut next);
                deadline.get_or_insert(now + TIME_MAX);
            }
            Phase::Reading { .. } | Phase::Waiting { .. } | Phase::Writing { .. } => {
                self.phase = Phase::Streaming { output: next, written: 0, deadline: Some(now + TIME_MAX) };
            }
        }
        self.write(now)
    }

    /// Reads once.
    fn receive(&mut self) -> Result<(), Gone> {
        let mut chunk = [0; READ_BYTES];
        // Nobody sends descriptors here for a good reason. They are taken, so that they are closed as `Given` is.
        match receive(self.stream.as_fd(), &mut chunk).map(|received| received.bytes) {
            Ok(0) if self.input.is_empty() => Err(Gone("the peer hung up")),
            Ok(0) => Err(Gone("the peer hung up within a message")),
            Ok(read) => {
                self.input.extend_from_slice(&chunk[..read]);
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(_) => Err(Gone("recv failed")),
        }
    }

    /// Takes one whole message off the input, if there is one, and answers what needs no daemon.
    fn take_message(&mut self, now: Duration) -> Result<Option<Request>, Gone> {
        let limit = if self.privileged { MESSAGE_MAX_BYTES } else { READER_MESSAGE_MAX_BYTES };
        let Some(end) = self.input.iter().position(|byte| *byte == 0) else {
            return if self.input.len() > limit { Err(Gone("a message is too long")) } else { Ok(None) };
        };
        if end > limit {
            return Err(Gone("a message is too long"));
        }
        let rest = self.input.split_off(end + 1);
        let text = std::mem::replace(&mut self.input, rest);
        let Ok(Message { call, one_way }) = Message::decode(&text[..end]) else {
            return Err(Gone("not a Varlink message"));
        };
        self.phase = Phase::Waiting { one_way };
        let call = call.and_then(|call| self.permit(call));
        let answer = match call {
            Ok(Call::MotherD(request)) => return Ok(Some(request)),
            Ok(Call::GetInfo) => info().to_string().into_bytes(),
            Ok(Call::GetInterfaceDescription { interface }) => {
                interface_description(&interface).to_string().into_bytes()
            }
            Err(error) => Reply::Error(error).to_text(),
        };
        if one_way {
            self.phase = Phase::Reading { deadline: now + TIME_MAX };
        } else {
            self.answer(answer, now)?;
        }
        Ok(None)
    }

    fn permit(&self, call: Call) -> Result<Call, RequestError> {
        match &call {
            Call::MotherD(request) if !self.privileged && !request.only_reads() => {
                Err(RequestError::PermissionDenied { method: request.method().into(), uid: self.peer.uid })
            }
            Call::MotherD(_) | Call::GetInfo | Call::GetInterfaceDescription { .. } => Ok(call),
        }
    }

    /// Begins a reply, and most often ends it: it fits into the socket's buffer.
    fn answer(&mut self, mut output: Vec<u8>, now: Duration) -> Result<(), Gone> {
        output.push(0);
        self.phase = Phase::Writing { output, written: 0, whole: true, deadline: now + TIME_MAX };
        self.write(now)
    }

    /// The next part of a reply, which the peer takes while the part after it is made; the last one makes it `whole`.
    fn answer_part(&mut self, part: &[u8], last: bool, now: Duration) -> Result<(), Gone> {
        if !matches!(self.phase, Phase::Writing { whole: false, .. }) {
            let deadline = now + TIME_MAX;
            self.phase = Phase::Writing { output: Vec::new(), written: 0, whole: false, deadline };
        }
        if let Phase::Writing { output, written, whole, .. } = &mut self.phase {
            if *written == output.len() {
                output.clear();
                *written = 0;
            }
            output.extend_from_slice(part);
            if last {
                output.push(0);
            }
            *whole = last;
        }
        self.write(now)
    }

    fn write(&mut self, now: Duration) -> Result<(), Gone> {
        let (output, written) = match &mut self.phase {
            Phase::Writing { output, written, .. } | Phase::Streaming { output, written, .. } => {
                (output, written)
            }
            Phase::Reading { .. } | Phase::Waiting { .. } => return Ok(()),
        };
        while *written < output.len() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.stream.as_fd().as_raw_fd(), &output[*written..], flags) {
                Ok(sent) => *written += sent,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(_) => return Err(Gone("the peer hung up within a reply")),
            }
        }
        if let Phase::Writing { whole: false, .. } = self.phase {
            return Ok(());
        }
        self.phase = if self.is_streaming() {
            Phase::Streaming { output: Vec::new(), written: 0, deadline: None }
        } else {
            Phase::Reading { deadline: now + TIME_MAX }
        };
        Ok(())
    }

    /// A peer that only shut its sending side down still waits for the reply; one that closed is reported here.
    fn still_there(&self) -> Result<(), Gone> {
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let gone = match poll(&mut fds, PollTimeout::ZERO) {
            Ok(_) => fds[0].any().unwrap_or(true),
            Err(errno) => errno != Errno::EINTR,
        };
        if gone { Err(Gone("the peer hung up before the reply")) } else { Ok(()) }
    }
}

impl Phase {
    fn deadline(&self) -> Option<Duration> {
        match self {
            Phase::Reading { deadline } | Phase::Writing { deadline, .. } => Some(*deadline),
            Phase::Streaming { deadline, .. } => *deadline,
            Phase::Waiting { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
