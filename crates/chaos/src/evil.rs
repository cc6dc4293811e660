//! An evil relay: ours, doing to frames what a script says, and remembering all of them.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use farhelm_proto::PeerId;
use farhelm_relay::tamper::Tamper;
use farhelm_relay::{Config, Relay};

use crate::weather::Way;
use crate::world::World;

/// What becomes of a frame: nothing said means that it passes.
pub type Script = Box<dyn FnMut(Way, PeerId, &Bytes) -> Option<Vec<Bytes>> + Send>;

/// A frame that passed through the relay.
#[derive(Clone, Debug)]
pub struct Passed {
    /// Which way it went.
    pub way: Way,
    /// Whose connection it was on.
    pub peer: PeerId,
    /// The frame.
    pub frame: Bytes,
}

/// A relay that does what it is told.
pub struct Evil {
    relay: Relay,
    mind: Arc<Mind>,
    _data: tempfile::TempDir,
}

struct Mind {
    script: Mutex<Script>,
    passed: Mutex<Vec<Passed>>,
}

impl Tamper for Mind {
    fn heard(&self, peer: PeerId, _: u64, frame: Bytes) -> Vec<Bytes> {
        self.pass(Way::Up, peer, frame)
    }

    fn said(&self, peer: PeerId, _: u64, frame: Bytes) -> Vec<Bytes> {
        self.pass(Way::Down, peer, frame)
    }
}

impl Mind {
    fn pass(&self, way: Way, peer: PeerId, frame: Bytes) -> Vec<Bytes> {
        lock(&self.passed).push(Passed {
            way,
            peer,
            frame: frame.clone(),
        });
        lock(&self.script)(way, peer, &frame).unwrap_or_else(|| vec![frame])
    }
}

impl Evil {
    /// Starts an evil relay with a daemon at it. It does no evil yet.
    ///
    /// # Errors
    ///
    /// When one of them does not come up.
    pub async fn start(farhelm: &Path, seed: u64) -> anyhow::Result<(Self, World)> {
        let data = tempfile::tempdir()?;
        let relay = Relay::start(Config::in_folder(data.path()))?;
        let mind = Arc::new(Mind {
            script: Mutex::new(Box::new(|_, _, _| None)),
            passed: Mutex::default(),
        });
        relay.tamper_with(Arc::clone(&mind) as Arc<dyn Tamper>);
        let mut world = World::still(farhelm, seed, relay.local_addr()).await?;
        for road in [&world.host_road, &world.device_road] {
            relay.allow_authority(&road.url())?;
        }
        world.start_host(&[]).await?;
        let evil = Self {
            relay,
            mind,
            _data: data,
        };
        Ok((evil, world))
    }

    /// What is done from here on.
    pub fn does(
        &self,
        script: impl FnMut(Way, PeerId, &Bytes) -> Option<Vec<Bytes>> + Send + 'static,
    ) {
        *lock(&self.mind.script) = Box::new(script);
    }

    /// No evil is done from here on.
    pub fn repents(&self) {
        self.does(|_, _, _| None);
    }

    /// Every frame that passed.
    #[must_use]
    pub fn passed(&self) -> Vec<Passed> {
        lock(&self.mind.passed).clone()
    }

    /// Sends a frame to a peer, as if it belonged there.
    pub fn inject(&self, to: PeerId, frame: &Bytes) {
        self.relay.inject(to, frame);
    }

    /// Whether a peer is connected.
    #[must_use]
    pub fn has(&self, peer: PeerId) -> bool {
        self.relay.has(peer)
    }

    /// Ends it.
    pub async fn end(self) {
        self.relay.shutdown().await;
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
