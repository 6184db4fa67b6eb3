//! [`Transcript`]: what compiling asked the host, and what that answered.
//!
//! Compiling follows from the policy, the subject, the kernel and these answers, and from nothing else. So a plan is good
//! for as long as the same questions have the same answers, and that is asked, not guessed from the times of files.

use std::{cell::RefCell, io, sync::Arc};

use super::host::{FileKind, Host};
use crate::policy::DeviceKind;

/// A question and its answer. Of an error it matters which it was.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Kind(String, Told<FileKind>),
    Link(String, Option<String>),
    User(String, Told<Option<(u32, u32)>>),
    PrimaryGroup(u32, Told<Option<u32>>),
    Device(String, Told<Option<(DeviceKind, u32, u32)>>),
    Majors(DeviceKind, String, Told<Vec<u32>>),
    Group(String, Told<Option<u32>>),
}

type Told<T> = Result<T, (io::ErrorKind, Option<i32>)>;

fn told<T: Clone>(answer: &io::Result<T>) -> Told<T> {
    match answer {
        Ok(value) => Ok(value.clone()),
        Err(error) => Err((error.kind(), error.raw_os_error())),
    }
}

impl Asked {
    /// Whether the host answers the same now.
    fn holds(&self, host: &dyn Host) -> bool {
        match self {
            Self::Kind(path, answer) => told(&host.kind(path)) == *answer,
            Self::Link(path, answer) => host.link(path) == *answer,
            Self::User(name, answer) => told(&host.user(name)) == *answer,
            Self::PrimaryGroup(uid, answer) => told(&host.primary_group(*uid)) == *answer,
            Self::Device(path, answer) => told(&host.device(path)) == *answer,
            Self::Majors(kind, driver, answer) => told(&host.majors(*kind, driver)) == *answer,
            Self::Group(name, answer) => told(&host.group(name)) == *answer,
        }
    }
}

/// Everything that was asked, each question once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transcript(Arc<[Asked]>);

impl Transcript {
    /// Whether the host answers everything as it did.
    pub(crate) fn holds(&self, host: &dyn Host) -> bool {
        self.0.iter().all(|asked| asked.holds(host))
    }

    /// Is that one from here on, if they say the same.
    pub(crate) fn share(&mut self, known: &Self) {
        if self == known {
            *self = known.clone();
        }
    }
}

/// A host whose answers are noted.
pub(crate) struct Noting<'h> {
    host: &'h dyn Host,
    asked: RefCell<Vec<Asked>>,
}

impl<'h> Noting<'h> {
    pub(crate) fn new(host: &'h dyn Host) -> Self {
        Self { host, asked: RefCell::default() }
    }

    pub(crate) fn into_transcript(self) -> Transcript {
        Transcript(self.asked.into_inner().into())
    }

    fn note(&self, asked: Asked) {
        let mut all = self.asked.borrow_mut();
        if !all.contains(&asked) {
            all.push(asked);
        }
    }
}

impl Host for Noting<'_> {
    fn kind(&self, path: &str) -> io::Result<FileKind> {
        let answer = self.host.kind(path);
        self.note(Asked::Kind(path.to_owned(), told(&answer)));
        answer
    }

    fn link(&self, path: &str) -> Option<String> {
        let answer = self.host.link(path);
        self.note(Asked::Link(path.to_owned(), answer.clone()));
        answer
    }

    fn user(&self, name: &str) -> io::Result<Option<(u32, u32)>> {
        let answer = self.host.user(name);
        self.note(Asked::User(name.to_owned(), told(&answer)));
        answer
    }

    fn primary_group(&self, uid: u32) -> io::Result<Option<u32>> {
        let answer = self.host.primary_group(uid);
        self.note(Asked::PrimaryGroup(uid, told(&answer)));
        answer
    }

    fn device(&self, path: &str) -> io::Result<Option<(DeviceKind, u32, u32)>> {
        let answer = self.host.device(path);
        self.note(Asked::Device(path.to_owned(), told(&answer)));
        answer
    }

    fn majors(&self, kind: DeviceKind, driver: &str) -> io::Result<Vec<u32>> {
        let answer = self.host.majors(kind, driver);
        self.note(Asked::Majors(kind, driver.to_owned(), told(&answer)));
        answer
    }

    fn group(&self, name: &str) -> io::Result<Option<u32>> {
        let answer = self.host.group(name);
        self.note(Asked::Group(name.to_owned(), told(&answer)));
        answer
    }
}
