//! The same question to every node at once.

use super::{Cluster, Member};
use crate::client::{Client, Reach, Target};
use crate::failure::Failure;
use crate::output::{Exit, Output};

/// Nodes that are asked at once: each costs the API server two connections.
const AT_ONCE: usize = 16;

/// What every switch answered that was asked.
pub(crate) struct Answers<T> {
    /// By node, sorted; without a name for a switch that is meant by itself.
    pub(crate) all: Vec<(Option<String>, T)>,
    /// Nodes that did not answer, and why.
    pub(crate) silent: Vec<(String, Failure)>,
}

impl<T> Answers<T> {
    /// Whether every node of a cluster was asked.
    pub(crate) fn is_of_all(&self) -> bool {
        !self.silent.is_empty() || self.all.iter().any(|(node, _)| node.is_some())
    }

    /// Says who did not answer, and how many did, where more than one was asked. Gives `exit`, unless somebody is missing.
    ///
    /// # Errors
    /// The failure of the nodes, if none answered; what writing meets.
    pub(crate) fn end(self, exit: Exit, out: &mut Output) -> Result<Exit, Failure> {
        if !self.is_of_all() {
            return Ok(exit);
        }
        let (answered, silent) = (self.all.len(), self.silent.len());
        for (node, failure) in &self.silent {
            out.talk(format!("{node}: {failure}"))?;
        }
        out.talk(format!("{answered}/{} nodes answered", answered + silent))?;
        match (answered, silent) {
            (_, 0) => Ok(exit),
            (0, _) => Ok(Exit::NoDaemon),
            _ => Ok(Exit::Partial),
        }
    }
}

/// Whom to ask in a cluster where no node is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unless {
    /// Every node.
    All,
    /// One of them: all know the same. Which one it was is told.
    Any,
}

/// Asks the switch that is meant; of a cluster the one node that is named, or with `--node all` every node's.
///
/// # Errors
/// A single switch's failure, or that of finding the nodes.
pub(crate) fn ask<T: Send>(
    target: &Target,
    unless: Unless,
    question: impl Fn(&Client) -> Result<T, Failure> + Sync,
) -> Result<Answers<T>, Failure> {
    let one = |client: Client| Ok(Answers { all: vec![(None, question(&client)?)], silent: Vec::new() });
    let node = target.cluster.node.as_deref();
    let cluster = match target.reach()? {
        Reach::Socket(_) if node == Some("all") => return Err(Failure::usage("--node all needs a kubeconfig")),
        Reach::Socket(socket) => return one(Client::connect_to(socket)?),
        Reach::Cluster(cluster) => cluster,
    };
    match (node, unless) {
        (Some("all"), _) | (None, Unless::All) => {
            let members = cluster.members()?;
            let answers = each(&members, |member| question(&cluster.connect(member.ready()?)?));
            Ok(sorted(&members, answers))
        }
        (None, Unless::Any) => one(any(&cluster)?),
        (node, _) => one(cluster.client(node)?),
    }
}

/// Connects to some node, and says which.
pub(crate) fn any(cluster: &Cluster) -> Result<Client, Failure> {
    let member = cluster.any()?;
    eprintln!("as {} has it; --node NAME asks another", member.node);
    cluster.connect(&member)
}

/// Answers beside the nodes that they are of.
pub(crate) fn sorted<T>(members: &[Member], answers: Vec<Result<T, Failure>>) -> Answers<T> {
    let (mut all, mut silent) = (Vec::new(), Vec::new());
    for (member, answer) in members.iter().zip(answers) {
        match answer {
            Ok(answer) => all.push((Some(member.node.clone()), answer)),
            Err(failure) => silent.push((member.node.clone(), failure)),
        }
    }
    Answers { all, silent }
}

/// What each node answers, in their order. One that does not answer is a failure of its own.
pub(crate) fn each<T: Send>(
    members: &[Member],
    ask: impl Fn(&Member) -> Result<T, Failure> + Sync,
) -> Vec<Result<T, Failure>> {
    let ask = &ask;
    let mut answers = Vec::with_capacity(members.len());
    for some in members.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|member| scope.spawn(move || ask(member))).collect();
            for thread in asked {
                answers.push(thread.join().unwrap_or_else(|_| Err(Failure::new("asking the node went wrong"))));
            }
        });
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_the_nodes_and_one_failure_is_only_its_own() {
        let members: Vec<_> = (0..40).map(|n| Member::named(&format!("node-{n}"))).collect();
        let answers =
            each(
                &members,
                |member| {
                    if member.node == "node-17" { Err(Failure::new("down")) } else { Ok(member.node.clone()) }
                },
            );
        let answers = sorted(&members, answers);
        assert_eq!(answers.silent.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(), ["node-17"]);
        assert_eq!(answers.all.len(), 39);
        assert!(answers.all.iter().all(|(node, answer)| node.as_ref() == Some(answer)));
    }
}
