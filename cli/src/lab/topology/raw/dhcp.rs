//! The key `dhcp` of VLANs and of hosts.

use super::super::Problem;
use super::super::yaml::Value;
use super::Spot;
use super::value::{Fields, scalar};
use std::time::Duration;

/// The lease of a file that names none.
pub(in super::super) const LEASE: Duration = Duration::from_secs(3600);
/// Longest lease, in seconds: 2^32 less one would be for ever (RFC 2131, section 3.3).
const LEASE_MAX: u64 = 365 * 24 * 3600;

/// How long leases of a VLAN are, if it has a server: `dhcp: true` or `dhcp: {lease: 10m}`.
pub(super) fn server(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<Spot<Duration>> {
    let node = fields.get("dhcp")?;
    if !matches!(node.value, Value::Map(_)) {
        return wanted(fields, "true, false or {lease: 10m}", problems).map(|line| Spot { line, value: LEASE });
    }
    let entry = Fields::of(node, "dhcp", &["lease"], &[], problems);
    let lease = entry.parsed("lease", "a time from 2s on, like 30s, 10m or 12h", problems, lease);
    Some(Spot { line: node.line, value: lease.map_or(LEASE, |lease| lease.value) })
}

/// The line, if a key says `true`.
pub(super) fn wanted(fields: &Fields<'_>, choice: &str, problems: &mut Vec<Problem>) -> Option<usize> {
    let node = fields.get("dhcp")?;
    match scalar(node) {
        Some("true") => return Some(node.line),
        Some("false") => {}
        Some(text) => problems.push(Problem::new(node.line, format!("dhcp: `{text}` is not {choice}"))),
        None => problems.push(Problem::new(node.line, format!("dhcp: expected {choice}, found {}", node.kind()))),
    }
    None
}

/// `30s`, `10m`, `12h`, `7d`.
fn lease(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let digits = text.strip_suffix(unit).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let seconds = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    (2..=LEASE_MAX).contains(&seconds).then(|| Duration::from_secs(seconds))
}

/// A lease as a file has it.
pub(in super::super) fn show_lease(lease: Duration) -> String {
    let seconds = lease.as_secs();
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm')];
    let whole = units.into_iter().find(|(factor, _)| seconds.is_multiple_of(*factor));
    let (factor, unit) = whole.unwrap_or((1, 's'));
    format!("{}{unit}", seconds / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_read_as_they_are_shown() {
        for text in ["2s", "90s", "10m", "1h", "7d"] {
            assert_eq!(lease(text).map(show_lease).as_deref(), Some(text));
        }
        assert_eq!(lease("3600s").map(show_lease).as_deref(), Some("1h"));
        for wrong in ["", "s", "1s", "10", "-5m", "1.5h", "400d", "99999999999999999999d", "10ms"] {
            assert_eq!(lease(wrong), None, "{wrong}");
        }
    }
}
