//! What all machines of one run share: time, chance, the network, and what is written down of it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::Instant;

use crate::chance::{Chance, Trace};
use crate::net::Net;

/// The surroundings of one run.
pub struct Universe {
    begun: Instant,
    net: OnceLock<Arc<Net>>,
    /// Is in every plaintext, and must be nowhere else.
    pub canary: String,
    inner: Mutex<Inner>,
}

struct Inner {
    chance: Chance,
    trace: Trace,
    log: Option<Vec<String>>,
    broken: Vec<String>,
}

impl Universe {
    /// Begins a run; in a tokio runtime whose clock is paused.
    #[must_use]
    pub fn begin(seed: u64, is_logged: bool) -> Arc<Self> {
        let mut chance = Chance::new(seed);
        let canary = format!("{CANARY}{:08x}", chance.any() >> 32);
        Arc::new(Self {
            begun: Instant::now(),
            net: OnceLock::new(),
            canary,
            inner: Mutex::new(Inner {
                chance,
                trace: Trace::default(),
                log: is_logged.then(Vec::new),
                broken: Vec::new(),
            }),
        })
    }

    /// Sets the network; once.
    pub fn set_net(&self, net: Arc<Net>) {
        drop(self.net.set(net));
    }

    /// The network.
    ///
    /// # Panics
    ///
    /// Before it was set.
    #[must_use]
    pub fn net(&self) -> &Arc<Net> {
        self.net.get().expect("the network is set first")
    }

    /// The true time, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(&self) -> u64 {
        let passed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        BEGIN.saturating_add(passed)
    }

    /// Milliseconds since the run began.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.millis() - BEGIN
    }

    /// Tries its luck.
    pub fn chance<T>(&self, ask: impl FnOnce(&mut Chance) -> T) -> T {
        ask(&mut self.hold().chance)
    }

    /// Writes down that something happened.
    pub fn note(&self, what: &str) {
        let passed = self.passed();
        let mut inner = self.hold();
        inner.trace.note(passed);
        inner.trace.note_bytes(what.as_bytes());
        if let Some(log) = &mut inner.log {
            log.push(format!("{:>9.3}  {what}", millis_as_seconds(passed)));
        }
    }

    /// Writes down that a promise was broken.
    pub fn broken(&self, promise: String) {
        self.note(&format!("BROKEN: {promise}"));
        self.hold().broken.push(promise);
    }

    /// The promises that were broken.
    #[must_use]
    pub fn all_broken(&self) -> Vec<String> {
        self.hold().broken.clone()
    }

    /// Whether a promise was broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        !self.hold().broken.is_empty()
    }

    /// What happened, as one number.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.hold().trace.hash()
    }

    /// What happened, line by line, when that was wanted.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.hold().log.clone().unwrap_or_default()
    }

    fn hold(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is for reading")]
fn millis_as_seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// How every canary begins.
pub(crate) const CANARY: &str = "canary-in-the-mine-";
/// When every run begins: a Monday in 2026.
const BEGIN: u64 = 1_780_304_400_000;
