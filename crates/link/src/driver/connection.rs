//! An open connection, until it ends: reads and hands over, gathers and writes, watches for
//! silence.

use std::sync::Arc;

use bytes::Bytes;
use farhelm_proto::frame::{Frame, FrameError, Problem, Welcome};
use farhelm_proto::{Code, limits};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::handshake::{broke, closed, end_by};
use super::lanes::Queues;
use super::{End, LinkEvent};
use crate::backoff::Ending;
use crate::clock::Stopwatch;
use crate::silence::{Due, Silence};
use crate::socket::{Broken, Frames, Life, Outlet, Route, Socket};

/// Runs a connection to its end.
pub(super) async fn run(
    socket: Socket,
    welcome: &Welcome,
    mut queue: Queues,
    events: &mpsc::Sender<LinkEvent>,
    watch: &mut Stopwatch,
) -> End {
    let Socket {
        mut sink,
        frames,
        life,
        route,
        way: _,
    } = socket;
    let (answers, mut own) = mpsc::channel(ANSWERS);
    let silence = Silence::new(welcome, watch.read());
    let mut reading = Reading {
        frames,
        heard: life.bytes(),
        life,
        route,
        silence,
        watch,
        answers,
        events,
    };
    tokio::select! {
        biased;
        end = reading.run() => end,
        end = write(&mut sink, &mut queue, &mut own) => end,
    }
}

/// The half that listens.
struct Reading<'a> {
    frames: Frames,
    life: Arc<Life>,
    /// Bytes of `life` that were noted.
    heard: u64,
    route: Option<Route>,
    silence: Silence,
    watch: &'a mut Stopwatch,
    /// Pings and answers, which the writing half sends.
    answers: mpsc::Sender<Frame>,
    events: &'a mpsc::Sender<LinkEvent>,
}

/// What wakes the half that listens.
enum Input<'a> {
    Room(Option<mpsc::Permit<'a, LinkEvent>>),
    Frame(Option<Result<Bytes, Broken>>),
    Tick,
}

impl<'a> Reading<'a> {
    async fn run(&mut self) -> End {
        let mut ticks = tokio::time::interval(self.silence.interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut room: Option<mpsc::Permit<'a, LinkEvent>> = None;
        loop {
            let listening = room.is_some();
            let input = tokio::select! {
                biased;
                _ = ticks.tick() => Input::Tick,
                permit = self.events.reserve(), if !listening => Input::Room(permit.ok()),
                frame = self.frames.next(), if listening => Input::Frame(frame),
            };
            let handled = match input {
                Input::Room(None) => Err(End::lost(Code::NotNow, "nobody listens")),
                Input::Room(permit) => {
                    room = permit;
                    Ok(())
                }
                Input::Frame(None) => Err(closed()),
                Input::Frame(Some(Err(broken))) => Err(broke(broken)),
                Input::Frame(Some(Ok(raw))) => self.take(raw, &mut room),
                Input::Tick => self.tick(listening),
            };
            if let Err(end) = handled {
                return end;
            }
        }
    }

    fn take(
        &mut self,
        raw: Bytes,
        room: &mut Option<mpsc::Permit<'a, LinkEvent>>,
    ) -> Result<(), End> {
        self.silence.heard(self.watch.read());
        match Frame::parse(&raw) {
            Ok(Frame::Ping(number)) => self.answer(Frame::Pong(number)),
            Ok(Frame::Pong(number)) => self.silence.answered(number),
            Ok(Frame::Bye(bye)) => return Err(end_by(bye)),
            Ok(frame) => {
                if let Some(permit) = room.take() {
                    permit.send(LinkEvent::Frame { frame, raw });
                }
            }
            Err(FrameError::Unknown(kind)) => self.answer(Frame::Problem(unknown(kind))),
            Err(FrameError::Malformed(error)) => {
                return Err(End::lost(
                    Code::BadFrame,
                    format!("the relay sent something else than a frame: {error}"),
                ));
            }
        }
        Ok(())
    }

    fn tick(&mut self, listening: bool) -> Result<(), End> {
        let now = self.watch.read();
        let bytes = self.life.bytes();
        if std::mem::replace(&mut self.heard, bytes) != bytes {
            self.silence.heard(now);
        }
        let slept = self.watch.has_slept();
        let moved = self.route.as_mut().is_some_and(Route::has_changed);
        if slept || moved {
            tracing::debug!(slept, moved, "is the relay still there?");
            self.silence.suspect(now);
        }
        match self.silence.check(now, listening) {
            Due::Nothing => Ok(()),
            Due::Ping(number) => {
                self.answer(Frame::Ping(number));
                Ok(())
            }
            Due::Dead => Err(End {
                ending: if slept { Ending::Moved } else { Ending::Lost },
                ..End::lost(Code::Timeout, "the relay has been silent for too long")
            }),
            Due::Gone => Err(End {
                ending: Ending::Moved,
                ..End::lost(
                    Code::Timeout,
                    "the relay does not answer after this machine slept or its network changed",
                )
            }),
        }
    }

    /// Answers if the writing half keeps up; a relay that asks faster than it reads gets fewer.
    fn answer(&self, frame: Frame) {
        if self.answers.try_send(frame).is_err() {
            tracing::debug!("an answer to the relay was left out");
        }
    }
}

/// The half that speaks.
async fn write(sink: &mut Outlet, queue: &mut Queues, own: &mut mpsc::Receiver<Frame>) -> End {
    loop {
        let first = tokio::select! {
            biased;
            Some(frame) = own.recv() => frame.to_bytes(),
            Some(bytes) = queue.first.recv() => bytes,
            Some(bytes) = queue.bulk.recv() => bytes,
            else => return End::lost(Code::NotNow, "nobody sends"),
        };
        if let Err(error) = write_batch(sink, first, queue, own).await {
            return broke(error);
        }
    }
}

/// Writes `first` and what else waits, and flushes once.
async fn write_batch(
    sink: &mut Outlet,
    first: Bytes,
    queue: &mut Queues,
    own: &mut mpsc::Receiver<Frame>,
) -> Result<(), Broken> {
    let mut next = Some(first);
    let mut written = 0;
    while let Some(bytes) = next {
        written += bytes.len();
        sink.feed(bytes).await?;
        let more = written < BATCH_BYTES;
        next = own
            .try_recv()
            .map(|frame| frame.to_bytes())
            .ok()
            .or_else(|| queue.first.try_recv().ok())
            .or_else(|| more.then(|| queue.bulk.try_recv().ok()).flatten());
    }
    sink.flush().await
}

fn unknown(kind: u64) -> Problem {
    Problem {
        code: Code::UnknownFrame,
        request: None,
        letter: None,
        stream: None,
        detail: None,
        frame: Some(kind),
    }
}

/// Pings and answers that wait for the writing half.
const ANSWERS: usize = 16;
/// What is gathered before it is flushed.
const BATCH_BYTES: usize = limits::FRAME_BYTES / 4;
