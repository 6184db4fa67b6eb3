//! Each program is run in the interpreter over every corner of what it decides, and held against what the policy says in
//! its own words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    addresses::{Direction, Table},
    devices::Grant,
    interpreter::{Fault, Input, run},
    numbers, *,
};
use crate::{
    compile::described::{DescribedHost, here, kernel, strict, subject},
    kernel::Kernel,
    plan::Plan,
    policy::*,
    sys::bpf::Instruction,
};

fn load(lines: &str) -> Policy {
    let text = format!("[seccomp]\nallow = [\"execve\"]\n[filesystem]\nhidden = []\n{lines}");
    load_text(std::path::Path::new("t.toml"), &text, &Store::new(Vec::new()))
        .unwrap_or_else(|report| panic!("{report}"))
}

fn rules(lines: &str) -> Confinement {
    match load(lines).rules {
        Rules::Confined(rules) => *rules,
        Rules::Unconfined(_) => panic!("it is confined"),
    }
}

fn programs(lines: &str) -> Vec<CgroupProgram> {
    let (kernel, subject, host) = (kernel(7), subject(), DescribedHost::debian());
    let mut builder = Builder::new(&kernel, &host, &subject);
    let programs = super::compile(&rules(lines), &mut builder).unwrap();
    assert!(builder.diagnostics.is_empty(), "{:?}", builder.diagnostics);
    programs
}

fn on(kernel: &Kernel, lines: &str) -> Result<Plan, crate::diagnostic::Report> {
    crate::compile::compile_on(&load(lines), &subject(), kernel, &DescribedHost::debian())
}

fn hooks(lines: &str) -> Vec<Hook> {
    programs(lines).iter().map(|program| program.hook).collect()
}

fn says(program: &[Instruction], context: &[u8], packet: &[u8]) -> bool {
    match run(program, Input { context, packet }) {
        Ok(0) => false,
        Ok(1) => true,
        other => panic!("{other:?}"),
    }
}

const CHAR: u32 = 2;
const BLOCK: u32 = 1;
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

fn device(program: &[Instruction], access: u32, kind: u32, major: u32, minor: u32) -> bool {
    let context: Vec<u8> =
        [access << 16 | kind, major, minor].into_iter().flat_map(u32::to_le_bytes).collect();
    says(program, &context, &[])
}

fn port(program: &[Instruction], protocol: i32, port: u16) -> bool {
    let mut context = [0; 72];
    context[24..26].copy_from_slice(&port.to_be_bytes());
    context[36..40].copy_from_slice(&protocol.to_le_bytes());
    says(program, &context, &[])
}

fn packet(program: &[Instruction], address: IpAddr, direction: Direction) -> bool {
    let mut context = [0; 192];
    let mut packet = [0xaa_u8; 40];
    let (protocol, offset) = match (address, direction) {
        (IpAddr::V4(_), Direction::In) => (0x0800_u16, 12),
        (IpAddr::V4(_), Direction::Out) => (0x0800, 16),
        (IpAddr::V6(_), Direction::In) => (0x86dd, 8),
        (IpAddr::V6(_), Direction::Out) => (0x86dd, 24),
    };
    context[16..18].copy_from_slice(&protocol.to_be_bytes());
    match address {
        IpAddr::V4(address) => packet[offset..offset + 4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => packet[offset..offset + 16].copy_from_slice(&address.octets()),
    }
    says(program, &context, &packet)
}

/// Both directions of one policy, which must agree.
fn reaches(lines: &str, address: &str) -> bool {
    let programs = programs(&format!("[cgroup]\n{lines}\n"));
    let address: IpAddr = address.parse().unwrap();
    let Some(ingress) = programs.iter().find(|program| program.hook == Hook::Ingress) else { return true };
    let egress = programs.iter().find(|program| program.hook == Hook::Egress).unwrap();
    let answer = packet(&egress.code, address, Direction::Out);
    assert_eq!(packet(&ingress.code, address, Direction::In), answer, "{lines}: {address}");
    answer
}

#[test]
fn a_key_that_is_not_written_asks_for_no_program_and_an_empty_list_for_one() {
    assert_eq!(hooks(""), []);
    assert_eq!(hooks("[cgroup]\ndevices = \"any\"\nsocket_bind = \"any\"\nip_deny = []\n"), []);
    assert_eq!(hooks("[cgroup]\ndevices = []\n"), [Hook::Device]);
    assert_eq!(hooks("[cgroup]\nip_allow = []\n"), [Hook::Ingress, Hook::Egress]);
    assert_eq!(hooks("[cgroup]\nip_deny = [\"any\"]\n"), [Hook::Ingress, Hook::Egress]);
    assert_eq!(hooks("[cgroup]\nsocket_bind = []\n"), [Hook::Bind4, Hook::Bind6]);
    let connect = [Hook::Connect4, Hook::Connect6, Hook::Send4, Hook::Send6];
    assert_eq!(hooks("[cgroup]\nsocket_connect = []\n"), connect);
}

#[test]
fn a_kernel_without_programs_on_cgroups_is_an_error_unless_the_policy_says_otherwise() {
    for cgroup_bpf in [None, Some(false)] {
        let lacking = Kernel { cgroup_bpf, ..kernel(7) };
        for key in [
            "devices = []",
            "ip_allow = []",
            "ip_deny = [\"any\"]",
            "socket_bind = []",
            "socket_connect = []",
        ] {
            let report = on(&lacking, &format!("[cgroup]\n{key}\n")).unwrap_err();
            let codes: Vec<_> = report.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
            assert_eq!(codes, ["no-cgroup-bpf"], "{key}");
            let plan = on(&lacking, &format!("[cgroup]\n{key}\noptional = [\"bpf\"]\n")).unwrap();
            assert_eq!(plan.left_out().len(), 1, "{key}");
            assert!(plan.programs.is_none());
        }
        assert!(on(&lacking, "").unwrap().left_out().is_empty());
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error_unless_it_is_optional() {
    for entry in ["path = \"/dev/nothing\"", "path = \"/etc\"", "char = \"nothing\"", "block = \"alsa\""] {
        let report = on(&kernel(7), &format!("[cgroup]\ndevices = [{{ {entry} }}]\n")).unwrap_err();
        assert!(
            report.diagnostics.iter().any(|diagnostic| diagnostic.code == "no-device"),
            "{entry}: {report}"
        );
        let optional = on(&kernel(7), &format!("[cgroup]\ndevices = [{{ {entry}, optional = true }}]\n"));
        // What is there and is no device is a mistake however optional it is.
        assert_eq!(optional.is_ok(), !entry.contains("/etc"), "{entry}");
    }
}

/// The numbers that some node of Linux has or just has not, and everything that can be asked of them.
fn every_device() -> impl Iterator<Item = (u32, u32, u32, u32)> {
    let majors = [0, 1, 5, 7, 8, 9, 10, 65, 116, 135, 136, 143, 144, 254, 4095];
    let minors = [0, 1, 2, 3, 5, 7, 8, 9, 63, 232, 1_048_575];
    (1..8).flat_map(move |access| {
        [CHAR, BLOCK].into_iter().flat_map(move |kind| {
            majors.into_iter().flat_map(move |major| minors.map(|minor| (access, kind, major, minor)))
        })
    })
}

#[test]
fn a_device_is_opened_and_made_as_its_grants_say() {
    let some = [
        Grant { kind: Some(DeviceKind::Char), major: Some(1), minor: Some(3), access: letters("r") },
        Grant { kind: Some(DeviceKind::Char), major: Some(1), minor: None, access: letters("w") },
        Grant { kind: Some(DeviceKind::Block), major: None, minor: Some(0), access: letters("rm") },
        Grant { kind: None, major: Some(10), minor: Some(232), access: letters("rwm") },
    ];
    let all = [Grant { kind: None, major: None, minor: None, access: letters("rw") }];
    let neighbours = [
        Grant { kind: Some(DeviceKind::Char), major: Some(135), minor: None, access: letters("r") },
        Grant { kind: Some(DeviceKind::Char), major: Some(136), minor: None, access: letters("r") },
        Grant { kind: Some(DeviceKind::Char), major: Some(136), minor: Some(8), access: letters("w") },
        Grant { kind: Some(DeviceKind::Block), major: Some(8), minor: Some(7), access: letters("rwm") },
        Grant { kind: Some(DeviceKind::Block), major: Some(8), minor: Some(8), access: letters("rwm") },
        Grant {
            kind: Some(DeviceKind::Block),
            major: Some(u32::MAX >> 1),
            minor: None,
            access: letters("m"),
        },
    ];
    let anywhere = [
        Grant { kind: None, major: None, minor: Some(0), access: letters("r") },
        Grant { kind: None, major: Some(0), minor: None, access: letters("w") },
    ];
    let sets = [&[][..], &some[..1], &some[..2], &some, &all, &neighbours, &anywhere];
    let joined: Vec<_> = sets.iter().flat_map(|set| [set.to_vec(), [*set, &some].concat()]).collect();
    for grants in &joined {
        let program = numbers::program(grants);
        for (access, kind, major, minor) in every_device() {
            let fits = |grant: &&Grant| {
                let kinds = [(DeviceKind::Char, CHAR), (DeviceKind::Block, BLOCK)];
                grant.kind.is_none_or(|wanted| kinds.contains(&(wanted, kind)))
                    && grant.major.is_none_or(|wanted| wanted == major)
                    && grant.minor.is_none_or(|wanted| wanted == minor)
            };
            let granted = grants.iter().filter(fits).fold(0, |granted, grant| {
                let DeviceAccess { read, write, mknod } = grant.access;
                granted | (u32::from(mknod) * MKNOD) | (u32::from(read) * READ) | (u32::from(write) * WRITE)
            });
            let expected = access & !granted == 0;
            let found = device(&program, access, kind, major, minor);
            assert_eq!(found, expected, "access {access}, kind {kind}, {major}:{minor}, {grants:?}");
        }
    }
}

/// The verifier's time is that of the ways through a program, which each launch of a new policy waits for.
#[test]
fn the_program_of_a_private_dev_is_short() {
    let code = programs("dev = \"minimal\"\n[cgroup]\ndevices = []\n")[0].code.clone();
    assert!(code.len() <= 32, "{} instructions: {code:?}", code.len());
}

#[test]
fn the_jumps_of_the_longest_program_reach() {
    // 256 entries, each a driver of 16 majors that have nothing to do with one another, on single devices.
    let grants: Vec<Grant> = (0..256 * 16)
        .map(|number| {
            let access = letters(["r", "w", "m", "rw", "rm", "wm", "rwm"][number as usize % 7]);
            Grant { kind: Some(DeviceKind::Block), major: Some(number * 2), minor: Some(number % 5), access }
        })
        .collect();
    let program = numbers::program(&grants);
    let last = 256 * 16 - 1;
    assert!(
        device(&program, READ, BLOCK, 2 * last, last % 5)
            && !device(&program, WRITE, BLOCK, 2 * last, last % 5)
    );
    assert!(device(&program, READ, BLOCK, 0, 0) && !device(&program, READ, BLOCK, 1, 0));
    assert!(!device(&program, READ | WRITE, BLOCK, 0, 0) && !device(&program, READ, CHAR, 0, 0));
}

fn letters(text: &str) -> DeviceAccess {
    let has = |letter| text.contains(letter);
    DeviceAccess { read: has('r'), write: has('w'), mknod: has('m') }
}

#[test]
fn an_empty_list_of_devices_leaves_what_dev_gives() {
    let open = |dev: &str, access, kind, major, minor| {
        let programs = programs(&format!("dev = \"{dev}\"\n[cgroup]\ndevices = []\n"));
        device(&programs[0].code, access, kind, major, minor)
    };
    for (minor, name) in [(3, "null"), (5, "zero"), (7, "full"), (8, "random"), (9, "urandom")] {
        assert!(open("minimal", READ | WRITE | MKNOD, CHAR, 1, minor), "{name}: the launch makes it");
        assert!(!open("none", READ, CHAR, 1, minor), "{name}");
    }
    assert!(
        open("minimal", READ | WRITE, CHAR, 5, 2) && open("minimal", READ | WRITE, CHAR, 136, 77),
        "a terminal"
    );
    assert!(!open("minimal", READ, CHAR, 1, 1), "mem");
    assert!(!open("minimal", READ, CHAR, 1, 11), "kmsg");
    assert!(!open("minimal", READ, CHAR, 10, 232), "kvm");
    assert!(!open("minimal", READ, BLOCK, 1, 3), "a disk of the same number as null");
    assert!(!open("minimal", MKNOD, BLOCK, 8, 0), "a disk");
    assert!(
        open("host", READ | WRITE, BLOCK, 8, 0) && open("host", READ | WRITE, CHAR, 10, 232),
        "as they are there"
    );
    assert!(!open("host", MKNOD, CHAR, 1, 3), "and no new ones");
}

#[test]
fn what_the_list_names_is_added() {
    let list = "[cgroup]\ndevices = [\"/dev/kvm\", { path = \"/dev/vda\", access = \"r\" }, { char = \"alsa\" }, \
                { block = \"sd\", access = \"r\" }, { char = \"10:*\", access = \"m\" }]\n";
    let code = programs(list)[0].code.clone();
    let open = |access, kind, major, minor| device(&code, access, kind, major, minor);
    assert!(open(READ | WRITE, CHAR, 10, 232) && open(READ | WRITE | MKNOD, CHAR, 10, 232), "of two entries");
    assert!(open(READ, BLOCK, 254, 0) && !open(READ | WRITE, BLOCK, 254, 0) && !open(READ, BLOCK, 254, 1));
    assert!(open(READ | WRITE, CHAR, 116, 9) && !open(MKNOD, CHAR, 116, 9));
    assert!(open(READ, BLOCK, 8, 3) && open(READ, BLOCK, 66, 0) && !open(WRITE, BLOCK, 65, 0));
    assert!(open(MKNOD, CHAR, 10, 1) && !open(READ, CHAR, 10, 1));
}

#[test]
fn the_truth_table_of_addresses() {
    const NONE: &str = "";
    for (lists, ten, one, other, six) in [
        // allow, deny: 10.2.3.4, 10.0.0.1, 192.0.2.1, 2001:db8::1
        (NONE, true, true, true, true),
        ("ip_allow = []", false, false, false, false),
        ("ip_deny = []", true, true, true, true),
        ("ip_deny = [\"any\"]", false, false, false, false),
        ("ip_allow = [\"any\"]", true, true, true, true),
        ("ip_allow = []\nip_deny = []", false, false, false, false),
        ("ip_allow = []\nip_deny = [\"any\"]", false, false, false, false),
        ("ip_allow = [\"10.0.0.0/8\"]", true, true, false, false),
        ("ip_allow = [\"10.0.0.0/8\"]\nip_deny = []", true, true, false, false),
        ("ip_allow = [\"10.0.0.0/8\"]\nip_deny = [\"any\"]", true, true, false, false),
        ("ip_allow = [\"10.0.0.0/8\"]\nip_deny = [\"10.0.0.1\"]", true, false, false, false),
        ("ip_deny = [\"10.0.0.0/8\"]", false, false, true, true),
        ("ip_allow = [\"10.0.0.1\"]\nip_deny = [\"10.0.0.0/8\"]", false, true, false, false),
        ("ip_allow = [\"any\"]\nip_deny = [\"10.0.0.0/8\"]", false, false, true, true),
        ("ip_allow = [\"any\", \"10.0.0.1\"]\nip_deny = [\"10.0.0.0/8\"]", false, true, true, true),
        ("ip_deny = [\"0.0.0.0/0\"]", false, false, false, true),
        ("ip_deny = [\"::/0\"]", true, true, true, false),
        ("ip_allow = [\"2001:db8::/32\"]", false, false, false, true),
    ] {
        for (address, expected) in
            [("10.2.3.4", ten), ("10.0.0.1", one), ("192.0.2.1", other), ("2001:db8::1", six)]
        {
            assert_eq!(reaches(lists, address), expected, "{lists}: {address}");
        }
    }
}

#[test]
fn words_name_networks_of_both_versions() {
    for (word, inside, outside) in [
        ("localhost", ["127.0.0.1", "127.255.255.255", "::1"], ["126.255.255.255", "128.0.0.0", "::2"]),
        (
            "link-local",
            ["169.254.0.1", "fe80::1", "fe80::ffff:ffff:ffff:ffff"],
            ["169.253.0.1", "fe80:0:0:1::", "fe7f::"],
        ),
        (
            "multicast",
            ["224.0.0.1", "239.255.255.255", "ff02::1"],
            ["223.255.255.255", "240.0.0.0", "fe00::"],
        ),
    ] {
        let allow = format!("ip_allow = [\"{word}\"]");
        assert!(inside.iter().all(|address| reaches(&allow, address)), "{word}");
        assert!(!outside.iter().any(|address| reaches(&allow, address)), "{word}");
    }
}

/// Random lists of networks, each asked for the ends of every network and what lies next to them.
#[test]
fn every_corner_of_random_networks_gets_what_the_policy_says() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut asked = 0;
    for _ in 0..200 {
        let mut cgroup = strict().cgroup;
        let mut prefixes = Vec::new();
        let closed = random() % 2 == 0;
        let mut lists = [Vec::new(), Vec::new()];
        for _ in 0..random() % 12 {
            let six = random() % 2 == 0;
            let width = if six { 128 } else { 32 };
            let length = u8::try_from(random() % (width + 1)).unwrap();
            // Few distinct high bits, so that networks lie within each other.
            let bits =
                u128::from(random() % 4) << 126 | u128::from(random()) << 40 | u128::from(random() % 3);
            let bits = if six { bits } else { bits >> 96 };
            let prefix = Prefix { six, bits: 0, length };
            let prefix = Prefix { bits: bits & !prefix.rest(), ..prefix };
            if prefixes.contains(&prefix) {
                continue;
            }
            prefixes.push(prefix);
            let list = usize::from(closed && random() % 2 == 0);
            lists[list].push(here(Network::of(prefix)));
        }
        let [deny, allow] = lists;
        cgroup.ip_deny = deny;
        cgroup.ip_allow = closed.then(|| here(allow));
        let table = Table::of(&cgroup);
        let (ingress, egress) = (table.program(Direction::In), table.program(Direction::Out));
        for prefix in &prefixes {
            let (first, last) = (prefix.bits, prefix.bits | prefix.rest());
            for bits in [first, last, first.wrapping_sub(1), last.wrapping_add(1), first ^ 1, !first, 0] {
                let address = if prefix.six {
                    IpAddr::V6(Ipv6Addr::from_bits(bits))
                } else {
                    IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits & 0xffff_ffff).unwrap()))
                };
                // By the words of the documentation: the narrowest network that has it, else what there is a list of.
                let has = |list: &[_], allowed: bool| {
                    list.iter()
                        .flat_map(|network: &crate::diagnostic::Located<Network>| &network.value.prefixes)
                        .filter(|prefix| prefix.contains(address))
                        .map(|prefix| (prefix.length, allowed))
                        .max()
                };
                let allow = cgroup.ip_allow.as_ref().and_then(|list| has(&list.value, true));
                let narrowest = allow.max(has(&cgroup.ip_deny, false));
                let expected = narrowest.map_or(!closed, |(_, allowed)| allowed);
                assert_eq!(packet(&egress, address, Direction::Out), expected, "{address}: {cgroup:?}");
                assert_eq!(packet(&ingress, address, Direction::In), expected, "{address}: {cgroup:?}");
                assert_eq!(table.verdict(address).1, expected, "{address}: {cgroup:?}");
                asked += 1;
            }
        }
    }
    assert!(asked > 3_000, "{asked}");
}

#[test]
fn a_packet_that_is_cut_short_or_of_another_kind_is_denied() {
    let programs = programs("[cgroup]\nip_deny = [\"10.0.0.1\"]\n");
    let egress = &programs.iter().find(|program| program.hook == Hook::Egress).unwrap().code;
    assert!(packet(egress, "10.0.0.2".parse().unwrap(), Direction::Out), "control");
    let with = |protocol: u16, packet: &[u8]| {
        let mut context = [0; 192];
        context[16..18].copy_from_slice(&protocol.to_be_bytes());
        says(egress, &context, packet)
    };
    assert!(!with(0x0800, &[0; 19]) && with(0x0800, &[0; 20]));
    assert!(!with(0x86dd, &[0; 39]) && with(0x86dd, &[0; 40]));
    assert!(!with(0x0806, &[0; 60]), "ARP");
}

#[test]
fn every_port_gets_what_its_protocol_has() {
    let list = "[cgroup]\nsocket_bind = [80, \"tcp:443\", \"tcp:8000-8999\", \"udp:53\", \"udp:65535\", \"udp:0\"]\n";
    let programs = programs(list);
    for program in &programs {
        for number in 0..=u16::MAX {
            let tcp = matches!(number, 80 | 443 | 8000..=8999);
            let udp = matches!(number, 0 | 53 | 80 | 65535);
            for (protocol, expected) in [
                (libc::IPPROTO_TCP, tcp),
                (libc::IPPROTO_MPTCP, tcp),
                (libc::IPPROTO_UDP, udp),
                (libc::IPPROTO_UDPLITE, udp),
                (libc::IPPROTO_SCTP, number == 80),
                (libc::IPPROTO_ICMP, number == 80),
            ] {
                assert_eq!(port(&program.code, protocol, number), expected, "{protocol} {number}");
            }
        }
    }
}

#[test]
fn an_empty_list_of_ports_allows_none_and_any_allows_all() {
    let of = |list: &str| programs(&format!("[cgroup]\nsocket_connect = {list}\n"))[0].code.clone();
    for number in [0, 1, 53, 32768, u16::MAX] {
        assert!(!port(&of("[]"), libc::IPPROTO_TCP, number));
        assert!(port(&of("[\"tcp:any\"]"), libc::IPPROTO_TCP, number));
        assert!(!port(&of("[\"tcp:any\"]"), libc::IPPROTO_UDP, number));
        assert!(port(&of("[\"0-65535\"]"), libc::IPPROTO_UDP, number));
    }
}

/// The longest lists that are allowed: every jump reaches, and the program is what it is for a short one.
#[test]
fn the_longest_lists_compile() {
    let mut cgroup = strict().cgroup;
    let six = |index: u16| Prefix { six: true, bits: u128::from(index) << 70 | 1 << 20, length: 120 };
    let four = |index: u16| Prefix { six: false, bits: u128::from(index) << 12, length: 24 };
    let both = |index: u16| {
        let mut network = Network::of(six(index));
        network.prefixes.push(four(index));
        here(network)
    };
    cgroup.ip_allow = Some(here((0..512).map(|index| both(2 * index)).collect()));
    cgroup.ip_deny = (0..512).map(|index| both(2 * index + 1)).collect();
    let table = Table::of(&cgroup);
    let program = table.program(Direction::Out);
    println!("{} instructions", program.len());
    for index in [0, 1, 510, 511, 1022, 1023] {
        for prefix in [six(index), four(index)] {
            let address = if prefix.six {
                IpAddr::V6(Ipv6Addr::from_bits(prefix.bits))
            } else {
                IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(prefix.bits).unwrap()))
            };
            assert_eq!(packet(&program, address, Direction::Out), index % 2 == 0, "{address}");
        }
    }
}

#[test]
fn the_interpreter_refuses_what_the_verifier_would() {
    let fault = |code: &[Instruction]| run(code, Input { context: &[0; 12], packet: &[] }).unwrap_err();
    let load = |offset| Instruction { code: 0x61, registers: 0x10, offset, immediate: 0 };
    assert_eq!(fault(&[]), Fault("runs off its end"));
    assert_eq!(fault(&[load(0)]), Fault("runs off its end"));
    assert_eq!(fault(&[load(9)]), Fault("outside of memory"));
    assert_eq!(fault(&[load(-1)]), Fault("below the context"));
    assert_eq!(
        fault(&[Instruction { code: 0xff, registers: 0, offset: 0, immediate: 0 }]),
        Fault("no such instruction")
    );
    assert_eq!(
        fault(&[Instruction { code: 0x85, registers: 0, offset: 0, immediate: 1 }]),
        Fault("no such helper")
    );
    assert_eq!(
        fault(&[Instruction { code: 0x15, registers: 0, offset: -1, immediate: 0 }]),
        Fault("a jump backwards")
    );
}
