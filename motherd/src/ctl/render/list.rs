//! `motherctl list`.

use super::{
    human::{duration, printable},
    style::Style,
};
use crate::control::protocol::ServiceSummary;

/// A line for each service, in columns as wide as they must be.
pub(crate) fn list(services: &[ServiceSummary], style: Style) -> String {
    let rows: Vec<[String; 5]> = services
        .iter()
        .map(|service| {
            let state = match &service.sub_state {
                Some(sub_state) => format!("{} ({})", service.state.name(), printable(sub_state)),
                None => service.state.name().into(),
            };
            let pid = service.main_pid.map_or("-".into(), |pid| pid.to_string());
            let since = service.uptime_usec.map_or("-".into(), duration);
            let boot = service.boot.as_ref().map_or("-".into(), |boot| printable(boot));
            [printable(&service.name), state, pid, since, boot]
        })
        .collect();
    let header = ["SERVICE", "STATE", "PID", "FOR", "BOOT"];
    let widths: Vec<usize> = (0..5)
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(header[column].len())
        })
        .collect();
    let pad = |cell: &str, column: usize| format!("{cell:width$}", width = widths[column]);

    let mut heading: Vec<String> = (0..5).map(|column| pad(header[column], column)).collect();
    heading.push("DESCRIPTION".into());
    let mut text = style.bold(&heading.join("  ")) + "\n";
    for (row, service) in rows.iter().zip(services) {
        let cells = [
            style.bold(&pad(&row[0], 0)),
            style.state(service.state, &pad(&row[1], 1)),
            pad(&row[2], 2),
            pad(&row[3], 3),
            pad(&row[4], 4),
            printable(&service.description),
        ];
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::samples::{stopped, summary, web};

    #[test]
    fn columns_are_aligned() {
        let expected = "\
SERVICE  STATE              PID   FOR    BOOT     DESCRIPTION
web      running (failing)  1234  1d 2h  enabled  static web server
backup   stopped            -     -      -        nightly copy
";
        assert_eq!(list(&[summary(&web()), summary(&stopped())], Style::PLAIN), expected);
    }

    #[test]
    fn no_service_is_a_header_alone() {
        assert_eq!(list(&[], Style::PLAIN), "SERVICE  STATE  PID  FOR  BOOT  DESCRIPTION\n");
    }

    #[test]
    fn colour_changes_no_column() {
        let services = [summary(&web()), summary(&stopped())];
        let coloured = list(&services, Style::COLOURED);
        let mut plain = String::new();
        for part in coloured.split('\u{1b}') {
            plain.push_str(
                part.split_once('m').filter(|(code, _)| code.starts_with('[')).map_or(part, |p| p.1),
            );
        }
        assert_ne!(coloured, plain);
        assert_eq!(plain, list(&services, Style::PLAIN));
    }
}
