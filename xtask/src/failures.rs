//! What failed among many suites: told again when all have run, since the reasons stand far above the end.

use std::io::{Result, Write};

/// Lines of one suite that are told again at most.
const MOST: usize = 120;
/// What cargo says before it starts a suite.
const SUITE: &str = "     Running ";
/// Between these, each suite tells what failed in it.
const FIRST: &str = "failures:";
const LAST: &str = "test result: FAILED";

/// Hands lines on as they come; those that tell of failures, each suite's behind its name.
///
/// # Errors
/// When lines cannot be handed on.
pub(crate) fn tell(lines: impl IntoIterator<Item = Vec<u8>>, mut to: impl Write) -> Result<Vec<String>> {
    let (mut suite, mut said, mut failed) = (String::new(), None::<Vec<String>>, Vec::new());
    for line in lines {
        to.write_all(&line)?;
        to.write_all(b"\n")?;
        let line = String::from_utf8_lossy(&line);
        if line.starts_with(SUITE) {
            (suite, said) = (line.trim().to_owned(), None);
        }
        if line == FIRST && said.is_none() {
            said = Some(Vec::new());
        }
        let Some(of) = &mut said else { continue };
        of.push(line.clone().into_owned());
        if line.starts_with(LAST) {
            let left = of.len().saturating_sub(MOST);
            of.truncate(MOST);
            failed.push(suite.clone());
            failed.append(of);
            if left > 0 {
                failed.push(format!("({left} more lines above)"));
            }
            said = None;
        }
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_handed_on_and_failures_are_told_again_with_their_suite() {
        let long = "x\n".repeat(MOST);
        let output = format!(
            "     Running tests/a.rs (target/a)\ntest one ... ok\ntest result: ok. 1 passed\n     Running tests/b.rs \
             (target/b)\ntest two ... FAILED\n\nfailures:\n\n---- two stdout ----\nwrong\n\nfailures:\n    two\n\ntest result: \
             FAILED. 0 passed; 1 failed\n     Running tests/c.rs (target/c)\nfailures:\n{long}test result: FAILED. long\n"
        );
        let mut handed = Vec::new();
        let failed = tell(output.lines().map(|line| line.as_bytes().to_vec()), &mut handed).unwrap();
        assert_eq!(String::from_utf8(handed).unwrap(), output);
        let b = [
            "Running tests/b.rs (target/b)",
            "failures:",
            "",
            "---- two stdout ----",
            "wrong",
            "",
            "failures:",
            "    two",
            "",
            "test result: FAILED. 0 passed; 1 failed",
            "Running tests/c.rs (target/c)",
        ];
        assert_eq!(failed[..b.len()], b);
        assert_eq!((failed.len(), failed.last().unwrap().as_str()), (b.len() + MOST + 1, "(2 more lines above)"));
    }
}
