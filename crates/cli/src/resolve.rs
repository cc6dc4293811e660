//! Finding what a person means by a piece of an id or a name.

use farhelm_core::event::Summary;
use farhelm_core::fleet::Fleet;
use farhelm_core::session::{Approval, Session};
use farhelm_proto::{ApprovalId, Code, PeerId, SessionId};

use crate::failure::Failure;
use crate::station::{Overview, Station};

/// How much of an id is printed: its end, since its beginning is the time.
const SHORT: usize = 6;

/// The part of an id that people type.
pub(crate) fn short(id: &impl std::fmt::Display) -> String {
    let text = id.to_string();
    text[text.len().saturating_sub(SHORT)..].to_owned()
}

/// The session of this id, end of id, or title. A whole id is taken as it is: the host may know
/// it before the list that is at hand does.
pub(crate) fn session(fleet: &Fleet, wanted: &str) -> Result<SessionId, Failure> {
    if let Ok(id) = wanted.parse() {
        return Ok(id);
    }
    let by_id = |summary: &&Summary| matches(&summary.session.to_string(), wanted);
    let mut found: Vec<_> = fleet.sessions.values().filter(by_id).collect();
    if found.is_empty() {
        found = fleet
            .sessions
            .values()
            .filter(|summary| summary.title == wanted)
            .collect();
    }
    one(found, "session", wanted).map(|summary| summary.session)
}

/// The device of this name or id.
pub(crate) fn device(overview: &Overview, wanted: &str) -> Result<PeerId, Failure> {
    let devices: Vec<_> = overview
        .roster
        .iter()
        .flat_map(|roster| roster.devices())
        .collect();
    let found = devices
        .into_iter()
        .filter(|(peer, member)| member.name == wanted || matches(&peer.to_string(), wanted));
    one(found.map(|(peer, _)| peer).collect(), "device", wanted)
}

/// A question that waits, and where.
pub(crate) struct Waiting {
    pub(crate) session: SessionId,
    pub(crate) title: String,
    pub(crate) approval: ApprovalId,
    pub(crate) open: Approval,
}

/// Every question that waits for an answer.
pub(crate) async fn waiting(station: &Station) -> Result<Vec<Waiting>, Failure> {
    let overview = station.overview().await?;
    let mut found = Vec::new();
    for summary in overview
        .fleet
        .sessions
        .values()
        .filter(|summary| summary.pending > 0)
    {
        let state: Session = station.session(summary.session).await?;
        found.extend(
            state
                .approvals
                .into_iter()
                .filter(|(_, open)| open.decided.is_none())
                .map(|(approval, open)| Waiting {
                    session: summary.session,
                    title: summary.title.clone(),
                    approval,
                    open,
                }),
        );
    }
    Ok(found)
}

/// The question of this id or end of id.
pub(crate) async fn approval(station: &Station, wanted: &str) -> Result<Waiting, Failure> {
    let found = waiting(station)
        .await?
        .into_iter()
        .filter(|waiting| matches(&waiting.approval.to_string(), wanted));
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return Err(Failure::new(
            Code::ApprovalNotPending,
            format!("no question {wanted:?} waits for an answer; see `farhelm approvals`"),
        ));
    }
    one(found, "question", wanted)
}

/// Whether that is this id or its end.
pub(crate) fn matches(id: &str, wanted: &str) -> bool {
    id == wanted || (wanted.len() >= 3 && id.ends_with(wanted))
}

fn one<T>(mut found: Vec<T>, what: &str, wanted: &str) -> Result<T, Failure> {
    match (found.pop(), found.len()) {
        (Some(thing), 0) => Ok(thing),
        (Some(_), more) => Err(Failure::new(
            Code::Ambiguous,
            format!("{wanted:?} fits {} {what}s; give more of its id", more + 1),
        )),
        (None, _) if what == "session" => Err(Failure::new(
            Code::SessionNotFound,
            format!("no session {wanted:?}; see `farhelm ls --all`"),
        )),
        (None, _) => Err(Failure::new(
            Code::NotFound,
            format!("no {what} {wanted:?}; see `farhelm devices`"),
        )),
    }
}
