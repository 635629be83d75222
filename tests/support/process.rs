//! The real binary on real files, and the server's end of its stream.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use minidom::Element;
use tokio::{net::TcpListener, time::Instant};

use super::component::{OWNER, PUBSUB, SERVICE, ServerStream};

/// Service in a separate process that can be killed and restarted. Keeps the notifications
/// received.
pub struct ServiceProcess {
    folder: tempfile::TempDir,
    listener: TcpListener,
    process: Child,
    variables: Vec<(String, String)>,
    pub link: ServerStream,
    pub messages: Vec<Element>,
    asked: u64,
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl ServiceProcess {
    /// Starts the service with these configuration variables (without their prefix) and other
    /// environment variables.
    pub async fn start(configuration: &[(&str, &str)], others: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let named = |(name, value): &(&str, &str)| (format!("GJALLAR_{name}"), (*value).to_owned());
        let others = others.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let variables: Vec<_> = configuration.iter().map(named).chain(others).collect();
        let process = spawn(folder.path(), &listener, &variables);
        let link = ServerStream::accept(&listener).await;
        Self { folder, listener, process, variables, link, messages: Vec::new(), asked: 0 }
    }

    /// Kills the process, reads what is left in the socket buffers, and starts it again.
    pub async fn kill_and_restart(&mut self) {
        self.kill_and_restart_after(|_| {}).await;
    }

    /// Like [`Self::kill_and_restart`], with a change of the store folder before the restart.
    pub async fn kill_and_restart_after(&mut self, change: impl FnOnce(&Path)) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        while let Some(stanza) = self.link.receive().await {
            if stanza.name() == "message" {
                self.messages.push(stanza);
            }
        }
        change(&self.store());
        self.process = spawn(self.folder.path(), &self.listener, &self.variables);
        self.link = ServerStream::accept(&self.listener).await;
    }

    /// Stops the service cleanly, and starts it again.
    pub async fn stop_and_restart(&mut self) {
        self.terminate();
        self.restart().await;
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGHUP, which reloads the configuration.
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for a clean end of the process, and starts it again.
    pub async fn restart(&mut self) {
        while let Some(stanza) = self.link.receive().await {
            if stanza.name() == "message" {
                self.messages.push(stanza);
            }
        }
        assert!(self.process.wait().unwrap().success());
        self.process = spawn(self.folder.path(), &self.listener, &self.variables);
        self.link = ServerStream::accept(&self.listener).await;
    }

    /// Waits for the next connection of the service.
    pub async fn reconnected(&mut self) {
        self.link = ServerStream::accept(&self.listener).await;
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Waits until the log has this event.
    pub async fn has_logged_event(&mut self, event: &str) {
        self.has_logged(&logged_as(event)).await;
    }

    /// Waits until the log has this text.
    pub async fn has_logged(&mut self, text: &str) {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.log().contains(text) {
            assert!(self.is_alive(), "it ended without saying {text}: {}", self.log());
            assert!(Instant::now() < until, "it has not said {text}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns `true` if the log has this event.
    pub fn has_event(&self, event: &str) -> bool {
        !lines_with_event(&self.log(), event).is_empty()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Returns `true` if the process runs.
    pub fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Returns the resident memory in MiB.
    pub fn memory(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Returns the output of `gjallar stats`.
    pub async fn stats(&self) -> String {
        let mut command = gjallar();
        command.arg("stats").arg("--store").arg(format!("sled:{}", self.store().display()));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns one value of `gjallar stats`.
    pub async fn stat(&self, name: &str) -> u64 {
        let text = self.stats().await;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("gjallar_{name} ")));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
    }

    /// Returns the output of `gjallar check`.
    pub async fn check(&self) -> String {
        let mut command = gjallar();
        command.arg("check").arg("--store").arg(format!("sled:{}", self.store().display()));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        String::from_utf8(output.stderr).unwrap()
    }

    /// Sends a request without waiting for its answer.
    pub async fn request(&mut self, from: &str, id: &str, kind: &str, content: &str) {
        let iq = format!("<iq type='{kind}' id='{id}' from='{from}' to='{SERVICE}'>{content}</iq>");
        self.link.send(&iq).await;
    }

    /// Sends a request; returns its answer and latency.
    pub async fn timed(&mut self, from: &str, kind: &str, content: &str) -> (Element, Duration) {
        self.asked += 1;
        let id = format!("ask-{}", self.asked);
        let began = Instant::now();
        self.request(from, &id, kind, content).await;
        loop {
            let stanza = self.link.receive().await.expect("the stream ended");
            if stanza.attr("id") == Some(&id) {
                return (stanza, began.elapsed());
            }
            if stanza.name() == "message" {
                self.messages.push(stanza);
            }
        }
    }

    pub async fn ask(&mut self, from: &str, kind: &str, content: &str) -> Element {
        self.timed(from, kind, content).await.0
    }

    /// Sends a request that must succeed, in the public or the owner namespace.
    pub async fn granted(&mut self, from: &str, content: &str) {
        let is_for_owners = ["<purge", "<delete", "<subscriptions", "<affiliations"]
            .iter()
            .any(|action| content.starts_with(action));
        let ns = if is_for_owners { OWNER } else { PUBSUB };
        let content = format!("<pubsub xmlns='{ns}'>{content}</pubsub>");
        let answer = self.ask(from, "set", &content).await;
        assert_eq!(
            answer.attr("type"),
            Some("result"),
            "{content}: {}",
            super::component::shown(&answer)
        );
    }

    /// Subscribes `0@far.example`, `1@far.example` and so on, and waits until each was notified.
    pub async fn subscribe_many(&mut self, owner: &str, node: &str, number: usize) {
        for first in (0..number).step_by(4000) {
            let entry = |name: usize| {
                format!("<subscription jid='{name:06}@far.example' subscription='subscribed'/>")
            };
            let entries: String = (first..number.min(first + 4000)).map(entry).collect();
            let content = format!("<subscriptions node='{node}'>{entries}</subscriptions>");
            self.granted(owner, &content).await;
        }
        self.confirm_notices(number).await;
    }

    /// Receives the notices of this number of new subscriptions, and confirms them.
    pub async fn confirm_notices(&mut self, number: usize) {
        let is_notice = super::component::is_about_a_subscription;
        let mut received = self.messages.extract_if(.., |message| is_notice(message)).count();
        while received < number {
            let stanza = self.link.receive().await.expect("the stream ended");
            received += usize::from(is_notice(&stanza));
        }
        self.link.next_barrier().await;
    }

    pub async fn publish(&mut self, from: &str, node: &str, id: &str) {
        let item = format!("<item id='{id}'><x xmlns='urn:x'>{id}</x></item>");
        self.granted(from, &format!("<publish node='{node}'>{item}</publish>")).await;
    }
}

/// Formats an event as in the text log.
fn logged_as(event: &str) -> String {
    format!("event=\"{event}\"")
}

/// Returns the lines of a text log that have an event.
pub fn lines_with_event<'a>(log: &'a str, event: &str) -> Vec<&'a str> {
    let event = logged_as(event);
    log.lines().filter(|line| line.contains(&event)).collect()
}

fn gjallar() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gjallar"));
    command.env_clear().stdin(Stdio::null());
    command
}

fn spawn(folder: &Path, listener: &TcpListener, variables: &[(String, String)]) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log"));
    gjallar()
        .arg("serve")
        .env("GJALLAR_JID", SERVICE)
        .env("GJALLAR_SERVER", listener.local_addr().unwrap().to_string())
        .env("GJALLAR_SECRET", "secret")
        .env("GJALLAR_STORE", format!("sled:{}", folder.join("store").display()))
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stderr(log.unwrap())
        .spawn()
        .unwrap()
}
