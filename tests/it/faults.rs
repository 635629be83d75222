//! What happens when the store fails, or the stream breaks.

use std::sync::Arc;

use gjallar::{
    pubsub::Affiliation,
    service::Error,
    store::{MemoryStore, Store},
};

use crate::harness::{Component, error, faulty::Faulty, stage::Stage};

const OWNER: &str = "owner@localhost";

fn faulty(fails_at: u64, commits_all_the_same: bool) -> Arc<dyn Store> {
    let inner = Arc::new(MemoryStore::new());
    Arc::new(Faulty { inner, commits: 0.into(), fails_at, commits_all_the_same })
}

/// Every kind of change, each at the commit that fails: after the failure, memory and store agree.
#[tokio::test]
async fn after_a_failed_commit_memory_shows_what_the_store_has() {
    for commits_all_the_same in [false, true] {
        for fails_at in 1..=7 {
            let stage = Stage::new(faulty(fails_at, commits_all_the_same)).await;
            let results = [
                stage.create(OWNER, "a").await.map(|_| ()),
                stage.subscribe("x@localhost", "a").await,
                stage.publish(OWNER, "a", "1").await.map(|_| ()),
                stage.affiliate(OWNER, "a", "x@localhost", Affiliation::Outcast).await,
                stage.retract(OWNER, "a", "1").await,
                stage.purge(OWNER, "a").await,
                stage.delete(OWNER, "a").await,
            ];
            let failed: Vec<_> =
                (1..).zip(&results).filter(|(_, r)| matches!(r, Err(Error::Failed(_)))).collect();
            assert_eq!(failed.len(), 1, "{results:?}");
            assert_eq!(failed[0].0, fails_at);

            let refused = |result: &Result<(), Error>| matches!(result, Err(Error::Refused(_)));
            match (fails_at, commits_all_the_same) {
                // What did not happen is not there: every later request finds no node.
                (1, false) => assert!(results[1..].iter().all(refused), "{results:?}"),
                (3, false) => assert!(refused(&results[4]), "{results:?}"),
                _ => assert!(!results.iter().any(refused), "{fails_at}: {results:?}"),
            }
            let there = stage.store.node(&crate::harness::stage::node("a")).await.unwrap();
            assert_eq!(there.is_some(), fails_at == 7 && !commits_all_the_same);
        }
    }
}

#[tokio::test]
async fn a_failed_publish_is_not_told() {
    let stage = Stage::new(faulty(3, false)).await;
    stage.create(OWNER, "a").await.unwrap();
    stage.subscribe("x@localhost", "a").await.unwrap();
    assert!(matches!(stage.publish(OWNER, "a", "1").await, Err(Error::Failed(_))));
    assert_eq!(stage.told(), []);
    stage.publish(OWNER, "a", "1").await.unwrap();
    assert_eq!(stage.told().len(), 1);
}

#[tokio::test]
async fn a_failure_is_answered_and_the_same_request_may_be_repeated() {
    let mut component = Component::with(faulty(2, true), |_| {}).await;
    component.create(OWNER, "n", &[]).await;
    let failed = component.publish(OWNER, "n", "1").await;
    assert_eq!(error(&failed), "wait internal-server-error");
    let again = component.publish(OWNER, "n", "1").await;
    assert_eq!(again.attr("type"), Some("result"));
    assert_eq!(component.items(OWNER, "n").await, ["1"]);
}

#[tokio::test]
async fn a_full_outbox_refuses_before_anything_changes() {
    let stage = Stage::new(Arc::new(MemoryStore::new())).await;
    stage.create(OWNER, "a").await.unwrap();
    stage.subscribe("x@localhost", "a").await.unwrap();
    let mut published = 0;
    let busy = loop {
        match stage.publish(OWNER, "a", "1").await {
            Ok(_) => published += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(busy, Error::Busy), "{busy:?}");
    assert_eq!(stage.items(OWNER, "a").await.unwrap()[0].place.seq, published);
    assert_eq!(stage.told().len() as u64, published);
    stage.publish(OWNER, "a", "1").await.unwrap();
}

/// The stream breaks in the middle of a large audience, and the server goes on reading what was sent.
#[tokio::test]
async fn what_was_not_sent_when_the_stream_broke_is_sent_on_the_next() {
    let mut component = Component::start().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe_many(OWNER, "n", 2000).await;
    component.publish_much(OWNER, "n").await;
    component.send("</stream:stream>").await;
    let mut heard = component.take_messages();
    while let Some(stanza) = component.link.receive().await {
        heard.push(stanza);
    }
    let first = heard.len();
    assert!(first < 2000, "the audience is too small for this test");
    component.reconnected().await;
    heard.extend(component.messages().await);
    let told: std::collections::BTreeSet<_> =
        heard.iter().filter_map(|message| message.attr("to")).collect();
    assert_eq!(told.len(), 2000, "{first} came before the break");
    // What was being written, 64 KiB and a stanza, comes again.
    assert!(heard.len() <= 2000 + 5, "{} events", heard.len());
}
