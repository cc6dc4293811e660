//! What went wrong, as a person and a script are told.

use farhelm_core::command::Rejection;
use farhelm_host::daemon::DaemonError;
use farhelm_host::home::HomeError;
use farhelm_host::journal::JournalError;
use farhelm_host::local::LocalError;
use farhelm_link::device::DeviceError;
use farhelm_proto::{Code, CommandId};

/// A failure with what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// The wish that is kept here nevertheless, and will be sent.
    pub(crate) kept: Option<CommandId>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            kept: None,
        }
    }

    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(Code::Internal, message.to_string())
    }

    /// The same, about a wish that is kept here and will be sent.
    pub(crate) fn keeping(self, id: CommandId) -> Self {
        Self {
            kept: Some(id),
            ..self
        }
    }

    /// Whether it is about the way to the host, and passes when that is there again.
    pub(crate) const fn may_pass(&self) -> bool {
        self.exit_code() == 3 && !matches!(self.code, Code::NotRunning)
    }

    /// 1 cannot, 3 unreachable, 5 kept here and not sent yet, 4 denied, 70 our bug. (2, usage, is said by the parser.)
    pub(crate) const fn exit_code(&self) -> u8 {
        use Code::{
            BadProof, CaptivePortal, Forbidden, HostOffline, HostSilent, Intercepted, Internal,
            NotARelay, NotAllowed, NotPaired, NotRunning, PairingRefused, RelaySilent,
            RelayUnreachable, Restarting, Revoked, Timeout,
        };
        if self.kept.is_some() {
            5
        } else if matches!(
            self.code,
            RelayUnreachable
                | RelaySilent
                | HostOffline
                | HostSilent
                | NotRunning
                | Timeout
                | Restarting
                | CaptivePortal
                | Intercepted
                | NotARelay
        ) {
            3
        } else if matches!(
            self.code,
            Forbidden | Revoked | NotAllowed | PairingRefused | BadProof | NotPaired
        ) {
            4
        } else if matches!(self.code, Internal) {
            70
        } else {
            1
        }
    }

    /// What to do, where the message does not say it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        let (_, advice) = self.code.sentence().split_once("; ")?;
        (!self.message.contains(advice) && self.code != Code::Internal).then_some(advice)
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::new(rejection.code, rejection.text)
    }
}

impl From<LocalError> for Failure {
    fn from(error: LocalError) -> Self {
        Self::new(error.code, error.text)
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Self::new(error.code, error.text)
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        Self::new(error.code, error.text)
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let code = error.code();
        let is_damaged = code == Code::StateUnusable && !matches!(error, JournalError::Version(_));
        let advice = if is_damaged {
            "; restore the state folder from a copy, or move it away to begin anew"
        } else {
            ""
        };
        Self::new(code, format!("{error}{advice}"))
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Home(error) => error.into(),
            DaemonError::Journal(error) => error.into(),
            DaemonError::Socket(error) => {
                Self::new(Code::StateUnusable, format!("local socket: {error}"))
            }
        }
    }
}
