//! `motherctl tree`: who pulls in whom, each under who names it.

use std::collections::{BTreeMap, BTreeSet};

use super::{human::printable, style::Style};
use crate::{control::protocol::TreeNode, service::Relation};

/// These at the left; where none is named, those that nobody has started. A service that was shown with what it names is
/// not shown with that again.
pub(crate) fn tree(nodes: &[TreeNode], named: &[String], style: Style) -> String {
    let by_name: BTreeMap<&str, &TreeNode> = nodes.iter().map(|node| (node.service.as_str(), node)).collect();
    let pulled: BTreeSet<&str> = nodes.iter().flat_map(pulls).map(|(_, name)| name).collect();
    let roots: Vec<&str> = if named.is_empty() {
        nodes.iter().map(|node| node.service.as_str()).filter(|name| !pulled.contains(name)).collect()
    } else {
        named.iter().map(String::as_str).collect()
    };
    let mut tree = Tree { by_name, shown: BTreeSet::new(), style, text: String::new() };
    for root in roots {
        tree.line("", "", root);
        tree.below("", root);
    }
    tree.text
}

/// What a service has started, and as what.
fn pulls(node: &TreeNode) -> impl Iterator<Item = (&str, &str)> {
    let starts = |key: &str| {
        Relation::ALL.into_iter().find(|relation| relation.key() == key).is_some_and(Relation::starts)
    };
    let pulls = node.edges.iter().filter(move |edge| starts(&edge.relation));
    pulls.map(|edge| (edge.relation.as_str(), edge.service.as_str()))
}

struct Tree<'n> {
    by_name: BTreeMap<&'n str, &'n TreeNode>,
    shown: BTreeSet<&'n str>,
    style: Style,
    text: String,
}

impl<'n> Tree<'n> {
    /// Ends: motherd has no graph with a cycle, and who is met again is not gone into.
    fn below(&mut self, prefix: &str, name: &'n str) {
        let Some(node) = self.by_name.get(name).copied() else { return };
        let found: Vec<(&str, &str)> = pulls(node).collect();
        if !self.shown.insert(&node.service) {
            if !found.is_empty() {
                self.text.push_str(&format!("{prefix}`- (as above)\n"));
            }
            return;
        }
        for (number, (relation, other)) in found.iter().enumerate() {
            let last = number + 1 == found.len();
            let branch = if last { "`- " } else { "|- " };
            self.line(&format!("{prefix}{branch}"), relation, other);
            self.below(&format!("{prefix}{}", if last { "   " } else { "|  " }), other);
        }
    }

    fn line(&mut self, prefix: &str, relation: &str, name: &str) {
        let relation = if relation.is_empty() { String::new() } else { format!("{relation} ") };
        let state = match self.by_name.get(name) {
            Some(node) => {
                let state = self.style.state(node.state, node.state.name());
                let sub = node.sub_state.as_ref().map(|sub| format!(" ({})", printable(sub)));
                let asked = if node.asked { ", asked for by name" } else { "" };
                format!("{state}{}{asked}", sub.unwrap_or_default())
            }
            None => self.style.warning("there is no such service"),
        };
        let name = self.style.bold(&printable(name));
        self.text.push_str(&format!("{prefix}{}{name}: {state}\n", printable(&relation)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{TreeEdge, samples};

    #[test]
    fn whoever_is_started_stands_under_who_has_it_started() {
        let expected = "\
backup: stopped
system: done, asked for by name
|- wants mail: waiting (blocked)
|  |- needs db: running
|  `- wants nobody: there is no such service
`- wants web: running
   `- needs db: running
";
        assert_eq!(super::tree(&samples::tree(), &[], Style::PLAIN), expected);
        let one = "web: running\n`- needs db: running\n";
        assert_eq!(super::tree(&samples::tree(), &["web".to_owned()], Style::PLAIN), one);
    }

    #[test]
    fn what_was_shown_is_not_shown_again() {
        let needs = |service: &str| TreeEdge { relation: "needs".into(), service: service.into() };
        let mut nodes = samples::tree();
        nodes[3].edges.push(needs("late"));
        let late = TreeNode { service: "late".into(), edges: vec![needs("mail")], ..nodes[1].clone() };
        nodes.push(late);
        let text = super::tree(&nodes, &["system".to_owned()], Style::PLAIN);
        let end = "`- needs late: running\n   `- needs mail: waiting (blocked)\n      `- (as above)\n";
        assert!(text.ends_with(end), "{text}");
    }
}
