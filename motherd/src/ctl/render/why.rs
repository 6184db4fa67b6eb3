//! `motherctl why`: what a service is, who has it so, what holds it back, each reason under what follows from it.

use super::{
    events,
    human::{duration, printable},
    status::{Page, last_exit, why as cause},
    style::Style,
};
use crate::control::protocol::{Coming, Events, Goal, Hindrance, Root, Why};

/// One block.
pub(crate) fn why(why: &Why, style: Style) -> String {
    let mut state = style.state(why.state, why.state.name());
    if let Some(sub_state) = &why.sub_state {
        state.push_str(&format!(" ({})", style.warning(&printable(sub_state))));
    }
    if let Some(uptime) = why.uptime_usec {
        state.push_str(&format!(" for {}", duration(uptime)));
    }
    let mut page = Page::new(format!("{}: {state}\n", style.bold(&printable(&why.service))), style);
    page.line("why", &cause(&why.cause));
    let because = if why.goal_cause.words == why.cause.words {
        String::new()
    } else {
        format!(": {}", cause(&why.goal_cause))
    };
    match why.goal {
        // Who asked for it says more.
        Goal::Up if !why.roots.is_empty() => {}
        Goal::Up => page.line("meant", &format!("to be up{because}")),
        Goal::Down => page.line("meant", &format!("to be down{because}")),
        Goal::Again => page.line("meant", &format!("to go down and come up again{because}")),
    }
    for (number, root) in why.roots.iter().enumerate() {
        page.line(if number == 0 { "asked for" } else { "" }, &asked(root));
    }
    if why.more_roots > 0 {
        page.line("", &format!("and {} more", why.more_roots));
    }
    for (number, found) in why.hindrances.iter().enumerate() {
        hindrance(&mut page, if number == 0 { "held by" } else { "" }, found, 0);
    }
    if let Some(next) = &why.coming {
        page.line("next", &coming(next));
    }
    if why.restarts > 0 {
        page.line("restarts", &why.restarts.to_string());
    }
    if let Some(exit) = &why.last_exit {
        let ago = match why.last_exit_ago_usec {
            Some(0) => ", just now".to_owned(),
            Some(ago) => format!(", {} ago", duration(ago)),
            None => String::new(),
        };
        page.line("last exit", &format!("{}{ago}", last_exit(exit)));
    }
    for (number, unknown) in why.unknown.iter().enumerate() {
        page.warning(if number == 0 { "not known" } else { "" }, &printable(unknown));
    }
    let mut text = page.text;
    if !why.events.is_empty() {
        text.push('\n');
        text.push_str(&events(&Events { events: why.events.clone(), lost: 0 }, style));
    }
    text
}

/// `system wants shop, which needs it (boot: system, 2026-11-22T23:50:01Z)`
fn asked(root: &Root) -> String {
    let by = cause(&root.cause);
    let time = match root.time.as_deref().and_then(|time| time.get(..19)) {
        Some(time) => format!(", {}Z", printable(time)),
        None => String::new(),
    };
    let Some((first, rest)) = root.over.split_last() else {
        return format!("itself: {by}{time}");
    };
    let mut text = format!("{} ", printable(&first.by));
    let mut relation = first.relation.as_str();
    for pull in rest.iter().rev() {
        text.push_str(&format!("{} {}, which ", verb(relation), printable(&pull.by)));
        relation = &pull.relation;
    }
    format!("{text}{} it: {by}{time}", verb(relation))
}

/// How a key of `[dependencies]` is said; one that is not known here as it stands.
fn verb(key: &str) -> String {
    let known = crate::service::Relation::ALL.into_iter().find(|relation| relation.key() == key);
    known.map_or_else(|| printable(key), |relation| relation.verb().to_owned())
}

/// A reason, and under it those that it has.
fn hindrance(page: &mut Page, label: &str, found: &Hindrance, depth: usize) {
    let mut text = "  ".repeat(depth) + &printable(&found.words);
    if let Some(next) = &found.coming {
        text.push_str(&format!("; {}", coming(next)));
    }
    page.line(label, &text);
    for because in &found.because {
        hindrance(page, "", because, depth + 1);
    }
}

fn coming(Coming { words, in_usec }: &Coming) -> String {
    format!("{} in {}", printable(words), duration(*in_usec))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::samples;

    #[test]
    fn a_reason_stands_under_what_follows_from_it() {
        let expected = "\
web: waiting (blocked) for 1m 1s
  why        wanted by system
  asked for  system wants shop, which needs it: boot: system, 2026-11-22T23:50:01Z
             and 2 more
  held by    it needs db, which is waiting for a condition
               nobody listens on tcp:127.0.0.1:5432; others go on without it in 4.2s
  next       it is tried again in 500ms
  restarts   3
  last exit  exited with status 1, 1m 2s ago
  not known  who asked for it

2026-11-22T23:50:01.000Z  web       running   started by uid 0 (pid 812)
";
        let found = super::why(&samples::why(), Style::PLAIN);
        assert_eq!(found, expected, "\n{found}");
    }
}
