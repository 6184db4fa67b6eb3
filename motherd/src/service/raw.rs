//! A service file as it is written: every key that the format has, with its place, and nothing decided yet.
//!
//! Read from the parser's own tree and not through serde, because serde stops at the first wrong key: here all wrong
//! keys, wrong types and syntax errors of a file come out at once.

use super::commands::RawCommands;
use super::condition::RawCondition;
use super::environment::RawVariable;
use super::health::RawHealth;
use super::notify::RawNotify;
use sandbox::diagnostic::{Diagnostic, FileId, Located, Place, nearest};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Relation, socket::RawSocket, timer::RawTimer};

/// Exactly the keys of a service file that this version executes, and the places of those that it does not.
#[derive(Debug, Default)]
pub(crate) struct RawService {
    pub(crate) description: Option<Located<String>>,
    pub(crate) exec: Option<Located<Vec<Located<String>>>>,
    pub(crate) policy: Option<Located<String>>,
    pub(crate) slice: Option<Located<String>>,
    pub(crate) standby: Option<Located<bool>>,
    /// By relation.
    pub(crate) dependencies: [Vec<Located<String>>; Relation::ALL.len()],
    pub(crate) tolerate_restart: Option<Located<bool>>,
    pub(crate) start_type: Option<Located<String>>,
    pub(crate) start_timeout: Option<Located<String>>,
    pub(crate) remain: Option<Located<bool>>,
    pub(crate) pidfile: Option<Located<String>>,
    pub(crate) start_fd: Option<Located<i64>>,
    pub(crate) commands: RawCommands,
    pub(crate) environment: Vec<RawVariable>,
    pub(crate) notify: Option<RawNotify>,
    pub(crate) health: Vec<RawHealth>,
    pub(crate) watchdog_interval: Option<Located<String>>,
    pub(crate) reload_signal: Option<Located<String>>,
    pub(crate) stop_signal: Option<Located<String>>,
    pub(crate) stop_timeout: Option<Located<String>>,
    pub(crate) restart_when: Option<Located<String>>,
    pub(crate) restart_delay: Option<Located<String>>,
    pub(crate) restart_factor: Option<Located<f64>>,
    pub(crate) restart_max_delay: Option<Located<String>>,
    pub(crate) restart_reset_after: Option<Located<String>>,
    pub(crate) restart_limit: Option<Located<i64>>,
    pub(crate) restart_limit_window: Option<Located<String>>,
    pub(crate) restart_jitter: Option<Located<f64>>,
    pub(crate) restart_success_on: Option<Located<Vec<Located<RawExit>>>>,
    pub(crate) restart_never_on: Option<Located<Vec<Located<RawExit>>>>,
    pub(crate) log_keep: Option<Located<String>>,
    pub(crate) log_rate: Option<Located<String>>,
    pub(crate) conditions: Vec<RawCondition>,
    pub(crate) sockets: Vec<RawSocket>,
    pub(crate) timers: Vec<RawTimer>,
    /// The first key or section that only a process has: a group that has one lacks its `exec`.
    pub(crate) process_key: Option<Located<&'static str>>,
}

/// How a process can end, as it is written.
#[derive(Debug, Clone)]
pub(crate) enum RawExit {
    /// `2`
    Status(i64),
    /// `"SIGKILL"`
    Signal(String),
}

/// Text to [`RawService`]; what is wrong with its shape goes to `problems`. `None` where it is no TOML: what a parser
/// makes of the rest of such a file would only lead to errors that are none.
pub(crate) fn parse(text: &str, file: FileId, problems: &mut Vec<Diagnostic>) -> Option<RawService> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let broken = !errors.is_empty();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let code = if error.message().contains("duplicate key") { "duplicate-key" } else { "syntax" };
        problems.push(Diagnostic::error(code, Place { file, span }, error.message().to_owned()));
    }
    (!broken).then(|| Reader { file, problems }.service(document.get_ref()))
}

/// Reads typed values out of a table, and says what is wrong with the others.
pub(crate) struct Reader<'p> {
    file: FileId,
    problems: &'p mut Vec<Diagnostic>,
}

/// The keys of `[start]`.
const START_KEYS: [&str; 7] = ["type", "timeout", "pre", "post", "remain", "pidfile", "fd"];

type Entry<'t> = &'t Spanned<DeValue<'t>>;

impl Reader<'_> {
    fn service(&mut self, table: &DeTable<'_>) -> RawService {
        const KEYS: [&str; 18] = [
            "description",
            "exec",
            "policy",
            "slice",
            "standby",
            "environment",
            "dependencies",
            "condition",
            "start",
            "reload",
            "stop",
            "restart",
            "notify",
            "watchdog",
            "health",
            "socket",
            "timer",
            "log",
        ];
        let mut raw = RawService::default();
        self.known(table, "a service file", &KEYS);
        raw.description = self.string(table, "description");
        raw.exec = self.strings(table, "exec");
        raw.policy = self.string(table, "policy");
        raw.slice = self.string(table, "slice");
        raw.standby = self.boolean(table, "standby");
        self.environment(table, &mut raw);
        self.dependencies(table, &mut raw);
        self.conditions(table, &mut raw);
        if let Some(section) = self.section(table, "start", &START_KEYS) {
            raw.start_type = self.string(section, "type");
            raw.start_timeout = self.string(section, "timeout");
            raw.remain = self.boolean(section, "remain");
            raw.pidfile = self.string(section, "pidfile");
            raw.start_fd = self.integer(section, "fd");
            raw.commands.pre = self.commands(section, "pre");
            raw.commands.post = self.commands(section, "post");
        }
        if let Some(section) = self.section(table, "reload", &["signal", "exec"]) {
            raw.reload_signal = self.string(section, "signal");
            raw.commands.reload = self.commands(section, "exec");
        }
        if let Some(section) = self.section(table, "stop", &["signal", "timeout", "exec", "post"]) {
            raw.stop_signal = self.string(section, "signal");
            raw.stop_timeout = self.string(section, "timeout");
            raw.commands.stop = self.commands(section, "exec");
            raw.commands.stop_post = self.commands(section, "post");
        }
        self.restart(table, &mut raw);
        if let Some(section) = self.section(table, "log", &["rate", "keep"]) {
            raw.log_keep = self.string(section, "keep");
            raw.log_rate = self.string(section, "rate");
        }
        self.notify(table, &mut raw);
        self.health(table, &mut raw);
        self.sockets(table, &mut raw);
        self.timers(table, &mut raw);
        for key in [
            "policy",
            "slice",
            "standby",
            "environment",
            "start",
            "reload",
            "stop",
            "restart",
            "notify",
            "watchdog",
            "health",
            "socket",
            "log",
        ] {
            if let (None, Some((name, _))) = (&raw.process_key, table.get_key_value(key)) {
                raw.process_key = Some(Located::new(key, self.place(name.span())));
            }
        }
        raw
    }

    fn dependencies(&mut self, table: &DeTable<'_>, raw: &mut RawService) {
        const TOLERATE_RESTART: &str = "tolerate_restart";
        let mut keys = Relation::ALL.map(Relation::key).to_vec();
        keys.push(TOLERATE_RESTART);
        let Some(section) = self.section(table, "dependencies", &keys) else { return };
        for relation in Relation::ALL {
            let names = self.strings(section, relation.key());
            raw.dependencies[relation as usize] = names.map_or_else(Vec::new, |list| list.value);
        }
        raw.tolerate_restart = self.boolean(section, TOLERATE_RESTART);
    }

    fn restart(&mut self, table: &DeTable<'_>, raw: &mut RawService) {
        const KEYS: [&str; 10] = [
            "when",
            "delay",
            "factor",
            "max_delay",
            "jitter",
            "reset_after",
            "limit",
            "limit_window",
            "success_on",
            "never_on",
        ];
        let Some(section) = self.section(table, "restart", &KEYS) else { return };
        raw.restart_when = self.string(section, "when");
        raw.restart_delay = self.string(section, "delay");
        raw.restart_factor = self.number(section, "factor");
        raw.restart_max_delay = self.string(section, "max_delay");
        raw.restart_reset_after = self.string(section, "reset_after");
        raw.restart_limit = self.integer(section, "limit");
        raw.restart_limit_window = self.string(section, "limit_window");
        raw.restart_jitter = self.number(section, "jitter");
        raw.restart_success_on = self.exits(section, "success_on");
        raw.restart_never_on = self.exits(section, "never_on");
    }

    pub(super) fn place(&self, span: std::ops::Range<usize>) -> Place {
        Place { file: self.file, span }
    }

    pub(super) fn known(&mut self, table: &DeTable<'_>, what: &str, keys: &[&str]) {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if keys.contains(&name) {
                continue;
            }
            let problem = Diagnostic::error(
                "unknown-key",
                self.place(key.span()),
                format!("{what} has no key `{name}`"),
            )
            .help(format!("it has {}", keys.join(", ")));
            self.problems.push(match nearest(name, keys.iter().copied()) {
                Some(near) => problem.label(format!("did you mean `{near}`?")),
                None => problem,
            });
        }
    }

    pub(super) fn section<'t>(
        &mut self,
        table: &'t DeTable<'t>,
        key: &str,
        keys: &[&str],
    ) -> Option<&'t DeTable<'t>> {
        let entry = table.get(key)?;
        match entry.get_ref().as_table() {
            Some(section) => {
                self.known(section, &format!("[{key}]"), keys);
                Some(section)
            }
            None => {
                self.wrong_type(key, entry, "a table");
                None
            }
        }
    }

    pub(super) fn string(&mut self, table: &DeTable<'_>, key: &str) -> Option<Located<String>> {
        let entry = table.get(key)?;
        match entry.get_ref().as_str() {
            Some(text) => Some(Located::new(text.to_owned(), self.place(entry.span()))),
            None => {
                self.wrong_type(key, entry, "a string");
                None
            }
        }
    }

    /// A list of strings.
    pub(super) fn strings(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
    ) -> Option<Located<Vec<Located<String>>>> {
        self.strings_of(key, table.get(key)?)
    }

    /// The same, of an entry that was found already.
    pub(super) fn strings_of(
        &mut self,
        key: &str,
        entry: Entry<'_>,
    ) -> Option<Located<Vec<Located<String>>>> {
        let Some(array) = entry.get_ref().as_array() else {
            self.wrong_type(key, entry, "a list of strings");
            return None;
        };
        let mut list = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => list.push(Located::new(text.to_owned(), self.place(item.span()))),
                None => self.wrong_type(key, item, "a string in this list"),
            }
        }
        Some(Located::new(list, self.place(entry.span())))
    }

    fn exits(&mut self, table: &DeTable<'_>, key: &str) -> Option<Located<Vec<Located<RawExit>>>> {
        let entry = table.get(key)?;
        let Some(array) = entry.get_ref().as_array() else {
            self.wrong_type(key, entry, "a list of statuses and signals");
            return None;
        };
        let mut list = Vec::new();
        for item in array.iter() {
            let value = item.get_ref();
            let number = value
                .as_integer()
                .and_then(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok());
            match (number, value.as_str()) {
                (Some(status), _) => {
                    list.push(Located::new(RawExit::Status(status), self.place(item.span())))
                }
                (None, Some(name)) => {
                    list.push(Located::new(RawExit::Signal(name.to_owned()), self.place(item.span())));
                }
                (None, None) => self.wrong_type(key, item, "a status or a signal's name in this list"),
            }
        }
        Some(Located::new(list, self.place(entry.span())))
    }

    pub(super) fn boolean(&mut self, table: &DeTable<'_>, key: &str) -> Option<Located<bool>> {
        let entry = table.get(key)?;
        match entry.get_ref().as_bool() {
            Some(value) => Some(Located::new(value, self.place(entry.span()))),
            None => {
                self.wrong_type(key, entry, "true or false");
                None
            }
        }
    }

    pub(super) fn integer(&mut self, table: &DeTable<'_>, key: &str) -> Option<Located<i64>> {
        let entry = table.get(key)?;
        let value = entry
            .get_ref()
            .as_integer()
            .and_then(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok());
        match value {
            Some(value) => Some(Located::new(value, self.place(entry.span()))),
            None => {
                self.wrong_type(key, entry, "an integer");
                None
            }
        }
    }

    fn number(&mut self, table: &DeTable<'_>, key: &str) -> Option<Located<f64>> {
        let entry = table.get(key)?;
        let float = entry.get_ref().as_float().and_then(|float| float.as_str().parse::<f64>().ok());
        let integer =
            || entry.get_ref().as_integer().and_then(|integer| integer.as_str().parse::<f64>().ok());
        match float.or_else(integer) {
            Some(value) => Some(Located::new(value, self.place(entry.span()))),
            None => {
                self.wrong_type(key, entry, "a number");
                None
            }
        }
    }

    pub(super) fn wrong_type(&mut self, key: &str, entry: Entry<'_>, wanted: &str) {
        self.problems.push(
            Diagnostic::error("wrong-type", self.place(entry.span()), format!("`{key}` has to be {wanted}"))
                .label(format!("this is of type {}", entry.get_ref().type_str())),
        );
    }
}
