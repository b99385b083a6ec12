//! Open vSwitch with the ends of conversations around it, on its dummy datapath: packets go in by its control socket,
//! and come out in pcap files. Its clock moves only when it is told to.

use sluice_tests::conversation::{Event, Out, PORTS, Packet, Side, Views, deliver};
use sluice_tests::generate::program::FlowLine;
use sluice_tests::ovs::Daemons;
use sluice_tests::unixctl::Unixctl;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};

/// The port beside those of a scenario that bells go out by, whatever the flows are.
const BELL: u16 = PORTS + 1;
/// What a bell's Ethernet header ends with: a type that nothing else has.
const BELL_TYPE: [u8; 2] = [0x90, 0];
/// Bytes before the first record of a pcap file, and before each frame.
const FILE_HEADER: u64 = 24;
const RECORD_HEADER: usize = 16;
/// Times that OVS is asked anything while a frame is waited for.
const PATIENCE: usize = 100_000;
/// Longer than anything lasts that is not a connection: fragments, and OVS's threads that wait to clean up.
const LONG: u64 = 200_000;

/// A running OVS.
pub(crate) struct Ovs {
    ctl: Unixctl,
    daemons: Daemons,
    /// What each port sends, from port 1 on.
    captures: Vec<Capture>,
    views: Views,
}

/// A pcap file that grows.
struct Capture {
    file: File,
    unread: Vec<u8>,
}

impl Ovs {
    /// Starts OVS.
    pub(crate) fn start() -> Self {
        let daemons = Daemons::start(&[]);
        let mut args =
            "-- add-br br0 -- set bridge br0 datapath-type=dummy fail-mode=secure protocols=OpenFlow15".to_owned();
        for no in 1..=BELL {
            args += &format!(" -- add-port br0 p{no} -- set interface p{no} type=dummy ofport_request={no}");
            args += &format!(" options:tx_pcap=p{no}.pcap mtu_request=9000");
        }
        daemons.vsctl(&args.split(' ').collect::<Vec<_>>());
        let mut ctl = Unixctl::connect(&daemons.dir().join("vswitchd.ctl")).expect("the daemon listens");
        ctl.ask("time/stop", &[]).expect("a command of the daemon");
        let captures = (1..=BELL).map(|no| {
            let mut file = File::open(daemons.dir().join(format!("p{no}.pcap"))).expect("OVS opened it");
            file.seek(SeekFrom::Start(FILE_HEADER)).expect("a file");
            Capture { file, unread: Vec::new() }
        });
        let captures = captures.collect();
        Self { ctl, daemons, captures, views: Views::new(&[]) }
    }

    /// Forgets connections and fragments, and begins anew with these flows.
    ///
    /// # Errors
    /// What OVS does not take.
    pub(crate) fn begin(&mut self, flows: &[FlowLine], views: Views) -> Result<(), String> {
        self.views = views;
        let [hi, lo] = BELL_TYPE;
        let bell = format!("table=0,priority=65535,dl_type=0x{hi:02x}{lo:02x},actions=output:{BELL}");
        let lines: Vec<_> = [bell].into_iter().chain(flows.iter().map(FlowLine::to_string)).collect();
        let file = self.daemons.dir().join("flows.txt");
        fs::write(&file, lines.join("\n") + "\n").expect("the directory is writable");
        let replace = ["-O", "OpenFlow15", "replace-flows", "br0", &file.to_string_lossy()];
        self.daemons.run("ovs-ofctl", &replace).map_err(|error| format!("{error} of\n{}", lines.join("\n")))?;
        self.wait(LONG);
        self.ask("dpctl/flush-conntrack", &[]);
        self.ask("revalidator/purge", &[]);
        Ok(())
    }

    /// What OVS answers; nothing when it is dead.
    fn ask(&mut self, command: &str, args: &[&str]) -> String {
        self.ctl.ask(command, args).unwrap_or_default()
    }

    /// Starts OVS again if it has died: the end of its log then.
    pub(crate) fn revive(&mut self) -> Option<String> {
        if self.daemons.are_alive() && self.ctl.ask("version", &[]).is_ok() {
            return None;
        }
        let log = self.daemons.log();
        *self = Self::start();
        Some(log)
    }

    fn wait(&mut self, millis: u64) {
        let millis = millis.to_string();
        self.ask("time/warp", &[&millis, &millis]);
    }

    /// Waits for the bells that were sent after all other frames of a port: OVS takes them one by one.
    fn hear(&mut self, bells: usize) {
        let mut heard = 0;
        for _ in 0..PATIENCE {
            heard += self.captures.last_mut().expect("there are ports").take().len();
            if heard == bells {
                return;
            }
            // It answers between frames.
            if self.ctl.ask("version", &[]).is_err() {
                return;
            }
        }
        panic!("OVS does not answer{}", self.daemons.log());
    }
}

impl Side for Ovs {
    fn happen(&mut self, event: &Event) {
        match event {
            Event::Send(_) => {}
            Event::Wait(millis) => self.wait(*millis),
            Event::Flow(flow) => {
                let added = self.daemons.run("ovs-ofctl", &["-O", "OpenFlow15", "add-flow", "br0", &flow.to_string()]);
                added.expect("OVS takes what we take");
                self.ask("revalidator/purge", &[]);
            }
            Event::Flush => drop(self.ask("dpctl/flush-conntrack", &[])),
        }
    }

    fn send(&mut self, packets: &[(u16, &Packet)]) -> Vec<Out> {
        let mut bells = 0;
        for port in 1..=PORTS {
            let of_port = packets.iter().filter(|(_, packet)| self.views.port(packet) == port);
            let mut frames: Vec<_> = of_port.map(|(number, packet)| hex(&self.views.render(*number, packet))).collect();
            if !frames.is_empty() {
                frames.push(hex(&[&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &BELL_TYPE[..], &[0; 46]].concat()));
                let name = format!("p{port}");
                let args: Vec<_> = [name.as_str()].into_iter().chain(frames.iter().map(String::as_str)).collect();
                self.ask("netdev-dummy/receive", &args);
                bells += 1;
            }
        }
        self.hear(bells);
        let captures = (1..).zip(&mut self.captures).take(PORTS.into());
        let out = captures.flat_map(|(no, capture)| capture.take().into_iter().map(move |frame| Out::new(no, frame)));
        let out = out.collect();
        deliver(&mut self.views, packets, out)
    }
}

impl Capture {
    /// The frames that came since.
    fn take(&mut self) -> Vec<Vec<u8>> {
        self.file.read_to_end(&mut self.unread).expect("a file");
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some(header) = self.unread.get(at..at + RECORD_HEADER) {
            let len = header[8..12].first_chunk().map_or(0, |len| u32::from_le_bytes(*len) as usize);
            let start = at + RECORD_HEADER;
            let Some(frame) = self.unread.get(start..start + len) else { break };
            frames.push(frame.to_vec());
            at = start + len;
        }
        self.unread.drain(..at);
        frames
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
