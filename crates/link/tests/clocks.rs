//! Wall clocks that jump, at a peer and at the relay, under links that go on: each lives in a world
//! whose time of day a test sets.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use farhelm_link::driver::{Link, LinkEvent};
use farhelm_proto::frame::{Fetch, Frame, Role};
use farhelm_proto::{PeerId, StreamId};
use farhelm_relay::{Config, Relay};
use farhelm_world::World;
use support::skewed::Skewed;
use support::{options, send, soon, up};

#[tokio::test]
async fn f10_clocks_that_jump_an_hour_or_a_year_end_no_connection_and_change_no_order() {
    const HOUR: i64 = 3_600_000;
    const YEAR: i64 = 365 * 24 * HOUR;
    let of_relay = Arc::new(Skewed::default());
    let of_peer = Arc::new(Skewed::default());
    let relay = farhelm_world::within(Arc::clone(&of_relay) as Arc<dyn World>, async {
        Relay::start(Config {
            ping_millis: 200,
            dead_millis: 3_000,
            ..Config::in_memory()
        })
        .unwrap()
    })
    .await;
    let options = options(&relay.url(), Role::Device);
    let (link, mut events) = farhelm_world::within(Arc::clone(&of_peer) as Arc<dyn World>, async {
        Link::start(options)
    })
    .await;
    up(&mut events).await;
    let mut request = 0;
    for jump in [HOUR, -HOUR, YEAR, -YEAR] {
        // To opposite sides, so that they are two hours or two years apart as well.
        of_peer.millis.fetch_add(jump, Ordering::Relaxed);
        of_relay.millis.fetch_sub(jump, Ordering::Relaxed);
        // Long enough for every timer to have seen it, and for a doubt to have been settled.
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..20 {
            ticks.tick().await;
            request += 1;
            let fetch = Fetch {
                request,
                host: PeerId::from_bytes([1; 16]),
                stream: StreamId::from_bytes([2; 16]),
                before: 1,
                max_bytes: 1,
            };
            send(&link, &Frame::Fetch(fetch)).await;
            let answer = soon(events.recv()).await.unwrap();
            let LinkEvent::Frame {
                frame: Frame::Problem(problem),
                ..
            } = answer
            else {
                panic!("after a jump of {jump} ms: {answer:?}")
            };
            assert_eq!(problem.request, Some(request));
        }
    }
    assert!(link.is_up());
}
