//! `motherctl events`.

use super::{human::printable, style::Style};
use crate::control::protocol::{Event, EventKind, Events};

/// A line for each event.
pub(crate) fn events(events: &Events, style: Style) -> String {
    let width = events.events.iter().map(|event| name(event).chars().count()).max().unwrap_or(0).max(8);
    let mut text = String::new();
    if events.lost > 0 {
        text.push_str(&format!("({} events before this are no longer known)\n", events.lost));
    }
    for event in &events.events {
        let what = match (event.kind, &event.state) {
            (EventKind::Became, Some(state)) => printable(state),
            (EventKind::Became, None) => "changed".to_owned(),
            (EventKind::Asked, _) => "asked".to_owned(),
            (EventKind::Timer, _) => "timer".to_owned(),
            (EventKind::Socket, _) => "socket".to_owned(),
            (EventKind::Pressure, _) => "pressure".to_owned(),
            (EventKind::Manager, _) => "-".to_owned(),
        };
        let name = style.bold(&format!("{:width$}", name(event)));
        let words = printable(&event.words);
        text.push_str(&format!("{}  {name}  {what:8}  {words}\n", clock(&event.time)));
    }
    text
}

fn name(event: &Event) -> String {
    printable(event.service.as_deref().unwrap_or("motherd"))
}

/// `2026-11-22T23:50:01.000042Z` to milliseconds.
fn clock(time: &str) -> String {
    let time = printable(time);
    match time.get(..23) {
        Some(short) if time.ends_with('Z') => format!("{short}Z"),
        Some(_) | None => time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::samples::event;

    #[test]
    fn a_line_for_each_event_with_its_cause() {
        let relaunch = Event {
            kind: EventKind::Manager,
            service: None,
            state: None,
            words: "the one before was ended by SIGKILL".into(),
            ..event()
        };
        let events = Events { events: vec![event(), relaunch], lost: 2 };
        let expected = "\
(2 events before this are no longer known)
2026-11-22T23:50:01.000Z  web       running   started by uid 0 (pid 812)
2026-11-22T23:50:01.000Z  motherd   -         the one before was ended by SIGKILL
";
        assert_eq!(super::events(&events, Style::PLAIN), expected);
    }
}
