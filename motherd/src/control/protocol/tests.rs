//! The wire, checked: everything goes round, and the interface text describes exactly what is sent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{samples::*, *};

fn requests() -> Vec<Request> {
    let services = || vec!["web".into(), "db".into()];
    vec![
        Request::List,
        Request::Status { services: services(), brief: false },
        Request::Status { services: services(), brief: true },
        Request::Tree { services: services() },
        Request::Why { service: "web".into() },
        Request::Timers,
        Request::Events { services: services(), after: Some(7), follow: true },
        Request::Events { services: vec![], after: None, follow: false },
        Request::Start { services: services() },
        Request::Run { service: "job".into(), definition: "exec = [\"/bin/true\"]\n".into(), hold: true },
        Request::Stop { services: services(), force: false },
        Request::Stop { services: services(), force: true },
        Request::Restart { services: services() },
        Request::Reload { services: services() },
        Request::Kill { services: services(), signal: 15 },
        Request::ReloadConfig { dry_run: true },
        Request::ReloadConfig { dry_run: false },
        Request::Manager,
        Request::FdStore { services: services() },
        Request::Upgrade { path: Some("/m".into()), initldr: true, check: true },
        Request::Upgrade { path: None, initldr: false, check: false },
        Request::End { how: How::Poweroff, status: 0, force: false },
        Request::End { how: How::Reboot, status: 0, force: true },
        Request::End { how: How::Halt, status: 0, force: false },
        Request::End { how: How::Kexec, status: 0, force: false },
        Request::End { how: How::SoftReboot, status: 0, force: false },
        Request::End { how: How::Exit, status: 255, force: true },
        Request::Schedule { how: How::Halt, at: 1_764_300_000, message: "good night".into() },
        Request::Unschedule,
        Request::Ending,
        Request::Skip { services: services() },
    ]
}

fn acted() -> Acted {
    Acted { service: "web".into(), state: State::Running, changed: true, main_pid: Some(7) }
}

/// What may answer a request, errors aside.
fn answer(request: &Request) -> Reply {
    match request {
        Request::List => Reply::List(vec![summary(&web()), summary(&stopped())]),
        Request::Status { brief: false, .. } => Reply::Status(vec![web(), stopped()]),
        Request::Status { brief: true, .. } => Reply::Status(vec![brief(web()), stopped()]),
        Request::Tree { .. } => Reply::Tree(tree()),
        Request::Why { .. } => Reply::Why(Box::new(why())),
        Request::Timers => Reply::Timers(vec![timer()]),
        Request::Manager => Reply::Manager(manager()),
        Request::FdStore { .. } => Reply::FdStore(fd_store()),
        Request::Upgrade { .. } => Reply::Upgraded(upgraded()),
        Request::Events { .. } => Reply::Events(Events { events: vec![event()], lost: 3 }),
        Request::ReloadConfig { .. } => Reply::Configured(ConfigPlan {
            applied: false,
            errors: vec!["web.toml:1:1: no".into()],
            warnings: vec![],
            changes: vec![ConfigChange { service: "web".into(), change: Change::Changed, runs: true }],
        }),
        Request::Start { .. }
        | Request::Run { .. }
        | Request::Stop { .. }
        | Request::Restart { .. }
        | Request::Reload { .. }
        | Request::Skip { .. }
        | Request::Kill { .. } => Reply::Acted(vec![acted()]),
        Request::End { .. } => Reply::Ending,
        Request::Schedule { .. } => Reply::Scheduled(Some(scheduled())),
        Request::Unschedule => Reply::Scheduled(None),
        Request::Ending => Reply::Awaited(ending()),
    }
}

/// Every error, with the exit status that the command line promises.
fn errors() -> Vec<(RequestError, u8)> {
    let failures = vec![Failure { service: "web".into(), why: "did not stop".into() }];
    vec![
        (RequestError::NoSuchService { service: "wbe".into(), near: Some("web".into()) }, 4),
        (RequestError::NoSuchService { service: "x".into(), near: None }, 4),
        (RequestError::NotRunning { service: "web".into() }, 3),
        (RequestError::PermissionDenied { method: "Stop".into(), uid: 1000 }, 5),
        (RequestError::Failed { failures, done: vec![acted()] }, 1),
        (RequestError::Refused { why: "the machine is ending".into() }, 1),
        (RequestError::InterfaceNotFound { interface: "a.b".into() }, 1),
        (RequestError::MethodNotFound { method: "a.b.C".into() }, 1),
        (RequestError::InvalidParameter { parameter: "services".into() }, 2),
    ]
}

#[test]
fn a_request_comes_out_as_it_went_in() {
    for request in requests() {
        let message = Message::decode(request.encode().to_string().as_bytes()).unwrap();
        assert_eq!(message, Message { call: Ok(Call::MotherD(request)), one_way: false });
    }
}

#[test]
fn a_reply_comes_out_as_it_went_in() {
    for request in requests() {
        let reply = answer(&request);
        assert_eq!(Reply::decode(&request, reply.encode().to_string().as_bytes()).unwrap(), reply);
        let text = reply.to_text();
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), reply.encode(), "{request:?}");
        assert_eq!(Reply::decode(&request, &text).unwrap(), reply);
    }
}

#[test]
fn an_error_comes_out_as_it_went_in_and_has_its_exit_status() {
    for (error, status) in errors() {
        assert_eq!(error.exit_status(), status, "{error}");
        let text = Reply::Error(error.clone()).encode().to_string();
        assert_eq!(Reply::decode(&Request::List, text.as_bytes()).unwrap(), Reply::Error(error));
    }
}

#[test]
fn a_client_ignores_fields_and_shows_errors_that_it_does_not_know() {
    let later = json!({ "parameters": { "version": 1, "services": [], "news": true }, "continues": false });
    assert_eq!(Reply::decode(&Request::List, later.to_string().as_bytes()).unwrap(), Reply::List(vec![]));
    let text = json!({ "error": "io.altimatos.MotherD.Tired", "parameters": { "until": "noon" } });
    let Reply::Error(error) = Reply::decode(&Request::List, text.to_string().as_bytes()).unwrap() else {
        panic!("an error is an error");
    };
    assert_eq!(error.to_string(), r#"io.altimatos.MotherD.Tired {"until":"noon"}"#);
    assert_eq!(error.exit_status(), 1);
}

#[test]
fn a_missing_figure_is_not_a_zero() {
    let figure: Figure<u64> = Figure::Missing(Missing { file: "memory.peak".into(), why: "ENOENT".into() });
    let text = serde_json::to_value(figure).unwrap();
    assert_eq!(text, json!({ "missing": { "file": "memory.peak", "why": "ENOENT" } }));
    assert_eq!(serde_json::to_value(Figure::Value(0_u64)).unwrap(), json!({ "value": 0 }));
    assert_eq!(serde_json::to_value(LimitFigure::Unlimited {}).unwrap(), json!({ "unlimited": {} }));
}

#[test]
fn the_interface_text_describes_what_is_sent() {
    let interface = Interface::parse(DESCRIPTION);
    for request in requests() {
        let method = &interface.methods[request.method()];
        interface.check(&method.0, &request.encode()["parameters"], request.method());
        interface.check(&method.1, &answer(&request).encode()["parameters"], request.method());
    }
    let named: BTreeSet<&str> = requests().iter().map(Request::method).collect();
    assert_eq!(interface.methods.len(), named.len(), "a method that is described and not known");
    let mut described = 0;
    for (error, _) in errors() {
        let message = Reply::Error(error).encode();
        let name = message["error"].as_str().unwrap();
        if let Some(name) = name.strip_prefix(INTERFACE) {
            interface.check(&interface.errors[&name[1..]], &message["parameters"], name);
            described += 1;
        }
    }
    assert_eq!(interface.errors.len(), described - 1, "NoSuchService is there twice");
    let check = |state: State| {
        interface.check(&Type::Named("State".into()), &serde_json::to_value(state).unwrap(), "state");
        assert_eq!(serde_json::to_value(state).unwrap(), state.name());
    };
    use State::*;
    for state in
        [Stopped, Waiting, Starting, Running, Reloading, Stopping, Backoff, Done, Failed, Lost, Orphan]
    {
        check(state);
    }
}

#[test]
#[should_panic(expected = "Status.services.0: `surprise` is not in the text")]
fn the_check_of_the_interface_text_sees_a_field_too_many() {
    let mut reply = answer(&Request::Status { services: vec![], brief: false }).encode();
    reply["parameters"]["services"][0]["surprise"] = json!(1);
    let interface = Interface::parse(DESCRIPTION);
    interface.check(&interface.methods["Status"].1, &reply["parameters"], "Status");
}

/// A Varlink interface, as far as its grammar is used here (<https://varlink.org/Interface-Definition>).
struct Interface {
    types: BTreeMap<String, Type>,
    methods: BTreeMap<String, (Type, Type)>,
    errors: BTreeMap<String, Type>,
}

#[derive(Debug, Clone)]
enum Type {
    Named(String),
    List(Box<Type>),
    Maybe(Box<Type>),
    Struct(BTreeMap<String, Type>),
    Enum(Vec<String>),
}

impl Interface {
    fn parse(text: &str) -> Self {
        let text: String = text
            .lines()
            .map(|line| line.split('#').next().unwrap())
            .flat_map(|line| line.chars().chain(" ".chars()))
            .flat_map(|c| if "(),:?[]".contains(c) { vec![' ', c, ' '] } else { vec![c] })
            .collect();
        let mut words = text.split_whitespace().peekable();
        assert_eq!((words.next(), words.next()), (Some("interface"), Some(INTERFACE)));
        let mut found = Self { types: BTreeMap::new(), methods: BTreeMap::new(), errors: BTreeMap::new() };
        while let Some(keyword) = words.next() {
            let name = words.next().unwrap().to_owned();
            let first = Type::parse(&mut words);
            match keyword {
                "type" => drop(found.types.insert(name, first)),
                "error" => drop(found.errors.insert(name, first)),
                "method" => {
                    assert_eq!(words.next(), Some("->"));
                    found.methods.insert(name, (first, Type::parse(&mut words)));
                }
                other => panic!("`{other}` begins nothing"),
            }
        }
        found
    }

    /// Panics unless `value` is of that type, with no field too many.
    fn check(&self, expected: &Type, value: &Value, at: &str) {
        match expected {
            Type::Named(name) => match name.as_str() {
                "int" => assert!(value.is_i64() || value.is_u64(), "{at}: {value} is no int"),
                "float" => assert!(value.is_f64(), "{at}: {value} is no float"),
                "bool" => assert!(value.is_boolean(), "{at}: {value} is no bool"),
                "string" => assert!(value.is_string(), "{at}: {value} is no string"),
                name => self.check(
                    self.types.get(name).unwrap_or_else(|| panic!("{at}: no type {name}")),
                    value,
                    at,
                ),
            },
            Type::Maybe(of) => self.check(of, value, at),
            Type::List(of) => {
                for (number, value) in value.as_array().expect(at).iter().enumerate() {
                    self.check(of, value, &format!("{at}.{number}"));
                }
            }
            Type::Enum(names) => {
                assert!(names.iter().any(|name| name == value.as_str().expect(at)), "{at}: {value}");
            }
            Type::Struct(fields) => {
                let value = value.as_object().unwrap_or_else(|| panic!("{at}: {value} is no object"));
                for name in value.keys() {
                    assert!(fields.contains_key(name), "{at}: `{name}` is not in the text");
                }
                for (name, of) in fields {
                    match value.get(name) {
                        Some(value) => self.check(of, value, &format!("{at}.{name}")),
                        None => assert!(matches!(of, Type::Maybe(_)), "{at}: no `{name}`"),
                    }
                }
            }
        }
    }
}

impl Type {
    fn parse<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Self {
        match words.next().unwrap() {
            "?" => Type::Maybe(Box::new(Type::parse(words))),
            "[" => {
                assert_eq!(words.next(), Some("]"));
                Type::List(Box::new(Type::parse(words)))
            }
            "(" => {
                let (mut fields, mut names) = (BTreeMap::new(), Vec::new());
                loop {
                    let name = match words.next().unwrap() {
                        ")" => break,
                        "," => continue,
                        name => name.to_owned(),
                    };
                    if words.next_if_eq(&":").is_some() {
                        fields.insert(name, Type::parse(words));
                    } else {
                        names.push(name);
                    }
                }
                assert!(fields.is_empty() || names.is_empty());
                if names.is_empty() { Type::Struct(fields) } else { Type::Enum(names) }
            }
            name => Type::Named(name.into()),
        }
    }
}
