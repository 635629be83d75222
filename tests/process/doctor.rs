//! `gjallar doctor` against servers with defects.

use std::{
    collections::BTreeMap,
    process::{Command, Output, Stdio},
};

use minidom::Element;
use tokio::net::TcpListener;

use crate::support::{
    component::{SERVICE, ServerStream, is_barrier, shown},
    process::ServiceProcess,
};

const OWN: &str = "pubsub.localhost/barrier";
const POST: &str = "multicast.localhost/barrier";

/// Defects of a server.
#[derive(Clone, Copy, Default)]
struct Server {
    /// Drops stanzas that the component sends to itself.
    drops_own: bool,
    /// Drops stanzas to bare addresses.
    drops_bare: bool,
    grants_nothing: bool,
    /// Ends the connection when it receives a large stanza.
    is_small: bool,
    refuses_rosters: bool,
    /// Routes to another component with the same JID, which answers the stanzas that the service
    /// sends to itself.
    is_shared: bool,
}

impl Server {
    /// Answers stanzas until the connection ends.
    async fn serve(self, link: &mut ServerStream) {
        link.on_questions(crate::support::component::Questions::Received);
        if !self.grants_nothing {
            let perm = "<perm access='roster' type='get'/>";
            link.send_if_it_lives(&format!(
                "<message from='localhost' to='{SERVICE}'><privilege xmlns='urn:xmpp:privilege:2'>\
                 {perm}</privilege></message>"
            ))
            .await;
        }
        while let Some(stanza) = link.receive_any().await {
            if self.is_small && shown(&stanza).len() > 100_000 {
                return link.shut().await;
            }
            self.answer(link, &stanza).await;
        }
    }

    async fn answer(self, link: &mut ServerStream, stanza: &Element) {
        let to = stanza.attr("to").unwrap();
        let child = stanza.children().next();
        let result = |content: &str| {
            let id = stanza.attr("id").unwrap();
            format!("<iq type='result' from='{to}' to='{SERVICE}' id='{id}'>{content}</iq>")
        };
        let ns = child.map(Element::ns).unwrap_or_default();
        let answer = match to {
            OWN | SERVICE if self.drops_own => return,
            OWN if self.is_shared => result("").replace(OWN, SERVICE),
            OWN => shown(stanza),
            _ if self.drops_bare && !to.contains('@') && to != POST => return,
            SERVICE => shown(stanza),
            "localhost" => match ns.as_str() {
                "jabber:iq:version" => result(
                    "<query xmlns='jabber:iq:version'><name>Example</name><version>1.2</version>\
                     </query>",
                ),
                "http://jabber.org/protocol/disco#items" => result(
                    "<query xmlns='http://jabber.org/protocol/disco#items'>\
                     <item jid='multicast.localhost'/></query>",
                ),
                ns => result(&format!("<query xmlns='{ns}'/>")),
            },
            POST => result(
                "<query xmlns='http://jabber.org/protocol/disco#info'>\
                 <feature var='http://jabber.org/protocol/address'/></query>",
            ),
            "admin@localhost" if !self.refuses_rosters => {
                result("<query xmlns='jabber:iq:roster'/>")
            }
            _ => result("").replace("type='result'", "type='error'"),
        };
        link.send_if_it_lives(&answer).await;
    }

    /// Runs the doctor; returns its verdict for each check, and the exit code.
    async fn examined(self) -> (BTreeMap<String, String>, i32) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let command = tokio::task::spawn_blocking(move || doctor(port, &["--json"]));
        let mut link = ServerStream::accept(&listener).await;
        self.serve(&mut link).await;
        verdicts(&command.await.unwrap())
    }
}

fn doctor(port: u16, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gjallar"));
    command.arg("doctor").args(arguments).env_clear().stdin(Stdio::null());
    command.env("GJALLAR_SERVER", format!("127.0.0.1:{port}"));
    for (name, value) in [
        ("JID", SERVICE),
        ("SECRET", "secret"),
        ("STORE", "memory:"),
        ("ADMINS", "a@far.example,admin@localhost"),
    ] {
        command.env(format!("GJALLAR_{name}"), value);
    }
    command.output().unwrap()
}

fn verdicts(output: &Output) -> (BTreeMap<String, String>, i32) {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let verdict = |line: &str| {
        let finding: serde_json::Value = serde_json::from_str(line).unwrap();
        let part = |name: &str| finding[name].as_str().unwrap().to_owned();
        assert!(!part("text").is_empty());
        (part("check"), part("verdict"))
    };
    (text.lines().map(verdict).collect(), output.status.code().unwrap())
}

const CHECKS: [&str; 12] = [
    "barrier",
    "components",
    "connection",
    "disco",
    "multicast",
    "ping",
    "presence",
    "privilege",
    "rosters",
    "round-trip",
    "server",
    "stanza-size",
];

/// Names of the checks with this verdict.
fn with(verdicts: &BTreeMap<String, String>, verdict: &str) -> Vec<String> {
    let with = verdicts.iter().filter(|(_, of)| *of == verdict);
    with.map(|(check, _)| check.clone()).collect()
}

#[tokio::test]
async fn all_checks_pass_at_a_server_with_all_features() {
    let (verdicts, code) = Server::default().examined().await;
    assert_eq!((with(&verdicts, "ok"), code), (CHECKS.map(str::to_owned).to_vec(), 0));
}

#[tokio::test]
async fn missing_features_are_degraded_or_failed() {
    let server = Server { drops_bare: true, grants_nothing: true, ..Server::default() };
    let (verdicts, code) = server.examined().await;
    let degraded = ["components", "disco", "ping", "privilege", "server"].map(str::to_owned);
    assert_eq!((with(&verdicts, "degraded"), code), (degraded.to_vec(), 4));
    // The doctor finds the multicast service under its usual name.
    assert_eq!(verdicts["multicast"], "ok");

    let server = Server { is_small: true, refuses_rosters: true, ..Server::default() };
    let (verdicts, code) = server.examined().await;
    assert_eq!(with(&verdicts, "degraded"), ["rosters"]);
    assert_eq!((with(&verdicts, "failed"), code), (vec!["stanza-size".to_owned()], 1));
}

#[tokio::test]
async fn another_service_of_the_same_jid_is_detected() {
    let server = Server { is_shared: true, ..Server::default() };
    let (verdicts, code) = server.examined().await;
    assert_eq!((with(&verdicts, "failed"), code), (vec!["jid".to_owned()], 1));
    assert_eq!(with(&verdicts, "ok"), ["connection", "server"]);
}

#[tokio::test]
async fn silent_or_unreachable_server_fails() {
    let server = Server { drops_own: true, ..Server::default() };
    let (verdicts, code) = server.examined().await;
    let failed = ["barrier", "stanza-size"].map(str::to_owned);
    assert_eq!((with(&verdicts, "failed"), code), (failed.to_vec(), 1));

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = tokio::task::spawn_blocking(move || doctor(free, &[])).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("failed") && text.contains("connection"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn connection_of_a_running_service_is_examined() {
    let mut served = ServiceProcess::start(&[("ADMINS", "admin@localhost")], &[]).await;
    let store = format!("sled:{}", served.store().display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_gjallar"));
    command.args(["doctor", "--json", "--store", &store]).env_clear().stdin(Stdio::null());
    for (name, value) in [("JID", SERVICE), ("SECRET", "another")] {
        command.env(format!("GJALLAR_{name}"), value);
    }
    let mut examining = tokio::task::spawn_blocking(move || command.output().unwrap());
    let server = Server::default();
    let output = tokio::select! {
        () = server.serve(&mut served.link) => panic!("the connection ended"),
        output = &mut examining => output.unwrap(),
    };
    let (verdicts, code) = verdicts(&output);
    assert_eq!((with(&verdicts, "ok"), code), (CHECKS.map(str::to_owned).to_vec(), 0));
    // The service keeps running.
    served.link.on_questions(crate::support::component::Questions::Refused);
    served.request("a@localhost/x", "ping", "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    loop {
        let stanza = served.link.receive_any().await.unwrap();
        if stanza.attr("id") == Some("ping") {
            break assert_eq!(stanza.attr("type"), Some("result"));
        }
        assert!(is_barrier(&stanza) || stanza.name() != "message", "{}", shown(&stanza));
    }
}
