//! The client's side of the control socket: one connection, one call at a time, blocking.

mod status;

use std::{
    io::{self, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    address,
    protocol::{Reply, Request, RequestError, ServiceStatus},
};

/// A reply longer than this is refused: 64 MiB, far above what all services of a machine make.
const REPLY_MAX_BYTES: usize = 64 << 20;

/// What one read(2) takes at most.
const READ_BYTES: usize = 64 << 10;

/// A connection to motherd.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: UnixStream,
    /// What came after the message that was taken last.
    rest: Vec<u8>,
}

/// Why a call has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is nobody at the socket, or the socket is not for this user.
    #[error("motherd is not reachable at {}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// connect(2)
        source: io::Error,
    },
    /// The connection broke before the reply was whole: motherd may or may not have done it.
    #[error("the connection to motherd at {} broke before it answered", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What came back is no reply.
    #[error("motherd at {} answered with something else than a reply to {method}", path.display())]
    Nonsense {
        /// The socket.
        path: PathBuf,
        /// What was asked.
        method: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// motherd refused, or tried and failed.
    #[error(transparent)]
    Refused(#[from] RequestError),
}

impl CallError {
    /// The exit status of motherctl: 6 not reachable, 5 not allowed to connect, else by the error.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            CallError::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 5,
            CallError::Unreachable { .. } => 6,
            CallError::Broken { .. } | CallError::Nonsense { .. } => 1,
            CallError::Refused(error) => error.exit_status(),
        }
    }
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`CallError::Unreachable`]
    pub fn connect(path: &Path) -> Result<Self, CallError> {
        match address::connect(path) {
            Ok(stream) => Ok(Self { path: path.to_owned(), stream, rest: Vec::new() }),
            Err(source) => Err(CallError::Unreachable { path: path.to_owned(), source }),
        }
    }

    /// Asks, and waits for the answer for as long as it takes: a stop may take its whole time-out.
    ///
    /// # Errors
    /// Any; a reply that is an error is one.
    pub fn call(&mut self, request: &Request) -> Result<Reply, CallError> {
        let text = self.exchange(&request.encode()).map_err(|source| self.broken(source))?;
        match Reply::decode(request, &text) {
            Ok(Reply::Error(error)) => Err(error.into()),
            Ok(reply) => Ok(reply),
            Err(source) => {
                Err(CallError::Nonsense { path: self.path.clone(), method: request.method(), source })
            }
        }
    }

    /// Asks for a stream and hands over each reply as it comes, until `take` has seen enough or the stream ends.
    ///
    /// # Errors
    /// As for [`Client::call`].
    pub fn call_each(
        &mut self,
        request: &Request,
        mut take: impl FnMut(Reply) -> bool,
    ) -> Result<(), CallError> {
        let mut text = self.exchange(&request.encode()).map_err(|source| self.broken(source))?;
        loop {
            let more = Reply::continues(&text);
            let reply = Reply::decode(request, &text).map_err(|source| CallError::Nonsense {
                path: self.path.clone(),
                method: request.method(),
                source,
            })?;
            if let Reply::Error(error) = reply {
                return Err(error.into());
            }
            if !take(reply) || !more {
                return Ok(());
            }
            text = self.receive().map_err(|source| self.broken(source))?;
        }
    }

    /// Asks for a brief status of these services, and hands over each as it comes, while motherd looks at the next.
    ///
    /// # Errors
    /// As for [`Client::call`]; services may have been handed over before.
    pub fn status(
        path: &Path,
        services: &[String],
        mut take: impl FnMut(ServiceStatus),
    ) -> Result<(), CallError> {
        let mut ask = |brief| {
            let request = Request::Status { services: services.to_vec(), brief };
            Self::connect(path)?.call_status(&request, &mut take)
        };
        match ask(true) {
            // A motherd from before there were brief answers; or a name is wrong, which it says again.
            Err(CallError::Refused(RequestError::InvalidParameter { .. })) => ask(false),
            answered => answered,
        }
    }

    fn call_status(mut self, request: &Request, take: impl FnMut(ServiceStatus)) -> Result<(), CallError> {
        let sent = self.send(&request.encode());
        let mut reader = BufReader::with_capacity(READ_BYTES, (&self.stream).take(REPLY_MAX_BYTES as u64));
        match status::read(&mut reader, take) {
            Ok(Some(error)) => Err(error.into()),
            Ok(None) => Ok(()),
            Err(source) if source.is_io() || source.is_eof() => {
                // A server that is full says so and hangs up before it reads: what it said is there to be read.
                Err(self.broken(sent.err().unwrap_or_else(|| source.into())))
            }
            Err(source) => {
                Err(CallError::Nonsense { path: self.path.clone(), method: request.method(), source })
            }
        }
    }

    fn broken(&self, source: io::Error) -> CallError {
        CallError::Broken { path: self.path.clone(), source }
    }

    fn exchange(&mut self, message: &Value) -> io::Result<Vec<u8>> {
        // A server that is full says so and hangs up before it reads: what it said is there to be read.
        let sent = match self.send(message) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(error),
            other => Ok(other?),
        };
        match (self.receive(), sent) {
            (Err(_), Err(error)) => Err(error),
            (received, _) => received,
        }
    }

    fn send(&mut self, message: &Value) -> io::Result<()> {
        let mut output = message.to_string().into_bytes();
        output.push(0);
        self.stream.write_all(&output)
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut text = std::mem::take(&mut self.rest);
        let mut chunk = [0; READ_BYTES];
        let mut seen = 0;
        loop {
            if let Some(end) = text[seen..].iter().position(|byte| *byte == 0) {
                self.rest = text.split_off(seen + end + 1);
                text.pop();
                return Ok(text);
            }
            seen = text.len();
            if seen > REPLY_MAX_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let read = match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            text.extend_from_slice(&chunk[..read]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener, thread};

    use super::*;
    use crate::{control::protocol::samples::web, scratch::Scratch};

    /// Answers one message on each of the connections that come, and says what was asked.
    fn server(listener: UnixListener, answers: Vec<Reply>) -> thread::JoinHandle<Vec<String>> {
        thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut message = Vec::new();
                let mut byte = [0];
                while stream.read(&mut byte).unwrap() == 1 && byte[0] != 0 {
                    message.push(byte[0]);
                }
                asked.push(String::from_utf8(message).unwrap());
                let mut text = answer.to_text();
                text.push(0);
                stream.write_all(&text).unwrap();
            }
            asked
        })
    }

    #[test]
    fn a_motherd_that_knows_no_brief_answer_is_asked_for_the_whole_one() {
        let scratch = Scratch::new();
        let path = scratch.path().join("motherd.sock");
        let refused = || {
            let parameter = "unknown field `brief`".to_owned();
            Reply::Error(RequestError::InvalidParameter { parameter })
        };
        let ask = |answers| {
            let server = server(UnixListener::bind(&path).unwrap(), answers);
            let mut taken = Vec::new();
            let answer = Client::status(&path, &["web".to_owned()], |service| taken.push(service));
            fs::remove_file(&path).unwrap();
            (answer, taken, server)
        };
        let whole = || Reply::Status(vec![web()]);
        let (answer, taken, server) = ask(vec![refused(), whole()]);
        answer.unwrap();
        assert_eq!(taken, [web()]);
        let asked = server.join().unwrap();
        assert!(asked[0].contains("\"brief\":true") && !asked[1].contains("brief"), "{asked:?}");

        let (answer, taken, server) = ask(vec![whole()]);
        answer.unwrap();
        assert_eq!((taken, server.join().unwrap().len()), (vec![web()], 1), "control: one that does");

        let (answer, taken, _server) = ask(vec![refused(), refused()]);
        let refused = matches!(answer, Err(CallError::Refused(RequestError::InvalidParameter { .. })));
        assert!(refused && taken.is_empty());
    }
}
