//! The real binary: command line, configuration, start and stop.

use std::{
    io::Read,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use tokio::net::{TcpListener, TcpSocket};

use crate::support::{
    component::{ServerStream, shown},
    process::{ServiceProcess, lines_with_event},
};

fn gjallar(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gjallar"));
    command.args(arguments).env_clear().envs(variables.iter().copied()).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let Output { status, stdout, stderr } = gjallar(arguments, variables).output().unwrap();
    let output = [stdout, stderr].concat();
    (status.code().unwrap(), String::from_utf8(output).unwrap())
}

/// Process that is killed when the test ends, and its log.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn serve(port: u16, store: &Path, more: &[(&str, &str)]) -> Self {
        let server = format!("127.0.0.1:{port}");
        let store = format!("sled:{}", store.display());
        let mut variables = vec![
            ("GJALLAR_JID", "pubsub.localhost"),
            ("GJALLAR_SERVER", server.as_str()),
            ("GJALLAR_SECRET", "secret"),
            ("GJALLAR_STORE", store.as_str()),
        ];
        variables.extend(more);
        Self(gjallar(&["serve"], &variables).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Reads the log until a line has this event.
    fn has_logged(&mut self, event: &str) {
        let log = self.0.stderr.as_mut().unwrap();
        let (mut line, mut byte) = (Vec::new(), [0]);
        while lines_with_event(&String::from_utf8_lossy(&line), event).is_empty() {
            if byte == *b"\n" {
                line.clear();
            }
            assert_eq!(log.read(&mut byte).unwrap(), 1, "it ended without logging {event}");
            line.push(byte[0]);
        }
    }

    /// Waits for the process to end; returns its exit code and its whole log.
    fn ended(mut self) -> (i32, String) {
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.0.wait().unwrap().code().unwrap(), log)
    }
}

const PUBSUB: &str = "http://jabber.org/protocol/pubsub";

async fn ask(link: &mut ServerStream, content: &str) -> minidom::Element {
    link.send(&format!(
        "<iq type='set' id='1' from='owner@localhost/x' to='pubsub.localhost'>\
         <pubsub xmlns='{PUBSUB}'>{content}</pubsub></iq>"
    ))
    .await;
    link.receive().await.unwrap()
}

#[test]
fn help_lists_commands_variables_and_exit_codes() {
    let (code, help) = run(&["--help"], &[]);
    assert_eq!(code, 0);
    for word in ["serve", "check-config", "GJALLAR_JID", "GJALLAR_STORE", "Exit codes"] {
        assert!(help.contains(word), "{word}");
    }
    let (code, help) = run(&["serve", "--help"], &[]);
    assert_eq!(code, 0);
    assert!(help.contains("--config") && help.contains("GJALLAR_CONFIG"));
    assert_eq!(run(&[], &[]).0, 2);
}

#[test]
fn check_config_names_the_invalid_key() {
    let good = [("GJALLAR_JID", "pubsub.localhost"), ("GJALLAR_SECRET", "s"), ("HOME", "/tmp")];
    let (code, output) = run(&["check-config"], &good);
    assert_eq!((code, output.as_str()), (0, "the configuration is in order\n"));
    for (variable, expected) in [
        (("GJALLAR_JID", "a@b"), "jid: \"a@b\" is not a domain"),
        (("GJALLAR_SERVER", "nowhere"), "server: \"nowhere\" is not host:port"),
        (("GJALLAR_STORE", "paper:"), "store: \"paper:\" is neither sled:PATH nor memory:"),
        (("GJALLAR_ADMINS", "@"), "admins: \"@\""),
        (("GJALLAR_CREATORS", "alice@localhost"), "creators: \"alice@localhost\" is not a domain"),
        (("GJALLAR_SECRET_FILE", "/nowhere"), "secret_file: secret is also set"),
        (("GJALLAR_LOG", "a=b=c"), "log: "),
        (("GJALLAR_LINK_PING_AFTER_SECONDS", "0"), "link.ping_after_seconds: from 1 to 86400"),
        (
            ("GJALLAR_LIMITS_MAX_PAYLOAD_BYTES", "500000"),
            "limits.max_payload_bytes: at most 252144: (link.max_stanza_bytes",
        ),
        (
            ("GJALLAR_LINK_MAX_REMOTE_STANZA_BYTES", "100000"),
            "limits.max_payload_bytes: at most 40000: (link.max_remote_stanza_bytes",
        ),
        (("GJALLAR_UNHEARD_OF", "x"), "GJALLAR_UNHEARD_OF: unknown key"),
        (("GJALLAR_CONFIG", "/nowhere.toml"), "/nowhere.toml: No such file"),
    ] {
        let (code, output) = run(&["check-config"], &[good.as_slice(), &[variable]].concat());
        assert_eq!(code, 2, "{output}");
        assert!(output.contains(expected), "{output} is not {expected}");
        assert!(!output.contains("panicked"));
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gjallar.toml");
    let (code, output) = run(&["check-config", "--config", shipped.to_str().unwrap()], &good);
    assert_eq!(code, 0, "{output}");
    let (code, output) = run(&["serve"], &[("HOME", "/tmp")]);
    assert_eq!(code, 2);
    assert!(output.contains("jid: not set"), "{output}");
}

#[test]
fn secret_is_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "s3cret\n").unwrap();
    let variables = [
        ("GJALLAR_JID", "pubsub.localhost"),
        ("GJALLAR_SECRET_FILE", file.to_str().unwrap()),
        ("HOME", "/tmp"),
    ];
    assert_eq!(run(&["check-config"], &variables).0, 0);
    std::fs::write(&file, "\n").unwrap();
    assert_eq!(run(&["check-config"], &variables).0, 2);
}

#[tokio::test]
async fn service_starts_with_a_secret_file_and_a_state_directory() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, state) = (folder.path().join("secret"), folder.path().join("state"));
    std::fs::write(&secret, "secret\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let variables = [
        ("GJALLAR_JID", "pubsub.localhost"),
        ("GJALLAR_SERVER", server.as_str()),
        ("GJALLAR_SECRET_FILE", secret.to_str().unwrap()),
        ("STATE_DIRECTORY", state.to_str().unwrap()),
    ];
    let running = Running(gjallar(&["serve"], &variables).stderr(Stdio::piped()).spawn().unwrap());
    // A successful handshake proves that the secret is correct.
    let link = ServerStream::accept(&listener).await;
    assert!(state.join("store/db").exists());
    running.terminate();
    drop(link);
    assert_eq!(running.ended().0, 0);
}

#[tokio::test]
async fn service_starts_before_the_server_and_stops_in_order() {
    let folder = tempfile::tempdir().unwrap();
    // A bound port on which nothing listens yet.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut running = Running::serve(port, folder.path(), &[]);
    running.has_logged("link_failed");
    let listener = socket.listen(8).unwrap();
    let mut link = ServerStream::accept(&listener).await;
    assert_eq!(ask(&mut link, "<create node='n'/>").await.attr("type"), Some("result"));
    running.terminate();
    assert!(link.receive().await.is_none());
    let (code, log) = running.ended();
    assert_eq!(code, 0, "{log}");
    for event in ["link_closed", "service_stopped"] {
        assert_eq!(lines_with_event(&log, event).len(), 1, "{event}: {log}");
    }
}

#[tokio::test]
async fn configuration_file_suffices_and_a_memory_store_leaves_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = folder.path().join("gjallar.toml");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gjallar.toml");
    let server = listener.local_addr().unwrap().to_string();
    let text = std::fs::read_to_string(shipped)
        .unwrap()
        .replace("jid = \"\"", "jid = \"pubsub.localhost\"")
        .replace("secret = \"\"", "secret = \"secret\"")
        .replace("store = \"\"", "store = \"memory:\"")
        .replace("localhost:5347", &server);
    std::fs::write(&file, text).unwrap();
    let serve = ["serve", "--config", file.to_str().unwrap()];
    let running = Running(gjallar(&serve, &[]).stderr(Stdio::piped()).spawn().unwrap());
    let mut link = ServerStream::accept(&listener).await;
    assert_eq!(ask(&mut link, "<create node='n'/>").await.attr("type"), Some("result"));
    running.terminate();
    assert!(link.receive().await.is_none());
    assert_eq!(running.ended().0, 0);
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}

#[tokio::test]
async fn acknowledged_changes_survive_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut expected = Vec::new();
    for round in 0..5 {
        let mut running = Running::serve(port, folder.path(), &[]);
        let mut link = ServerStream::accept(&listener).await;
        ask(&mut link, "<create node='n'/>").await;
        for number in 0..20 {
            let id = format!("{round}-{number}");
            let item = format!("<publish node='n'><item id='{id}'><x xmlns='x'/></item></publish>");
            assert_eq!(ask(&mut link, &item).await.attr("type"), Some("result"));
            expected.push(id);
        }
        link.send(&format!(
            "<iq type='get' id='1' from='owner@localhost/x' to='pubsub.localhost'>\
             <pubsub xmlns='{PUBSUB}'><items node='n'/></pubsub></iq>"
        ))
        .await;
        let answer = link.receive().await.unwrap();
        let items = answer.children().next().unwrap().children().next().unwrap();
        let stored: Vec<_> = items.children().map(|item| item.attr("id").unwrap()).collect();
        assert_eq!(stored, expected);
        running.0.kill().unwrap();
    }
}

#[test]
fn a_stopped_store_is_checked_exported_and_imported() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-10.ndjson");
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sled:{}", folder.path().join("store").display());
    let with_store = |command: &str| run(&[command, "--store", &store], &[]);
    for command in ["check", "export"] {
        let (code, output) = with_store(command);
        assert_eq!(code, 3, "{output}");
        assert!(output.contains("no store is there"), "{output}");
    }
    let archive = std::fs::File::open(&fixture).unwrap();
    let import = gjallar(&["import", "--same-epoch", "--store", &store], &[])
        .stdin(archive)
        .output()
        .unwrap();
    let output = String::from_utf8(import.stderr).unwrap();
    assert_eq!(import.status.code(), Some(0), "{output}");
    assert_eq!(output, "read 1 nodes, 1 subscriptions, 3 items, 5 events that are owed\n");
    let export = gjallar(&["export", "--store", &store], &[]).output().unwrap();
    assert_eq!(export.stdout, std::fs::read(&fixture).unwrap());
    assert_eq!(with_store("check"), (0, "the store is in order\n".into()));
    let again = gjallar(&["import", "--store", &store], &[]).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr).unwrap().contains("the store is not empty"));
    // A damaged marker file.
    let marker = folder.path().join("store/gjallar.store");
    let content = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, content.replace("ready", "reads")).unwrap();
    let (code, output) = with_store("check");
    assert_eq!(code, 3, "{output}");
}

/// The same export while the service runs and receives publishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_service_is_checked_and_exported_from_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = Running::serve(listener.local_addr().unwrap().port(), folder.path(), &[]);
    let mut link = ServerStream::accept(&listener).await;
    for node in ["a", "b"] {
        assert_eq!(
            ask(&mut link, &format!("<create node='{node}'/>")).await.attr("type"),
            Some("result")
        );
    }
    let store = format!("sled:{}", folder.path().display());
    let exporting = tokio::task::spawn_blocking(move || {
        let with_store = |command: &str| run(&[command, "--store", &store], &[]);
        let exports: Vec<_> = (0..5)
            .map(|_| gjallar(&["export", "--store", &store], &[]).output().unwrap())
            .collect();
        (exports, with_store("check"), with_store("stats"), with_store("import"))
    });
    // Each pair of items is published to `a` first and then to `b`.
    let mut published = 0;
    while !exporting.is_finished() {
        for node in ["a", "b"] {
            let item = format!(
                "<publish node='{node}'><item id='{published}'><x xmlns='x'/></item></publish>"
            );
            assert_eq!(ask(&mut link, &item).await.attr("type"), Some("result"));
        }
        published += 1;
    }
    let (exports, check, (_, stats), import) = exporting.await.unwrap();
    assert_eq!(check, (0, "the store is in order\n".into()));
    assert!(stats.contains("gjallar_link_up 1\n") && stats.ends_with("# EOF\n"), "{stats}");
    assert_eq!(import.0, 3);
    assert!(import.1.contains("in use by another process"), "{}", import.1);
    let mut most = 0;
    for export in exports {
        let text = String::from_utf8(export.stdout).unwrap();
        assert_eq!(export.status.code(), Some(0), "{}", String::from_utf8_lossy(&export.stderr));
        let items = |node: &str| {
            let of_node = text
                .split("\"kind\":\"node\"")
                .find(|part| part.contains(&format!("\"node\":\"{node}\"")));
            of_node.unwrap().matches("\"kind\":\"item\"").count()
        };
        let (a, b) = (items("a"), items("b"));
        assert!(a == b || a == b + 1, "{a} and {b}");
        assert!(a >= most);
        most = a;
    }
    assert!(most > 0);
    let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with("snapshot-")));
    running.terminate();
    drop(link);
    assert_eq!(running.ended().0, 0);
    let (code, output) =
        run(&["stats", "--store", &format!("sled:{}", folder.path().display())], &[]);
    assert_eq!(code, 1);
    assert!(output.contains("no running service answers at"), "{output}");
}

#[tokio::test]
async fn sigterm_repeats_no_notifications() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut sequences = Vec::new();
    for round in 0..3 {
        let running = Running::serve(port, folder.path(), &[]);
        let mut link = ServerStream::accept(&listener).await;
        if round == 0 {
            ask(&mut link, "<create node='n'/>").await;
            ask(&mut link, "<subscribe node='n' jid='owner@localhost/x'/>").await;
        }
        for number in 0..50 {
            link.send(&format!(
                "<iq type='set' id='p' from='owner@localhost/x' to='pubsub.localhost'><pubsub \
                 xmlns='{PUBSUB}'><publish node='n'><item id='{round}-{number}'><x xmlns='x'/></item>\
                 </publish></pubsub></iq>"
            ))
            .await;
        }
        let mut answers = 0;
        let mut stopping = false;
        while let Some(stanza) = link.receive().await {
            sequences.extend(stanza.get_child("stanza-id", "urn:xmpp:sid:0").map(|place| {
                place.attr("id").unwrap().split_once('-').unwrap().1.parse::<u64>().unwrap()
            }));
            answers += usize::from(stanza.name() == "iq");
            if answers == 50 && !stopping {
                stopping = true;
                running.terminate();
            }
        }
        assert_eq!(running.ended().0, 0);
    }
    assert_eq!(sequences, (1..=150).collect::<Vec<_>>());
}

/// More notifications are queued at the stop than the server accepts in time: accepted ones are not
/// repeated, the rest is sent after the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_during_a_large_backlog_repeats_no_notifications() {
    let mut served = ServiceProcess::start(&[("LOG", "warn")], &[]).await;
    served.granted("owner@localhost", "<create node='n'/>").await;
    served.subscribe_many("owner@localhost", "n", 1000).await;
    served.link.hold_barriers();
    for id in 0..20 {
        served.publish("owner@localhost", "n", &id.to_string()).await;
    }
    served.terminate();
    served.has_logged_event("stop_deadline_reached").await;
    served.link.release_barriers().await;
    served.restart().await;
    let first = served.messages.len();
    assert!((1..=10_000).contains(&first), "{first}");
    while served.messages.len() < 20_000 {
        let stanza = served.link.receive().await.unwrap();
        served.messages.push(stanza);
    }
    while served.stat("log_backlog_entries").await > 0 {
        served.ask("owner@localhost", "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    }
    let delivered = |stanza: &minidom::Element| {
        let stanza_id = stanza.get_child("stanza-id", "urn:xmpp:sid:0").unwrap();
        (stanza.attr("to").unwrap().to_owned(), stanza_id.attr("id").unwrap().to_owned())
    };
    let all: std::collections::BTreeSet<_> = served.messages.iter().map(delivered).collect();
    assert_eq!((all.len(), served.messages.len()), (20_000, 20_000));
}

#[tokio::test]
async fn second_process_on_one_store_exits_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _first = Running::serve(port, folder.path(), &[]);
    let _link = ServerStream::accept(&listener).await;
    let (code, log) = Running::serve(port, folder.path(), &[]).ended();
    assert_eq!(code, 3, "{log}");
    assert!(log.contains("in use by another process"), "{log}");
}

#[test]
fn import_of_a_source_requires_the_service_it_is_from() {
    for (arguments, variables) in [
        (&["import", "--source", "/x"][..], [("GJALLAR_STORE", "memory:")]),
        (&["import"], [("GJALLAR_IMPORT_SOURCE", "/x")]),
    ] {
        let (code, output) = run(arguments, &variables);
        assert_eq!(code, 2, "{output}");
        assert!(output.contains("--from <SERVICE>"), "{output}");
    }
}

/// The service of the other user could not open files of root.
#[test]
fn root_is_refused_at_a_store_of_another_user() {
    let folder = tempfile::tempdir().unwrap();
    // Only root may change the owner of a folder.
    if std::os::unix::fs::chown(folder.path(), Some(65_534), None).is_err() {
        return;
    }
    let store = format!("sled:{}", folder.path().display());
    let variables =
        [("GJALLAR_JID", "pubsub.localhost"), ("GJALLAR_SECRET", "s"), ("GJALLAR_STORE", &store)];
    for command in ["serve", "check", "export", "import"] {
        let (code, output) = run(&[command], &variables);
        assert_eq!(code, 3, "{command}: {output}");
        assert!(output.contains("belongs to the user with id 65534"), "{command}: {output}");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn store_without_its_database_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let first = Running::serve(port, folder.path(), &[]);
    let link = ServerStream::accept(&listener).await;
    first.terminate();
    drop(link);
    assert_eq!(first.ended().0, 0);
    std::fs::remove_file(folder.path().join("db")).unwrap();
    let (code, log) = Running::serve(port, folder.path(), &[]).ended();
    assert_eq!(code, 3, "{log}");
    assert!(log.contains("db is missing"), "{log}");
}

#[tokio::test]
async fn dead_link_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let fast =
        [("GJALLAR_LINK_PING_AFTER_SECONDS", "1"), ("GJALLAR_LINK_PING_DEADLINE_SECONDS", "3")];
    let running = Running::serve(port, folder.path(), &fast);
    let mut first = ServerStream::accept(&listener).await;
    let ping = first.receive_any().await.unwrap();
    assert!(ping.has_child("ping", "urn:xmpp:ping"));
    // Current ejabberd drops the barrier if its address has no resource.
    assert_eq!(ping.attr("to"), Some("pubsub.localhost/barrier"));
    // A server that routes the barrier back is alive. The component does not answer the returned
    // ping.
    first.send(&shown(&ping)).await;
    let next = first.receive_any().await.unwrap();
    assert!(next.has_child("ping", "urn:xmpp:ping"), "{}", shown(&next));
    // The service gives up a server that does not return the barrier, and reconnects.
    let _second = ServerStream::accept(&listener).await;
    running.terminate();
    let (code, log) = running.ended();
    assert_eq!(code, 0);
    assert_eq!(lines_with_event(&log, "link_renewed").len(), 1, "{log}");
}

#[tokio::test]
async fn wrong_secret_is_logged_as_an_error_without_an_exit() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let json = [("GJALLAR_LOG_FORMAT", "json"), ("GJALLAR_SECRET", "top-secret")];
    let running = Running::serve(port, folder.path(), &json);
    let (mut tcp, _) = listener.accept().await.unwrap();
    tcp.write_all(
        b"<stream:stream xmlns='jabber:component:accept' id='1' \
          xmlns:stream='http://etherx.jabber.org/streams'><stream:error><not-authorized \
          xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
    )
    .await
    .unwrap();
    let mut sent = Vec::new();
    tcp.read_to_end(&mut sent).await.unwrap();
    let again = tokio::time::timeout(Duration::from_secs(3), listener.accept()).await;
    assert!(again.is_err(), "it does not try again at once");
    running.terminate();
    let (code, log) = running.ended();
    assert_eq!(code, 0);
    let line = log.lines().find(|line| line.contains("\"event\":\"login_failed\"")).unwrap();
    assert!(line.contains("\"level\":\"ERROR\"") && line.contains("not-authorized"), "{line}");
    assert!(!log.contains("top-secret"));
}

#[tokio::test]
async fn the_log_at_info_has_no_payloads_and_no_requesters() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let running = Running::serve(port, folder.path(), &[]);
    let mut link = ServerStream::accept(&listener).await;
    ask(&mut link, "<create node='n'/>").await;
    ask(&mut link, "<publish node='n'><item><x xmlns='x'>private</x></item></publish>").await;
    ask(&mut link, "<publish node='nowhere'><item/></publish>").await;
    running.terminate();
    drop(link);
    let (_, log) = running.ended();
    let audit = lines_with_event(&log, "node_changed");
    assert_eq!(audit.len(), 2, "{log}");
    for line in log.lines() {
        assert!(!line.contains("private") && !line.contains("secret"), "{log}");
        // Changes by owners are in the audit log.
        assert!(audit.contains(&line) || !line.contains("owner@localhost"), "{log}");
    }
}

#[tokio::test]
async fn start_line_has_the_size_of_the_store() {
    let mut served = ServiceProcess::start(&[("LOG_FORMAT", "json")], &[]).await;
    for node in ["m", "n"] {
        served.granted("owner@localhost", &format!("<create node='{node}'/>")).await;
    }
    served.subscribe_many("owner@localhost", "n", 1).await;
    while served.stat("log_backlog_entries").await > 0 {
        served.ask("owner@localhost", "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    }
    served.link.hold_barriers();
    served.publish("owner@localhost", "n", "1").await;
    served.kill_and_restart().await;
    let log = served.log();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let started: Vec<_> = lines.filter(|line| line["event"] == "service_started").collect();
    assert_eq!(started.len(), 2, "{log}");
    for (line, nodes, pending_entries) in [(&started[0], 0, 0), (&started[1], 2, 1)] {
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(line["jid"], "pubsub.localhost");
        assert_eq!(line["store"], format!("sled:{}", served.store().display()));
        assert_eq!(line["nodes"], nodes);
        assert_eq!(line["pending_entries"], pending_entries);
        assert!(line["recovery_ms"].as_u64().is_some_and(|time| time < 60_000), "{line}");
    }
}

#[test]
fn restriction_of_creators_to_administrators_is_logged_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::serve(1, folder.path(), &[("GJALLAR_JID", "pubsub.net")]);
    running.has_logged("creators_restricted");
    running.terminate();
    assert_eq!(running.ended().0, 0);
}
