//! Two hosts on an underlay, and switches with tunnel ports on them.

use sluice_flows::bridge::VlanMode;
use sluice_flows::tunnel::TunnelKind;
use sluice_switch::FailMode;
use sluice_switch::port::{PortDevice, PortKind, PortSpec, TunnelPort};
use sluice_tests::host::wait_for_carrier;
use sluice_tests::lan::Lan;
use sluice_tests::netns::Netns;
use sluice_tests::programs::run;
use sluice_tests::variant;

/// The hosts' interface.
pub(crate) const WIRE: &str = "wire";
/// The number of a switch's tunnel port; its host's is its own.
pub(crate) const TUNNEL: u8 = 9;

/// Addresses of the two hosts.
pub(crate) const V4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
pub(crate) const V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

/// Two network namespaces, joined by a veth pair.
pub(crate) struct Underlay(pub(crate) [Netns; 2]);

impl Underlay {
    pub(crate) fn new(mtu: u32) -> Self {
        let ends = [Netns::new().unwrap(), Netns::new().unwrap()];
        ends[0].add_veth(WIRE, &ends[1], WIRE).unwrap();
        for end in &ends {
            end.set_mtu(WIRE, mtu).unwrap();
            end.set_up(WIRE, true).unwrap();
        }
        wait_for_carrier(&[(&ends[0], WIRE), (&ends[1], WIRE)]);
        for (n, end) in ends.iter().enumerate() {
            end.add_address(WIRE, V4[n].parse().unwrap(), 24).unwrap();
            end.add_address(WIRE, V6[n].parse().unwrap(), 64).unwrap();
        }
        Self(ends)
    }

    /// Runs `ip` on a host.
    pub(crate) fn ip(&self, end: usize, words: &str) {
        let words: Vec<_> = std::iter::once("ip").chain(words.split_whitespace()).collect();
        let (code, said) = run(&self.0[end], &words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
    }

    /// A switch on a host, with a tunnel port of these options.
    pub(crate) fn switch(&self, end: usize, fail_mode: FailMode, kind: TunnelKind, options: &[(&str, &str)]) -> Lan {
        let lan = Lan::new(&["br0"], fail_mode, 1);
        self.add_tunnel(&lan, end, TUNNEL, kind, options);
        lan
    }

    /// Adds a tunnel port with this number.
    pub(crate) fn add_tunnel(&self, lan: &Lan, end: usize, no: u8, kind: TunnelKind, options: &[(&str, &str)]) {
        let spec = PortSpec::parse(PortKind::Tunnel(kind), options.iter().copied()).unwrap();
        let PortSpec::Tunnel(options) = spec else { unreachable!("a tunnel was asked for") };
        let name = format!("t{no}");
        let port = self.0[end].run(|| TunnelPort::new(&name, *options)).unwrap();
        lan.add_port("br0", no, &name, PortDevice::Tunnel(Box::new(port)), VlanMode::default());
    }

    /// Two learning switches with a host each (1 and 2), and a tunnel between them.
    pub(crate) fn pair(
        &self,
        kind: TunnelKind,
        mtu: u32,
        options: impl Fn(usize) -> Vec<(String, String)>,
    ) -> [Lan; 2] {
        [0, 1].map(|end| {
            let options = options(end);
            let options: Vec<_> = options.iter().map(|(name, value)| (&**name, &**value)).collect();
            let mut lan = self.switch(end, FailMode::Standalone, kind, &options);
            lan.add_host("br0", end as u8 + 1, variant::port(), mtu, VlanMode::default());
            lan
        })
    }
}

/// Options of a fixed tunnel from `end` to the other, with further ones written `name=value`.
pub(crate) fn to_the_other(addresses: [&str; 2], end: usize, further: &[&str]) -> Vec<(String, String)> {
    let remote = ("remote_ip".to_owned(), addresses[1 - end].to_owned());
    let further = further.iter().map(|option| {
        let (name, value) = option.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    });
    std::iter::once(remote).chain(further).collect()
}
