//! The scripted agent and small shell programs, played with as a session would.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farhelm_core::agent::{Order, Said};
use farhelm_core::ask::{Ask, Verdict};
use farhelm_core::content::Content;
use farhelm_core::event::StopReason;
use farhelm_host::agents::acp::Setup;
use farhelm_host::agents::{Conversation, Deed, Interpreter, files};
use farhelm_host::keeper::{Heard, Keepers as _, Kept, Start, Told};
use serde_json::{Value, json};

/// A session's folder, something beside it, and a scenario.
pub(crate) struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(scenario: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["dir", "outside"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("scenario.json"), scenario.to_string()).unwrap();
        Self { folder }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("dir")
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// This very program again, as the agent.
    pub(crate) fn spec(&self) -> Start {
        let program = std::env::current_exe().unwrap();
        let mut spec = shell_spec(
            &self.dir(),
            "exec 3>&1 >/dev/null; exec \"$0\" --exact the_scripted_agent --nocapture",
        );
        spec.args.push(program.display().to_string());
        let path = |name: &str| self.folder.path().join(name).into_os_string();
        spec.env
            .push(("FARHELM_SCRIPTED_SCENARIO".into(), path("scenario.json")));
        spec.env
            .push(("FARHELM_SCRIPTED_STATE".into(), path("state")));
        spec
    }
}

pub(crate) fn shell_spec(dir: &Path, script: &str) -> Start {
    let path = std::env::var_os("PATH").map(|path| (OsString::from("PATH"), path));
    Start {
        args: vec!["-c".to_owned(), script.to_owned()],
        env: path.into_iter().collect(),
        ..super::start("/bin/sh", dir)
    }
}

/// An agent, held by a keeper and interpreted as a session would, and what it has said so far.
pub(crate) struct Playing {
    pub(crate) kept: Kept,
    interpreter: Interpreter,
    said: VecDeque<Said>,
    lines: u64,
    until: Option<tokio::time::Instant>,
    pub(crate) told: Vec<Said>,
    dir: PathBuf,
    pub(crate) world: Option<World>,
    end: Option<(Option<i32>, Option<i32>, String)>,
    _home: super::Home,
}

impl Playing {
    /// The scripted agent with these turns, started.
    pub(crate) async fn start(turns: &Value) -> Self {
        let world = World::new(&json!({"scenarios": {"default": turns}}));
        let mut playing = Self::begin(&world, Conversation::New).await;
        playing.world = Some(world);
        playing.started().await;
        playing
    }

    pub(crate) async fn begin(world: &World, conversation: Conversation) -> Self {
        Self::of(world.spec(), world.dir(), conversation).await
    }

    pub(crate) async fn shell(script: &str) -> Self {
        let world = World::new(&json!({}));
        let spec = shell_spec(&world.dir(), script);
        let mut playing = Self::of(spec, world.dir(), Conversation::New).await;
        playing.world = Some(world);
        playing
    }

    pub(crate) async fn of(spec: Start, dir: PathBuf, conversation: Conversation) -> Self {
        let setup = Setup {
            dir: dir.display().to_string(),
            conversation,
            mode: None,
            files: true,
        };
        Self::with(spec, Interpreter::acp(setup)).await
    }

    pub(crate) async fn with(spec: Start, interpreter: Interpreter) -> Self {
        let home = super::Home::new();
        let dir = spec.dir.clone();
        let kept = home.keepers(1).start(spec).await.unwrap();
        let mut playing = Self {
            kept,
            interpreter,
            said: VecDeque::new(),
            lines: 0,
            until: None,
            told: Vec::new(),
            dir,
            world: None,
            end: None,
            _home: home,
        };
        playing.tell(Told::Hear { after: 0 });
        let deeds = playing.interpreter.begin();
        playing.carry_out(deeds);
        playing
    }

    pub(crate) fn tell(&self, told: Told) {
        // Whoever has ended cannot be told any more.
        drop(self.kept.told.try_send(told));
    }

    pub(crate) fn carry_out(&mut self, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                Deed::Say(said) => self.said.push_back(said),
                Deed::Write(line) => {
                    self.lines += 1;
                    self.tell(Told::Write {
                        number: self.lines,
                        line: line.get().to_owned(),
                    });
                }
                Deed::File { ticket, work } => {
                    let outcome = files::perform(&self.dir, &work);
                    let deeds = self.interpreter.filed(ticket, outcome);
                    self.carry_out(deeds);
                }
                Deed::End { at_once } => self.tell(Told::End { at_once }),
            }
        }
    }

    pub(crate) fn stop(&mut self) {
        let deeds = self.interpreter.dismiss();
        self.carry_out(deeds);
    }

    /// The agent has very little time left to come up.
    pub(crate) fn lose_patience(&mut self) {
        self.until = Some(tokio::time::Instant::now() + Duration::from_millis(50));
    }

    pub(crate) fn hear(&mut self, heard: Heard) {
        let deeds = match heard {
            Heard::Line { number, line } => {
                self.tell(Told::Acknowledge { through: number });
                self.interpreter.line(&line)
            }
            Heard::Part { .. } => Vec::new(),
            Heard::LongLine { number, line, .. } => {
                self.tell(Told::Acknowledge { through: number });
                self.interpreter.long_line(&line)
            }
            Heard::TooLong { number: _, bytes } => self.interpreter.too_long(bytes),
            Heard::Silent { .. } => self.interpreter.silent(),
            Heard::Written { .. } => Vec::new(),
            Heard::Ended { number, end } => {
                self.said.extend(self.interpreter.ended(&end));
                self.end = Some((end.code, end.signal, end.stderr));
                self.tell(Told::Acknowledge { through: number });
                Vec::new()
            }
            Heard::Cut | Heard::Superseded => panic!("the keeper went: {heard:?}"),
        };
        self.carry_out(deeds);
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn order(&mut self, order: Order) {
        let deeds = self.interpreter.obey(order);
        self.carry_out(deeds);
    }

    pub(crate) fn prompt(&mut self, text: &str) {
        self.told.clear();
        self.order(Order::Prompt {
            id: "prm_1".to_owned(),
            text: text.to_owned(),
        });
    }

    pub(crate) fn answer(&mut self, request: String, ask: Ask, option: &str) {
        let allows = ask
            .options
            .iter()
            .find(|choice| choice.id == option)
            .unwrap()
            .kind
            .allows();
        let verdict = Verdict::Selected {
            option: option.to_owned(),
            allows,
            reason: None,
        };
        self.order(Order::Answer {
            request,
            ask,
            verdict,
        });
    }

    /// The next thing said, remembered; nothing after the end.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(said) = self.said.pop_front() {
                self.told.push(said.clone());
                return Some(said);
            }
            if self.end.is_some() {
                return None;
            }
            let patience = tokio::time::Instant::now() + Duration::from_secs(60);
            let until = self.until.unwrap_or(patience);
            match tokio::time::timeout_at(until, self.kept.heard.recv()).await {
                Ok(Some(heard)) => self.hear(heard),
                Ok(None) => return None,
                Err(_) if self.until.take().is_some() => {
                    let deeds = self.interpreter.late(Duration::from_millis(50));
                    self.carry_out(deeds);
                }
                Err(_) => panic!("nothing more was said after {:?}", self.told),
            }
        }
    }

    pub(crate) async fn until(&mut self, wanted: impl Fn(&Said) -> bool) -> Said {
        loop {
            match self.next().await {
                Some(said) if wanted(&said) => return said,
                Some(_) => {}
                None => panic!("it ended: {:?} after {:?}", self.end, self.told),
            }
        }
    }

    pub(crate) async fn started(&mut self) -> Option<String> {
        match self
            .until(|said| matches!(said, Said::Started { .. }))
            .await
        {
            Said::Started { agent_session, .. } => agent_session,
            _ => unreachable!(),
        }
    }

    pub(crate) async fn asks(&mut self) -> (String, Ask) {
        match self.until(|said| matches!(said, Said::Asks { .. })).await {
            Said::Asks { request, ask } => (request, ask),
            _ => unreachable!(),
        }
    }

    pub(crate) async fn turn_ended(&mut self) -> StopReason {
        match self
            .until(|said| matches!(said, Said::TurnEnded { .. }))
            .await
        {
            Said::TurnEnded { reason, .. } => reason,
            _ => unreachable!(),
        }
    }

    pub(crate) async fn exited(&mut self) -> (Option<i32>, Option<i32>, String) {
        while self.next().await.is_some() {}
        self.end.clone().unwrap()
    }

    /// The agent's words in this turn.
    pub(crate) fn text(&self) -> String {
        self.told
            .iter()
            .filter_map(|said| match said {
                Said::Delta {
                    content: Content::Text { text },
                    ..
                } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }
}

impl Drop for Playing {
    /// An agent outlives who follows it, but not the test.
    fn drop(&mut self) {
        if self.end.is_none() {
            super::kill_group(self.kept.standing.pid);
        }
    }
}
