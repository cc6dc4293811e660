//! `approvals`, `approve`, `deny`.

use std::collections::BTreeMap;

use farhelm_core::ask::{Ask, Choice, ChoiceKind, Subject, Verdict, digest};
use farhelm_core::command::Command;
use farhelm_core::session::parse_ask;
use farhelm_proto::Code;

use super::Context;
use crate::args::{Approve, Sending};
use crate::failure::Failure;
use crate::form;
use crate::output;
use crate::render::{option_of, question, visible};
use crate::resolve::{self, Waiting, short};
use crate::sending::apply;

pub(super) async fn list(context: &Context) -> Result<(), Failure> {
    let station = context.station().await?;
    let waiting = resolve::waiting(&station).await?;
    if context.json {
        let rows: Vec<_> = waiting
            .iter()
            .map(|waiting| {
                serde_json::json!({
                    "approval": waiting.approval, "session": waiting.session, "title": waiting.title,
                    "ask": parse_ask(&waiting.open.ask), "digest": digest(&waiting.open.ask),
                })
            })
            .collect();
        output::json(&rows);
        return Ok(());
    }
    if waiting.is_empty() {
        output::note("nothing waits for an answer");
    }
    for waiting in waiting {
        output::line(&format!(
            "── {} ({})",
            visible(&waiting.title),
            short(&waiting.session)
        ));
        match parse_ask(&waiting.open.ask) {
            Some(ask) => output::print(&question(&short(&waiting.approval), &ask)),
            None => output::line(&format!(
                "? {} {}",
                short(&waiting.approval),
                visible(&waiting.open.ask)
            )),
        }
    }
    Ok(())
}

pub(super) async fn approve(context: &Context, approve: Approve) -> Result<(), Failure> {
    let station = context.station().await?;
    let waiting = resolve::approval(&station, &approve.id).await?;
    let ask = read(&waiting)?;
    let verdict = if approve.answers.is_empty() {
        let choice = match &approve.option {
            Some(wanted) => option_of(&ask, wanted),
            None => first_of(&ask, &[ChoiceKind::AllowOnce, ChoiceKind::AllowAlways]),
        };
        selected(choice, None)?
    } else {
        answered(&ask, &approve.answers)?
    };
    let sending = &approve.sending;
    decide(context, &station, waiting, verdict, ("approved", sending)).await
}

pub(super) async fn deny(
    context: &Context,
    id: &str,
    reason: Option<String>,
    sending: &Sending,
) -> Result<(), Failure> {
    let station = context.station().await?;
    let waiting = resolve::approval(&station, id).await?;
    let ask = read(&waiting)?;
    let choice = first_of(&ask, &[ChoiceKind::RejectOnce, ChoiceKind::RejectAlways]);
    decide(
        context,
        &station,
        waiting,
        selected(choice, reason)?,
        ("denied", sending),
    )
    .await
}

async fn decide(
    context: &Context,
    station: &crate::station::Station,
    waiting: Waiting,
    verdict: Verdict,
    (done, sending): (&str, &Sending),
) -> Result<(), Failure> {
    let command = Command::DecideApproval {
        session: waiting.session,
        approval: waiting.approval,
        digest: digest(&waiting.open.ask),
        verdict,
    };
    apply(context, station, command, sending, done).await
}

fn read(waiting: &Waiting) -> Result<Ask, Failure> {
    parse_ask(&waiting.open.ask).ok_or_else(|| {
        Failure::new(
            Code::UnsupportedVersion,
            "this question is of a newer kind; update farhelm",
        )
    })
}

fn first_of<'a>(ask: &'a Ask, kinds: &[ChoiceKind]) -> Option<&'a Choice> {
    kinds
        .iter()
        .find_map(|kind| ask.options.iter().find(|choice| choice.kind == *kind))
}

fn selected(choice: Option<&Choice>, reason: Option<String>) -> Result<Verdict, Failure> {
    let choice = choice.ok_or_else(|| {
        Failure::new(
            Code::UnknownOption,
            "the agent does not offer that; see `farhelm approvals`, then use --option or --answer",
        )
    })?;
    Ok(Verdict::Selected {
        option: choice.id.clone(),
        allows: choice.kind.allows(),
        reason,
    })
}

fn answered(ask: &Ask, words: &[String]) -> Result<Verdict, Failure> {
    let mut answers = BTreeMap::new();
    for word in words {
        let (question, answer) = word.split_once('=').ok_or_else(|| {
            Failure::new(
                Code::UnknownOption,
                format!("{word:?} is not QUESTION=ANSWER"),
            )
        })?;
        answers.insert(
            question_id(ask, question).to_owned(),
            value(ask, question, answer),
        );
    }
    Ok(Verdict::Answered { answers })
}

/// The answer as the question takes it.
fn value(ask: &Ask, question: &str, answer: &str) -> serde_json::Value {
    let Subject::Form { schema, .. } = &ask.subject else {
        return answer.into();
    };
    let fields = form::fields(schema);
    fields
        .iter()
        .find(|field| field.name == question)
        .map_or_else(|| answer.into(), |field| field.value(answer))
}

/// The id of the question that a person names by id, header, number or text.
fn question_id<'a>(ask: &'a Ask, named: &'a str) -> &'a str {
    let Subject::Questions { questions } = &ask.subject else {
        return named;
    };
    let by_number = named
        .parse::<usize>()
        .ok()
        .and_then(|number| questions.get(number.checked_sub(1)?));
    let by_word = questions.iter().find(|question| {
        [&question.id, &question.header, &question.text].contains(&&named.to_owned())
    });
    by_word
        .or(by_number)
        .map_or(named, |question| question.id.as_str())
}
