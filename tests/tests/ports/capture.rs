//! Capture files replayed and written.

use super::*;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
use sluice_switch::port::{PcapOptions, PcapPort, Recording};

fn pcap_of(frames: &[Frame], link: DataLink) -> Vec<u8> {
    let header = PcapHeader { datalink: link, ..Default::default() };
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for frame in frames {
        let len = frame.len() as u32;
        let packet = PcapPacket::new(Duration::from_secs(1), len, frame.bytes()).unwrap();
        writer.write_packet(&packet).unwrap();
    }
    writer.into_inner()
}

#[test]
fn a_capture_is_replayed_in_order_and_what_is_sent_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (rx, tx) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let sent: Vec<Frame> = [60, 0, 1514, 61].into_iter().map(|len| plain(len, len as u8)).collect();
    std::fs::write(&rx, pcap_of(&sent, DataLink::ETHERNET)).unwrap();
    let options = PcapOptions { rx: Some(rx), tx: Some(tx.clone()), ..PcapOptions::default() };
    let port = PcapPort::open("p0", &options).unwrap();
    let mut queue = only_queue(&port);
    let mut frames = buffers(3);
    assert_eq!(queue.rx_burst(&mut frames).unwrap(), 3);
    assert_eq!(send_one(&mut *queue, &plain(1515, 1)), TxOutcome::Dropped(DropReason::MtuExceeded));
    let mut outcomes = [TxOutcome::Dropped(DropReason::Overload); 3];
    queue.tx_burst(&frames.iter().collect::<Vec<_>>(), &mut outcomes);
    assert_eq!(outcomes, [TxOutcome::Sent; 3]);
    assert_eq!(queue.rx_burst(&mut frames).unwrap(), 1);
    assert_eq!(frames[0].bytes(), sent[3].bytes());
    assert_eq!(queue.rx_burst(&mut frames).unwrap(), 0);
    assert_eq!(send_one(&mut *queue, &tcp(4000)), TxOutcome::Sent);
    // The port is still open: a capture can be looked at while it grows.
    let written = Recording::load("p0", &tx).unwrap();
    assert_eq!(written.len(), 6);
    for (i, frame) in sent[..3].iter().enumerate() {
        assert_eq!(written.frame(i), Some(frame.bytes()));
    }
    assert!((3..6).all(|i| tcp_checksum_is_right(written.frame(i).unwrap())));
    assert_eq!(written.frame(6), None);
}

#[test]
fn a_capture_that_repeats_never_ends() {
    let dir = tempfile::tempdir().unwrap();
    let rx = dir.path().join("in.pcap");
    std::fs::write(&rx, pcap_of(&[plain(60, 1), plain(60, 2)], DataLink::ETHERNET)).unwrap();
    let options = PcapOptions { rx: Some(rx.clone()), repeat: true, ..PcapOptions::default() };
    let mut queue = only_queue(&PcapPort::open("p0", &options).unwrap());
    let mut frames = buffers(5);
    assert_eq!(queue.rx_burst(&mut frames).unwrap(), 5);
    assert_eq!(frames.iter().map(|frame| frame.bytes()[59]).collect::<Vec<_>>(), [1, 2, 1, 2, 1]);
    // Nor does one without frames hang.
    std::fs::write(&rx, pcap_of(&[], DataLink::ETHERNET)).unwrap();
    let mut queue = only_queue(&PcapPort::open("p0", &options).unwrap());
    assert_eq!(queue.rx_burst(&mut frames).unwrap(), 0);
}

#[test]
fn queues_share_a_recording_by_flow() {
    let mut frames: Vec<Vec<u8>> = (0..100).map(|n| plain(60, n).bytes().to_vec()).collect();
    frames.iter_mut().for_each(|frame| frame[5] = frame[59]);
    // Every flow twice: both of its frames come by one queue, in their order.
    let twice = [frames.clone(), frames.iter().map(|frame| [&frame[..], &[1]].concat()).collect()].concat();
    let port = PcapPort::repeating("p0", Recording::from_frames(&twice), 1500).unwrap();
    let mut queues = port.queues(2).unwrap();
    let mut seen = Vec::new();
    for queue in &mut queues {
        let mut buffers = buffers(400);
        assert_eq!(queue.rx_burst(&mut buffers).unwrap(), 400);
        let got: Vec<_> = buffers.iter().map(|frame| (frame.bytes()[5], frame.len())).collect();
        let part = got[1..].iter().position(|first| *first == got[0]).unwrap() + 1;
        assert_eq!(got[..part], got[part..2 * part]);
        assert!((50..150).contains(&part), "{part} of 200 frames come by one of two queues");
        let (short, long) = got[..part].split_at(part / 2);
        assert!(short.iter().zip(long).all(|(a, b)| (a.0, 60, 61) == (b.0, a.1, b.1)), "{got:?}");
        seen.extend(short.iter().map(|frame| frame.0));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    // Two queues for one flow: the other has nothing to give.
    let port = PcapPort::repeating("p0", Recording::from_frames(&frames[..1]), 1500).unwrap();
    let got = port.queues(2).unwrap().iter_mut().map(|queue| queue.rx_burst(&mut buffers(4)).unwrap()).sum::<usize>();
    assert_eq!(got, 4);
}

#[test]
fn a_pcapng_capture_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.pcapng");
    let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
    writer.write_pcapng_block(InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0)).unwrap();
    let data = plain(77, 3).bytes().to_vec();
    writer
        .write_pcapng_block(EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_secs(1),
            original_len: 77,
            data: data.clone().into(),
            options: vec![],
        })
        .unwrap();
    std::fs::write(&path, writer.into_inner()).unwrap();
    let recording = Recording::load("p0", &path).unwrap();
    assert_eq!((recording.len(), recording.frame(0)), (1, Some(&data[..])));
}

#[test]
fn files_that_are_no_capture_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let whole = pcap_of(&[plain(60, 1)], DataLink::ETHERNET);
    for (bytes, why) in [
        (vec![], "it is no capture file"),
        (b"hello, world, this is no capture".to_vec(), "it is no pcap or pcapng file"),
        (whole[..whole.len() - 1].to_vec(), "frame 1 is damaged"),
        (pcap_of(&[plain(60, 1)], DataLink::RAW), "frame 1 is of link type RAW"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Recording::load("p0", &path).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let missing = Recording::load("p0", &dir.path().join("y")).unwrap_err().to_string();
    assert!(missing.contains("No such file"), "{missing}");
}
