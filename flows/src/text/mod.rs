//! Flow text, both ways, in Open vSwitch's syntax.
//!
//! [`parse_match`], [`parse_actions`] and [`parse_flow`] read what `ovs-ofctl` reads, for the fields and actions that the
//! model has; [`show_match`], [`show_actions`] and the others print what `ovs-ofctl dump-flows` prints, so that two texts
//! that mean the same print the same. What is printed reads back as what was printed.
//!
//! Where OVS quietly changes a flow (a field without its prerequisite is dropped, a value is cut to the field's width),
//! so does this parser, and says so in a [`Warning`]. Errors name the place, the word and the nearest word that would
//! have done: see [`ParseError`].

mod names;
mod parse;
mod print;

pub use names::Names;
pub use parse::{
    ErrorKind, ParseError, Parsed, Warning, flow_lines, parse_actions, parse_filter, parse_flow, parse_flow_file,
    parse_flow_mod, parse_flow_mod_of, parse_match, parse_packet,
};
pub use print::{
    FlowStats, show_action, show_actions, show_datapath_actions, show_flow, show_match, show_megaflow, show_packet,
    show_value,
};

#[cfg(test)]
mod tests;
