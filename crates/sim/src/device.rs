//! A device that is played: the real client and store, and a person's little app over it, which
//! shows what it is told and writes down what it has shown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farhelm_core::command::Command;
use farhelm_core::event::Record;
use farhelm_core::session::Session;
use farhelm_link::clock;
use farhelm_link::device::{
    Client, DeviceError, FleetView, KnownHost, LogItem, Patience, Stage, Store, pair_within,
};
use farhelm_proto::{Code, CommandId, PeerId, SessionId, Timestamp};
use tokio::sync::mpsc;

use crate::machine::{Life, Machine};
use crate::universe::Universe;

/// A device, across its crashes.
pub struct Device {
    /// The machine that it is.
    pub machine: Arc<Machine>,
    /// Its id.
    pub peer: PeerId,
    /// What lasts.
    pub store: Store,
    /// What it shows.
    pub shown: Arc<Mutex<Shown>>,
    universe: Arc<Universe>,
    life: Option<Arc<Life>>,
    wants: Option<mpsc::UnboundedSender<Want>>,
}

/// What a person saw on a device.
#[derive(Default)]
pub struct Shown {
    /// Events of sessions, in the order in which they were shown since the app was started.
    pub sessions: BTreeMap<SessionId, Open>,
    /// What there is on the host.
    pub fleet: Option<FleetView>,
    /// What the person wanted, also before the app was started.
    pub wishes: BTreeMap<CommandId, Wish>,
    /// The code of a pairing under way.
    pub code: Option<String>,
    /// What the app complained about last.
    pub complaint: Option<DeviceError>,
}

/// A session as a device shows it.
#[derive(Default)]
pub struct Open {
    /// Its events.
    pub records: Vec<Record>,
    /// Their outcome.
    pub state: Session,
    /// How many of them were compared with the truth.
    pub checked: usize,
}

/// Something that a person wanted.
#[derive(Debug)]
pub struct Wish {
    /// What.
    pub command: Command,
    /// How far it was shown to have come, in the order in which it was.
    pub stages: Vec<Stage>,
    /// When, on the true clock.
    pub made: u64,
    /// After this, on the device's clock, it is not to be done any more; zero means never.
    pub not_after: Timestamp,
}

/// What a person does at a device.
#[derive(Debug)]
enum Want {
    Send { command: Command, within: u64 },
    Pair { link: String },
}

impl Device {
    /// A device that is off, with a store that begins with an image, or belongs to nobody.
    ///
    /// # Panics
    ///
    /// When there is no memory for its store.
    pub async fn new(
        machine: Arc<Machine>,
        universe: &Arc<Universe>,
        image: Option<&[u8]>,
    ) -> Self {
        let store = Store::in_memory(image).expect("memory");
        let (life, fresh) = (machine.boot(), store.clone());
        let identity = life.run(async move { fresh.identity() }).await;
        let identity = identity.expect("nothing is wrong yet").expect("memory");
        machine.crash("its factory");
        Self {
            machine,
            peer: identity.peer(),
            store,
            shown: Arc::default(),
            universe: Arc::clone(universe),
            life: None,
            wants: None,
        }
    }

    /// Turns it on and starts the app.
    pub fn boot(&mut self) {
        let life = self.machine.boot();
        let (wants, wanted) = mpsc::unbounded_channel();
        {
            let mut shown = hold(&self.shown);
            shown.sessions.clear();
            shown.fleet = None;
            shown.code = None;
        }
        let app = App {
            name: self.machine.name.clone(),
            store: self.store.clone(),
            shown: Arc::clone(&self.shown),
            universe: Arc::clone(&self.universe),
            canary: self.universe.canary.clone(),
        };
        drop(life.run(app.run(wanted)));
        self.life = Some(life);
        self.wants = Some(wants);
    }

    /// Wants something, not later than `within` milliseconds from now; zero means whenever.
    pub fn send(&self, command: Command, within: u64) {
        self.want(Want::Send { command, within });
    }

    /// What its person has in hand.
    #[must_use]
    pub fn wants(&self) -> Wants {
        Wants(self.wants.clone())
    }

    fn want(&self, want: Want) {
        if let Some(wants) = &self.wants {
            drop(wants.send(want));
        }
    }
}

/// What a person has in hand: the app as it runs.
#[derive(Clone)]
pub struct Wants(Option<mpsc::UnboundedSender<Want>>);

impl Wants {
    /// Uses a pairing link.
    pub fn pair(&self, link: String) {
        if let Some(wants) = &self.0 {
            drop(wants.send(Want::Pair { link }));
        }
    }
}

/// The app, while it runs.
#[derive(Clone)]
struct App {
    name: String,
    store: Store,
    shown: Arc<Mutex<Shown>>,
    universe: Arc<Universe>,
    canary: String,
}

impl App {
    async fn run(self, mut wanted: mpsc::UnboundedReceiver<Want>) {
        let mut client = None;
        if let Ok(Some(host)) = self.store.hosts().map(|hosts| hosts.into_iter().next()) {
            client = self.connect(host).await;
        }
        while let Some(want) = wanted.recv().await {
            match want {
                Want::Send { command, within } => {
                    if let Some(client) = &client {
                        let app = self.clone();
                        let client = Arc::clone(client);
                        drop(farhelm_world::spawn(async move {
                            app.send(&client, command, within).await;
                        }));
                    }
                }
                Want::Pair { link } => {
                    if client.is_none()
                        && let Some(host) = self.pair(&link).await
                    {
                        client = self.connect(host).await;
                    }
                }
            }
        }
    }

    async fn pair(&self, link: &str) -> Option<KnownHost> {
        let patience = Patience {
            relay: Duration::from_secs(20),
            host: Duration::from_secs(30),
            person: Duration::from_secs(60),
        };
        let name = format!("{} {}", self.name, self.canary);
        let shown = Arc::clone(&self.shown);
        let on_code = move |code: &str| hold(&shown).code = Some(code.to_owned());
        match pair_within(patience, &self.store, link, &name, None, on_code).await {
            Ok(host) => Some(host),
            Err(error) => {
                self.complain(error);
                None
            }
        }
    }

    async fn connect(&self, host: KnownHost) -> Option<Arc<Client>> {
        match Client::connect(self.store.clone(), host, None).await {
            Ok(client) => {
                let client = Arc::new(client);
                drop(farhelm_world::spawn(
                    self.clone().watch(Arc::clone(&client)),
                ));
                Some(client)
            }
            Err(error) => {
                self.complain(error);
                None
            }
        }
    }

    /// Looks at the fleet now and then, and opens every session.
    async fn watch(self, client: Arc<Client>) {
        loop {
            match client.fleet_within(Duration::from_secs(10)).await {
                Ok(view) => {
                    let sessions: Vec<SessionId> = view.fleet.sessions.keys().copied().collect();
                    let new: Vec<SessionId> = {
                        let mut shown = hold(&self.shown);
                        shown.fleet = Some(view);
                        let open = &mut shown.sessions;
                        let new = sessions.into_iter().filter(|id| !open.contains_key(id));
                        let new: Vec<_> = new.collect();
                        for id in &new {
                            open.insert(*id, Open::default());
                        }
                        new
                    };
                    for session in new {
                        let follow = self.clone().follow(Arc::clone(&client), session);
                        drop(farhelm_world::spawn(follow));
                    }
                }
                Err(error) => self.complain(error),
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    /// Reads a session's log, for ever.
    async fn follow(self, client: Arc<Client>, session: SessionId) {
        loop {
            let from = {
                let shown = hold(&self.shown);
                let open = shown.sessions.get(&session);
                let last = open.and_then(|open| open.records.last());
                last.map_or(1, |record| record.seq + 1)
            };
            let patience = Duration::from_secs(10);
            let mut items = client.log_within(session, Some(from), true, patience).await;
            while let Some(item) = items.recv().await {
                match item {
                    Ok(LogItem::Record(record)) => self.show(session, *record),
                    Ok(LogItem::Live(_) | LogItem::CaughtUp | LogItem::Limited { .. }) => {}
                    Err(error) => self.complain(error),
                }
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    fn show(&self, session: SessionId, record: Record) {
        let mut shown = hold(&self.shown);
        let Some(open) = shown.sessions.get_mut(&session) else {
            return;
        };
        let next = open.records.last().map_or(1, |last| last.seq + 1);
        if record.seq != next {
            let promise = format!(
                "I4: {} was shown event {} of {session} where {next} should have come",
                self.name, record.seq
            );
            self.universe.broken(promise);
        }
        open.state.apply(record.cause, &record.event);
        open.records.push(record);
    }

    async fn send(&self, client: &Client, command: Command, within: u64) {
        let not_after = match within {
            0 => Timestamp(0),
            within => clock::now().plus_millis(within),
        };
        let sent = match client.send(command.clone(), not_after).await {
            Ok(sent) => sent,
            Err(error) => {
                self.complain(error);
                return;
            }
        };
        let (id, mut stages) = (sent.id, sent.stages);
        let wish = Wish {
            command,
            stages: Vec::new(),
            made: self.universe.passed(),
            not_after,
        };
        if hold(&self.shown).wishes.insert(id, wish).is_some() {
            self.universe.broken(format!("two wishes have the id {id}"));
        }
        while let Some(stage) = stages.recv().await {
            if let Some(wish) = hold(&self.shown).wishes.get_mut(&id) {
                wish.stages.push(stage);
            }
        }
    }

    fn complain(&self, error: DeviceError) {
        if let Code::Tampered | Code::BadSignature | Code::BadSeal = error.code {
            // Nobody does anything of that kind here.
            self.universe
                .broken(format!("{} calls it {}: {error}", self.name, error.code));
        }
        self.universe
            .note(&format!("{}: {} {error}", self.name, error.code));
        hold(&self.shown).complaint = Some(error);
    }
}

pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
