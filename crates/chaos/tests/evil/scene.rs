//! One host, two devices and a session, at an evil relay that has seen everything.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use farhelm_chaos::chance::{Chance, seed};
use farhelm_chaos::device::Device;
use farhelm_chaos::evil::Evil;
use farhelm_chaos::world::{Session, World, farhelm, until};
use farhelm_proto::{Code, PeerId};
use serde_json::json;

pub(crate) struct Scene {
    pub(crate) evil: Evil,
    pub(crate) world: World,
    pub(crate) phone: Device,
    pub(crate) tablet: Device,
    pub(crate) session: Session,
    pub(crate) chance: Chance,
    pub(crate) prompts: usize,
}

impl Scene {
    /// Both devices have prompted and answered, and all is well.
    pub(crate) async fn set() -> anyhow::Result<Self> {
        let (evil, world) = Evil::start(&farhelm()?, seed()).await?;
        let turns = json!([[
            {"do": "text", "text": "working on {prompt}"},
            {"do": "ask", "call": {"title": "may {prompt} happen?", "kind": "execute", "rawInput": {"command": "true"}}},
        ]]);
        let session = world.session(&turns).await?;
        let (phone, tablet) = (world.device("phone").await?, world.device("tablet").await?);
        let chance = Chance::new(world.seed);
        let mut scene = Self {
            evil,
            world,
            phone,
            tablet,
            session,
            chance,
            prompts: 0,
        };
        scene.turn().await?;
        scene.turn().await?;
        scene.all_is_well().await?;
        Ok(scene)
    }

    pub(crate) fn host(&self) -> PeerId {
        self.phone.host.peer()
    }

    /// One more turn, prompted from the phone and answered from the tablet.
    pub(crate) async fn turn(&mut self) -> anyhow::Result<()> {
        let text = format!("m{}", self.prompts);
        self.prompts += 1;
        self.phone.prompt(self.session.id, &text).await?;
        let mut chance = self.chance.fork();
        // The answers before were given; they are refused, which is no effect.
        self.tablet
            .answer_until(self.session.id, self.prompts, &mut chance)
            .await
    }

    /// A prompt that was sent before arrives, and its turn is answered.
    pub(crate) async fn arrived(&mut self, prompt: &str) -> anyhow::Result<()> {
        ensure!(prompt == format!("m{}", self.prompts), "the next one");
        self.prompts += 1;
        let mut chance = self.chance.fork();
        self.tablet
            .answer_until(self.session.id, self.prompts, &mut chance)
            .await
    }

    /// Nothing had an effect but what the devices wished, once, and everybody shows the same.
    pub(crate) async fn all_is_well(&self) -> anyhow::Result<()> {
        let verdict = self
            .world
            .judge(&self.session, &[&self.phone, &self.tablet])
            .await?;
        ensure!(verdict.is_clean(), "{verdict:#?}");
        let heard = self.session.agent().heard;
        let sent: Vec<String> = (0..self.prompts)
            .map(|number| format!("m{number}"))
            .collect();
        ensure!(heard == sent, "the agent heard {heard:?}");
        let log = self.world.host_log(&self.session).await?;
        for kind in ["prompt_queued", "approval_decided", "turn_ended"] {
            let count = log
                .iter()
                .filter(|record| record["event"]["type"] == kind)
                .count();
            ensure!(
                count == self.prompts,
                "{count} of {kind} for {} prompts",
                self.prompts
            );
        }
        Ok(())
    }

    /// Waits until everything that was injected was read: a wish of the phone has gone there and back.
    pub(crate) async fn quiet(&mut self) -> anyhow::Result<()> {
        self.connected().await?;
        self.turn().await
    }

    /// The alarm that a device gives about the host's log; `again` is done until it does.
    pub(crate) async fn alarm(&self, device: &Device, again: impl Fn()) -> anyhow::Result<Code> {
        let found = std::cell::Cell::new(None);
        until(&format!("{} gives an alarm", device.name), async || {
            again();
            let alarm = device.client().fleet().await.err();
            found.set(alarm.map(|alarm| alarm.code));
            found.get().is_some()
        })
        .await?;
        found.get().context("an alarm")
    }

    /// Waits until everybody is connected.
    pub(crate) async fn connected(&self) -> anyhow::Result<()> {
        let peers = [self.host(), self.phone.me, self.tablet.me];
        until("everybody is connected", async || {
            peers.iter().all(|peer| self.evil.has(*peer))
        })
        .await
    }

    /// Cuts every connection, and waits until all are back.
    pub(crate) async fn reconnect(&self) -> anyhow::Result<()> {
        let (before, after) = (
            self.opened(),
            [&self.world.host_road, &self.world.device_road],
        );
        after.iter().for_each(|road| road.cut());
        until("everybody is back", async || self.opened() >= before + 3).await?;
        self.connected().await
    }

    fn opened(&self) -> u64 {
        self.world.host_road.opened() + self.world.device_road.opened()
    }

    pub(crate) async fn end(self) {
        self.world.end().await;
        self.evil.end().await;
    }
}

/// What a command says, also when it says it by failing.
pub(crate) async fn says(scene: &Scene, command: &str) -> String {
    match scene.world.cli(&[command]).await {
        Ok(lines) => serde_json::Value::from(lines).to_string(),
        Err(error) => error.to_string(),
    }
}

/// What a person is told within five seconds.
pub(crate) const NOTICED: Duration = Duration::from_secs(5);
