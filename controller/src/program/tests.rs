//! The program in front of a real switch, served on a real socket, that comes and goes.

mod faults;
mod model;
mod process;
mod scale;
mod steps;
mod traffic;

use super::{Config, Event, Events, Program, Status, Switch, Unsettled, start};
use crate::flow::{COOKIE, Flow, Group, Object, Part};
use sluice_proto::v1::flow_service_client::FlowServiceClient;
use sluice_proto::v1::group_service_client::GroupServiceClient;
use sluice_proto::v1::packet_service_client::PacketServiceClient;
use sluice_proto::v1::{
    ApplyBundleRequest, BundleHeader, DumpFlowsRequest, FlowMod, ListGroupsRequest, PacketOutRequest,
};
use sluice_switch::api::{self, Running};
use sluice_switch::port::{MemHandle, MemOptions, MemPort};
use sluice_switch::{Datapath, FailMode, PortDevice, PortRequest};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

/// How long anything may take before a test gives up.
const LONG: Duration = Duration::from_secs(60);

/// A switch in this process, with the bridge `br0` and two ports. On drop it is gone without a word, with all that it had.
struct Daemon {
    datapath: Datapath,
    _server: Running,
    _ends: Vec<MemHandle>,
}

impl Daemon {
    fn start(folder: &Path) -> Self {
        let datapath = Datapath::start(sluice_switch::Config::default()).unwrap();
        datapath.add_bridge("br0", FailMode::Secure).unwrap();
        let add = |no: u16| {
            let name = format!("p{no}");
            let (port, end) = MemPort::new(&name, &MemOptions::default()).unwrap();
            let number = Some(sluice_flows::PortNo(no));
            let request = PortRequest { number, ..PortRequest::new(&name, PortDevice::Device(Box::new(port))) };
            datapath.add_port("br0", request).unwrap();
            end
        };
        let ends = (1..=2).map(add).collect();
        let server = api::spawn(datapath.clone(), &folder.join("s.sock")).unwrap();
        Self { datapath, _server: server, _ends: ends }
    }
}

/// A controller's program, with a folder for the socket and its own file.
struct Node {
    folder: TempDir,
    program: Program,
    switch: Switch,
    events: Events,
}

impl Node {
    fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    fn in_folder(folder: TempDir) -> Self {
        let (socket, round_file) = (folder.path().join("s.sock"), folder.path().join("round"));
        let (program, switch, events) = start(Config { socket, bridge: "br0".to_owned(), round_file }).unwrap();
        Self { folder, program, switch, events }
    }

    /// Another start of the controller.
    fn again(self) -> Self {
        let Self { folder, program, .. } = self;
        drop(program);
        Self::in_folder(folder)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn event(&mut self) -> Event {
        timeout(LONG, self.events.next()).await.unwrap()
    }

    /// Waits until all is in force, however often the switch goes meanwhile.
    async fn settled(&self) -> Result<(), Unsettled> {
        let settled = async {
            loop {
                match self.program.settled().await {
                    Err(Unsettled::Behind(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                    other => return other,
                }
            }
        };
        timeout(LONG, settled).await.unwrap()
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Status) -> bool) -> Status {
        for _ in 0..6_000 {
            let status = self.program.status();
            if holds(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not {what}: {:?}", self.program.status());
    }

    /// All flows, sorted: table, match, actions, owner, with their cookies and generations.
    async fn flows(&self) -> Vec<sluice_proto::v1::Flow> {
        let mut client = FlowServiceClient::new(self.switch.channel().unwrap()).max_decoding_message_size(64 << 20);
        let mut stream = client.dump_flows(DumpFlowsRequest::default()).await.unwrap().into_inner();
        let mut all = Vec::new();
        while let Some(part) = stream.message().await.unwrap() {
            all.extend(part.flows);
        }
        all
    }

    /// The flows with our cookie, as `TABLE MATCH -> ACTIONS (OWNER)`.
    async fn our_flows(&self) -> Vec<String> {
        let ours = |f: &sluice_proto::v1::Flow| f.cookie == COOKIE;
        let text = |f: sluice_proto::v1::Flow| format!("{} {} -> {} ({})", f.table, f.r#match, f.actions, f.owner);
        self.flows().await.into_iter().filter(ours).map(text).collect()
    }

    /// The groups, as `TEXT (OWNER)`.
    async fn groups(&self) -> Vec<String> {
        let mut client = GroupServiceClient::new(self.switch.channel().unwrap());
        let mut stream = client.list_groups(ListGroupsRequest::default()).await.unwrap().into_inner();
        let mut all = Vec::new();
        while let Some(part) = stream.message().await.unwrap() {
            all.extend(part.groups.into_iter().map(|g| format!("{} ({})", g.group, g.owner)));
        }
        all
    }

    /// Sends a packet through the tables, to the address of a Service.
    async fn send_to(&self, service: u8) {
        let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00];
        frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 9, 9, 10, 96, 0, service]);
        frame.extend([0x30, 0x39, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        let request = PacketOutRequest { in_port: "p1".to_owned(), frame, ..PacketOutRequest::default() };
        PacketServiceClient::new(self.switch.channel().unwrap()).packet_out(request).await.unwrap();
    }

    /// Changes flows as an operator does.
    async fn operator(&self, flows: &[&str]) {
        let mods = flows.iter().map(|f| FlowMod { flow: (*f).to_owned(), ..FlowMod::default() }).collect();
        let header = Some(BundleHeader::default());
        let message = ApplyBundleRequest { header, mods, commit: true, ..ApplyBundleRequest::default() };
        let mut client = FlowServiceClient::new(self.switch.channel().unwrap());
        client.apply_bundle(tokio_stream::once(message)).await.unwrap();
    }
}

fn flow(table: u8, matching: &str, actions: &str, owner: &str) -> Flow {
    Flow {
        table,
        priority: 100,
        matching: matching.to_owned(),
        actions: actions.to_owned(),
        owner: owner.into(),
        drop_reason: None,
    }
}

fn service(name: &str) -> Object {
    Object::Service(name.to_owned())
}

/// The part of a Service with one address and some endpoints.
fn service_part(number: u32, endpoints: u32) -> Part {
    let owner = format!("svc:shop/s{number}");
    let [_, a, b, c] = number.to_be_bytes();
    let bucket = |n: u32| {
        let [_, _, d, e] = n.to_be_bytes();
        format!(",bucket=bucket_id:{n},weight:100,actions=set_field:10.{a}.{d}.{e}->ip_dst,resubmit(,30)")
    };
    let buckets: String = (1..=endpoints).map(bucket).collect();
    let group = Group { id: 1_000 + number, text: format!("type=select{buckets}"), owner: owner.as_str().into() };
    let matching = format!("tcp,nw_dst=10.{}.{b}.{c},tp_dst=80", 96 + a);
    Part { flows: vec![flow(18, &matching, &format!("group:{}", group.id), &owner)], groups: vec![group] }
}
