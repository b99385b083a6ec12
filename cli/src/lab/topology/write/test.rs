//! Entries of `tests` as text.

use super::super::resolved::test::{Probe, Test, Want};
use super::{Map, quoted};
use sluice_switch::port::show_time;

pub(super) fn text(test: &Test) -> String {
    let mut map = Map::default();
    if test.name != Test::default_name(&test.from, &test.to, &test.probe) {
        map.put("name", &test.name);
    }
    let kind = match test.probe {
        Probe::Ping { .. } => "ping",
        Probe::Tcp { .. } => "tcp",
    };
    map.put(kind, format!("[{}, {}]", test.from, quoted(test.target())));
    if test.want != Want::Ok {
        map.put("want", test.want.name());
    }
    map.put_some("by", test.by.as_ref().map(quoted));
    if let Probe::Ping { rtt, max_loss } = test.probe {
        map.put_some("rtt", rtt);
        map.put_some("max_loss", max_loss);
    }
    map.put_some("within", test.within.map(show_time));
    map.text()
}
