//! The truth table: for each pair of keys that allow and deny, what is allowed in each of sixteen cells, written by hand.
//!
//! It is read by two tests: one asks compiled plans, for every pair (`src/truth.rs`); the other asks processes inside of the
//! sandboxes, for those pairs that any machine can feel (`tests/truth.rs`).

/// Two keys, and what each of four values of the one beside each of four values of the other comes to.
#[derive(Debug)]
pub(crate) struct Truth {
    /// The keys, as `section.key`.
    pub(crate) keys: [&'static str; 2],
    /// For each: not written, an empty list, one thing, everything. An empty text is a key that is not written.
    pub(crate) values: [[&'static str; 4]; 2],
    /// More lines.
    pub(crate) lines: &'static str,
    /// What is asked, in the words of [`crate`]'s readers.
    pub(crate) asks: &'static [&'static str],
    /// By the first key, then by the second: `+` or `-` for each question, or the code of the refusal.
    pub(crate) answers: [[&'static str; 4]; 4],
    /// Whether a process feels it on any machine.
    pub(crate) felt: bool,
}

/// What every policy of the table has besides, unless its keys or lines say otherwise: enough to run a shell and Perl.
pub(crate) const COMMON: &[(&str, &str)] = &[
    ("process.environment", "{ PATH = \"/usr/bin:/bin\" }"),
    ("process.user", "65534"),
    ("process.group", "65534"),
    (
        "landlock.read",
        "[\"/usr\", \"/etc\", \"/proc\", \"/dev\", { path = \"/lib\", optional = true }, { path = \"/lib64\", optional = true }, { path = \"/bin\", optional = true }]",
    ),
    (
        "landlock.execute",
        "[\"/usr\", { path = \"/lib\", optional = true }, { path = \"/lib64\", optional = true }, { path = \"/bin\", optional = true }]",
    ),
    ("landlock.write", "[\"/dev/null\"]"),
    ("landlock.optional", "[\"net\", \"scope\"]"),
    ("seccomp.allow", "[\"@system-service\"]"),
    // What no kernel answers by itself.
    ("seccomp.default", "\"errno:EXDEV\""),
];

impl Truth {
    /// The text of the policy in a cell.
    pub(crate) fn policy(&self, first: usize, second: usize) -> String {
        let mut text = String::new();
        for (key, values, at) in
            [(self.keys[0], &self.values[0], first), (self.keys[1], &self.values[1], second)]
        {
            if !values[at].is_empty() {
                text.push_str(&format!("{key} = {}\n", values[at]));
            }
        }
        for line in self.lines.lines() {
            text.push_str(&format!("{line}\n"));
        }
        for (key, value) in COMMON {
            let said = self.keys.contains(key)
                || self.lines.lines().any(|line| line.starts_with(&format!("{key} =")));
            if !said {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        text
    }
}

/// Every call of the table of calls; and so not execve(2), without which nothing starts.
const NOTHING_LEFT: &str = "execve-needed";

const SOCKETS: &str = "[{ family = \"AF_UNIX\" }, { family = \"AF_INET\" }, { family = \"AF_INET6\" }, { family = \"AF_NETLINK\" }]";
const EVERY_CAPABILITY: &str = "@capabilities@";

pub(crate) const TABLE: &[Truth] = &[
    Truth {
        keys: ["seccomp.allow", "seccomp.deny"],
        values: [
            ["", "[]", "[\"@system-service\"]", "[\"@known\"]"],
            ["", "[]", "[\"mkdir\"]", "[\"@known\"]"],
        ],
        lines: "",
        // In @system-service there is no keyctl.
        asks: &["call keyctl", "call mkdir"],
        answers: [
            [NOTHING_LEFT, NOTHING_LEFT, NOTHING_LEFT, NOTHING_LEFT],
            [NOTHING_LEFT, NOTHING_LEFT, NOTHING_LEFT, NOTHING_LEFT],
            ["-+", "-+", "--", NOTHING_LEFT],
            ["++", "++", "+-", NOTHING_LEFT],
        ],
        felt: true,
    },
    Truth {
        keys: ["seccomp.socket", "seccomp.rule"],
        values: [
            ["", "[]", "[{ family = \"AF_UNIX\" }]", SOCKETS],
            [
                "",
                "[]",
                "[{ call = \"socket\", arg = 0, in = [\"AF_UNIX\"] }]",
                "[{ call = \"socket\", arg = 0, in = [\"AF_UNIX\", \"AF_INET\", \"AF_INET6\", \"AF_NETLINK\"] }]",
            ],
        ],
        lines: "",
        asks: &["socket 1 1 0", "socket 2 1 0", "socket 16 3 0"],
        answers: [
            ["+++", "+++", "+--", "+++"],
            ["---", "---", "---", "---"],
            ["+--", "+--", "+--", "+--"],
            // An entry that the rule bars would have no effect.
            ["+++", "+++", "no-effect", "+++"],
        ],
        felt: true,
    },
    Truth {
        keys: ["seccomp.ioctl", "seccomp.prctl"],
        values: [
            ["", "[]", "[\"FIONREAD\"]", "[\"FIONREAD\", \"TCGETS\"]"],
            ["", "[]", "[\"PR_GET_NAME\"]", "[\"PR_GET_NAME\", \"PR_GET_DUMPABLE\"]"],
        ],
        lines: "",
        asks: &["ioctl 0x541b", "ioctl 0x5401", "prctl 16", "prctl 3"],
        answers: [
            ["++++", "++--", "+++-", "++++"],
            ["--++", "----", "--+-", "--++"],
            ["+-++", "+---", "+-+-", "+-++"],
            ["++++", "++--", "+++-", "++++"],
        ],
        felt: true,
    },
    Truth {
        keys: ["seccomp.architectures", "seccomp.deny"],
        values: [
            ["", "[]", "[\"native\"]", "[\"native\", \"i386\", \"x32\"]"],
            ["", "[]", "[\"getppid\"]", "[\"@known\"]"],
        ],
        lines: "",
        asks: &["call getppid", "i386 64", "x32 110"],
        answers: [
            ["+--", "+--", "---", NOTHING_LEFT],
            ["native-needed", "native-needed", "native-needed", "native-needed"],
            ["+--", "+--", "---", NOTHING_LEFT],
            ["+++", "+++", "---", NOTHING_LEFT],
        ],
        felt: false, // of i386 and x32 there are tests of their own: few machines have both
    },
    Truth {
        keys: ["process.restrict_namespaces", "seccomp.deny"],
        values: [["", "[]", "[\"user\"]", "false"], ["", "[]", "[\"unshare\"]", "[\"@known\"]"]],
        lines: "seccomp.allow = [\"@system-service\", \"unshare\"]",
        asks: &["unshare user", "unshare uts", "unshare user uts"],
        answers: [
            ["---", "---", "---", NOTHING_LEFT],
            ["---", "---", "---", NOTHING_LEFT],
            ["+--", "+--", "---", NOTHING_LEFT],
            // Without a user namespace of its own it lacks the right to the second; with both in one call it has it.
            ["+++", "+++", "---", NOTHING_LEFT],
        ],
        felt: true,
    },
    Truth {
        keys: ["capabilities.keep", "capabilities.ambient"],
        values: [
            ["", "[]", "[\"CAP_KILL\"]", EVERY_CAPABILITY],
            ["", "[]", "[\"CAP_KILL\"]", EVERY_CAPABILITY],
        ],
        lines: "",
        asks: &["cap CAP_KILL", "cap CAP_CHOWN"],
        answers: [
            ["--", "--", "ambient-not-kept", "ambient-not-kept"],
            ["--", "--", "ambient-not-kept", "ambient-not-kept"],
            // What is kept and not ambient is lost at execve by who is not root.
            ["--", "--", "+-", "ambient-not-kept"],
            ["--", "--", "+-", "++"],
        ],
        felt: true,
    },
    Truth {
        keys: ["capabilities.keep", "process.securebits"],
        values: [
            ["", "[]", "[\"CAP_KILL\"]", EVERY_CAPABILITY],
            ["", "[]", "[\"noroot\"]", "[\"noroot\", \"may-keep-caps\", \"may-raise-ambient\"]"],
        ],
        lines: "process.user = 0\nprocess.group = 0",
        asks: &["cap CAP_KILL", "cap CAP_CHOWN"],
        answers: [
            ["--", "--", "--", "--"],
            ["--", "--", "--", "--"],
            ["+-", "+-", "--", "--"],
            ["++", "++", "--", "--"],
        ],
        felt: true,
    },
    Truth {
        keys: ["landlock.bind_tcp", "landlock.connect_tcp"],
        values: [["", "[]", "[4321]", "\"any\""], ["", "[]", "[4321]", "\"any\""]],
        lines: "",
        asks: &["bind 4321", "bind 4322", "connect 4321", "connect 4322"],
        answers: [
            ["----", "----", "--+-", "--++"],
            ["----", "----", "--+-", "--++"],
            ["+---", "+---", "+-+-", "+-++"],
            ["++--", "++--", "+++-", "++++"],
        ],
        felt: true,
    },
    Truth {
        keys: ["landlock.read", "landlock.write"],
        values: [["", "[]", "[\"/srv/www\"]", "[\"/\"]"], ["", "[]", "[\"/srv/www\"]", "[\"/\"]"]],
        lines: "filesystem.read_only = []",
        asks: &["read /srv/www/x", "write /srv/www/x", "read /etc/x", "write /etc/x"],
        // Whoever may write may read what was written.
        answers: [
            ["----", "----", "++--", "++++"],
            ["----", "----", "++--", "++++"],
            ["+---", "+---", "++--", "++++"],
            ["+-+-", "+-+-", "+++-", "++++"],
        ],
        felt: false, // without /usr to read nothing can be asked inside
    },
    Truth {
        keys: ["landlock.execute", "landlock.read"],
        values: [["", "[]", "[\"/srv/www\"]", "[\"/\"]"], ["", "[]", "[\"/srv/www\"]", "[\"/\"]"]],
        lines: "",
        asks: &["exec /srv/www/x", "read /srv/www/x", "exec /etc/x", "read /etc/x"],
        // To execute is to read.
        answers: [
            ["----", "----", "-+--", "-+-+"],
            ["----", "----", "-+--", "-+-+"],
            ["++--", "++--", "++--", "++-+"],
            ["++++", "++++", "++++", "++++"],
        ],
        felt: false,
    },
    Truth {
        keys: ["landlock.scope", "landlock.optional"],
        values: [
            ["", "[]", "[\"signal\"]", "[\"signal\", \"abstract-unix-socket\"]"],
            ["", "[]", "[\"scope\"]", "[\"net\", \"scope\", \"filesystem\"]"],
        ],
        lines: "",
        asks: &["signal", "abstract"],
        // A kernel that has everything leaves nothing out; `scope_of_an_older_kernel` asks the other.
        answers: [
            ["--", "--", "--", "--"],
            ["++", "++", "++", "++"],
            ["-+", "-+", "-+", "-+"],
            ["--", "--", "--", "--"],
        ],
        felt: false,
    },
    Truth {
        keys: ["filesystem.read_only", "filesystem.read_write"],
        values: [["", "[]", "[\"/srv\"]", "[\"/\"]"], ["", "[]", "[\"/srv/www\"]", "[\"/srv\"]"]],
        lines: "landlock.write = [\"/srv\"]",
        asks: &["write /srv/www/x", "write /srv/x"],
        answers: [
            // Where nobody says anything the whole tree is read-only.
            ["--", "--", "+-", "++"],
            ["++", "++", "++", "++"],
            ["--", "--", "+-", "conflicting-paths"],
            ["--", "--", "+-", "++"],
        ],
        felt: false,
    },
    Truth {
        keys: ["filesystem.hidden", "landlock.read"],
        values: [
            ["", "[]", "[\"/etc\"]", "[\"/etc\", \"/root\", \"/srv\"]"],
            ["", "[]", "[\"/etc\"]", "[\"/\"]"],
        ],
        lines: "",
        asks: &["read /etc/x", "read /root/x", "read /srv/x"],
        answers: [
            // Hidden are /root, /home and /boot where nobody says anything.
            ["---", "---", "+--", "+-+"],
            ["---", "---", "+--", "+++"],
            ["---", "---", "---", "-++"],
            ["---", "---", "---", "---"],
        ],
        felt: false,
    },
    Truth {
        keys: ["cgroup.devices", "filesystem.dev"],
        values: [
            ["", "[]", "[{ path = \"/dev/kmsg\", access = \"r\" }]", "\"any\""],
            ["", "\"none\"", "\"minimal\"", "\"host\""],
        ],
        lines: "landlock.read = [\"/usr\", \"/dev\"]",
        asks: &["read /dev/null", "read /dev/kmsg"],
        answers: [
            ["+-", "--", "+-", "++"],
            // With the host's /dev an empty list leaves what can be opened there: new nodes cannot be made.
            ["+-", "--", "+-", "++"],
            ["++", "--", "++", "++"],
            ["+-", "--", "+-", "++"],
        ],
        felt: false, // what a host has in /dev is its own
    },
    Truth {
        keys: ["cgroup.ip_allow", "cgroup.ip_deny"],
        values: [
            ["", "[]", "[\"127.1.0.0/16\"]", "[\"any\"]"],
            ["", "[]", "[\"127.1.2.0/24\"]", "[\"any\"]"],
        ],
        lines: "landlock.connect_tcp = \"any\"",
        asks: &["send 127.1.2.3", "send 127.1.3.3", "send 127.2.2.3"],
        answers: [
            ["+++", "+++", "-++", "---"],
            ["---", "---", "---", "---"],
            ["++-", "++-", "-+-", "++-"],
            // Of two that are as wide neither wins: the same network in both is an error.
            ["+++", "+++", "-++", "conflicting-addresses"],
        ],
        felt: true,
    },
    Truth {
        keys: ["cgroup.socket_bind", "cgroup.socket_connect"],
        values: [["", "[]", "[\"udp:4321\"]", "\"any\""], ["", "[]", "[\"udp:4321\"]", "\"any\""]],
        lines: "",
        asks: &["bind udp:4321", "bind udp:4322", "connect udp:4321", "connect udp:4322"],
        answers: [
            // What is not written restricts nothing.
            ["++++", "++--", "+++-", "++++"],
            ["--++", "----", "--+-", "--++"],
            ["+-++", "+---", "+-+-", "+-++"],
            ["++++", "++--", "+++-", "++++"],
        ],
        felt: true,
    },
];

/// A list of a file on top of one of the file that it extends: which values are in it then.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// What the extended file says: not written, empty, or a list.
    pub(crate) below: Option<&'static [char]>,
    /// What the file says.
    pub(crate) own: Own,
    /// The list, or the code of the refusal.
    pub(crate) comes_to: Result<&'static [char], &'static str>,
}

/// What a file says of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Own {
    Unset,
    List(&'static [char]),
    Change { add: &'static [char], remove: &'static [char] },
}

const fn inherited(
    below: Option<&'static [char]>,
    own: Own,
    comes_to: Result<&'static [char], &'static str>,
) -> Inherited {
    Inherited { below, own, comes_to }
}

/// For every list alike whose default is empty; `a`, `b` and `c` stand for three of its values.
pub(crate) const INHERITED: &[Inherited] = &[
    inherited(None, Own::Unset, Ok(&[])),
    inherited(None, Own::List(&[]), Ok(&[])),
    inherited(None, Own::List(&['a']), Ok(&['a'])),
    inherited(None, Own::Change { add: &['a'], remove: &[] }, Ok(&['a'])),
    inherited(None, Own::Change { add: &[], remove: &['a'] }, Err("nothing-to-remove")),
    inherited(None, Own::Change { add: &[], remove: &[] }, Ok(&[])),
    inherited(Some(&[]), Own::Unset, Ok(&[])),
    inherited(Some(&[]), Own::List(&['a', 'b']), Ok(&['a', 'b'])),
    inherited(Some(&[]), Own::Change { add: &['b'], remove: &[] }, Ok(&['b'])),
    inherited(Some(&[]), Own::Change { add: &['a'], remove: &['a'] }, Err("nothing-to-remove")),
    inherited(Some(&['a', 'b']), Own::Unset, Ok(&['a', 'b'])),
    inherited(Some(&['a', 'b']), Own::List(&[]), Ok(&[])),
    inherited(Some(&['a', 'b']), Own::List(&['c']), Ok(&['c'])),
    inherited(Some(&['a', 'b']), Own::Change { add: &['c'], remove: &[] }, Ok(&['a', 'b', 'c'])),
    inherited(Some(&['a', 'b']), Own::Change { add: &['a'], remove: &[] }, Ok(&['a', 'b'])),
    inherited(Some(&['a', 'b']), Own::Change { add: &[], remove: &['a'] }, Ok(&['b'])),
    inherited(Some(&['a', 'b']), Own::Change { add: &['c'], remove: &['a', 'b'] }, Ok(&['c'])),
    inherited(Some(&['a', 'b']), Own::Change { add: &['a'], remove: &['a'] }, Ok(&['b', 'a'])),
    inherited(Some(&['a', 'b']), Own::Change { add: &[], remove: &['c'] }, Err("nothing-to-remove")),
    inherited(Some(&['a', 'b']), Own::Change { add: &[], remove: &[] }, Ok(&['a', 'b'])),
    inherited(Some(&['a', 'b']), Own::List(&['c', 'c']), Err("duplicate-value")),
];

/// The lists, and three values of each with the names by which they are removed.
pub(crate) const LISTS: &[(&str, [(&str, &str); 3])] = &[
    (
        "filesystem.tmpfs",
        [
            ("{ path = \"/a\", size = \"1M\" }", "/a"),
            ("{ path = \"/b\", size = \"1M\" }", "/b"),
            ("{ path = \"/c\", size = \"1M\" }", "/c"),
        ],
    ),
    (
        "filesystem.read_write",
        [("\"/a\"", "/a"), ("{ path = \"/b\", optional = true }", "/b"), ("\"/c\"", "/c")],
    ),
    (
        "filesystem.bind",
        [
            ("{ from = \"/x\", to = \"/a\" }", "/a"),
            ("{ from = \"/x\", to = \"/b\" }", "/b"),
            ("{ from = \"/y\", to = \"/c\" }", "/c"),
        ],
    ),
    (
        "filesystem.overlay",
        [
            ("{ lower = [\"/x\"], path = \"/a\", size = \"1M\" }", "/a"),
            ("{ lower = [\"/x\"], path = \"/b\", size = \"1M\" }", "/b"),
            ("{ lower = [\"/y\"], path = \"/c\", size = \"1M\" }", "/c"),
        ],
    ),
    ("process.supplementary_groups", [("7", "7"), ("\"adm\"", "adm"), ("9", "9")]),
    (
        "process.securebits",
        [
            ("\"noroot\"", "noroot"),
            ("\"may-keep-caps\"", "may-keep-caps"),
            ("\"may-raise-ambient\"", "may-raise-ambient"),
        ],
    ),
    ("process.restrict_namespaces", [("\"user\"", "user"), ("\"net\"", "net"), ("\"uts\"", "uts")]),
    (
        "capabilities.keep",
        [("\"CAP_KILL\"", "CAP_KILL"), ("\"CAP_CHOWN\"", "CAP_CHOWN"), ("\"CAP_FOWNER\"", "CAP_FOWNER")],
    ),
    ("landlock.read", [("\"/a\"", "/a"), ("\"/b\"", "/b"), ("{ path = \"/c\", optional = true }", "/c")]),
    ("landlock.execute", [("\"/a\"", "/a"), ("\"/b\"", "/b"), ("\"/c\"", "/c")]),
    ("landlock.write", [("\"/a\"", "/a"), ("\"/b\"", "/b"), ("\"/c\"", "/c")]),
    ("landlock.bind_tcp", [("80", "80"), ("443", "443"), ("8080", "8080")]),
    ("landlock.connect_tcp", [("80", "80"), ("443", "443"), ("8080", "8080")]),
    ("landlock.optional", [("\"net\"", "net"), ("\"scope\"", "scope"), ("\"filesystem\"", "filesystem")]),
    ("seccomp.allow", [("\"read\"", "read"), ("\"@timer\"", "@timer"), ("\"write\"", "write")]),
    ("seccomp.deny", [("\"read\"", "read"), ("\"@timer\"", "@timer"), ("\"write\"", "write")]),
    ("seccomp.ioctl", [("\"TCGETS\"", "TCGETS"), ("\"FIONREAD\"", "FIONREAD"), ("7", "7")]),
    ("seccomp.prctl", [("\"PR_GET_NAME\"", "PR_GET_NAME"), ("\"PR_SET_NAME\"", "PR_SET_NAME"), ("3", "3")]),
    (
        "cgroup.io_max",
        [
            ("{ device = \"8:0\", wiops = 1 }", "8:0"),
            ("{ device = \"8:16\", wiops = 1 }", "8:16"),
            ("{ device = \"/dev/vda\", wiops = 1 }", "/dev/vda"),
        ],
    ),
    (
        "cgroup.io_latency",
        [
            ("{ device = \"8:0\", target = \"1ms\" }", "8:0"),
            ("{ device = \"8:16\", target = \"1ms\" }", "8:16"),
            ("{ device = \"/dev/vda\", target = \"1ms\" }", "/dev/vda"),
        ],
    ),
    (
        "cgroup.rdma",
        [
            ("{ device = \"mlx5_0\", hca_handle = 1 }", "mlx5_0"),
            ("{ device = \"mlx5_1\", hca_handle = 1 }", "mlx5_1"),
            ("{ device = \"rxe0\", hca_handle = 1 }", "rxe0"),
        ],
    ),
    (
        "cgroup.pressure",
        [
            ("{ resource = \"cpu\", stall = \"1s\" }", "cpu some report"),
            ("{ resource = \"memory\", stall = \"1s\" }", "memory some report"),
            (
                "{ resource = \"memory\", kind = \"full\", stall = \"1s\", action = \"kill\" }",
                "memory full kill",
            ),
        ],
    ),
    (
        "cgroup.devices",
        [
            ("\"/dev/kvm\"", "/dev/kvm"),
            ("{ char = \"alsa\" }", "char alsa"),
            ("{ block = \"8:*\" }", "block 8:*"),
        ],
    ),
    (
        "cgroup.ip_allow",
        [("\"10.0.0.0/8\"", "10.0.0.0/8"), ("\"localhost\"", "localhost"), ("\"::1\"", "::1")],
    ),
    (
        "cgroup.ip_deny",
        [("\"10.0.0.0/8\"", "10.0.0.0/8"), ("\"localhost\"", "localhost"), ("\"::1\"", "::1")],
    ),
    ("cgroup.socket_bind", [("80", "80"), ("\"tcp:81\"", "tcp:81"), ("\"udp:any\"", "udp:any")]),
    ("cgroup.socket_connect", [("80", "80"), ("\"tcp:81\"", "tcp:81"), ("\"udp:any\"", "udp:any")]),
    ("cgroup.optional", [("\"cpu\"", "cpu"), ("\"memory\"", "memory"), ("\"bpf\"", "bpf")]),
];
