//! `sluiced`, the switch as a daemon: reads its configuration, makes bridges and ports, serves the control API, and ends
//! without leaving anything behind.
//!
//! The order at the start is: configuration, socket, data path, connections of an earlier start, bridges and ports, containers,
//! API, "ready" to systemd. So a fault in the file touches nothing, a second daemon on the same socket finds out before it makes a
//! device, the first packet of a connection that goes on finds it, and whoever connects finds the switch as the file says.

use clap::Parser;
use clap::error::ErrorKind;
use sluice_switch::api::page::{self, Page, PageError};
use sluice_switch::api::{self, Socket, SocketError};
use sluice_switch::attach;
use sluice_switch::config::{self, Config, DEFAULT_SOCKET, LogFormat, SetupError};
use sluice_switch::mac_table::MacSettings;
use sluice_switch::port::PortError;
use sluice_switch::{Clock, ConnectionKeeper, ControlError, Datapath, systemd};
use std::io::{self, IsTerminal};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Bundles make and drop millions of small pieces of memory on several threads; this allocator gives them back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code: something failed.
const FAILED: u8 = 1;
/// Exit code: the command line or the configuration is wrong.
const USAGE: u8 = 2;
/// Exit code: the kernel does not allow it to this user.
const NO_PRIVILEGE: u8 = 77;

const AFTER_HELP: &str = "\
Without a file there is one bridge, br0, that learns addresses as a switch does, with the host's
interface of that name and no other port. A file says everything: without [bridges] there is none.

  socket = \"/run/sluice/switch.sock\"
  [bridges.br0.ports.tap1]          # a new TAP interface
  type = \"tap\"
  access = 10                       # carries VLAN 10, untagged
  [bridges.br0.ports.eth1]          # an interface that is there
  type = \"af-packet\"

Signals: HUP reads the file again and changes what differs (a file with a fault changes nothing),
TERM and INT end the switch: its TAP interfaces and its socket go with it.

Examples:
  sudo sluiced                                     bridge br0, socket /run/sluice/switch.sock
  sudo sluiced --config /etc/sluice/sluiced.toml
  sluiced --config sluiced.toml --check-config     say what is wrong with a file, and do nothing
  sudo sluiced --log debug --log-format json
  sudo sluiced --ui 127.0.0.1:8484                 with a page for a browser of this machine

Exit codes: 0 ended as asked, 1 failed, 2 wrong usage or configuration, 77 not allowed to this user.";

/// The Sluice switch: a packet switch in user space with OVS's flow language.
#[derive(Debug, Parser)]
#[command(name = "sluiced", version, after_help = AFTER_HELP)]
struct Args {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE", env = "SLUICED_CONFIG")]
    config: Option<PathBuf>,
    /// Socket of the control API, instead of the file's [default: /run/sluice/switch.sock]
    #[arg(short, long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Directory where networks of containers are kept, instead of the file's [default: beside the socket, ending in .state]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// File in which connections are kept, so that they go on after a restart; best below /run [default: none]
    #[arg(long, value_name = "FILE")]
    keep_connections: Option<PathBuf>,
    /// Number of workers, instead of the file's [default: 1]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// What to log, instead of the file's: a level, or directives such as `info,sluice_switch=debug` [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// How to log, instead of the file's [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Serve a page for a browser here that shows what the switch does, and changes nothing, such as 127.0.0.1:8484
    #[arg(long, value_name = "ADDR")]
    ui: Option<SocketAddr>,
    /// With --ui: ADDR may be one that other machines reach. Whoever reaches it sees addresses, rules and packets' heads
    #[arg(long, requires = "ui")]
    ui_remote: bool,
    /// Only check the configuration
    #[arg(long, requires = "config")]
    check_config: bool,
}

/// Why the daemon could not start, with its exit code.
struct Failure(u8, String);

impl Failure {
    fn new(error: impl std::fmt::Display) -> Self {
        Self(FAILED, error.to_string())
    }

    fn usage(error: impl std::fmt::Display) -> Self {
        Self(USAGE, error.to_string())
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        let code = match &error {
            SetupError::Control(ControlError::Port(PortError::NoPrivilege { .. } | PortError::NoBpf { .. })) => {
                NO_PRIVILEGE
            }
            SetupError::Gateway(error) if error.is_denied() => NO_PRIVILEGE,
            SetupError::Control(_) | SetupError::Gateway(_) => FAILED,
            SetupError::Name(_) | SetupError::Router(_) => USAGE,
            SetupError::Spec { .. } | SetupError::Flow { .. } | SetupError::Conntrack(_) => USAGE,
        };
        Self(code, error.to_string())
    }
}

impl From<PageError> for Failure {
    fn from(error: PageError) -> Self {
        match error {
            PageError::NotLoopback(_) => Self::usage(format!("--ui: {error}; --ui-remote if that is meant")),
            _ => Self::new(format!("--ui: {error}")),
        }
    }
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        match &error {
            SocketError::Refused { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Self(NO_PRIVILEGE, format!("{error}; run as root, or give another place with --socket"))
            }
            _ => Self::new(error),
        }
    }
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are asked for, and go to standard output. A closed pipe is no fault of ours.
            _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, what)) => {
            eprintln!("error: {what}");
            ExitCode::from(code)
        }
    }
}

fn load(args: &Args) -> Result<Config, Failure> {
    let config = match &args.config {
        Some(path) => Config::load(path).map_err(Failure::usage)?,
        None => Config::default(),
    };
    config::check(&config)?;
    Ok(config)
}

fn run(args: &Args) -> Result<(), Failure> {
    let config = load(args)?;
    if args.check_config {
        let ports: usize = config.bridges.iter().map(|b| b.ports.len()).sum();
        let flows: usize = config.bridges.iter().filter_map(|b| b.flows.as_ref()).map(Vec::len).sum();
        println!("the configuration is good; bridges: {}, ports: {ports}, flows: {flows}", config.bridges.len());
        return Ok(());
    }
    let log = Log::start(args, &config)?;
    let socket = args.socket.as_deref().or(config.socket.as_deref()).unwrap_or(Path::new(DEFAULT_SOCKET));
    let state = args.state.clone().or_else(|| config.state.clone()).unwrap_or_else(|| socket.with_extension("state"));
    let socket = Socket::bind(socket)?;
    let page = args.ui.map(|address| page::bind(address, args.ui_remote)).transpose()?;
    let datapath = Datapath::start(datapath_config(args, &config)).map_err(Failure::new)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    // Before there are ports: the first packet of a connection that goes on has to find it.
    let keeper = args.keep_connections.clone().map(|file| ConnectionKeeper::start(datapath.clone(), file));
    let keeper = keeper.transpose().map_err(Failure::new)?;
    // Signals are taken before anything is made that would have to be taken down.
    let result = runtime.block_on(async {
        let signals = Signals::take().map_err(Failure::new)?;
        let started = config::start(&datapath, &config).map_err(Failure::from);
        if let Err(failure) = started.and_then(|()| attach::start(&datapath, &state).map_err(Failure::new)) {
            stop_all(&datapath, &config);
            return Err(failure);
        }
        serve(args, config, &datapath, (socket, page), signals, &log).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    datapath.shutdown();
    // It writes a last time: nothing changes any more.
    drop(keeper);
    result
}

fn datapath_config(args: &Args, config: &Config) -> sluice_switch::Config {
    let default = sluice_switch::Config::default();
    let mut macs = MacSettings::default();
    if let Some(seconds) = config.mac_age_s {
        macs.ageing = u64::from(seconds) * 1000;
    }
    sluice_switch::Config {
        workers: args.workers.map(usize::from).or(config.workers).unwrap_or(default.workers),
        pin: config.pin.clone(),
        spin: config.spin_us.map_or(default.spin, |spin| Duration::from_micros(spin.into())),
        macs,
        // What is kept of connections has times that the next start knows.
        clock: Clock::since_boot(),
        ..default
    }
}

/// The signals that the daemon listens to.
struct Signals {
    hangup: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn take() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

async fn serve(
    args: &Args,
    mut config: Config,
    datapath: &Datapath,
    (socket, page): (Socket, Option<TcpListener>),
    mut signals: Signals,
    log: &Log,
) -> Result<(), Failure> {
    info!(socket = %socket.path().display(), bridges = config.bridges.len(), "ready");
    if let Some(listener) = page {
        let page = Page { scene: Arc::new(page::Bridges), socket: socket.path().to_owned(), writes: false };
        info!(address = %listener.local_addr().map_err(Failure::new)?, "page");
        tokio::spawn(async move {
            // It ends with the runtime.
            if let Err(what) = page::serve(listener, page, std::future::pending()).await {
                error!(%what, "the page is not served any more");
            }
        });
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let server = api::serve(datapath.clone(), socket, async {
        // An error means that the sender is gone, which is an end as well.
        _ = stopped.await;
    });
    let mut server = std::pin::pin!(server);
    systemd::notify("READY=1");
    loop {
        tokio::select! {
            result = &mut server => {
                stop_all(datapath, &config);
                return result.map_err(Failure::new);
            }
            _ = signals.hangup.recv() => config = reload(args, config, datapath, log).await,
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    info!("ending");
    systemd::notify("STOPPING=1");
    // It fails only when the server has ended already.
    _ = stop.send(());
    let result = server.await.map_err(Failure::new);
    stop_all(datapath, &config);
    result
}

/// Takes away what is ours on the host.
fn stop_all(datapath: &Datapath, config: &Config) {
    attach::stop(datapath);
    config::stop(datapath, config);
}

/// Reads the file again and changes what differs. Returns the configuration that is now in force.
async fn reload(args: &Args, old: Config, datapath: &Datapath, log: &Log) -> Config {
    if args.config.is_none() {
        warn!("nothing to reload: there is no configuration file");
        return old;
    }
    let new = match load(args) {
        Ok(new) => new,
        Err(Failure(_, what)) => {
            error!(%what, "the configuration has a fault and was not loaded; the switch stays as it is");
            return old;
        }
    };
    log.set_level(args, &new);
    let (datapath, before, after) = (datapath.clone(), old.clone(), new.clone());
    let work = tokio::task::spawn_blocking(move || config::reload(&datapath, &before, &after));
    match work.await {
        Ok(Ok((changes, failures))) => {
            changes.iter().for_each(|change| info!("{change}"));
            failures.iter().for_each(|what| error!(%what, "not done"));
            info!(changes = changes.len(), failures = failures.len(), "reloaded");
            new
        }
        Ok(Err(what)) => {
            error!(%what, "the configuration has a fault and was not loaded; the switch stays as it is");
            old
        }
        Err(what) => {
            error!(%what, "the reload failed inside");
            old
        }
    }
}

/// The log, whose level can change.
struct Log(reload::Handle<EnvFilter, Registry>);

impl Log {
    fn start(args: &Args, config: &Config) -> Result<Self, Failure> {
        let filter = filter(args, config).map_err(Failure::usage)?;
        let (filter, handle) = reload::Layer::new(filter);
        let registry = tracing_subscriber::registry().with(filter);
        match args.log_format.or(config.log_format).unwrap_or_default() {
            LogFormat::Text => {
                let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
                registry.with(fmt::layer().with_ansi(color).with_writer(io::stderr)).init();
            }
            LogFormat::Json => registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).init(),
        }
        Ok(Self(handle))
    }

    fn set_level(&self, args: &Args, config: &Config) {
        match filter(args, config) {
            Ok(filter) => {
                if let Err(what) = self.0.reload(filter) {
                    warn!(%what, "the log level stays");
                }
            }
            Err(what) => warn!(%what, "the log level stays"),
        }
    }
}

fn filter(args: &Args, config: &Config) -> Result<EnvFilter, String> {
    let level = args.log.as_deref().or(config.log_level.as_deref()).unwrap_or("info");
    config::log_filter(level)
}
