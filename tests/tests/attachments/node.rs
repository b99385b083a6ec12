//! A machine with `sluiced`, and containers that a plugin would attach to it.

use sluice_proto::v1::attachment_service_client::AttachmentServiceClient;
use sluice_proto::v1::attachment_spec::Device;
use sluice_proto::v1::port_service_client::PortServiceClient;
use sluice_proto::v1::{
    AttachReply, AttachRequest, Attachment, AttachmentKey, AttachmentSpec, Bandwidth, CheckAttachmentRequest,
    ConfirmAttachmentsRequest, DetachRequest, ListAttachmentsRequest, ListNetworksRequest, ListPortsRequest, Network,
    NetworkSpec, PutNetworkRequest, ReadyReply, ReadyRequest, SetAttachmentRequest, TapDevice, VethDevice,
};
use sluice_switch::port::link::Link;
use sluice_tests::daemon::{Daemon, sluiced};
use sluice_tests::host::wait_for_carrier;
use sluice_tests::netns::{Netns, skipped};
use sluice_tests::programs;
use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// The network of every container, unless a test says otherwise.
pub(crate) const NETWORK: &str = "blue";
/// Its bridge.
pub(crate) const BRIDGE: &str = "sw0";

/// What a container's interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Veth,
    Tap,
}

/// A machine.
pub(crate) struct Node {
    pub(crate) netns: Netns,
    folder: TempDir,
}

/// A container with an interface that nobody is behind yet.
pub(crate) struct Container {
    pub(crate) netns: Netns,
    pub(crate) spec: AttachmentSpec,
}

/// A running `sluiced` and its socket.
pub(crate) struct Running {
    daemon: Daemon,
    socket: PathBuf,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The network, on a bridge that is made for it.
pub(crate) fn network() -> NetworkSpec {
    NetworkSpec {
        name: NETWORK.to_owned(),
        bridge: BRIDGE.to_owned(),
        make_bridge: true,
        kind: "cni".to_owned(),
        ..NetworkSpec::default()
    }
}

impl Node {
    /// A machine without containers, on which nothing runs. `None` where it cannot be made, which is said.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if skipped(test) {
            return None;
        }
        if !sluiced().exists() {
            _ = writeln!(io::stderr(), "skipped: {test}: sluiced is not built; `cargo build` makes it");
            return None;
        }
        Some(Self { netns: Netns::new().unwrap(), folder: tempfile::tempdir().unwrap() })
    }

    /// Container `n` with its interface and addresses, not attached.
    pub(crate) fn container(&self, n: u8, kind: Kind) -> Container {
        let netns = Netns::new().unwrap();
        netns.run(|| fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")).unwrap();
        let id = format!("c{n:063}");
        let port = format!("sl{n}");
        let device = match kind {
            Kind::Veth => {
                self.netns.add_veth(&port, &netns, "eth0").unwrap();
                self.netns.set_up(&port, true).unwrap();
                Device::Veth(VethDevice { interface: port.clone() })
            }
            Kind::Tap => {
                say(&netns, "ip tuntap add dev eth0 mode tap vnet_hdr");
                let netns = netns.path().display().to_string();
                Device::Tap(TapDevice { netns, interface: "eth0".to_owned() })
            }
        };
        let mac = [2, 0x77, 0, 0, 0, n];
        netns.run(|| Link::open("eth0")?.set_mac(mac)).unwrap();
        netns.set_up("eth0", true).unwrap();
        if kind == Kind::Veth {
            wait_for_carrier(&[(&netns, "eth0"), (&self.netns, &port)]);
        }
        let addresses = [format!("10.77.0.{n}/24"), format!("fd77::{n}/64")];
        for address in &addresses {
            let (address, length) = address.split_once('/').unwrap();
            netns.add_address("eth0", ip(address), length.parse().unwrap()).unwrap();
        }
        let spec = AttachmentSpec {
            network: NETWORK.to_owned(),
            container_id: id,
            ifname: "eth0".to_owned(),
            port,
            device: Some(device),
            mac: mac.map(|byte| format!("{byte:02x}")).join(":"),
            addresses: addresses.to_vec(),
            netns: netns.path().display().to_string(),
            ..AttachmentSpec::default()
        };
        Container { netns, spec }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("sluiced.toml")
    }

    /// The file that a running switch would read.
    pub(crate) fn write(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    /// Where records are.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("switch.state")
    }

    /// The names of the records there are.
    pub(crate) fn records(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.state()) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Starts `sluiced` with a file of this text, and waits until it is ready.
    pub(crate) fn start(&self, text: &str) -> Running {
        self.write(text);
        let (log, socket) = (self.folder.path().join("log"), self.folder.path().join("switch.sock"));
        let mut command = Command::new(sluiced());
        command.arg("--config").arg(self.config()).arg("--socket").arg(&socket).stdin(Stdio::null());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Running { daemon: Daemon::start(&self.netns, command, log), socket }
    }
}

/// What a program prints in a namespace; it ends with 0.
pub(crate) fn say(netns: &Netns, words: &str) -> String {
    let (code, output) = programs::run(netns, &words.split(' ').collect::<Vec<_>>());
    assert!(code == Some(0), "{words} ended with {code:?}:\n{output}");
    output
}

/// What a program prints in a namespace, and whether it ended with 0.
pub(crate) fn attempt(netns: &Netns, words: &str) -> (bool, String) {
    let (code, output) = programs::run(netns, &words.split(' ').collect::<Vec<_>>());
    (code == Some(0), output)
}

/// Calls the switch that listens there.
pub(crate) fn call<T>(socket: &Path, ask: impl AsyncFnOnce(Channel) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        ask(endpoint.connect().await.unwrap()).await
    })
}

impl Container {
    pub(crate) fn key(&self) -> AttachmentKey {
        AttachmentKey {
            network: self.spec.network.clone(),
            container_id: self.spec.container_id.clone(),
            ifname: self.spec.ifname.clone(),
        }
    }

    /// Everything that is set up in the container.
    pub(crate) fn state(&self) -> String {
        ["ip -o link", "ip -o addr", "ip route show table all", "ip -6 route show table all"]
            .map(|words| say(&self.netns, words))
            .concat()
            // Whether somebody is behind a TAP is seen from inside.
            .lines()
            .map(|line| line.replace("NO-CARRIER,", "").replace(",LOWER_UP", ""))
            .map(|line| line.replace(" state DOWN ", " state UP ").replace(" linkdown", ""))
            .map(|line| line.trim_end().to_owned() + "\n")
            .collect()
    }

    /// Both of the other's addresses answer.
    pub(crate) fn reaches(&self, other: &Self) {
        for address in other.addresses() {
            let output = say(&self.netns, &format!("ping -n -c 3 -i 0.2 -w 20 {address}"));
            assert!(output.contains(" 3 received"), "{output}");
        }
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.spec.addresses.iter().map(|text| text.split('/').next().unwrap().to_owned()).collect()
    }
}

impl Running {
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    /// Has it read its file again, and returns what it says to that.
    pub(crate) fn reload(&self) -> String {
        self.daemon.reload()
    }

    /// Ends it as an operator would; returns its log.
    pub(crate) fn end(self) -> String {
        self.daemon.end()
    }

    /// Kills it without a warning.
    pub(crate) fn crash(self) {
        self.daemon.crash();
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Calls it.
    pub(crate) fn call<T>(&self, ask: impl AsyncFnOnce(Channel) -> T) -> T {
        call(&self.socket, ask)
    }

    fn attachments<T>(&self, ask: impl AsyncFnOnce(AttachmentServiceClient<Channel>) -> T) -> T {
        self.call(async |channel| ask(AttachmentServiceClient::new(channel)).await)
    }

    /// Attaches, with the network of every container.
    pub(crate) fn attach(&self, spec: &AttachmentSpec) -> Result<Attachment, Status> {
        let request = AttachRequest { network: Some(network()), attachment: Some(spec.clone()) };
        self.attach_as(request)
    }

    pub(crate) fn attach_as(&self, request: AttachRequest) -> Result<Attachment, Status> {
        let reply = self.attachments(async |mut client| client.attach(request).await)?;
        let AttachReply { attachment } = reply.into_inner();
        Ok(attachment.unwrap())
    }

    /// Declares a network.
    pub(crate) fn put(&self, network: &NetworkSpec) -> Result<Network, Status> {
        let request = PutNetworkRequest { network: Some(network.clone()) };
        let reply = self.attachments(async |mut client| client.put_network(request).await)?;
        Ok(reply.into_inner().network.unwrap())
    }

    /// Confirms attachments; how many waited.
    pub(crate) fn confirm(&self, keys: Vec<AttachmentKey>) -> Result<u32, Status> {
        let request = ConfirmAttachmentsRequest { keys };
        let reply = self.attachments(async |mut client| client.confirm_attachments(request).await)?;
        Ok(reply.into_inner().confirmed)
    }

    /// Whether there was one.
    pub(crate) fn detach(&self, key: AttachmentKey) -> bool {
        let request = DetachRequest { key: Some(key) };
        self.attachments(async |mut client| client.detach(request).await).unwrap().into_inner().found
    }

    /// Sets limits.
    pub(crate) fn set(&self, key: AttachmentKey, bandwidth: Bandwidth) -> Result<(), Status> {
        let request =
            SetAttachmentRequest { key: Some(key), bandwidth: Some(bandwidth), ..SetAttachmentRequest::default() };
        self.attachments(async |mut client| client.set_attachment(request).await).map(|_| ())
    }

    /// The options of a port.
    pub(crate) fn options(&self, port: &str) -> HashMap<String, String> {
        self.call(async |channel| {
            let request = ListPortsRequest { bridge: BRIDGE.to_owned() };
            let mut stream = PortServiceClient::new(channel).list_ports(request).await.unwrap().into_inner();
            let ports = stream.message().await.unwrap().unwrap().ports;
            let specs = ports.into_iter().map(|port| port.spec.unwrap());
            specs.into_iter().find(|spec| spec.name == port).unwrap().options
        })
    }

    pub(crate) fn check(&self, spec: &AttachmentSpec) -> Vec<String> {
        let request = CheckAttachmentRequest { attachment: Some(spec.clone()) };
        self.attachments(async |mut client| client.check_attachment(request).await).unwrap().into_inner().problems
    }

    pub(crate) fn list(&self) -> Vec<Attachment> {
        self.attachments(async |mut client| {
            let request = ListAttachmentsRequest::default();
            let mut stream = client.list_attachments(request).await.unwrap().into_inner();
            let mut all = Vec::new();
            while let Some(part) = stream.message().await.unwrap() {
                all.extend(part.attachments);
            }
            all
        })
    }

    pub(crate) fn networks(&self) -> Vec<Network> {
        let request = ListNetworksRequest {};
        self.attachments(async |mut client| client.list_networks(request).await).unwrap().into_inner().networks
    }

    pub(crate) fn ready(&self, network: NetworkSpec) -> ReadyReply {
        let request = ReadyRequest { network: Some(network) };
        self.attachments(async |mut client| client.ready(request).await).unwrap().into_inner()
    }
}
