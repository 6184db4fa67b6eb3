//! What a service says: sd_notify(3) as text, read to a value. Pure.
//!
//! A variable that is not known, or whose value makes no sense, changes nothing: that is the protocol.

use crate::service::{ACCESS, Access};

/// The longest STATUS that is kept, in bytes.
const STATUS_MAX: usize = 256;
/// The longest FDNAME (sd_pid_notify_with_fds(3)).
const FDNAME_MAX: usize = 255;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Message {
    /// READY=1
    pub(crate) ready: bool,
    /// STATUS=, of one line, without control characters.
    pub(crate) status: Option<String>,
    /// MAINPID=, as the service sees it.
    pub(crate) main_pid: Option<u32>,
    /// RELOADING=1
    pub(crate) reloading: bool,
    /// MONOTONIC_USEC=
    pub(crate) monotonic_usec: Option<u64>,
    /// STOPPING=1
    pub(crate) stopping: bool,
    /// WATCHDOG=
    pub(crate) watchdog: Option<Watchdog>,
    /// WATCHDOG_USEC=
    pub(crate) watchdog_usec: Option<u64>,
    /// EXTEND_TIMEOUT_USEC=
    pub(crate) extend_usec: Option<u64>,
    /// FDSTORE=1
    pub(crate) store: bool,
    /// FDSTOREREMOVE=1
    pub(crate) unstore: bool,
    /// FDNAME=, where it is one.
    pub(crate) fd_name: Option<String>,
    /// FDPOLL=0
    pub(crate) no_poll: bool,
    /// NOTIFYACCESS=
    pub(crate) access: Option<Access>,
    /// ERRNO=
    pub(crate) errno: Option<i32>,
    /// EXIT_STATUS=
    pub(crate) exit_status: Option<u8>,
}

/// What WATCHDOG= says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watchdog {
    /// `1`: it lives.
    Alive,
    /// `trigger`: it is to be treated as if it had been silent.
    Trigger,
}

impl Message {
    /// Reads a datagram. A later line wins over an earlier one of the same name.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut message = Self::default();
        let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
        for (name, value) in lines.filter_map(|line| line.split_once('=')) {
            message.line(name, value);
        }
        message
    }

    fn line(&mut self, name: &str, value: &str) {
        let set = |flag: &mut bool| *flag |= value == "1";
        match name {
            "READY" => set(&mut self.ready),
            "RELOADING" => set(&mut self.reloading),
            "STOPPING" => set(&mut self.stopping),
            "FDSTORE" => set(&mut self.store),
            "FDSTOREREMOVE" => set(&mut self.unstore),
            "FDPOLL" => self.no_poll |= value == "0",
            "STATUS" => self.status = Some(plain(value)),
            "MAINPID" => self.main_pid = number(value).filter(|pid| *pid > 0),
            "MONOTONIC_USEC" => self.monotonic_usec = number(value),
            "WATCHDOG_USEC" => self.watchdog_usec = number(value),
            "EXTEND_TIMEOUT_USEC" => self.extend_usec = number(value),
            "ERRNO" => self.errno = number(value),
            "EXIT_STATUS" => self.exit_status = number(value),
            "NOTIFYACCESS" => {
                self.access = ACCESS.iter().find(|(word, _)| *word == value).map(|(_, access)| *access);
            }
            "FDNAME" => self.fd_name = is_fd_name(value).then(|| value.to_owned()),
            "WATCHDOG" => {
                self.watchdog = match value {
                    "1" => Some(Watchdog::Alive),
                    "trigger" => Some(Watchdog::Trigger),
                    _ => self.watchdog,
                }
            }
            // BARRIER=1 asks for nothing but that its descriptor is closed once everything before it was dealt with.
            _ => {}
        }
    }
}

/// Digits alone: `str::parse` would take a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// What can be shown on a terminal, cut between characters.
fn plain(text: &str) -> String {
    let mut plain: String = text.chars().filter(|c| !c.is_control()).collect();
    let mut end = plain.len().min(STATUS_MAX);
    while !plain.is_char_boundary(end) {
        end -= 1;
    }
    plain.truncate(end);
    plain
}

/// ASCII without control characters and colons (sd_pid_notify_with_fds(3)).
pub(crate) fn is_fd_name(name: &str) -> bool {
    (1..=FDNAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_variable_of_the_protocol_is_read() {
        let text = "READY=1\nSTATUS=Serving ünder load\nMAINPID=4711\nRELOADING=1\nMONOTONIC_USEC=123\nSTOPPING=1\n\
                    WATCHDOG=1\nWATCHDOG_USEC=5000000\nEXTEND_TIMEOUT_USEC=7\nFDSTORE=1\nFDSTOREREMOVE=1\n\
                    FDNAME=conn 1\nFDPOLL=0\nNOTIFYACCESS=main\nERRNO=2\nEXIT_STATUS=3\nBARRIER=1\nX_OWN=1\n";
        let expected = Message {
            ready: true,
            status: Some("Serving ünder load".to_owned()),
            main_pid: Some(4711),
            reloading: true,
            monotonic_usec: Some(123),
            stopping: true,
            watchdog: Some(Watchdog::Alive),
            watchdog_usec: Some(5_000_000),
            extend_usec: Some(7),
            store: true,
            unstore: true,
            fd_name: Some("conn 1".to_owned()),
            no_poll: true,
            access: Some(Access::Main),
            errno: Some(2),
            exit_status: Some(3),
        };
        assert_eq!(Message::parse(text.as_bytes()), expected);
        let trigger = Message { watchdog: Some(Watchdog::Trigger), ..Message::default() };
        assert_eq!(Message::parse(b"WATCHDOG=trigger"), trigger);
    }

    #[test]
    fn what_makes_no_sense_changes_nothing() {
        for text in [
            "",
            "READY",
            "READY=0",
            "READY=11",
            "ready=1",
            "NOTREADY=1",
            "READY = 1",
            "MAINPID=-1",
            "MAINPID=0",
            "MAINPID=+7",
            "MAINPID=99999999999",
            "MAINPID=1x",
            "WATCHDOG=2",
            "WATCHDOG_USEC=1.5",
            "EXIT_STATUS=256",
            "NOTIFYACCESS=any",
            "FDNAME=a:b",
            "FDNAME=",
            "FDNAME=\u{7}",
            "FDPOLL=1",
            "BARRIER=1",
            "\0\0\0",
            "=1",
            "\n\n\n",
        ] {
            assert_eq!(Message::parse(text.as_bytes()), Message::default(), "{text:?}");
        }
        assert!(Message::parse(b"\xff\xfe=1\nREADY=1").ready, "a line that is no text spoils no other");
    }

    #[test]
    fn a_status_cannot_steer_a_terminal_and_has_an_end() {
        let status = |text: &str| Message::parse(format!("STATUS={text}").as_bytes()).status.unwrap();
        assert_eq!(status("a\u{1b}[31mb\rc"), "a[31mbc");
        assert_eq!(status(&"ü".repeat(1000)).len(), STATUS_MAX);
        assert_eq!(status(""), "");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let message = Message::parse(&bytes);
            prop_assert!(message.status.is_none_or(|status| status.len() <= STATUS_MAX));
        }
    }
}
