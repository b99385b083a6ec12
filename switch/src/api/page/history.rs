//! What pages were told in the last ten minutes, so that one that is opened later can look back too.

use axum::body::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often there is an answer at least, whether somebody looks or not.
pub(super) const EVERY: Duration = Duration::from_secs(2);
/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(600);
/// Most bytes that are kept.
const MOST_BYTES: usize = 16 << 20;

/// Answers in the order of their times, each a JSON object.
#[derive(Default)]
pub(super) struct History {
    answers: VecDeque<(Instant, Bytes)>,
    bytes: usize,
}

impl History {
    /// Keeps one more, and forgets what is too old or too much.
    pub(super) fn push(&mut self, now: Instant, answer: Bytes) {
        self.bytes += answer.len();
        self.answers.push_back((now, answer));
        while let Some((at, oldest)) = self.answers.front()
            && (now.saturating_duration_since(*at) > KEPT || self.bytes > MOST_BYTES)
        {
            self.bytes -= oldest.len();
            self.answers.pop_front();
        }
    }

    /// All of them as a JSON array.
    pub(super) fn json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(self.bytes + self.answers.len() + 2);
        json.push(b'[');
        for (i, (_, answer)) in self.answers.iter().enumerate() {
            if i > 0 {
                json.push(b',');
            }
            json.extend_from_slice(answer);
        }
        json.push(b']');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_old_or_too_large_is_forgotten() {
        let (mut history, begin) = (History::default(), Instant::now());
        assert_eq!(history.json(), b"[]");
        for second in 0..=700_u64 {
            history.push(begin + Duration::from_secs(second), Bytes::from(second.to_string()));
        }
        let kept: Vec<u64> = serde_json::from_slice(&history.json()).unwrap();
        assert_eq!(kept, (100..=700).collect::<Vec<_>>());
        let large = Bytes::from(format!("\"{}\"", "x".repeat(MOST_BYTES / 2)));
        for second in [701, 702] {
            history.push(begin + Duration::from_secs(second), large.clone());
        }
        let kept: Vec<String> = serde_json::from_slice(&history.json()).unwrap();
        assert_eq!(kept.len(), 1);
    }
}
