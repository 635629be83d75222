//! Ad-hoc commands (XEP-0050): administration of the service from any client that supports forms. Administrators manage
//! all nodes, owners their own. Each command has a file of its own, and presents operations of the service as forms.

mod affiliations;
mod announce;
mod approve;
mod command;
mod configure_node;
mod create_node;
mod delete_node;
mod entity;
mod erase;
mod export;
mod form_values;
mod forms;
mod get_pending;
mod limits;
mod list_nodes;
mod publish_item;
mod purge_node;
mod retract_items;
mod retract_old_items;
mod sessions;
mod statistics;
mod subscriptions;

use std::sync::Arc;

use minidom::Element;

use crate::{
    service::{Error, Service},
    xmpp::{
        stanza::{self, envelope::StanzaError, ns},
        xml::writer::ElementWriter,
    },
};
use gjallar_pubsub::Actor;

use self::{
    command::{
        AdHocCommand, CommandAccess, CommandContext, CommandInfo, CommandNote, CommandOutcome,
        CommandStep, NextActions, stanza_error,
    },
    form_values::FormValues,
    sessions::{CommandSession, CommandSessions},
};

/// Commands, in the order of the list.
const ALL: &[&dyn AdHocCommand] = &[
    &list_nodes::ListNodesCommand,
    &create_node::CreateNodeCommand,
    &configure_node::ConfigureNodeCommand,
    &delete_node::DeleteNodeCommand,
    &purge_node::PurgeNodeCommand,
    &affiliations::AffiliationsCommand,
    &subscriptions::SubscriptionsCommand,
    &approve::ApproveCommand,
    &get_pending::GetPendingCommand,
    &publish_item::PublishItemCommand,
    &retract_items::RetractItemsCommand,
    &retract_old_items::RetractOldItemsCommand,
    &announce::AnnounceCommand,
    &entity::EntityCommand,
    &export::ExportCommand,
    &erase::EraseCommand,
    &statistics::StatisticsCommand,
    &limits::LimitsCommand,
];

/// Maximum length of a session id that a requester may choose, in bytes.
const MAX_ID_BYTES: usize = 256;

/// Ad-hoc commands of the service, and their sessions.
pub(crate) struct AdHocCommands {
    service: Arc<Service>,
    sessions: CommandSessions,
}

/// Action of a request in a session (XEP-0050 §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandAction {
    Cancel,
    Complete,
    /// The default action, listed in `execute`.
    Execute,
    Next,
    Prev,
}

impl CommandAction {
    fn of(request: &Element) -> Option<Self> {
        Some(match request.attr("action").unwrap_or("execute") {
            "cancel" => Self::Cancel,
            "complete" => Self::Complete,
            "execute" => Self::Execute,
            "next" => Self::Next,
            "prev" => Self::Prev,
            _ => return None,
        })
    }
}

impl AdHocCommands {
    /// Returns the commands over a service.
    #[must_use]
    pub(crate) fn new(service: Arc<Service>) -> Self {
        let sessions = CommandSessions::default();
        Self { service, sessions }
    }

    /// Returns the commands that an actor may use: their nodes and names.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub(crate) async fn of(
        &self,
        actor: &Actor,
    ) -> Result<Vec<(&'static str, &'static str)>, Error> {
        let asker = CommandContext { service: &self.service, actor };
        let owns = asker.has_access(CommandAccess::Owners).await?;
        let mut own = Vec::new();
        for CommandInfo { node, name, audience } in ALL.iter().map(|command| command.info()) {
            if (audience == CommandAccess::Owners && owns) || asker.has_access(audience).await? {
                own.push((node, name));
            }
        }
        Ok(own)
    }

    /// Returns the name of the command at a node, if the node is a command.
    ///
    /// # Errors
    /// [`Forbidden`](gjallar_pubsub::Error::Forbidden) if the actor may not use the command (XEP-0050 §3.3); an error
    /// if the store fails.
    pub(crate) async fn name(
        &self,
        actor: &Actor,
        node: &str,
    ) -> Result<Option<&'static str>, Error> {
        let Some(CommandInfo { name, audience, .. }) = named(node).map(AdHocCommand::info) else {
            return Ok(None);
        };
        let asker = CommandContext { service: &self.service, actor };
        match asker.has_access(audience).await? {
            true => Ok(Some(name)),
            false => Err(gjallar_pubsub::Error::Forbidden.into()),
        }
    }

    /// Executes a stage of a command; `room` is the maximum size of the reply in bytes. After an error the session is
    /// unchanged, and the requester may submit a corrected form.
    ///
    /// # Errors
    /// The errors of XEP-0050 §4.4, errors of the operation, and `policy-violation` for a reply that is too large.
    pub(crate) async fn run(
        &self,
        actor: &Actor,
        mut request: Element,
        room: usize,
    ) -> Result<ElementWriter, StanzaError> {
        let command = named(request.attr("node").unwrap_or_default())
            .ok_or_else(|| StanzaError::new("cancel", "item-not-found").text("no such command"))?;
        let action = CommandAction::of(&request).ok_or_else(|| bad_request("malformed-action"))?;
        let form = request.remove_child("x", ns::DATA_FORMS);
        let form = form.filter(|form| form.attr("type") == Some("submit"));
        let session_id = request.attr("sessionid").map(str::to_owned);
        drop(request);
        let asker = CommandContext { service: &self.service, actor };
        match session_id.as_deref().filter(|id| !id.is_empty()) {
            None if action != CommandAction::Execute => Err(bad_request("bad-action")),
            None => {
                let id = format!("{:016x}", self.service.next_u64());
                self.begin(&asker, command, &id, form, room).await
            }
            // The requester chooses the id of a session that begins (XEP-0050 §4.1: "if not provided").
            Some(id)
                if action == CommandAction::Execute
                    && !self.sessions.has(id, actor, command.info().node) =>
            {
                if id.len() > MAX_ID_BYTES {
                    let text = format!("a session id has at most {MAX_ID_BYTES} bytes");
                    return Err(bad_request("bad-sessionid").text(text));
                }
                self.begin(&asker, command, id, form, room).await
            }
            Some(id) => {
                let session = self.sessions.take(id, actor, command.info().node)?;
                let reply = resume(&asker, command, &session, action, form).await;
                let answer = reply.and_then(|reply| self.answer(reply, command.info(), id, room));
                if answer.is_err() {
                    self.sessions.put(id, session);
                }
                answer
            }
        }
    }

    /// Renders a reply, and stores the session if it continues. The reply of a command that made a change always fits.
    fn answer(
        &self,
        reply: CommandReply,
        about: CommandInfo,
        id: &str,
        room: usize,
    ) -> Result<ElementWriter, StanzaError> {
        let answer = reply.render(about, id);
        if answer.relayed_len() > room {
            self.service.metrics().count_rejection("answer_bytes");
            // After an error the requester would repeat a change that is committed.
            return reply.shortened(about, id, room).ok_or_else(|| {
                StanzaError::new("modify", "policy-violation")
                    .text(format!("max_stanza_bytes: the reply has more than {room} bytes"))
            });
        }
        if let CommandReply::Stage(session) = reply {
            self.sessions.put(id, *session);
        }
        Ok(answer)
    }

    /// Starts a command. A form in the first request is the submitted first form.
    async fn begin(
        &self,
        asker: &CommandContext<'_>,
        command: &dyn AdHocCommand,
        id: &str,
        form: Option<Element>,
        room: usize,
    ) -> Result<ElementWriter, StanzaError> {
        let about = command.info();
        let failed = |trouble| stanza_error(asker.service, about, trouble);
        if !asker.has_access(about.audience).await.map_err(|error| failed(error.into()))? {
            return Err(failed(gjallar_pubsub::Error::Forbidden.into()));
        }
        let (shown, more) = match command.step(asker, &[]).await.map_err(failed)? {
            CommandStep::Done(done) => {
                return self.answer(CommandReply::Done(done), about, id, room);
            }
            CommandStep::Ask(shown, more) => (shown, more),
        };
        let session = CommandSession::new(asker.actor, about.node, shown, more);
        let reply = match form {
            Some(_) => resume(asker, command, &session, CommandAction::Execute, form).await?,
            None => CommandReply::Stage(session.into()),
        };
        self.answer(reply, about, id, room)
    }
}

/// Performs an action in a session.
async fn resume(
    asker: &CommandContext<'_>,
    command: &dyn AdHocCommand,
    session: &CommandSession,
    action: CommandAction,
    form: Option<Element>,
) -> Result<CommandReply, StanzaError> {
    let failed = |trouble| stanza_error(asker.service, command.info(), trouble);
    let mut answers = session.answers.clone();
    let step = match (action, session.more) {
        (CommandAction::Cancel, _) => return Ok(CommandReply::Cancelled),
        (CommandAction::Prev, _) => {
            let again = answers.pop().ok_or_else(|| bad_request("bad-action"))?;
            match command.step(asker, &answers).await.map_err(failed)? {
                CommandStep::Ask(form, more) => CommandStep::Ask(again.refill(form), more),
                done => done,
            }
        }
        (CommandAction::Complete, NextActions::Page) => {
            return Ok(CommandReply::Done(CommandOutcome::default()));
        }
        (CommandAction::Next, NextActions::Last) | (CommandAction::Complete, NextActions::Next) => {
            return Err(bad_request("bad-action"));
        }
        (CommandAction::Execute | CommandAction::Next | CommandAction::Complete, more) => {
            if form.is_none() && more != NextActions::Page {
                return Err(bad_request("bad-payload").text("the form is missing"));
            }
            let answer = match more {
                NextActions::Page => Ok(FormValues::of_page(&session.shown)),
                NextActions::Last | NextActions::Next | NextActions::List => {
                    FormValues::of(&session.shown, form.as_ref())
                }
            };
            drop(form);
            answers.push(answer.map_err(|refusal| failed(refusal.into()))?);
            match command.step(asker, &answers).await.map_err(failed)? {
                // `complete` ends a list only where other actions were offered.
                CommandStep::Ask(page, NextActions::Page)
                    if action == CommandAction::Complete && more == NextActions::List =>
                {
                    CommandStep::only_page(page)
                }
                step => step,
            }
        }
    };
    Ok(match step {
        CommandStep::Done(done) => CommandReply::Done(done),
        CommandStep::Ask(shown, more) => {
            CommandReply::Stage(session.after(answers, shown, more).into())
        }
    })
}

/// Reply to a request.
enum CommandReply {
    Cancelled,
    Done(CommandOutcome),
    /// The form of a session that continues, and the actions that are allowed next (XEP-0050 §3.4).
    Stage(Box<CommandSession>),
}

impl CommandReply {
    fn render(&self, about: CommandInfo, id: &str) -> ElementWriter {
        let reply = |status| {
            ElementWriter::ns("command", ns::COMMANDS)
                .attr("node", about.node)
                .attr("sessionid", id)
                .attr("status", status)
        };
        match self {
            Self::Cancelled => reply("canceled"),
            Self::Done(CommandOutcome { note, form }) => {
                let note = note.as_ref().map(|CommandNote { is_warning, text }| {
                    ElementWriter::new("note")
                        .attr("type", if *is_warning { "warn" } else { "info" })
                        .text(text)
                });
                reply("completed").children(note).children(form.as_ref().map(stanza::forms::render))
            }
            Self::Stage(session) => reply("executing")
                .child(actions(session))
                .child(stanza::forms::render(&session.shown)),
        }
    }

    /// Returns the reply of a completed command with as much of its note as fits; `None` for a form that does not fit.
    fn shortened(&self, about: CommandInfo, id: &str, room: usize) -> Option<ElementWriter> {
        let Self::Done(CommandOutcome { note: Some(note), form: None }) = self else { return None };
        let done =
            |note| Self::Done(CommandOutcome { note: Some(note), form: None }).render(about, id);
        let room = room.saturating_sub(done(note.shortened(0)).relayed_len());
        Some(done(note.shortened(room)))
    }
}

/// Returns the element with the allowed next actions.
fn actions(session: &CommandSession) -> ElementWriter {
    let (first, others): (_, &[&'static str]) = match session.more {
        NextActions::Last => ("complete", &["complete"]),
        NextActions::Next => ("next", &["next"]),
        NextActions::List | NextActions::Page => ("next", &["next", "complete"]),
    };
    let prev = (!session.answers.is_empty()).then(|| ElementWriter::new("prev"));
    ElementWriter::new("actions")
        .attr("execute", first)
        .children(prev)
        .children(others.iter().map(|action| ElementWriter::new(action)))
}

fn named(node: &str) -> Option<&'static dyn AdHocCommand> {
    ALL.iter().copied().find(|command| command.info().node == node)
}

fn bad_request(condition: &'static str) -> StanzaError {
    let text = match condition {
        "malformed-action" => "not an action of XEP-0050",
        _ => "this action is not possible in this stage of the command",
    };
    StanzaError::new("modify", "bad-request").command(condition).text(text)
}
