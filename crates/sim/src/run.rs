//! Plays a plan: sets everything up, does step after step, lets everything heal, and looks after
//! each of them whether the promises hold.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Once};
use std::time::Duration;

use farhelm_core::ask::{Verdict, digest};
use farhelm_core::command::{Command, Outcome};
use farhelm_core::session::Session;
use farhelm_proto::{ApprovalId, SessionId};
use farhelm_world::World;

use crate::device::{Device, hold};
use crate::host::{Front, Host};
use crate::machine::{Life, Machine};
use crate::net::{Link, Net};
use crate::oracle::Oracle;
use crate::plan::{Act, Plan, Step};
use crate::relay::PlayedRelay;
use crate::run::stock::Stock;
use crate::universe::Universe;

mod rest;
mod stock;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// All that happened, as one number.
    pub trace: u64,
    /// The promises that were broken; none when all is well.
    pub broken: Vec<String>,
    /// All that happened, line by line, when that was wanted.
    pub log: Vec<String>,
    /// Events that the host wrote.
    pub events: usize,
    /// How long it took on the clock that was played, in milliseconds.
    pub millis: u64,
}

/// Plays a plan.
///
/// # Panics
///
/// When the machine gives no memory or no temporary folder.
#[must_use]
pub fn play(plan: &Plan, is_logged: bool) -> Report {
    let stock = stock::of(plan.devices);
    live(async {
        let universe = Universe::begin(plan.seed, is_logged);
        let mut run = Run::begin(&universe, Some(stock)).await;
        run.begin_sessions(plan.sessions).await;
        run.play(plan).await;
        if let Some(panic) = PANICKED.take() {
            universe.broken(format!("a program panicked: {panic}"));
        }
        Report {
            trace: universe.trace(),
            broken: universe.all_broken(),
            log: universe.log(),
            events: run.oracle.truth.sessions.values().map(Vec::len).sum(),
            millis: universe.passed(),
        }
    })
}

thread_local! {
    /// The first panic of a program that was played on this thread. A crash is none.
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Takes note of panics, which a task or a session would survive.
fn mind_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.to_string();
            PANICKED.with_borrow_mut(|first| {
                first.get_or_insert(text);
            });
            before(panic);
        }));
    });
    drop(PANICKED.take());
}

/// Runs something where time is played.
fn live<T>(life: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    mind_panics();
    fail::watch(Some(farhelm_world::reached));
    let outcome = runtime.block_on(life);
    fail::watch(None);
    outcome
}

/// A run under way.
struct Run {
    universe: Arc<Universe>,
    host: Host,
    relay: PlayedRelay,
    devices: Vec<Device>,
    oracle: Oracle,
    /// Where it looks from: a machine that nothing happens to.
    tower: Arc<Life>,
    /// What ends when.
    due: BTreeMap<(u64, u64), Due>,
    next_due: u64,
    next_text: u64,
}

/// Something that ends by itself.
#[derive(Clone, Copy, Debug)]
enum Due {
    Boot(Who),
    Wake(Who),
    Room(Who),
    Open(usize),
    Fast(usize),
}

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Host,
    Relay,
    Device(usize),
}

impl Run {
    async fn begin(universe: &Arc<Universe>, stock: Option<&Stock>) -> Self {
        universe.set_net(Net::new(universe));
        let machine = |name: &str| Machine::new(name, universe, Link::new(name));
        let journal = stock.map(|stock| stock.journal.as_slice());
        let host = Host::new(machine("host"), machine("workshop"), universe, journal);
        let kept = stock.map(|stock| &stock.relay);
        let relay = PlayedRelay::new(machine("relay"), universe, kept).await;
        let mut run = Self {
            universe: Arc::clone(universe),
            host,
            relay,
            devices: Vec::new(),
            oracle: Oracle::new(universe),
            tower: machine("tower").boot(),
            due: BTreeMap::new(),
            next_due: 0,
            next_text: 0,
        };
        run.relay.boot();
        run.host.boot();
        run.wait(200).await;
        for image in stock.map_or(&[][..], |stock| &stock.devices) {
            let mut device = run.device(Some(image)).await;
            device.boot();
            run.devices.push(device);
        }
        run
    }

    async fn begin_sessions(&mut self, sessions: usize) {
        for _ in 0..sessions {
            let text = self.text();
            drop(self.host.front.wish(self.start(text)).await);
        }
        self.wait(3_000).await;
        self.check().await;
        let is_blind = |device: &Device| hold(&device.shown).fleet.is_none();
        if self.oracle.sessions.len() != sessions || self.devices.iter().any(is_blind) {
            let promise = "nothing went wrong, and yet it did not begin".to_owned();
            self.universe.broken(promise);
        }
    }

    async fn play(&mut self, plan: &Plan) {
        for step in &plan.steps {
            if self.universe.is_broken() {
                return;
            }
            self.wait(step.wait).await;
            self.universe.note(&format!("{step:?}"));
            self.act(step).await;
            self.check().await;
        }
        if !self.universe.is_broken() {
            self.rest().await;
        }
    }

    async fn check(&mut self) {
        let check = self.oracle.check(&self.host, &self.devices);
        farhelm_world::within(Arc::clone(&self.tower) as Arc<dyn World>, check).await;
    }

    /// Lets time pass.
    async fn wait(&mut self, millis: u64) {
        let until = self.universe.passed() + millis;
        loop {
            self.look_after();
            let now = self.universe.passed();
            let mut next = until.min(now + SLICE);
            if let Some(((at, _), _)) = self.due.first_key_value() {
                next = next.min(*at);
            }
            if next > now {
                tokio::time::sleep(Duration::from_millis(next - now)).await;
            } else {
                tokio::task::yield_now().await;
            }
            self.ends();
            if self.universe.passed() >= until {
                return;
            }
        }
    }

    /// What is over ends.
    fn ends(&mut self) {
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > self.universe.passed() {
                return;
            }
            let due = entry.remove();
            self.universe.note(&format!("{due:?}"));
            match due {
                Due::Boot(who) => self.boot(who),
                Due::Wake(who) => self.machine(who).sleep(false),
                Due::Room(who) => self.machine(who).set_full(false),
                Due::Open(link) => self.link(link).set_held(false),
                Due::Fast(link) => self.link(link).set_delay(1, 30),
            }
        }
    }

    fn later(&mut self, millis: u64, due: Due) {
        self.next_due += 1;
        let at = self.universe.passed() + millis;
        self.due.insert((at, self.next_due), due);
    }

    /// Machines that crashed by themselves are started again after a while.
    fn look_after(&mut self) {
        let all: Vec<Who> = self.everybody().collect();
        for who in all {
            let is_coming = |due: &Due| matches!(due, Due::Boot(other) if *other == who);
            if self.machine(who).is_up() || self.due.values().any(is_coming) {
                continue;
            }
            if who == Who::Relay {
                self.universe.net().set_door(None);
            }
            let millis = self.universe.chance(|chance| {
                let most = if chance.once_in(3) { 30_000 } else { 1_000 };
                chance.below(most)
            });
            self.later(millis, Due::Boot(who));
        }
    }

    fn everybody(&self) -> impl Iterator<Item = Who> + use<> {
        let devices = (0..self.devices.len()).map(Who::Device);
        [Who::Host, Who::Relay].into_iter().chain(devices)
    }

    fn machine(&self, who: Who) -> &Arc<Machine> {
        match who {
            Who::Host => &self.host.machine,
            Who::Relay => &self.relay.machine,
            Who::Device(device) => &self.devices[device].machine,
        }
    }

    fn boot(&mut self, who: Who) {
        if self.machine(who).is_up() {
            return;
        }
        match who {
            Who::Host => self.host.boot(),
            Who::Relay => self.relay.boot(),
            Who::Device(device) => self.devices[device].boot(),
        }
    }

    fn crash(&mut self, who: Who, place: &str, down: u64) {
        if who == Who::Relay {
            self.relay.crash(place);
        } else {
            self.machine(who).crash(place);
        }
        self.later(down, Due::Boot(who));
    }

    fn who(&self, number: usize) -> Who {
        match number % (self.devices.len() + 4) {
            0 | 1 => Who::Host,
            2 | 3 => Who::Relay,
            device => Who::Device(device - 4),
        }
    }

    /// Link 0 is the host's.
    fn link(&self, number: usize) -> &Arc<Link> {
        match number % (self.devices.len() + 1) {
            0 => &self.host.machine.link,
            device => &self.devices[device - 1].machine.link,
        }
    }

    fn session(&self, number: usize) -> Option<SessionId> {
        let sessions = &self.oracle.sessions;
        (!sessions.is_empty()).then(|| sessions[number % sessions.len()])
    }

    fn text(&mut self) -> String {
        self.next_text += 1;
        format!("please {} {}", self.universe.canary, self.next_text)
    }

    fn start(&self, prompt: String) -> Command {
        Command::StartSession {
            dir: "/tmp".to_owned(),
            agent: Some("played".to_owned()),
            prompt: Some(prompt),
        }
    }

    async fn act(&mut self, step: &Step) {
        let Step {
            act,
            whom,
            what,
            much,
            ..
        } = *step;
        match act {
            Act::Prompt
            | Act::PromptSoon
            | Act::Withdraw
            | Act::Decide
            | Act::Cancel
            | Act::Rename
            | Act::Resume
            | Act::End
            | Act::Start
            | Act::Revoke => self.act_of_device(step),
            Act::DecideWrong => self.decide(whom, what, much, true),
            Act::DecideTwice => {
                for (device, option) in [(whom, 0), (whom + 1, 2)] {
                    self.decide(device, what, option, false);
                }
            }
            Act::PromptHere => {
                let text = self.text();
                if let Some(session) = self.session(what) {
                    self.here(Command::Prompt { session, text });
                }
            }
            Act::DecideHere => {
                let decision = self.session(what).and_then(|session| {
                    let log = self.oracle.truth.sessions.get(&session.into())?;
                    let mut state = Session::default();
                    log.iter()
                        .for_each(|record| state.apply(record.cause, &record.event));
                    decision(session, &state, whom, much)
                });
                if let Some(decision) = decision {
                    self.here(decision);
                }
            }
            Act::RevokeHere => {
                let peer = self.devices[whom % self.devices.len()].peer;
                self.here(Command::RevokeDevice { peer });
            }
            Act::Pair => {
                if self.devices.len() < MOST_DEVICES {
                    drop(self.pair().await);
                }
            }
            Act::Cut => self.link(whom).cut(),
            Act::Lose => self.link(whom).lose(),
            Act::Hold => {
                self.link(whom).set_held(true);
                self.later(much, Due::Open(whom));
            }
            Act::Slow => {
                self.link(whom).set_delay(much / 2, much);
                self.later(much * 10, Due::Fast(whom));
            }
            Act::Crash => self.crash(self.who(whom), "any place", much),
            Act::CrashAt => self.machine(self.who(whom)).crash_after(much),
            Act::Wipe => {
                self.crash(Who::Relay, "a fire", much);
                self.relay.wipe().await;
            }
            Act::Blackout => {
                self.host.black_out();
                self.crash(Who::Host, "a blackout", much);
            }
            Act::Sleep => {
                let who = self.who(whom);
                self.machine(who).sleep(true);
                self.later(much, Due::Wake(who));
            }
            Act::Skew => {
                let millis = i64::try_from(much / 2).unwrap_or(0);
                let skew = if much % 2 == 1 { -millis } else { millis };
                self.machine(self.who(whom)).set_skew(skew);
            }
            Act::Full => {
                let who = self.who(whom);
                self.machine(who).set_full(true);
                self.later(much, Due::Room(who));
            }
            Act::Kill => {
                if let Some(session) = self.session(what) {
                    self.host.keep.kill(session);
                }
            }
        }
    }

    fn act_of_device(&mut self, step: &Step) {
        let Step {
            act,
            whom,
            what,
            much,
            ..
        } = *step;
        let text = self.text();
        let device = &self.devices[whom % self.devices.len()];
        let session = {
            let shown = hold(&device.shown);
            let known: Vec<SessionId> = shown.sessions.keys().copied().collect();
            (!known.is_empty()).then(|| known[what % known.len()])
        };
        let Some(session) = session else { return };
        let within = if act == Act::PromptSoon { much } else { 0 };
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others are no device's")]
        let command = match act {
            Act::Prompt | Act::PromptSoon => Command::Prompt { session, text },
            Act::Withdraw => {
                let shown = hold(&device.shown);
                let queue = shown.sessions.get(&session).map(|open| &open.state.queue);
                let Some(queued) = queue.and_then(|queue| queue.first()) else {
                    return;
                };
                let prompt = queued.prompt;
                Command::WithdrawPrompt { session, prompt }
            }
            Act::Decide => {
                self.decide(whom, what, much, false);
                return;
            }
            Act::Cancel => Command::CancelTurn { session },
            Act::Rename => Command::Rename {
                session,
                title: text,
            },
            Act::Resume => Command::ResumeAgent { session },
            Act::End => Command::EndSession { session },
            Act::Start => self.start(text),
            Act::Revoke => Command::RevokeDevice {
                peer: self.devices[what % self.devices.len()].peer,
            },
            _ => return,
        };
        self.devices[whom % self.devices.len()].send(command, within);
    }

    /// A device answers a question that it shows.
    fn decide(&self, whom: usize, what: usize, much: u64, is_wrong: bool) {
        let device = &self.devices[whom % self.devices.len()];
        let decision = {
            let shown = hold(&device.shown);
            let asking: Vec<(SessionId, &Session)> = shown
                .sessions
                .iter()
                .map(|(id, open)| (*id, &open.state))
                .filter(|(_, state)| pending(state).next().is_some())
                .collect();
            if asking.is_empty() {
                return;
            }
            let (session, state) = asking[what % asking.len()];
            decision(session, state, what, much)
        };
        if let Some(mut decision) = decision {
            if let Command::DecideApproval { digest, .. } = &mut decision
                && is_wrong
            {
                *digest = "0".repeat(64);
            }
            device.send(decision, 0);
        }
    }

    /// Somebody at the host wants something, and does not wait for it.
    fn here(&self, command: Command) {
        let front = self.host.front.clone();
        drop(tokio::spawn(async move { front.wish(command).await }));
    }

    /// Begins to pair a device more.
    async fn pair(&mut self) -> tokio::task::JoinHandle<()> {
        let mut device = self.device(None).await;
        device.boot();
        let pairing = pair(
            self.host.front.clone(),
            device.machine.name.clone(),
            Arc::clone(&device.shown),
            device.wants(),
            Arc::clone(&self.universe),
        );
        self.devices.push(device);
        tokio::spawn(pairing)
    }

    async fn device(&self, image: Option<&[u8]>) -> Device {
        let name = format!("device{}", self.devices.len());
        let machine = Machine::new(name.as_str(), &self.universe, Link::new(name.as_str()));
        Device::new(machine, &self.universe, image).await
    }
}

/// What two people do who pair a device.
async fn pair(
    front: Front,
    name: String,
    shown: Arc<std::sync::Mutex<crate::device::Shown>>,
    wants: crate::device::Wants,
    universe: Arc<Universe>,
) {
    let Some(Outcome::Applied {
        made: Some(link), ..
    }) = front.wish(Command::OpenPairing {}).await
    else {
        return;
    };
    wants.pair(link);
    for _ in 0..PAIRING {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let Some(code) = hold(&shown).code.clone() else {
            continue;
        };
        let Some(fleet) = front.fleet() else { continue };
        let waiting = fleet
            .waiting
            .iter()
            .find(|(_, waiting)| waiting.name.starts_with(&name));
        let Some((offer, waiting)) = waiting else {
            continue;
        };
        if waiting.code != code {
            universe.broken(format!("{name} shows another code than the host"));
        }
        let accept = Command::SettlePairing {
            offer: *offer,
            accept: true,
        };
        if front.wish(accept).await.is_some() {
            return;
        }
    }
}

/// Questions that nobody has answered.
fn pending(state: &Session) -> impl Iterator<Item = (ApprovalId, &str)> {
    let open = state.approvals.iter();
    open.filter(|(_, approval)| approval.decided.is_none())
        .map(|(id, approval)| (*id, approval.ask.as_str()))
}

/// An answer to one of a session's questions.
fn decision(session: SessionId, state: &Session, which: usize, much: u64) -> Option<Command> {
    let open: Vec<_> = pending(state).collect();
    if open.is_empty() {
        return None;
    }
    let (approval, ask) = open[which % open.len()];
    let (option, allows) =
        [("yes", true), ("always", true), ("no", false)][usize::try_from(much % 3).unwrap_or(0)];
    Some(Command::DecideApproval {
        session,
        approval,
        digest: digest(ask),
        verdict: Verdict::Selected {
            option: option.to_owned(),
            allows,
            reason: None,
        },
    })
}

/// Time passes in pieces of so many milliseconds, between which machines are looked after.
const SLICE: u64 = 500;
/// Devices of one run at most.
const MOST_DEVICES: usize = 5;
/// Tenths of a second that people have patience for when they pair a device.
const PAIRING: u32 = 600;
