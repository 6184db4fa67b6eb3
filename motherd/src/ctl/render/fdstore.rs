//! `motherctl fdstore`.

use super::{human::printable, style::Style};
use crate::control::protocol::FdStore;

/// A line for each slot, and how full the store is.
pub(crate) fn fdstore(store: &FdStore, style: Style) -> String {
    let mut rows = vec![["SERVICE", "KIND", "NAME", "FD", "FILE", "WHICH"].map(str::to_owned)];
    for slot in &store.slots {
        let or_none = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), printable);
        // What is of no known kind says what it is by its slot.
        let name = if slot.kind == "other" { printable(&slot.slot) } else { or_none(&slot.name) };
        rows.push([
            or_none(&slot.service),
            printable(&slot.kind),
            name,
            slot.number.to_string(),
            printable(&slot.file),
            printable(&slot.about),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let line = cells.join("  ").trim_end().to_owned();
        text.push_str(&if number == 0 { style.bold(&line) } else { line });
        text.push('\n');
    }
    text.push_str(&format!("{} of {} slots in use\n", store.used, store.capacity));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::samples::fd_store;

    #[test]
    fn a_line_for_each_slot() {
        let expected = "\
SERVICE  KIND     NAME   FD  FILE    WHICH
-        control  -      9   socket  unix stream /run/motherd/motherd.sock, listening
web      process  -      12  pidfd   process 1234
web      pushed   spool  14  memfd   spool, 4096 bytes
3 of 4096 slots in use
";
        assert_eq!(fdstore(&fd_store(), Style::PLAIN), expected);
    }
}
