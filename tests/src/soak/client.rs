//! Who asks: one call on motherd's control socket, and clients of the services that never stop asking.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// How long an answer may take: a stop has ten seconds and the machine is shared.
const ANSWER: Duration = Duration::from_secs(60);

/// Asks motherd; an error of its is one here.
pub fn call(socket: &Path, method: &str, parameters: Value) -> Result<Value> {
    call_within(socket, method, parameters, ANSWER)
}

/// The same, with no more patience than this for what it sends.
pub fn call_within(socket: &Path, method: &str, parameters: Value, patience: Duration) -> Result<Value> {
    answered(ask(socket, method, parameters, patience)?).with_context(|| method.to_owned())
}

/// Asks, and does not wait for the answer.
pub fn ask(socket: &Path, method: &str, parameters: Value, patience: Duration) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("connect {}", socket.display()))?;
    stream.set_read_timeout(Some(patience))?;
    let message = json!({ "method": format!("io.altimatos.MotherD.{method}"), "parameters": parameters });
    stream.write_all(format!("{message}\0").as_bytes())?;
    Ok(stream)
}

/// The answer to that.
pub fn answered(mut stream: UnixStream) -> Result<Value> {
    let mut text = Vec::new();
    let mut chunk = [0; 16 << 10];
    while text.last() != Some(&0) {
        let count = stream.read(&mut chunk)?;
        ensure!(count > 0, "the connection broke before the answer");
        text.extend_from_slice(&chunk[..count]);
    }
    text.pop();
    let reply: Value = serde_json::from_slice(&text)?;
    match reply.get("error") {
        None => Ok(reply["parameters"].clone()),
        Some(error) => bail!("{error} {}", reply["parameters"]),
    }
}

/// One question to a service: `true` for the right answer.
pub type Ask = Arc<dyn Fn(u64) -> std::io::Result<bool> + Send + Sync>;

/// Sends a number to an echoing service and compares what comes back.
#[must_use]
pub fn ask_echo(port: u16) -> Ask {
    Arc::new(move |number| {
        let text = format!("{number:016x}");
        exchange(port, text.as_bytes(), text.len()).map(|answer| answer == text.as_bytes())
    })
}

/// Asks something whose answer begins in a known way.
#[must_use]
pub fn ask_for(port: u16, question: &'static str, expected: &'static str) -> Ask {
    Arc::new(move |_| {
        exchange(port, question.as_bytes(), expected.len()).map(|answer| answer == expected.as_bytes())
    })
}

/// Asks a web server for `/`, over a new connection each time.
#[must_use]
pub fn ask_http(port: u16, body: &'static str) -> Ask {
    Arc::new(move |_| {
        let mut stream = connect(port)?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(body.as_bytes()))
    })
}

/// Asks the nth question over the one connection that it has from the beginning: what is sent, and how the answer ends.
#[must_use]
pub fn ask_over_one(port: u16, question: fn(u64) -> (Vec<u8>, Vec<u8>)) -> Ask {
    let connection: Mutex<Option<(TcpStream, u64)>> = Mutex::default();
    Arc::new(move |_| {
        let Ok(mut connection) = connection.lock() else { return Ok(false) };
        // One that broke was told of; the next begins anew, and is told of as well if the counting did.
        let (mut stream, nth) = match connection.take() {
            Some(held) => held,
            None => (connect(port)?, 0),
        };
        let (sent, end) = question(nth);
        stream.write_all(&sent)?;
        let mut answer = Vec::new();
        let mut chunk = [0; 1024];
        // A line is an answer, whatever is in it; a page has many.
        let line = end.ends_with(b"\r\n");
        while !(answer.ends_with(&end) || line && answer.ends_with(b"\r\n")) {
            match stream.read(&mut chunk)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => answer.extend_from_slice(&chunk[..count]),
            }
        }
        let right = answer.ends_with(&end);
        if right {
            *connection = Some((stream, nth + 1));
        }
        Ok(right)
    })
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

fn exchange(port: u16, question: &[u8], answer: usize) -> std::io::Result<Vec<u8>> {
    let mut stream = connect(port)?;
    stream.write_all(question)?;
    let mut bytes = vec![0; answer];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// What came of all questions.
#[derive(Debug, Default)]
pub struct Answers {
    /// Right ones.
    pub right: AtomicU64,
    /// Connections that were refused.
    pub refused: AtomicU64,
    /// Anything else.
    pub wrong: AtomicU64,
    /// The first of each trouble.
    pub troubles: Mutex<Vec<String>>,
}

/// Threads that ask until they are told to end.
#[derive(Debug)]
pub struct Clients {
    /// So far.
    pub answers: Arc<Answers>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// One thread for each, which takes this pause after each answer.
    #[must_use]
    pub fn start(asks: Vec<Ask>, pause: Duration) -> Self {
        let (answers, end) = (Arc::new(Answers::default()), Arc::new(AtomicBool::new(false)));
        let threads = asks.into_iter().map(|ask| {
            let (answers, end) = (answers.clone(), end.clone());
            thread::spawn(move || {
                for number in 0.. {
                    if end.load(Ordering::Relaxed) {
                        break;
                    }
                    let counter = match ask(number) {
                        Ok(true) => &answers.right,
                        Ok(false) => &answers.wrong,
                        Err(error) => {
                            if let Ok(mut troubles) = answers.troubles.lock()
                                && troubles.len() < 5
                            {
                                troubles.push(error.to_string());
                            }
                            let refused = error.kind() == ErrorKind::ConnectionRefused;
                            if refused { &answers.refused } else { &answers.wrong }
                        }
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(pause);
                }
            })
        });
        Self { threads: threads.collect(), answers, end }
    }

    /// Ends them.
    pub fn stop(self) -> Arc<Answers> {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A client that panicked has said so.
            drop(thread.join());
        }
        self.answers
    }
}
