//! XEP-0312, PubSub Since: items that a resource missed while it was away.

use crate::{
    support::component::{SERVICE, TestComponent, event},
    xep0060::s12_3_presence::{
        LAPTOP, OWNER, PHONE, READER, answer_pings, component_with_node, offline, presence,
    },
};

/// XEP-0312: each item published while a resource was away is sent once, and to no other resource.
#[tokio::test]
async fn presence_with_ago_gets_missed_items() {
    let come = async |component: &mut TestComponent, from: &str, away: &str| {
        let ago = format!("<ago xmlns='urn:xmpp:ago:0' secs='{away}'/>");
        component.send(&format!("<presence from='{from}' to='{SERVICE}'>{ago}</presence>")).await;
        component.ask(from, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
        let items = component.messages().await.into_iter().map(|message| {
            assert_eq!(message.attr("to"), Some(from));
            assert!(message.children().any(|child| child.name() == "delay"));
            let items: Vec<_> =
                event(&message).children().map(|i| i.attr("id").unwrap().to_owned()).collect();
            items.join("+")
        });
        items.collect::<Vec<_>>().join(" ")
    };
    let never = ("send_last_published_item", "never");
    let mut component = component_with_node(&[("presence_based_delivery", "1"), never]).await;
    component.subscribe(READER, "n").await;
    offline(&mut component, READER).await;
    for id in ["1", "2", "1"] {
        component.publish(OWNER, "n", id).await;
    }
    let batch = "<item id='3'><x xmlns='urn:x'/></item><item id='4'><x xmlns='urn:x'/></item>";
    component.granted(OWNER, &format!("<publish node='n'>{batch}</publish>")).await;
    assert_eq!(component.messages().await.len(), 0);
    assert_eq!(come(&mut component, PHONE, "3600").await, "2 1 3 4");
    assert_eq!(come(&mut component, PHONE, "3600").await, "2 1 3 4", "its server did not notice");
    component.reconnected_by_force().await;
    // Unconfirmed events are repeated to the resources that are available now.
    answer_pings(&mut component, 1).await;
    component.ask(PHONE, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    component.messages().await;
    assert_eq!(come(&mut component, PHONE, "3600").await, "2 1 3 4");
    assert_eq!(come(&mut component, LAPTOP, "long").await, "");
    presence(&mut component, PHONE, "unavailable", "").await;
    component.configure(OWNER, "n", &[("presence_based_delivery", "0")]).await;
    assert_eq!(come(&mut component, PHONE, "3600").await, "", "events came all the time");
    // Items that are also sent on presence are sent once.
    presence(&mut component, PHONE, "unavailable", "").await;
    component.configure(OWNER, "n", &[("send_last_published_item", "on_sub_and_presence")]).await;
    assert_eq!(come(&mut component, PHONE, "3600").await, "2 1 3 4");
    // At most one hundred missed items are sent.
    presence(&mut component, PHONE, "unavailable", "").await;
    let item = |n| format!("<item id='x{n}'><x xmlns='urn:x'/></item>");
    let many: String = (0..100).map(item).collect();
    component.granted(OWNER, &format!("<publish node='n'>{many}</publish>")).await;
    component.publish(OWNER, "n", "last").await;
    component.messages().await;
    let missed = come(&mut component, PHONE, "18446744073709551615").await;
    assert!(missed.starts_with("x1 x2 ") && missed.ends_with("x99 last"), "{missed}");
}

/// Frequent changes of presence do not cause all items to be sent each time.
#[tokio::test]
async fn missed_items_are_bounded() {
    let mut component = TestComponent::start().await;
    for node in (0..11).map(|number| format!("n{number}")) {
        component.create(OWNER, &node, &[]).await;
        component.subscribe(READER, &node).await;
        for id in 0..100 {
            component.publish(OWNER, &node, &id.to_string()).await;
        }
    }
    component.messages().await;
    let ago = "<ago xmlns='urn:xmpp:ago:0' secs='3600'/>";
    component.send(&format!("<presence from='{PHONE}' to='{SERVICE}'>{ago}</presence>")).await;
    component.ask(PHONE, "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    assert_eq!(component.messages().await.len(), 1000);
}
