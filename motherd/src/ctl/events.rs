//! `motherctl events`: what happened, once or as it happens.

use serde_json::{Value, json};

use super::{
    args::Global,
    failure::Failure,
    output::{Stdout, print, print_json},
    render::{self, Style},
};
use crate::control::{
    client::Client,
    protocol::{Events, Reply, Request, VERSION},
};

/// Prints the last `lines` events that are about `services`, and with `follow` those to come.
pub(super) fn events(
    global: &Global,
    services: Vec<String>,
    lines: Option<usize>,
    follow: bool,
) -> Result<u8, Failure> {
    let failed = |error: crate::control::client::CallError| Failure::new(error.exit_status(), &error);
    let style = Style::choose(global.color);
    let mut client = Client::connect(&global.socket()).map_err(failed)?;
    let request = |after, follow| Request::Events { services: services.clone(), after, follow };
    let Reply::Events(mut past) = client.call(&request(None, false)).map_err(failed)? else {
        return Err(Failure::say(1, "motherd answered something else"));
    };
    let seen = past.events.last().map_or(0, |event| event.sequence);
    let skipped = lines.map_or(0, |lines| past.events.len().saturating_sub(lines));
    past.events.drain(..skipped);
    if !follow {
        if global.json {
            print_json(&json!({ "version": VERSION, "events": past.events, "lost": past.lost }))?;
        } else {
            print(&render::events(&past, style))?;
        }
        return Ok(0);
    }
    let mut stdout = Stdout;
    let mut show = |events: &Events| {
        stdout.print(&if global.json { lines_of(events) } else { render::events(events, style) })
    };
    show(&past)?;
    let mut failure = None;
    client
        .call_each(&request(Some(seen), true), |reply| {
            let Reply::Events(events) = reply else { return false };
            match show(&events) {
                Ok(reads) => reads,
                Err(error) => {
                    failure = Some(error);
                    false
                }
            }
        })
        .map_err(failed)?;
    failure.map_or(Ok(0), Err)
}

/// An object a line: whoever reads a stream need not wait for its end.
fn lines_of(events: &Events) -> String {
    let mut lines = String::new();
    if events.lost > 0 {
        lines.push_str(&format!("{}\n", json!({ "version": VERSION, "lost": events.lost })));
    }
    for event in &events.events {
        let mut value = json!(event);
        value["version"] = Value::from(VERSION);
        lines.push_str(&format!("{value}\n"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::samples::event;

    #[test]
    fn a_stream_in_json_is_an_object_a_line() {
        let events = Events { events: vec![event(), event()], lost: 4 };
        let lines: Vec<Value> =
            lines_of(&events).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            (&lines[0]["lost"], &lines[1]["service"], &lines[2]["version"]),
            (&json!(4), &json!("web"), &json!(1))
        );
    }
}
