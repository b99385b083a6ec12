//! The control API over a real unix socket, in front of a real data path with memory ports.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bundles;
mod capture;
mod ct;
mod groups;
mod mirrors;
mod multicast;
mod packets;
mod routers;
mod server;

use sluice_flows::PortNo;
use sluice_proto::v1::flow_mod::Command;
use sluice_proto::v1::flow_service_client::FlowServiceClient;
use sluice_proto::v1::{
    ApplyBundleReply, ApplyBundleRequest, BundleHeader, DumpFlowsReply, DumpFlowsRequest, Flow, FlowFilter, FlowMod,
};
use sluice_switch::api::{self, Running};
use sluice_switch::port::{MemHandle, MemOptions, MemPort};
use sluice_switch::{Config, Datapath, FailMode, PortDevice, PortRequest};
use std::path::PathBuf;
use std::time::Duration;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// A switch with the bridge `br0`, without flows, with the memory ports p1 to p3, served on a socket of its own.
struct Switch {
    datapath: Datapath,
    server: Option<Running>,
    /// The far ends of ports 1 to 3.
    ends: Vec<MemHandle>,
    folder: tempfile::TempDir,
}

impl Switch {
    fn start() -> Self {
        let datapath = Datapath::start(Config::default()).expect("workers start");
        datapath.add_bridge("br0", FailMode::Secure).expect("a first bridge");
        let add = |no: u16| {
            let name = format!("p{no}");
            let (port, end) = MemPort::new(&name, &MemOptions::default()).expect("memory is there");
            let request =
                PortRequest { number: Some(PortNo(no)), ..PortRequest::new(&name, PortDevice::Device(Box::new(port))) };
            datapath.add_port("br0", request).expect("a new port");
            end
        };
        let ends = (1..=3).map(add).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let server = Some(api::spawn(datapath.clone(), &folder.path().join("s.sock")).expect("a free socket"));
        Self { datapath, server, ends, folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s.sock")
    }

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("unix://{}", self.socket().display())).expect("a socket's URI");
        endpoint.connect().await.expect("the server listens")
    }

    async fn flows(&self) -> FlowServiceClient<Channel> {
        FlowServiceClient::new(self.channel().await).max_decoding_message_size(sluice_proto::MAX_MESSAGE_LEN)
    }

    /// Sends a bundle of changes, a thousand in each message.
    async fn bundle(&self, header: BundleHeader, mods: Vec<FlowMod>) -> Result<ApplyBundleReply, Status> {
        let first = ApplyBundleRequest { header: Some(header), ..Default::default() };
        let parts = mods.chunks(1000).map(|mods| ApplyBundleRequest { mods: mods.to_vec(), ..Default::default() });
        let last = ApplyBundleRequest { commit: true, ..Default::default() };
        let all: Vec<_> = [first].into_iter().chain(parts).chain([last]).collect();
        self.flows().await.apply_bundle(tokio_stream::iter(all)).await.map(tonic::Response::into_inner)
    }

    /// Adds flows, each written as in a flow file.
    async fn add(&self, flows: &[&str]) -> Result<ApplyBundleReply, Status> {
        self.bundle(BundleHeader::default(), flows.iter().map(|f| written(f)).collect()).await
    }

    async fn dump_parts(&self, filter: FlowFilter) -> Vec<DumpFlowsReply> {
        let request = DumpFlowsRequest { filter: Some(filter), ..Default::default() };
        let mut stream = self.flows().await.dump_flows(request).await.expect("a dump").into_inner();
        let mut parts = Vec::new();
        while let Some(part) = stream.message().await.expect("the next part") {
            parts.push(part);
        }
        parts
    }

    async fn dump(&self) -> Vec<Flow> {
        self.dump_parts(FlowFilter::default()).await.into_iter().flat_map(|p| p.flows).collect()
    }

    /// The flows as text: `table,priority,match -> actions`.
    async fn texts(&self) -> Vec<String> {
        let flows = self.dump().await.into_iter();
        flows.map(|f| format!("{},{},{} -> {}", f.table, f.priority, f.r#match, f.actions)).collect()
    }
}

/// A change written as in a flow file.
fn written(flow: &str) -> FlowMod {
    FlowMod { command: Command::AsWritten.into(), flow: flow.to_owned(), ..Default::default() }
}

/// Waits, at most twenty seconds, until `look` finds something.
async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..20_000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it did not happen in twenty seconds");
}

/// A TCP SYN over IPv4 from 10.0.0.1 to 10.0.0.2, to port 80.
fn syn() -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0x66, 0xce, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}
