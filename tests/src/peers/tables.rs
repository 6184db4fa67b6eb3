//! The reports of a run as tables in Markdown, for `docs/comparison.md`. Times by the floor's, in the same run.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::contender::Contender;
use super::report::{Report, median};

/// Every boot of a run, by who and how many services.
#[derive(Debug, Default)]
pub struct Results(BTreeMap<(Contender, usize), Vec<Report>>);

/// A figure of a report: its name there, and what stands above its column.
type Column = (&'static str, &'static str);

impl Results {
    /// One more boot.
    pub fn add(&mut self, contender: Contender, services: usize, report: Report) {
        self.0.entry((contender, services)).or_default().push(report);
    }

    /// The median of all values of a figure over the rounds.
    fn figure(&self, contender: Contender, services: usize, name: &str) -> Option<f64> {
        let reports = self.0.get(&(contender, services))?;
        let values: Vec<f64> =
            reports.iter().filter_map(|report| report.figures.get(name)).flatten().copied().collect();
        median(&values)
    }

    /// Who was booted with so many services.
    fn contenders(&self, services: usize) -> Vec<Contender> {
        self.0.keys().filter(|(_, count)| *count == services).map(|(contender, _)| *contender).collect()
    }

    fn counts(&self) -> Vec<usize> {
        let mut counts: Vec<usize> = self.0.keys().map(|(_, count)| *count).collect();
        counts.sort_unstable();
        counts.dedup();
        counts
    }

    /// All tables for which there is something.
    #[must_use]
    pub fn tables(&self) -> String {
        let mut text = String::new();
        for services in self.counts() {
            self.boots(&mut text, services);
        }
        for services in self.counts() {
            let has = |name| {
                self.contenders(services).iter().any(|who| self.figure(*who, services, name).is_some())
            };
            let mut table = |title: &str, columns: &[Column], floor: Option<&str>| {
                if columns.iter().any(|(name, _)| has(name)) {
                    self.table(&mut text, &format!("{title}, {services} services"), services, columns, floor);
                }
            };
            table("Memory without the services, kB", &MEMORY, None);
            table("Restart after kill -9, ms", &RESTART, Some("restart"));
            table("Reaping orphans, CPU in us each", &ORPHANS, Some("orphan of PID 1"));
            table("Idle", &IDLE, None);
            table("Asking, ms from fork to end of the client", &ASKING, None);
            self.crashes(&mut text, services);
        }
        text
    }

    /// From PID 1's exec to the last service.
    fn boots(&self, text: &mut String, services: usize) {
        let mut rows: Vec<(f64, Contender)> = self
            .contenders(services)
            .into_iter()
            .filter_map(|who| Some((self.figure(who, services, "last")?, who)))
            .collect();
        if rows.is_empty() {
            return;
        }
        rows.sort_by(|one, other| one.0.total_cmp(&other.0));
        line(text, &format!("\n### From PID 1's exec to the last of {services} services\n"));
        line(
            text,
            "| | first, ms | last, ms | by the floor's | by the sandboxed floor's | CPU of PID 1, ms | of the whole init system, ms | of the services, their confinement among it, ms | of all, ms |",
        );
        line(text, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        for (last, who) in rows {
            let by = |floor| ratio(Some(last), self.figure(floor, services, "last"));
            let sandboxed = if who.is_sandboxed() { by(Contender::FloorSandboxed) } else { String::new() };
            let of = |name| number(self.figure(who, services, name));
            let (first, pid1, cpu) = (of("first"), of("cpu of PID 1 to boot"), of("cpu to boot"));
            let (services_cpu, busy) = (of("cpu of services to boot"), of("busy to boot"));
            let (name, by_floor) = (who.name(), by(Contender::Floor));
            line(
                text,
                &format!(
                    "| {name} | {first} | {last:.0} | {by_floor} | {sandboxed} | {pid1} | {cpu} | {services_cpu} | {busy} |"
                ),
            );
        }
    }

    fn table(
        &self,
        text: &mut String,
        title: &str,
        services: usize,
        columns: &[Column],
        ratio_of: Option<&str>,
    ) {
        line(text, &format!("\n### {title}\n"));
        let mut head = String::from("|");
        let mut rule = String::from("| ---");
        for (_, above) in columns {
            write!(head, " | {above}").unwrap_or_default();
            rule.push_str(" | ---:");
        }
        if ratio_of.is_some() {
            head.push_str(" | by the floor's");
            rule.push_str(" | ---:");
        }
        line(text, &format!("{head} |"));
        line(text, &format!("{rule} |"));
        for who in self.contenders(services) {
            let figures: Vec<Option<f64>> =
                columns.iter().map(|(name, _)| self.figure(who, services, name)).collect();
            if figures.iter().all(Option::is_none) {
                continue;
            }
            let mut row = format!("| {}", who.name());
            for figure in figures {
                write!(row, " | {}", number(figure)).unwrap_or_default();
            }
            if let Some(name) = ratio_of {
                let floor = if who.is_sandboxed() { Contender::FloorSandboxed } else { Contender::Floor };
                let by = ratio(self.figure(who, services, name), self.figure(floor, services, name));
                write!(row, " | {by}").unwrap_or_default();
            }
            line(text, &format!("{row} |"));
        }
    }

    fn crashes(&self, text: &mut String, services: usize) {
        let mut rows = Vec::new();
        for who in self.contenders(services) {
            let Some(report) = self.0[&(who, services)].iter().find(|report| report.faulted) else {
                continue;
            };
            let kept = match report.figures.get("kept of").map(Vec::as_slice) {
                Some([kept, of]) => format!("{kept:.0} of {of:.0}"),
                _ => "none".to_owned(),
            };
            let after = report.notes.get("restarted-after-it").map_or("unknown", String::as_str);
            rows.push(format!("| {} | {kept} | {after} |", who.name()));
        }
        if !rows.is_empty() {
            line(text, &format!("\n### A real fault in the manager, {services} services\n"));
            line(
                text,
                "| | services that run on as they were | one that is killed afterwards is restarted |",
            );
            line(text, "| --- | --- | --- |");
            rows.iter().for_each(|row| line(text, row));
        }
    }
}

const MEMORY: [Column; 5] = [
    ("processes", "processes"),
    ("pss", "PSS"),
    ("anonymous", "of it anonymous"),
    ("pss of PID 1", "PSS of PID 1"),
    ("kernel", "slab, stacks and page tables of the whole machine"),
];
const RESTART: [Column; 2] = [("restart", "median"), ("never back", "never back within 4 s, of 25")];
const ORPHANS: [Column; 4] = [
    ("orphan of PID 1", "PID 1"),
    ("orphan of all", "the whole init system"),
    ("storm", "the storm itself, ms"),
    ("zombies left", "zombies left"),
];
const IDLE: [Column; 2] = [("switches", "context switches"), ("idle seconds", "in seconds")];
const ASKING: [Column; 4] = [
    ("ask busybox ps", "`busybox ps`"),
    ("ask list", "list"),
    ("ask status of one", "status of one"),
    ("ask status of all", "status of all"),
];

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value == 0.0 || value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.1}"),
    }
}

fn ratio(value: Option<f64>, floor: Option<f64>) -> String {
    match (value, floor) {
        (Some(value), Some(floor)) if floor > 0.0 => format!("{:.2}", value / floor),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::report::figures;

    #[test]
    fn each_is_compared_with_its_own_floor_in_the_same_run() {
        let mut results = Results::default();
        for (who, last) in [
            (Contender::Floor, 100.0),
            (Contender::FloorSandboxed, 400.0),
            (Contender::MotherDSandboxed, 500.0),
        ] {
            let text =
                [figures("first", &[1.0]), figures("last", &[last]), figures("restart", &[last])].join("\n");
            results.add(who, 50, Report::read(&text));
        }
        let tables = results.tables();
        assert!(tables.contains("| motherd-sbx | 1.0 | 500 | 5.00 | 1.25 |  |  |"), "{tables}");
        assert!(tables.contains("| motherd-sbx | 500 |  | 1.25 |"), "{tables}");
        assert!(!tables.contains("orphans"), "what was not measured has no table: {tables}");
    }
}
