//! Mirrors: copies leave by their port, and what becomes of packets is as without.

use sluice_flows::action::Action;
use sluice_flows::mirror::{MirrorOutput, MirrorSpec};
use sluice_flows::rule::FlowSpec;
use sluice_flows::{DropReason, Match, Owner, PortNo};
use sluice_switch::{Config, FailMode};
use sluice_tests::switch::Switch;

/// A frame from host `src` to host `dst`; host 0xff is everybody.
fn frame(src: u8, dst: u8) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    bytes[..6].copy_from_slice(&if dst == 0xff { [0xff; 6] } else { [2, 0, 0, 0, 0, dst] });
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, src]);
    bytes[12] = 0x88;
    bytes
}

fn all() -> MirrorSpec {
    MirrorSpec::all("m", MirrorOutput::Port("br0-4".into()))
}

/// Packets and bytes that the mirror has copied.
fn copied(switch: &Switch) -> (u64, u64) {
    switch.sync();
    let bridge = switch.datapath.bridge("br0").unwrap();
    (bridge.mirrors[0].stats.packets(), bridge.mirrors[0].stats.bytes())
}

#[test]
fn every_frame_is_copied_once_as_long_as_the_mirror_is_there() {
    for caches in [true, false] {
        let mut switch = Switch::learning(Config { caches, ..Config::default() }, 4);
        assert_eq!(switch.send_and_see(4, &frame(4, 0xff)), [1, 2, 3], "no mirror yet");
        switch.datapath.set_mirror("br0", all()).unwrap();
        assert_eq!(switch.send_and_see(1, &frame(1, 2)), [2, 3, 4]);
        assert_eq!(switch.send_and_see(2, &frame(2, 1)), [1, 4]);
        for _ in 0..3 {
            assert_eq!(switch.send_and_see(1, &frame(1, 2)), [2, 4]);
        }
        assert_eq!(switch.send_and_see(1, &frame(1, 4)), [2, 3, 4], "who was behind the port is not any more");
        assert_eq!(switch.send_and_see(4, &frame(4, 1)), [0; 0], "the port is reserved");
        assert_eq!(switch.dropped(DropReason::NoPort), 1);
        assert_eq!(copied(&switch), (6, 600));
        switch.datapath.remove_mirror("br0", "m").unwrap();
        assert_eq!(switch.send_and_see(1, &frame(1, 2)), [2]);
        assert_eq!(switch.send_and_see(4, &frame(4, 1)), [1]);
        switch.check_accounts();
    }
}

#[test]
fn frames_that_are_dropped_are_copied_and_counted_as_dropped() {
    let mut switch = Switch::start(Config::default());
    switch.bridge("br0", 4, FailMode::Secure);
    switch.datapath.set_mirror("br0", MirrorSpec { snaplen: Some(60), ..all() }).unwrap();
    for _ in 0..3 {
        assert_eq!(switch.end(4).take().map(|frame| frame.len()), None);
        switch.send(1, &frame(1, 2));
        switch.wait();
        assert_eq!(switch.take(4).iter().map(|frame| frame.len()).collect::<Vec<_>>(), [60]);
    }
    assert_eq!((switch.dropped(DropReason::NoRule), switch.totals().forwarded), (3, 0));
    assert_eq!(copied(&switch), (3, 300), "before they were cut");
    let flow = FlowSpec::new(Match::any(), [Action::Output(PortNo(2))], Owner::user());
    switch.add_flows([flow]);
    assert_eq!(switch.send_and_see(1, &frame(1, 2)), [2, 4]);
    assert_eq!(switch.totals().forwarded, 1);
    switch.check_accounts();
}

#[test]
fn a_mirror_goes_on_when_its_port_is_back() {
    let mut switch = Switch::learning(Config::default(), 4);
    switch.datapath.set_mirror("br0", all()).unwrap();
    assert_eq!(switch.send_and_see(1, &frame(1, 0xff)), [2, 3, 4]);
    switch.datapath.remove_port("br0", "br0-4").unwrap();
    assert_eq!(switch.send_and_see(1, &frame(1, 0xff)), [2, 3]);
    switch.port("br0", 4, sluice_flows::bridge::VlanMode::default());
    assert_eq!(switch.send_and_see(1, &frame(1, 0xff)), [2, 3, 4]);
    assert_eq!(copied(&switch), (2, 200));
    switch.check_accounts();
}
