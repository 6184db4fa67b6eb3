//! Replies as text for people. Pure: a reply and a [`Style`] in, a text out; the tests compare whole screens.

mod ending;
mod events;
mod fdstore;
mod human;
mod list;
mod plan;
mod status;
mod style;
mod timers;
mod tree;
mod why;

pub(crate) use self::{
    ending::{ending, scheduled},
    events::events,
    fdstore::fdstore,
    human::{plural, printable},
    list::list,
    plan::plan,
    status::status,
    style::Style,
    timers::timers,
    tree::tree,
    why::why,
};

use crate::control::protocol::{Acted, LeftOut};

/// What an action came to, a line for each service.
pub(crate) fn acted(services: &[Acted], style: Style) -> String {
    let mut text = String::new();
    for Acted { service, state, changed, main_pid } in services {
        let state_text = style.state(*state, state.name());
        let already = if *changed { "" } else { " already" };
        let pid = main_pid.map(|pid| format!(", main pid {pid}")).unwrap_or_default();
        text.push_str(&format!("{}:{already} {state_text}{pid}\n", printable(service)));
    }
    text
}

/// What is left out, what has one reason together: `cgroup memory.high, cgroup memory.max (no memory controller)`.
pub(crate) fn by_reason(left: &[LeftOut]) -> Vec<String> {
    let mut reasons: Vec<(Vec<&str>, &str)> = Vec::new();
    for LeftOut { what, why } in left {
        match reasons.iter_mut().find(|(_, known)| known == why) {
            Some((whats, _)) => whats.push(what),
            None => reasons.push((vec![what], why)),
        }
    }
    reasons.iter().map(|(whats, why)| printable(&format!("{} ({why})", whats.join(", ")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::State;

    #[test]
    fn an_action_says_what_came_of_it() {
        let acted = |service: &str, state, changed, main_pid| Acted {
            service: service.into(),
            state,
            changed,
            main_pid,
        };
        let services =
            [acted("web", State::Running, true, Some(12)), acted("backup", State::Stopped, false, None)];
        let expected = "web: running, main pid 12\nbackup: already stopped\n";
        assert_eq!(super::acted(&services, Style::PLAIN), expected);
    }
}
