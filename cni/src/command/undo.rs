//! What an operation has done so far, and how to take it back.

use crate::error::Failure;

/// The way back of one step.
type Step<'a, T> = (&'static str, Box<dyn FnOnce(&mut T) -> Result<(), Failure> + 'a>);

/// The steps done so far, each with its way back, which `T` is needed for.
pub(super) struct Undo<'a, T> {
    steps: Vec<Step<'a, T>>,
}

impl<'a, T> Undo<'a, T> {
    pub(super) fn new() -> Self {
        Self { steps: Vec::new() }
    }

    /// A step is done, or may be; `back` takes it back, and is no error if there is nothing to take back.
    pub(super) fn push(&mut self, what: &'static str, back: impl FnOnce(&mut T) -> Result<(), Failure> + 'a) {
        self.steps.push((what, Box::new(back)));
    }

    /// Takes all back, the last first, and goes on after errors, which are added to the failure's details.
    pub(super) fn all(self, with: &mut T, mut failure: Failure) -> Failure {
        for (what, back) in self.steps.into_iter().rev() {
            let Err(error) = back(with) else { continue };
            let separator = if failure.details.is_empty() { "" } else { "; " };
            failure.details = format!("{}{separator}{what} could not be undone: {error}", failure.details);
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn steps_are_taken_back_in_reverse_and_past_errors() {
        let mut undo = Undo::new();
        for name in ["first", "second", "third"] {
            undo.push(name, move |done: &mut Vec<&str>| {
                done.push(name);
                if name == "second" { Err(Failure::new(Code::Io, "the disk is full")) } else { Ok(()) }
            });
        }
        let mut done = Vec::new();
        let failure = undo.all(&mut done, Failure::new(Code::Link, "no link").details("look again"));
        assert_eq!(done, ["third", "second", "first"]);
        assert_eq!(failure.msg, "no link");
        assert_eq!(failure.details, "look again; second could not be undone: the disk is full");
    }
}
