//! The truth table (`tests/truth/table.rs`) as compiled plans have it, the table of how lists are inherited, and a policy of
//! empty lists.

#[path = "../tests/truth/table.rs"]
#[allow(dead_code, reason = "what is felt is the other test's")]
mod table;

use std::{collections::BTreeSet, path::Path};

use table::{INHERITED, LISTS, Own, TABLE, Truth};

use crate::{
    compile::{FileKind, Host, compile_on, described, seccomp},
    diagnostic::Report,
    kernel::{Kernel, LandlockAbi},
    plan::{Op, Plan},
    policy::{self, DeviceKind, Policy, Store, Value, load_text},
    question::{Question, can_on},
    syscalls,
};

/// A host that has every path, and the devices of the table.
#[derive(Debug)]
struct Everything;

impl Host for Everything {
    fn kind(&self, path: &str) -> std::io::Result<FileKind> {
        let is_file = path.ends_with("/x") || ["/dev/null", "/dev/kmsg"].contains(&path);
        Ok(if is_file { FileKind::Other } else { FileKind::Directory })
    }
    fn user(&self, _name: &str) -> std::io::Result<Option<(u32, u32)>> {
        Ok(None)
    }
    fn device(&self, path: &str) -> std::io::Result<Option<(DeviceKind, u32, u32)>> {
        Ok(match path {
            "/dev/null" => Some((DeviceKind::Char, 1, 3)),
            "/dev/kmsg" => Some((DeviceKind::Char, 1, 11)),
            _ => None,
        })
    }
    fn majors(&self, _kind: DeviceKind, _driver: &str) -> std::io::Result<Vec<u32>> {
        Ok(Vec::new())
    }
    fn primary_group(&self, _uid: u32) -> std::io::Result<Option<u32>> {
        Ok(None)
    }
    fn group(&self, _name: &str) -> std::io::Result<Option<u32>> {
        Ok(None)
    }
}

fn load(text: &str) -> Result<Policy, Report> {
    load_text(Path::new("truth.toml"), text, &Store::new(Vec::new()))
}

fn compiled(text: &str, kernel: &Kernel) -> Result<(Policy, Plan), Report> {
    let policy = load(text)?;
    let plan = compile_on(&policy, &described::subject(), kernel, &Everything)?;
    Ok((policy, plan))
}

fn filter(plan: &Plan) -> &[seccompiler::sock_filter] {
    let filter = plan
        .steps
        .iter()
        .find_map(|step| if let Op::Seccomp { program, .. } = &step.op { Some(&program[..]) } else { None });
    filter.expect("the policy has one")
}

fn answer_of_filter(plan: &Plan, call: &str, arguments: &[u64]) -> bool {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let number = syscalls::number(call).unwrap_or_else(|| panic!("no call {call}"));
    seccomp::verdict_with(filter(plan), number, all) == Some(seccomp::ALLOW)
}

fn flag(kind: &str) -> u64 {
    let flag = match kind {
        "user" => libc::CLONE_NEWUSER,
        "uts" => libc::CLONE_NEWUTS,
        other => panic!("{other}"),
    };
    u64::from(flag.cast_unsigned())
}

fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).expect("a number"),
        None => text.parse().expect("a number"),
    }
}

/// What a plan says to a question of the table.
fn says(policy: &Policy, plan: &Plan, question: &str) -> bool {
    let words: Vec<&str> = question.split(' ').collect();
    let scope = |scope| plan.landlock.as_ref().is_some_and(|landlock| !landlock.scope.contains(scope));
    match words.as_slice() {
        ["socket", arguments @ ..] => {
            let arguments: Vec<u64> = arguments.iter().map(|word| number(word)).collect();
            answer_of_filter(plan, "socket", &arguments)
        }
        ["ioctl", request] => answer_of_filter(plan, "ioctl", &[0, number(request)]),
        ["prctl", operation] => answer_of_filter(plan, "prctl", &[number(operation)]),
        ["unshare", kinds @ ..] => {
            answer_of_filter(plan, "unshare", &[kinds.iter().fold(0, |bits, kind| bits | flag(kind))])
        }
        ["i386", call] => {
            let call = u32::try_from(number(call)).expect("a number of a call");
            seccomp::answer(filter(plan), seccomp::I386, call, [0; 6]) == seccomp::ALLOW
        }
        ["x32", call] => {
            let call = u32::try_from(number(call)).expect("a number of a call");
            seccomp::answer(filter(plan), seccomp::X86_64, call | 0x4000_0000, [0; 6]) == seccomp::ALLOW
        }
        ["signal"] => scope(landlock::Scope::Signal),
        ["abstract"] => scope(landlock::Scope::AbstractUnixSocket),
        ["send", address] => says(policy, plan, &format!("connect udp:{address}:4321")),
        [act, object] => {
            let question = Question::parse(act, object).unwrap_or_else(|error| panic!("{error}"));
            can_on(policy, plan, &question, &Everything).allowed
        }
        _ => panic!("nobody can ask {question}"),
    }
}

/// `+-`, or the code of the first refusal.
fn cell(truth: &Truth, first: usize, second: usize) -> String {
    let capabilities: Vec<String> = caps::all().iter().map(|known| format!("\"{known}\"")).collect();
    let capabilities = format!("[{}]", capabilities.join(", "));
    let text = truth.policy(first, second).replace("@capabilities@", &capabilities);
    match compiled(&text, &described::kernel(7)) {
        Err(report) => report.diagnostics[0].code.to_owned(),
        Ok((policy, plan)) => {
            truth.asks.iter().map(|ask| if says(&policy, &plan, ask) { '+' } else { '-' }).collect()
        }
    }
}

#[test]
fn every_cell_of_the_table_is_what_its_plan_says() {
    let mut wrong = Vec::new();
    for truth in TABLE {
        for first in 0..4 {
            for second in 0..4 {
                let found = cell(truth, first, second);
                let expected = truth.answers[first][second];
                if found != expected {
                    let [one, other] = truth.keys;
                    wrong.push(format!(
                        "{one} = {:?}, {other} = {:?}: {found}, not {expected} to {:?}",
                        truth.values[0][first], truth.values[1][second], truth.asks
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn scope_of_an_older_kernel_is_left_out_only_if_it_is_optional() {
    let scopes = TABLE.iter().find(|truth| truth.keys[0] == "landlock.scope").expect("it is in the table");
    let kernel = Kernel { landlock: LandlockAbi(5), ..described::kernel(5) };
    for (first, optional, expected) in [
        (0, 1, "no-landlock"), // both by default
        (0, 2, "++"),
        (1, 0, "++"), // none is asked for
        (2, 1, "no-landlock"),
        (2, 3, "++"),
        (3, 2, "++"),
    ] {
        let found = match compiled(&scopes.policy(first, optional), &kernel) {
            Err(report) => report.diagnostics[0].code.to_owned(),
            Ok((policy, plan)) => {
                let signs: String =
                    scopes.asks.iter().map(|ask| if says(&policy, &plan, ask) { '+' } else { '-' }).collect();
                let told = plan.left_out().iter().any(|left| left.what == "landlock scope");
                assert_eq!(told, first != 1, "what is left out is told");
                signs
            }
        };
        assert_eq!(found, expected, "{first} {optional}");
    }
}

/// The elements of a list as `policy show` has it.
fn shown(policy: &Policy, key: &str) -> Vec<String> {
    let (table, key) = key.split_once('.').expect("a section and a key");
    let shown = policy.show();
    let value = shown.iter().find(|shown| shown.table == table && shown.key == key);
    match value.map(|shown| &shown.value) {
        Some(Value::List(elements, _)) => elements.iter().map(|element| element.toml.clone()).collect(),
        Some(Value::One(element)) if element.toml == "true" => Vec::new(), // restrict_namespaces: none
        Some(Value::Unset) | None => Vec::new(),
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn every_list_is_inherited_alike() {
    let folder = std::env::temp_dir().join(format!("truth-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("there is a place for temporary files");
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    let file = folder.join("below.toml");
    let mut wrong = Vec::new();
    for (key, values) in LISTS {
        let value = |letter: &char| values["abc".find(*letter).expect("one of three")];
        let list = |letters: &[char]| {
            format!("[{}]", letters.iter().map(|letter| value(letter).0).collect::<Vec<_>>().join(", "))
        };
        let names = |letters: &[char]| {
            let names: Vec<String> =
                letters.iter().map(|letter| format!("\"{}\"", value(letter).1)).collect();
            format!("[{}]", names.join(", "))
        };
        // What the key needs beside it to be of use.
        let around = match *key {
            "seccomp.ioctl" | "seccomp.prctl" => "seccomp.allow = [\"execve\", \"ioctl\", \"prctl\"]\n",
            "process.securebits" => "process.user = 0\ncapabilities.keep = [\"CAP_KILL\"]\n",
            _ => "",
        };
        for case in INHERITED {
            let below = case.below.map_or_else(String::new, |below| format!("{key} = {}\n", list(below)));
            std::fs::write(&file, format!("{around}{below}")).expect("the folder is ours");
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .expect("it is ours");
            let own = match case.own {
                Own::Unset => String::new(),
                Own::List(letters) => format!("{key} = {}\n", list(letters)),
                Own::Change { add, remove } => {
                    format!("{key} = {{ add = {}, remove = {} }}\n", list(add), names(remove))
                }
            };
            let text = format!("extends = [\"below\"]\n{own}");
            let found = load_text(Path::new("own.toml"), &text, &Store::new(vec![folder.clone()]));
            let codes = |report: Report| report.diagnostics.iter().map(|one| one.code).collect::<Vec<_>>();
            let found = found.map(|policy| shown(&policy, key)).map_err(codes);
            let value = |letter: &char| value(letter).0.to_owned();
            let expected = case.comes_to.map(|letters| letters.iter().map(value).collect::<Vec<_>>());
            let same = match (&found, &expected) {
                (Ok(found), Ok(expected)) => found == expected,
                (Err(codes), Err(expected)) => codes.contains(expected),
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
            };
            if !same {
                wrong.push(format!("{key}: {below:?} and {own:?}: {found:?}, not {expected:?}"));
            }
        }
    }
    std::fs::remove_dir_all(&folder).expect("it is ours");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every list of the language is in [`LISTS`], or has a default of its own or a rule that makes it another: those are named.
#[test]
fn the_table_of_lists_knows_every_list() {
    const OTHERS: [&str; 14] = [
        "extends",                     // of the file
        "filesystem.read_only",        // by default everything
        "filesystem.hidden",           // by default three
        "landlock.scope",              // by default both
        "capabilities.ambient",        // each has to be kept as well
        "process.cpu_affinity",        // never empty
        "process.numa_nodes",          // goes with a policy
        "process.disable_speculation", // two values alone
        "seccomp.architectures",       // always has the native one
        "seccomp.rule",                // each is about a call that is allowed
        "seccomp.socket",              // likewise
        "cgroup.cpuset_cpus",          // never empty
        "cgroup.cpuset_mems",          // likewise
        "process.restrict_namespaces", // also a boolean
    ];
    let is_list = |table: &str, key: &str| {
        let before = if table.is_empty() { String::new() } else { format!("{table}.") };
        let report = load(&format!("{before}{key} = [[]]\n")).expect_err("no list has a list in it");
        let refused =
            |one: &crate::diagnostic::Diagnostic| one.code == "wrong-type" && one.message.contains("element");
        report.diagnostics.iter().any(refused)
    };
    let mut missing = BTreeSet::new();
    for (table, keys) in policy::keys().into_iter().filter(|(table, _)| !table.contains('.')) {
        for key in keys {
            let name = if table.is_empty() { (*key).to_owned() } else { format!("{table}.{key}") };
            let known = LISTS.iter().any(|(known, _)| *known == name) || OTHERS.contains(&name.as_str());
            if is_list(table, key) && !known {
                missing.insert(name);
            }
        }
    }
    assert!(missing.is_empty(), "neither in LISTS nor among the others: {missing:?}");
}

/// A policy in which every list is empty but for the one call without which nothing starts.
#[test]
fn a_policy_of_empty_lists_allows_nothing() {
    let mut text = "seccomp.allow = [\"execve\"]\n".to_owned();
    for (key, _) in LISTS.iter().filter(|(key, _)| *key != "seccomp.allow") {
        text.push_str(&format!("{key} = []\n"));
    }
    for key in ["capabilities.ambient", "seccomp.rule", "seccomp.socket"] {
        text.push_str(&format!("{key} = []\n"));
    }
    let (policy, plan) =
        compiled(&text, &described::kernel(7)).unwrap_or_else(|report| panic!("{report}\n{text}"));
    let asks = |question: &str| assert!(!says(&policy, &plan, question), "{question}");
    for name in syscalls::names().filter(|name| *name != "execve") {
        asks(&format!("call {name}"));
        assert!(!answer_of_filter(&plan, name, &[u64::MAX; 6]), "{name}");
    }
    for capability in caps::all() {
        asks(&format!("cap {capability}"));
    }
    for path in ["/", "/etc/x", "/tmp/x", "/dev/null", "/proc/self/status", "/usr/bin/x"] {
        for act in ["read", "write", "exec"] {
            asks(&format!("{act} {path}"));
        }
    }
    for port in ["0", "80", "65535", "udp:53", "udp:0"] {
        asks(&format!("bind {port}"));
        asks(&format!("connect {port}"));
    }
    for family in 0..46 {
        asks(&format!("socket {family} 1 0"));
    }
    for kind in ["user", "uts", "user uts"] {
        asks(&format!("unshare {kind}"));
    }
    for question in ["i386 20", "x32 39", "send 127.0.0.1", "send 10.0.0.1"] {
        asks(question);
    }
    // The lists that restrict are not written, and so are full.
    for question in ["signal", "abstract"] {
        asks(question);
    }
}
