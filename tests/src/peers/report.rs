//! What a guest says of itself, a line at a time.

use std::collections::BTreeMap;

/// The last line.
pub const END: &str = "peers-end";
/// From here on a contender's manager is being made to crash, and the machine may end.
pub const FAULT: &str = "peers-fault";
/// Begins a line with a name and its figures.
const FIGURE: &str = "peers-figure";
/// Begins a line with a name and words.
const NOTE: &str = "peers-note";

/// Everything that one boot told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// By name.
    pub figures: BTreeMap<String, Vec<f64>>,
    /// By name.
    pub notes: BTreeMap<String, String>,
    /// It began to make the manager crash.
    pub faulted: bool,
    /// It came to its end.
    pub ended: bool,
}

/// A line for figures.
#[must_use]
pub fn figures(name: &str, values: &[f64]) -> String {
    let values: Vec<String> = values.iter().map(|value| format!("{value:.4}")).collect();
    format!("{FIGURE} {} {}", name.replace(' ', "_"), values.join(" "))
}

/// A line for words.
#[must_use]
pub fn note(name: &str, words: &str) -> String {
    format!("{NOTE} {name} {}", words.replace('\n', " / "))
}

impl Report {
    /// Reads the lines; others are passed over.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut report = Self::default();
        for line in text.lines().map(str::trim) {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            match kind {
                FIGURE => {
                    let values = rest.split(' ').filter_map(|value| value.parse().ok()).collect();
                    report.figures.insert(name.replace('_', " "), values);
                }
                NOTE => {
                    report.notes.insert(name.to_owned(), rest.to_owned());
                }
                FAULT => report.faulted = true,
                END => report.ended = true,
                _ => {}
            }
        }
        report
    }

    /// The median of a figure's values.
    #[must_use]
    pub fn median(&self, name: &str) -> Option<f64> {
        median(self.figures.get(name)?)
    }
}

/// The middle one, or the mean of the middle two.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(upper, *sorted.get(sorted.len() / 2 - 1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_noise_is_not() {
        let text = [
            figures("list of all", &[3.0, 1.0, 2.0]),
            "[    1.0] noise".to_owned(),
            note("fault", "frozen\nfor good"),
            FAULT.to_owned(),
        ]
        .join("\r\n");
        let report = Report::read(&text);
        assert_eq!(report.median("list of all"), Some(2.0));
        assert_eq!(report.notes["fault"], "frozen / for good");
        assert!(report.faulted && !report.ended);
    }

    #[test]
    fn a_median_of_two_lies_between_them_and_of_none_is_none() {
        assert_eq!(median(&[4.0, 2.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }
}
