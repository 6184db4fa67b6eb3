//! The documents of `docs/`, as the text of a manual page: Markdown to man(7).
//!
//! As much of Markdown as the documents use: headings, paragraphs, lists, tables, code, emphasis, links. A table becomes
//! a list of what its first column has, since a terminal is too narrow for the columns.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Lines;

/// The page's sections. The document's title is left out: a page has its name in its place.
pub(super) fn to_roff(text: &str) -> String {
    let mut roff = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ") {
            // As manual pages have them; the sections of a policy are written small.
            let is_key = heading.starts_with('[');
            let heading = if is_key { heading.to_owned() } else { heading.to_uppercase() };
            request(&mut roff, "SH", &inline(&heading));
        } else if let Some(heading) = line.strip_prefix("### ") {
            request(&mut roff, "SS", &inline(heading));
        } else if line.starts_with("```") {
            code(&mut roff, &mut lines);
        } else if line.starts_with('|') {
            table(&mut roff, line, &mut lines);
        } else if let Some(item) = line.strip_prefix("- ") {
            roff.push_str(".IP \\(bu 2\n");
            text_line(&mut roff, item);
            while let Some(more) = lines.next_if(|line| line.starts_with("  ")) {
                text_line(&mut roff, more.trim_start());
            }
        } else if !line.is_empty() && !line.starts_with("# ") {
            roff.push_str(".PP\n");
            text_line(&mut roff, line);
            while let Some(more) = lines.next_if(|line| goes_on(line)) {
                text_line(&mut roff, more);
            }
        }
    }
    roff
}

/// The section with this heading, down to the next one of its kind, with its heading.
pub(super) fn section<'t>(text: &'t str, heading: &str) -> Option<&'t str> {
    let start = text.find(&format!("\n## {heading}\n"))? + 1;
    let rest = &text[start..];
    let end = rest.find("\n## ").map_or(rest.len(), |end| end + 1);
    Some(&rest[..end])
}

/// Whether a line belongs to the paragraph before it.
fn goes_on(line: &str) -> bool {
    !line.is_empty() && !["#", "```", "|", "- "].iter().any(|start| line.starts_with(start))
}

fn request(roff: &mut String, name: &str, text: &str) {
    // Quotation marks would end the argument.
    let text = text.replace('"', "\\(dq");
    // A String takes everything that is written to it.
    writeln!(roff, ".{name} \"{text}\"").unwrap_or_default();
}

/// One line of text, which must not be taken for a request.
fn text_line(roff: &mut String, text: &str) {
    let text = inline(text);
    if text.starts_with(['.', '\'']) {
        roff.push_str("\\&");
    }
    roff.push_str(&text);
    roff.push('\n');
}

/// Up to the end of the block, as it stands.
fn code(roff: &mut String, lines: &mut Peekable<Lines<'_>>) {
    roff.push_str(".PP\n.RS 4\n.EX\n");
    for line in lines.take_while(|line| !line.starts_with("```")) {
        // Neither a request nor an empty line, which some readers warn of.
        roff.push_str("\\&");
        line.chars().for_each(|one| literal(roff, one));
        roff.push('\n');
    }
    roff.push_str(".EE\n.RE\n");
}

/// Columns of these names say what they are by themselves.
const PLAIN: [&str; 5] = ["", "value", "values", "meaning", "what"];

fn table(roff: &mut String, heading: &str, lines: &mut Peekable<Lines<'_>>) {
    let heading = cells(heading);
    while let Some(line) = lines.next_if(|line| line.starts_with('|')) {
        if line.starts_with("| ---") {
            continue;
        }
        let row = cells(line);
        let mut row = heading.iter().zip(&row);
        match row.next() {
            Some((_, tag)) if !tag.is_empty() => {
                roff.push_str(".TP\n");
                text_line(roff, tag);
            }
            // More of what the row before is about.
            _ => roff.push_str(".IP\n"),
        }
        let mut first = true;
        for (heading, cell) in row.filter(|(_, cell)| !cell.is_empty()) {
            if !first {
                roff.push_str(".br\n");
            }
            first = false;
            if PLAIN.contains(&heading.as_str()) {
                text_line(roff, cell);
            } else {
                text_line(roff, &format!("{heading}: {cell}"));
            }
        }
        if first {
            roff.push_str("\\&\n");
        }
    }
    roff.push_str(".PP\n");
}

/// What stands between the bars; `\|` is one that separates nothing.
fn cells(line: &str) -> Vec<String> {
    const BAR: &str = "\u{1}";
    let line = line.replace("\\|", BAR);
    let inner = line.trim().trim_start_matches('|');
    let inner = inner.strip_suffix('|').unwrap_or(inner);
    inner.split('|').map(|cell| cell.trim().replace(BAR, "|")).collect()
}

/// Text with code, emphasis and links in it.
fn inline(text: &str) -> String {
    let mut roff = String::new();
    let mut rest = text;
    let mut bold = false;
    while let Some(one) = rest.chars().next() {
        let after = &rest[one.len_utf8()..];
        if let Some((code, after)) = after.split_once('`').filter(|_| one == '`') {
            roff.push_str("\\fB");
            code.chars().for_each(|one| literal(&mut roff, one));
            roff.push_str(if bold { "\\fB" } else { "\\fR" });
            rest = after;
        } else if let Some(after) = rest.strip_prefix("**") {
            bold = !bold;
            roff.push_str(if bold { "\\fB" } else { "\\fR" });
            rest = after;
        } else if let Some((words, target, after)) = link(rest) {
            roff.push_str(&linked(words, target));
            rest = after;
        } else {
            prose(&mut roff, one);
            rest = after;
        }
    }
    roff
}

/// `[words](target)` at the beginning, and what follows it.
fn link(text: &str) -> Option<(&str, &str, &str)> {
    let (words, rest) = text.strip_prefix('[')?.split_once("](")?;
    let (target, rest) = rest.split_once(')')?;
    (!words.contains(['[', ']'])).then_some((words, target, rest))
}

/// The documents that are pages themselves.
const PAGES: [(&str, &str); 5] = [
    ("motherctl.md", "motherctl(1)"),
    ("services.md", "motherd.service(5)"),
    ("policy.md", "motherd.policy(5)"),
    ("boot.md", "motherd.boot(7)"),
    ("container.md", "motherd.container(7)"),
];

/// What is left of a link on paper: the page that it leads to, or its words.
fn linked(words: &str, target: &str) -> String {
    let file = target.split('#').next().unwrap_or_default();
    let page = PAGES.iter().find(|(name, _)| *name == file).map(|(_, page)| *page);
    match page {
        Some(page) if words == file => inline(page),
        Some(page) => format!("{} ({})", inline(words), inline(page)),
        None if file.is_empty() => format!("{} (below)", inline(words)),
        None if target.contains("decisions/") => format!("decision {}", inline(words)),
        None => inline(words),
    }
}

/// Lines that are drawn are drawn with what every terminal has.
fn prose(roff: &mut String, one: char) {
    match one {
        '\\' => roff.push_str("\\e"),
        '─' => roff.push_str("\\-"),
        '│' => roff.push('|'),
        '►' => roff.push('>'),
        _ if one.is_ascii() => roff.push(one),
        _ => write!(roff, "\\[u{:04X}]", u32::from(one)).unwrap_or_default(),
    }
}

/// In code each character is the one that is typed: these have another shape in prose.
fn literal(roff: &mut String, one: char) {
    match one {
        '-' => roff.push_str("\\-"),
        '\'' => roff.push_str("\\(aq"),
        '`' => roff.push_str("\\(ga"),
        '^' => roff.push_str("\\(ha"),
        '~' => roff.push_str("\\(ti"),
        _ => prose(roff, one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_in_paragraphs_under_headings() {
        let text =
            "# Title\n\nOne\n.two \\ three.\n\n## A \"part\"\n'four'\n### Less\n- item\n  goes on\n- next\n";
        assert_eq!(
            to_roff(text),
            ".PP\nOne\n\\&.two \\e three.\n.SH \"A \\(dqPART\\(dq\"\n.PP\n\\&'four'\n.SS \"Less\"\n\
             .IP \\(bu 2\nitem\ngoes on\n.IP \\(bu 2\nnext\n"
        );
    }

    #[test]
    fn code_stands_as_it_is_typed() {
        assert_eq!(
            to_roff("```sh\n.x --y 'z' \\n\n\n```\nafter\n"),
            ".PP\n.RS 4\n.EX\n\\&.x \\-\\-y \\(aqz\\(aq \\en\n\\&\n.EE\n.RE\n.PP\nafter\n"
        );
        assert_eq!(inline("`--a` **b `c` d** e-f **"), "\\fB\\-\\-a\\fR \\fBb \\fBc\\fB d\\fR e-f \\fB");
        assert_eq!(inline("a ` b"), "a ` b", "one that does not end");
    }

    #[test]
    fn a_row_of_a_table_is_an_entry() {
        let text =
            "| key | values | default |\n| --- | --- | --- |\n| `a` | x\\|y | 1 |\n| | z | |\n| `b` | | |\n";
        assert_eq!(to_roff(text), ".TP\n\\fBa\\fR\nx|y\n.br\ndefault: 1\n.IP\nz\n.TP\n\\fBb\\fR\n\\&\n.PP\n");
    }

    #[test]
    fn a_link_is_the_page_that_it_leads_to_or_its_words() {
        assert_eq!(inline("see [policy.md](policy.md)"), "see motherd.policy(5)");
        assert_eq!(inline("[signals](boot.md#signals) [x]"), "signals (motherd.boot(7)) [x]");
        assert_eq!(inline("([0014](decisions/0014-a.md))"), "(decision 0014)");
        assert_eq!(inline("[Varlink](https://varlink.example) \u{e9} \u{2500}"), "Varlink \\[u00E9] \\-");
        assert_eq!(inline("[so](#so)"), "so (below)");
    }

    #[test]
    fn a_section_ends_where_the_next_one_begins() {
        let text = "# T\n\n## One\na\n### Less\nb\n## Two\nc\n";
        assert_eq!(section(text, "One"), Some("## One\na\n### Less\nb\n"));
        assert_eq!(section(text, "Two"), Some("## Two\nc\n"));
        assert_eq!(section(text, "Three"), None);
    }
}
