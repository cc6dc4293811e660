//! Approvals: `requested → decided → applied`. The first decision wins; later ones are told so.

use farhelm_proto::{ApprovalId, Code};

use super::{Event, Session, parse_ask};
use crate::ask::{Ask, Subject, Verdict, digest};
use crate::command::Rejection;
use crate::event::Author;

impl Session {
    pub(super) fn decide_approval(
        &self,
        approval: ApprovalId,
        shown: &str,
        verdict: Verdict,
        by: Author,
    ) -> Result<Vec<Event>, Rejection> {
        let open = self
            .approvals
            .get(&approval)
            .filter(|open| open.decided.is_none())
            .ok_or_else(|| Rejection::new(Code::ApprovalNotPending))?;
        if digest(&open.ask) != shown {
            return Err(Rejection::new(Code::DigestMismatch));
        }
        let ask = parse_ask(&open.ask).ok_or_else(|| Rejection::new(Code::Internal))?;
        let verdict = check_verdict(&ask, verdict)?;
        Ok(vec![Event::ApprovalDecided {
            approval,
            by,
            verdict,
        }])
    }

    /// Ends every question that waits, without anybody's answer.
    pub(super) fn void_approvals(&self, by: &Author, why: &str) -> Vec<Event> {
        let waiting = self
            .approvals
            .iter()
            .filter(|(_, open)| open.decided.is_none());
        waiting
            .map(|(approval, _)| void(*approval, by.clone(), why))
            .collect()
    }

    /// Ends the questions of the main agent. A subagent in the background may go on asking after
    /// the turn that started it.
    pub(super) fn void_main_approvals(&self, why: &str) -> Vec<Event> {
        self.approvals
            .iter()
            .filter(|(_, open)| open.decided.is_none())
            .filter(|(_, open)| parse_ask(&open.ask).is_none_or(|ask| ask.parent.is_none()))
            .map(|(approval, _)| void(*approval, Author::Agent, why))
            .collect()
    }

    pub(super) fn withdraw_asks(&self, request: &str) -> Vec<Event> {
        self.approvals
            .iter()
            .filter(|(_, open)| open.decided.is_none() && open.request == request)
            .map(|(approval, _)| void(*approval, Author::Agent, "the agent took the question back"))
            .collect()
    }
}

fn void(approval: ApprovalId, by: Author, why: &str) -> Event {
    Event::ApprovalDecided {
        approval,
        by,
        verdict: Verdict::Void {
            why: why.to_owned(),
        },
    }
}

/// Takes the verdict's meaning from what the agent offered, never from the device.
fn check_verdict(ask: &Ask, verdict: Verdict) -> Result<Verdict, Rejection> {
    match verdict {
        Verdict::Selected {
            option,
            allows: _,
            reason,
        } => {
            let choice = ask.options.iter().find(|choice| choice.id == option);
            let choice = choice.ok_or_else(|| Rejection::new(Code::UnknownOption))?;
            Ok(Verdict::Selected {
                allows: choice.kind.allows(),
                option,
                reason,
            })
        }
        Verdict::Answered { answers } => match ask.subject {
            Subject::Questions { .. } | Subject::Form { .. } => Ok(Verdict::Answered { answers }),
            Subject::Command { .. }
            | Subject::Edit { .. }
            | Subject::Tool { .. }
            | Subject::Plan { .. }
            | Subject::Visit { .. } => Err(Rejection::because(
                Code::UnknownOption,
                "this is answered with one of its options",
            )),
        },
        Verdict::Void { .. } => Err(Rejection::because(
            Code::UnknownOption,
            "only the host voids a question",
        )),
    }
}
