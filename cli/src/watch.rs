//! `-w`: the same answer again and again.

use crate::failure::Failure;
use crate::output::{Exit, Output};
use clap::Args;
use std::time::Duration;

/// Whether the answer is wanted once or until interrupted.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Watch {
    /// Show it again every second, or every SECONDS, until interrupted
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1",
        value_parser = |text: &str| seconds(text, Duration::from_secs(86_400))
    )]
    watch: Option<Duration>,
}

/// A time that a person can wait for, `most` at most, and that leaves the switch time for other things.
pub(crate) fn seconds(text: &str, most: Duration) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=most;
    let time = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()).filter(|t| range.contains(t));
    time.ok_or_else(|| format!("want seconds, 0.1 to {}", most.as_secs()))
}

impl Watch {
    /// Shows the answer, once or as often as wanted.
    ///
    /// # Errors
    /// The first that `show` gives.
    pub(crate) fn run(
        self,
        out: &mut Output,
        mut show: impl FnMut(&mut Output) -> Result<Exit, Failure>,
    ) -> Result<Exit, Failure> {
        let Some(every) = self.watch else { return show(out) };
        out.clear()?;
        loop {
            show(out)?;
            out.flush()?;
            std::thread::sleep(every);
            out.begin_again()?;
        }
    }
}
