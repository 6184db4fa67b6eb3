//! Standard output, text or JSON, with a reader that may have stopped reading; and standard error.

use std::io::{self, Write};

use serde_json::Value;

use super::{failure::Failure, render::Style};

/// How a command prints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
    pub(super) style: Style,
}

impl Output {
    pub(super) fn text(self, text: &str) -> Result<(), Failure> {
        print(text)
    }
}

pub(super) fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// Standard output of a command that goes on until nobody reads.
#[derive(Debug)]
pub(super) struct Stdout;

impl Stdout {
    /// Prints; `false`: whoever read has gone.
    pub(super) fn print(&mut self, text: &str) -> Result<bool, Failure> {
        self.print_bytes(text.as_bytes())
    }

    /// The same with what need not be text.
    pub(super) fn print_bytes(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::say(1, format!("write to standard output: {error}"))),
            Ok(()) => Ok(true),
        }
    }
}

/// Prints; `motherctl list | head -1`: who has seen enough is no failure of ours.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    Stdout.print(text).map(drop)
}

/// Writes to standard error. If that is closed there is nobody left to tell.
pub(super) fn complain(text: &str) {
    if io::stderr().write_all(text.as_bytes()).is_err() {
        tracing::debug!("standard error is closed");
    }
}
