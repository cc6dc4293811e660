//! A machine that is played: it boots, crashes at any step, sleeps, has a wrong clock or a full
//! disk. Its programs are the real ones, which live in the [`World`] of one of its lives.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use farhelm_world::{Connecting, World, Writing, within};
use tokio::task::{AbortHandle, JoinHandle};

use crate::net::Link;
use crate::universe::Universe;

/// A machine, across its crashes.
pub struct Machine {
    /// What it is called in traces.
    pub name: String,
    /// Its way to the relay.
    pub link: Arc<Link>,
    universe: Arc<Universe>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Which life is the present one; tasks of others get no turn any more.
    life: u64,
    is_up: bool,
    is_asleep: bool,
    /// How far the wall clock is wrong, in milliseconds.
    skew: i64,
    is_full: bool,
    /// Steps until the machine crashes by itself.
    crash_after: Option<u64>,
    waiting: Vec<Waker>,
    tasks: Vec<AbortHandle>,
}

/// One life of a machine, from its boot to its crash.
pub struct Life {
    machine: Arc<Machine>,
    number: u64,
}

/// What a crash unwinds with.
struct Crash;

impl Machine {
    /// A machine that is off.
    #[must_use]
    pub fn new(name: impl Into<String>, universe: &Arc<Universe>, link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            link,
            universe: Arc::clone(universe),
            inner: Mutex::default(),
        })
    }

    /// Turns it on.
    pub fn boot(self: &Arc<Self>) -> Arc<Life> {
        let mut inner = self.hold();
        inner.life += 1;
        inner.is_up = true;
        inner.is_asleep = false;
        let number = inner.life;
        drop(inner);
        Arc::new(Life {
            machine: Arc::clone(self),
            number,
        })
    }

    /// Turns it off without warning: no task of its gets another turn.
    pub fn crash(&self, place: &str) {
        let tasks = {
            let mut inner = self.hold();
            if !inner.is_up {
                return;
            }
            inner.life += 1;
            inner.is_up = false;
            inner.crash_after = None;
            inner.waiting.clear();
            std::mem::take(&mut inner.tasks)
        };
        self.universe
            .note(&format!("{} crashes at {place}", self.name));
        for task in tasks {
            task.abort();
        }
    }

    /// Lets it crash after so many steps of its programs.
    pub fn crash_after(&self, steps: u64) {
        self.hold().crash_after = Some(steps);
    }

    /// Takes back that it is to crash.
    pub fn spare(&self) {
        self.hold().crash_after = None;
    }

    /// Whether it is on.
    pub fn is_up(&self) -> bool {
        self.hold().is_up
    }

    /// Sends it to sleep, or wakes it.
    pub fn sleep(&self, asleep: bool) {
        let waiting = {
            let mut inner = self.hold();
            inner.is_asleep = asleep;
            if asleep {
                Vec::new()
            } else {
                std::mem::take(&mut inner.waiting)
            }
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Sets how wrong its wall clock is.
    pub fn set_skew(&self, millis: i64) {
        self.hold().skew = millis;
    }

    /// Fills its disk, or makes room.
    pub fn set_full(&self, full: bool) {
        self.hold().is_full = full;
    }

    /// Tasks of its that have not ended.
    pub fn tasks(&self) -> usize {
        let mut inner = self.hold();
        inner.tasks.retain(|task| !task.is_finished());
        inner.tasks.len()
    }

    fn hold(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    /// Starts a program.
    pub fn run<F>(self: &Arc<Self>, program: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let world: Arc<dyn World> = Arc::clone(self) as Arc<dyn World>;
        let task = tokio::spawn(within(world, program));
        self.spawned(task.abort_handle());
        task
    }

    /// Whether it goes on.
    pub fn is_on(&self) -> bool {
        let inner = self.machine.hold();
        inner.is_up && inner.life == self.number
    }

    /// Counts a step, and crashes when it is the last one.
    fn step(&self, place: &'static str) {
        if std::thread::panicking() {
            return;
        }
        let crashes = {
            let mut inner = self.machine.hold();
            if inner.life != self.number {
                drop(inner);
                // Somebody caught the crash: there is nothing to go on with.
                std::panic::resume_unwind(Box::new(Crash));
            }
            match &mut inner.crash_after {
                Some(0) => true,
                Some(steps) => {
                    *steps -= 1;
                    false
                }
                None => false,
            }
        };
        if crashes {
            self.machine.crash(place);
            std::panic::resume_unwind(Box::new(Crash));
        }
    }
}

impl World for Life {
    fn millis(&self) -> u64 {
        self.step("the clock");
        let skew = self.machine.hold().skew;
        self.machine.universe.millis().saturating_add_signed(skew)
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.step("a random number");
        self.machine.universe.chance(|chance| chance.fill(bytes));
    }

    fn connect(&self, _: &str, _: u16) -> Connecting {
        self.step("a connection");
        self.machine.universe.net().dial(&self.machine.link)
    }

    fn disk(&self) -> Writing {
        self.step("the disk");
        let machine = Arc::clone(&self.machine);
        let millis = machine.universe.chance(|chance| {
            if chance.once_in(20) {
                chance.between(5, 200)
            } else {
                chance.below(3)
            }
        });
        Box::pin(async move {
            if millis > 0 {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            if machine.hold().is_full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        })
    }

    fn reached(&self, place: &'static str) {
        self.step(place);
    }

    fn spawned(&self, task: AbortHandle) {
        let mut inner = self.machine.hold();
        if inner.life != self.number || !inner.is_up {
            drop(inner);
            task.abort();
            return;
        }
        if inner.tasks.len() % 64 == 63 {
            inner.tasks.retain(|task| !task.is_finished());
        }
        inner.tasks.push(task);
    }

    fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.machine.hold();
        if inner.life != self.number || !inner.is_up {
            // Whoever crashed has aborted it.
            return Poll::Pending;
        }
        if inner.is_asleep {
            inner.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}
