//! The commands that motherd does: a request each, and its reply on the screen.

use serde_json::{Value, json};

use super::{
    args::Global,
    failure::Failure,
    output::{Output, Stdout, print_json},
    render::{self, Style},
    upgrade,
};
use crate::control::{
    client::{CallError, Client},
    protocol::{Acted, How, Reply, Request, RequestError, VERSION},
};

/// The exit status where nobody answers.
pub(super) const NOT_REACHABLE: u8 = 6;

/// The exit status of `status` where a service that was asked about by name is not up.
const NOT_UP: u8 = 3;

/// Asks motherd, prints what it answers, and returns the exit status.
pub(super) fn ask(global: &Global, request: &Request) -> Result<u8, Failure> {
    let output = Output { json: global.json, style: Style::choose(global.color) };
    if let (Request::Status { services, .. }, false) = (request, global.json) {
        return status(global, services, output);
    }
    let answer = Client::connect(&global.socket()).and_then(|mut client| client.call(request));
    match answer {
        Ok(reply) => {
            output.print(&reply, request)?;
            Ok(exit_status(&reply, request))
        }
        Err(CallError::Refused(RequestError::Failed { failures, done })) => {
            output.acted(&done)?;
            Err(Failure::new(1, &RequestError::Failed { failures, done: Vec::new() }))
        }
        Err(error) => Err(Failure::new(error.exit_status(), &error)),
    }
}

/// Prints what motherd says of each service while it looks at the next.
fn status(global: &Global, named: &[String], output: Output) -> Result<u8, Failure> {
    /// So much is printed at once.
    const PART_BYTES: usize = 64 << 10;
    let mut text = String::new();
    if named.is_empty() {
        // A manager that is not as it should be is what one looks for here. One that ends just now is missed below.
        let notice = upgrade::manager(&global.socket()).map(|manager| upgrade::notice(&manager));
        text.push_str(&notice.unwrap_or_default());
    }
    let (mut services, mut all_up, mut printed) = (0_u64, true, Ok(true));
    let answer = Client::status(&global.socket(), named, |service| {
        if services > 0 {
            text.push('\n');
        }
        services += 1;
        all_up &= service.state.is_up();
        render::status(&service, output.style, &mut text);
        // Who has seen enough is told nothing more.
        if text.len() >= PART_BYTES {
            if let Ok(true) = printed {
                printed = Stdout.print(&text);
            }
            text.clear();
        }
    });
    if let Err(error) = answer {
        return Err(Failure::new(error.exit_status(), &error));
    }
    if services == 0 {
        text.push_str("no services\n");
    }
    if printed? {
        output.text(&text)?;
    }
    // Where it was asked about by name.
    Ok(if named.is_empty() || all_up { 0 } else { NOT_UP })
}

/// 3 where a service that was asked about by name is not up.
fn exit_status(reply: &Reply, request: &Request) -> u8 {
    match (reply, request) {
        (Reply::Status(services), Request::Status { services: named, .. }) if !named.is_empty() => {
            if services.iter().all(|service| service.state.is_up()) { 0 } else { NOT_UP }
        }
        (Reply::Configured(plan), _) => u8::from(!plan.errors.is_empty()),
        _ => 0,
    }
}

impl Output {
    fn print(self, reply: &Reply, request: &Request) -> Result<(), Failure> {
        if self.json {
            return print_json(&as_json(reply));
        }
        match reply {
            Reply::List(services) => self.text(&render::list(services, self.style)),
            Reply::Acted(services) => self.text(&render::acted(services, self.style)),
            Reply::Configured(plan) => self.text(&render::plan(plan)),
            Reply::FdStore(store) => self.text(&render::fdstore(store, self.style)),
            // Asked for where the answer is only a part of what is printed, or is printed while it comes.
            Reply::Manager(_) | Reply::Upgraded(_) | Reply::Status(_) => print_json(&as_json(reply)),
            Reply::Tree(nodes) if nodes.is_empty() => self.text("no services\n"),
            Reply::Tree(nodes) => {
                let named: &[String] = if let Request::Tree { services } = request { services } else { &[] };
                self.text(&render::tree(nodes, named, self.style))
            }
            Reply::Why(why) => self.text(&render::why(why, self.style)),
            Reply::Timers(timers) => self.text(&render::timers(timers, self.style)),
            Reply::Events(events) => self.text(&render::events(events, self.style)),
            Reply::Scheduled(scheduled) => self.text(&render::scheduled(scheduled.as_ref())),
            Reply::Awaited(status) => self.text(&render::ending(status, self.style)),
            Reply::Ending => self.text(&format!("{}\n", ending(request))),
            Reply::Error(error) => Err(Failure::new(error.exit_status(), error)),
        }
    }

    /// What was done before something else failed.
    fn acted(self, done: &[Acted]) -> Result<(), Failure> {
        if self.json {
            print_json(&as_json(&Reply::Acted(done.to_vec())))
        } else {
            self.text(&render::acted(done, self.style))
        }
    }
}

/// What `--json` prints: the reply's parameters as they are on the wire.
fn as_json(reply: &Reply) -> Value {
    reply.encode().get_mut("parameters").map_or_else(|| json!({ "version": VERSION }), Value::take)
}

fn ending(request: &Request) -> &'static str {
    let Request::End { how, .. } = request else { return "ending" };
    match how {
        How::Poweroff => "powering off",
        How::Reboot => "rebooting",
        How::Halt => "halting",
        How::Kexec => "starting the loaded kernel",
        How::SoftReboot => "starting user space anew",
        How::Exit => "ending",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{
        ServiceStatus,
        samples::{stopped, web},
    };

    fn status_of(services: Vec<ServiceStatus>, named: &[&str]) -> u8 {
        let services_named = named.iter().map(|name| (*name).to_owned()).collect();
        exit_status(&Reply::Status(services), &Request::Status { services: services_named, brief: false })
    }

    #[test]
    fn a_named_service_that_is_not_up_is_exit_status_3() {
        assert_eq!(status_of(vec![web()], &["web"]), 0);
        assert_eq!(status_of(vec![web(), stopped()], &["web", "backup"]), 3);
        assert_eq!(status_of(vec![web(), stopped()], &[]), 0, "nobody asked for it by name");
    }

    #[test]
    fn json_is_versioned_and_the_wires() {
        let value = as_json(&Reply::Status(vec![stopped()]));
        assert_eq!(value["version"], 1);
        assert_eq!(value["services"][0]["state"], "stopped");
        assert_eq!(as_json(&Reply::Ending), json!({ "version": 1 }));
    }
}
