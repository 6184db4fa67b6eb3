//! The tools that answer: `motherctl policy can`, `show`, `explain`, `diff` and `groups`.

use std::{path::Path, sync::Arc};

use sandbox::{
    Plan,
    compile::{RealHost, compile},
    diagnostic::{Place, nearest},
    explain,
    kernel::Kernel,
    policy::{self, Element, Policy, Shown, Store},
    question::{self, Question},
    syscalls::{self, groups, versions},
};
use serde_json::{Map, Value, json};

use super::{
    args::Global,
    failure::Failure,
    output::{print, print_json},
    policy::{left_out, load, subject},
    render::{Style, printable},
};
use crate::control::protocol::VERSION;

/// The command line is wrong: no such call, no such group.
const USAGE: u8 = 2;

fn loaded(global: &Global, name: &str) -> Result<Policy, Failure> {
    load(name, &Store::new(global.policies()), |_| ()).map_err(|report| Failure::report(1, &report))
}

/// For this machine, as a service of the policy's name.
fn compiled(policy: &Policy) -> Result<Arc<Plan>, Failure> {
    let kernel = Kernel::probe(None).map_err(|error| Failure::new(1, &error))?;
    let subject = subject(Path::new(policy.name()));
    compile(policy, &subject, &kernel).map_err(|report| Failure::report(1, &report))
}

fn this_host() -> RealHost {
    RealHost::new(Path::new("/"))
}

/// Yes or no, and why.
pub(super) fn can(global: &Global, name: &str, act: &str, object: &str) -> Result<u8, Failure> {
    let question = Question::parse(act, object).map_err(|wrong| Failure::say(USAGE, wrong))?;
    // 1 is `no`: what cannot be answered must not look like it.
    let unanswered = |failure: Failure| failure.with_status(USAGE);
    let policy = loaded(global, name).map_err(unanswered)?;
    let plan = compiled(&policy).map_err(unanswered)?;
    let answer = question::can(&policy, &plan, &question);
    if global.json {
        let because: Vec<Value> =
            answer.because.iter().map(|reason| json!({ "text": reason.text, "at": reason.at })).collect();
        print_json(&json!({
            "version": VERSION,
            "policy": policy.name(),
            "act": act,
            "object": object,
            "allowed": answer.allowed,
            "because": because,
            "notes": answer.notes,
        }))?;
    } else {
        print(&safe(&answer.to_string()))?;
    }
    Ok(u8::from(!answer.allowed))
}

/// A text of many lines whose parts came from files.
fn safe(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", printable(line))).collect()
}

/// The resolved policy.
pub(super) fn show(global: &Global, name: &str) -> Result<u8, Failure> {
    let policy = loaded(global, name)?;
    if global.json {
        let keys: Vec<Value> = policy.show().iter().map(|shown| shown_as_json(shown, &policy)).collect();
        print_json(&json!({
            "version": VERSION,
            "policy": policy.name(),
            "description": policy.description(),
            "keys": keys,
        }))?;
    } else {
        print(&safe(&policy::show(&policy)))?;
    }
    Ok(0)
}

fn shown_as_json(shown: &Shown, policy: &Policy) -> Value {
    let at = |at: Option<&Place>| match at {
        Some(at) => {
            let (line, column) = policy.sources().line_column(at);
            json!({ "file": policy.sources().path(at.file).display().to_string(), "line": line, "column": column })
        }
        None => Value::Null,
    };
    let element =
        |element: &Element| json!({ "value": value_of(&element.toml), "at": at(element.at.as_ref()) });
    let (kind, value) = match &shown.value {
        policy::Value::One(one) => ("value", element(one)),
        policy::Value::List(elements, _) => ("list", elements.iter().map(element).collect()),
        policy::Value::Table(entries) => {
            let entries: Map<String, Value> =
                entries.iter().map(|(name, value)| (name.clone(), element(value))).collect();
            ("table", Value::Object(entries))
        }
        policy::Value::Unset => ("unset", Value::Null),
    };
    let mut json = json!({ "section": shown.table, "key": shown.key });
    json[kind] = value;
    json
}

/// A TOML value as JSON.
fn value_of(toml: &str) -> Value {
    let document = toml::from_str::<Map<String, Value>>(&format!("v = {toml}"));
    document
        .ok()
        .and_then(|mut document| document.remove("v"))
        .unwrap_or_else(|| Value::String(toml.to_owned()))
}

/// In words.
pub(super) fn explain(global: &Global, name: &str) -> Result<u8, Failure> {
    let policy = loaded(global, name)?;
    let plan = compiled(&policy)?;
    let topics = explain::explain(&policy, &plan, &this_host());
    if global.json {
        let topics: Vec<Value> =
            topics.iter().map(|topic| json!({ "title": topic.title, "lines": topic.lines })).collect();
        print_json(&json!({
            "version": VERSION,
            "policy": policy.name(),
            "topics": topics,
            "left_out": left_out(&plan),
        }))?;
    } else {
        let style = Style::choose(global.color);
        let topics: Vec<explain::Topic> = topics
            .into_iter()
            .map(|topic| explain::Topic {
                title: topic.title,
                lines: topic.lines.iter().map(|line| printable(line)).collect(),
            })
            .collect();
        print(&explain::text(&topics, |title| style.bold(title)))?;
    }
    Ok(0)
}

/// What differs.
pub(super) fn diff(global: &Global, a: &str, b: &str) -> Result<u8, Failure> {
    // As with diff(1), 1 is an answer and 2 is trouble.
    let trouble = |failure: Failure| failure.with_status(USAGE);
    let (first, second) = (loaded(global, a).map_err(trouble)?, loaded(global, b).map_err(trouble)?);
    let plans = (compiled(&first).map_err(trouble)?, compiled(&second).map_err(trouble)?);
    let difference = explain::diff((&first, &plans.0), (&second, &plans.1), &this_host());
    if global.json {
        let keys: Vec<Value> =
            difference.keys.iter().map(|key| json!({ "key": key.key, "a": key.a, "b": key.b })).collect();
        print_json(&json!({
            "version": VERSION,
            "a": first.name(),
            "b": second.name(),
            "more": difference.more,
            "less": difference.less,
            "keys": keys,
        }))?;
    } else {
        print(&safe(&difference.text(first.name(), second.name())))?;
    }
    Ok(u8::from(!difference.is_none()))
}

/// All groups, or the calls of one.
pub(super) fn groups(global: &Global, group: Option<&str>) -> Result<u8, Failure> {
    let Some(group) = group else {
        let all: Vec<(&str, &str, Vec<&str>)> =
            groups::all().map(|(name, about)| (name, about, calls_of(name))).collect();
        if global.json {
            let all: Vec<Value> = all
                .iter()
                .map(|(name, about, calls)| json!({ "name": name, "about": about, "calls": calls }))
                .collect();
            let members_of = versions::VERSION;
            print_json(&json!({ "version": VERSION, "groups_version": members_of, "groups": all }))?;
            return Ok(0);
        }
        let width = all.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        let line = |(name, about, calls): &(&str, &str, Vec<&str>)| {
            format!("{name:width$}  {:3}  {about}\n", calls.len())
        };
        print(&all.iter().map(line).collect::<String>())?;
        print(&format!("\nversion {}, which a policy gets that names no other\n", versions::VERSION))?;
        return Ok(0);
    };
    let name = if group.starts_with('@') { group.to_owned() } else { format!("@{group}") };
    let Some((name, about)) = groups::all().find(|(known, _)| *known == name) else {
        let near = nearest(&name, groups::all().map(|(name, _)| name));
        let near = near.map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
        return Err(Failure::say(USAGE, format!("no group is named `{}`{near}", printable(group))));
    };
    let calls = calls_of(name);
    if global.json {
        let since: Vec<Option<u32>> = calls.iter().map(|call| since(name, call)).collect();
        let group = json!({ "name": name, "about": about, "calls": calls, "since": since });
        print_json(&json!({ "version": VERSION, "groups_version": versions::VERSION, "groups": [group] }))?;
    } else {
        let width = calls.iter().map(|call| call.len()).max().unwrap_or(0);
        let line = |call: &&str| match since(name, call) {
            Some(version) => format!("{call:width$}  since {version}\n"),
            None => format!("{call}\n"),
        };
        print(&format!("{name}: {about}\n{}", calls.iter().map(line).collect::<String>()))?;
    }
    Ok(0)
}

/// The version since which a call has been in a group.
fn since(group: &str, call: &str) -> Option<u32> {
    syscalls::number(call).and_then(|number| groups::since(group, number))
}

fn calls_of(group: &str) -> Vec<&'static str> {
    let members = groups::members(group).unwrap_or_default();
    let mut calls: Vec<&str> = members.into_iter().filter_map(syscalls::name).collect();
    calls.sort_unstable();
    calls
}

#[cfg(test)]
mod tests {
    use sandbox::policy::load_text;

    use super::*;

    #[test]
    fn a_shown_key_in_json_has_its_values_and_their_places() {
        let text = "[cgroup]\npids_max = 7\n[landlock]\nbind_tcp = [80]\n[process.environment]\nA = \"b\"\n";
        let policy = load_text(Path::new("t.toml"), text, &Store::new(Vec::new())).unwrap();
        let shown: Vec<Value> = policy.show().iter().map(|shown| shown_as_json(shown, &policy)).collect();
        let find = |table: &str, key: &str| {
            shown.iter().find(|shown| shown["section"] == table && shown["key"] == key).unwrap().clone()
        };
        let at = |line, column| json!({ "file": "t.toml", "line": line, "column": column });
        assert_eq!(find("cgroup", "pids_max")["value"], json!({ "value": 7, "at": at(2, 12) }));
        assert_eq!(find("landlock", "bind_tcp")["list"], json!([{ "value": 80, "at": at(4, 13) }]));
        assert_eq!(find("process", "environment")["table"]["A"]["value"], "b");
        assert_eq!(find("namespaces", "mount")["value"], json!({ "value": "private", "at": null }));
        assert_eq!(find("cgroup", "io_weight")["unset"], Value::Null);
    }

    #[test]
    fn a_group_lists_its_calls_in_alphabetic_order() {
        assert_eq!(calls_of("@chown"), ["chown", "fchown", "fchownat", "lchown"]);
    }
}
