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
    sessions::{CommandSession, CommandSessions, OWN_ID},
};

/// All commands, in the order in which they are listed.
const COMMANDS: &[&dyn AdHocCommand] = &[
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
    /// Default action of the stage. The attribute `execute` of `<actions/>` names it.
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
    /// Returns the commands of a service. No session exists yet.
    #[must_use]
    pub(crate) fn new(service: Arc<Service>) -> Self {
        let sessions = CommandSessions::default();
        Self { service, sessions }
    }

    /// Returns the commands that an actor may use, each with its node and name.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub(crate) async fn of(
        &self,
        actor: &Actor,
    ) -> Result<Vec<(&'static str, &'static str)>, Error> {
        let context = CommandContext { service: &self.service, actor };
        let owns = context.has_access(CommandAccess::Owners).await?;
        let mut own = Vec::new();
        for CommandInfo { node, name, audience } in COMMANDS.iter().map(|command| command.info()) {
            if (audience == CommandAccess::Owners && owns) || context.has_access(audience).await? {
                own.push((node, name));
            }
        }
        Ok(own)
    }

    /// Returns the name of the command with the node `node`, if there is such a command.
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
        let context = CommandContext { service: &self.service, actor };
        match context.has_access(audience).await? {
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
        let context = CommandContext { service: &self.service, actor };
        match session_id.as_deref().filter(|id| !id.is_empty()) {
            None if action != CommandAction::Execute => Err(bad_request("bad-action")),
            None => {
                let id = format!("{OWN_ID}{:016x}", self.service.next_u64());
                self.begin(&context, command, &id, form, room).await
            }
            // The requester chooses the id of a session that begins (XEP-0050 §4.1: "if not provided"), but no id that
            // the service has given: that session has ended, and its last form must not be executed again.
            Some(id)
                if action == CommandAction::Execute
                    && !id.starts_with(OWN_ID)
                    && !self.sessions.has(id, actor, command.info().node) =>
            {
                if id.len() > MAX_ID_BYTES {
                    let text = format!("a session id has at most {MAX_ID_BYTES} bytes");
                    return Err(bad_request("bad-sessionid").text(text));
                }
                self.begin(&context, command, id, form, room).await
            }
            Some(id) => {
                let session = self.sessions.take(id, actor, command.info().node)?;
                let reply = resume(&context, command, &session, action, form).await;
                let answer = reply.and_then(|reply| self.answer(reply, command.info(), id, room));
                if answer.is_err() {
                    self.sessions.put(id, session);
                }
                answer
            }
        }
    }

    /// Renders a reply with at most `room` bytes, and stores the session if the command continues. The reply of a
    /// command that made a change always fits, because its note is shortened.
    fn answer(
        &self,
        reply: CommandReply,
        info: CommandInfo,
        id: &str,
        room: usize,
    ) -> Result<ElementWriter, StanzaError> {
        let answer = reply.render(info, id);
        if answer.relayed_len() > room {
            self.service.metrics().count_rejection("answer_bytes");
            // After an error the requester would repeat a change that is committed.
            return reply.shortened(info, id, room).ok_or_else(|| {
                StanzaError::new("modify", "policy-violation")
                    .text(format!("max_stanza_bytes: the reply has more than {room} bytes"))
            });
        }
        if let CommandReply::Stage(session) = reply {
            self.sessions.put(id, *session);
        }
        Ok(answer)
    }

    /// Starts a command. A form in the first request is the submission of the command's first form.
    async fn begin(
        &self,
        context: &CommandContext<'_>,
        command: &dyn AdHocCommand,
        id: &str,
        form: Option<Element>,
        room: usize,
    ) -> Result<ElementWriter, StanzaError> {
        let info = command.info();
        let failed = |error| stanza_error(context.service, info, error);
        if !context.has_access(info.audience).await.map_err(|error| failed(error.into()))? {
            return Err(failed(gjallar_pubsub::Error::Forbidden.into()));
        }
        let (shown, next) = match command.step(context, &[]).await.map_err(failed)? {
            CommandStep::Done(done) => {
                return self.answer(CommandReply::Done(done), info, id, room);
            }
            CommandStep::Ask(shown, next) => (shown, next),
        };
        let session = CommandSession::new(context.actor, info.node, shown, next);
        let reply = match form {
            Some(_) => resume(context, command, &session, CommandAction::Execute, form).await?,
            None => CommandReply::Stage(session.into()),
        };
        self.answer(reply, info, id, room)
    }
}

/// Performs an action in a session, and returns the reply.
async fn resume(
    context: &CommandContext<'_>,
    command: &dyn AdHocCommand,
    session: &CommandSession,
    action: CommandAction,
    form: Option<Element>,
) -> Result<CommandReply, StanzaError> {
    let failed = |error| stanza_error(context.service, command.info(), error);
    let mut submitted = session.submitted.clone();
    let step = match (action, session.next) {
        (CommandAction::Cancel, _) => return Ok(CommandReply::Cancelled),
        (CommandAction::Prev, _) => {
            let again = submitted.pop().ok_or_else(|| bad_request("bad-action"))?;
            match command.step(context, &submitted).await.map_err(failed)? {
                CommandStep::Ask(form, next) => CommandStep::Ask(again.refill(form), next),
                done => done,
            }
        }
        (CommandAction::Complete, NextActions::Page) => {
            return Ok(CommandReply::Done(CommandOutcome::default()));
        }
        (CommandAction::Next, NextActions::Last) | (CommandAction::Complete, NextActions::Next) => {
            return Err(bad_request("bad-action"));
        }
        (CommandAction::Execute | CommandAction::Next | CommandAction::Complete, next) => {
            if form.is_none() && next != NextActions::Page {
                return Err(bad_request("bad-payload").text("the form is missing"));
            }
            let answer = match next {
                NextActions::Page => Ok(FormValues::of_page(&session.shown)),
                NextActions::Last | NextActions::Next | NextActions::List => {
                    FormValues::of(&session.shown, form.as_ref())
                }
            };
            drop(form);
            submitted.push(answer.map_err(|refusal| failed(refusal.into()))?);
            match command.step(context, &submitted).await.map_err(failed)? {
                // `complete` ends a list only where other actions were offered.
                CommandStep::Ask(page, NextActions::Page)
                    if action == CommandAction::Complete && next == NextActions::List =>
                {
                    CommandStep::only_page(page)
                }
                step => step,
            }
        }
    };
    Ok(match step {
        CommandStep::Done(done) => CommandReply::Done(done),
        CommandStep::Ask(shown, next) => {
            CommandReply::Stage(session.after(submitted, shown, next).into())
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
    fn render(&self, info: CommandInfo, id: &str) -> ElementWriter {
        let reply = |status| {
            ElementWriter::ns("command", ns::COMMANDS)
                .attr("node", info.node)
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

    /// Returns the reply of a completed command with as much of its note as fits; `None` if the reply does not consist
    /// of a note alone.
    fn shortened(&self, info: CommandInfo, id: &str, room: usize) -> Option<ElementWriter> {
        let Self::Done(CommandOutcome { note: Some(note), form: None }) = self else { return None };
        let done =
            |note| Self::Done(CommandOutcome { note: Some(note), form: None }).render(info, id);
        let room = room.saturating_sub(done(note.shortened(0)).relayed_len());
        Some(done(note.shortened(room)))
    }
}

/// Returns the element `<actions/>` with the actions that are allowed next.
fn actions(session: &CommandSession) -> ElementWriter {
    let (first, others): (_, &[&'static str]) = match session.next {
        NextActions::Last => ("complete", &["complete"]),
        NextActions::Next => ("next", &["next"]),
        NextActions::List | NextActions::Page => ("next", &["next", "complete"]),
    };
    let prev = (!session.submitted.is_empty()).then(|| ElementWriter::new("prev"));
    ElementWriter::new("actions")
        .attr("execute", first)
        .children(prev)
        .children(others.iter().map(|action| ElementWriter::new(action)))
}

fn named(node: &str) -> Option<&'static dyn AdHocCommand> {
    COMMANDS.iter().copied().find(|command| command.info().node == node)
}

fn bad_request(condition: &'static str) -> StanzaError {
    let text = match condition {
        "malformed-action" => "not an action of XEP-0050",
        _ => "this action is not possible in this stage of the command",
    };
    StanzaError::new("modify", "bad-request").command(condition).text(text)
}
