//! Deleted nodes: results of requests for them, and reservation of their names.

use std::sync::Arc;

use gjallar::{
    config::{Config, PolicyConfig},
    store::MemoryStore,
};

use crate::support::component::{ADMIN, STREAM, TestComponent, error, shown};

const OWNER: &str = "owner@localhost/desk";
const BOT: &str = "bot@localhost/x";
const STRANGER: &str = "stranger@far.example/x";

/// Starts a component with a whitelist node of `OWNER` to which `BOT` publishes.
async fn with_bot(configure: impl FnOnce(&mut Config)) -> TestComponent {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), configure).await;
    component.create(OWNER, "closed", &[("access_model", "whitelist")]).await;
    let bot = "<affiliations node='closed'><affiliation jid='bot@localhost' affiliation='publisher'/>\
               </affiliations>";
    let set = component.owner(OWNER, "set", bot).await;
    assert_eq!(set.attr("type"), Some("result"));
    component.publish(BOT, "closed", "secret").await;
    component
}

async fn delete(component: &mut TestComponent, redirect: &str) {
    let content = format!("<delete node='closed'>{redirect}</delete>");
    let deleted = component.owner(OWNER, "set", &content).await;
    assert_eq!(deleted.attr("type"), Some("result"), "{}", shown(&deleted));
}

/// Returns the error of a request to create the node again, with its text.
async fn refused_name(component: &mut TestComponent, by: &str) -> String {
    let refused = component.pubsub(by, "set", "<create node='closed'/>").await;
    assert_eq!(error(&refused), "auth forbidden");
    let error = refused.get_child("error", STREAM).unwrap();
    error.children().find(|child| child.name() == "text").unwrap().text()
}

const REDIRECT: &str = "<redirect uri='xmpp:pubsub.localhost?;node=closed2'/>";

/// Movim creates and deletes a node to find out whether its user may create nodes.
#[tokio::test]
async fn s8_4_name_of_an_unused_deleted_node_is_free() {
    let mut component = TestComponent::start().await;
    let delete = "<delete node='closed'/>";
    for by in [OWNER, BOT, OWNER] {
        component.create(by, "closed", &[("access_model", "whitelist")]).await;
        let deleted = component.owner(by, "set", delete).await;
        assert_eq!(deleted.attr("type"), Some("result"), "{}", shown(&deleted));
    }
    // The name of a used node is reserved, and stays reserved if the node is created and deleted
    // again.
    component.create(OWNER, "closed", &[]).await;
    component.publish(OWNER, "closed", "1").await;
    for _ in 0..2 {
        component.owner(OWNER, "set", delete).await;
        refused_name(&mut component, BOT).await;
        component.create(OWNER, "closed", &[]).await;
    }
    component.create(BOT, "other", &[]).await;
    let redirect = format!("<delete node='other'>{REDIRECT}</delete>");
    assert_eq!(component.owner(BOT, "set", &redirect).await.attr("type"), Some("result"));
    let gone = component.pubsub(OWNER, "get", "<items node='other'/>").await;
    assert_eq!(error(&gone), "modify gone");
}

/// §8.4.1, §6.1.3.11: a publisher that keeps publishing gets the redirect, and creates no open
/// node.
#[tokio::test]
async fn s8_4_node_with_a_redirect_is_not_created_by_a_publisher() {
    let mut component = with_bot(|_| {}).await;
    delete(&mut component, REDIRECT).await;
    let publish = "<publish node='closed'><item><x xmlns='urn:x'/></item></publish>";
    for (by, kind, content) in [
        (BOT, "set", publish),
        (OWNER, "set", publish),
        (ADMIN, "set", publish),
        (STRANGER, "get", "<items node='closed'/>"),
        (STRANGER, "set", "<subscribe node='closed' jid='stranger@far.example/x'/>"),
    ] {
        let gone = component.pubsub(by, kind, content).await;
        assert_eq!(error(&gone), "modify gone", "{by} {content}");
        let uri = gone.get_child("error", STREAM).unwrap().children().next().unwrap().text();
        assert_eq!(uri, "xmpp:pubsub.localhost?;node=closed2");
    }
    let text = refused_name(&mut component, BOT).await;
    assert!(text.contains("only its former owners and administrators may create it"), "{text}");
    component.create(OWNER, "closed", &[]).await;
    component.publish(OWNER, "closed", "1").await;
    assert_eq!(component.items(STRANGER, "closed").await, ["1"]);
}

/// A publisher that keeps publishing to a deleted node does not recreate it as an open node.
#[tokio::test]
async fn s8_4_deleted_node_is_created_again_by_its_owners_and_administrators() {
    for owner in [OWNER, ADMIN] {
        let mut component = with_bot(|_| {}).await;
        delete(&mut component, "").await;
        for by in [BOT, "other@localhost/x"] {
            let refused = component.publish(by, "closed", "secret").await;
            assert_eq!(error(&refused), "cancel item-not-found");
            let text = refused_name(&mut component, by).await;
            assert!(text.starts_with("the node was deleted: for 30 days"), "{text}");
        }
        let items = component.pubsub(STRANGER, "get", "<items node='closed'/>").await;
        assert_eq!(error(&items), "cancel item-not-found");
        let published = component.publish(owner, "closed", "1").await;
        assert_eq!(published.attr("type"), Some("result"));
    }
}

/// A policy that names the creators of a pattern applies to deleted names too.
#[tokio::test]
async fn s8_4_creators_of_a_policy_may_create_a_deleted_node_again() {
    for (creators, gets_it) in [(Some(vec!["anyone".to_owned()]), true), (None, false)] {
        let policy = PolicyConfig {
            nodes: "clos*".into(),
            creators,
            ..toml::from_str("nodes = 'x'").unwrap()
        };
        let mut component = with_bot(|config| config.policies.push(policy)).await;
        delete(&mut component, "").await;
        let published = component.publish(BOT, "closed", "1").await;
        assert_eq!(published.attr("type") == Some("result"), gets_it, "{}", shown(&published));
        // A redirect has precedence over the policy.
        let mut component = component;
        if gets_it {
            let moved = format!("<delete node='closed'>{REDIRECT}</delete>");
            component.owner(BOT, "set", &moved).await;
            let gone = component.publish(BOT, "closed", "1").await;
            assert_eq!(error(&gone), "modify gone");
        }
    }
}

/// §8.4.2: with `uri=''` subscribers learned that the node has moved, but not its new address.
#[tokio::test]
async fn s8_4_2_redirect_without_an_absolute_uri_is_refused() {
    let mut component = with_bot(|_| {}).await;
    for redirect in ["<redirect uri=''/>", "<redirect/>", "<redirect uri='over there'/>"] {
        let content = format!("<delete node='closed'>{redirect}</delete>");
        let refused = component.owner(OWNER, "set", &content).await;
        assert_eq!(error(&refused), "modify bad-request", "{redirect}");
        assert!(shown(&refused).contains("absolute URI"), "{}", shown(&refused));
    }
    assert_eq!(component.items(OWNER, "closed").await, ["secret"]);
}

/// A redirect from a node to itself would send clients in a circle.
#[tokio::test]
async fn s8_4_2_redirect_to_the_node_itself_is_refused() {
    let mut component = with_bot(|_| {}).await;
    let deleted = async |component: &mut TestComponent, uri: &str| {
        let content = format!("<delete node='closed'><redirect uri='{uri}'/></delete>");
        component.owner(OWNER, "set", &content).await
    };
    for uri in [
        "xmpp:pubsub.localhost?;node=closed",
        "XMPP:PubSub.localhost?pubsub;action=subscribe;node=%63losed",
        "xmpp://owner@localhost/pubsub.localhost?;node=closed#top",
    ] {
        let refused = deleted(&mut component, uri).await;
        assert_eq!(error(&refused), "modify bad-request", "{uri}");
        let text = "the redirect points to the deleted node itself";
        assert!(shown(&refused).contains(text), "{}", shown(&refused));
    }
    assert_eq!(component.items(OWNER, "closed").await, ["secret"]);
    for uri in ["xmpp:other.localhost?;node=closed", "xmpp:pubsub.localhost?;node=closed%2"] {
        let answer = deleted(&mut component, uri).await;
        assert_eq!(answer.attr("type"), Some("result"), "{uri}");
        component.create(OWNER, "closed", &[]).await;
    }
}
