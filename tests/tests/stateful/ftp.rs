//! FTP through the firewall and the gateway: the data connections that were announced pass, either way.

use crate::labs::{CHATTER, Gateway, SERVER, firewall};
use crate::programs::run;
use sluice_switch::Clock;
use sluice_tests::netns::{Netns, skipped};
use sluice_tests::programs::ftp_server;
use sluice_tests::variant;
use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// Bytes of the file.
const LEN: usize = 4_000_001;
/// Active and passive, by the commands that IPv6 has too, and by the old ones.
const WAYS: [(&[&str], bool); 4] = [
    (&["--ftp-port", "-"], true),
    (&["--ftp-pasv"], true),
    (&["--ftp-port", "-", "--disable-eprt"], false),
    (&["--ftp-pasv", "--disable-epsv", "--no-ftp-skip-pasv-ip"], false),
];

/// Has the client get a file of the server in every way.
fn every_way(client: &Netns, server: &Netns, addresses: [IpAddr; 2]) {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let content: Vec<u8> = (0..LEN as u32).map(|n| (n.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
    fs::write(folder.path().join("file"), &content).unwrap();
    let _server = ftp_server(server, (addresses[0], 21).into(), folder.path());
    let got = folder.path().join("got");
    for address in addresses {
        let url = if address.is_ipv4() { format!("ftp://{address}/file") } else { format!("ftp://[{address}]/file") };
        for (options, _) in WAYS.iter().filter(|(_, both)| *both || address.is_ipv4()) {
            let words = ["curl", "--silent", "--show-error", "--globoff", "--output", got.to_str().unwrap(), &url];
            run(client, &[&words, *options].concat());
            assert!(fs::read(&got).unwrap() == content, "{options:?} from {address}: the file changed on its way");
        }
    }
}

#[test]
fn ftp_passes_the_firewall_in_every_way() {
    if !skipped("ftp_passes_the_firewall_in_every_way") {
        let lan = firewall(variant::port(), Clock::monotonic());
        let outside = lan.host(3);
        every_way(&lan.host(1).netns, &outside.netns, [outside.v4, outside.v6]);
        lan.check_accounts(&CHATTER);
    }
}

#[test]
fn ftp_passes_the_gateway_in_every_way() {
    if !skipped("ftp_passes_the_gateway_in_every_way") {
        let gateway = Gateway::new(variant::port(), 1, 1500);
        every_way(&gateway.host(1).netns, &gateway.server, SERVER);
        gateway.lan.check_accounts(&CHATTER);
    }
}
