//! Drawings as text that other programs lay out: Mermaid and Graphviz's DOT.

use super::{Drawing, Join, NodeKind};
use std::fmt::Write;

/// Mermaid, as pages in Markdown have it. Nodes have numbers, since some words cannot be names there.
pub(super) fn mermaid(drawing: &Drawing) -> String {
    let mut out = "graph LR\n".to_owned();
    for (index, node) in drawing.nodes.iter().enumerate() {
        let (open, close) = match node.kind {
            NodeKind::Host => ("[", "]"),
            NodeKind::Switch => ("[[", "]]"),
            NodeKind::Router => ("((", "))"),
            NodeKind::Remote => ("([", "])"),
        };
        // Writing to a string cannot fail.
        _ = writeln!(out, "  n{index}{open}\"{}\"{close}", node.name);
    }
    for edge in &drawing.links {
        let [a, b] = edge.ends;
        let line = match edge.kind {
            Join::Host => "---",
            Join::Trunk => "===",
            Join::Tunnel => "-.-",
        };
        let label = if edge.label.is_empty() { String::new() } else { format!("|\"{}\"|", edge.label) };
        _ = writeln!(out, "  n{a} {line}{label} n{b}");
    }
    out
}

/// Graphviz's DOT.
pub(super) fn dot(drawing: &Drawing) -> String {
    let mut out =
        format!("graph \"{}\" {{\n  node [fontname=\"sans-serif\"]\n  edge [fontname=\"sans-serif\"]\n", drawing.lab);
    for node in &drawing.nodes {
        let shape = match node.kind {
            NodeKind::Host => "ellipse",
            NodeKind::Switch => "box",
            NodeKind::Router => "octagon",
            NodeKind::Remote => "house",
        };
        _ = writeln!(out, "  \"{}\" [shape={shape}]", node.name);
    }
    for edge in &drawing.links {
        let style = match edge.kind {
            Join::Host => "solid",
            Join::Trunk => "bold",
            Join::Tunnel => "dashed",
        };
        let [a, b] = &edge.names;
        _ = writeln!(out, "  \"{a}\" -- \"{b}\" [label=\"{}\", style={style}]", edge.label);
    }
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::office;
    use super::*;

    #[test]
    fn every_node_and_link_is_there_once() {
        assert_eq!(
            mermaid(&office()),
            "graph LR\n  n0[\"h1\"]\n  n1[[\"s1\"]]\n  n2[\"h2\"]\n  n3[[\"s2\"]]\n  n4[\"web\"]\n  n5((\"r1\"))\n  \
             n0 ---|\"blue\"| n1\n  n2 ---|\"blue\"| n3\n  n4 ---|\"green\"| n3\n  n5 ===|\"blue,green\"| n1\n  \
             n1 ===|\"wan 20/60ms\"| n3\n"
        );
        let dot = dot(&office());
        assert!(dot.starts_with("graph \"office\" {\n") && dot.ends_with("}\n"), "{dot}");
        assert!(dot.contains("\n  \"s1\" -- \"s2\" [label=\"wan 20/60ms\", style=bold]\n"), "{dot}");
    }
}
