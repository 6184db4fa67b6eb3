//! The commands around a program: `start.pre`, `start.post`, `stop.exec`, `stop.post`, `reload.exec`.
//!
//! Each is one command (`["/bin/check", "-q"]`) or a list of them, run one after the other, in the service's own sandbox and
//! cgroup. They are written and checked like `exec`.

use sandbox::diagnostic::Located;
use toml::de::DeTable;

use super::{
    Start,
    raw::{RawService, Reader},
    validate::Checker,
};
use crate::rare::Usual;

/// A program and its arguments, as they are written.
pub(crate) type RawCommand = Located<Vec<Located<String>>>;

/// The lists as they are written.
#[derive(Debug, Default)]
pub(crate) struct RawCommands {
    pub(crate) pre: Vec<RawCommand>,
    pub(crate) post: Vec<RawCommand>,
    pub(crate) stop: Vec<RawCommand>,
    pub(crate) stop_post: Vec<RawCommand>,
    pub(crate) reload: Vec<RawCommand>,
}

/// The lists, checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Commands {
    /// Before the program; one that fails fails the start.
    pub pre: Vec<Located<Vec<String>>>,
    /// When the program is ready, before it counts as up; one that fails fails the start.
    pub post: Vec<Located<Vec<String>>>,
    /// Before the stop signal.
    pub stop: Vec<Located<Vec<String>>>,
    /// When nothing of it is left.
    pub stop_post: Vec<Located<Vec<String>>>,
    /// What `reload` does.
    pub reload: Vec<Located<Vec<String>>>,
}

impl Usual for Commands {
    fn usual() -> &'static Self {
        static NONE: Commands = Commands {
            pre: Vec::new(),
            post: Vec::new(),
            stop: Vec::new(),
            stop_post: Vec::new(),
            reload: Vec::new(),
        };
        &NONE
    }
}

impl Reader<'_> {
    /// One command, or a list of commands.
    pub(super) fn commands(&mut self, table: &DeTable<'_>, key: &str) -> Vec<RawCommand> {
        let Some(entry) = table.get(key) else { return Vec::new() };
        let lists = entry.get_ref().as_array().is_some_and(|array| {
            !array.is_empty() && array.iter().all(|item| item.get_ref().as_array().is_some())
        });
        if !lists {
            return self
                .strings(table, key)
                .into_iter()
                .filter(|command| !command.value.is_empty())
                .collect();
        }
        let items = entry.get_ref().as_array().map(|array| array.iter()).into_iter().flatten();
        items.filter_map(|item| self.strings_of(key, item)).collect()
    }
}

impl Checker<'_> {
    pub(super) fn commands(&mut self, raw: &RawService, start: Start) -> Option<Commands> {
        if let (Start::Oneshot, Some(first)) = (start, raw.commands.post.first()) {
            self.refuse(
                "bad-value",
                &first.at,
                "a oneshot has no `start.post`: it is done when its program is",
                "write a service of its own that is `after` this one",
            );
        }
        if let (Some(signal), Some(_)) = (&raw.reload_signal, raw.commands.reload.first()) {
            self.refuse(
                "bad-value",
                &signal.at,
                "[reload] has a signal and a command",
                "one of them is how this service reloads",
            );
        }
        let mut list = |commands: &[RawCommand]| -> Option<Vec<_>> {
            let checked: Vec<_> = commands.iter().map(|command| self.exec(command)).collect();
            checked.into_iter().collect()
        };
        let written = &raw.commands;
        let (pre, post) = (list(&written.pre), list(&written.post));
        let (stop, stop_post) = (list(&written.stop), list(&written.stop_post));
        let reload = list(&written.reload);
        Some(Commands { pre: pre?, post: post?, stop: stop?, stop_post: stop_post?, reload: reload? })
    }
}
