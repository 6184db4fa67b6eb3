//! What the end waits for, and what is to come.

use super::{
    Style,
    human::{duration, printable},
};
use crate::control::protocol::{Awaited, EndingStatus, Process, Scheduled};

/// `motherctl ending`.
pub(crate) fn ending(status: &EndingStatus, style: Style) -> String {
    let mut text = String::new();
    match (&status.how, status.remaining_usec) {
        (Some(how), Some(left)) => {
            text.push_str(&format!("{} in {} at the latest\n", how.name(), duration(left)));
        }
        (Some(how), None) => text.push_str(&format!("{}: everything has stopped\n", how.name())),
        (None, _) if status.awaited.is_empty() => text.push_str("nothing is being stopped\n"),
        (None, _) => {}
    }
    if let Some(plan) = &status.scheduled {
        text.push_str(&scheduled(Some(plan)));
    }
    for Awaited { service, doing, remaining_usec, processes } in &status.awaited {
        let left = remaining_usec.map(|usec| format!(" in {}", duration(usec))).unwrap_or_default();
        text.push_str(&format!("{}: {doing}{left}\n", style.bold(&printable(service))));
        for Process { pid, state, wchan, command, .. } in processes {
            let place = wchan.as_ref().map(|place| format!(", in {place}")).unwrap_or_default();
            text.push_str(&format!("    {pid} (state {state}{place}): {}\n", printable(command)));
        }
    }
    if !status.later.is_empty() {
        text.push_str(&format!("after that: {}\n", printable(&status.later.join(", "))));
    }
    text
}

/// `motherctl shutdown`.
pub(crate) fn scheduled(scheduled: Option<&Scheduled>) -> String {
    match scheduled {
        None => "nothing is to come\n".to_owned(),
        Some(Scheduled { how, at, in_usec, message }) => {
            let message =
                if message.is_empty() { String::new() } else { format!(": {}", printable(message)) };
            format!("{} at {at}, in {}{message}\n", how.name(), duration(*in_usec))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::samples;

    #[test]
    fn what_holds_the_end_up_is_shown_with_its_processes() {
        let expected = "\
power-off in 24.5s at the latest
stubborn: SIGTERM was sent, SIGKILL follows in 3.2s
    812 (state S, in do_wait): /bin/sh -c trap '' TERM; sleep 1000
    813 (state S): sleep 1000
nfs: not even SIGKILL ends it
    700 (state D, in rpc_wait_bit_killable): dd of=/srv/x
after that: loopback, local-mounts
";
        assert_eq!(ending(&samples::ending(), Style::PLAIN), expected);
    }

    #[test]
    fn where_nothing_ends_that_is_said() {
        let nothing =
            EndingStatus { how: None, remaining_usec: None, scheduled: None, awaited: vec![], later: vec![] };
        assert_eq!(ending(&nothing, Style::PLAIN), "nothing is being stopped\n");
        let planned = EndingStatus { scheduled: Some(samples::scheduled()), ..nothing };
        let expected = "nothing is being stopped\nreboot at 2026-11-28T03:00:00Z, in 5m: a new kernel\n";
        assert_eq!(ending(&planned, Style::PLAIN), expected);
        assert_eq!(scheduled(None), "nothing is to come\n");
    }
}
