//! How a conversation with an ACP agent is opened, up to the point where the session may go ahead.

use super::{
    About, Acp, Code, Conversation, Opening, Purpose, RpcError, Said, State, Step, Value, json,
    list, notice, owned, rpc, text,
};

impl Acp {
    pub(super) fn initialized(&mut self, result: &Value) -> Vec<Step> {
        // Some write it as a text, some leave it out.
        let version = result
            .get("protocolVersion")
            .filter(|version| !version.is_null());
        if let Some(version) = version.filter(|version| !is_version_1(version)) {
            let text = format!(
                "the agent speaks version {version} of the protocol, not 1; another version of it may"
            );
            return self.fail(Code::AgentRefused, text);
        }
        let info = result.get("agentInfo").unwrap_or(&Value::Null);
        let capabilities = result.get("agentCapabilities").unwrap_or(&Value::Null);
        let resume = capabilities.pointer("/sessionCapabilities/resume");
        self.about = About {
            name: owned(info, "title")
                .or_else(|| owned(info, "name"))
                .unwrap_or_else(|| "agent".to_owned()),
            version: owned(info, "version"),
            can_load: capabilities
                .get("loadSession")
                .and_then(Value::as_bool)
                .unwrap_or_default(),
            can_resume: resume
                .is_some_and(|resume| !resume.is_null() && *resume != Value::Bool(false)),
            logins: list(result, "authMethods")
                .iter()
                .filter_map(|method| owned(method, "name"))
                .collect(),
        };
        self.settings.agent = [text(info, "name"), text(info, "title")]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ");
        let resuming = matches!(self.setup.conversation, Conversation::Continue(_));
        if resuming && self.about.can_resume {
            vec![self.open(Opening::Resume)]
        } else if resuming && self.about.can_load {
            vec![self.open(Opening::Load)]
        } else if resuming {
            let text = "this agent cannot continue an earlier conversation; it begins a new one"
                .to_owned();
            vec![notice(Code::AgentRefused, text), self.open(Opening::New)]
        } else {
            vec![self.open(Opening::New)]
        }
    }

    pub(super) fn open(&mut self, opening: Opening) -> Step {
        let mut params = json!({"cwd": self.setup.dir, "mcpServers": []});
        let method = match opening {
            Opening::New => "session/new",
            Opening::Resume => "session/resume",
            Opening::Load => "session/load",
        };
        if let (Opening::Resume | Opening::Load, Conversation::Continue(session)) =
            (opening, &self.setup.conversation)
        {
            params["sessionId"] = json!(session);
            self.session.clone_from(session);
        }
        self.state = if opening == Opening::Load {
            State::Loading
        } else {
            State::Starting
        };
        self.peer.request(method, &params, Purpose::Open(opening))
    }

    pub(super) fn opened(&mut self, opening: Opening, result: &Value) -> Vec<Step> {
        if let Some(session) = owned(result, "sessionId") {
            self.session = session;
        }
        if self.session.is_empty() {
            return self.fail(
                Code::AgentRefused,
                "the agent opened a conversation without a name".to_owned(),
            );
        }
        self.resumed = opening != Opening::New;
        if opening == Opening::Load {
            self.state = State::Loaded;
        }
        self.settings.offered(result);
        match self.settings.first_mode(self.setup.mode.as_deref()) {
            Some(mode) => match self.settings.mode_request(&self.session, &mode) {
                Some((method, params)) => {
                    vec![self.peer.request(method, &params, Purpose::FirstMode(mode))]
                }
                None => self.start(),
            },
            None => self.start(),
        }
    }

    pub(super) fn not_opened(&mut self, opening: Opening, error: &RpcError) -> Vec<Step> {
        if error.code == rpc::AUTH_REQUIRED {
            return self.login_needed(error);
        }
        if opening == Opening::New {
            return self.fail(Code::AgentRefused, error.describe());
        }
        // Some agents announce one way and only serve the other.
        if opening == Opening::Resume && self.about.can_load {
            return vec![self.open(Opening::Load)];
        }
        let text = format!(
            "the earlier conversation could not be continued; a new one begins: {}",
            error.describe()
        );
        self.session.clear();
        vec![notice(Code::AgentRefused, text), self.open(Opening::New)]
    }

    pub(super) fn login_needed(&mut self, error: &RpcError) -> Vec<Step> {
        let ways = match self.about.logins.as_slice() {
            [] => String::new(),
            logins => format!("; it offers: {}", logins.join(", ")),
        };
        self.fail(
            Code::AgentLoginNeeded,
            format!("{}{ways}", error.describe()),
        )
    }

    pub(super) fn fail(&mut self, code: Code, text: String) -> Vec<Step> {
        self.state = State::Failed;
        vec![Step::Say(Said::StartFailed { code, text })]
    }

    /// Everything is as it should be; the session may go ahead.
    pub(super) fn start(&mut self) -> Vec<Step> {
        if matches!(self.state, State::Starting) {
            self.state = State::Idle;
        }
        let started = Said::Started {
            agent_session: Some(self.session.clone()),
            name: self.about.name.clone(),
            version: self.about.version.clone(),
            dialect: "acp",
            resumed: self.resumed,
        };
        [Some(started), self.settings.modes(), self.settings.config()]
            .into_iter()
            .flatten()
            .map(Step::Say)
            .collect()
    }
}

fn is_version_1(version: &Value) -> bool {
    version.as_u64() == Some(1)
        || version
            .as_str()
            .is_some_and(|version| version.split('.').next() == Some("1"))
}
