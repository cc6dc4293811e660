//! `ws`, `wslean`, `wslog`, `wslogf`: bare axum WebSockets, as one would write them in an hour.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio::net::TcpListener;

use crate::serve::fan::{Fan, GATHER, Opening};

/// What a socket sets aside.
#[derive(Clone, Copy)]
pub(super) enum Buffers {
    /// 128 KiB to read and as much to write.
    Default,
    /// 4 KiB to read, 16 KiB to write: the practical limit.
    Lean,
}

/// Serves for ever.
pub(super) async fn serve(
    listener: TcpListener,
    fan: Arc<Fan>,
    buffers: Buffers,
) -> anyhow::Result<()> {
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let router = Router::new()
        .route("/", get(upgrade))
        .with_state((fan, buffers));
    Ok(axum::serve(listener, router).await?)
}

async fn upgrade(
    State((fan, buffers)): State<(Arc<Fan>, Buffers)>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let upgrade = match buffers {
        Buffers::Default => upgrade,
        Buffers::Lean => upgrade
            .read_buffer_size(4 * 1024)
            .write_buffer_size(16 * 1024),
    };
    upgrade.on_upgrade(move |socket| async move { drop(peer(socket, &fan).await) })
}

async fn peer(mut socket: WebSocket, fan: &Fan) -> anyhow::Result<()> {
    let Some(first) = next(&mut socket).await? else {
        return Ok(());
    };
    let opening = Opening::parse(&first)?;
    if opening.host {
        send(&mut socket, [answer(0)]).await?;
        while let Some(event) = next(&mut socket).await? {
            fan.publish(opening.stream, event).await;
        }
        return Ok(());
    }
    let (mut queue, head, missed) = fan.follow(&opening);
    send(&mut socket, [answer(head)]).await?;
    for events in fan.read(missed).await?.chunks(GATHER) {
        send(&mut socket, events.iter().cloned()).await?;
    }
    let mut events = Vec::new();
    loop {
        tokio::select! {
            came = next(&mut socket) => {
                if came?.is_none() {
                    return Ok(());
                }
            }
            taken = queue.recv_many(&mut events, GATHER) => {
                if taken == 0 {
                    return Ok(());
                }
                send(&mut socket, events.drain(..)).await?;
            }
        }
    }
}

/// Hands over many messages and flushes once.
async fn send(
    socket: &mut WebSocket,
    events: impl IntoIterator<Item = Bytes>,
) -> anyhow::Result<()> {
    for event in events {
        socket.feed(Message::Binary(event)).await?;
    }
    Ok(socket.flush().await?)
}

async fn next(socket: &mut WebSocket) -> anyhow::Result<Option<Bytes>> {
    while let Some(message) = socket.recv().await {
        match message? {
            Message::Binary(bytes) => return Ok(Some(bytes)),
            Message::Close(_) => return Ok(None),
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
        }
    }
    Ok(None)
}

fn answer(head: u64) -> Bytes {
    Bytes::copy_from_slice(&head.to_be_bytes())
}
