//! Devices, addresses and ports, as a process in the cgroup feels them: each refusal with its control.

mod inside;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use inside::{plan_for, run_in_cgroup, scratch, skip};
use sandbox::{
    Plan,
    cgroup::{Cgroup, Slices},
    kernel::Kernel,
};

/// The cgroup below which programs can be attached here, if they can.
fn base() -> Option<PathBuf> {
    let kernel = Kernel::probe(None).expect("this machine can be asked");
    let base =
        kernel.cgroup_base.filter(|_| nix::unistd::geteuid().is_root() && kernel.cgroup_bpf == Some(true));
    if base.is_none() {
        skip("needs root and a kernel that attaches programs to cgroups");
    }
    base
}

/// What a shell prints that runs under `base/default` and these lines, in a cgroup of its own.
fn run(lines: &str, script: &str) -> String {
    let ran = run_in_cgroup(&plan_for("test", lines), script).expect("there is a cgroup2 tree");
    ran.unwrap_or_else(|error| panic!("{lines}\n{error}")).output.trim().to_owned()
}

/// A cgroup, and nothing but its programs around what is run in it.
struct Bare {
    cgroup: Cgroup,
}

impl Bare {
    fn new(base: &Path, name: &str, plan: &Plan) -> Self {
        let name = format!("sandbox-test-{}-{name}.service", std::process::id());
        let cgroup = Cgroup::create(base, &name, plan).unwrap_or_else(|error| panic!("{error}"));
        Self { cgroup }
    }

    /// The output of an unconfined shell, in the cgroup.
    fn run(&self, script: &str) -> String {
        let enter = format!("echo $$ >{}/cgroup.procs && {{ {script}\n}} 2>&1", self.cgroup.path().display());
        let output = Command::new("/bin/sh").args(["-c", &enter]).stdin(Stdio::null()).output();
        String::from_utf8(output.expect("there is a shell").stdout)
            .expect("it writes UTF-8")
            .trim()
            .to_owned()
    }

    fn hooks(&self) -> Vec<&'static str> {
        let programs = self.cgroup.programs().unwrap_or_else(|error| panic!("{error}"));
        assert!(programs.iter().all(|program| program.ours && program.tag.len() == 16), "{programs:?}");
        programs.into_iter().map(|program| program.hook).collect()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        if let Err(error) = self.cgroup.remove() {
            eprintln!("{error}");
        }
    }
}

/// `ok`, or the errno's words.
fn perl(script: &str) -> String {
    format!("perl -MSocket=:all -e '{script}; print \"ok\"'")
}

/// Sends a packet by UDP: `send`.
fn udp(address: &str) -> String {
    let (family, to) = match address.contains(':') {
        true => ("AF_INET6", format!("pack_sockaddr_in6(9, inet_pton(AF_INET6, \"{address}\"))")),
        false => ("AF_INET", format!("pack_sockaddr_in(9, inet_aton(\"{address}\"))")),
    };
    perl(&format!(
        "socket(my $s, {family}, SOCK_DGRAM, 0) || die \"socket $!\"; defined send($s, \"x\", 0, {to}) || (print($!), exit)"
    ))
}

/// Binds a socket: `stream` or `dgram`.
fn bind(kind: &str, port: u16) -> String {
    let kind = if kind == "stream" { "SOCK_STREAM" } else { "SOCK_DGRAM" };
    perl(&format!(
        "socket(my $s, AF_INET, {kind}, 0) || die \"socket $!\"; \
         bind($s, pack_sockaddr_in({port}, INADDR_LOOPBACK)) || (print($!), exit)"
    ))
}

/// Connects a socket; where nobody listens TCP is refused, which is an answer from the other side.
fn connect(kind: &str, port: u16) -> String {
    let kind = if kind == "stream" { "SOCK_STREAM" } else { "SOCK_DGRAM" };
    perl(&format!(
        "socket(my $s, AF_INET, {kind}, 0) || die \"socket $!\"; \
         connect($s, pack_sockaddr_in({port}, INADDR_LOOPBACK)) || (print($!), exit)"
    ))
}

const DENIED: &str = "Operation not permitted";
const REFUSED: &str = "Connection refused";

#[test]
fn a_device_that_is_not_listed_cannot_be_opened_whatever_node_leads_there() {
    if base().is_none() {
        return;
    }
    // The kernel's log, under another name and for everybody: file modes are no wall here.
    let folder = scratch("devices");
    let node = folder.join("log");
    let made = Command::new("mknod").arg(&node).args(["c", "1", "11"]).status().expect("coreutils are there");
    assert!(made.success());
    std::fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("it is ours");
    let opened = |devices: &str| {
        let lines = format!(
            "[filesystem]\nbind = [{{ from = \"{}\", to = \"/run/log\", read_only = false, nodev = false }}]\n\
             [cgroup]\n{devices}\n",
            node.display()
        );
        run(&lines, "(: >>/run/log) 2>&1 && echo opened; (: >>/dev/null) 2>&1 && echo null")
    };
    assert_eq!(opened("devices = \"any\""), "opened\nnull", "control");
    assert_eq!(opened("devices = [{ char = \"1:11\", access = \"w\" }]"), "opened\nnull");
    for denied in [
        "",
        "devices = []",
        "devices = [{ char = \"1:11\", access = \"r\" }]",
        "devices = [{ block = \"1:11\" }]",
    ] {
        let output = opened(denied);
        assert!(output.contains(DENIED) && output.ends_with("null"), "{denied}: {output}");
    }
}

#[test]
fn a_listed_device_is_in_a_minimal_dev() {
    if base().is_none() {
        return;
    }
    let root = "[process]\nuser = \"root\"\n[landlock]\nwrite = { add = [\"/dev/fuse\"] }\n";
    let script = "(: >>/dev/fuse) 2>&1 && echo opened";
    let without = root.replace("\"/dev/fuse\"", "\"/dev/full\"");
    assert!(run(&without, script).contains("cannot create /dev/fuse"), "control");
    // Mode 0600: root, as the owner, needs no capability.
    assert_eq!(run(&format!("{root}[cgroup]\ndevices = [\"/dev/fuse\"]\n"), script), "opened");
    let nested = "[cgroup]\ndevices = [{ path = \"/dev/net/tun\", access = \"r\" }]\n";
    assert_eq!(run(nested, "ls /dev/net"), "tun");
    let missing = "[cgroup]\ndevices = [{ path = \"/dev/nothing\", optional = true }]\n";
    assert_eq!(run(missing, "ls /dev/nothing 2>/dev/null || echo none"), "none");
}

#[test]
fn a_device_cannot_be_made_either() {
    let Some(base) = base() else { return };
    let folder = scratch("mknod");
    let script =
        format!("cd {}; rm -f x y; mknod x c 1 11 && echo x; mknod y c 1 3 && echo y", folder.display());
    let made = |name, devices: &str| {
        Bare::new(&base, name, &plan_for("test", &format!("[cgroup]\ndevices = {devices}\n"))).run(&script)
    };
    assert_eq!(made("mknod-any", "\"any\""), "x\ny", "control");
    assert_eq!(made("mknod-none", "[]"), format!("mknod: x: {DENIED}\ny"));
    assert_eq!(made("mknod-open", "[{ char = \"1:11\" }]"), format!("mknod: x: {DENIED}\ny"));
    assert_eq!(made("mknod-made", "[{ char = \"1:11\", access = \"m\" }]"), "x\ny");
}

#[test]
fn packets_go_to_allowed_addresses_alone() {
    if base().is_none() {
        return;
    }
    let sent = |lists: &str, address: &str| run(&format!("[cgroup]\n{lists}\n"), &udp(address));
    for address in ["127.0.0.1", "127.0.0.2", "::1"] {
        assert_eq!(sent("", address), "ok", "control: {address}");
    }
    for (lists, one, two, six) in [
        ("ip_allow = [\"127.0.0.1\"]", "ok", DENIED, DENIED),
        ("ip_deny = [\"127.0.0.1\"]", DENIED, "ok", "ok"),
        ("ip_allow = [\"127.0.0.0/8\"]\nip_deny = [\"127.0.0.2\"]", "ok", DENIED, DENIED),
        ("ip_deny = [\"any\"]", DENIED, DENIED, DENIED),
        ("ip_allow = [\"127.0.0.2\"]\nip_deny = [\"any\"]", DENIED, "ok", DENIED),
        ("ip_allow = [\"localhost\"]", "ok", "ok", "ok"),
        ("ip_allow = []", DENIED, DENIED, DENIED),
        ("ip_deny = [\"::/0\"]", "ok", "ok", DENIED),
    ] {
        assert_eq!(sent(lists, "127.0.0.1"), one, "{lists}");
        assert_eq!(sent(lists, "127.0.0.2"), two, "{lists}");
        assert_eq!(sent(lists, "::1"), six, "{lists}");
    }
}

/// A packet of TCP that the filter drops is one that was lost: who connects waits. So a listener in the same cgroup, which
/// the control reaches at once.
#[test]
fn a_denied_address_is_not_reached_by_tcp() {
    let Some(base) = base() else { return };
    let script = perl(
        "socket(my $l, AF_INET, SOCK_STREAM, 0); bind($l, pack_sockaddr_in(0, inet_aton(\"127.0.0.2\"))); \
         listen($l, 1); my ($port) = sockaddr_in(getsockname($l)); socket(my $s, AF_INET, SOCK_STREAM, 0); \
         $SIG{ALRM} = sub { print \"lost\"; exit }; alarm 1; \
         connect($s, pack_sockaddr_in($port, inet_aton(\"127.0.0.2\"))) || (print($!), exit)",
    );
    let reached = |name, lists: &str| {
        Bare::new(&base, name, &plan_for("test", &format!("[cgroup]\n{lists}\n"))).run(&script)
    };
    assert_eq!(reached("tcp-any", ""), "ok", "control");
    assert_eq!(reached("tcp-allowed", "ip_allow = [\"localhost\"]"), "ok");
    let denied = reached("tcp-denied", "ip_deny = [\"127.0.0.2\"]");
    assert!([DENIED, "lost"].contains(&denied.as_str()), "{denied}");
}

#[test]
fn sockets_bind_to_listed_ports_alone() {
    if base().is_none() {
        return;
    }
    let landlock = "[landlock]\nbind_tcp = \"any\"\n[cgroup]\n";
    let bound = |list: &str, kind, port| run(&format!("{landlock}{list}\n"), &bind(kind, port));
    for (kind, port) in [("stream", 8080), ("dgram", 8080), ("dgram", 5353), ("dgram", 0)] {
        assert_eq!(bound("", kind, port), "ok", "control: {kind} {port}");
    }
    for (list, tcp, udp, other, none) in [
        ("socket_bind = [\"tcp:8080\"]", "ok", DENIED, DENIED, DENIED),
        ("socket_bind = [8080]", "ok", "ok", DENIED, DENIED),
        ("socket_bind = [\"udp:5000-5999\", \"udp:0\"]", DENIED, DENIED, "ok", "ok"),
        ("socket_bind = []", DENIED, DENIED, DENIED, DENIED),
        ("socket_bind = \"any\"", "ok", "ok", "ok", "ok"),
    ] {
        assert_eq!(bound(list, "stream", 8080), tcp, "{list}");
        assert_eq!(bound(list, "dgram", 8080), udp, "{list}");
        assert_eq!(bound(list, "dgram", 5353), other, "{list}");
        assert_eq!(bound(list, "dgram", 0), none, "{list}");
    }
}

#[test]
fn sockets_connect_and_send_to_listed_ports_alone() {
    if base().is_none() {
        return;
    }
    let landlock = "[landlock]\nconnect_tcp = \"any\"\n[cgroup]\n";
    let with = |list: &str, script: &str| run(&format!("{landlock}{list}\n"), script);
    assert_eq!(with("", &connect("stream", 8080)), REFUSED, "control: nobody listens");
    assert_eq!(with("", &connect("dgram", 53)), "ok", "control");
    assert_eq!(with("", &udp("127.0.0.1")), "ok", "control: to port 9");
    assert_eq!(with("", &udp("::1")), "ok", "control: to port 9");
    for (list, tcp, dns, nine) in [
        ("socket_connect = [\"tcp:8080\", \"udp:53\"]", REFUSED, "ok", DENIED),
        ("socket_connect = [\"udp:9\"]", DENIED, DENIED, "ok"),
        ("socket_connect = []", DENIED, DENIED, DENIED),
    ] {
        assert_eq!(with(list, &connect("stream", 8080)), tcp, "{list}");
        assert_eq!(with(list, &connect("dgram", 53)), dns, "{list}");
        assert_eq!(with(list, &udp("127.0.0.1")), nine, "{list}");
        assert_eq!(with(list, &udp("::1")), nine, "{list}");
    }
}

#[test]
fn a_cgroup_that_is_used_again_has_the_programs_of_the_last_plan_alone() {
    let Some(base) = base() else { return };
    let plan = |lines: &str| plan_for("test", &format!("[cgroup]\n{lines}\n"));
    let first = plan("devices = []\nip_deny = [\"any\"]\nsocket_bind = []\n");
    let hooks = ["device", "ingress", "egress", "bind4", "bind6"];
    let kept = Bare::new(&base, "again", &first);
    assert_eq!(kept.hooks(), hooks);
    let ids = |bare: &Bare| {
        bare.cgroup.programs().unwrap().into_iter().map(|program| program.id).collect::<Vec<_>>()
    };
    let before = ids(&kept);
    // The same plan: the same programs. The same policy compiled anew: others in their place.
    for (again, same) in
        [(first.clone(), true), (plan("devices = []\nip_deny = [\"any\"]\nsocket_bind = []\n"), false)]
    {
        let bare = std::mem::ManuallyDrop::new(Bare::new(&base, "again", &again));
        assert_eq!(bare.hooks(), hooks);
        assert_eq!(ids(&bare) == before, same);
    }
    let fewer =
        std::mem::ManuallyDrop::new(Bare::new(&base, "again", &plan("devices = []\nip_allow = []\n")));
    assert_eq!(fewer.hooks(), ["device", "ingress", "egress"]);
    let none = std::mem::ManuallyDrop::new(Bare::new(&base, "again", &plan("devices = \"any\"\n")));
    assert_eq!(none.hooks(), [""; 0]);
}

#[test]
fn programs_stay_when_everything_that_made_them_is_gone() {
    let Some(base) = base() else { return };
    let plan = plan_for("test", "[cgroup]\nip_deny = [\"127.0.0.1\"]\n");
    let bare = Bare::new(&base, "stay", &plan);
    // With the plan go the only descriptors of the programs.
    drop(plan);
    assert_eq!(bare.hooks(), ["device", "ingress", "egress"]);
    assert_eq!(bare.run(&udp("127.0.0.1")), DENIED);
    assert_eq!(bare.run(&udp("127.0.0.2")), "ok", "control");
}

#[test]
fn of_many_in_one_slice_the_way_down_is_looked_at_once_and_again_where_it_is_another() {
    let Some(base) = base() else { return };
    let base = base.join(format!("sandbox-test-{}-many.slice", std::process::id()));
    let plan = plan_for("test", "");
    let mut slices = Slices::default();
    let mut make =
        |name: &str| Cgroup::create_among(&base, &format!("a.slice/{name}.service"), &plan, &mut slices);
    let [first, second] = ["first", "second"].map(|name| make(name).unwrap());
    assert_ne!(first.id(), second.id());
    assert!(first.path().exists() && second.path().exists());
    // The slice is gone, and is made anew.
    first.remove().unwrap();
    second.remove().unwrap();
    std::fs::remove_dir(base.join("a.slice")).unwrap();
    let third = make("third").unwrap();
    assert!(third.path().exists());
    // One that is there is used if it is empty, as ever.
    assert_eq!(make("third").unwrap().id(), third.id());
    let mut process = Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(third.path().join("cgroup.procs"), process.id().to_string()).unwrap();
    let refused = make("third").unwrap_err().to_string();
    assert!(refused.ends_with("it has processes already"), "{refused}");
    let fourth = make("fourth").unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    for cgroup in [third, fourth] {
        cgroup.remove().unwrap();
    }
    for slice in [base.join("a.slice"), base] {
        std::fs::remove_dir(slice).unwrap();
    }
}
