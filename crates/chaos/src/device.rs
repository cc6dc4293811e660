//! A device in this process, with the code that devices have: it prompts, answers by chance, and notes what it is told.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use farhelm_core::ask::{ChoiceKind, Verdict, digest};
use farhelm_core::command::Command;
use farhelm_core::event::{Event, Record};
use farhelm_core::keys::Identity;
use farhelm_core::session::parse_ask;
use farhelm_link::clock;
use farhelm_link::device::{Client, DeviceError, KnownHost, LogItem, Sent, Stage, Store};
use farhelm_proto::{ApprovalId, Code, PeerId, SessionId};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::chance::Chance;
use crate::oracle::Wish;

/// How long a wish waits for its host.
const WISH_MILLIS: u64 = 24 * 3600 * 1000;
/// How long a log may stand still before a read of it is begun anew.
const STILL: Duration = Duration::from_secs(20);

/// How long passes before a log that ended is asked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// A paired device.
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its id.
    pub me: PeerId,
    /// Its host.
    pub host: KnownHost,
    folder: PathBuf,
    client: Client,
    told: Arc<Mutex<Vec<Wish>>>,
    /// Those who wait for what becomes of each wish.
    watchers: Mutex<Vec<AbortOnDropHandle<()>>>,
}

impl Device {
    /// Connects a device that was paired before.
    ///
    /// # Errors
    ///
    /// When its store cannot be used.
    pub async fn connect(name: &str, folder: &Path, host: KnownHost) -> anyhow::Result<Self> {
        let store = Store::open(folder)?;
        let me = store.identity()?.peer();
        let client = Client::connect(store, host.clone(), None).await?;
        Ok(Self {
            name: name.to_owned(),
            me,
            host,
            folder: folder.to_owned(),
            client,
            told: Arc::default(),
            watchers: Mutex::default(),
        })
    }

    /// Its keys, which nobody else has.
    ///
    /// # Errors
    ///
    /// When its store cannot be used.
    pub fn identity(&self) -> anyhow::Result<Arc<Identity>> {
        Ok(Store::open(&self.folder)?.identity()?)
    }

    /// Ends it, and begins anew with what it has kept.
    ///
    /// # Errors
    ///
    /// When its store cannot be used.
    pub async fn again(self) -> anyhow::Result<Self> {
        let Self {
            name,
            host,
            folder,
            client,
            told,
            ..
        } = self;
        client.close().await;
        let mut again = Self::connect(&name, &folder, host).await?;
        again.told = told;
        Ok(again)
    }

    /// Its connection.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a wish, and notes what becomes of it whenever that is told.
    ///
    /// # Errors
    ///
    /// When it cannot be written down.
    pub async fn send(&self, what: &str, command: Command) -> anyhow::Result<()> {
        let not_after = clock::now().plus_millis(WISH_MILLIS);
        let Sent { id, mut stages } = self.client.send(command, not_after).await?;
        let place = {
            let mut told = lock(&self.told);
            told.push(Wish {
                id: id.to_string(),
                what: format!("{}: {what}", self.name),
                outcome: None,
            });
            told.len() - 1
        };
        let told = Arc::clone(&self.told);
        let watch = tokio::spawn(async move {
            while let Some(stage) = stages.recv().await {
                if let Stage::Done(outcome) = stage {
                    lock(&told)[place].outcome = Some(outcome);
                }
            }
        });
        lock(&self.watchers).push(AbortOnDropHandle::new(watch));
        Ok(())
    }

    /// What it was told of its wishes so far.
    #[must_use]
    pub fn told(&self) -> Vec<Wish> {
        lock(&self.told).clone()
    }

    /// Sends a prompt.
    ///
    /// # Errors
    ///
    /// Like [`Self::send`].
    pub async fn prompt(&self, session: SessionId, text: &str) -> anyhow::Result<()> {
        let command = Command::Prompt {
            session,
            text: text.to_owned(),
        };
        self.send(text, command).await
    }

    /// Answers a question by chance, with one of the options that hold once.
    ///
    /// # Errors
    ///
    /// Like [`Self::send`], and when the question offers no such option.
    pub async fn decide(
        &self,
        session: SessionId,
        approval: ApprovalId,
        ask: &str,
        chance: &mut Chance,
    ) -> anyhow::Result<()> {
        let parsed = parse_ask(ask).context("a question that cannot be read")?;
        let once = |kind| matches!(kind, ChoiceKind::AllowOnce | ChoiceKind::RejectOnce);
        let options: Vec<_> = parsed
            .options
            .iter()
            .filter(|option| once(option.kind))
            .collect();
        let option = chance
            .pick(&options)
            .context("a question without options")?;
        let verdict = Verdict::Selected {
            option: option.id.clone(),
            allows: option.kind == ChoiceKind::AllowOnce,
            reason: None,
        };
        let command = Command::DecideApproval {
            session,
            approval,
            digest: digest(ask),
            verdict,
        };
        self.send(&format!("{} of {}", option.id, parsed.title), command)
            .await
    }

    /// Follows a session from its beginning, across everything that happens to the connection.
    #[must_use]
    pub const fn follow(&self, session: SessionId) -> Following<'_> {
        Following {
            device: self,
            session,
            next: 1,
            items: None,
        }
    }

    /// Answers every question of a session by chance until `turns` turns have ended.
    ///
    /// # Errors
    ///
    /// Like [`Self::follow`].
    pub async fn answer_until(
        &self,
        session: SessionId,
        turns: usize,
        chance: &mut Chance,
    ) -> anyhow::Result<()> {
        let (mut ended, mut records) = (0, self.follow(session));
        while ended < turns {
            let record = records.next().await?;
            if let Event::ApprovalRequested { approval, ask, .. } = &record.event {
                self.decide(session, *approval, ask, chance).await?;
            }
            ended += usize::from(matches!(record.event, Event::TurnEnded { .. }));
        }
        Ok(())
    }

    /// All of a session that it shows, up to the event `head`, as JSON.
    ///
    /// # Errors
    ///
    /// Like [`Self::follow`].
    pub async fn transcript(&self, session: SessionId, head: u64) -> anyhow::Result<Vec<Value>> {
        let (mut shown, mut records) = (Vec::new(), self.follow(session));
        while (shown.len() as u64) < head {
            shown.push(serde_json::to_value(records.next().await?)?);
        }
        Ok(shown)
    }
}

/// A session's events as they come, each once.
pub struct Following<'a> {
    device: &'a Device,
    session: SessionId,
    next: u64,
    items: Option<mpsc::Receiver<Result<LogItem, DeviceError>>>,
}

impl Following<'_> {
    /// The next event.
    ///
    /// # Errors
    ///
    /// When the log is not to be believed, or leaves something out.
    pub async fn next(&mut self) -> anyhow::Result<Record> {
        loop {
            let items = match &mut self.items {
                Some(items) => items,
                None => {
                    let client = &self.device.client;
                    let asked = client.log_within(self.session, Some(self.next), true, STILL);
                    self.items.insert(asked.await)
                }
            };
            match items.recv().await {
                Some(Ok(LogItem::Record(record))) => {
                    ensure!(
                        record.seq == self.next,
                        "event {} in place of {}",
                        record.seq,
                        self.next
                    );
                    self.next += 1;
                    return Ok(*record);
                }
                Some(Ok(LogItem::Live(_) | LogItem::Limited { .. } | LogItem::CaughtUp)) => {}
                Some(Err(error)) => give_in(error)?,
                None => {
                    self.items = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Whether a log may be asked for again after this.
fn give_in(error: DeviceError) -> anyhow::Result<()> {
    let is_final = matches!(
        error.code,
        Code::Tampered
            | Code::BadSignature
            | Code::BadSeal
            | Code::UnsupportedVersion
            | Code::Revoked
    );
    if is_final { Err(error.into()) } else { Ok(()) }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
