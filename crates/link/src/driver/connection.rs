//! An open connection, until it ends: reads and hands over, gathers and writes, watches for
//! silence.

use bytes::Bytes;
use farhelm_proto::frame::{Frame, FrameError, Problem, Welcome};
use farhelm_proto::{Code, limits};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite::Message;

use super::handshake::{broke, closed, end_by, payload};
use super::{End, LinkEvent};
use crate::clock::Stopwatch;
use crate::silence::{Due, Silence};
use crate::socket::Socket;

/// Runs a connection to its end.
pub(super) async fn run(
    socket: Socket,
    welcome: &Welcome,
    mut queue: mpsc::Receiver<Bytes>,
    events: &mpsc::Sender<LinkEvent>,
    watch: &mut Stopwatch,
) -> End {
    let (mut sink, stream) = socket.split();
    let (answers, mut own) = mpsc::channel(ANSWERS);
    let silence = Silence::new(welcome, watch.read());
    let mut reading = Reading {
        stream,
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
    stream: SplitStream<Socket>,
    silence: Silence,
    watch: &'a mut Stopwatch,
    /// Pings and answers, which the writing half sends.
    answers: mpsc::Sender<Frame>,
    events: &'a mpsc::Sender<LinkEvent>,
}

/// What wakes the half that listens.
enum Input<'a> {
    Room(Option<mpsc::Permit<'a, LinkEvent>>),
    Message(Option<Result<Message, tokio_tungstenite::tungstenite::Error>>),
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
                permit = self.events.reserve(), if !listening => Input::Room(permit.ok()),
                _ = ticks.tick() => Input::Tick,
                message = self.stream.next(), if listening => Input::Message(message),
            };
            let handled = match input {
                Input::Room(None) => Err(End::lost(Code::NotNow, "nobody listens")),
                Input::Room(permit) => {
                    room = permit;
                    Ok(())
                }
                Input::Message(None) => Err(closed()),
                Input::Message(Some(Err(error))) => Err(broke(&error)),
                Input::Message(Some(Ok(message))) => self.take(message, &mut room),
                Input::Tick => self.tick(listening),
            };
            if let Err(end) = handled {
                return end;
            }
        }
    }

    fn take(
        &mut self,
        message: Message,
        room: &mut Option<mpsc::Permit<'a, LinkEvent>>,
    ) -> Result<(), End> {
        self.silence.heard(self.watch.read());
        let Some(raw) = payload(message)? else {
            return Ok(());
        };
        match Frame::parse(&raw) {
            Ok(Frame::Ping(number)) => self.answer(Frame::Pong(number)),
            Ok(Frame::Pong(_)) => {}
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
        match self.silence.check(self.watch.read(), listening) {
            Due::Nothing => {}
            Due::Ping(number) => self.answer(Frame::Ping(number)),
            Due::Dead => {
                return Err(End::lost(
                    Code::Timeout,
                    "the relay has been silent for too long",
                ));
            }
        }
        Ok(())
    }

    /// Answers if the writing half keeps up; a relay that asks faster than it reads gets fewer.
    fn answer(&self, frame: Frame) {
        if self.answers.try_send(frame).is_err() {
            tracing::debug!("an answer to the relay was left out");
        }
    }
}

/// The half that speaks.
async fn write(
    sink: &mut SplitSink<Socket, Message>,
    queue: &mut mpsc::Receiver<Bytes>,
    own: &mut mpsc::Receiver<Frame>,
) -> End {
    loop {
        let first = tokio::select! {
            biased;
            Some(frame) = own.recv() => frame.to_bytes(),
            Some(bytes) = queue.recv() => bytes,
            else => return End::lost(Code::NotNow, "nobody sends"),
        };
        if let Err(error) = write_batch(sink, first, queue, own).await {
            return broke(&error);
        }
    }
}

/// Writes `first` and what else waits, and flushes once.
async fn write_batch(
    sink: &mut SplitSink<Socket, Message>,
    first: Bytes,
    queue: &mut mpsc::Receiver<Bytes>,
    own: &mut mpsc::Receiver<Frame>,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let mut next = Some(first);
    let mut written = 0;
    while let Some(bytes) = next {
        written += bytes.len();
        sink.feed(Message::Binary(bytes)).await?;
        let more = written < BATCH_BYTES;
        next = own
            .try_recv()
            .map(|frame| frame.to_bytes())
            .ok()
            .or_else(|| more.then(|| queue.try_recv().ok()).flatten());
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
