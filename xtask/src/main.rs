//! Repository chores as code: `cargo xtask --help` lists them.

mod command;
mod dist;
mod failures;
mod image;
mod layering;

use anyhow::{Context, Result};
use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use command::{cargo, cargo_with, program, script, suites, target_dir};
use std::path::PathBuf;
use std::process::ExitCode;
use xtask::toolbox;

/// Repository chores. Every one runs from any folder of the checkout.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build Sluice, join two hosts by a switch, let them ping each other, and clean up.
    Hello,
    /// Install what the tests need, then run every check and every test: what CI runs.
    Test,
    /// The suites that take long: 2,000 random programs beside Open vSwitch, more random programs and clusters, and longer fuzzing.
    Nightly {
        /// Seed of the first random program beside Open vSwitch.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Format, lints and layering only; installs nothing.
    Check,
    /// Check which crate may depend on which.
    Layering,
    /// Build static, stripped binaries of sluiced, sluice, sluice-controller and sluice-cni into target/dist/.
    Dist,
    /// Write the container image that deploy/ installs, without Docker; the same programs give the same bytes.
    #[command(group = ArgGroup::new("to").required(true).multiple(true))]
    Image {
        /// Write an OCI archive here: `ctr images import`, `podman load`, `docker load` and `k3s ctr` take it.
        #[arg(short = 'o', long = "output", value_name = "FILE.tar", group = "to")]
        archive: Option<PathBuf>,
        /// Write the image's files here, for deploy/image/Dockerfile.
        #[arg(long, value_name = "DIR", group = "to")]
        folder: Option<PathBuf>,
        /// What runtimes know the image by.
        #[arg(long, default_value = image::NAME)]
        name: String,
        /// Programs of the dev profile with this machine's libraries: quick, for clusters on this machine.
        #[arg(long)]
        debug: bool,
    },
    /// Write an image of busybox and programs of this machine, for containers of tests.
    Toolbox {
        /// The archive.
        file: PathBuf,
        /// What runtimes know it by.
        name: String,
        /// Programs, each a path or FROM:PATH for another path in the image.
        programs: Vec<String>,
    },
    /// Install the Debian packages that tests and benches use (needs root).
    Setup,
    /// Measure Sluice beside others, each in one run, and print tables (needs root).
    Bench {
        /// What to measure.
        #[arg(value_enum, default_value_t = Measured::Ports)]
        what: Measured,
        /// Seconds of each measurement of traffic; 2 to 4 unless said, by what is measured.
        #[arg(long)]
        seconds: Option<u32>,
    },
}

/// Measurements beside others.
#[derive(Clone, Copy, ValueEnum)]
enum Measured {
    /// Packets between network namespaces, by each kind of port, beside a kernel bridge and Open vSwitch: seven minutes.
    Ports,
    /// The data path alone, beside Open vSwitch with DPDK, how it grows with flows, rules and masks, and with a second worker: ten minutes.
    Datapath,
    /// Changes of flows, beside Open vSwitch: a minute.
    Flows,
    /// Labs of 2, 10 and 50 hosts, beside Mininet, and a leaf-spine network of 50 nodes: two minutes.
    Lab,
    /// Pods of a real cluster, beside a kernel bridge with kube-proxy and the kernel's VXLAN: ten minutes.
    Cluster,
    /// How soon changes of Services are in force, at 10 to 10,000 Services, beside kube-proxy: half an hour.
    Services,
    /// How soon a NetworkPolicy is in force, and what policies cost traffic, at up to 5,000 of them on a node: ten minutes.
    Policies,
}

fn main() -> ExitCode {
    match run(Args::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    match chore {
        Chore::Hello => {
            build_release()?;
            hello("release")
        }
        Chore::Test => {
            setup()?;
            check()?;
            test()?;
            // What was built for the tests will do.
            hello("debug")
        }
        Chore::Nightly { seed } => nightly(seed),
        Chore::Check => check(),
        Chore::Layering => layering::check(),
        Chore::Dist => dist::dist().map(drop),
        Chore::Image { archive, folder, name, debug } => {
            image::image(archive.as_deref(), folder.as_deref(), &name, debug)
        }
        Chore::Toolbox { file, name, programs } => {
            let programs: Vec<&str> = programs.iter().map(String::as_str).collect();
            toolbox::write(&file, &name, &programs).context("cannot write the image")
        }
        Chore::Setup => setup(),
        Chore::Bench { what, seconds } => bench(what, seconds),
    }
}

/// Two hosts that ping each other, by the programs in a folder of the target directory.
fn hello(built: &str) -> Result<()> {
    let sluice = |args: &[&str]| program(&target_dir().join(built).join("sluice"), args);
    sluice(&["lab", "up", "--topo", "single,2", "--name", "hello"])?;
    let pinged = sluice(&["lab", "ping", "--lab", "hello"]);
    sluice(&["lab", "down", "hello"])?;
    pinged
}

fn build_release() -> Result<()> {
    cargo(&["build", "--release", "--locked", "--package", "sluice-cli", "--package", "sluice-switch"])
}

fn check() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    layering::check()?;
    cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"])
}

fn test() -> Result<()> {
    cargo(&["build", "--workspace", "--bins", "--locked"])?;
    suites(&["test", "--workspace", "--locked", "--no-fail-fast"])
}

/// Programs beside Open vSwitch, programs beside the interpreter, programs of connections, clusters beside the evaluator of policies,
/// cases of each property test, and Pods that are made at once.
const NIGHTLY: [(&str, &str); 6] = [
    ("SLUICE_DIFF_TABLES", "2000"),
    ("SLUICE_PROGRAMS", "10000"),
    ("SLUICE_CT_PROGRAMS", "500"),
    ("SLUICE_POLICY_WORLDS", "10000"),
    ("PROPTEST_CASES", "20000"),
    ("SLUICE_KUBE_PODS", "100"),
];

fn nightly(seed: u64) -> Result<()> {
    setup()?;
    let seed = seed.to_string();
    let environment =
        [&NIGHTLY[..], &[("SLUICE_DIFF_SEED", seed.as_str()), ("SLUICE_CT_SEED", seed.as_str())]].concat();
    let suites = ["ovs_differential", "translation", "ovs_conntrack", "conntrack", "policy_compute", "kube"];
    let suites = suites.map(|suite| ["--test", suite]).concat();
    let beside =
        cargo_with(&environment, &[&["test", "--release", "--locked", "-p", "sluice-tests"][..], &suites].concat());
    let properties = cargo_with(&environment, &["test", "--release", "--locked", "-p", "sluice-flows"]);
    let variants = VARIANTS.map(variant).into_iter().collect::<Result<()>>();
    beside.and(properties).and(variants)
}

/// Other ports and more workers for suites that take a TAP and one worker where any will do (`tests/src/variant.rs`).
const VARIANTS: [(&str, &str); 4] = [
    ("SLUICE_TEST_WORKERS", "2"),
    ("SLUICE_TEST_PORTS", "tap-plain"),
    ("SLUICE_TEST_PORTS", "af-packet"),
    ("SLUICE_TEST_PORTS", "af-xdp"),
];

fn variant(variant: (&str, &str)) -> Result<()> {
    let suites = ["switch_traffic", "stateful", "routing", "tunnels", "ftp", "datapath", "conntrack", "routers"];
    let suites = suites.map(|suite| ["--test", suite]).concat();
    cargo_with(&[variant], &[&["test", "--release", "--locked", "-p", "sluice-tests"][..], &suites].concat())
}

fn setup() -> Result<()> {
    script("xtask/setup.sh", &[])
}

fn bench(what: Measured, seconds: Option<u32>) -> Result<()> {
    let seconds = seconds.map(|seconds| seconds.to_string());
    let seconds: Vec<&str> = seconds.iter().map(String::as_str).collect();
    setup()?;
    match what {
        Measured::Ports => {
            build_release()?;
            build_release_of_benches("requests")?;
            script("benches/ports.sh", &seconds)
        }
        Measured::Datapath => {
            build_release()?;
            build_release_of_benches("replay-input")?;
            script("benches/datapath.sh", &seconds)
        }
        Measured::Flows => {
            build_release()?;
            script("benches/flows.sh", &[])
        }
        Measured::Lab => {
            build_release()?;
            script("benches/lab.sh", &seconds)
        }
        Measured::Cluster => script("benches/cluster.sh", &seconds),
        Measured::Services => {
            build_probe()?;
            script("benches/services.sh", &[])
        }
        Measured::Policies => {
            build_probe()?;
            script("benches/policies.sh", &[])
        }
    }
}

fn build_release_of_benches(program: &str) -> Result<()> {
    cargo(&["build", "--release", "--locked", "--package", "sluice-benches", "--bin", program])
}

fn build_probe() -> Result<()> {
    cargo(&["build", "--locked", "--package", "sluice-benches", "--bin", "service-probe"])
}
