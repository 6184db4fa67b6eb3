//! Why a command failed, and the exit status that says so.

use std::{error::Error, fmt};

/// A message with its causes, and an exit status of the contract.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: u8,
    message: String,
}

impl Failure {
    /// The error and everything behind it, on one line where it fits.
    pub(super) fn new(status: u8, error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Self { status, message }
    }

    /// The same, with what was being done in front.
    pub(super) fn doing(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
