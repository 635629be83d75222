//! Ad-hoc commands (XEP-0050): forms of administrators and owners. Other users see no commands.

use std::{collections::BTreeSet, sync::Arc};

use gjallar::{config::Config, store::MemoryStore};
use minidom::Element;

use crate::support::component::{
    SERVICE, TestComponent, assert_options_have_labels, error, relayed, shown,
};

const ADMIN: &str = "admin@localhost/desk";
const OWNER: &str = "owner@localhost/desk";
const READER: &str = "reader@localhost/phone";
const COMMANDS: &str = "http://jabber.org/protocol/commands";
const FORMS: &str = "jabber:x:data";

/// Session of an ad-hoc command, between two forms.
struct CommandDialog<'a> {
    component: &'a mut TestComponent,
    who: &'a str,
    command: &'a str,
    id: Option<String>,
    /// Last answer.
    answer: Element,
}

impl<'a> CommandDialog<'a> {
    async fn begin(component: &'a mut TestComponent, who: &'a str, command: &'a str) -> Self {
        let answer = component.ask(who, "set", &request(command, None, "", "")).await;
        assert_options_have_labels(&answer);
        let id = stage(&answer).and_then(|stage| stage.attr("sessionid")).map(str::to_owned);
        Self { component, who, command, id, answer }
    }

    /// Sends an action, with a form if there are fields.
    async fn act(&mut self, action: &str, fields: &[(&str, &str)]) -> &mut Self {
        let action = format!(" action='{action}'");
        let form = if fields.is_empty() { String::new() } else { form(fields) };
        self.send(&action, &form).await
    }

    /// Submits the form with the default action.
    async fn fill(&mut self, fields: &[(&str, &str)]) -> &mut Self {
        self.send("", &form(fields)).await
    }

    async fn send(&mut self, action: &str, form: &str) -> &mut Self {
        let content = request(self.command, self.id.as_deref(), action, form);
        self.answer = self.component.ask(self.who, "set", &content).await;
        assert_options_have_labels(&self.answer);
        self
    }

    /// Submits the form as it was shown, with its options and values, like Gajim.
    async fn submit_again(&mut self, action: &str, chosen: &[(&str, &str)]) -> &mut Self {
        let mut form = stage(&self.answer).unwrap().get_child("x", FORMS).unwrap().clone();
        for (var, value) in chosen {
            let field = form.children_mut().find(|field| field.attr("var") == Some(var)).unwrap();
            let value = Element::builder("value", FORMS).append(*value);
            field.append_child(value.build());
        }
        let action = format!(" action='{action}'");
        let form = shown(&form).replacen("type='form'", "type='submit'", 1);
        self.send(&action, &form).await
    }

    fn status(&self) -> &str {
        let stage = stage(&self.answer).unwrap_or_else(|| panic!("{}", shown(&self.answer)));
        stage.attr("status").unwrap()
    }

    /// Returns the offered actions, the default first.
    fn offered(&self) -> Vec<&str> {
        let actions = stage(&self.answer).unwrap().get_child("actions", COMMANDS).unwrap();
        let first = actions.attr("execute").unwrap();
        let names = actions.children().map(Element::name).filter(|name| *name != first);
        [first].into_iter().chain(names).collect()
    }

    fn note(&self) -> String {
        assert_eq!(self.status(), "completed");
        stage(&self.answer).unwrap().get_child("note", COMMANDS).unwrap().text()
    }

    fn field(&self, var: &str) -> Element {
        let form = stage(&self.answer).unwrap().get_child("x", FORMS).unwrap();
        let mut fields = form.children().filter(|field| field.attr("var") == Some(var));
        fields.next().unwrap_or_else(|| panic!("{}", shown(&self.answer))).clone()
    }

    fn values(&self, var: &str) -> Vec<String> {
        let field = self.field(var);
        field.children().filter(|child| child.name() == "value").map(Element::text).collect()
    }

    /// Returns `true` if the form has this field.
    fn has(&self, var: &str) -> bool {
        let form = stage(&self.answer).unwrap().get_child("x", FORMS).unwrap();
        form.children().any(|field| field.attr("var") == Some(var))
    }

    /// Returns the fixed texts of the form.
    fn fixed(&self) -> String {
        let form = stage(&self.answer).unwrap().get_child("x", FORMS).unwrap();
        let fixed = form.children().find(|field| field.attr("type") == Some("fixed")).unwrap();
        fixed.children().next().unwrap().text()
    }
}

fn stage(answer: &Element) -> Option<&Element> {
    answer.get_child("command", COMMANDS)
}

fn request(command: &str, id: Option<&str>, action: &str, form: &str) -> String {
    let node = if command.contains(':') {
        command.to_owned()
    } else {
        format!("urn:gjallar:command:{command}")
    };
    let id = id.map(|id| format!(" sessionid='{id}'")).unwrap_or_default();
    format!("<command xmlns='{COMMANDS}' node='{node}'{id}{action}>{form}</command>")
}

/// Returns a submitted form; each line of a value is a separate value.
fn form(fields: &[(&str, &str)]) -> String {
    let value = |value: &str| format!("<value>{value}</value>");
    let field = |(var, values): &(&str, &str)| {
        format!("<field var='{var}'>{}</field>", values.split('\n').map(value).collect::<String>())
    };
    let fields: String = fields.iter().map(field).collect();
    format!("<x xmlns='{FORMS}' type='submit'>{fields}</x>")
}

/// Starts a component with a node of the owner, an item and a subscriber.
async fn component() -> TestComponent {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[]).await;
    component.subscribe(READER, "n").await;
    component.publish(OWNER, "n", "1").await;
    component.messages().await;
    component
}

/// Returns the commands that a user sees, with their names.
async fn listed(component: &mut TestComponent, who: &str) -> Vec<(String, String)> {
    let query =
        format!("<query xmlns='http://jabber.org/protocol/disco#items' node='{COMMANDS}'/>");
    let answer = component.ask(who, "get", &query).await;
    let items = answer.children().next().unwrap().children();
    let attr = |item: &Element, name| item.attr(name).unwrap().to_owned();
    items.map(|item| (attr(item, "node"), attr(item, "name"))).collect()
}

#[tokio::test]
async fn commands_are_listed_for_entities_that_may_use_them() {
    let no_creators = |config: &mut Config| config.creators = vec!["admins".into()];
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), no_creators).await;
    component.create(ADMIN, "n", &[]).await;
    let entry = "<affiliation jid='owner@localhost' affiliation='owner'/>";
    let owner = format!("<affiliations node='n'>{entry}</affiliations>");
    component.owner(ADMIN, "set", &owner).await;
    let all = listed(&mut component, ADMIN).await;
    assert_eq!(all.len(), 18);
    let own = listed(&mut component, OWNER).await;
    assert_eq!(own.len(), 13);
    assert!(own.iter().all(|command| all.contains(command)));
    assert_eq!(listed(&mut component, READER).await, []);
    for (command, name) in all {
        let info =
            format!("<query xmlns='http://jabber.org/protocol/disco#info' node='{command}'/>");
        let may = own.iter().any(|(own, _)| *own == command);
        for (who, may) in [(ADMIN, true), (OWNER, may), (READER, false)] {
            let answer = component.ask(who, "get", &info).await;
            let begun = CommandDialog::begin(&mut component, who, &command).await.answer;
            if may {
                assert!(shown(&answer).contains(&format!("name='{name}'")), "{}", shown(&answer));
                assert!(stage(&begun).is_some(), "{}", shown(&begun));
            } else {
                assert_eq!(error(&answer), "auth forbidden");
                assert!(error(&begun).contains("forbidden"), "{}", shown(&begun));
            }
        }
    }
}

#[tokio::test]
async fn the_users_of_a_domain_may_be_administrators() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), |config| {
        config.admins = vec!["staff.example".into(), "admin@localhost".into()];
    })
    .await;
    component.create(OWNER, "n", &[]).await;
    let title = [("title", "t")];
    for (who, is_granted) in [
        ("anybody@staff.example/desk", true),
        ("staff.example", true),
        (ADMIN, true),
        ("anybody@below.staff.example/desk", false),
        ("staff.example@localhost/desk", false),
    ] {
        let answer = component.configure(who, "n", &title).await;
        assert_eq!(answer.attr("type") == Some("result"), is_granted, "{who}");
        let sees = listed(&mut component, who).await;
        assert_eq!(
            sees.iter().any(|(node, _)| node.ends_with("erase")),
            is_granted,
            "{who}: {sees:?}"
        );
    }
}

#[tokio::test]
async fn nodes_are_listed_page_by_page() {
    let mut component = TestComponent::start().await;
    for node in ["news/a", "news/b", "weather", "News/c", "x"] {
        component.create(OWNER, node, &[]).await;
    }
    component.create(READER, "news/not-the-owners", &[]).await;
    let mut list = CommandDialog::begin(&mut component, ADMIN, "list-nodes").await;
    assert_eq!(list.offered(), ["next", "complete"]);
    list.fill(&[("pattern", "news/"), ("max", "2")]).await;
    assert_eq!(list.offered(), ["next", "prev", "complete"]);
    assert_eq!(list.values("nodes"), ["news/a", "news/b"]);
    // Clients may omit the hidden field.
    list.act("next", &[]).await;
    assert_eq!(list.status(), "completed");
    assert_eq!(list.values("nodes"), ["News/c", "news/not-the-owners"]);

    let mut list = CommandDialog::begin(&mut component, OWNER, "list-nodes").await;
    list.fill(&[("max", "2")]).await;
    let first = list.values("nodes");
    list.act("next", &[]).await;
    let second = list.values("nodes");
    list.act("prev", &[]).await;
    assert_eq!(list.values("nodes"), first);
    list.act("next", &[]).await;
    assert_eq!(list.values("nodes"), second);
    list.act("next", &[]).await;
    let mut all = [first, second, list.values("nodes")].concat();
    all.sort();
    assert_eq!(all, ["News/c", "news/a", "news/b", "weather", "x"]);
    for (pattern, found) in [("*a", "news/a"), ("?", "x"), ("WEATHER", "weather"), ("none", "")] {
        let mut list = CommandDialog::begin(&mut component, OWNER, "list-nodes").await;
        assert_eq!(list.fill(&[("pattern", pattern)]).await.values("nodes").concat(), found);
    }
    let mut list = CommandDialog::begin(&mut component, OWNER, "list-nodes").await;
    list.fill(&[("max", "1")]).await;
    list.act("complete", &[]).await;
    assert_eq!(list.status(), "completed");
    let mut list = CommandDialog::begin(&mut component, OWNER, "list-nodes").await;
    list.fill(&[("pattern", &"a".repeat(128))]).await;
    assert_eq!(error(&list.answer), "modify bad-request bad-payload");
    assert!(list.fill(&[("pattern", &"a".repeat(127))]).await.values("nodes").concat().is_empty());
    // A list does not continue after a node that was deleted and created again.
    let mut list = CommandDialog::begin(&mut component, ADMIN, "list-nodes").await;
    list.fill(&[("max", "2")]).await;
    list.component.owner(OWNER, "set", "<delete node='news/b'/>").await;
    list.component.create(OWNER, "news/b", &[]).await;
    list.act("next", &[]).await;
    assert_eq!(error(&list.answer), "cancel item-not-found");
    // `complete` in the first stage returns the first page.
    let mut list = CommandDialog::begin(&mut component, OWNER, "list-nodes").await;
    list.act("complete", &[("max", "2")]).await;
    assert_eq!(list.note(), "More entries follow on the next page.");
    assert_eq!(list.values("nodes").len(), 2);
    assert!(!list.has("after"));
}

#[tokio::test]
async fn form_with_many_options_can_be_submitted_unchanged() {
    let mut component = TestComponent::start().await;
    for number in 0..300 {
        component.create(OWNER, &format!("n{number}"), &[]).await;
    }
    let mut configure = CommandDialog::begin(&mut component, OWNER, "configure-node").await;
    assert!(shown(&configure.field("node")).matches("<option").count() == 300);
    configure.submit_again("next", &[("node", "n7")]).await;
    assert_eq!(configure.status(), "executing");
    configure.submit_again("complete", &[]).await;
    assert_eq!(configure.note(), "The configuration is unchanged.");
}

#[tokio::test]
async fn page_form_can_be_submitted_unchanged() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), |config| {
        config.limits.max_payload_bytes = 25_000;
        config.limits.max_reply_bytes = 30_000;
    })
    .await;
    for node in 0..300 {
        component.create(OWNER, &format!("n{node}"), &[]).await;
    }
    let item = |id| format!("<item id='{id}'><x xmlns='urn:x'/></item>");
    let items: String = (0..90).map(item).collect();
    let nodes = ["b0", "b1", "b2", "b3", "b4", "b5"];
    for node in nodes {
        component.create("bot@localhost", node, &[]).await;
        component
            .granted("bot@localhost", &format!("<publish node='{node}'>{items}</publish>"))
            .await;
    }
    let mut list = CommandDialog::begin(&mut component, OWNER, "list-nodes").await;
    list.fill(&[("max", "290")]).await;
    assert_eq!(list.values("nodes").len(), 290);
    list.submit_again("next", &[]).await;
    assert_eq!(list.values("nodes").len(), 10);
    let mut export = CommandDialog::begin(&mut component, ADMIN, "export").await;
    export.fill(&[("jid", "bot@localhost")]).await;
    let mut items = export.values("items");
    assert!(items.len() > 256 && items.len() < 540, "{}", items.len());
    while export.status() == "executing" {
        export.submit_again("next", &[]).await;
        items.extend(export.values("items"));
    }
    items.dedup();
    assert_eq!(items.len(), nodes.len() * 90);
}

#[tokio::test]
async fn form_accepts_long_lists() {
    let mut component = component().await;
    let list = |entry: &dyn Fn(u32) -> String| (0..300).map(entry).collect::<Vec<_>>().join("\n");
    let payload = format!("&lt;x xmlns='urn:x'&gt;\n{}\n&lt;/x&gt;", list(&|n| n.to_string()));
    let mut publish = CommandDialog::begin(&mut component, OWNER, "publish-item").await;
    publish.fill(&[("node", "n"), ("id", "2"), ("payload", &payload)]).await;
    assert_eq!(publish.note(), "Published: 2.");
    let jids = list(&|n| format!("u{n}@localhost"));
    let mut affiliations = CommandDialog::begin(&mut component, OWNER, "affiliations").await;
    affiliations.fill(&[("node", "n")]).await;
    affiliations.fill(&[("jids", &jids), ("affiliation", "member")]).await;
    assert_eq!(affiliations.note(), "Set: 300.");
    // Single-value fields and unknown fields have the same limits as in any form.
    let mut purge = CommandDialog::begin(&mut component, OWNER, "purge-node").await;
    purge.fill(&[("node", &list(&|n| n.to_string()))]).await;
    assert!(error(&purge.answer).contains("not-acceptable"));
}

/// XEP-0050 §4.1: the responder chooses a session id "if not provided". Movim sends its own id in
/// the first request.
#[tokio::test]
async fn requester_may_choose_the_session_id() {
    let mut component = component().await;
    let pending = "http://jabber.org/protocol/pubsub#get-pending";
    let own = Some("3c9f8a52-movim");
    let at_once = request(pending, own, " action='execute'", &form(&[("pubsub#node", "n")]));
    let answer = component.ask(OWNER, "set", &at_once).await;
    let done = stage(&answer).unwrap_or_else(|| panic!("{}", shown(&answer)));
    assert_eq!((done.attr("status"), done.attr("sessionid")), (Some("completed"), own));
    // The id is kept over several forms, and sessions of two requesters with the same id are
    // separate.
    let begin = request("affiliations", own, "", &form(&[("node", "n")]));
    for who in [OWNER, ADMIN] {
        let answer = component.ask(who, "set", &begin).await;
        assert_eq!(stage(&answer).unwrap().attr("sessionid"), own, "{}", shown(&answer));
        assert_eq!(stage(&answer).unwrap().attr("status"), Some("executing"));
    }
    for who in [OWNER, ADMIN] {
        let form = form(&[("jids", "a@localhost"), ("affiliation", "member")]);
        let content = request("affiliations", own, " action='complete'", &form);
        let answer = component.ask(who, "set", &content).await;
        let done = stage(&answer).unwrap_or_else(|| panic!("{}", shown(&answer)));
        assert_eq!((done.attr("status"), done.attr("sessionid")), (Some("completed"), own));
    }
    // An action within a session needs a known session id.
    for action in ["next", "prev", "complete", "cancel"] {
        let content = request("affiliations", own, &format!(" action='{action}'"), "");
        let answer = component.ask(OWNER, "set", &content).await;
        assert_eq!(error(&answer), "modify bad-request bad-sessionid", "{action}");
    }
    let long = "x".repeat(257);
    let answer = component.ask(OWNER, "set", &request(pending, Some(&long), "", "")).await;
    assert_eq!(error(&answer), "modify bad-request bad-sessionid");
    assert!(shown(&answer).contains("256 bytes"), "{}", shown(&answer));
}

/// Smack closes the connection when a field of type jid-single has an empty value.
#[tokio::test]
async fn forms_of_commands_have_no_empty_value() {
    let mut component = component().await;
    for (node, _) in listed(&mut component, ADMIN).await {
        let begun = CommandDialog::begin(&mut component, ADMIN, &node).await;
        let text = shown(&begun.answer);
        assert!(!text.contains("<value/>") && !text.contains("<value></value>"), "{text}");
    }
    let mut erase = CommandDialog::begin(&mut component, ADMIN, "erase").await;
    erase.fill(&[("jid", "bot@localhost\nbot@localhost")]).await;
    assert_eq!(erase.values("again"), Vec::<String>::new());
}

/// Returns the list fields of all forms in a reply, each with its name, its values and the values
/// of its options.
fn lists(reply: &Element) -> Vec<(String, Vec<String>, Vec<String>)> {
    fn values(parent: &Element) -> Vec<String> {
        parent.children().filter(|child| child.name() == "value").map(Element::text).collect()
    }
    if reply.name() == "field" {
        let is_list = reply.attr("type").is_some_and(|kind| kind.starts_with("list-"));
        let options = reply.children().filter(|child| child.name() == "option");
        let options = options.flat_map(values).collect();
        let var = reply.attr("var").unwrap_or_default().to_owned();
        return if is_list { vec![(var, values(reply), options)] } else { Vec::new() };
    }
    reply.children().flat_map(lists).collect()
}

/// XEP-0004 §3.3: clients such as Psi, Converse and Movim submit only those values of a list that
/// are options.
#[tokio::test]
async fn each_present_value_of_a_list_is_an_option() {
    let mut component = component().await;
    let grant =
        "<privilege xmlns='urn:xmpp:privilege:2'><perm access='roster' type='get'/></privilege>";
    let grant = format!("<message from='localhost' to='{SERVICE}' id='p'>{grant}</message>");
    component.send(&grant).await;
    component.ask("localhost", "get", "<ping xmlns='urn:xmpp:ping'/>").await;
    let fields = [("language", "da"), ("access_model", "whitelist"), ("itemreply", "owner")];
    component.configure(OWNER, "n", &fields).await;
    let groups = "<field var='pubsub#roster_groups_allowed'><value>Friends</value><value>Family</value></field>";
    let with_groups =
        crate::support::component::form(&[]).replace("</x>", &format!("{groups}</x>"));
    let configure = format!("<configure node='n'>{with_groups}</configure>");
    assert_eq!(component.owner(OWNER, "set", &configure).await.attr("type"), Some("result"));
    let mut replies = Vec::new();
    for question in ["<configure node='n'/>", "<default/>"] {
        replies.push(component.owner(OWNER, "get", question).await);
    }
    let options = format!("<options node='n' jid='{READER}'/>");
    for question in [options.as_str(), "<default node='n'/>", "<default/>"] {
        replies.push(component.pubsub(READER, "get", question).await);
    }
    for (node, _) in listed(&mut component, ADMIN).await {
        let mut command = CommandDialog::begin(&mut component, ADMIN, &node).await;
        replies.push(command.answer.clone());
        if command.status() == "executing" && command.has("node") {
            command.act("next", &[("node", "n")]).await;
            replies.push(command.answer.clone());
        }
    }
    let found: Vec<_> = replies.iter().flat_map(lists).collect();
    for (var, values, options) in &found {
        for value in values {
            assert!(options.contains(value), "{var}: {value} is no option of {options:?}");
        }
    }
    let with_value = found.iter().filter(|(_, values, _)| !values.is_empty());
    let with_value: BTreeSet<_> = with_value.map(|(var, ..)| var.as_str()).collect();
    let groups_and_language = ["pubsub#roster_groups_allowed", "pubsub#language"];
    for var in ["node", "affiliation", "pubsub#show-values"].iter().chain(&groups_and_language) {
        assert!(with_value.contains(var), "{var}: {with_value:?}");
    }
}

#[tokio::test]
async fn a_node_is_created_configured_purged_and_deleted() {
    let mut component = TestComponent::start().await;
    let mut create = CommandDialog::begin(&mut component, OWNER, "create-node").await;
    create.fill(&[("node", "n")]).await;
    assert_eq!(create.offered(), ["complete", "prev"]);
    assert_eq!(create.values("pubsub#access_model"), ["open"]);
    // XEP-0004 §3.1: unknown fields are ignored.
    let fields = [("pubsub#title", "T"), ("pubsub#max_items", "7"), ("x-example#frob", "1\n2")];
    create.fill(&fields).await;
    assert_eq!(create.note(), "The node n is created.");

    let mut configure = CommandDialog::begin(&mut component, OWNER, "configure-node").await;
    assert!(shown(&configure.field("node")).contains("<option label='n (T)'><value>n</value>"));
    configure.fill(&[("node", "n")]).await;
    assert_eq!(configure.values("pubsub#max_items"), ["7"]);
    configure.fill(&[("pubsub#max_items", "none")]).await;
    assert!(error(&configure.answer).contains("not-acceptable"));
    // A corrected form is accepted.
    configure.act("complete", &[("pubsub#max_items", "8"), ("pubsub#unheard_of", "1")]).await;
    assert_eq!(configure.note(), "The node is configured.");

    component.publish(OWNER, "n", "1").await;
    let mut purge = CommandDialog::begin(&mut component, OWNER, "purge-node").await;
    assert_eq!(purge.fill(&[("node", "n")]).await.note(), "The items are deleted.");
    assert_eq!(component.items(OWNER, "n").await, Vec::<String>::new());

    let mut delete = CommandDialog::begin(&mut component, OWNER, "delete-node").await;
    delete.fill(&[("node", "n")]).await;
    assert_eq!(delete.fixed(), "This deletes n with all its items and 0 subscriptions.");
    delete.fill(&[("name", "m")]).await;
    assert_eq!(error(&delete.answer), "modify bad-request bad-payload");
    delete.fill(&[("name", "n"), ("redirect", "xmpp:other?;node=o")]).await;
    assert_eq!(delete.note(), "The node is deleted.");
    let gone = component.pubsub(READER, "get", "<items node='n'/>").await;
    assert!(shown(&gone).contains("xmpp:other?;node=o"), "{}", shown(&gone));
}

/// Two owners who edit the same form do not overwrite each other's changes.
#[tokio::test]
async fn concurrent_change_is_a_conflict() {
    let mut component = component().await;
    let mut configure = CommandDialog::begin(&mut component, OWNER, "configure-node").await;
    configure.fill(&[("node", "n")]).await;
    let (id, seen) = (configure.id.clone(), configure.values("x-gjallar#revision"));
    assert_eq!(seen.len(), 1);
    component.configure(ADMIN, "n", &[("title", "Meanwhile")]).await;
    // Clients that omit the hidden field get the conflict error too.
    let content = request("configure-node", id.as_deref(), "", &form(&[("pubsub#title", "Mine")]));
    let late = component.ask(OWNER, "set", &content).await;
    assert_eq!(error(&late), "cancel conflict");
    // After `prev`, the form shows the present configuration.
    let back = request("configure-node", id.as_deref(), " action='prev'", "");
    let back = component.ask(OWNER, "set", &back).await;
    assert_eq!(stage(&back).unwrap().attr("status"), Some("executing"));
    let again = request("configure-node", id.as_deref(), "", &form(&[("node", "n")]));
    let again = component.ask(OWNER, "set", &again).await;
    assert!(shown(&again).contains("<value>Meanwhile</value>"), "{}", shown(&again));
    let done = component.ask(OWNER, "set", &content).await;
    assert_eq!(stage(&done).unwrap().attr("status"), Some("completed"));
}

#[tokio::test]
async fn affiliations_and_subscriptions_are_shown_and_set() {
    let mut component = component().await;
    let mut affiliations = CommandDialog::begin(&mut component, OWNER, "affiliations").await;
    affiliations.fill(&[("node", "n")]).await;
    assert_eq!(affiliations.fixed(), "owner@localhost: owner");
    affiliations.fill(&[("jids", "not a jid@"), ("affiliation", "member")]).await;
    assert_eq!(error(&affiliations.answer), "modify bad-request bad-payload");
    affiliations
        .fill(&[("jids", "bot@localhost\nb@localhost"), ("affiliation", "publisher")])
        .await;
    assert_eq!(affiliations.note(), "Set: 2.");
    let mut affiliations = CommandDialog::begin(&mut component, OWNER, "affiliations").await;
    affiliations.fill(&[("node", "n")]).await;
    assert!(affiliations.fixed().contains("bot@localhost: publisher"));
    affiliations.fill(&[("jids", "owner@localhost"), ("affiliation", "none")]).await;
    assert_eq!(
        affiliations.note(),
        "Not set: owner@localhost is still owner (a node must have an owner)."
    );
    assert!(shown(&affiliations.answer).contains("<note type='warn'>"));

    let mut subscriptions = CommandDialog::begin(&mut component, OWNER, "subscriptions").await;
    subscriptions.fill(&[("node", "n")]).await;
    assert_eq!(subscriptions.fixed(), READER);
    subscriptions.fill(&[("jids", "reader@localhost"), ("subscription", "none")]).await;
    assert_eq!(
        subscriptions.note(),
        format!("Not unsubscribed: reader@localhost has no subscription, but {READER} has one.")
    );
    assert!(shown(&subscriptions.answer).contains("<note type='warn'>"));
    let mut subscriptions = CommandDialog::begin(&mut component, OWNER, "subscriptions").await;
    subscriptions.fill(&[("node", "n")]).await;
    subscriptions.fill(&[("jids", READER), ("subscription", "none")]).await;
    assert_eq!(subscriptions.note(), "Set: 1.");
    let mut subscriptions = CommandDialog::begin(&mut component, OWNER, "subscriptions").await;
    subscriptions.fill(&[("node", "n")]).await;
    assert_eq!(subscriptions.fixed(), "(none)");
}

#[tokio::test]
async fn requests_are_approved_and_refused() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[("access_model", "authorize")]).await;
    for jid in ["a@localhost", "b@localhost", "c@localhost", "d@localhost"] {
        component.pubsub(jid, "set", &format!("<subscribe node='n' jid='{jid}'/>")).await;
    }
    let mut approve = CommandDialog::begin(&mut component, OWNER, "approve").await;
    approve.fill(&[("node", "n")]).await;
    let offered = shown(&approve.field("jids"));
    assert_eq!(offered.matches("<option ").count(), 4, "{offered}");
    assert!(
        offered.contains("<option label='a@localhost'><value>a@localhost</value>"),
        "{offered}"
    );
    assert_eq!(approve.fixed(), "a@localhost\nb@localhost\nc@localhost\nd@localhost");
    approve.fill(&[("decision", "approve")]).await;
    assert!(shown(&approve.answer).contains("jids or others is required"));
    let chosen = [("jids", "a@localhost"), ("others", "b@localhost"), ("decision", "approve")];
    approve.fill(&chosen).await;
    assert_eq!(approve.note(), "Approved: 2.");
    let mut refuse = CommandDialog::begin(&mut component, OWNER, "approve").await;
    refuse.fill(&[("node", "n")]).await;
    // One of the JIDs unsubscribes after the form is shown.
    let unsubscribe = "<unsubscribe node='n' jid='d@localhost'/>";
    refuse.component.pubsub("d@localhost", "set", unsubscribe).await;
    refuse.fill(&[("jids", "c@localhost\nd@localhost"), ("decision", "refuse")]).await;
    assert_eq!(refuse.note(), "Refused: 1. Not pending any more: d@localhost.");
    assert!(shown(&refuse.answer).contains("<note type='warn'>"));
    let mut nobody = CommandDialog::begin(&mut component, OWNER, "approve").await;
    assert_eq!(nobody.fill(&[("node", "n")]).await.note(), "No pending requests.");
    let mut dialog = CommandDialog::begin(&mut component, OWNER, "subscriptions").await;
    dialog.fill(&[("node", "n")]).await;
    assert_eq!(dialog.fixed(), "a@localhost\nb@localhost");
}

#[tokio::test]
async fn options_that_a_form_leaves_out_are_counted() {
    let mut component = TestComponent::start().await;
    component.create(OWNER, "n", &[("access_model", "authorize")]).await;
    for number in 0..203 {
        let jid = format!("{number}@localhost");
        component.pubsub(&jid, "set", &format!("<subscribe node='n' jid='{jid}'/>")).await;
    }
    for items in [0..100, 100..200, 200..201] {
        let item = |id| format!("<item id='{id}'><x xmlns='urn:x'/></item>");
        let items: String = items.map(item).collect();
        component.granted(OWNER, &format!("<publish node='n'>{items}</publish>")).await;
    }
    for (command, list, left_out) in [("approve", "jids", 3), ("retract-items", "items", 1)] {
        let mut dialog = CommandDialog::begin(&mut component, OWNER, command).await;
        dialog.fill(&[("node", "n")]).await;
        assert_eq!(shown(&dialog.field(list)).matches("<option ").count(), 200);
        let lines = dialog.fixed();
        assert_eq!(lines.lines().count(), 201);
        assert_eq!(lines.lines().last(), Some(&*format!("… and {left_out} more")));
    }
}

#[tokio::test]
async fn items_are_published_and_retracted_by_commands() {
    let mut component = component().await;
    let mut publish = CommandDialog::begin(&mut component, OWNER, "publish-item").await;
    publish.fill(&[("node", "n"), ("id", "2"), ("payload", "&lt;x&gt;")]).await;
    assert_eq!(error(&publish.answer), "modify bad-request invalid-payload");
    let payload = "&lt;x xmlns='urn:x'&gt;\n&lt;y/&gt;&lt;/x&gt;";
    publish.fill(&[("node", "n"), ("id", "2"), ("payload", payload)]).await;
    assert_eq!(publish.note(), "Published: 2.");
    let message = shown(&component.message().await);
    assert!(
        message.contains("<x xmlns=\"urn:x\">\n<y/></x>")
            || message.contains("<x xmlns='urn:x'>\n<y/></x>"),
        "{message}"
    );

    let mut retract = CommandDialog::begin(&mut component, OWNER, "retract-items").await;
    retract.fill(&[("node", "n")]).await;
    let newest = shown(&retract.field("items"));
    assert!(newest.find("<value>2</value>") < newest.find("<value>1</value>"), "{newest}");
    assert!(newest.contains("label='1 (owner@localhost)'"), "{newest}");
    retract.fill(&[("items", "1"), ("others", "2"), ("notify", "1")]).await;
    assert_eq!(retract.note(), "Retracted: 2.");
    assert_eq!(component.items(OWNER, "n").await, Vec::<String>::new());

    for id in ["3", "4"] {
        component.publish(OWNER, "n", id).await;
    }
    let mut old = CommandDialog::begin(&mut component, OWNER, "retract-old-items").await;
    old.fill(&[("node", "n"), ("days", "soon")]).await;
    assert_eq!(error(&old.answer), "modify bad-request bad-payload");
    old.fill(&[("node", "n"), ("days", "1")]).await;
    assert_eq!(old.note(), "Retracted: 0.");
    assert_eq!(component.items(OWNER, "n").await, ["3", "4"]);
}

#[tokio::test]
async fn an_announcement_reaches_subscribers_with_deliveries_enabled() {
    let mut component = component().await;
    component.configure(OWNER, "n", &[("deliver_notifications", "0")]).await;
    let quiet = "quiet@localhost";
    let options = format!(
        "<subscribe node='n' jid='{quiet}'/><options><x xmlns='{FORMS}' type='submit'><field \
         var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#subscribe_options</value></field>\
         <field var='pubsub#deliver'><value>0</value></field></x></options>"
    );
    component.granted(quiet, &options).await;
    let enrolled = "<subscription jid='enrolled@localhost' subscription='subscribed'/>";
    let enrolled = format!("<subscriptions node='n'>{enrolled}</subscriptions>");
    component.owner(OWNER, "set", &enrolled).await;
    component.subscribe("other@localhost", "n").await;
    component.messages().await;
    let mut announce = CommandDialog::begin(&mut component, OWNER, "announce").await;
    announce.fill(&[("node", "n"), ("text", "")]).await;
    assert!(error(&announce.answer).contains("bad-request"));
    announce.fill(&[("node", "n"), ("text", "It ends\non Friday.")]).await;
    assert_eq!(announce.note(), "Notified subscribers: 2.");
    let mut messages = component.messages().await;
    messages.sort_by_key(|message| message.attr("to").map(str::to_owned));
    let to: Vec<_> = messages.iter().map(|message| message.attr("to").unwrap()).collect();
    assert_eq!(to, ["other@localhost", READER]);
    for message in messages {
        assert_eq!(message.attr("from"), Some(SERVICE));
        let children: Vec<_> = message.children().map(|c| (c.name(), c.text())).collect();
        let text = "It ends\non Friday.".to_owned();
        assert_eq!(children, [("subject", "n".to_owned()), ("body", text)]);
    }
}

#[tokio::test]
async fn data_of_an_entity_is_exported_and_erased() {
    let mut component = component().await;
    let bot = "<affiliation jid='bot@localhost' affiliation='publisher'/>";
    component.owner(OWNER, "set", &format!("<affiliations node='n'>{bot}</affiliations>")).await;
    component.publish("bot@localhost", "n", "of the bot").await;
    component.subscribe("bot@localhost", "n").await;
    component.create("bot@localhost", "own", &[]).await;
    component.publish("bot@localhost", "own", "mine").await;
    let fields = "<field var='pubsub#deliver'><value>0</value></field>";
    let form = format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>");
    let options = format!("<options node='n' jid='bot@localhost'>{form}</options>");
    component.granted("bot@localhost", &options).await;
    let mut entity = CommandDialog::begin(&mut component, ADMIN, "entity").await;
    entity.fill(&[("jid", "bot@localhost/any")]).await;
    assert_eq!(entity.values("affiliations"), ["n: publisher", "own: owner"]);
    let subscription = "n: bot@localhost subscribed pubsub#deliver=false";
    assert_eq!(entity.values("subscriptions"), [subscription]);
    let mut export = CommandDialog::begin(&mut component, ADMIN, "export").await;
    export.fill(&[("jid", "bot@localhost")]).await;
    let items = export.values("items");
    assert!(items[0].starts_with("n: of the bot 2"), "{items:?}");
    assert!(items[1].starts_with("own: mine 2"), "{items:?}");
    assert_eq!(items.len(), 2);
    assert_eq!(export.status(), "completed");

    let mut erase = CommandDialog::begin(&mut component, ADMIN, "erase").await;
    erase.fill(&[("jid", "bot@localhost")]).await;
    erase.fill(&[("again", "owner@localhost")]).await;
    assert_eq!(error(&erase.answer), "modify bad-request bad-payload");
    erase.fill(&[("again", "bot@localhost")]).await;
    assert_eq!(erase.note(), "Erased: 1 nodes, 1 affiliations, 1 subscriptions, 1 items.");
    assert_eq!(component.items(OWNER, "n").await, ["1"]);
    let gone = component.pubsub(OWNER, "get", "<items node='own'/>").await;
    assert_eq!(error(&gone), "cancel item-not-found");
    let mut entity = CommandDialog::begin(&mut component, ADMIN, "entity").await;
    entity.fill(&[("jid", "bot@localhost")]).await;
    assert_eq!(entity.values("affiliations").len() + entity.values("subscriptions").len(), 0);
    // A node with another owner is kept.
    let mut erase = CommandDialog::begin(&mut component, ADMIN, "erase").await;
    erase.fill(&[("jid", "owner@localhost")]).await;
    erase.fill(&[("again", "owner@localhost")]).await;
    assert_eq!(erase.note(), "Erased: 1 nodes, 0 affiliations, 0 subscriptions, 0 items.");
}

/// Commands accept an entity in another spelling of its domain than its server stamps.
#[tokio::test]
async fn an_entity_is_approved_shown_and_erased_in_both_spellings_of_its_domain() {
    let stamped = "bot@xn--bcher-kva.localhost";
    for named in [stamped, "bot@bücher.localhost"] {
        let mut component = component().await;
        let fields = [("access_model", "authorize"), ("publish_model", "open")];
        component.configure(OWNER, "n", &fields).await;
        component.subscribe(stamped, "n").await;
        let mut approve = CommandDialog::begin(&mut component, OWNER, "approve").await;
        approve.fill(&[("node", "n")]).await;
        approve.fill(&[("jids", named), ("decision", "approve")]).await;
        assert_eq!(approve.note(), "Approved: 1.");
        component.publish(stamped, "n", "of the bot").await;
        component.create(stamped, "own", &[]).await;
        let member = format!("<affiliation jid='{named}' affiliation='member'/>");
        let set = format!("<affiliations node='n'>{member}</affiliations>");
        component.owner(OWNER, "set", &set).await;
        let mut entity = CommandDialog::begin(&mut component, ADMIN, "entity").await;
        entity.fill(&[("jid", named)]).await;
        assert_eq!(entity.values("affiliations"), ["n: member", "own: owner"]);
        assert_eq!(entity.values("subscriptions"), [format!("n: {stamped} subscribed")]);
        let mut export = CommandDialog::begin(&mut component, ADMIN, "export").await;
        export.fill(&[("jid", named)]).await;
        assert!(export.values("items")[0].starts_with("n: of the bot 2"));
        let mut erase = CommandDialog::begin(&mut component, ADMIN, "erase").await;
        erase.fill(&[("jid", named)]).await;
        erase.fill(&[("again", named)]).await;
        assert_eq!(erase.note(), "Erased: 1 nodes, 1 affiliations, 1 subscriptions, 1 items.");
        let mut entity = CommandDialog::begin(&mut component, ADMIN, "entity").await;
        entity.fill(&[("jid", stamped)]).await;
        assert_eq!(entity.values("affiliations").len() + entity.values("subscriptions").len(), 0);
        assert_eq!(component.items(OWNER, "n").await, ["1"]);
    }
}

#[tokio::test]
async fn items_beyond_a_reply_are_on_the_next_page() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), |config| {
        config.limits.max_payload_bytes = 25_000;
        config.limits.max_reply_bytes = 30_000;
    })
    .await;
    let nodes = ["a", "b", "c", "d", "e"];
    for node in nodes {
        component.create(OWNER, node, &[]).await;
        component.publish_much(OWNER, node).await;
    }
    let mut export = CommandDialog::begin(&mut component, ADMIN, "export").await;
    // `complete` is the only action that the form offers.
    export.act("complete", &[("jid", "owner@localhost")]).await;
    let (mut ids, mut pages) = (Vec::new(), 0);
    loop {
        let items = export.values("items");
        ids.extend(items.iter().map(|item| item.split(':').next().unwrap().to_owned()));
        // The affiliations are on the first page.
        assert_eq!(export.has("affiliations"), pages == 0);
        pages += 1;
        if export.status() == "completed" {
            break;
        }
        let after = export.values("after")[0].clone();
        export.fill(&[("after", &after)]).await;
    }
    ids.sort();
    assert_eq!(ids, nodes);
    assert!(pages > 2, "{pages}");
}

/// Payloads are text in a form: their markup is escaped, which takes up to five times the bytes.
#[tokio::test]
async fn page_of_an_export_fits_into_a_reply() {
    let mut component = TestComponent::start().await;
    let large = format!("<x xmlns='urn:x'>{}</x>", "y".repeat(60_000));
    let marked = format!("<x xmlns='urn:x'>{}</x>", "<b/>&amp;".repeat(500));
    for (node, items, payload) in [("a", 7, &large), ("b", 7, &large), ("c", 100, &marked)] {
        component.create("bot@localhost", node, &[]).await;
        for id in 0..items {
            let item = format!("<item id='{id}'>{payload}</item>");
            let publish = format!("<publish node='{node}'>{item}</publish>");
            component.granted("bot@localhost", &publish).await;
        }
    }
    let mut export = CommandDialog::begin(&mut component, ADMIN, "export").await;
    export.fill(&[("jid", "bot@localhost")]).await;
    let mut items = export.values("items");
    while export.status() == "executing" {
        export.act("next", &[]).await;
        items.extend(export.values("items"));
    }
    let is_whole = |item: &String| item.ends_with(&large) || item.ends_with(&marked);
    assert!(items.iter().all(is_whole));
    items.dedup();
    assert_eq!(items.len(), 114);
}

/// Servers write quotes of text as six bytes.
#[tokio::test]
async fn a_page_of_an_export_fits_after_servers_have_escaped_its_quotes() {
    let limit = Config::default().link.max_stanza_bytes;
    let mut component = TestComponent::start().await;
    component.create("bot@localhost", "n", &[]).await;
    let payload = format!("<x xmlns='urn:x'>{}</x>", "<b c='d'>it's</b>".repeat(500));
    for id in 0..60 {
        let publish = format!("<publish node='n'><item id='{id}'>{payload}</item></publish>");
        component.granted("bot@localhost", &publish).await;
    }
    let mut export = CommandDialog::begin(&mut component, ADMIN, "export").await;
    export.fill(&[("jid", "bot@localhost")]).await;
    let mut items = export.values("items").len();
    while export.status() == "executing" {
        assert!(relayed(&export.answer).len() <= limit, "{}", relayed(&export.answer).len());
        export.act("next", &[]).await;
        items += export.values("items").len();
    }
    assert_eq!(items, 60);
}

#[tokio::test]
async fn long_lists_and_large_items_fit_into_a_reply() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), |config| {
        config.link.max_stanza_bytes = 50_000;
        config.limits.max_payload_bytes = 25_000;
        config.limits.max_reply_bytes = 30_000;
    })
    .await;
    let node = |number: u32| format!("{number}{}", "&lt;".repeat(200));
    for number in 0..60 {
        component.create(OWNER, &node(number), &[]).await;
    }
    let marked = format!("<item id='1'><x xmlns='urn:x'>{}</x></item>", "<b/>".repeat(6000));
    let publish = format!("<publish node='{}'>{marked}</publish>", node(0));
    component.granted(OWNER, &publish).await;

    let mut entity = CommandDialog::begin(&mut component, ADMIN, "entity").await;
    entity.fill(&[("jid", "owner@localhost")]).await;
    let affiliations = entity.values("affiliations");
    assert!(affiliations.last().unwrap().starts_with("… and "), "{affiliations:?}");
    let mut export = CommandDialog::begin(&mut component, ADMIN, "export").await;
    export.fill(&[("jid", "owner@localhost")]).await;
    assert_eq!(export.values("affiliations"), affiliations);
    let mut items = export.values("items");
    while export.status() == "executing" {
        export.act("next", &[]).await;
        items.extend(export.values("items"));
    }
    assert_eq!(items.len(), 1);
    assert!(items[0].ends_with("(24021 bytes: too many for a form)"), "{}", items[0]);

    let mut list = CommandDialog::begin(&mut component, OWNER, "list-nodes").await;
    list.fill(&[("max", "60")]).await;
    let mut nodes = list.values("nodes");
    assert!(nodes.len() < 60);
    while list.status() == "executing" {
        list.act("next", &[]).await;
        nodes.extend(list.values("nodes"));
    }
    nodes.dedup();
    assert_eq!(nodes.len(), 60);
    // The name is typed if there are too many nodes for a list.
    let configure = CommandDialog::begin(&mut component, OWNER, "configure-node").await;
    assert_eq!(configure.field("node").attr("type"), Some("text-single"));
}

#[tokio::test]
async fn session_keeps_its_step_if_the_reply_is_too_large() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), |config| {
        config.link.max_stanza_bytes = 2_000;
    })
    .await;
    let mut create = CommandDialog::begin(&mut component, OWNER, "create-node").await;
    for _ in 0..2 {
        create.fill(&[("node", "n")]).await;
        assert_eq!(error(&create.answer), "modify policy-violation");
    }
    assert!(shown(&create.answer).contains("max_stanza_bytes"));
    create.act("cancel", &[]).await;
    assert_eq!(create.status(), "canceled");
}

/// A command that made a change ends its session, and truncates its note if the whole note does not
/// fit.
#[tokio::test]
async fn command_that_made_a_change_completes_with_an_oversized_reply() {
    let mut component = TestComponent::with(Arc::new(MemoryStore::new()), |config| {
        config.link.max_stanza_bytes = 3_000;
        config.limits.max_subscriptions = 1;
    })
    .await;
    component.create(OWNER, "n", &[]).await;
    // Each `>` takes four bytes in the reply.
    let jids: Vec<_> = (0..10).map(|n| format!("r{n}@localhost/{}", ">".repeat(100))).collect();
    let jids: Vec<_> = jids.iter().map(|jid| ("jids", jid.as_str())).collect();
    let mut set = CommandDialog::begin(&mut component, OWNER, "subscriptions").await;
    set.fill(&[("node", "n")]).await;
    set.fill(&jids).await;
    assert_eq!(set.status(), "completed", "{}", shown(&set.answer));
    let note = stage(&set.answer).unwrap().get_child("note", COMMANDS).unwrap().clone();
    assert_eq!(note.attr("type"), Some("warn"));
    assert!(note.text().starts_with("Not set: r1@localhost/>") && note.text().ends_with(">…"));
    // A completed session is not executed again.
    for action in ["complete", "execute"] {
        set.act(action, &jids).await;
        assert_eq!(error(&set.answer), "cancel not-allowed session-expired", "{action}");
    }
}

#[tokio::test]
async fn statistics_and_limits_are_shown() {
    let mut component = component().await;
    let statistics = CommandDialog::begin(&mut component, ADMIN, "statistics").await;
    assert_eq!(statistics.status(), "completed");
    assert_eq!(statistics.values("nodes"), ["1"]);
    assert_eq!(statistics.values("link_up"), ["1"]);
    let limits = CommandDialog::begin(&mut component, OWNER, "limits").await;
    assert_eq!(limits.values("max_items"), ["10000"]);
}

/// The first request may already have a form; `prev` shows the previous answers.
#[tokio::test]
async fn prev_returns_to_the_previous_form() {
    let mut component = component().await;
    let at_once = request("configure-node", None, "", &form(&[("node", "n")]));
    let answer = component.ask(OWNER, "set", &at_once).await;
    let first = stage(&answer).unwrap();
    assert_eq!(first.attr("status"), Some("executing"));
    let id = first.attr("sessionid").unwrap().to_owned();
    let mut go = CommandDialog {
        component: &mut component,
        who: OWNER,
        command: "configure-node",
        id: Some(id),
        answer,
    };
    assert_eq!(go.offered(), ["complete", "prev"]);
    go.act("next", &[("pubsub#title", "T")]).await;
    assert_eq!(error(&go.answer), "modify bad-request bad-action");
    go.act("complete", &[]).await;
    assert_eq!(error(&go.answer), "modify bad-request bad-payload");
    go.act("prev", &[]).await;
    assert_eq!(go.values("node"), ["n"]);
    assert_eq!(go.offered(), ["next"]);
    go.act("prev", &[]).await;
    assert_eq!(error(&go.answer), "modify bad-request bad-action");
    go.act("complete", &[("node", "n")]).await;
    assert_eq!(error(&go.answer), "modify bad-request bad-action");
    go.act("cancel", &[]).await;
    assert_eq!(go.status(), "canceled");
    for action in ["next", "execute"] {
        go.act(action, &[("node", "n")]).await;
        assert_eq!(error(&go.answer), "cancel not-allowed session-expired", "{action}");
    }
    // A late answer is applied to the present state.
    let mut delete = CommandDialog::begin(&mut component, OWNER, "delete-node").await;
    delete.fill(&[("node", "n")]).await;
    let id = delete.id.clone();
    component.owner(OWNER, "set", "<delete node='n'/>").await;
    let late = request("delete-node", id.as_deref(), "", &form(&[("name", "n")]));
    assert_eq!(error(&component.ask(OWNER, "set", &late).await), "cancel item-not-found");
}
