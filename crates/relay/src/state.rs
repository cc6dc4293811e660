//! What all connections of a relay share: the hubs, who is connected, the store.
//!
//! Hubs and connections are spread over shards, so that no lock is hot. A hub is read from the
//! store when it is first asked for, and forgotten when nobody uses it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use farhelm_proto::frame::Bye;
use farhelm_proto::{Code, PeerId, Timestamp};

use tokio_util::sync::CancellationToken;

use crate::authority::Authorities;
use crate::config::Config;
use crate::http::detour::Detours;
use crate::hub::Hub;
use crate::lock::Lock as _;
use crate::outbox::{ConnId, Outbox};
use crate::store::{Store, StoreError, Write};
use crate::tasks::Tasks;

/// One host's hub, shared by the connections that use it.
pub(crate) type SharedHub = Arc<Mutex<Hub>>;

/// Everything that connections share.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) authorities: Authorities,
    pub(crate) tasks: Tasks,
    /// Cancelled when the relay ends.
    pub(crate) stop: CancellationToken,
    hubs: Shards<SharedHub>,
    /// Connections by peer, for letters.
    peers: Shards<Vec<Arc<Outbox>>>,
    /// Open detours, by their keys.
    pub(crate) detours: Detours,
    /// Over how many milliseconds peers are spread that are told to come back, once it ends.
    ending: OnceLock<u64>,
    next_conn: AtomicU64,
    tick: AtomicU32,
    begun: Instant,
    #[cfg(feature = "evil")]
    pub(crate) tamper: OnceLock<Arc<dyn crate::tamper::Tamper>>,
}

impl State {
    pub(crate) fn new(config: Config, store: Store, authorities: Authorities) -> Self {
        Self {
            config,
            store,
            authorities,
            tasks: Tasks::default(),
            stop: CancellationToken::new(),
            hubs: Shards::default(),
            peers: Shards::default(),
            detours: Detours::default(),
            ending: OnceLock::new(),
            next_conn: AtomicU64::new(1),
            tick: AtomicU32::new(0),
            begun: Instant::now(),
            #[cfg(feature = "evil")]
            tamper: OnceLock::new(),
        }
    }

    /// The queue of a connection that was just authenticated.
    pub(crate) fn outbox(&self, peer: PeerId, dead_millis: u64) -> Arc<Outbox> {
        let id = self.next_conn.fetch_add(1, Ordering::Relaxed);
        let outbox = Outbox::new(id, peer, self.config.sweeps(dead_millis));
        outbox.see(self.tick());
        outbox.into()
    }

    /// Counts sweeps; a coarse clock that costs nothing to read.
    pub(crate) fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Lists a connection, so that letters find it.
    pub(crate) fn enter(&self, outbox: &Arc<Outbox>) {
        self.peers
            .of(&outbox.peer)
            .hold()
            .entry(outbox.peer)
            .or_default()
            .push(Arc::clone(outbox));
        if let Some(spread) = self.ending.get() {
            outbox.close(come_back(*spread));
        }
    }

    /// Removes a connection.
    pub(crate) fn leave(&self, conn: ConnId, peer: PeerId) {
        let mut peers = self.peers.of(&peer).hold();
        if let Some(outboxes) = peers.get_mut(&peer) {
            outboxes.retain(|outbox| outbox.id != conn);
            if outboxes.is_empty() {
                peers.remove(&peer);
            }
        }
    }

    /// Tells every connection of a peer that letters wait.
    pub(crate) fn mail(&self, peer: PeerId) {
        for outbox in self.peers.of(&peer).hold().get(&peer).into_iter().flatten() {
            outbox.mail();
        }
    }

    /// Passes something on to every connection of a peer that has room for it, and says whether
    /// there was one.
    pub(crate) fn pass(&self, peer: PeerId, bytes: &Bytes) -> bool {
        let peers = self.peers.of(&peer).hold();
        let outboxes = peers.get(&peer).into_iter().flatten();
        outboxes.filter(|outbox| outbox.pass(bytes)).count() > 0
    }

    #[cfg(feature = "evil")]
    pub(crate) fn inject(&self, to: PeerId, frame: &bytes::Bytes) {
        for outbox in self.peers.of(&to).hold().get(&to).into_iter().flatten() {
            outbox.say_raw(frame.clone());
        }
    }

    #[cfg(feature = "evil")]
    pub(crate) fn has(&self, peer: PeerId) -> bool {
        self.peers.of(&peer).hold().contains_key(&peer)
    }

    /// The hub of a host that this relay knows.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub(crate) async fn hub(&self, host: PeerId) -> Result<Option<SharedHub>, StoreError> {
        if let Some(hub) = self.hubs.of(&host).hold().get(&host) {
            return Ok(Some(Arc::clone(hub)));
        }
        let members = self.store.read(move |tables| tables.members(host)).await?;
        Ok(members.map(|members| self.insert_hub(host, Some(members))))
    }

    /// The hub of a host that is here.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub(crate) async fn hub_of_host(&self, host: PeerId) -> Result<SharedHub, StoreError> {
        Ok(match self.hub(host).await? {
            Some(hub) => hub,
            None => self.insert_hub(host, None),
        })
    }

    /// Ends every connection, and those that come later. Each is told another moment to come
    /// back, over a time that grows with their number: a relay that starts must not be run down.
    pub(crate) fn close_all(&self) {
        let mut count = 0;
        self.peers
            .each(|peers| count += peers.values().map(Vec::len).sum::<usize>());
        let wanted = u64::try_from(count).unwrap_or(u64::MAX) / PEERS_PER_MILLI;
        let spread = *self
            .ending
            .get_or_init(|| wanted.clamp(SHORTEST_SPREAD_MILLIS, LONGEST_SPREAD_MILLIS));
        self.peers.each(|peers| {
            for outbox in peers.values().flatten() {
                outbox.close(come_back(spread));
            }
        });
    }

    /// How long this relay has run: a clock that nobody sets.
    pub(crate) fn uptime(&self) -> Timestamp {
        let passed = u64::try_from(self.begun.elapsed().as_millis());
        Timestamp(passed.unwrap_or(u64::MAX))
    }

    /// What is due now and then, for all connections at once: ends the silent ones, answers
    /// those who waited too long for a blob, forgets hubs that nobody uses.
    pub(crate) fn sweep(&self) {
        let now = self.uptime();
        let tick = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        let late = Bye {
            code: Code::Timeout,
            detail: None,
            retry_millis: None,
        };
        self.peers.each(|peers| {
            for outbox in peers
                .values()
                .flatten()
                .filter(|outbox| outbox.is_dead(tick))
            {
                outbox.close(late.clone());
            }
        });
        self.hubs.each(|hubs| {
            hubs.retain(|_, hub| {
                let mut decided = hub.hold();
                decided.wants.expire(now);
                // Whoever holds the hub while it has no state of its own may be about to use it.
                Arc::strong_count(hub) > 1 || !decided.is_idle(now)
            });
        });
    }

    /// Forgets letters whose time is over.
    pub(crate) async fn prune(&self, now: Timestamp) {
        if let Err(error) = self.store.write_one(Write::Prune { now }).await {
            tracing::warn!(%error, "expired letters could not be removed");
        }
    }

    fn insert_hub(&self, host: PeerId, members: Option<(u64, Vec<PeerId>)>) -> SharedHub {
        let mut hubs = self.hubs.of(&host).hold();
        Arc::clone(
            hubs.entry(host)
                .or_insert_with(|| Arc::new(Hub::new(host, members).into())),
        )
    }
}

/// A map by peer in pieces, each with a lock of its own. In order, so that a relay that is given
/// the same twice does the same twice.
struct Shards<V> {
    shards: Vec<Mutex<BTreeMap<PeerId, V>>>,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl<V> Shards<V> {
    /// A peer's id is a hash of its key: any bits of it spread well, and who looks for keys that
    /// meet in one piece gains a hotter lock for all of them.
    fn of(&self, peer: &PeerId) -> &Mutex<BTreeMap<PeerId, V>> {
        &self.shards[usize::from(peer.as_bytes()[0]) % SHARDS]
    }

    fn each(&self, mut visit: impl FnMut(&mut BTreeMap<PeerId, V>)) {
        for shard in &self.shards {
            visit(&mut shard.hold());
        }
    }
}

/// What a peer is told by a relay that ends.
fn come_back(spread_millis: u64) -> Bye {
    let chance = crate::fresh().map_or(0, u64::from_be_bytes);
    Bye {
        code: Code::Restarting,
        detail: None,
        retry_millis: Some(RETRY_MILLIS + chance % spread_millis),
    }
}

const SHARDS: usize = 32;
/// How long peers are told to stay away from a relay that ends, at least.
const RETRY_MILLIS: u64 = 250;
/// Peers that a relay lets in per millisecond without effort.
const PEERS_PER_MILLI: u64 = 8;
const SHORTEST_SPREAD_MILLIS: u64 = 250;
const LONGEST_SPREAD_MILLIS: u64 = 4_000;
