//! Keepers in memory: they hold what the agents of a host say and are told, and live on when the
//! host's daemon crashes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farhelm_host::agents::AgentError;
use farhelm_host::keeper::{End, Heard, Keepers, Kept, Standing, Start, Told};
use farhelm_proto::{Code, SessionId};
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use crate::agent::{Agent, Ledger, Pipes};
use crate::machine::Life;
use crate::universe::Universe;

/// The keepers of one host.
pub struct Keep {
    universe: Arc<Universe>,
    /// What the agents said and were told.
    pub ledger: Arc<Ledger>,
    life: Arc<Life>,
    holders: Arc<Mutex<BTreeMap<SessionId, Arc<Holder>>>>,
}

struct Holder {
    session: SessionId,
    run: String,
    note: String,
    pid: u32,
    changed: Notify,
    inner: Mutex<Inner>,
}

struct Inner {
    said: VecDeque<Heard>,
    last: u64,
    acknowledged: u64,
    accepted: u64,
    /// Counts daemons that attached.
    attached: u64,
    /// Nothing once it is closed.
    stdin: Option<mpsc::UnboundedSender<String>>,
    task: Option<AbortHandle>,
    has_ended: bool,
}

impl Keep {
    /// Keepers that live in `life`, which is not the daemon's.
    #[must_use]
    pub fn new(universe: &Arc<Universe>, life: Arc<Life>, ledger: Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self {
            universe: Arc::clone(universe),
            ledger,
            life,
            holders: Arc::default(),
        })
    }

    /// Kills the agent of a session, as SIGKILL does. Whether there was one.
    pub fn kill(&self, session: SessionId) -> bool {
        let holder = hold(&self.holders).get(&session).cloned();
        holder.is_some_and(|holder| {
            self.ledger.write(session, |page| {
                page.was_killed = true;
                page.is_busy = false;
            });
            let was_running = holder.end(Some(9));
            if was_running {
                self.universe.note("an agent is killed");
            }
            was_running
        })
    }

    /// The sessions whose agents run.
    #[must_use]
    pub fn running(&self) -> Vec<SessionId> {
        let holders = hold(&self.holders);
        let running = holders
            .values()
            .filter(|holder| !hold(&holder.inner).has_ended);
        running.map(|holder| holder.session).collect()
    }

    fn attached(&self, holder: &Arc<Holder>) -> Kept {
        let (told, told_in) = mpsc::channel(QUEUE);
        let (heard_out, heard) = mpsc::channel(QUEUE);
        let number = {
            let mut inner = hold(&holder.inner);
            inner.attached += 1;
            inner.attached
        };
        holder.changed.notify_waiters();
        let standing = holder.standing();
        let (holder, holders) = (Arc::clone(holder), Arc::clone(&self.holders));
        let attending = async move {
            if attend(&holder, told_in, heard_out, number).await {
                hold(&holders).remove(&holder.session);
            }
        };
        drop(self.life.run(attending));
        Kept {
            standing,
            told,
            heard,
        }
    }
}

impl Keepers for Keep {
    fn start(&self, start: Start) -> BoxFuture<'_, Result<Kept, AgentError>> {
        Box::pin(async move {
            if hold(&self.holders).contains_key(&start.session) {
                let text = "the session's last keeper has not gone";
                return Err(AgentError::new(Code::Internal, text));
            }
            let (stdin, lines) = mpsc::unbounded_channel();
            let holder = Arc::new(Holder {
                session: start.session,
                run: start.run,
                note: start.note,
                pid: self
                    .universe
                    .chance(|chance| u32::try_from(chance.between(2, 4_000_000)).unwrap_or(2)),
                changed: Notify::new(),
                inner: Mutex::new(Inner {
                    said: VecDeque::new(),
                    last: 0,
                    acknowledged: 0,
                    accepted: 0,
                    attached: 0,
                    stdin: Some(stdin),
                    task: None,
                    has_ended: false,
                }),
            });
            let speaker = Arc::clone(&holder);
            let pipes = Pipes {
                stdin: lines,
                stdout: Box::new(move |line| speaker.say(|number| Heard::Line { number, line })),
            };
            let agent = Agent::new(start.session, pipes, &self.universe, &self.ledger);
            let ending = Arc::clone(&holder);
            let task = self.life.run(async move {
                agent.run().await;
                ending.end(None);
            });
            hold(&holder.inner).task = Some(task.abort_handle());
            hold(&self.holders).insert(start.session, Arc::clone(&holder));
            self.universe.note("an agent starts");
            Ok(self.attached(&holder))
        })
    }

    fn attach(&self, session: SessionId) -> BoxFuture<'_, Result<Option<Kept>, AgentError>> {
        Box::pin(async move {
            let holder = hold(&self.holders).get(&session).cloned();
            Ok(holder.map(|holder| self.attached(&holder)))
        })
    }

    fn list(&self) -> BoxFuture<'_, Vec<SessionId>> {
        Box::pin(async move { hold(&self.holders).keys().copied().collect() })
    }
}

impl Holder {
    fn standing(&self) -> Standing {
        let inner = hold(&self.inner);
        Standing {
            run: self.run.clone(),
            note: self.note.clone(),
            acknowledged: inner.acknowledged,
            accepted: inner.accepted,
            written: inner.accepted,
            pid: self.pid,
        }
    }

    fn say(&self, say: impl FnOnce(u64) -> Heard) {
        let mut inner = hold(&self.inner);
        if inner.has_ended {
            return;
        }
        inner.last += 1;
        let said = say(inner.last);
        inner.said.push_back(said);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Takes note that the program has ended. Whether it ran.
    fn end(&self, signal: Option<i32>) -> bool {
        if hold(&self.inner).has_ended {
            return false;
        }
        self.say(|number| Heard::Silent { number });
        let end = End {
            code: signal.is_none().then_some(0),
            signal,
            stderr: String::new(),
        };
        self.say(|number| Heard::Ended { number, end });
        let mut inner = hold(&self.inner);
        inner.has_ended = true;
        inner.stdin = None;
        if let Some(task) = inner.task.take() {
            task.abort();
        }
        true
    }

    /// What was said after `after`.
    fn next(&self, after: u64) -> Option<Heard> {
        let inner = hold(&self.inner);
        inner
            .said
            .iter()
            .find(|said| number_of(said) > after)
            .cloned()
    }

    /// Takes what it is told. Whether the keeper goes.
    fn take(&self, told: Told, after: &mut Option<u64>) -> bool {
        let mut inner = hold(&self.inner);
        match told {
            Told::Hear { after: from } => *after = Some(from),
            Told::Write { number, line } => {
                if number == inner.accepted + 1 {
                    inner.accepted = number;
                    if let Some(stdin) = &inner.stdin {
                        drop(stdin.send(line));
                    }
                }
            }
            Told::Acknowledge { through } => {
                inner.acknowledged = inner.acknowledged.max(through);
                inner.said.retain(|said| number_of(said) > through);
                return inner.has_ended && through >= inner.last;
            }
            Told::End { at_once: _ } => inner.stdin = None,
        }
        false
    }
}

/// Serves one daemon until it is gone. Whether the keeper goes, too.
async fn attend(
    holder: &Holder,
    mut told: mpsc::Receiver<Told>,
    heard: mpsc::Sender<Heard>,
    number: u64,
) -> bool {
    let mut after = None;
    let mut written = 0;
    loop {
        let changed = holder.changed.notified();
        if hold(&holder.inner).attached != number {
            drop(heard.try_send(Heard::Superseded));
            return false;
        }
        let accepted = hold(&holder.inner).accepted;
        let next = match after {
            Some(_) if accepted > written => Some(Heard::Written { through: accepted }),
            Some(after) => holder.next(after),
            None => None,
        };
        tokio::select! {
            biased;
            order = told.recv() => match order {
                Some(order) => if holder.take(order, &mut after) { return true },
                None => return false,
            },
            permit = heard.reserve(), if next.is_some() => {
                let (Ok(permit), Some(next)) = (permit, next) else { return false };
                if let Heard::Written { through } = next {
                    written = through;
                } else {
                    after = Some(number_of(&next));
                }
                permit.send(next);
            }
            () = changed => {}
        }
    }
}

const fn number_of(said: &Heard) -> u64 {
    match said {
        Heard::Line { number, .. }
        | Heard::LongLine { number, .. }
        | Heard::TooLong { number, .. }
        | Heard::Silent { number }
        | Heard::Ended { number, .. } => *number,
        Heard::Part { .. } | Heard::Written { .. } | Heard::Cut | Heard::Superseded => 0,
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What waits in either direction.
const QUEUE: usize = 64;
