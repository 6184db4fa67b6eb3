//! Why a command failed, and the exit status that says so.

use std::{error::Error, fmt, io};

use nix::errno::Errno;
use sandbox::diagnostic::Report;

/// A message with its causes, and an exit status of the contract.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: u8,
    text: String,
}

impl Failure {
    /// The error and everything behind it, on one line where it fits.
    pub(super) fn new(status: u8, error: &(dyn Error + 'static)) -> Self {
        let mut message = tell(error);
        let mut cause = error.source();
        while let Some(error) = cause {
            // Some errors tell their cause themselves; it is said once.
            match message.strip_suffix(&error.to_string()) {
                Some(before) => message = format!("{before}{}", tell(error)),
                None => message.push_str(&format!(": {}", tell(error))),
            }
            cause = error.source();
        }
        Self::say(status, message)
    }

    /// A message of our own.
    pub(super) fn say(status: u8, message: impl fmt::Display) -> Self {
        Self { status, text: format!("motherctl: {message}") }
    }

    /// Diagnostics, which are a text of many lines and say themselves where they belong.
    pub(super) fn report(status: u8, report: &Report) -> Self {
        Self { status, text: report.to_string().trim_end().to_owned() }
    }

    /// The same, with another exit status.
    pub(super) fn with_status(self, status: u8) -> Self {
        Self { status, ..self }
    }

    /// The same, with what was being done before it.
    pub(super) fn about(mut self, what: &str) -> Self {
        let text = self.text.strip_prefix("motherctl: ").unwrap_or(&self.text);
        self.text = format!("motherctl: {what}: {text}");
        self
    }

    /// The same, with a line of advice under it.
    pub(super) fn advise(mut self, advice: &str) -> Self {
        self.text.push('\n');
        self.text.push_str(advice);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An errno by its name, which can be looked up: `ENOENT: No such file or directory`.
fn tell(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
        Some(number) => Errno::from_raw(number).to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::client::CallError;

    #[test]
    fn a_failure_tells_its_causes_and_the_name_of_the_errno() {
        let source = io::Error::from_raw_os_error(111);
        let failure = Failure::new(6, &CallError::Unreachable { path: "/run/x".into(), source });
        assert_eq!(
            failure.to_string(),
            "motherctl: motherd is not reachable at /run/x: ECONNREFUSED: Connection refused"
        );
    }

    #[test]
    fn a_cause_that_an_error_tells_itself_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("make /x: {source}")]
        struct Own {
            source: io::Error,
        }
        let failure = Failure::new(125, &Own { source: io::Error::from_raw_os_error(13) });
        assert_eq!(failure.to_string(), "motherctl: make /x: EACCES: Permission denied");
    }
}
