//! Hosts with a device each, that keep their links up as those of the real program do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use farhelm_core::keys::Identity;
use farhelm_link::driver::{Link, LinkEvent, LinkOptions};
use farhelm_link::rng;
use farhelm_proto::frame::{Frame, Locate, Members, Role, Subscribe};
use farhelm_proto::{Code, PeerId, StreamId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::PATIENCE;
use crate::log::{self, Log};

/// Many pairs at one relay; they end with this.
pub(super) struct Crowd {
    pairs: Vec<Arc<Pair>>,
    calm: Arc<AtomicBool>,
    told: mpsc::UnboundedReceiver<(usize, Instant, Told)>,
    ends: JoinSet<()>,
}

/// How long each link and each pair took to be back, and how often all links dialled for that.
pub(super) struct Back {
    pub(super) links: Vec<Duration>,
    pub(super) pairs: Vec<Duration>,
    pub(super) dials: u64,
}

/// What an end says, with its number: the pair's, doubled, and one more for the device.
enum Told {
    /// Its link is up.
    Up,
    /// Its link is down, or stays down.
    Down,
    /// The device has something from the host that came by a new link.
    Event,
    /// The relay complained.
    Problem(Code),
}

/// What both ends of a pair know of each other, and nobody else may use.
#[derive(Default)]
struct Pair {
    /// Events that the host wrote into its journal.
    written: AtomicU64,
    /// How far the device came.
    read: AtomicU64,
    skipped: AtomicU64,
    twice: AtomicU64,
}

/// What one end runs with.
struct Post {
    index: usize,
    pair: Arc<Pair>,
    calm: Arc<AtomicBool>,
    /// How long the host waits between events.
    between: Duration,
    told: mpsc::UnboundedSender<(usize, Instant, Told)>,
}

impl Crowd {
    /// Connects the pairs, some at a time, and waits until each has exchanged an event.
    /// They are a part of `of` pairs.
    pub(super) async fn connect(port: u16, size: usize, of: usize) -> anyhow::Result<Self> {
        let (told, hear) = mpsc::unbounded_channel();
        let mut crowd = Self {
            pairs: Vec::new(),
            calm: Arc::default(),
            told: hear,
            ends: JoinSet::new(),
        };
        let between = EVENT_EVERY * u32::try_from(of)?;
        while crowd.pairs.len() < size {
            let before = crowd.pairs.len();
            for number in before..size.min(before + AT_ONCE) {
                let pair = Arc::new(Pair::default());
                crowd.pairs.push(Arc::clone(&pair));
                let post = |index| Post {
                    index,
                    pair: Arc::clone(&pair),
                    calm: Arc::clone(&crowd.calm),
                    between,
                    told: told.clone(),
                };
                let (host, device) = (post(number * 2), post(number * 2 + 1));
                let keys = [
                    Identity::from_seed(rng::random())?,
                    Identity::from_seed(rng::random())?,
                ];
                crowd.ends.spawn(run(port, keys, host, device));
            }
            let waiting = async {
                let mut missing = crowd.pairs.len() - before;
                while missing > 0 {
                    match crowd.told.recv().await {
                        Some((_, _, Told::Event)) => missing -= 1,
                        Some((_, _, Told::Problem(code))) => bail!("the relay complained: {code}"),
                        Some(_) => {}
                        None => bail!("a pair ended"),
                    }
                }
                Ok(())
            };
            tokio::time::timeout(PATIENCE, waiting)
                .await
                .context("pairs do not connect")??;
        }
        Ok(crowd)
    }

    /// What was heard before does not count.
    pub(super) fn forget(&mut self) {
        while self.told.try_recv().is_ok() {}
    }

    /// How long after `begun` each link was up and each device had something, once all of them were.
    pub(super) async fn all_back(&mut self, begun: Instant) -> anyhow::Result<Back> {
        let mut links = vec![None; self.pairs.len() * 2];
        let mut pairs = vec![None; self.pairs.len()];
        let (mut missing, mut dials) = (links.len() + pairs.len(), 0);
        let waiting = async {
            while missing > 0
                && let Some((index, at, told)) = self.told.recv().await
            {
                let place = match told {
                    Told::Up => &mut links[index],
                    Told::Event => &mut pairs[index / 2],
                    Told::Down => {
                        dials += 1;
                        continue;
                    }
                    Told::Problem(code) => bail!("the relay complained: {code}"),
                };
                missing -= usize::from(place.is_none());
                place.get_or_insert(at.duration_since(begun));
            }
            Ok(())
        };
        let done = tokio::time::timeout(PATIENCE, waiting).await;
        match done {
            Ok(found) => found?,
            Err(_) => bail!("{missing} links and pairs did not come back"),
        }
        Ok(Back {
            links: links.into_iter().flatten().collect(),
            pairs: pairs.into_iter().flatten().collect(),
            dials,
        })
    }

    /// Lets the hosts stop writing; how many of their events never came, and how many came again.
    pub(super) async fn settle(&self) -> (u64, u64) {
        self.calm.store(true, Ordering::SeqCst);
        let sum = |of: fn(&Pair) -> u64| self.pairs.iter().map(|pair| of(pair)).sum::<u64>();
        let behind = |pair: &Pair| {
            let read = pair.read.load(Ordering::SeqCst);
            pair.written.load(Ordering::SeqCst).saturating_sub(read)
        };
        let begun = Instant::now();
        let mut quiet = 0;
        // Twice in a row, as a host may have been about to write.
        while quiet < 2 && begun.elapsed() < PATIENCE {
            quiet = if sum(behind) == 0 { quiet + 1 } else { 0 };
            tokio::time::sleep(LOOK).await;
        }
        let lost = sum(behind) + sum(|pair| pair.skipped.load(Ordering::SeqCst));
        (lost, sum(|pair| pair.twice.load(Ordering::SeqCst)))
    }
}

/// Is a pair, for ever. The device begins once the relay knows that it is the host's.
async fn run(port: u16, [host_key, device_key]: [Identity; 2], host: Post, device: Post) {
    let (host_id, device_id) = (
        PeerId::of(&host_key.public().signing),
        PeerId::of(&device_key.public().signing),
    );
    let stream = StreamId::from_bytes(rng::random());
    let (listed, wait) = tokio::sync::oneshot::channel();
    let hosting = host.be_host(
        start(port, host_key, Role::Host),
        (host_id, stream),
        device_id,
        listed,
    );
    let reading = async {
        if wait.await.is_ok() {
            device
                .be_device(start(port, device_key, Role::Device), (host_id, stream))
                .await;
        }
    };
    tokio::join!(hosting, reading);
}

fn start(port: u16, identity: Identity, role: Role) -> (Link, mpsc::Receiver<LinkEvent>) {
    Link::start(LinkOptions {
        relay: format!("http://127.0.0.1:{port}"),
        identity: Arc::new(identity),
        role,
        generation: 1,
        dead_millis: None,
        agent: "bench/1".to_owned(),
        extra_ca: None,
    })
}

/// Sends a frame; an end whose link is down hears of that from the link.
async fn say(link: &Link, frame: Frame) {
    link.send(frame.to_bytes()).await.ok();
}

impl Post {
    fn tell(&self, told: Told) {
        drop(self.told.send((self.index, Instant::now(), told)));
    }

    /// Writes into a journal, and sends what the relay does not have.
    async fn be_host(
        self,
        (link, mut events): (Link, mpsc::Receiver<LinkEvent>),
        (host, stream): (PeerId, StreamId),
        device: PeerId,
        listed: tokio::sync::oneshot::Sender<()>,
    ) {
        let (mut log, mut listed) = (Log::sealed(host, stream), Some(listed));
        let mut ticks = tokio::time::interval(self.between);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whether the relay has said what it has, so that the rest can be sent.
        let mut up = false;
        loop {
            let written = tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(LinkEvent::Up(_)) => {
                        self.tell(Told::Up);
                        let members = Members { version: 1, devices: vec![device] };
                        say(&link, Frame::Members(members)).await;
                        say(&link, Frame::Locate(Locate { stream })).await;
                        continue;
                    }
                    Some(LinkEvent::Down { .. }) => {
                        self.tell(Told::Down);
                        // Something happens just then.
                        u64::from(std::mem::take(&mut up))
                    }
                    Some(LinkEvent::Frame { frame: Frame::Located(located), .. }) => {
                        if let Some(listed) = listed.take() {
                            listed.send(()).ok();
                        }
                        log.rewind(located.head);
                        up = true;
                        0
                    }
                    Some(LinkEvent::Frame { frame: Frame::Problem(problem), .. }) => {
                        self.tell(Told::Problem(problem.code));
                        continue;
                    }
                    Some(LinkEvent::Frame { .. }) => continue,
                    None => return,
                },
                _ = ticks.tick() => u64::from(!self.calm.load(Ordering::SeqCst)),
            };
            let head = self.pair.written.fetch_add(written, Ordering::SeqCst) + written;
            while up && log.seq() < head {
                let event = log.next();
                up = link.send(event).await.is_ok();
            }
        }
    }

    /// Follows the host's stream from where it was.
    async fn be_device(
        self,
        (link, mut events): (Link, mpsc::Receiver<LinkEvent>),
        (host, stream): (PeerId, StreamId),
    ) {
        let mut fresh = false;
        while let Some(event) = events.recv().await {
            match event {
                LinkEvent::Up(_) => {
                    self.tell(Told::Up);
                    fresh = true;
                    let after = Some(self.pair.read.load(Ordering::SeqCst));
                    let ask = Subscribe {
                        host,
                        stream,
                        after,
                        tail: None,
                    };
                    say(&link, Frame::Subscribe(ask)).await;
                }
                LinkEvent::Down { .. } => self.tell(Told::Down),
                LinkEvent::Frame {
                    frame: Frame::Problem(problem),
                    ..
                } => {
                    self.tell(Told::Problem(problem.code));
                }
                LinkEvent::Frame { raw, .. } => {
                    let Some(event) = log::read(true, &raw) else {
                        continue;
                    };
                    self.note(event.seq);
                    if std::mem::take(&mut fresh) {
                        self.tell(Told::Event);
                    }
                }
            }
        }
    }

    fn note(&self, seq: u64) {
        let read = self.pair.read.load(Ordering::SeqCst);
        if seq <= read {
            self.pair.twice.fetch_add(1, Ordering::SeqCst);
            return;
        }
        self.pair
            .skipped
            .fetch_add(seq - read - 1, Ordering::SeqCst);
        self.pair.read.store(seq, Ordering::SeqCst);
    }
}

/// Pairs that connect at the same time in the beginning.
const AT_ONCE: usize = 128;
/// Between any two events of the whole crowd.
const EVENT_EVERY: Duration = Duration::from_millis(1);
const LOOK: Duration = Duration::from_millis(50);
