//! The command line: one verb a role or chore.

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use sluice_controller::cleanup;
use sluice_controller::cluster;
use sluice_controller::config::{Config, DEFAULT_FILE, DEFAULT_NAMESPACE};
use sluice_controller::http;
use sluice_controller::install;
use sluice_controller::node;
use sluice_controller::watch::link::candidates;
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

/// Exit code: something failed.
const FAILED: u8 = 1;
/// Exit code: the command line or the configuration is wrong.
const USAGE: u8 = 2;

const NODE_HELP: &str = "\
Without a file of that name, every key has its default. TERM and INT end it at once, and everything
that it has programmed stays in force.

Examples:
  sluice-controller node --config /etc/sluice/node.toml
  NODE_NAME=node-1 sluice-controller node --kubeconfig ~/.kube/config --log debug";

const CLUSTER_HELP: &str = "\
One instance leads, as the Lease sluice-cluster says; nodes find it by the ConfigMap of that name.
Of the configuration, api_servers and log count. TERM and INT end it; policies stay in force.

Examples:
  sluice-controller cluster --config /etc/sluice/node.toml --address 192.0.2.1
  sluice-controller cluster --kubeconfig ~/.kube/config --name me --address 192.0.2.1";

const INSTALL_HELP: &str = "\
Example:
  sluice-controller install-cni --to /opt/cni/bin";

const CLEANUP_HELP: &str = "\
To be run when neither sluiced nor the node role runs on the machine any more. What it does it says,
one line each; a second run finds nothing. Pods that are still there lose their interface.

Example:
  sluice-controller cleanup --dry-run";

const PROBE_HELP: &str = "\
Prints the parts that are not well and what to do about them; the kubelet shows that as an Event,
which it does not with what an HTTP probe answers. The exit code is 1 then.

Example:
  sluice-controller probe readyz";

/// The controllers of Sluice on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "sluice-controller", version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Watch the cluster and program the switch of this node
    #[command(after_help = NODE_HELP)]
    Node {
        /// Configuration file (TOML)
        #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
        config: PathBuf,
        /// Reach the API server as this kubeconfig says, instead of as a Pod does
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        /// What to log, instead of the file's: a level, or directives such as `info,kube=debug`
        #[arg(long, value_name = "LEVEL")]
        log: Option<String>,
    },
    /// Work out policies for the whole cluster, and stream to each node what it needs
    #[command(after_help = CLUSTER_HELP)]
    Cluster(ClusterArgs),
    /// Put the CNI plugin where the container runtime looks for it
    #[command(after_help = INSTALL_HELP)]
    InstallCni {
        /// The plugin
        #[arg(long, value_name = "FILE", default_value = install::PLUGIN)]
        from: PathBuf,
        /// The folder that it goes to
        #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
        to: PathBuf,
    },
    /// Ask the node role of this machine how it is, as the kubelet's probes do
    #[command(after_help = PROBE_HELP)]
    Probe {
        /// What to ask: whether it lives, or whether all of it is well
        #[arg(value_parser = ["livez", "readyz"])]
        probe: String,
        /// Configuration file (TOML), for metrics_address
        #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
        config: PathBuf,
    },
    /// Take everything of ours off this machine
    #[command(after_help = CLEANUP_HELP)]
    Cleanup {
        /// Configuration file (TOML), for the folders that it names
        #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
        config: PathBuf,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// When all is done, wait for TERM or INT, as a Pod of a DaemonSet has to
        #[arg(long, conflicts_with = "dry_run")]
        stay: bool,
    },
}

#[derive(Debug, clap::Args)]
struct ClusterArgs {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// Reach the API server as this kubeconfig says, instead of as a Pod does
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Name of this instance, which no other one has
    #[arg(long, env = "POD_NAME")]
    name: String,
    /// Namespace of Sluice's own objects
    #[arg(long, env = "POD_NAMESPACE", default_value = DEFAULT_NAMESPACE)]
    namespace: String,
    /// Address at which nodes reach this instance
    #[arg(long, value_name = "IP", env = "POD_IP")]
    address: IpAddr,
    /// Where to listen for nodes
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0u16; 8], cluster::PORT)))]
    listen: SocketAddr,
    /// Where to answer metrics and probes
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0u16; 8], cluster::METRICS_PORT)))]
    metrics: SocketAddr,
    /// What to log, instead of the file's: a level, or directives such as `info,kube=debug`
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

/// What went wrong, with its exit code.
struct Failure(u8, String);

pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are asked for, and go to standard output. A closed pipe is no fault of ours.
            _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    let result = match args.verb {
        Verb::Node { config, kubeconfig, log } => run_node(&config, kubeconfig.as_deref(), log),
        Verb::Cluster(args) => run_cluster(args),
        Verb::InstallCni { from, to } => run_install(&from, &to),
        Verb::Probe { probe, config } => run_probe(&config, &probe),
        Verb::Cleanup { config, dry_run, stay } => {
            run_cleanup(&config, dry_run).and_then(|()| if stay { until_told() } else { Ok(()) })
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, what)) => {
            eprintln!("error: {what}");
            ExitCode::from(code)
        }
    }
}

/// Reads the configuration; a file at the default place need not be there.
fn load(file: &Path) -> Result<(Config, Vec<String>), Failure> {
    if file == Path::new(DEFAULT_FILE) && !file.exists() {
        return Ok((Config::default(), Vec::new()));
    }
    Config::load(file).map_err(|error| Failure(USAGE, error.to_string()))
}

fn start_log(directives: &str) -> Result<(), Failure> {
    // What goes wrong there is told by those who called.
    let filter = EnvFilter::try_new(format!("kube_client=off,{directives}")).map_err(|error| {
        Failure(
            USAGE,
            format!("log = {directives:?}: {error}; a level (error, warn, info, debug, trace) or directives"),
        )
    })?;
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    Ok(())
}

fn run_node(file: &Path, kubeconfig: Option<&Path>, log: Option<String>) -> Result<(), Failure> {
    let (mut config, warnings) = load(file)?;
    if let Some(log) = log {
        config.log = log;
    }
    start_log(&config.log)?;
    warnings.iter().for_each(|warning| warn!("{warning}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure(FAILED, format!("cannot start: {error}")))?;
    let result = runtime.block_on(async {
        let failed = |error: std::io::Error| Failure(FAILED, format!("cannot listen to signals: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let candidates = candidates(kubeconfig, &config.api_servers);
        tokio::select! {
            result = node::run(config, candidates) => result.map_err(|error| Failure(FAILED, error.to_string())),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    });
    if result.is_ok() {
        info!("ended; what is programmed stays in force");
    }
    runtime.shutdown_background();
    result
}

fn run_cluster(args: ClusterArgs) -> Result<(), Failure> {
    let (config, warnings) = load(&args.config)?;
    start_log(&args.log.unwrap_or(config.log))?;
    warnings.iter().for_each(|warning| warn!("{warning}"));
    let candidates = candidates(args.kubeconfig.as_deref(), &config.api_servers);
    let config = cluster::Config {
        name: args.name,
        namespace: args.namespace,
        listen: args.listen,
        address: SocketAddr::new(args.address, args.listen.port()),
        metrics_address: args.metrics,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure(FAILED, format!("cannot start: {error}")))?;
    let result = runtime.block_on(async {
        let failed = |error: std::io::Error| Failure(FAILED, format!("cannot listen to signals: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        cluster::run(config, candidates, stop).await.map_err(|error| Failure(FAILED, error.to_string()))
    });
    if result.is_ok() {
        info!("ended; policies stay in force");
    }
    runtime.shutdown_background();
    result
}

/// Waits for TERM or INT.
fn until_told() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure(FAILED, format!("cannot listen to signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

fn run_install(from: &Path, to: &Path) -> Result<(), Failure> {
    let done = install::install(from, to).map_err(|error| Failure(FAILED, error.to_string()))?;
    println!("{done}");
    Ok(())
}

fn run_probe(file: &Path, probe: &str) -> Result<(), Failure> {
    let (config, _) = load(file)?;
    match http::ask(config.metrics_address, probe) {
        Ok(answer) => println!("{answer}"),
        Err(what) => return Err(Failure(FAILED, what)),
    }
    Ok(())
}

fn run_cleanup(file: &Path, dry_run: bool) -> Result<(), Failure> {
    let (config, warnings) = load(file)?;
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let mut failures = 0;
    let mut lines = 0;
    for line in cleanup::run(&config, dry_run) {
        lines += 1;
        match line {
            Ok(done) => println!("{done}"),
            Err(error) => {
                failures += 1;
                eprintln!("error: {error}");
            }
        }
    }
    if lines == 0 {
        println!("nothing of ours is on this machine");
    }
    if failures > 0 {
        return Err(Failure(FAILED, format!("{failures} of {lines} could not be done; see above, and try again")));
    }
    Ok(())
}
