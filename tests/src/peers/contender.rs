//! Who takes part, and how each is started and asked.

use std::time::Duration;

/// An init system in one of its forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// `tests/peers/floor.c`: vfork and exec, reap, start again at once.
    Floor,
    /// The same, with a cgroup, a pipe and a pidfd for each service: `tests/peers/cgroup.h`.
    FloorCgroup,
    /// The same, with a sandbox for each service: `tests/peers/sandbox.h`.
    FloorSandboxed,
    /// The same, with a process for each service that waits to be the next one.
    FloorStandby,
    /// With the policy `unconfined`: a cgroup, a log and supervision.
    MotherD,
    /// With all of `base/default`.
    MotherDSandboxed,
    /// The same, and for each service a process that waits to be the next one.
    MotherDStandby,
    /// busybox's.
    Busybox,
    /// With an inittab of respawn lines.
    Sysvinit,
    /// Its services in one finit.conf.
    Finit,
    /// runsvdir below runit; `run` is a link to the program itself, without a shell.
    Runit,
    /// s6-svscan as PID 1; `run` likewise.
    S6,
    /// A target of its own with no default dependency: no journald, no udevd.
    Systemd,
    /// The same with 25 lines of hardening and two limits for each service.
    SystemdSandboxed,
    /// openrc-init and supervise-daemon.
    Openrc,
}

/// A program and its arguments, the name under which it is started first.
pub type Words = &'static [&'static str];

impl Contender {
    /// In the order in which they run: each floor before those that are compared with it.
    pub const ALL: [Self; 15] = [
        Self::Floor,
        Self::FloorCgroup,
        Self::FloorSandboxed,
        Self::FloorStandby,
        Self::MotherD,
        Self::MotherDSandboxed,
        Self::MotherDStandby,
        Self::Busybox,
        Self::Sysvinit,
        Self::Finit,
        Self::Runit,
        Self::S6,
        Self::Systemd,
        Self::SystemdSandboxed,
        Self::Openrc,
    ];

    /// As it is written on the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::FloorCgroup => "floor-cg",
            Self::FloorSandboxed => "floor-sbx",
            Self::FloorStandby => "floor-standby",
            Self::MotherD => "motherd",
            Self::MotherDSandboxed => "motherd-sbx",
            Self::MotherDStandby => "motherd-standby",
            Self::Busybox => "busybox",
            Self::Sysvinit => "sysvinit",
            Self::Finit => "finit",
            Self::Runit => "runit",
            Self::S6 => "s6",
            Self::Systemd => "systemd",
            Self::SystemdSandboxed => "systemd-sbx",
            Self::Openrc => "openrc",
        }
    }

    /// The one of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|contender| contender.name() == name)
    }

    /// The Debian package that has it.
    #[must_use]
    pub fn package(self) -> Option<&'static str> {
        match self {
            Self::Floor | Self::FloorCgroup | Self::FloorSandboxed | Self::FloorStandby => None,
            Self::MotherD | Self::MotherDSandboxed | Self::MotherDStandby => None,
            Self::Busybox => Some("busybox-static"),
            Self::Sysvinit => Some("sysvinit-core"),
            Self::Finit => Some("finit"),
            Self::Runit => Some("runit"),
            Self::S6 => Some("s6"),
            Self::Systemd | Self::SystemdSandboxed => Some("systemd"),
            Self::Openrc => Some("openrc"),
        }
    }

    /// Whether its services are confined, so that the floor to compare it with is the one that confines too.
    #[must_use]
    pub fn is_sandboxed(self) -> bool {
        let sandboxed = [
            Self::FloorSandboxed,
            Self::FloorStandby,
            Self::MotherDSandboxed,
            Self::MotherDStandby,
            Self::SystemdSandboxed,
        ];
        sandboxed.contains(&self)
    }

    /// Whether it is the measure of others: it is told in its command all that it is told.
    #[must_use]
    pub fn is_floor(self) -> bool {
        matches!(self, Self::Floor | Self::FloorCgroup | Self::FloorSandboxed | Self::FloorStandby)
    }

    /// Whether it is MotherD in one of its forms.
    #[must_use]
    pub fn is_ours(self) -> bool {
        matches!(self, Self::MotherD | Self::MotherDSandboxed | Self::MotherDStandby)
    }

    /// So many services are the most that a person would wait for here.
    #[must_use]
    pub fn most_services(self) -> usize {
        // Some 0.6 s for each of openrc's, and 0.2 s for each that systemd confines; two confined processes for each with a
        // standby.
        let few = [
            (Self::Openrc, 50),
            (Self::SystemdSandboxed, 200),
            (Self::FloorStandby, 200),
            (Self::MotherDStandby, 200),
        ];
        few.into_iter().find(|(slow, _)| *slow == self).map_or(usize::MAX, |(_, most)| most)
    }

    /// How long it may take to bring them up.
    #[must_use]
    pub fn patience(self) -> Duration {
        let slow = self.most_services() < usize::MAX;
        Duration::from_secs(if slow { 400 } else { 180 })
    }

    /// What PID 1 becomes: the path, and argv from its name on.
    #[must_use]
    pub fn command(self, services: usize) -> (&'static str, Vec<String>) {
        let count = services.to_string();
        let (path, argv): (&str, Vec<&str>) = match self {
            Self::Floor => ("/bench/floor", vec!["floor", &count]),
            Self::FloorCgroup => ("/bench/floor-cg", vec!["floor-cg", &count]),
            Self::FloorSandboxed => ("/bench/floor-sbx", vec!["floor-sbx", &count]),
            Self::FloorStandby => ("/bench/floor-standby", vec!["floor-standby", &count]),
            Self::MotherD | Self::MotherDSandboxed | Self::MotherDStandby => {
                ("/usr/sbin/initldr", vec!["initldr"])
            }
            Self::Busybox => ("/usr/bin/busybox", vec!["init"]),
            Self::Sysvinit => ("/usr/sbin/init", vec!["init"]),
            Self::Finit => ("/usr/sbin/finit", vec!["init"]),
            Self::Runit => ("/usr/sbin/runit", vec!["runit"]),
            Self::S6 => ("/usr/bin/s6-svscan", vec!["s6-svscan", "-c", "1000", super::files::SCAN]),
            Self::Systemd | Self::SystemdSandboxed => ("/usr/lib/systemd/systemd", vec!["init"]),
            Self::Openrc => ("/usr/sbin/openrc-init", vec!["init"]),
        };
        (path, argv.into_iter().map(str::to_owned).collect())
    }

    /// How its operator asks for what: a word for the table, and the command.
    #[must_use]
    pub fn questions(self) -> &'static [(&'static str, Words)] {
        match self {
            Self::Floor
            | Self::FloorCgroup
            | Self::FloorSandboxed
            | Self::FloorStandby
            | Self::Busybox
            | Self::Sysvinit => &[],
            Self::MotherD | Self::MotherDSandboxed | Self::MotherDStandby => &[
                ("list", &["motherctl", "list"]),
                ("status of one", &["motherctl", "status", "svc-7"]),
                ("status of all", &["motherctl", "status"]),
            ],
            Self::Finit => &[("list", &["/lib/finit/initctl", "status"])],
            Self::Runit => {
                &[("status of one", &["sv", "status", "/bench/scan/svc-7"]), ("status of all", RUNIT_ALL)]
            }
            Self::S6 => &[("status of one", &["s6-svstat", "/bench/scan/svc-7"])],
            Self::Systemd | Self::SystemdSandboxed => &[
                ("list", &["systemctl", "--no-pager", "list-units"]),
                ("status of one", &["systemctl", "--no-pager", "status", "svc-7"]),
                ("status of all", &["systemctl", "--no-pager", "status", "svc-*"]),
            ],
            Self::Openrc => {
                &[("list", &["rc-status", "default"]), ("status of one", &["rc-service", "svc-7", "status"])]
            }
        }
    }
}

/// One program for all services, as a person would write it.
const RUNIT_ALL: Words = &["sh", "-c", "exec sv status /bench/scan/svc-*"];

#[cfg(test)]
mod tests {
    use super::Contender;

    #[test]
    fn each_is_found_by_its_name_and_comes_after_its_floor() {
        for contender in Contender::ALL {
            assert_eq!(Contender::named(contender.name()), Some(contender));
        }
        assert_eq!(Contender::named("upstart"), None);
        assert!(Contender::ALL.is_sorted());
    }
}
