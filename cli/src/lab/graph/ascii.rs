//! Drawings as lines of text.
//!
//! Links are taken off in chains. The first is a longest one, on a row of its own; each further begins at a node that was
//! drawn, and is written below it at the same column, where there is room.

use super::{Drawing, Join};
use std::collections::VecDeque;

/// Columns between two chains on a row.
const GAP: usize = 2;

pub(super) fn draw(drawing: &Drawing) -> String {
    let mut joined = vec![Vec::new(); drawing.nodes.len()];
    for (index, edge) in drawing.links.iter().enumerate() {
        let [a, b] = edge.ends;
        joined[a].push((index, b));
        joined[b].push((index, a));
    }
    let (left, places) = (vec![true; drawing.links.len()], vec![None; drawing.nodes.len()]);
    let mut canvas = Canvas { drawing, joined, left, rows: Vec::new(), places };
    for start in 0..drawing.nodes.len() {
        if canvas.places[start].is_none() {
            canvas.component(start);
        }
    }
    let mut out = String::new();
    for row in canvas.rows {
        out.push_str(row.iter().collect::<String>().trim_end());
        out.push('\n');
    }
    out
}

/// Links in a row: the first node, and then link after link with the node that it leads to.
struct Chain {
    first: usize,
    steps: Vec<(usize, usize)>,
}

struct Canvas<'a> {
    drawing: &'a Drawing,
    /// The links of each node, with the node at the other end.
    joined: Vec<Vec<(usize, usize)>>,
    /// Which links are not drawn yet.
    left: Vec<bool>,
    rows: Vec<Vec<char>>,
    /// Row and column of each node that is drawn.
    places: Vec<Option<(usize, usize)>>,
}

impl Canvas<'_> {
    /// Draws all that is joined to a node.
    fn component(&mut self, start: usize) {
        let far = self.longest(start);
        let one_end = far.steps.last().map_or(start, |(_, node)| *node);
        let mut chain = self.longest(one_end);
        let other_end = chain.steps.last().map_or(one_end, |(_, node)| *node);
        if other_end < one_end {
            chain = chain.reversed();
        }
        let (mut row, mut column) = (self.rows.len(), 0);
        let mut met = Vec::new();
        loop {
            self.write(&chain, row, column);
            met.push(chain.first);
            met.extend(chain.steps.iter().map(|(_, node)| *node));
            let begins = |node: &&usize| self.joined[**node].iter().any(|(link, _)| self.left[*link]);
            let next = met.iter().find(begins).and_then(|node| Some((*node, self.places[*node]?)));
            let Some((node, place)) = next else { return };
            (row, column) = (place.0 + 1, place.1);
            chain = self.longest(node);
        }
    }

    /// A longest of the shortest ways from a node over links that are not drawn yet.
    fn longest(&self, from: usize) -> Chain {
        let mut came: Vec<Option<(usize, usize)>> = vec![None; self.drawing.nodes.len()];
        let mut queue = VecDeque::from([(from, 0)]);
        let (mut farthest, mut most) = (from, 0);
        while let Some((node, distance)) = queue.pop_front() {
            if distance > most {
                (farthest, most) = (node, distance);
            }
            for (link, next) in self.joined[node].iter().filter(|(link, _)| self.left[*link]) {
                if *next != from && came[*next].is_none() {
                    came[*next] = Some((*link, node));
                    queue.push_back((*next, distance + 1));
                }
            }
        }
        let mut steps = Vec::new();
        let mut at = farthest;
        while let Some((link, before)) = came[at] {
            steps.push((link, at));
            at = before;
        }
        steps.reverse();
        Chain { first: from, steps }
    }

    /// Writes a chain at a column of the first row from `row` on that has room there.
    fn write(&mut self, chain: &Chain, row: usize, column: usize) {
        let mut text = self.drawing.nodes[chain.first].name.clone();
        let mut columns = vec![(chain.first, 0)];
        for (link, node) in &chain.steps {
            let edge = &self.drawing.links[*link];
            let line = match edge.kind {
                Join::Host => "--",
                Join::Trunk => "==",
                Join::Tunnel => "~~",
            };
            let label = if edge.label.is_empty() { String::new() } else { format!("{}{line}", edge.label) };
            text.push_str(&format!(" {line}{label} "));
            columns.push((*node, text.chars().count()));
            text.push_str(&self.drawing.nodes[*node].name);
            self.left[*link] = false;
        }
        let end = column + text.chars().count();
        let free = |row: &Vec<char>| {
            let near = row.iter().take(end + GAP).skip(column.saturating_sub(GAP));
            near.into_iter().all(|cell| *cell == ' ')
        };
        let found = (row..self.rows.len()).find(|at| free(&self.rows[*at]));
        let row = found.unwrap_or(self.rows.len());
        if found.is_none() {
            self.rows.push(Vec::new());
        }
        let cells = &mut self.rows[row];
        cells.resize(cells.len().max(end), ' ');
        for (cell, c) in cells.iter_mut().skip(column).zip(text.chars()) {
            *cell = c;
        }
        for (node, at) in columns {
            let place = &mut self.places[node];
            *place = place.or(Some((row, column + at)));
        }
    }
}

impl Chain {
    fn reversed(mut self) -> Self {
        let Some((_, last)) = self.steps.last().copied() else { return self };
        let links: Vec<_> = self.steps.iter().rev().map(|(link, _)| *link).collect();
        let nodes = self.steps.iter().rev().skip(1).map(|(_, node)| *node).chain([self.first]);
        self.steps = links.into_iter().zip(nodes).collect();
        self.first = last;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{of, office};
    use super::*;

    #[test]
    fn further_links_stand_below_their_nodes() {
        let lines = [
            "h1 --blue-- s1 ==wan 20/60ms== s2 --blue-- h2",
            "            s1 ==blue,green== r1",
            "                               s2 --green-- web",
        ];
        assert_eq!(draw(&office()).lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn every_link_of_a_ring_and_of_a_star_is_drawn_once() {
        let drawing = of("lab: a\nlinks: [[h1, s1], [h2, s1], [h3, s1], [h4, s2]]\n");
        assert_eq!(draw(&drawing), "h1 -- s1 -- h2\n      s1 -- h3\nh4 -- s2\n");
        let ring = of("lab: a\nlinks:\n- {ends: [r1, r2], ips: [10.0.1.1/30, 10.0.1.2/30]}\n\
             - {ends: [r2, r3], ips: [10.0.2.1/30, 10.0.2.2/30]}\n- {ends: [r1, r3], ips: [10.0.3.1/30, 10.0.3.2/30]}\n");
        assert_eq!(draw(&ring).matches("==").count(), 3, "{}", draw(&ring));
    }
}
