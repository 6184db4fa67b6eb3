//! `[notify]` and `[watchdog]`: what a service may say of itself, and how long it may be silent.

use std::time::Duration;

use sandbox::diagnostic::Located;
use toml::de::DeTable;

use super::{
    Start,
    raw::{RawService, Reader},
    validate::Checker,
};

/// More descriptors than this cannot be passed at once (SCM_MAX_FD), and initldr has 1024 slots for all services.
const FD_STORE_MAX: i64 = 253;
/// A shorter interval is spent on saying that one lives.
const SHORTEST: Duration = Duration::from_millis(100);

/// Whose messages are heard (sd_notify(3), NOTIFYACCESS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Nobody's.
    None,
    /// The main process's.
    Main,
    /// The main process's, and those of the commands around it.
    Exec,
    /// Those of every process of the service's cgroup.
    #[default]
    All,
}

/// The words, as in a file and in a message.
pub(crate) const ACCESS: [(&str, Access); 4] =
    [("none", Access::None), ("main", Access::Main), ("exec", Access::Exec), ("all", Access::All)];

/// `[notify]` as it is written.
#[derive(Debug, Default)]
pub(crate) struct RawNotify {
    access: Option<Located<String>>,
    fd_store_max: Option<Located<i64>>,
    fd_store_preserve: Option<Located<bool>>,
}

/// `[notify]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notify {
    /// It is written in the file, so there is a socket whatever `start.type` says.
    pub written: bool,
    /// Who is heard, until the service says otherwise.
    pub access: Access,
    /// How many descriptors are kept for it.
    pub fd_store_max: usize,
    /// They are kept while it is stopped.
    pub fd_store_preserve: bool,
}

impl Reader<'_> {
    pub(super) fn notify(&mut self, table: &DeTable<'_>, raw: &mut RawService) {
        if let Some(section) = self.section(table, "notify", &["access", "fd_store_max", "fd_store_preserve"])
        {
            raw.notify = Some(RawNotify {
                access: self.string(section, "access"),
                fd_store_max: self.integer(section, "fd_store_max"),
                fd_store_preserve: self.boolean(section, "fd_store_preserve"),
            });
        }
        if let Some(section) = self.section(table, "watchdog", &["interval"]) {
            raw.watchdog_interval = self.string(section, "interval");
        }
    }
}

impl Checker<'_> {
    pub(super) fn notify(&mut self, raw: &RawService) -> Notify {
        let Some(written) = &raw.notify else { return Notify::default() };
        let access = self.word("notify.access", written.access.as_ref(), &ACCESS).unwrap_or_default();
        let max = written.fd_store_max.as_ref().map_or(0, |max| max.value);
        if let (Some(max), false) = (&written.fd_store_max, (0..=FD_STORE_MAX).contains(&max)) {
            self.refuse(
                "bad-value",
                &max.at,
                format!("`notify.fd_store_max` is between 0 and {FD_STORE_MAX}"),
                "that many descriptors are passed at once",
            );
        }
        Notify {
            written: true,
            access,
            fd_store_max: usize::try_from(max).unwrap_or_default(),
            fd_store_preserve: written.fd_store_preserve.as_ref().is_some_and(|preserve| preserve.value),
        }
    }

    pub(super) fn watchdog(&mut self, raw: &RawService, start: Start) -> Option<Duration> {
        let interval = self.duration(raw.watchdog_interval.as_ref());
        if let (Some(written), Some(interval)) = (&raw.watchdog_interval, interval) {
            if start == Start::Oneshot {
                self.refuse(
                    "bad-value",
                    &written.at,
                    "a oneshot has no watchdog",
                    "`start.timeout` is how long it may take",
                );
            }
            if interval < SHORTEST {
                self.refuse(
                    "bad-value",
                    &written.at,
                    "`watchdog.interval` is at least 100ms",
                    "the service says that it lives about twice in each interval",
                );
            }
        }
        interval
    }
}
