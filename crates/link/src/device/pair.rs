//! The device's side of pairing: see `farhelm_core::pairing` for the ceremony.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farhelm_core::keys::{Identity, from_base64, to_base64};
use farhelm_core::pairing::{self, PairAnswer, PairRequest, clean_name, compare_code};
use farhelm_core::roster::{Entry, Roster};
use farhelm_core::seal::seal_pair_request;
use farhelm_proto::envelope::SUITE;
use farhelm_proto::frame::{Frame, Role};
use farhelm_proto::letter::{Header, Kind, Letter};
use farhelm_proto::limits::OFFER_MILLIS;
use farhelm_proto::{Code, CommandId};
use tokio::time::Instant;

use crate::device::post::{self, Distrust};
use crate::device::{DeviceError, KnownHost, Store};
use crate::driver::{Link, LinkEvent, LinkOptions, WATCHED_MILLIS};
use crate::{clock, rng};

/// How long each step of a pairing may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until the relay is reached.
    pub relay: Duration,
    /// Until the host has answered.
    pub host: Duration,
    /// Until the person at the host has decided.
    pub person: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            relay: Duration::from_secs(8),
            host: Duration::from_secs(30),
            person: Duration::from_millis(2 * OFFER_MILLIS),
        }
    }
}

/// Lets this device be paired by a link. `on_code` is given the code that the host shows, too.
///
/// # Errors
///
/// [`Code::BadLink`], [`Code::LinkExpired`], [`Code::LinkUsed`], [`Code::PairingRefused`],
/// [`Code::RelayUnreachable`], [`Code::HostOffline`], [`Code::Timeout`]; [`Code::BadSignature`]
/// and [`Code::Tampered`] when somebody in between answers in the host's place.
pub async fn pair(
    store: &Store,
    link_url: &str,
    device_name: &str,
    extra_ca: Option<PathBuf>,
    on_code: impl FnOnce(&str) + Send,
) -> Result<KnownHost, DeviceError> {
    pair_within(
        Patience::default(),
        store,
        link_url,
        device_name,
        extra_ca,
        on_code,
    )
    .await
}

/// Like [`pair`], with another patience.
///
/// # Errors
///
/// Like [`pair`].
pub async fn pair_within(
    patience: Patience,
    store: &Store,
    link_url: &str,
    device_name: &str,
    extra_ca: Option<PathBuf>,
    on_code: impl FnOnce(&str) + Send,
) -> Result<KnownHost, DeviceError> {
    let offer = pairing::Link::parse(link_url).map_err(DeviceError::new)?;
    let identity = store.run(Store::identity).await?;
    let options = LinkOptions {
        relay: offer.relay.clone(),
        identity: Arc::clone(&identity),
        role: Role::Device,
        generation: 0,
        dead_millis: Some(WATCHED_MILLIS),
        agent: concat!("farhelm/", env!("CARGO_PKG_VERSION")).to_owned(),
        extra_ca,
    };
    let ceremony = Ceremony::begin(identity, offer, device_name)?;
    Box::pin(hold(ceremony, patience, options, store, on_code)).await
}

/// Runs the ceremony over a link.
async fn hold(
    mut ceremony: Ceremony,
    patience: Patience,
    options: LinkOptions,
    store: &Store,
    on_code: impl FnOnce(&str) + Send,
) -> Result<KnownHost, DeviceError> {
    let mut on_code = Some(on_code);
    let (link, mut events) = Link::start(options);
    let mut deadline = Instant::now() + patience.relay;
    let mut waiting_for = Waiting::Relay(
        Code::RelayUnreachable,
        "the relay has not answered yet".to_owned(),
    );
    let (mut unknown_until, mut again) = (None, None);
    loop {
        let due = again.map_or(deadline, |again: Instant| again.min(deadline));
        let event = match tokio::time::timeout_at(due, events.recv()).await {
            Ok(Some(event)) => event,
            Ok(None) => return Err(DeviceError::because(Code::Internal, "the link stopped")),
            Err(_) if again.take().is_some() => {
                send(&link, &ceremony.request()).await;
                continue;
            }
            Err(_) => return Err(waiting_for.too_long()),
        };
        let frame = match event {
            LinkEvent::Up(_) => {
                if let Waiting::Relay(..) | Waiting::Host = waiting_for {
                    waiting_for = Waiting::Host;
                    deadline = Instant::now() + patience.host;
                    send(&link, &ceremony.request()).await;
                }
                continue;
            }
            LinkEvent::Down { code, detail, .. } => {
                if !code.may_retry() {
                    return Err(DeviceError::because(code, detail));
                }
                if matches!(waiting_for, Waiting::Relay(..)) {
                    waiting_for = Waiting::Relay(code, detail);
                }
                continue;
            }
            LinkEvent::Frame { frame, raw: _ } => frame,
        };
        if ceremony.is_unknown(&frame) {
            let now = Instant::now();
            if now < *unknown_until.get_or_insert(now + UNKNOWN) {
                again = Some(now + AGAIN);
                continue;
            }
        }
        let (step, taken) = ceremony.take(&frame)?;
        match step {
            Step::Nothing => {}
            Step::Code(code) => {
                waiting_for = Waiting::Person;
                deadline = Instant::now() + patience.person;
                if let Some(on_code) = on_code.take() {
                    on_code(&code);
                }
            }
            Step::Joined(host) => {
                let kept = host.clone();
                store.run(move |store| store.keep_host(&kept)).await?;
                // The letter stays in the mailbox; it is taken when the device connects next.
                return Ok(*host);
            }
        }
        if let Some(taken) = taken {
            send(&link, &taken).await;
        }
    }
}

/// How long a relay may know nothing of a link: who made it may have been quicker than the host's
/// word to the relay, or the relay has just been started again.
const UNKNOWN: Duration = Duration::from_secs(3);
/// When it is asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// What the ceremony waits for.
enum Waiting {
    /// With the reason why the relay was not reached.
    Relay(Code, String),
    Host,
    Person,
}

impl Waiting {
    fn too_long(self) -> DeviceError {
        match self {
            Self::Relay(code, trouble) => DeviceError::because(code, trouble),
            Self::Host => DeviceError::because(
                Code::HostOffline,
                "the host does not answer; is it running?",
            ),
            Self::Person => {
                DeviceError::because(Code::Timeout, "nobody confirmed the pairing on the host")
            }
        }
    }
}

/// The device's side, without the link.
struct Ceremony {
    identity: Arc<Identity>,
    offer: pairing::Link,
    id: CommandId,
    request: Letter,
    /// The host's name and nonce, once it has answered.
    answered: Option<(String, [u8; 32])>,
}

/// What came of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// The code to be shown.
    Code(String),
    Joined(Box<KnownHost>),
}

impl Ceremony {
    fn begin(
        identity: Arc<Identity>,
        offer: pairing::Link,
        device_name: &str,
    ) -> Result<Self, DeviceError> {
        let now = clock::now();
        let id = CommandId::fresh(now, rng::random());
        let header = Header {
            suite: SUITE,
            kind: Kind::PairRequest,
            from: identity.peer(),
            to: offer.host.peer(),
            id,
            // The offer's own end counts, on the host's clock; this only keeps mailboxes clean.
            not_after: now.plus_millis(2 * OFFER_MILLIS),
            offer: Some(offer.offer()),
        };
        let body = PairRequest {
            name: clean_name(device_name),
            keys: *identity.public(),
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let request = seal_pair_request(
            &identity,
            &offer.host,
            &header,
            &offer.secret,
            offer.offer(),
            &body,
            &mut rng::os_rng(),
        )
        .map_err(|_| DeviceError::new(Code::BadLink))?;
        Ok(Self {
            identity,
            offer,
            id,
            request,
            answered: None,
        })
    }

    fn request(&self) -> Frame {
        Frame::Letter(self.request.clone())
    }

    /// Whether the relay says that it knows no such link.
    fn is_unknown(&self, frame: &Frame) -> bool {
        let Frame::Problem(problem) = frame else {
            return false;
        };
        let is_ours = problem.letter == Some(self.id) && self.answered.is_none();
        is_ours && problem.code == Code::LinkExpired
    }

    /// Takes a frame; gives the step and what to tell the relay.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "no other frame matters to a pairing"
    )]
    fn take(&mut self, frame: &Frame) -> Result<(Step, Option<Frame>), DeviceError> {
        match frame {
            Frame::Problem(problem)
                if problem.letter == Some(self.id) && self.answered.is_none() =>
            {
                Err(DeviceError::new(problem.code))
            }
            Frame::Letter(letter) => self.take_letter(letter),
            _ => Ok((Step::Nothing, None)),
        }
    }

    fn take_letter(&mut self, letter: &Letter) -> Result<(Step, Option<Frame>), DeviceError> {
        let opened = match post::open(&self.identity, &self.offer.host, letter) {
            Ok(opened) => opened,
            Err(Distrust::NotOurs) => return Ok((Step::Nothing, None)),
            Err(Distrust::Forged(code)) => {
                let text = "the answer is not from the host that made the link; somebody in between may be trying \
                            to take its place";
                return Err(DeviceError::because(code, text));
            }
        };
        if opened.header.kind != Kind::PairAnswer || opened.header.offer != Some(self.offer.offer())
        {
            return Ok((Step::Nothing, None));
        }
        let answer = serde_json::from_slice(&opened.body).map_err(|error| {
            DeviceError::because(
                Code::BadFrame,
                format!("the host's answer cannot be understood: {error}"),
            )
        })?;
        Ok((self.answer(answer)?, Some(opened.taken())))
    }

    fn answer(&mut self, answer: PairAnswer) -> Result<Step, DeviceError> {
        match answer {
            PairAnswer::Challenge {
                nonce,
                host,
                request,
            } => self.challenge(&nonce, &host, &request),
            PairAnswer::Accepted { roster } => self.accepted(roster),
            PairAnswer::Refused { code } => Err(DeviceError::new(code)),
        }
    }

    fn challenge(&mut self, nonce: &str, host: &str, request: &str) -> Result<Step, DeviceError> {
        let hash = self.request.hash();
        if request != to_base64(&hash) {
            let text = "the host answers another request than this device made; make a new link";
            return Err(DeviceError::because(Code::Tampered, text));
        }
        let nonce = from_base64(nonce).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let nonce = nonce.ok_or_else(|| {
            DeviceError::because(Code::BadFrame, "the host's answer is malformed")
        })?;
        match &self.answered {
            Some((_, before)) if *before == nonce => Ok(Step::Nothing),
            Some(_) => Err(DeviceError::because(
                Code::Tampered,
                "the host shows a second code; make a new link",
            )),
            None => {
                self.answered = Some((clean_name(host), nonce));
                Ok(Step::Code(compare_code(&hash, &nonce)))
            }
        }
    }

    fn accepted(&self, entries: Vec<Entry>) -> Result<Step, DeviceError> {
        let Some((name, _)) = &self.answered else {
            let text = "the host let this device in before anybody could compare codes";
            return Err(DeviceError::because(Code::Tampered, text));
        };
        let roster = Roster::verify(&entries, &self.offer.host)
            .map_err(|error| DeviceError::because(error.code(), error.to_string()))?;
        let is_in = roster
            .member(self.identity.peer())
            .is_some_and(|member| member.keys == *self.identity.public());
        if !is_in {
            return Err(DeviceError::because(
                Code::Tampered,
                "the host's roster does not hold this device",
            ));
        }
        let (keys, relay, name) = (self.offer.host, self.offer.relay.clone(), name.clone());
        Ok(Step::Joined(Box::new(KnownHost {
            keys,
            relay,
            name,
            roster: entries,
        })))
    }
}

/// Sends a frame; when there is no connection it is sent again, or not needed, after the next.
async fn send(link: &Link, frame: &Frame) {
    if link.send(frame.to_bytes()).await.is_err() {
        tracing::debug!("a frame of the pairing was not sent");
    }
}

#[cfg(test)]
mod tests;
