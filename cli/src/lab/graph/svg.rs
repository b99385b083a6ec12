//! Drawings for a browser: one file that needs nothing else, in the colours of a light or a dark page.
//!
//! Nodes lie in layers by how far they are from the nearest host, hosts at the bottom. Within a layer they are ordered by
//! where their neighbours are, which keeps most lines from crossing.

use super::{Drawing, Join, Node, NodeKind};
use crate::xml::escape;
use std::collections::VecDeque;
use std::fmt::Write;

/// Distances in pixels.
const LAYER: f64 = 130.0;
const GAP: f64 = 28.0;
const MARGIN: f64 = 30.0;
const HEIGHT: f64 = 40.0;
/// Width of a letter of a node's name, and of what is smaller.
const LETTER: f64 = 9.0;
const SMALL_LETTER: f64 = 6.6;
const LEAST_WIDTH: f64 = 64.0;
/// How often the order within layers is improved.
const SWEEPS: usize = 8;
/// Where on their lines labels may be.
const PLACES: [f64; 3] = [0.5, 0.35, 0.65];

const STYLE: &str = "\
svg { --paper: #fff; --ink: #1c2128; --soft: #59636e; --line: #8b949e; --host: #ddf4ff; --switch: #dafbe1; --router: #fff1d6; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #0d1117; --ink: #e6edf3; --soft: #9198a1; --line: #6e7681; --host: #0c2d4a; --switch: #12331d; --router: #4a3207; }
}
.paper { fill: var(--paper); }
text { font-family: ui-sans-serif, system-ui, sans-serif; fill: var(--ink); text-anchor: middle; }
.name { font-size: 15px; font-weight: 600; }
.small { font-size: 11px; fill: var(--soft); }
.label { font-size: 11px; fill: var(--ink); stroke: var(--paper); stroke-width: 4px; paint-order: stroke; }
.node { stroke: var(--line); stroke-width: 1.5px; }
.host { fill: var(--host); } .switch { fill: var(--switch); } .router { fill: var(--router); } .remote { fill: var(--paper); }
.link { stroke: var(--line); stroke-width: 1.5px; fill: none; }
.trunk { stroke-width: 3.5px; } .tunnel { stroke-dasharray: 6 5; }";

pub(super) fn draw(drawing: &Drawing) -> String {
    let layers = order(drawing, layers(drawing));
    let (spots, width, height) = spots(drawing, &layers);
    let title = escape(&drawing.lab);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" role=\"img\">\n<title>{title}</title>\n<style>\n{STYLE}\n</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n"
    );
    let mut labels = String::new();
    for (index, edge) in drawing.links.iter().enumerate() {
        let [from, to] = edge.ends.map(|end| spots[end]);
        let class = match edge.kind {
            Join::Host => "link",
            Join::Trunk => "link trunk",
            Join::Tunnel => "link tunnel",
        };
        let curve = Curve::of(from, to, edge.kind);
        let [start, bend, end] = curve.0.map(|(x, y)| format!("{x:.1} {y:.1}"));
        let title = escape(&format!("{}: {} - {}", edge.name, edge.names[0], edge.names[1]));
        // Writing to a string cannot fail.
        _ = writeln!(out, "<path class=\"{class}\" d=\"M{start} Q{bend} {end}\"><title>{title}</title></path>");
        if !edge.label.is_empty() {
            let (x, y) = curve.at(PLACES[index % PLACES.len()]);
            let label = escape(&edge.label);
            _ = writeln!(labels, "<text class=\"label\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>", y + 4.0);
        }
    }
    for (node, spot) in drawing.nodes.iter().zip(&spots) {
        shape(&mut out, node, *spot);
    }
    out + &labels + "</svg>\n"
}

fn shape(out: &mut String, node: &Node, (x, y): (f64, f64)) {
    let (class, corner) = match node.kind {
        NodeKind::Host => ("host", 8.0),
        NodeKind::Switch => ("switch", 2.0),
        NodeKind::Router => ("router", HEIGHT / 2.0),
        NodeKind::Remote => ("remote", 8.0),
    };
    let (name, width) = (escape(&node.name), width(node));
    let title = escape(&node.addresses.join(", "));
    let shown = node.addresses.first().filter(|_| node.kind == NodeKind::Host);
    let base = if shown.is_some() { y - 1.0 } else { y + 5.0 };
    _ = writeln!(
        out,
        "<g><title>{title}</title><rect class=\"node {class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" \
         height=\"{HEIGHT}\" rx=\"{corner}\"/><text class=\"name\" x=\"{x:.1}\" y=\"{base:.1}\">{name}</text>",
        x - width / 2.0,
        y - HEIGHT / 2.0,
    );
    if let Some(address) = shown {
        _ = writeln!(out, "<text class=\"small\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>", y + 13.0, escape(address));
    }
    out.push_str("</g>\n");
}

fn width(node: &Node) -> f64 {
    let letters = |text: &str, width: f64| text.chars().count() as f64 * width;
    let address = node.addresses.first().filter(|_| node.kind == NodeKind::Host);
    let address = address.map_or(0.0, |address| letters(address, SMALL_LETTER));
    letters(&node.name, LETTER).max(address).max(LEAST_WIDTH - 16.0) + 16.0
}

/// A line from one node to another: start, bend and end. What joins two nodes of one layer is bent around those between,
/// and a tunnel around the link that it may take.
struct Curve([(f64, f64); 3]);

impl Curve {
    fn of(from: (f64, f64), to: (f64, f64), kind: Join) -> Self {
        let (x, y) = ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0);
        let side = from.1 == to.1 && (from.0 - to.0).abs() > 0.0;
        let bend = match (side, kind) {
            (true, Join::Tunnel) => (x, y - LAYER * 0.7),
            (true, _) => (x, y - LAYER * 0.3),
            (false, Join::Tunnel) => (x + LAYER * 0.4, y),
            (false, _) => (x, y),
        };
        Self([from, bend, to])
    }

    /// The point at a share of the way (a quadratic Bezier curve).
    fn at(&self, share: f64) -> (f64, f64) {
        let rest = 1.0 - share;
        let [a, b, c] = self.0;
        let mix = |a: f64, b: f64, c: f64| rest * rest * a + 2.0 * rest * share * b + share * share * c;
        (mix(a.0, b.0, c.0), mix(a.1, b.1, c.1))
    }
}

/// The nodes that are joined to each.
fn neighbours(drawing: &Drawing) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new(); drawing.nodes.len()];
    for edge in &drawing.links {
        let [a, b] = edge.ends;
        all[a].push(b);
        all[b].push(a);
    }
    all
}

/// The nodes of each layer, from the bottom.
fn layers(drawing: &Drawing) -> Vec<Vec<usize>> {
    let neighbours = neighbours(drawing);
    let mut distances: Vec<Option<usize>> = vec![None; drawing.nodes.len()];
    let hosts = (0..drawing.nodes.len()).filter(|index| drawing.nodes[*index].kind == NodeKind::Host);
    let mut queue: VecDeque<_> = hosts.map(|host| (host, 0)).collect();
    // A part without hosts begins at its first node, above where hosts would be.
    let mut rest = 0..drawing.nodes.len();
    loop {
        while let Some((node, distance)) = queue.pop_front() {
            if distances[node].is_none() {
                distances[node] = Some(distance);
                queue.extend(neighbours[node].iter().map(|next| (*next, distance + 1)));
            }
        }
        match rest.find(|index| distances[*index].is_none()) {
            Some(node) => queue.push_back((node, 1)),
            None => break,
        }
    }
    let mut layers = Vec::new();
    for (node, distance) in distances.into_iter().enumerate() {
        let distance = distance.unwrap_or_default();
        if layers.len() <= distance {
            layers.resize(distance + 1, Vec::new());
        }
        layers[distance].push(node);
    }
    layers.retain(|layer| !layer.is_empty());
    layers
}

/// Orders each layer by the mean place of its nodes' neighbours in other layers, from the top down and back.
fn order(drawing: &Drawing, mut layers: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let neighbours = neighbours(drawing);
    let mut place = vec![0.0; drawing.nodes.len()];
    let number = |layer: &[usize], place: &mut Vec<f64>| {
        for (index, node) in layer.iter().enumerate() {
            place[*node] = (index as f64 + 0.5) / layer.len() as f64;
        }
    };
    layers.iter().for_each(|layer| number(layer, &mut place));
    let mut level = vec![0; drawing.nodes.len()];
    for (index, layer) in layers.iter().enumerate() {
        layer.iter().for_each(|node| level[*node] = index);
    }
    for sweep in 0..SWEEPS {
        for step in 0..layers.len() {
            let at = if sweep % 2 == 0 { layers.len() - 1 - step } else { step };
            let mean = |node: &usize| {
                let others: Vec<_> = neighbours[*node].iter().filter(|other| level[**other] != at).collect();
                let sum: f64 = others.iter().map(|other| place[**other]).sum();
                if others.is_empty() { place[*node] } else { sum / others.len() as f64 }
            };
            layers[at].sort_by(|a, b| mean(a).total_cmp(&mean(b)));
            number(&layers[at], &mut place);
        }
    }
    layers
}

/// The middle of each node, and the size of the drawing.
fn spots(drawing: &Drawing, layers: &[Vec<usize>]) -> (Vec<(f64, f64)>, f64, f64) {
    let wide = |layer: &Vec<usize>| layer.iter().map(|node| width(&drawing.nodes[*node]) + GAP).sum::<f64>();
    let most = layers.iter().map(wide).fold(LEAST_WIDTH * 3.0, f64::max);
    let mut spots = vec![(0.0, 0.0); drawing.nodes.len()];
    for (index, layer) in layers.iter().enumerate() {
        let y = MARGIN + HEIGHT / 2.0 + (layers.len() - 1 - index) as f64 * LAYER;
        // A layer that is not the widest is spread over the whole width.
        let spare = (most - wide(layer)) / layer.len() as f64;
        let mut x = MARGIN;
        for node in layer {
            let room = width(&drawing.nodes[*node]) + GAP + spare;
            spots[*node] = (x + room / 2.0, y);
            x += room;
        }
    }
    (spots, most + 2.0 * MARGIN, 2.0 * MARGIN + HEIGHT + layers.len().saturating_sub(1) as f64 * LAYER)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{of, office};
    use super::*;

    #[test]
    fn hosts_are_at_the_bottom_and_no_two_nodes_overlap() {
        let drawing = office();
        let layers = order(&drawing, layers(&drawing));
        let (spots, width_of_all, _) = spots(&drawing, &layers);
        let lowest = spots.iter().map(|spot| spot.1).fold(0.0, f64::max);
        for (index, (node, spot)) in drawing.nodes.iter().zip(&spots).enumerate() {
            assert_eq!(spot.1 == lowest, node.kind == NodeKind::Host, "{node:?}");
            assert!(spot.0 > width(node) / 2.0 && spot.0 + width(node) / 2.0 < width_of_all, "{node:?}");
            for (other, at) in drawing.nodes.iter().zip(&spots).take(index) {
                let apart = (spot.0 - at.0).abs() >= (width(node) + width(other)) / 2.0;
                assert!(apart || spot.1 != at.1, "{node:?} {other:?}");
            }
        }
    }

    #[test]
    fn lines_of_a_row_of_switches_do_not_cross() {
        let drawing = of("lab: a\nlinks: [[s1, s2], [s2, s3], [h3, s3], [h1, s1], [h2, s2]]\n");
        let layers = order(&drawing, layers(&drawing));
        let names =
            |layer: &Vec<usize>| layer.iter().map(|i| drawing.nodes[*i].name[1..].to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&layers[0]), names(&layers[1]));
    }

    #[test]
    fn what_is_drawn_is_well_formed_and_needs_nothing_else() {
        let svg = draw(&office());
        for tag in ["svg", "g", "text", "path", "title", "style"] {
            let opened = svg.matches(&format!("<{tag} ")).count() + svg.matches(&format!("<{tag}>")).count();
            assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert_eq!((svg.matches("class=\"node ").count(), svg.matches("<path ").count()), (6, 5));
        assert!(svg.contains("prefers-color-scheme: dark") && svg.contains(">wan 20/60ms</text>"), "{svg}");
        assert_eq!(svg.matches("http").count(), 1, "only the name of the language: {svg}");
    }
}
