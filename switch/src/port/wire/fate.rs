//! What happens to frame N of a direction: from the seed, the names of the ends in the order in which frames go, and N
//! alone. So equal traffic meets with equal fates, on every machine and in every run.

use super::settings::WireSettings;

/// One direction of one wire, of which every draw is told apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course(u64);

/// What is drawn for. Each kind of draw of a frame is independent of the others.
#[derive(Clone, Copy, Debug)]
pub(super) enum Draw {
    Jitter,
    Loss,
    Duplicate,
    Corrupt,
    /// Which bit of a corrupted frame.
    Bit,
    Reorder,
}

impl Course {
    pub(super) fn new(seed: u64, from: &str, to: &str) -> Self {
        // FNV-1a: the same in every version of this program, unlike the standard library's hashes.
        let bytes = from.bytes().chain([0]).chain(to.bytes());
        let names = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(mix(names.wrapping_add(mix(seed))))
    }

    /// What frame `number` draws: each value of 64 bits as likely as the other.
    #[inline]
    pub(super) fn draw(self, draw: Draw, number: u64) -> u64 {
        // Two odd constants: the sequences of different draws lie far apart.
        let kind = (draw as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
        mix(self.0.wrapping_add(kind).wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// What happens to frame `number`.
    #[inline]
    pub(super) fn fate(self, number: u64, settings: &WireSettings) -> Fate {
        let is = |share: super::Percent, draw| share.has(self.draw(draw, number));
        Fate {
            lost: is(settings.loss, Draw::Loss),
            duplicated: is(settings.duplicate, Draw::Duplicate),
            corrupted: is(settings.corrupt, Draw::Corrupt),
            reordered: is(settings.reorder, Draw::Reorder),
        }
    }
}

/// What happens to a frame on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// It never arrives.
    pub(super) lost: bool,
    /// It arrives twice.
    pub(super) duplicated: bool,
    /// One bit of it is another.
    pub(super) corrupted: bool,
    /// It does not wait for the delay, and so overtakes those that do.
    pub(super) reordered: bool,
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of `x`.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::Percent;
    use super::*;

    const FRAMES: u64 = 100_000;

    fn settings(share: &str) -> WireSettings {
        let share = Percent::parse(share).unwrap();
        WireSettings { loss: share, duplicate: share, corrupt: share, reorder: share, ..WireSettings::default() }
    }

    fn fates(course: Course, share: &str) -> Vec<Fate> {
        (0..FRAMES).map(|number| course.fate(number, &settings(share))).collect()
    }

    const EACH: [fn(&Fate) -> bool; 4] = [|f| f.lost, |f| f.duplicated, |f| f.corrupted, |f| f.reordered];

    #[test]
    fn each_share_is_met_within_binomial_bounds() {
        for (share, p) in [("0.1%", 0.001), ("0.5%", 0.005), ("5%", 0.05), ("50%", 0.5), ("99%", 0.99)] {
            for (seed, from, to) in [(1, "s1.s2", "s2.s1"), (1, "s2.s1", "s1.s2"), (42, "a", "b")] {
                let fates = fates(Course::new(seed, from, to), share);
                let (mean, deviation) = (FRAMES as f64 * p, (FRAMES as f64 * p * (1.0 - p)).sqrt());
                for (index, is) in EACH.iter().enumerate() {
                    let count = fates.iter().filter(|fate| is(fate)).count() as f64;
                    assert!((count - mean).abs() < 4.0 * deviation, "{share} of kind {index}: {count}, not {mean}");
                }
            }
        }
        for fate in fates(Course::new(1, "a", "b"), "0%") {
            assert_eq!(fate, Fate::default());
        }
        for fate in fates(Course::new(1, "a", "b"), "100%") {
            assert_eq!(fate, Fate { lost: true, duplicated: true, corrupted: true, reordered: true });
        }
    }

    #[test]
    fn losses_do_not_come_in_runs() {
        // Of frames behind a lost one, as many are lost as of all.
        let fates = fates(Course::new(7, "a", "b"), "20%");
        let behind: Vec<_> = fates.windows(2).filter(|pair| pair[0].lost).map(|pair| pair[1].lost).collect();
        let (count, all) = (behind.iter().filter(|lost| **lost).count() as f64, behind.len() as f64);
        assert!((count - all * 0.2).abs() < 4.0 * (all * 0.16).sqrt(), "{count} of {all}");
    }

    #[test]
    fn equal_seeds_and_names_are_equal_fates_and_others_differ() {
        let one = fates(Course::new(1, "a", "b"), "50%");
        assert_eq!(one, fates(Course::new(1, "a", "b"), "50%"));
        for other in [Course::new(2, "a", "b"), Course::new(1, "b", "a"), Course::new(1, "ab", "")] {
            for is in EACH {
                let same = one.iter().zip(fates(other, "50%")).filter(|(a, b)| is(a) == is(b)).count() as f64;
                // Two coins agree in half of all throws.
                assert!((same - FRAMES as f64 / 2.0).abs() < 4.0 * (FRAMES as f64 / 4.0).sqrt(), "{same}");
            }
        }
    }

    #[test]
    fn the_kinds_of_one_frame_s_draws_are_independent() {
        let fates = fates(Course::new(1, "a", "b"), "50%");
        for (i, one) in EACH.iter().enumerate() {
            for other in &EACH[i + 1..] {
                let same = fates.iter().filter(|fate| one(fate) == other(fate)).count() as f64;
                assert!((same - FRAMES as f64 / 2.0).abs() < 4.0 * (FRAMES as f64 / 4.0).sqrt(), "{same}");
            }
        }
    }

    #[test]
    fn what_was_drawn_once_is_drawn_in_every_version() {
        let course = Course::new(42, "s1.s2", "s2.s1");
        let lost: Vec<_> = (0..100).filter(|number| course.fate(*number, &settings("5%")).lost).collect();
        assert_eq!(lost, [3, 47, 81, 90, 92]);
    }
}
