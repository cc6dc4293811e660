//! Somebody with a device who watches a session, answers its questions by chance, and lets paused work go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use farhelm_core::command::Command;
use farhelm_core::event::Event;
use farhelm_proto::{ApprovalId, PromptId, SessionId, TurnId};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::chance::Chance;
use crate::device::Device;
use crate::world::PATIENCE;

/// Watches until it is dropped.
pub struct Person {
    /// The device in the hand.
    pub device: Arc<Device>,
    session: SessionId,
    seen: watch::Receiver<Seen>,
    answers: watch::Sender<bool>,
    task: AbortOnDropHandle<anyhow::Result<()>>,
}

/// What was seen of a session.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    prompts: BTreeMap<PromptId, String>,
    turns: BTreeMap<TurnId, PromptId>,
    /// The prompts whose turns have ended.
    pub ended: BTreeSet<String>,
    /// Pieces of text that the agent said.
    pub messages: usize,
    /// Questions that nobody has answered.
    pub open: BTreeMap<ApprovalId, String>,
    /// How often its agent was gone.
    pub deaths: usize,
    /// Whether what waits is held.
    pub paused: bool,
}

impl Person {
    /// Begins to watch.
    #[must_use]
    pub fn new(device: Device, session: SessionId, chance: Chance) -> Self {
        let device = Arc::new(device);
        let (publish, seen) = watch::channel(Seen::default());
        let (answers, may_answer) = watch::channel(true);
        let task = tokio::spawn(watch(
            Arc::clone(&device),
            session,
            chance,
            publish,
            may_answer,
        ));
        Self {
            device,
            session,
            seen,
            answers,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Whether it answers questions; those that waited are answered when it begins to.
    pub fn answers(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    /// Sends a prompt.
    ///
    /// # Errors
    ///
    /// When it cannot be written down.
    pub async fn prompts(&self, text: &str) -> anyhow::Result<()> {
        self.device.prompt(self.session, text).await
    }

    /// Asks the host for the session's keys, which the device has, and for something in a session that there is not.
    ///
    /// # Errors
    ///
    /// When that cannot be written down.
    pub async fn asks_the_host(&self) -> anyhow::Result<()> {
        let stream = self.session.into();
        let soon = farhelm_link::clock::now().plus_millis(60_000);
        self.device
            .client()
            .send(Command::SendKeys { stream }, soon)
            .await?;
        Ok(())
    }

    /// Waits until something was seen.
    ///
    /// # Errors
    ///
    /// When it is not in time, or the log is not to be believed.
    pub async fn sees(&self, what: &str, holds: impl Fn(&Seen) -> bool) -> anyhow::Result<()> {
        let mut seen = self.seen.clone();
        let found = tokio::time::timeout(PATIENCE, seen.wait_for(holds)).await;
        // What was found holds a lock that the watcher wants.
        let found = found.is_ok_and(|seen| seen.is_ok());
        let known = self.seen.borrow().clone();
        ensure!(found, "{} does not see {what}: {known:?}", self.device.name);
        ensure!(
            !self.task.is_finished(),
            "{} has stopped watching",
            self.device.name
        );
        Ok(())
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Ends watching.
    ///
    /// # Errors
    ///
    /// When it ended before, with the reason.
    pub async fn stops(self) -> anyhow::Result<Arc<Device>> {
        let Self { device, task, .. } = self;
        if task.is_finished() {
            task.await.context("the task of a person")??;
        } else {
            task.abort();
            // Until it is gone, it holds the device.
            drop(task.await);
        }
        Ok(device)
    }
}

async fn watch(
    device: Arc<Device>,
    session: SessionId,
    mut chance: Chance,
    publish: watch::Sender<Seen>,
    mut may_answer: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut records = device.follow(session);
    let mut answered = BTreeSet::new();
    // A read that is given up in the middle would lose its place; it is kept across turns of the loop.
    let mut coming = Box::pin(records.next());
    loop {
        tokio::select! {
            record = &mut coming => {
                drop(coming);
                let record = record?;
                publish.send_modify(|seen| seen.apply(&record.event));
                if matches!(record.event, Event::QueuePaused { .. }) {
                    device.send("resume", Command::ResumeAgent { session }).await?;
                }
                coming = Box::pin(records.next());
            }
            changed = may_answer.changed() => if changed.is_err() { return Ok(()) },
        }
        if !*may_answer.borrow() {
            continue;
        }
        let open: Vec<_> = publish.borrow().open.clone().into_iter().collect();
        for (approval, ask) in open {
            if answered.insert(approval) {
                device.decide(session, approval, &ask, &mut chance).await?;
            }
        }
    }
}

impl Seen {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are not waited for"
    )]
    fn apply(&mut self, event: &Event) {
        match event {
            Event::PromptQueued { prompt, text, .. } => {
                self.prompts.insert(*prompt, text.clone());
            }
            Event::TurnStarted { turn, prompt } => {
                self.turns.insert(*turn, *prompt);
            }
            Event::TurnEnded { turn, .. } => {
                let text = self
                    .turns
                    .get(turn)
                    .and_then(|prompt| self.prompts.get(prompt));
                self.ended.extend(text.cloned());
            }
            Event::MessageAdded { .. } => self.messages += 1,
            Event::ApprovalRequested { approval, ask, .. } => {
                self.open.insert(*approval, ask.clone());
            }
            Event::ApprovalDecided { approval, .. } => {
                self.open.remove(approval);
            }
            Event::AgentExited { .. } => self.deaths += 1,
            Event::QueuePaused { .. } => self.paused = true,
            Event::QueueResumed { .. } | Event::AgentRestarting { .. } => self.paused = false,
            _ => {}
        }
    }
}
