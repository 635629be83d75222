//! Notifications to systemd: ready, watchdog, stopping.

use std::time::Duration;

use crate::support::process::ServiceProcess;

#[tokio::test]
async fn systemd_is_notified_of_ready_watchdog_and_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = tokio::net::UnixDatagram::bind(&path).unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];
    let mut service = ServiceProcess::start(&[], &variables).await;
    let next_state = async || {
        let mut buffer = [0; 256];
        let received = tokio::time::timeout(Duration::from_secs(30), systemd.recv(&mut buffer));
        let len = received.await.expect("silence").unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap().trim_end().to_owned()
    };
    assert_eq!(next_state().await, "READY=1");
    for _ in 0..4 {
        assert_eq!(next_state().await, "WATCHDOG=1");
    }
    service.terminate();
    while next_state().await != "STOPPING=1" {}
    service.restart().await;
}
