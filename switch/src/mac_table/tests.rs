use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const BRIDGE: BridgeId = BridgeId(1);

fn seen(mac: u64, port: u16) -> MacSighting {
    MacSighting { bridge: BRIDGE, vlan: VlanId::NONE, mac, port: PortNo(port) }
}

fn ask(table: &MacTable, mac: u64) -> Option<PortNo> {
    table.port_of(MacQuery { bridge: BRIDGE, vlan: VlanId::NONE, mac })
}

fn version(table: &MacTable, mac: u64) -> u32 {
    table.version(table.slot(BRIDGE, VlanId::NONE, mac))
}

#[test]
fn an_address_is_learned_once_and_moves() {
    let table = MacTable::new(MacSettings::default());
    assert_eq!(table.learn(&seen(2, 1), Millis(0)), MacChange::Learned);
    assert_eq!(table.learn(&seen(2, 1), Millis(5)), MacChange::None);
    assert_eq!(table.learn(&seen(2, 7), Millis(6)), MacChange::Moved { from: PortNo(1) });
    assert_eq!(ask(&table, 2), Some(PortNo(7)));
    assert_eq!(table.entries(BRIDGE).len(), 1);
}

#[test]
fn vlans_and_bridges_are_apart() {
    let table = MacTable::new(MacSettings::default());
    table.learn(&seen(2, 1), Millis(0));
    let vlan = VlanId::new(5).unwrap();
    assert_eq!(table.port_of(MacQuery { bridge: BRIDGE, vlan, mac: 2 }), None);
    assert_eq!(table.port_of(MacQuery { bridge: BridgeId(2), vlan: VlanId::NONE, mac: 2 }), None);
}

#[test]
fn multicast_and_zero_sources_are_not_learned() {
    let table = MacTable::new(MacSettings::default());
    assert_eq!(table.learn(&seen(0x0100_0000_0001, 1), Millis(0)), MacChange::None);
    assert_eq!(table.learn(&seen(0xffff_ffff_ffff, 1), Millis(0)), MacChange::None);
    assert_eq!(table.learn(&seen(0, 1), Millis(0)), MacChange::None);
    assert!(table.is_empty());
}

#[test]
fn every_change_of_an_answer_bumps_its_version_and_the_epoch() {
    let table = MacTable::new(MacSettings::default());
    let mut last = (version(&table, 2), table.epoch());
    let mut changed = |table: &MacTable| {
        let now = (version(table, 2), table.epoch());
        let both = now.0 != last.0 && now.1 != last.1;
        assert_eq!(now.0 != last.0, now.1 != last.1, "version and epoch go together");
        last = now;
        both
    };
    table.learn(&seen(2, 1), Millis(0));
    assert!(changed(&table), "learned");
    table.learn(&seen(2, 1), Millis(1));
    assert!(!changed(&table), "refreshed");
    table.learn(&seen(2, 3), Millis(2));
    assert!(changed(&table), "moved");
    assert_eq!(table.expire(Millis(300_002)).len(), 1);
    assert!(changed(&table), "aged");
    table.learn(&seen(2, 1), Millis(400_000));
    assert!(changed(&table));
    assert_eq!(table.flush(BRIDGE, Some(PortNo(1))), 1);
    assert!(changed(&table), "flushed");
}

#[test]
fn addresses_age_out_by_when_they_were_last_seen() {
    let table = MacTable::new(MacSettings { ageing: 100, limit: 10 });
    table.learn(&seen(2, 1), Millis(0));
    table.learn(&seen(4, 2), Millis(50));
    table.learn(&seen(2, 1), Millis(60));
    assert!(table.expire(Millis(149)).is_empty());
    let aged = table.expire(Millis(150));
    assert_eq!(aged.len(), 1);
    assert_eq!((aged[0].mac, aged[0].bridge), (4, BRIDGE));
    assert_eq!(ask(&table, 2), Some(PortNo(1)));
}

#[test]
fn a_port_that_floods_addresses_pushes_out_its_own() {
    let table = MacTable::new(MacSettings { ageing: 1000, limit: 10 });
    table.learn(&seen(2, 1), Millis(0));
    for mac in 0..100 {
        table.learn(&seen(0x1000 + mac * 2, 2), Millis(1 + mac));
    }
    assert_eq!(table.len(), 10);
    assert_eq!(ask(&table, 2), Some(PortNo(1)), "the quiet port's address stays");
    assert_eq!(ask(&table, 0x1000), None, "the oldest of the flooding port went");
    assert_eq!(ask(&table, 0x1000 + 198), Some(PortNo(2)));
}

proptest! {
    /// The lists and the map say the same as a plain map after any history.
    #[test]
    fn agrees_with_a_plain_map(steps in prop::collection::vec((0u64..12, 1u16..5, 0u64..40, 0u8..12), 1..200)) {
        let table = MacTable::new(MacSettings { ageing: 100, limit: 1000 });
        let mut plain: HashMap<u64, (PortNo, u64)> = HashMap::new();
        let mut now = 0;
        for (mac, port, passed, what) in steps {
            now += passed;
            match what {
                0 => {
                    table.flush(BRIDGE, Some(PortNo(port)));
                    plain.retain(|_, (p, _)| *p != PortNo(port));
                }
                1 => {
                    table.expire(Millis(now));
                    plain.retain(|_, (_, seen)| now - *seen < 100);
                }
                _ => {
                    table.learn(&seen(mac * 2 + 2, port), Millis(now));
                    plain.insert(mac * 2 + 2, (PortNo(port), now));
                }
            }
            let got: HashMap<u64, (PortNo, u64)> =
                table.entries(BRIDGE).into_iter().map(|e| (e.mac, (e.port, e.seen.0))).collect();
            prop_assert_eq!(&got, &plain);
        }
    }
}
