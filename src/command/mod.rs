//! Ad-hoc commands (XEP-0050): nodes listed, configured and deleted from any client that can show a
//! form. Administrators reach every node, owners theirs. The rules stay where they are: a command is
//! stages and forms over the service's use cases.

mod sessions;

use std::sync::Arc;

use minidom::Element;
use tracing::{debug, error};
use xmpp_parsers::data_forms::{DataForm, DataFormType, Field, FieldType, Option_};

use crate::{
    pubsub::{
        Actor, Affiliation, NodeId, Page, Refusal,
        op::{affiliations::OwnAffiliations, configure::Configure, delete::Delete},
        written_len,
    },
    service::{Error, Service},
    wire::{
        form::{
            self,
            node_config::{self, Submitted},
        },
        ns,
        refusal::stanza_error,
        stanza::StanzaError,
        xml::Tag,
    },
};

use self::sessions::{Session, Sessions};

/// Nodes that a form offers for choice; others can be named all the same.
const MAX_OFFERED: usize = 500;
/// The commands of the service.
pub struct Commands {
    service: Arc<Service>,
    sessions: Sessions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    ConfigureNode,
    DeleteNode,
    /// §8.7.
    GetPending,
    ListNodes,
}

impl Command {
    const ALL: [Self; 4] =
        [Self::ListNodes, Self::ConfigureNode, Self::DeleteNode, Self::GetPending];

    /// The node of the command, and its name for people.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::ConfigureNode => ("urn:gjallar:command:configure-node", "Configure a node"),
            Self::DeleteNode => ("urn:gjallar:command:delete-node", "Delete a node"),
            Self::GetPending => (ns::GET_PENDING, "Show requests for subscriptions"),
            Self::ListNodes => ("urn:gjallar:command:list-nodes", "List nodes"),
        }
    }

    /// The field that names a node.
    fn node_field(self) -> &'static str {
        match self {
            Self::GetPending => "pubsub#node",
            Self::ConfigureNode | Self::DeleteNode | Self::ListNodes => "node",
        }
    }

    /// Whether it has a single form.
    fn has_one_stage(self) -> bool {
        matches!(self, Self::DeleteNode | Self::GetPending)
    }

    fn named(node: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.names().0 == node)
    }
}

impl Commands {
    /// Commands over a service.
    #[must_use]
    pub fn new(service: Arc<Service>) -> Self {
        let sessions = Sessions::default();
        Self { service, sessions }
    }

    /// All commands: their nodes and their names for people.
    pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
        Command::ALL.into_iter().map(Command::names)
    }

    /// The name of the command at a node, if there is one.
    #[must_use]
    pub fn name(node: &str) -> Option<&'static str> {
        Command::named(node).map(|command| command.names().1)
    }

    /// Executes a stage of a command.
    ///
    /// # Errors
    /// Those of XEP-0050 §4.4, and those of the use case behind the command.
    pub async fn run(&self, actor: &Actor, request: &Element) -> Result<Tag, StanzaError> {
        let node = request.attr("node").unwrap_or_default();
        let command =
            Command::named(node).ok_or_else(|| StanzaError::new("cancel", "item-not-found"))?;
        let bad = |condition| StanzaError::new("modify", "bad-request").command(condition);
        let action = request.attr("action").unwrap_or("execute");
        if !["execute", "cancel", "prev", "next", "complete"].contains(&action) {
            return Err(bad("malformed-action"));
        }
        let Some(id) = request.attr("sessionid") else {
            return match action {
                "execute" => self.begin(actor, command).await,
                _ => Err(bad("bad-action")),
            };
        };
        let session = self.sessions.take(id, actor, command.names().0)?;
        match action {
            "cancel" => Ok(reply(command, id, "canceled")),
            "next" if command.has_one_stage() || session.node.is_some() => {
                self.sessions.put(id, session);
                Err(bad("bad-action"))
            }
            "complete" if command == Command::ConfigureNode && session.node.is_none() => {
                self.sessions.put(id, session);
                Err(bad("bad-action"))
            }
            "execute" | "next" | "complete" => {
                let form = request.get_child("x", ns::DATA_FORMS);
                let form = form.filter(|form| form.attr("type") == Some("submit"));
                let going_on = self.go_on(actor, command, id, &session, form).await;
                if going_on.is_err() {
                    // The asker may send a better form.
                    self.sessions.put(id, session);
                }
                going_on
            }
            _ => {
                self.sessions.put(id, session);
                Err(bad("bad-action"))
            }
        }
    }

    async fn begin(&self, actor: &Actor, command: Command) -> Result<Tag, StanzaError> {
        let mut nodes = self.nodes(actor).await?;
        let mut bytes = 0;
        let fitting = nodes.iter().take_while(|node| {
            bytes += 40 + written_len(node.as_str());
            bytes <= self.service.limits().max_reply_bytes
        });
        nodes.truncate(fitting.count());
        let id = format!("{:016x}", self.service.fresh_number());
        if command == Command::ListNodes {
            let mut field = Field::new("nodes", FieldType::TextMulti);
            field.label = Some("Nodes".into());
            field.values = nodes.iter().map(ToString::to_string).collect();
            let form = untyped(DataFormType::Result_, command, vec![field]);
            return Ok(reply(command, &id, "completed").child(form::render(&form)));
        }
        if nodes.is_empty() {
            let refusal =
                if actor.is_administrator { Refusal::NodeNotFound } else { Refusal::Forbidden };
            return Err(of_command(command, stanza_error(&refusal)));
        }
        let mut field = Field::new(command.node_field(), FieldType::ListSingle);
        field.label = Some("Node".into());
        field.required = true;
        let option = |node: &NodeId| Option_ { label: None, value: node.to_string() };
        field.options = nodes.iter().take(MAX_OFFERED).map(option).collect();
        let form = match command {
            Command::GetPending => {
                form::form_of_type(DataFormType::Form, ns::SUBSCRIBE_AUTHORIZATION, vec![field])
            }
            _ => untyped(DataFormType::Form, command, vec![field]),
        };
        self.sessions.put(&id, Session::new(actor, command.names().0, None));
        let action = if command.has_one_stage() { "complete" } else { "next" };
        Ok(stage(command, &id, action).child(form::render(&form)))
    }

    async fn go_on(
        &self,
        actor: &Actor,
        command: Command,
        id: &str,
        session: &Session,
        form: Option<&Element>,
    ) -> Result<Tag, StanzaError> {
        let form = form.ok_or_else(|| bad_payload("the form is missing"))?;
        match (command, &session.node) {
            (Command::ConfigureNode, Some(node)) => {
                let submitted = node_config::submitted(form).map_err(|r| self.error(&r.into()))?;
                let Submitted { settings, seen, .. } = submitted;
                let request = Configure { node: node.clone(), settings, seen };
                let done = self.service.configure(actor, &request, |answer| answer).await;
                done.await.map_err(|error| self.error(&error))?;
                Ok(done_with(command, id, "The node is configured."))
            }
            (Command::ConfigureNode, None) => {
                let node = chosen(command, form)?;
                let config = self.service.configuration(actor, &node).await;
                let config = config.map_err(|error| self.error(&error))?;
                let mut form = node_config::data_form(
                    DataFormType::Form,
                    &config,
                    self.service.limits(),
                    self.service.reads_rosters(),
                );
                form.title = Some(format!("Configuration of {node}"));
                let next = Session::new(actor, command.names().0, Some(node));
                self.sessions.put(id, next);
                Ok(stage(command, id, "complete").child(form::render(&form)))
            }
            (Command::GetPending, _) => {
                let node = chosen(command, form)?;
                let done = self.service.pending(actor, &node, |answer| answer).await;
                done.await.map_err(|error| of_command(command, self.error(&error)))?;
                Ok(done_with(command, id, "The requests are on their way."))
            }
            (Command::DeleteNode | Command::ListNodes, _) => {
                let request = Delete { node: chosen(command, form)?, redirect: None };
                let done = self.service.delete(actor, &request, |answer| answer).await;
                done.await.map_err(|error| self.error(&error))?;
                Ok(done_with(command, id, "The node is deleted."))
            }
        }
    }

    /// The nodes that the actor may configure.
    async fn nodes(&self, actor: &Actor) -> Result<Vec<NodeId>, StanzaError> {
        if actor.is_administrator {
            let nodes = self.service.nodes(actor, &Page::first(usize::MAX), None).await;
            let nodes = nodes.map_err(|error| self.error(&error))?;
            return Ok(nodes.map(|summary| summary.node).entries);
        }
        let own = self.service.own_affiliations(actor, &OwnAffiliations { node: None }).await;
        let mut own = own.map_err(|error| self.error(&error))?;
        own.retain(|(_, affiliation)| *affiliation == Affiliation::Owner);
        Ok(own.into_iter().map(|(node, _)| node).collect())
    }

    fn error(&self, error: &Error) -> StanzaError {
        service_error(&self.service, error)
    }
}

/// How an error of the service is answered. A failure is logged here, under an incident number that
/// the asker is given too.
#[must_use]
pub fn service_error(service: &Service, error: &Error) -> StanzaError {
    match error {
        Error::Refused(refusal) => {
            debug!(%refusal, "refused");
            refusal.limit().into_iter().for_each(|limit| service.metrics().limit_reached(limit));
            stanza_error(refusal)
        }
        Error::Busy => {
            service.metrics().limit_reached("max_backlog");
            StanzaError::new("wait", "resource-constraint")
        }
        Error::Closed => StanzaError::new("wait", "internal-server-error")
            .text("the node is closed, for what is stored of it is damaged"),
        Error::Failed(reason) => {
            let incident = format!("{:08x}", service.fresh_number() >> 32);
            error!(%reason, incident, "a request failed: what became of it is unknown");
            StanzaError::new("wait", "internal-server-error").text(format!("incident {incident}"))
        }
    }
}

/// SPEC: `forbidden` is of type `cancel` in §8.7.3.3, and of type `auth` everywhere else.
fn of_command(command: Command, error: StanzaError) -> StanzaError {
    let is_other = command == Command::GetPending && error.condition == "forbidden";
    if is_other { StanzaError { kind: "cancel", ..error } } else { error }
}

fn chosen(command: Command, form: &Element) -> Result<NodeId, StanzaError> {
    let value = form::fields(form)
        .map_err(|refusal| stanza_error(&refusal))?
        .find(|(var, _)| *var == command.node_field())
        .and_then(|(_, values)| values.into_iter().next());
    let name = value.ok_or_else(|| bad_payload("a node is required"))?;
    NodeId::parse(&name).map_err(|refusal| stanza_error(&refusal))
}

fn bad_payload(text: &str) -> StanzaError {
    StanzaError::new("modify", "bad-request").command("bad-payload").text(text)
}

fn untyped(kind: DataFormType, command: Command, fields: Vec<Field>) -> DataForm {
    let title = Some(command.names().1.to_owned());
    DataForm { type_: kind, title, instructions: None, fields }
}

fn reply(command: Command, id: &str, status: &str) -> Tag {
    Tag::ns("command", ns::COMMANDS)
        .attr("node", command.names().0)
        .attr("sessionid", id)
        .attr("status", status)
}

fn stage(command: Command, id: &str, action: &'static str) -> Tag {
    let actions = Tag::new("actions").attr("execute", action).child(Tag::new(action));
    reply(command, id, "executing").child(actions)
}

fn done_with(command: Command, id: &str, note: &str) -> Tag {
    reply(command, id, "completed").child(Tag::new("note").attr("type", "info").text(note))
}
