//! The way to a running switch: which socket, or which node of a cluster, and calls from code that does not wait otherwise.
//!
//! A verb is one or two calls, so there is no more to it than a single-threaded runtime that runs each call to its end.

use crate::failure::Failure;
use crate::kube::{self, Cluster, ClusterArgs};
use crate::lab;
use crate::output::Exit;
use clap::Args;
use hyper_util::rt::TokioIo;
use sluice_proto::MAX_MESSAGE_LEN;
use sluice_proto::v1::attachment_service_client::AttachmentServiceClient;
use sluice_proto::v1::bridge_service_client::BridgeServiceClient;
use sluice_proto::v1::capture_service_client::CaptureServiceClient;
use sluice_proto::v1::connection_service_client::ConnectionServiceClient;
use sluice_proto::v1::event_service_client::EventServiceClient;
use sluice_proto::v1::fdb_service_client::FdbServiceClient;
use sluice_proto::v1::flow_service_client::FlowServiceClient;
use sluice_proto::v1::gateway_service_client::GatewayServiceClient;
use sluice_proto::v1::group_service_client::GroupServiceClient;
use sluice_proto::v1::meter_service_client::MeterServiceClient;
use sluice_proto::v1::mirror_service_client::MirrorServiceClient;
use sluice_proto::v1::packet_service_client::PacketServiceClient;
use sluice_proto::v1::port_service_client::PortServiceClient;
use sluice_proto::v1::router_service_client::RouterServiceClient;
use sluice_proto::v1::stats_service_client::StatsServiceClient;
use sluice_proto::v1::status_service_client::StatusServiceClient;
use sluice_proto::v1::table_service_client::TableServiceClient;
use sluice_proto::v1::trace_service_client::TraceServiceClient;
use sluice_proto::v1::tunnel_service_client::TunnelServiceClient;
use std::future::Future;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};
use tower::service_fn;

/// Where a switch is when nothing else is said.
const DEFAULT_SOCKET: &str = "/run/sluice/switch.sock";
/// Names the socket in the environment.
const ENVIRONMENT: &str = "SLUICE_SOCKET";

/// How long a connection is silent before it is asked whether the switch is still there.
const PING_EVERY: Duration = Duration::from_secs(5);
/// How long the answer may take.
const PING_ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long what leads to another machine's switch may take to say why it ended.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(300);

/// Bytes of an answer that may be under way before they are read: a dump need not wait for each other message.
const WINDOW: u32 = 1 << 20;

/// Which switch a verb talks to.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which switch")]
pub(crate) struct Target {
    /// Socket of the switch; else SLUICE_SOCKET, else the only running lab, else /run/sluice/switch.sock
    #[arg(long, value_name = "PATH", conflicts_with_all = ["lab", "node", "kubeconfig", "context"])]
    socket: Option<PathBuf>,
    /// The switch of this running lab
    #[arg(long, value_name = "NAME", conflicts_with_all = ["node", "kubeconfig", "context"])]
    lab: Option<String>,
    /// Or a switch of a cluster.
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// How a switch is reached.
pub(crate) enum Reach {
    /// By a socket of this machine.
    Socket(PathBuf),
    /// Through the API server of a cluster, of which this machine is no node.
    Cluster(Cluster),
}

/// The socket of the switch that this machine has by itself.
pub(crate) fn machine_socket() -> PathBuf {
    given_socket().unwrap_or_else(|| DEFAULT_SOCKET.into())
}

/// The socket that the environment names.
fn given_socket() -> Option<PathBuf> {
    std::env::var_os(ENVIRONMENT).filter(|socket| !socket.is_empty()).map(PathBuf::from)
}

/// Which bridge of that switch.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which switch")]
pub(crate) struct BridgeArg {
    /// The bridge; not needed when there is only one
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) bridge: String,
}

/// When a stream is to be left.
pub(crate) type End = Pin<Box<dyn Future<Output = ()>>>;

/// What came of a stream within some time.
pub(crate) enum Waited<T> {
    Message(T),
    /// It is over.
    End,
    /// Nothing.
    Late,
}

/// A connection to a switch.
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    /// The socket; or what we call the switch, if it is another machine's.
    at: At,
}

enum At {
    Socket(PathBuf),
    /// Its name, and what the process that leads there says of its failure.
    Elsewhere(String, Arc<Mutex<String>>),
}

macro_rules! services {
    ($($name:ident: $client:ident, $doc:literal;)+) => {
        impl Client {
            $(
                #[doc = $doc]
                pub(crate) fn $name(&self) -> $client<Channel> {
                    $client::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_LEN)
                }
            )+
        }
    };
}

services! {
    bridges: BridgeServiceClient, "Bridges.";
    ports: PortServiceClient, "Ports.";
    flows: FlowServiceClient, "Flows.";
    groups: GroupServiceClient, "Groups.";
    meters: MeterServiceClient, "Meters.";
    mirrors: MirrorServiceClient, "Mirrors.";
    tables: TableServiceClient, "Tables as such.";
    stats: StatsServiceClient, "Counters and drops.";
    fdb: FdbServiceClient, "Learned addresses.";
    trace: TraceServiceClient, "Traces.";
    tunnels: TunnelServiceClient, "Tunnels.";
    gateways: GatewayServiceClient, "Gateways.";
    packets: PacketServiceClient, "Packet-out.";
    events: EventServiceClient, "Events.";
    status: StatusServiceClient, "The state of the switch.";
    connections: ConnectionServiceClient, "Tracked connections.";
    routers: RouterServiceClient, "Routers.";
    captures: CaptureServiceClient, "Copies of frames.";
    attachments: AttachmentServiceClient, "Networks of containers.";
}

impl Client {
    /// Connects to the switch that `target` means.
    ///
    /// # Errors
    /// [`Exit::NoDaemon`] when nothing listens there, [`Exit::NoPrivilege`] when it is not ours to use.
    pub(crate) fn connect(target: &Target) -> Result<Self, Failure> {
        Self::connect_for(target, None)
    }

    /// Connects to the switch that `target` means; in a cluster, where it names no node, to that of the Pod `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// As [`Self::connect`]; there is no such Pod.
    pub(crate) fn connect_for(target: &Target, pod: Option<&str>) -> Result<Self, Failure> {
        match (target.reach()?, pod) {
            (Reach::Cluster(cluster), Some(pod)) if target.cluster.node.is_none() => {
                cluster.client(Some(&cluster.node_of(pod)?))
            }
            (Reach::Cluster(cluster), _) => cluster.client(target.cluster.node.as_deref()),
            (Reach::Socket(socket), _) => Self::connect_to(socket),
        }
    }

    /// Connects to the switch that `target` means; in a cluster, where it names no node, to any.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) fn connect_any(target: &Target) -> Result<Self, Failure> {
        match target.reach()? {
            Reach::Cluster(cluster) if target.cluster.node.is_none() => kube::any(&cluster),
            _ => Self::connect(target),
        }
    }

    /// Connects to the switch that listens on `socket`.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) fn connect_to(socket: PathBuf) -> Result<Self, Failure> {
        // Says more about what is wrong than the channel would.
        UnixStream::connect(&socket).map_err(|e| cannot_connect(&socket, &e))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::new(format!("cannot start: {e}")))?;
        let channel = runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
            patient(endpoint).connect().await
        });
        let channel = channel.map_err(|e| {
            Failure::new(format!("what listens on {} is no switch of this kind: {e}", socket.display()))
                .exit(Exit::NoDaemon)
        })?;
        Ok(Self { runtime, channel, at: At::Socket(socket) })
    }

    /// Speaks to the switch at the other end of `stream`, which we call `name`. What leads there writes into `said` why it
    /// failed.
    ///
    /// # Errors
    /// Nothing answers there.
    pub(crate) fn over(
        runtime: tokio::runtime::Runtime,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        said: Arc<Mutex<String>>,
        name: String,
    ) -> Result<Self, Failure> {
        let mut stream = Some(TokioIo::new(stream));
        let connect = service_fn(move |_| {
            let stream = stream.take().ok_or_else(|| std::io::Error::from(ErrorKind::NotConnected));
            async move { stream }
        });
        let channel = runtime.block_on(async {
            let endpoint = Endpoint::from_static("http://switch.invalid");
            patient(endpoint).connect_with_connector(connect).await
        });
        let channel = channel.map_err(|e| {
            Failure::new(format!("the switch of {name} does not answer")).why(e.to_string()).exit(Exit::NoDaemon)
        })?;
        Ok(Self { runtime, channel, at: At::Elsewhere(name, said) })
    }

    /// Whether it is the switch that listens on this socket.
    pub(crate) fn is_of(&self, socket: &Path) -> bool {
        matches!(&self.at, At::Socket(own) if own == socket)
    }

    /// Runs a call to its end.
    ///
    /// # Errors
    /// What the switch answered.
    pub(crate) fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
        self.runtime.block_on(call).map(Response::into_inner).map_err(|s| self.failure(&s))
    }

    /// The next message of a stream; `None` at its end.
    ///
    /// # Errors
    /// The stream broke.
    pub(crate) fn next<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, Failure> {
        self.runtime.block_on(stream.message()).map_err(|s| self.failure(&s))
    }

    /// When a stream is to be left: after this time if there is one, and when Ctrl-C is pressed. From now on that does
    /// not end the program.
    ///
    /// # Errors
    /// The system has no signals left.
    pub(crate) fn end_after(&self, time: Option<Duration>) -> Result<End, Failure> {
        let mut interrupted = self.interrupts()?;
        Ok(Box::pin(async move {
            let wait = async {
                match time {
                    Some(time) => tokio::time::sleep(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = interrupted.recv() => {}
                () = wait => {}
            }
        }))
    }

    /// Where it is noticed that Ctrl-C is pressed. From now on that does not end the program.
    ///
    /// # Errors
    /// The system has no signals left.
    pub(crate) fn interrupts(&self) -> Result<Signal, Failure> {
        let interrupts = self.runtime.block_on(async { signal(SignalKind::interrupt()) });
        interrupts.map_err(|error| Failure::new(format!("cannot wait for Ctrl-C: {error}")))
    }

    /// Waits so long, or until Ctrl-C is pressed. Returns whether it was.
    pub(crate) fn pause(&self, time: Duration, interrupts: &mut Signal) -> bool {
        self.runtime.block_on(async {
            tokio::select! {
                _ = interrupts.recv() => true,
                () = tokio::time::sleep(time) => false,
            }
        })
    }

    /// The next message of a stream; `None` at its end, or once `end` has come.
    ///
    /// # Errors
    /// The stream broke.
    pub(crate) fn next_before<T>(&self, stream: &mut Streaming<T>, end: &mut End) -> Result<Option<T>, Failure> {
        self.runtime.block_on(async {
            tokio::select! {
                message = stream.message() => message.map_err(|s| self.failure(&s)),
                () = end => Ok(None),
            }
        })
    }

    /// The next message of a stream, if it comes within this time.
    ///
    /// # Errors
    /// The stream broke.
    pub(crate) fn next_within<T>(&self, stream: &mut Streaming<T>, time: Duration) -> Result<Waited<T>, Failure> {
        let next = self.runtime.block_on(async { tokio::time::timeout(time, stream.message()).await });
        match next {
            Err(_) => Ok(Waited::Late),
            Ok(Ok(Some(message))) => Ok(Waited::Message(message)),
            Ok(Ok(None)) => Ok(Waited::End),
            Ok(Err(status)) => Err(self.failure(&status)),
        }
    }

    /// Every message of a stream.
    ///
    /// # Errors
    /// The call failed, or the stream broke.
    pub(crate) fn collect<T>(
        &self,
        call: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
    ) -> Result<Vec<T>, Failure> {
        let mut stream = self.call(call)?;
        let mut all = Vec::new();
        while let Some(part) = self.next(&mut stream)? {
            all.push(part);
        }
        Ok(all)
    }

    fn failure(&self, status: &Status) -> Failure {
        if let Some(why) = lost_connection(status) {
            return self.lost(why);
        }
        let failure = Failure::new(status.message());
        match status.code() {
            Code::InvalidArgument => failure.exit(Exit::Usage),
            Code::PermissionDenied => failure.exit(Exit::NoPrivilege),
            Code::Unimplemented => Failure::new("the switch does not know this request")
                .why("it is of another version")
                .next("sluice status"),
            Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => failure,
            code => failure.why(code.description()),
        }
    }

    /// The switch went away, because of `why`.
    fn lost(&self, why: String) -> Failure {
        let failure = match &self.at {
            At::Socket(socket) => {
                Failure::new(format!("the switch on {} went away, or does not answer", socket.display()))
                    .why(why)
                    .next("sluice status; sluice lab ls shows labs that died")
            }
            At::Elsewhere(name, said) => {
                // What the other side says of it comes behind the end of the stream.
                self.runtime.block_on(async { tokio::time::sleep(LAST_WORDS_WITHIN).await });
                let said = said.lock().map(|said| said.trim().to_owned()).unwrap_or_default();
                Failure::new(format!("the switch of {name} went away, or does not answer"))
                    .why(if said.is_empty() { why } else { said.replace('\n', ";") })
                    .next("sluice status --node all")
            }
        };
        failure.exit(Exit::NoDaemon)
    }
}

/// How long a connection may be silent: a switch that is stopped or stuck is told from one that has much to do by whether it
/// answers pings.
fn patient(endpoint: Endpoint) -> Endpoint {
    endpoint
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER_WITHIN)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
}

impl Target {
    /// How the switch is reached that is meant: by a socket of this machine wherever there is one, unless a cluster is asked
    /// for.
    ///
    /// # Errors
    /// The lab or the kubeconfig that is asked for cannot be found.
    pub(crate) fn reach(&self) -> Result<Reach, Failure> {
        if !self.cluster.is_given() {
            let socket = self.socket()?;
            let is_default = socket == Path::new(DEFAULT_SOCKET) && self.socket.is_none();
            if !is_default || socket.exists() {
                return Ok(Reach::Socket(socket));
            }
        }
        Ok(match Cluster::find(&self.cluster)? {
            Some(cluster) => Reach::Cluster(cluster),
            None => Reach::Socket(DEFAULT_SOCKET.into()),
        })
    }

    /// Whether the switch is the one that a machine has by itself, where nothing else is said.
    pub(crate) fn is_default(&self, client: &Client) -> bool {
        client.is_of(Path::new(DEFAULT_SOCKET))
    }

    /// A plain connection to the socket of this machine that is meant.
    ///
    /// # Errors
    /// As [`Client::connect_to`].
    pub(crate) fn connect_here(&self) -> Result<UnixStream, Failure> {
        let socket = self.socket()?;
        UnixStream::connect(&socket).map_err(|e| cannot_connect(&socket, &e))
    }

    /// The socket that is meant.
    fn socket(&self) -> Result<PathBuf, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        if let Some(lab) = &self.lab {
            return Ok(lab::running(Some(lab))?.1.socket);
        }
        if let Some(socket) = given_socket() {
            return Ok(socket);
        }
        match lab::running(None) {
            Ok((_, state)) => Ok(state.socket),
            Err(failure) if failure.exit_code() == Exit::NoDaemon => Ok(DEFAULT_SOCKET.into()),
            Err(failure) => Err(failure),
        }
    }

    /// The lab that is meant.
    ///
    /// # Errors
    /// There is none, or the switch that is meant is not a lab's.
    pub(crate) fn lab(&self) -> Result<lab::State, Failure> {
        if self.socket.is_some() || self.cluster.is_given() {
            return Err(Failure::usage("names of hosts mean something in a lab only").next("leave out --socket"));
        }
        lab::joined(self.lab.as_deref()).map(|(_, state)| state)
    }
}

/// Why the connection broke, if that is why a call failed: the switch itself answers with a status and no source.
fn lost_connection(status: &Status) -> Option<String> {
    let mut source = std::error::Error::source(status);
    let broke = source.is_some() || matches!(status.code(), Code::Unavailable | Code::Cancelled);
    let mut why = status.message().to_owned();
    while let Some(error) = source {
        why = error.to_string();
        source = error.source();
    }
    broke.then_some(why)
}

fn cannot_connect(socket: &Path, error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            Failure::new(format!("no switch listens on {}", socket.display()))
                .next("sluice lab up --topo single,2, or sudo sluiced, or say where with --socket or --kubeconfig")
                .exit(Exit::NoDaemon)
        }
        ErrorKind::PermissionDenied => {
            Failure::new(format!("the switch on {} is not open to this user", socket.display()))
                .next("sudo sluice ...")
                .exit(Exit::NoPrivilege)
        }
        _ => Failure::new(format!("cannot reach the switch on {}: {error}", socket.display())).exit(Exit::NoDaemon),
    }
}
