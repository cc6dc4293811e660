//! What the relay says.

use farhelm_core::keys::Identity;
use farhelm_proto::frame::{Frame, Located, Problem, PutBlob, WantBlob};
use farhelm_proto::{Code, StreamId};
use tokio::time::Instant;

use super::mend::Came;
use super::queue::Line;
use super::{Mail, Position, RETRY, RelayState, Standing, UplinkActor};
use crate::journal::JournalError;

impl UplinkActor {
    pub(super) async fn take_frame(
        &mut self,
        frame: Frame,
        identity: &Identity,
    ) -> Result<(), JournalError> {
        match frame {
            Frame::Located(located) => self.take_located(located, identity).await?,
            Frame::Posted(posted) => {
                fail::point("host.uplink.before_posted");
                self.forget_letter(posted.id).await;
                fail::point("host.uplink.after_posted");
            }
            Frame::Letter(letter) => {
                fail::point("host.uplink.letter_came");
                self.inbox.put(letter);
            }
            Frame::WantBlob(wanted) => self.give_blob(wanted).await?,
            Frame::Problem(problem) => self.take_problem(problem).await,
            Frame::Page(page) => match self.mending.take(page, &self.journal, identity).await? {
                Came::Nothing => {}
                Came::Ask(frame) => self.say(&frame),
                Came::Whole(stream) => self.locate(stream),
            },
            Frame::Stored(stored) => {
                self.rest.end(stored.stream);
                let now = Instant::now();
                let overtakes = self.line_of(stored.stream) == Line::First;
                self.receipts
                    .confirmed(stored.stream, stored.head, overtakes, now);
            }
            Frame::Hello(_)
            | Frame::Challenge(_)
            | Frame::Prove(_)
            | Frame::Welcome(_)
            | Frame::Bye(_)
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Members(_)
            | Frame::Locate(_)
            | Frame::Envelope(_)
            | Frame::Subscribe(_)
            | Frame::Subscribed(_)
            | Frame::Unsubscribe(_)
            | Frame::Fetch(_)
            | Frame::Presence(_)
            | Frame::Taken(_)
            | Frame::OpenOffer(_)
            | Frame::CloseOffer(_)
            | Frame::PutBlob(_)
            | Frame::Blob(_) => {}
        }
        Ok(())
    }

    async fn take_problem(&mut self, problem: Problem) {
        tracing::debug!(code = %problem.code, detail = problem.detail, "the relay did not act on a frame");
        if let (Some(id), Code::NotFound | Code::LinkExpired | Code::LinkUsed | Code::Expired) =
            (problem.letter, problem.code)
        {
            self.forget_letter(id).await;
        }
        if let (Some(_), Code::StoreFailed | Code::Full | Code::RateLimited) =
            (problem.letter, problem.code)
        {
            let due = Instant::now() + RETRY;
            self.retry.get_or_insert(due);
        }
        if let (Some(id), Code::HostOffline) = (problem.letter, problem.code) {
            self.inbox.put_probe(Mail::Away(id));
        }
        match (problem.stream, problem.code) {
            (Some(stream), Code::Gap) => self.locate(stream),
            // What comes is sent on and passed on; what was not stored, later.
            (Some(stream), Code::StoreFailed | Code::Full) => {
                self.rest.begin(stream, Instant::now());
                self.receipts.leave(stream);
                self.located.leave(stream);
                if stream == self.own && !self.is_up {
                    self.question.put_off(Instant::now());
                    let detail = "the relay cannot say how much of this host's log it has";
                    self.is_down(problem.code, detail.to_owned());
                }
            }
            (Some(_) | None, _) => {}
        }
        if let Some(request) = problem.request {
            self.mending.refused(request);
        }
    }

    /// The relay says how far it has a stream; what it has must be what the journal holds.
    async fn take_located(
        &mut self,
        located: Located,
        identity: &Identity,
    ) -> Result<(), JournalError> {
        let Located { stream, head, hash } = located;
        fail::point("host.uplink.located");
        self.located.confirmed(stream, 0, false, Instant::now());
        let is_own = stream == self.own;
        if is_own {
            self.question.end();
        }
        let ours = self.journal.stream(stream).await?;
        let agrees = match self.continues(stream, head, hash.as_slice()).await {
            Err(error @ JournalError::Damaged { .. }) if is_own && !self.is_up => {
                self.is_down(Code::HistoryDamaged, error.to_string());
                return Err(error);
            }
            Err(error @ JournalError::Damaged { .. }) => {
                // That is said elsewhere, and says nothing against the relay's.
                self.standings.note(stream, Standing::Agrees);
                return Err(error);
            }
            agrees => agrees?,
        };
        if !agrees {
            tracing::error!(%stream, head, "the relay holds another history of this stream; was the state restored from a copy?");
            self.streams.insert(stream, Position::Forked);
            self.standings.note(stream, Standing::Forked);
            self.is_copy |= is_own;
            return Ok(());
        }
        if !self.is_up && is_own {
            self.is_up = true;
            let up = RelayState::Up(farhelm_link::clock::now(), self.way);
            self.state.send_replace(up);
            self.begin(identity).await?;
        }
        self.standings.note(stream, Standing::Agrees);
        self.streams.insert(stream, Position::Next(head + 1));
        self.sent.located(stream, head);
        if ours.is_some_and(|ours| ours.head > head) {
            self.behind.insert(stream);
        }
        Ok(())
    }

    /// Whether the journal goes on from where the relay's log ends.
    async fn continues(
        &self,
        stream: StreamId,
        head: u64,
        hash: &[u8],
    ) -> Result<bool, JournalError> {
        if head == 0 {
            return Ok(true);
        }
        let ours = self.journal.hash_at(stream, head).await?;
        Ok(ours.is_some_and(|ours| hash == ours))
    }

    async fn give_blob(&mut self, wanted: WantBlob) -> Result<(), JournalError> {
        let name = *wanted.name;
        if let Some(bytes) = self.journal.blob(name).await? {
            let put = Frame::PutBlob(PutBlob {
                name: name.into(),
                bytes: bytes.into(),
            });
            self.queue.push(Line::Bulk, put.to_bytes());
        } else {
            self.say(&Frame::Problem(unknown_blob(wanted.request)));
        }
        Ok(())
    }
}

const fn unknown_blob(request: u64) -> Problem {
    Problem {
        code: Code::NotFound,
        request: Some(request),
        letter: None,
        stream: None,
        detail: None,
        frame: None,
    }
}
