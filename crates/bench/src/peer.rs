//! Hosts and devices of a server, ours or a yardstick.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use farhelm_proto::frame::{Frame, Hello, Locate, Members, Prove, Role, Subscribe};
use farhelm_proto::sign::SigningKey;
use farhelm_proto::{OLDEST_VERSION, PeerId, StreamId, VERSION, hello};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::log::{self, Event, Log};
use crate::target::Kind;
use crate::wire::{self, Framing, Reader, Writer};

/// Somebody who writes one stream.
pub(crate) struct Host {
    pub(crate) writer: Writer,
    pub(crate) log: Log,
    told: watch::Receiver<Told>,
    /// Reads what the server says; ends with the host.
    _reading: JoinSet<()>,
}

/// Somebody who reads one stream.
pub(crate) struct Device {
    pub(crate) writer: Writer,
    reader: Reader,
    pair: Pair,
}

/// A host and its devices, by number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) number: u64,
}

/// What the relay told a host.
#[derive(Clone, Debug, Default)]
struct Told {
    stored: u64,
    located: Option<u64>,
    problem: Option<String>,
}

impl Pair {
    /// Connects the host, which lists `devices` devices as its own.
    pub(crate) async fn host(&self, devices: u64, generation: u64) -> anyhow::Result<Host> {
        let (send, told) = watch::channel(Told::default());
        let mut reading = JoinSet::new();
        if self.kind != Kind::Farhelm {
            let (reader, writer) = self.open(0, 0).await?;
            reading.spawn(async move {
                // Nothing comes; the connection must stay.
                let (_reader, _send) = (reader, send);
                std::future::pending::<()>().await;
            });
            return Ok(Host {
                writer,
                log: Log::bare(self.kind.framing()),
                told,
                _reading: reading,
            });
        }
        let key = self.host_key();
        let id = PeerId::of_signer(&key);
        let (mut reader, mut writer) = greet(self.address, &key, Role::Host, generation).await?;
        let devices = (0..devices)
            .map(|device| PeerId::of_signer(&self.device_key(device)))
            .collect();
        say(
            &mut writer,
            &Frame::Members(Members {
                version: 1,
                devices,
            }),
        )
        .await?;
        say(&mut writer, &Frame::Ping(1)).await?;
        while hear(&mut reader).await? != Frame::Pong(1) {}
        reading.spawn(listen(reader, send));
        Ok(Host {
            writer,
            log: Log::sealed(id, self.stream()),
            told,
            _reading: reading,
        })
    }

    /// Connects a device and lets it follow the stream from after `after`.
    pub(crate) async fn device(&self, device: u64, after: u64) -> anyhow::Result<Device> {
        let mut device = self.idle_device(device).await?;
        device.follow(Some(after), None).await?;
        device.followed().await?;
        Ok(device)
    }

    /// Connects a device that follows nothing.
    pub(crate) async fn idle_device(&self, device: u64) -> anyhow::Result<Device> {
        let (reader, writer) = if self.kind == Kind::Farhelm {
            greet(self.address, &self.device_key(device), Role::Device, 0).await?
        } else {
            wire::connect(self.address, self.kind.framing(), "/").await?
        };
        Ok(Device {
            writer,
            reader,
            pair: *self,
        })
    }

    /// Connects to a yardstick and hears its answer.
    async fn open(&self, role: u8, after: u64) -> anyhow::Result<(Reader, Writer)> {
        let (mut reader, mut writer) =
            wire::connect(self.address, self.kind.framing(), "/").await?;
        writer.send(&self.opening(role, after)).await?;
        reader.next().await?;
        Ok((reader, writer))
    }

    fn opening(&self, role: u8, after: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let opening = [
            [role].as_slice(),
            &self.number.to_be_bytes(),
            &after.to_be_bytes(),
        ]
        .concat();
        self.kind.framing().write(&mut out, &opening);
        out
    }

    fn stream(&self) -> StreamId {
        let mut id = [7; 16];
        id[8..].copy_from_slice(&self.number.to_be_bytes());
        StreamId::from_bytes(id)
    }

    fn host_key(&self) -> SigningKey {
        key(1, self.number, 0)
    }

    fn device_key(&self, device: u64) -> SigningKey {
        key(2, self.number, device)
    }
}

impl Host {
    /// Waits until everything up to `seq` is stored; a yardstick does not say, so not for one.
    pub(crate) async fn stored(&mut self, seq: u64) -> anyhow::Result<()> {
        if self.log.is_sealed() {
            let told = self
                .told
                .wait_for(|told| told.stored >= seq || told.problem.is_some())
                .await;
            let problem = told.context("the host was cut off")?.problem.clone();
            ensure!(
                problem.is_none(),
                "the relay complained: {}",
                problem.unwrap_or_default()
            );
        }
        Ok(())
    }

    /// Waits for the end of the connection; up to where the relay had said that it stored the stream.
    pub(crate) async fn ended(&mut self) -> u64 {
        while self.told.changed().await.is_ok() {}
        self.told.borrow().stored
    }

    /// Asks the relay how far it stored the stream.
    pub(crate) async fn locate(&mut self, pair: &Pair) -> anyhow::Result<u64> {
        say(
            &mut self.writer,
            &Frame::Locate(Locate {
                stream: pair.stream(),
            }),
        )
        .await?;
        let told = self
            .told
            .wait_for(|told| told.located.is_some())
            .await
            .context("the host was cut off")?;
        told.located.context("the relay did not say")
    }

    /// Sends a sign of life, as our relay asks for.
    pub(crate) async fn ping(&mut self) -> anyhow::Result<()> {
        say(&mut self.writer, &Frame::Ping(2)).await
    }
}

impl Device {
    /// Asks to follow the stream.
    pub(crate) async fn follow(
        &mut self,
        after: Option<u64>,
        tail: Option<u64>,
    ) -> anyhow::Result<()> {
        if self.pair.kind != Kind::Farhelm {
            return self
                .writer
                .send(&self.pair.opening(1, after.unwrap_or(0)))
                .await;
        }
        let host = PeerId::of_signer(&self.pair.host_key());
        say(
            &mut self.writer,
            &Frame::Subscribe(Subscribe {
                host,
                stream: self.pair.stream(),
                after,
                tail,
            }),
        )
        .await
    }

    /// Waits for the answer to [`Self::follow`].
    async fn followed(&mut self) -> anyhow::Result<()> {
        loop {
            let message = self.reader.next().await?;
            if self.pair.kind != Kind::Farhelm {
                return Ok(());
            }
            match Frame::parse(&message) {
                Ok(Frame::Subscribed(_)) => return Ok(()),
                Ok(Frame::Problem(problem)) => bail!("a device may not read: {}", problem.code),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Waits for events; gives every one that is there to `each`.
    pub(crate) async fn events(&mut self, mut each: impl FnMut(Event)) -> anyhow::Result<()> {
        let sealed = self.pair.kind == Kind::Farhelm;
        self.reader
            .read(|message| {
                match log::read(sealed, message) {
                    Some(event) => each(event),
                    None => refuse_problems(sealed, message)?,
                }
                Ok(())
            })
            .await
    }

    /// Reads on from `seq` to `end`, and fails when an event is missing or out of order.
    pub(crate) async fn read_to(&mut self, mut seq: u64, end: u64) -> anyhow::Result<()> {
        while seq < end {
            seq = self.read_some(seq).await?;
        }
        Ok(())
    }

    /// Reads what is there after `seq`, and fails when an event is missing or out of order; says
    /// how far it came.
    pub(crate) async fn read_some(&mut self, mut seq: u64) -> anyhow::Result<u64> {
        let mut broken = None;
        self.events(|event| {
            if event.seq != seq + 1 {
                broken.get_or_insert((seq, event.seq));
            }
            seq = event.seq;
        })
        .await?;
        match broken {
            None => Ok(seq),
            Some((before, after)) => bail!("after event {before} came event {after}"),
        }
    }

    /// Sends a sign of life, as our relay asks for.
    pub(crate) async fn ping(&mut self) -> anyhow::Result<()> {
        say(&mut self.writer, &Frame::Ping(2)).await
    }
}

/// Sends one frame of the protocol.
async fn say(writer: &mut Writer, frame: &Frame) -> anyhow::Result<()> {
    let mut out = Vec::new();
    Framing::WebSocket.write(&mut out, &frame.to_bytes());
    writer.send(&out).await
}

async fn hear(reader: &mut Reader) -> anyhow::Result<Frame> {
    Ok(Frame::parse(&reader.next().await?)?)
}

/// Connects to our relay and proves the key, as every peer must.
async fn greet(
    address: SocketAddr,
    key: &SigningKey,
    role: Role,
    generation: u64,
) -> anyhow::Result<(Reader, Writer)> {
    let authority = format!("localhost:{}", address.port());
    let (mut reader, mut writer) = wire::connect(address, Framing::WebSocket, "/v1/link").await?;
    let hello = Hello {
        oldest: OLDEST_VERSION,
        newest: VERSION,
        role,
        key: (*key.verifying_key().as_bytes()).into(),
        agent: None,
        authority: authority.clone(),
        generation: Some(generation),
        dead_millis: None,
    };
    say(&mut writer, &Frame::Hello(hello)).await?;
    let Frame::Challenge(challenge) = hear(&mut reader).await? else {
        bail!("no challenge came")
    };
    let proof = hello::prove(key, challenge.version, &challenge.nonce, &authority);
    say(
        &mut writer,
        &Frame::Prove(Prove {
            proof: proof.into(),
        }),
    )
    .await?;
    let Frame::Welcome(_) = hear(&mut reader).await? else {
        bail!("a peer was not welcome")
    };
    Ok((reader, writer))
}

/// Notes what the relay tells a host, until the connection ends.
async fn listen(mut reader: Reader, send: watch::Sender<Told>) {
    while let Ok(message) = reader.next().await {
        send.send_modify(|told| match Frame::parse(&message) {
            Ok(Frame::Stored(stored)) => told.stored = told.stored.max(stored.head),
            Ok(Frame::Located(located)) => told.located = Some(located.head),
            Ok(Frame::Problem(problem)) => told.problem = Some(problem.code.to_string()),
            Ok(_) => {}
            Err(error) => told.problem = Some(error.to_string()),
        });
    }
}

fn refuse_problems(sealed: bool, message: &[u8]) -> anyhow::Result<()> {
    match sealed.then(|| Frame::parse(message)) {
        Some(Ok(Frame::Problem(problem))) => bail!("the relay complained: {}", problem.code),
        Some(Ok(Frame::Bye(bye))) => bail!("the relay sent a device away: {}", bye.code),
        Some(Ok(_) | Err(_)) | None => Ok(()),
    }
}

/// The same peers in every run, and others for each pair.
fn key(role: u8, pair: u64, device: u64) -> SigningKey {
    let mut seed = [role; 32];
    seed[8..16].copy_from_slice(&pair.to_be_bytes());
    seed[16..24].copy_from_slice(&device.to_be_bytes());
    SigningKey::from_seed(seed)
}
