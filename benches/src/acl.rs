//! Rules of the shapes that network policies make (source prefix, destination prefix, transport port, mixed masks) and
//! packets that meet them. The same seed gives the same rules and packets.

use sluice_flows::action::Action;
use sluice_flows::field::{ETH_TYPE_IPV4, Field, IP_PROTO_UDP};
use sluice_flows::key::FlowKey;
use sluice_flows::rule::{FlowSpec, TableId};
use sluice_flows::{Match, Owner, PortNo};

/// A small generator of pseudo-random numbers (xorshift64*), so that runs can be compared.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32 % end
    }

    /// One of these.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }
}

fn prefix(len: u32) -> u128 {
    u128::from(u32::MAX << (32 - len))
}

/// The match of one policy rule.
fn policy_match(random: &mut Random) -> Match {
    let mut matches = Match::any();
    let src = 0x0a01_0000 | random.below(256) << 8;
    let dst = 0x0a02_0000 | random.below(1 << 16);
    let (src_len, dst_len) = (random.pick(&[20, 22, 24, 26, 28, 32]), random.pick(&[16, 24, 28, 32]));
    matches.set_field(Field::EthType, ETH_TYPE_IPV4.into());
    matches.set_field(Field::IpProto, IP_PROTO_UDP.into());
    matches.set(Field::IpSrc.slot(), src.into(), prefix(src_len));
    matches.set(Field::IpDst.slot(), dst.into(), prefix(dst_len));
    let (port, mask) = random.pick(&[(53, 0xffff), (80, 0xffff), (443, 0xffff), (8080, 0xfff0), (0, 0)]);
    matches.set(Field::UdpDst.slot(), port, mask);
    matches
}

/// `rules` policy rules of random priorities in one table, above a rule that takes all other IPv4 packets. Some have
/// the match and priority of another, as random rules do.
pub fn policy_table(table: TableId, next: TableId, rules: usize) -> Vec<FlowSpec> {
    let mut random = Random::new(3);
    let owner = Owner::new("np:bench/acl#1");
    let flow = |matches, priority| {
        let spec = FlowSpec::new(matches, [Action::GotoTable(next)], owner.clone());
        FlowSpec { table, priority, ..spec }
    };
    let mut specs: Vec<_> = (0..rules)
        .map(|_| {
            let matches = policy_match(&mut random);
            flow(matches, 10 + random.below(59_990) as u16)
        })
        .collect();
    let mut ip = Match::any();
    ip.set_field(Field::EthType, ETH_TYPE_IPV4.into());
    specs.push(flow(ip, 1));
    specs
}

/// A pipeline of three tables behind the first: so many policy rules, then a rewrite and a hop less, then the output by port 2.
pub fn pipeline(rules: usize) -> Vec<FlowSpec> {
    let table = |n| TableId::new(n).unwrap_or_default();
    let mut specs = policy_table(table(1), table(2), rules);
    let flow =
        |n, actions: Vec<Action>| FlowSpec { table: table(n), ..FlowSpec::new(Match::any(), actions, Owner::user()) };
    let set = Action::SetField { field: Field::EthDst, value: 0x0200_0000_0099, mask: u128::MAX };
    let mut ip = flow(2, vec![Action::DecTtl(Box::default()), set, Action::GotoTable(table(3))]);
    ip.matches.set_field(Field::EthType, ETH_TYPE_IPV4.into());
    specs.extend([flow(0, vec![Action::GotoTable(table(1))]), ip, flow(3, vec![Action::Output(PortNo(2))])]);
    specs
}

/// [`pipeline`] with rules of as many different masks, at most 1024 of them: prefixes of every length of both networks.
pub fn many_masks(masks: usize) -> Vec<FlowSpec> {
    let mut specs = pipeline(0);
    let mut random = Random::new(5);
    for (number, lens) in (0..masks).zip((0..32).flat_map(|src| (0..32).map(move |dst| (32 - src, 32 - dst)))) {
        let mut matches = Match::any();
        matches.set_field(Field::EthType, ETH_TYPE_IPV4.into());
        matches.set(Field::IpSrc.slot(), (0x0a01_0000 | random.below(1 << 16)).into(), prefix(lens.0));
        matches.set(Field::IpDst.slot(), (0x0a02_0000 | random.below(1 << 16)).into(), prefix(lens.1));
        let next = [Action::GotoTable(TableId::new(2).unwrap_or_default())];
        let spec = FlowSpec::new(matches, next, Owner::new("np:bench/masks#1"));
        let priority = u16::try_from(10 + number).unwrap_or(u16::MAX);
        specs.push(FlowSpec { table: TableId::new(1).unwrap_or_default(), priority, ..spec });
    }
    specs
}

/// Keys of UDP packets between the networks of the rules, most of them to ports that rules name.
pub fn packets(count: usize) -> Vec<FlowKey> {
    let mut random = Random::new(4);
    let keys = (0..count).map(|_| {
        let mut key = FlowKey::ZERO;
        let port = random.pick(&[53, 80, 443, 8080, 8085, 12_345]);
        let values: [(Field, u64); 10] = [
            (Field::InPort, 1),
            (Field::EthSrc, 0x0200_0000_0001),
            (Field::EthDst, 0x0200_0000_0002),
            (Field::EthType, ETH_TYPE_IPV4.into()),
            (Field::IpSrc, (0x0a01_0000 | random.below(1 << 16)).into()),
            (Field::IpDst, (0x0a02_0000 | random.below(1 << 16)).into()),
            (Field::IpProto, IP_PROTO_UDP.into()),
            (Field::IpTtl, 64),
            (Field::UdpSrc, (1024 + random.below(60_000)).into()),
            (Field::UdpDst, port),
        ];
        for (field, value) in values {
            key.set(field.slot(), value.into());
        }
        key
    });
    keys.collect()
}
