//! The metrics that every process has, by the names that all clients of Prometheus use.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fs;

/// This process, looked at anew at each scrape. What the kernel does not tell is left out.
#[derive(Debug)]
pub(crate) struct Process;

/// What the kernel says.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    cpu_s: Option<f64>,
    start_s: Option<f64>,
    resident_bytes: Option<f64>,
    threads: Option<f64>,
    open_fds: Option<f64>,
}

/// The kernel's ticks in a second, as it counts for programs: the same on all machines that we are built for.
const TICKS_PER_S: f64 = 100.0;

/// The number behind a word at the beginning of a line.
fn line(text: &str, word: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(word)?.split_whitespace().next()?.parse().ok())
}

/// The numbers of `/proc/self/stat` (proc_pid_stat(5)) from the third field on, the name in brackets being the second.
fn fields(stat: &str) -> Vec<&str> {
    stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default()
}

/// Reads what there is to read.
fn seen(stat: &str, status: &str, boot: Option<f64>) -> Seen {
    let fields = fields(stat);
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok());
    Seen {
        cpu_s: number(14).zip(number(15)).map(|(user, system)| (user + system) / TICKS_PER_S),
        start_s: boot.zip(number(22)).map(|(boot, start)| boot + start / TICKS_PER_S),
        threads: number(20),
        resident_bytes: line(status, "VmRSS:").map(|kib| kib * 1024.0),
        open_fds: None,
    }
}

impl Seen {
    fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as f64);
        Self { open_fds, ..seen(&stat, &status, line(&boot, "btime ")) }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let seen = Seen::now();
        if let Some(cpu) = seen.cpu_s {
            let help = "Processor time of this process, of the user and of the system";
            let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(cpu).encode(metric)?;
        }
        let gauges = [
            ("process_resident_memory_bytes", "Memory of this process that is in use", seen.resident_bytes),
            ("process_start_time_seconds", "When this process was started, in seconds since 1970", seen.start_s),
            ("process_open_fds", "Open file descriptors of this process", seen.open_fds),
            ("process_threads", "Threads of this process", seen.threads),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_a_name_with_brackets_and_blanks() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 0 1 2 3 4 150 50 0 0 20 0 9 0 1000 4096 25 0";
        let seen = seen(stat, "Threads:\t9\nVmRSS:\t     100 kB\n", Some(1_000_000.0));
        let want = Seen {
            cpu_s: Some(2.0),
            start_s: Some(1_000_010.0),
            resident_bytes: Some(102_400.0),
            threads: Some(9.0),
            open_fds: None,
        };
        assert_eq!(seen, want);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(seen("", "", None), Seen::default());
        let now = Seen::now();
        assert!(now.cpu_s.is_some() && now.start_s > Some(1.0e9) && now.resident_bytes > Some(0.0), "{now:?}");
    }
}
