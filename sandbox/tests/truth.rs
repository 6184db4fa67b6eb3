//! The truth table as processes inside of the sandboxes experience it: every cell of the pairs that any machine can feel.

mod inside;
#[path = "truth/table.rs"]
#[allow(dead_code, reason = "the table of how lists are inherited is the other test's")]
mod table;

use std::path::Path;

use inside::{is_root, run_in_cgroup, run_plan};
use sandbox::{
    compile::{Subject, compile},
    kernel::{Kernel, LandlockAbi},
    policy::{Store, load_text},
};
use table::{TABLE, Truth};

/// The names and numbers of capabilities that this process has to give.
fn capabilities() -> Vec<String> {
    let own = caps::read(None, caps::CapSet::Permitted).expect("this process may ask");
    let mut names: Vec<String> = own.into_iter().map(|capability| capability.to_string()).collect();
    names.sort();
    names
}

fn number_of(call: &str) -> u32 {
    sandbox::syscalls::number(call).unwrap_or_else(|| panic!("no call {call}"))
}

/// One line of Perl that prints `+` where the filter lets a call through, which says EXDEV otherwise.
fn filtered(call: &str, arguments: &str) -> String {
    let number = number_of(call);
    format!("perl -e '$! = 0; my @a = ({arguments}); syscall({number}, @a); print $! == 18 ? \"-\" : \"+\"'")
}

/// One that makes a socket and does something with it: any refusal but that of a wall is none.
fn socket(kind: &str, act: &str) -> String {
    format!(
        "perl -MSocket -e 'socket(S, AF_INET, {kind}, 0) or die; $! = 0; {act}; \
         print $! == 1 || $! == 13 ? \"-\" : \"+\"'"
    )
}

/// What asks the question inside.
fn script(question: &str) -> String {
    let words: Vec<&str> = question.split(' ').collect();
    match words.as_slice() {
        ["call", name] => filtered(name, "0, 0, 0, 0, 0, 0"),
        ["socket", family, kind, protocol] => filtered("socket", &format!("{family}, {kind}, {protocol}")),
        ["ioctl", request] => filtered("ioctl", &format!("0, {request}, 0")),
        ["prctl", operation] => filtered("prctl", &format!("{operation}, 0, 0, 0, 0")),
        ["unshare", kinds @ ..] => {
            let flag = |kind: &&str| if *kind == "user" { libc::CLONE_NEWUSER } else { libc::CLONE_NEWUTS };
            filtered("unshare", &kinds.iter().map(flag).fold(0, |bits, flag| bits | flag).to_string())
        }
        ["cap", name] => {
            let capability: caps::Capability = name.parse().expect("it is one");
            let index = capability.index();
            format!(
                "perl -ne 'print hex($1) >> {index} & 1 ? \"+\" : \"-\" if /^CapEff:\\s+(\\S+)/' /proc/self/status"
            )
        }
        [act, port] if ["bind", "connect"].contains(act) => {
            let (kind, port) = match port.strip_prefix("udp:") {
                Some(port) => ("SOCK_DGRAM", port),
                None => ("SOCK_STREAM", *port),
            };
            socket(kind, &format!("{act}(S, sockaddr_in({port}, INADDR_LOOPBACK))"))
        }
        ["send", address] => {
            socket("SOCK_DGRAM", &format!("send(S, \"x\", 0, sockaddr_in(4321, inet_aton(\"{address}\")))"))
        }
        _ => panic!("nobody can ask {question}"),
    }
}

/// What a cell comes to inside; `None` where this kernel lacks what it is about.
fn cell(truth: &Truth, first: usize, second: usize, kernel: &Kernel) -> Option<String> {
    let all: Vec<String> = capabilities().iter().map(|name| format!("\"{name}\"")).collect();
    let text = truth.policy(first, second).replace("@capabilities@", &format!("[{}]", all.join(", ")));
    let policy = match load_text(Path::new("truth.toml"), &text, &Store::new(Vec::new())) {
        Err(report) => return Some(report.diagnostics[0].code.to_owned()),
        Ok(policy) => policy,
    };
    let subject = Subject { name: "truth".to_owned(), root: "/".into(), sockets: vec![] };
    let plan = match compile(&policy, &subject, kernel) {
        Err(report) => return Some(report.diagnostics[0].code.to_owned()),
        Ok(plan) => plan,
    };
    let script = truth.asks.iter().map(|ask| script(ask)).collect::<Vec<_>>().join("; ");
    let ran = if truth.keys[0].starts_with("cgroup.") {
        run_in_cgroup(&plan, &script)?
    } else {
        run_plan(&plan, &script)
    };
    Some(ran.map_or_else(|error| error, |ran| ran.output))
}

#[test]
fn every_cell_that_can_be_felt_is_what_a_process_experiences() {
    if !is_root() {
        return;
    }
    let kernel = Kernel::probe(None).expect("this machine can be asked");
    let mut wrong = Vec::new();
    let mut cells = 0;
    for truth in TABLE.iter().filter(|truth| truth.felt) {
        let [one, other] = truth.keys;
        let lacks = one.starts_with("cgroup.") && kernel.cgroup_bpf != Some(true)
            || one.starts_with("landlock.") && kernel.landlock < LandlockAbi(4);
        if lacks {
            inside::skip(&format!("the part about {one} and {other}: this kernel lacks what it needs"));
            continue;
        }
        for first in 0..4 {
            for second in 0..4 {
                let Some(found) = cell(truth, first, second, &kernel) else {
                    inside::skip(&format!("the part about {one}: no cgroup2 tree"));
                    continue;
                };
                cells += 1;
                let expected = truth.answers[first][second];
                if found != expected {
                    wrong.push(format!(
                        "{one} = {:?}, {other} = {:?}: {found}, not {expected} to {:?}",
                        truth.values[0][first], truth.values[1][second], truth.asks
                    ));
                }
            }
        }
    }
    println!("{cells} cells");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
