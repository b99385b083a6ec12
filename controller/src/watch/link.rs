//! The way to the API server.
//!
//! A node's own switch makes the cluster's Service addresses work, so the API server's Service cannot be how the switch's
//! controller gets there for the first time: the configuration names addresses of its own, which are tried in turn, and the
//! one that the environment of a Pod has comes last. Whoever finds that the API server does not answer complains, and all are
//! tried again, beginning with the one that worked.

use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// Where a Pod finds its token and the cluster's certificate.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The name that every API server's certificate has.
const TLS_NAME: &str = "kubernetes.default.svc";
/// How long one candidate may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How often the API server is asked whether it is still there while nobody complains.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// The first and the longest pause between two rounds in which nobody answered.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How long a stream may be silent: the API server sends a bookmark about every minute.
const SILENT_FOR: Duration = Duration::from_secs(100);

/// Why there is no client of an API server.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// What is in a file of ours.
    #[error("cannot use {}: {what}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        what: String,
    },
    /// A URL.
    #[error("{url} is no URL of an API server: {what}")]
    Url {
        /// The URL.
        url: String,
        /// Why.
        what: String,
    },
    /// It does not answer, or with an error.
    #[error("{0}")]
    Answer(String),
}

/// One way to an API server.
#[derive(Clone)]
pub enum Candidate {
    /// A URL, with the token and certificate of a Pod.
    Url(String),
    /// What the environment of a Pod says.
    Environment,
    /// A kubeconfig.
    File(PathBuf),
    /// A client that is there.
    Client(Client),
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Environment => f.write_str("the environment's KUBERNETES_SERVICE_HOST"),
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Client(_) => f.write_str("a client"),
        }
    }
}

/// The candidates in their order: a kubeconfig alone, or the configured URLs and then the environment.
#[must_use]
pub fn candidates(kubeconfig: Option<&Path>, api_servers: &[String]) -> Vec<Candidate> {
    if let Some(file) = kubeconfig {
        return vec![Candidate::File(file.to_owned())];
    }
    let mut all: Vec<_> = api_servers.iter().cloned().map(Candidate::Url).collect();
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || all.is_empty() {
        all.push(Candidate::Environment);
    }
    all
}

impl Candidate {
    async fn client(&self) -> Result<Client, LinkError> {
        let answer = |error: &dyn Error| LinkError::Answer(chain(error));
        let mut config = match self {
            Self::Client(client) => return Ok(client.clone()),
            Self::Url(url) => with_account(url, Path::new(ACCOUNT))?,
            Self::Environment => Config::incluster_env().map_err(|e| answer(&e))?,
            Self::File(file) => {
                let wrong = |what: String| LinkError::File { file: file.clone(), what };
                let read = Kubeconfig::read_from(file).map_err(|e| wrong(chain(&e)))?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(read, &options).await.map_err(|e| wrong(chain(&e)))?
            }
        };
        config.connect_timeout = Some(ANSWER_WITHIN);
        config.read_timeout = Some(SILENT_FOR);
        Client::try_from(config).map_err(|e| answer(&e))
    }
}

/// The configuration for `url` with what a Pod has in `account`. The token is read again when it changes.
fn with_account(url: &str, account: &Path) -> Result<Config, LinkError> {
    let uri = parsed(url).map_err(|what| LinkError::Url { url: url.to_owned(), what })?;
    let token = account.join("token");
    let certificate = account.join("ca.crt");
    for file in [&token, &certificate] {
        std::fs::metadata(file).map_err(|e| LinkError::File { file: file.clone(), what: e.to_string() })?;
    }
    let mut config = Config::new(uri);
    config.root_cert_file = Some(certificate);
    config.tls_server_name = Some(TLS_NAME.to_owned());
    config.auth_info = AuthInfo { token_file: Some(token.display().to_string()), ..AuthInfo::default() };
    Ok(config)
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: T::Err| e.to_string())
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Whether the API server answers this client at all. That something is not allowed is an answer; an unknown token is not.
async fn asks(client: &Client) -> Result<(), LinkError> {
    match timeout(ANSWER_WITHIN, client.apiserver_version()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 || status.code == 404 => Ok(()),
        Ok(Err(error)) => Err(LinkError::Answer(chain(&error))),
        Err(_) => Err(LinkError::Answer(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))),
    }
}

/// A way to the API server, whichever it is at the moment.
#[derive(Clone)]
pub struct Link {
    clients: watch::Receiver<Option<Client>>,
    complaints: Arc<Notify>,
    renewals: Arc<Notify>,
    why: Why,
}

/// Why no API server answers, in words, while none does.
type Why = Arc<Mutex<String>>;

fn say(why: &Why, text: String) {
    *why.lock().unwrap_or_else(PoisonError::into_inner) = text;
}

impl Link {
    /// Begins to look for an API server; the task goes on doing so.
    #[must_use]
    pub fn start(candidates: Vec<Candidate>) -> (Self, JoinHandle<()>) {
        let (sender, clients) = watch::channel(None);
        let (complaints, renewals) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let why = Why::default();
        say(&why, "no API server has been asked yet".to_owned());
        let end = (Arc::clone(&complaints), Arc::clone(&renewals));
        let task = tokio::spawn(look(candidates, sender, end, Arc::clone(&why)));
        (Self { clients, complaints, renewals, why }, task)
    }

    /// Begins anew: for when connections may have ended without a word, as those of an address that the host has no longer.
    pub fn renew(&self) {
        self.renewals.notify_one();
    }

    /// The client, as soon as there is one; none when the end has come. What [`Self::changed`] tells is measured from here.
    pub async fn client(&mut self) -> Option<Client> {
        let found = self.clients.wait_for(Option::is_some).await.ok()?;
        found.clone()
    }

    /// Waits until there is another client, or none.
    pub async fn changed(&mut self) {
        // An error is the end, which `client` tells.
        _ = self.clients.changed().await;
    }

    /// Where to say that the API server does not answer as it should.
    #[must_use]
    pub fn complaints(&self) -> Complaints {
        Complaints(Arc::clone(&self.complaints))
    }

    /// Whether an API server answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.clients.borrow().is_some()
    }

    /// Why none answers, if none does.
    ///
    /// # Errors
    /// What was tried and what came of it, and what to look at.
    pub fn state(&self) -> Result<(), String> {
        if self.is_up() {
            return Ok(());
        }
        Err(self.why.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Where complaints about the API server go.
#[derive(Clone)]
pub struct Complaints(Arc<Notify>);

impl Complaints {
    /// The API server does not answer as it should: it is asked whether it is there.
    pub fn complain(&self) {
        self.0.notify_one();
    }
}

async fn look(
    mut candidates: Vec<Candidate>,
    sender: watch::Sender<Option<Client>>,
    (complaints, renewals): (Arc<Notify>, Arc<Notify>),
    why: Why,
) {
    let mut pause = PAUSE.0;
    let mut told = false;
    while !sender.is_closed() {
        let (found, faults) = first(&candidates).await;
        let Some((index, client)) = found else {
            let text = format!(
                "no API server answers, trying on; what is in force stays, and changes wait. Is api_servers right in the \
                 configuration (the ConfigMap sluice)? {}",
                faults.join("; ")
            );
            if !std::mem::replace(&mut told, true) {
                warn!("{text}");
            }
            say(&why, text);
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
            continue;
        };
        (pause, told) = (PAUSE.0, false);
        candidates[..=index].rotate_right(1);
        info!("the API server answers by {}", candidates[0]);
        sender.send_replace(Some(client.clone()));
        let text = tokio::select! {
            fault = stay(&client, &complaints) => {
                format!("the API server does not answer any more by {}: {fault}", candidates[0])
            }
            () = renewals.notified() => "connections to the API server begin anew: addresses of the host have gone".to_owned(),
        };
        warn!("{text}");
        say(&why, text);
        sender.send_replace(None);
    }
}

/// The first candidate that answers, and why those before it do not.
async fn first(candidates: &[Candidate]) -> (Option<(usize, Client)>, Vec<String>) {
    let mut faults = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let found = async {
            let client = candidate.client().await?;
            asks(&client).await.map(|()| client)
        };
        match found.await {
            Ok(client) => return (Some((index, client)), faults),
            Err(error) => faults.push(format!("{candidate}: {error}")),
        }
    }
    (None, faults)
}

/// Stays with a client while the API server answers it.
async fn stay(client: &Client, complaints: &Notify) -> LinkError {
    loop {
        _ = timeout(ASK_EVERY, complaints.notified()).await;
        if let Err(error) = asks(client).await {
            return error;
        }
        // Complaints that come at once would have us ask without a pause.
        sleep(PAUSE.0).await;
    }
}
