//! Expiry of items (§16.4.4, `pubsub#item_expire`).

use std::sync::Arc;

use gjallar::{
    config::Config,
    store::{MemoryStore, SledStore},
};

use super::s06_3_subscription_options::{OWNER, READER, item_ids, publish};
use crate::support::component::{TestComponent, event, shown};

#[tokio::test]
async fn s16_4_4_expired_items_are_retracted_with_notifications() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut component = TestComponent::with(open(), |_| {}).await;
    component.create(OWNER, "n", &[("item_expire", "1")]).await;
    component.subscribe(READER, "n").await;
    publish(&mut component, "1", "<x xmlns='urn:x'/>").await;
    publish(&mut component, "2", "<x xmlns='urn:x'/>").await;
    let mut gone = Vec::new();
    while gone.len() < 2 {
        let message = component.message().await;
        let items = event(&message);
        gone.extend(
            items
                .children()
                .filter(|child| child.name() == "retract")
                .filter_map(|item| item.attr("id").map(str::to_owned)),
        );
    }
    assert_eq!(gone, ["1", "2"]);
    assert_eq!(component.items(READER, "n").await, Vec::<String>::new());
    // Items that exist when the service starts or the field is set expire too.
    component.configure(OWNER, "n", &[("item_expire", "max")]).await;
    publish(&mut component, "3", "<x xmlns='urn:x'/>").await;
    component.configure(OWNER, "n", &[("item_expire", "2")]).await;
    component.messages().await;
    component.finish().await;
    let mut component = TestComponent::with(open(), |_| {}).await;
    let retracted = component.message().await;
    assert_eq!(item_ids(&retracted), ["3"]);
    assert_eq!(component.items(READER, "n").await, Vec::<String>::new());
    component.finish().await;
}

#[tokio::test]
async fn s16_4_4_expired_items_beyond_one_read_are_retracted() {
    let few = |config: &mut Config| config.limits.max_reply_bytes = 2000;
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), few).await;
    component.create(OWNER, "n", &[("item_expire", "1")]).await;
    component.subscribe(READER, "n").await;
    let payload = format!("<x xmlns='urn:x'>{}</x>", "x".repeat(1500));
    let mut gone = Vec::new();
    for id in ["1", "2", "3"] {
        publish(&mut component, id, &payload).await;
    }
    while gone.len() < 3 {
        let message = component.message().await;
        gone.extend(
            item_ids(&message).into_iter().filter(|_| shown(&message).contains("<retract")),
        );
    }
    assert_eq!(gone, ["1", "2", "3"]);
}
