//! What only a wire does: it takes its time, has a limit, and two ends that come and go.
//!
//! Times are only ever compared with a lower bound: a busy machine may be late, and a wire must not be early.

use super::*;
use sluice_switch::port::{Wire, WireCounts, WireOptions, WireSettings};
use std::time::Instant;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn settings(delay: Duration) -> WireSettings {
    WireSettings { delay, ..WireSettings::default() }
}

fn sending(settings: WireSettings) -> WireOptions {
    WireOptions { settings, ..WireOptions::to("") }
}

/// Two ends; the first sends as `settings` say, the second without delay.
fn pair(settings: WireSettings) -> [Wire; 2] {
    Wire::pair(["a", "b"], [&sending(settings), &sending(WireSettings::default())]).unwrap()
}

/// Receives `count` frames, sleeping on the descriptor as a worker does.
fn wait_for(queue: &mut dyn PortQueue, count: usize) -> Vec<Frame> {
    let mut frames = buffers(count);
    let mut got = 0;
    for _ in 0..count + 100 {
        got += queue.rx_burst(&mut frames[got..]).unwrap();
        if got == count {
            return frames;
        }
        assert!(readable(queue, 250) || readable(queue, 250), "{got} of {count} frames came");
    }
    panic!("{got} of {count} frames came, and the descriptor is readable for nothing");
}

#[test]
fn a_frame_takes_at_least_the_delay_and_the_way_back_its_own() {
    let [a, b] = pair(settings(MS(30)));
    let (mut near, mut far) = (only_queue(&a), only_queue(&b));
    let sent = Instant::now();
    assert_eq!(send_one(&mut *near, &plain(60, 1)), TxOutcome::Sent);
    assert_eq!(wait_for(&mut *far, 1)[0].bytes(), plain(60, 1).bytes());
    assert!(sent.elapsed() >= MS(30), "it took {:?}", sent.elapsed());
    // Without a delay it is there before anybody could have waited.
    assert_eq!(send_one(&mut *far, &plain(60, 2)), TxOutcome::Sent);
    assert_eq!(near.rx_burst(&mut buffers(1)).unwrap(), 1);
}

#[test]
fn the_descriptor_sleeps_until_the_first_frame_is_due() {
    let [a, b] = pair(settings(MS(60_000)));
    let (mut near, mut far) = (only_queue(&a), only_queue(&b));
    assert_eq!(send_one(&mut *near, &plain(60, 1)), TxOutcome::Sent);
    assert_eq!(far.rx_burst(&mut buffers(1)).unwrap(), 0);
    assert!(!readable(&*far, 20));
    assert_eq!(a.under_way(), (1, 60));
}

#[test]
fn each_frame_of_many_is_late_enough_and_in_order() {
    const FRAMES: usize = 200;
    let jittery = WireSettings { jitter: MS(4), ..settings(MS(10)) };
    let [a, b] = pair(jittery);
    let (mut near, mut far) = (only_queue(&a), only_queue(&b));
    let mut sent = Vec::new();
    let mut got = 0;
    let mut frames = buffers(32);
    for _ in 0..20 * FRAMES {
        if sent.len() < FRAMES {
            sent.push(Instant::now());
            assert_eq!(send_one(&mut *near, &plain(60, (sent.len() - 1) as u8)), TxOutcome::Sent);
        } else {
            assert!(readable(&*far, 250) || readable(&*far, 250), "{got} frames came");
        }
        let count = far.rx_burst(&mut frames).unwrap();
        let now = Instant::now();
        for frame in &frames[..count] {
            assert_eq!(frame.bytes()[59], got as u8, "frames came in another order");
            assert!(now - sent[got] >= MS(6), "frame {got} took {:?}", now - sent[got]);
            got += 1;
        }
        if got == FRAMES {
            return assert_eq!(a.under_way(), (0, 0));
        }
    }
    panic!("{got} of {FRAMES} frames came");
}

#[test]
fn what_is_above_the_limit_is_dropped_and_there_is_room_again() {
    let [a, b] = pair(WireSettings { under_way: 70_000, ..WireSettings::default() });
    let (mut near, mut far) = (only_queue(&a), only_queue(&b));
    for _ in 0..2 {
        assert_eq!(send_one(&mut *near, &tcp(60_000)), TxOutcome::Sent);
        assert_eq!(send_one(&mut *near, &tcp(20_000)), TxOutcome::Dropped(DropReason::QueueFull));
        assert_eq!(send_one(&mut *near, &tcp(2_000)), TxOutcome::Sent);
        assert_eq!(a.under_way(), (2, 62_108));
        assert_eq!(far.rx_burst(&mut buffers(5)).unwrap(), 2);
    }
    assert_eq!(a.counts(), WireCounts { sent: 6, queue_full: 2, ..WireCounts::default() });
}

#[test]
fn a_shorter_delay_holds_for_new_frames_and_they_overtake_none() {
    let [a, b] = pair(settings(MS(30)));
    let (mut near, mut far) = (only_queue(&a), only_queue(&b));
    let sent = Instant::now();
    assert_eq!(send_one(&mut *near, &plain(60, 1)), TxOutcome::Sent);
    a.set(&settings(Duration::ZERO));
    assert_eq!(send_one(&mut *near, &plain(60, 2)), TxOutcome::Sent);
    let order: Vec<_> = wait_for(&mut *far, 2).iter().map(|frame| frame.bytes()[59]).collect();
    assert_eq!(order, [1, 2]);
    assert!(sent.elapsed() >= MS(30));
    assert_eq!(send_one(&mut *near, &plain(60, 3)), TxOutcome::Sent);
    assert_eq!(far.rx_burst(&mut buffers(1)).unwrap(), 1, "the delay is gone");
}

#[test]
fn each_worker_receives_what_it_sent_at_the_other_end() {
    let options = WireOptions { queues: 2, ..WireOptions::to("") };
    let [a, b] = Wire::pair(["a", "b"], [&options, &options]).unwrap();
    let (mut near, mut far) = (a.queues(2).unwrap(), b.queues(2).unwrap());
    for (worker, queue) in near.iter_mut().enumerate() {
        assert_eq!(send_one(&mut **queue, &plain(60, worker as u8)), TxOutcome::Sent);
    }
    for (worker, queue) in far.iter_mut().enumerate() {
        let mut frames = buffers(2);
        assert_eq!(queue.rx_burst(&mut frames).unwrap(), 1);
        assert_eq!(frames[0].bytes()[59], worker as u8);
    }
}

#[test]
fn many_workers_send_at_once_and_nothing_is_lost_or_counted_twice() {
    const FRAMES: usize = 20_000;
    let options = WireOptions { queues: 4, ..WireOptions::to("") };
    let [a, b] = Wire::pair(["a", "b"], [&options, &options]).unwrap();
    let queues: Vec<_> = a.queues(4).unwrap().into_iter().zip(b.queues(4).unwrap()).collect();
    std::thread::scope(|scope| {
        for (mut near, mut far) in queues {
            scope.spawn(move || {
                let (mut sent, mut got) = (0, 0);
                let mut frames = buffers(32);
                while got < FRAMES {
                    if sent < FRAMES && send_one(&mut *near, &plain(60 + sent % 1000, sent as u8)) == TxOutcome::Sent {
                        sent += 1;
                    }
                    let count = far.rx_burst(&mut frames[..1 + sent % 32]).unwrap();
                    for frame in &frames[..count] {
                        assert_eq!(frame.bytes(), plain(60 + got % 1000, got as u8).bytes());
                        got += 1;
                    }
                }
            });
        }
    });
    assert_eq!(a.under_way(), (0, 0));
}

#[test]
fn an_end_whose_other_end_is_gone_is_down_and_what_was_under_way_arrives() {
    let [a, b] = pair(settings(MS(1)));
    let (mut near, mut far) = (only_queue(&a), only_queue(&b));
    assert!(a.link_up() && b.link_up());
    assert_eq!(send_one(&mut *near, &plain(60, 1)), TxOutcome::Sent);
    drop(a);
    assert!(!b.link_up());
    assert_eq!(send_one(&mut *far, &plain(60, 2)), TxOutcome::Dropped(DropReason::PortDown));
    assert_eq!(send_one(&mut *near, &plain(60, 3)), TxOutcome::Dropped(DropReason::PortDown));
    assert_eq!(wait_for(&mut *far, 1)[0].bytes(), plain(60, 1).bytes());
}

#[test]
fn an_end_that_is_joined_with_a_third_is_parted_from_the_second() {
    let [a, b] = pair(WireSettings::default());
    let c = Wire::new("c", &WireOptions::to("a")).unwrap();
    a.join(&c);
    assert!(a.link_up() && c.link_up() && !b.link_up());
    let (mut from_a, mut to_c) = (only_queue(&a), only_queue(&c));
    assert_eq!(send_one(&mut *from_a, &plain(60, 1)), TxOutcome::Sent);
    assert_eq!(to_c.rx_burst(&mut buffers(1)).unwrap(), 1);
}

#[test]
fn options_change_what_runs_all_or_none() {
    let [a, _b] = pair(WireSettings::default());
    let change = |options: &[(&str, &str)]| {
        a.set_options(&options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>())
    };
    change(&[("delay", "20ms"), ("jitter", "3ms")]).unwrap();
    assert_eq!(a.settings(), WireSettings { jitter: MS(3), ..settings(MS(20)) });
    let error = change(&[("delay", "40ms"), ("jitter", "soon")]).unwrap_err().to_string();
    assert_eq!(error, "port a: option `jitter`: `soon` is not a time like 20ms, 1.5ms, 300us or 2s, up to 60s");
    assert_eq!(a.settings().delay, MS(20), "nothing was changed");
    let told = a.options().into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
    let rest = "loss=0% rate=0 queue=1000p duplicate=0% corrupt=0% reorder=0% under_way=33554432";
    assert_eq!(told, format!("peer=b seed=1 delay=20ms jitter=3ms {rest}"));
    let error = change(&[("reorder", "1%"), ("delay", "0ms")]).unwrap_err().to_string();
    assert_eq!(error, "port a: option `reorder`: without a delay there is nothing to overtake; set delay too");
}
