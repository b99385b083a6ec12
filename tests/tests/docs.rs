//! The book says what the code says.

use sluice_flows::DropReason;

#[test]
fn every_drop_reason_has_its_row_in_the_book() {
    let page = include_str!("../../docs/drop-reasons.md");
    let rows: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    let names: Vec<&str> = DropReason::ALL.iter().map(|r| r.name()).collect();
    assert_eq!(rows, names);
}
