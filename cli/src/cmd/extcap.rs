//! Wireshark's extcap: this program called by Wireshark, by a link named `sluice-extcap` in its folder of extcaps.
//!
//! Wireshark asks which interfaces there are, which kind of frames each has, and what can be set; then it has one of them
//! captured into a FIFO until it ends the process. An interface is a running lab of the user's, or the machine's switch.
//! The protocol is lines on standard output: <https://www.wireshark.org/docs/wsdg_html_chunked/ChCaptureExtcap.html>.

use super::capture::{self, ALL, How, Label, Point, record};
use crate::client::{Client, machine_socket};
use crate::failure::Failure;
use crate::lab;
use crate::matching;
use crate::output::{Color, Exit, Format, Output};
use clap::{Parser, ValueEnum};
use sluice_flows::text::{Names, parse_match};
use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What the link in Wireshark's folder is called.
const NAME: &str = "sluice-extcap";
/// The interface of the machine's own switch.
const SWITCH: &str = "sluice";
/// Begins the names of the interfaces that are labs.
const LAB: &str = "sluice-lab-";

/// What Wireshark says.
#[derive(Debug, Parser)]
#[command(name = NAME, about = "What crosses ports of switches and links of labs, for Wireshark", after_help = "\
This is for Wireshark to call. Where it looks:
  mkdir -p ~/.local/lib/wireshark/extcap      # before Wireshark 4.2: ~/.config/wireshark/extcap
  ln -s \"$(which sluice)\" ~/.local/lib/wireshark/extcap/sluice-extcap
Then Wireshark and tshark list the running labs and the machine's switch as interfaces:
  tshark -D
  tshark -i sluice-lab-hello")]
struct Extcap {
    /// List the interfaces
    #[arg(long)]
    extcap_interfaces: bool,
    /// The version of Wireshark
    #[arg(long, value_name = "VERSION")]
    extcap_version: Option<String>,
    /// The interface that the rest is about
    #[arg(long, value_name = "INTERFACE")]
    extcap_interface: Option<String>,
    /// Say what kind of frames it has
    #[arg(long)]
    extcap_dlts: bool,
    /// Say what can be set
    #[arg(long)]
    extcap_config: bool,
    /// Capture
    #[arg(long)]
    capture: bool,
    /// Where to write
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    fifo: String,
    /// Only packets that this matches, in the syntax of flows; without --fifo it is only checked
    #[arg(long, value_name = "MATCH", default_value = "", hide_default_value = true)]
    extcap_capture_filter: String,
    /// A link, a node, a port, or all
    #[arg(long, value_name = "NAME", default_value = ALL)]
    at: String,
    /// Where packets are seen
    #[arg(long, value_enum, default_value_t = Point::Both)]
    point: Point,
    /// Only packets that are dropped
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    dropped: bool,
    /// Take off outer headers of tunnels
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    inner: bool,
}

/// Answers Wireshark, if it is who calls.
pub(crate) fn run_if_called(args: &[OsString]) -> Option<Result<Exit, Failure>> {
    let called = std::env::args_os().next()?;
    let named = Path::new(&called).file_name().is_some_and(|name| name == NAME);
    let asked = args.first().and_then(|arg| arg.to_str()).is_some_and(|arg| arg.starts_with("--extcap-"));
    if !named && !asked && args.first().is_none_or(|arg| arg != "--capture") {
        return None;
    }
    let extcap = Extcap::parse_from(std::iter::once(NAME.into()).chain(args.iter().cloned()));
    let mut out = Output::new(Format::Table, Color::Never);
    Some(run(&extcap, &mut out).and_then(|exit| out.flush().map(|()| exit).map_err(Failure::from)))
}

fn run(args: &Extcap, out: &mut Output) -> Result<Exit, Failure> {
    if args.extcap_interfaces {
        return interfaces(out);
    }
    let Some(interface) = &args.extcap_interface else {
        return Err(Failure::usage("this is for Wireshark to call").next(format!("{NAME} --help")));
    };
    if args.extcap_dlts {
        out.line("dlt {number=1}{name=EN10MB}{display=Ethernet}")?;
    } else if args.extcap_config {
        config(&subjects(interface)?, out)?;
    } else if args.capture && args.fifo.is_empty() {
        // Whatever is printed is what is wrong with it.
        if let Err(error) = is_match(&args.extcap_capture_filter, &open(interface, &args.at)?.0) {
            out.line(error)?;
        }
    } else if args.capture {
        let (client, labels) = open(interface, &args.at)?;
        let sight = (args.dropped, args.point, args.inner);
        let how = How::live(args.extcap_capture_filter.clone(), sight, args.fifo.clone());
        return record(&client, &labels, &how, out);
    }
    Ok(Exit::Yes)
}

/// Whether packets can be chosen by a text; what is wrong with it if not.
fn is_match(text: &str, client: &Client) -> Result<(), String> {
    let read = matching::read(text, client).and_then(|words| Ok((words.plain(), words.conditions()?)));
    let (plain, _) = read.map_err(|failure| failure.to_string())?;
    parse_match(&plain, Names::NONE).map(|_| ()).map_err(|error| format!("{error:#}"))
}

fn interfaces(out: &mut Output) -> Result<Exit, Failure> {
    out.line(format!("extcap {{version={}}}{{display=Sluice}}", env!("CARGO_PKG_VERSION")))?;
    if UnixStream::connect(machine_socket()).is_ok() {
        out.line(format!("interface {{value={SWITCH}}}{{display=Sluice: the switch of this machine}}"))?;
    }
    for (name, _) in lab::all_running()? {
        out.line(format!("interface {{value={LAB}{name}}}{{display=Sluice: the lab {name}}}"))?;
    }
    Ok(Exit::Yes)
}

/// What of an interface can be captured, with what it is.
fn subjects(interface: &str) -> Result<Vec<(String, String)>, Failure> {
    match interface.strip_prefix(LAB) {
        Some(name) => Ok(lab::capture::subjects(&lab::running(Some(name))?.1.topology)),
        None => {
            let ports = capture::all(&switch(interface)?)?.into_iter();
            Ok(ports.map(|port| (port.clone(), format!("port {port}"))).collect())
        }
    }
}

/// What Wireshark's dialogue shows.
fn config(subjects: &[(String, String)], out: &mut Output) -> Result<(), Failure> {
    out.line("arg {number=0}{call=--at}{display=Link, node or port}{type=selector}{tooltip=What to look at}")?;
    out.line(format!("value {{arg=0}}{{value={ALL}}}{{display=All}}{{default=true}}"))?;
    for (name, about) in subjects {
        out.line(format!("value {{arg=0}}{{value={name}}}{{display={name} ({about})}}{{default=false}}"))?;
    }
    out.line("arg {number=1}{call=--point}{display=Packets}{type=selector}{tooltip=Where they are seen}")?;
    for (point, about) in
        [(Point::Both, "received and sent"), (Point::In, "as they are received"), (Point::Out, "as they are sent")]
    {
        let value = point.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let default = point == Point::Both;
        out.line(format!("value {{arg=1}}{{value={value}}}{{display={about}}}{{default={default}}}"))?;
    }
    out.line("arg {number=2}{call=--dropped}{display=Only packets that are dropped}{type=boolflag}{default=false}")?;
    out.line("arg {number=3}{call=--inner}{display=Take off outer headers of tunnels}{type=boolflag}{default=false}")?;
    Ok(())
}

/// The switch behind an interface, and the ports that are meant.
fn open(interface: &str, at: &str) -> Result<(Client, Vec<Label>), Failure> {
    let Some(name) = interface.strip_prefix(LAB) else {
        let client = switch(interface)?;
        let labels = capture::labels(&client, at)?;
        return Ok((client, labels));
    };
    let (_, state) = lab::running(Some(name))?;
    let labels = lab::capture::labels(&state.topology, at)?;
    Ok((Client::connect_to(state.socket)?, labels))
}

fn switch(interface: &str) -> Result<Client, Failure> {
    if interface != SWITCH {
        return Err(
            Failure::usage(format!("there is no interface {interface}")).next(format!("{NAME} --extcap-interfaces"))
        );
    }
    Client::connect_to(machine_socket())
}
