//! `tcp`: the physical limit. Messages are a length (4, big-endian) and that many bytes.

use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::serve::fan::{Fan, GATHER, Opening};

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener, fan: Arc<Fan>) -> anyhow::Result<()> {
    let mut peers = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let fan = Arc::clone(&fan);
        peers.spawn(async move { drop(peer(stream, &fan).await) });
        while peers.try_join_next().is_some() {}
    }
}

async fn peer(stream: TcpStream, fan: &Fan) -> anyhow::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let mut buffer = BytesMut::new();
    let opening = Opening::parse(&next(&mut read, &mut buffer).await?)?;
    if opening.host {
        write.write_all(&answer(0)).await?;
        loop {
            let event = next(&mut read, &mut buffer).await?;
            fan.publish(opening.stream, event).await;
        }
    }
    let (mut queue, head, _) = fan.follow(&opening);
    write.write_all(&answer(head)).await?;
    let (mut events, mut out) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            ended = read.read_u8() => return Err(ended.err().map_or_else(|| anyhow::anyhow!("a device spoke"), Into::into)),
            taken = queue.recv_many(&mut events, GATHER) => {
                if taken == 0 {
                    return Ok(());
                }
            }
        }
        send(&mut write, &mut events, &mut out).await?;
    }
}

async fn send(
    write: &mut OwnedWriteHalf,
    events: &mut Vec<Bytes>,
    out: &mut Vec<u8>,
) -> anyhow::Result<()> {
    out.clear();
    for event in events.drain(..) {
        out.put_u32(u32::try_from(event.len())?);
        out.extend_from_slice(&event);
    }
    Ok(write.write_all(out).await?)
}

async fn next(read: &mut OwnedReadHalf, buffer: &mut BytesMut) -> anyhow::Result<Bytes> {
    loop {
        if let Some((length, rest)) = buffer.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            if rest.len() >= length {
                buffer.advance(4);
                return Ok(buffer.split_to(length).freeze());
            }
        }
        buffer.reserve(READ_BYTES);
        anyhow::ensure!(read.read_buf(buffer).await? > 0, "the peer left");
    }
}

fn answer(head: u64) -> Vec<u8> {
    [8_u32.to_be_bytes().as_slice(), &head.to_be_bytes()].concat()
}

const READ_BYTES: usize = 4096;
