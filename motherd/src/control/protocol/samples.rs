//! Services as the tests of this folder and of `ctl` describe them: one with everything, one with nothing.

use super::*;

pub(crate) fn web() -> ServiceStatus {
    let value = Figure::Value;
    ServiceStatus {
        name: "web".into(),
        description: "static web server".into(),
        state: State::Running,
        sub_state: Some("failing".into()),
        cause: Cause {
            words: "requested by uid 0 (pid 812)".into(),
            request: Some(Requester { uid: 0, pid: 812 }),
        },
        boot: Some("enabled".into()),
        says: Some("serving 3 clients".into()),
        health: vec!["tcp 127.0.0.1:80: well".into()],
        pressure: vec!["memory some: 150ms in 1s: report; 3 times, 7 s ago".into()],
        main_pid: Some(1234),
        since_boottime_usec: Some(3_000_000),
        uptime_usec: Some(93_784_000_000),
        standby: Some(StandbyStatus { pid: Some(1731), ready: true, why: None }),
        restarts: 2,
        last_exit: Some(LastExit { how: ExitHow::Killed, status: 9, boottime_usec: Some(2_900_000) }),
        policy: "web-server".into(),
        policy_in_force: Some(PolicyInForce { digest: "5f2c9a0b7d31e846".into(), drift: true }),
        left_out: vec![LeftOut {
            what: "landlock scope".into(),
            why: "needs ABI 6, this kernel has 2".into(),
        }],
        cgroup: Some("/sys/fs/cgroup/web.slice/web.service".into()),
        figures: Some(Figures {
            memory: Memory {
                current_bytes: value(25_480_397),
                peak_bytes: Figure::Missing(Missing {
                    file: "memory.peak".into(),
                    why: "ENOENT: Linux 5.19 has it".into(),
                }),
                max_bytes: LimitFigure::Value(536_870_912),
                swap_bytes: value(0),
                oom_kills: value(0),
            },
            cpu: Cpu {
                usage_usec: value(1_240_000),
                user_usec: value(1_000_000),
                system_usec: value(240_000),
                throttled_usec: value(0),
            },
            io: Io { read_bytes: value(3_145_728), write_bytes: value(98_304) },
            pids: Pids { current: value(5), max: LimitFigure::Unlimited {} },
            pressure: Pressure {
                cpu_some_avg10: Figure::Value(0.12),
                cpu_full_avg10: Figure::Value(0.0),
                memory_some_avg10: Figure::Value(0.0),
                memory_full_avg10: Figure::Value(0.0),
                io_some_avg10: Figure::Value(0.0),
                io_full_avg10: Figure::Value(0.0),
            },
        }),
        isolation: Some(Isolation {
            attested: Figure::Value(Attested {
                pid: 1234,
                namespaces: ["mnt", "pid", "ipc", "uts", "cgroup", "net", "user", "time"]
                    .iter()
                    .zip(4_026_532_201..)
                    .map(|(kind, inode)| Namespace {
                        kind: (*kind).into(),
                        inode,
                        private: !matches!(*kind, "net" | "user" | "time"),
                        shared_with: None,
                    })
                    .collect(),
                capabilities: Some(Capabilities {
                    inheritable: vec![],
                    permitted: vec!["CAP_NET_BIND_SERVICE".into()],
                    effective: vec!["CAP_NET_BIND_SERVICE".into()],
                    bounding: vec!["CAP_NET_BIND_SERVICE".into()],
                    ambient: vec!["CAP_NET_BIND_SERVICE".into()],
                    known: 41,
                }),
                capability_bits: None,
                no_new_privs: true,
                seccomp_mode: SeccompMode::Filter,
                seccomp_filters: value(1),
                uids: vec![61042; 4],
                gids: vec![61042; 4],
                groups: vec![],
                cgroup: Some(Figure::Value("/web.slice/web.service".into())),
                mounts: Figure::Value(Mounts { count: 24, root_read_only: true }),
            }),
            landlock: Some(LandlockApplied { abi: 2, path_rules: 17, port_rules: 0, scopes: vec![] }),
        }),
        log: vec!["listening on 0.0.0.0:80".into(), "GET / 200".into()],
        dropped_lines: 3,
        sockets: vec![SocketStatus {
            name: "http".into(),
            listen: "tcp:0.0.0.0:80".into(),
            lazy: true,
            listening: true,
            starts_it: false,
            error: None,
        }],
        timers: vec![timer()],
    }
}

/// The same in a brief answer.
pub(crate) fn brief(mut service: ServiceStatus) -> ServiceStatus {
    /// CAP_NET_BIND_SERVICE
    const SET: u64 = 1 << 10;
    if let Some(Isolation { attested: Figure::Value(attested), .. }) = &mut service.isolation {
        let (inheritable, known) = (0, 41);
        let bits = CapabilityBits {
            inheritable,
            permitted: SET,
            effective: SET,
            bounding: SET,
            ambient: SET,
            known,
        };
        (attested.capabilities, attested.capability_bits, attested.cgroup) = (None, Some(bits), None);
    }
    service
}

pub(crate) fn timer() -> TimerStatus {
    TimerStatus {
        service: "web".into(),
        schedule: "daily 03:00".into(),
        persistent: true,
        next: Some("2026-11-23T03:00:00.000000Z".into()),
        next_in_usec: Some(11_400_000_000),
        last: None,
    }
}

pub(crate) fn event() -> Event {
    Event {
        sequence: 8,
        boottime_usec: 3_000_000,
        time: "2026-11-22T23:50:01.000042Z".into(),
        kind: EventKind::Became,
        service: Some("web".into()),
        state: Some("running".into()),
        words: "started by uid 0 (pid 812)".into(),
        request: Some(Requester { uid: 0, pid: 812 }),
    }
}

pub(crate) fn stopped() -> ServiceStatus {
    ServiceStatus {
        name: "backup".into(),
        description: "nightly copy".into(),
        state: State::Stopped,
        sub_state: None,
        cause: Cause { words: "never started".into(), request: None },
        boot: None,
        says: None,
        health: vec![],
        pressure: vec![],
        main_pid: None,
        since_boottime_usec: None,
        uptime_usec: None,
        standby: None,
        restarts: 0,
        last_exit: None,
        policy: "base/default".into(),
        policy_in_force: None,
        left_out: vec![],
        cgroup: None,
        figures: None,
        isolation: None,
        log: vec![],
        dropped_lines: 0,
        sockets: vec![],
        timers: vec![],
    }
}

pub(crate) fn summary(status: &ServiceStatus) -> ServiceSummary {
    ServiceSummary {
        name: status.name.clone(),
        description: status.description.clone(),
        state: status.state,
        sub_state: status.sub_state.clone(),
        boot: status.boot.clone(),
        main_pid: status.main_pid,
        uptime_usec: status.uptime_usec,
    }
}

/// A manager.
pub(crate) fn manager() -> Manager {
    Manager {
        release: "0.1.0".into(),
        mode: Mode::Normal,
        generation: 3,
        why: Some("exited with status 0".into()),
        pid: 77,
        program: "/usr/sbin/motherd".into(),
        installed: "/usr/sbin/motherd".into(),
        previous: "/usr/sbin/motherd.prev".into(),
        since_boottime_usec: 4_000_000,
        lost_exits: 0,
        initldr_pid: 1,
        initldr_program: "/usr/sbin/initldr".into(),
    }
}

/// An upgrade.
pub(crate) fn upgraded() -> Upgraded {
    Upgraded {
        program: "motherd".into(),
        candidate: "/tmp/motherd".into(),
        release: "motherd 0.2.0".into(),
        found: vec!["3 records".into(), "5 service files".into()],
        installed: "/usr/sbin/motherd".into(),
        kept: Some("/usr/sbin/motherd.prev".into()),
        only_checked: false,
    }
}

/// What initldr keeps.
pub(crate) fn fd_store() -> FdStore {
    let stored = |slot: &str, kind: &str, service: Option<&str>, number, file: &str, about: &str| StoredFd {
        slot: slot.into(),
        kind: kind.into(),
        service: service.map(str::to_owned),
        name: None,
        number,
        file: file.into(),
        about: about.into(),
    };
    let pushed = stored("fd/web/0:spool", "pushed", Some("web"), 14, "memfd", "spool, 4096 bytes");
    FdStore {
        slots: vec![
            stored(
                "control",
                "control",
                None,
                9,
                "socket",
                "unix stream /run/motherd/motherd.sock, listening",
            ),
            stored("process/web", "process", Some("web"), 12, "pidfd", "process 1234"),
            StoredFd { name: Some("spool".into()), ..pushed },
        ],
        used: 3,
        capacity: 4096,
    }
}

/// An end that is to come.
pub(crate) fn scheduled() -> Scheduled {
    Scheduled {
        how: How::Reboot,
        at: "2026-11-28T03:00:00Z".into(),
        in_usec: 300_000_000,
        message: "a new kernel".into(),
    }
}

/// An end that one service holds up.
pub(crate) fn ending() -> EndingStatus {
    let process = |pid: u32, name: &str, state: &str, wchan: Option<&str>, command: &str| Process {
        pid,
        name: name.into(),
        state: state.into(),
        wchan: wchan.map(str::to_owned),
        command: command.into(),
    };
    EndingStatus {
        how: Some(How::Poweroff),
        remaining_usec: Some(24_500_000),
        scheduled: None,
        awaited: vec![
            Awaited {
                service: "stubborn".into(),
                doing: "SIGTERM was sent, SIGKILL follows".into(),
                remaining_usec: Some(3_200_000),
                processes: vec![
                    process(812, "sh", "S", Some("do_wait"), "/bin/sh -c trap '' TERM; sleep 1000"),
                    process(813, "sleep", "S", None, "sleep 1000"),
                ],
            },
            Awaited {
                service: "nfs".into(),
                doing: "not even SIGKILL ends it".into(),
                remaining_usec: None,
                processes: vec![process(700, "dd", "D", Some("rpc_wait_bit_killable"), "dd of=/srv/x")],
            },
        ],
        later: vec!["loopback".into(), "local-mounts".into()],
    }
}

pub(crate) fn why() -> Why {
    let cause = |words: &str| Cause { words: words.into(), request: None };
    let lack = Hindrance {
        words: "nobody listens on tcp:127.0.0.1:5432".into(),
        service: None,
        coming: Some(Coming { words: "others go on without it".into(), in_usec: 4_200_000 }),
        because: vec![],
    };
    Why {
        service: "web".into(),
        state: State::Waiting,
        sub_state: Some("blocked".into()),
        uptime_usec: Some(61_000_000),
        cause: cause("wanted by system"),
        goal: Goal::Up,
        goal_cause: cause("wanted by system"),
        roots: vec![Root {
            service: "system".into(),
            over: vec![
                Pull { by: "shop".into(), relation: "needs".into() },
                Pull { by: "system".into(), relation: "wants".into() },
            ],
            cause: cause("boot: system"),
            time: Some("2026-11-22T23:50:01.000000Z".into()),
        }],
        more_roots: 2,
        hindrances: vec![Hindrance {
            words: "it needs db, which is waiting for a condition".into(),
            service: Some("db".into()),
            coming: None,
            because: vec![lack],
        }],
        coming: Some(Coming { words: "it is tried again".into(), in_usec: 500_000 }),
        restarts: 3,
        last_exit: Some(LastExit { how: ExitHow::Exited, status: 1, boottime_usec: Some(2_900_000) }),
        last_exit_ago_usec: Some(62_000_000),
        unknown: vec!["who asked for it".into()],
        events: vec![event()],
    }
}

/// A target, what it wants, and what both of those need; and one that stands alone.
pub(crate) fn tree() -> Vec<TreeNode> {
    let node = |service: &str, state, edges: &[(&str, &str)]| TreeNode {
        service: service.into(),
        state,
        sub_state: None,
        asked: service == "system",
        edges: edges
            .iter()
            .map(|(relation, service)| TreeEdge { relation: (*relation).into(), service: (*service).into() })
            .collect(),
    };
    vec![
        node("backup", State::Stopped, &[("conflicts", "web")]),
        node("db", State::Running, &[]),
        TreeNode {
            sub_state: Some("blocked".into()),
            ..node("mail", State::Waiting, &[("needs", "db"), ("wants", "nobody")])
        },
        node("system", State::Done, &[("wants", "mail"), ("wants", "web")]),
        node("web", State::Running, &[("needs", "db"), ("after", "mail")]),
    ]
}
