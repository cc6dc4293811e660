//! A socket is fed what a client could send, in every cut.

use std::future::poll_fn;

use super::*;

#[tokio::test]
async fn messages_arrive_whole_however_they_are_cut() {
    let mut sent = client_frame(0x82, b"one");
    sent.extend(client_frame(0x02, b"tw"));
    sent.extend(client_frame(0x89, b"ping between pieces"));
    sent.extend(client_frame(0x80, b"o"));
    sent.extend(client_frame(0x82, &[7; 70_000]));
    for cut in [1, 2, 3, 7, 64, 5_000, 80_000] {
        let (near, mut far) = tokio::io::duplex(200_000);
        let sent = sent.clone();
        let writer = async move {
            for piece in sent.chunks(cut) {
                far.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            far
        };
        let reader = async move {
            let mut wire = Wire::new(near, &[], 100_000);
            let got = [
                wire.recv().await.unwrap(),
                wire.recv().await.unwrap(),
                wire.recv().await.unwrap(),
            ];
            assert_eq!(
                (&got[0][..], &got[1][..], got[2].len()),
                (&b"one"[..], &b"two"[..], 70_000)
            );
            assert!(wire.input.is_empty() && wire.stirred() && !wire.pongs.is_empty());
            wire
        };
        tokio::join!(writer, reader);
    }
}

#[tokio::test]
async fn s12_a_length_beyond_the_limit_is_refused_before_it_is_read() {
    let mut claim = vec![0x82, 0xff];
    claim.extend((1_u64 << 40).to_be_bytes());
    claim.extend([0; 4]);
    assert!(matches!(
        first_of(&claim, 100).await,
        Err(WireError::TooLarge)
    ));
    assert!(matches!(
        first_of(&client_frame(0x82, &[0; 101]), 100).await,
        Err(WireError::TooLarge)
    ));
    assert_eq!(
        first_of(&client_frame(0x82, &[0; 100]), 100)
            .await
            .unwrap()
            .len(),
        100
    );
    let pieces = [client_frame(0x02, &[0; 60]), client_frame(0x80, &[0; 41])].concat();
    assert!(matches!(
        first_of(&pieces, 100).await,
        Err(WireError::TooLarge)
    ));
}

#[tokio::test]
async fn f22_what_is_no_binary_message_is_refused() {
    let unmasked = [0x82, 3, 1, 2, 3].to_vec();
    let compressed = client_frame(0xc2, b"x");
    let text = client_frame(0x81, b"hi");
    let stray = client_frame(0x80, b"hi");
    let long_ping = client_frame(0x89, &[0; 126]);
    let unknown = client_frame(0x83, b"");
    let two_begin = [client_frame(0x02, b"a"), client_frame(0x82, b"b")].concat();
    for bytes in [
        unmasked, compressed, text, stray, long_ping, unknown, two_begin,
    ] {
        assert!(
            matches!(first_of(&bytes, 1000).await, Err(WireError::Malformed)),
            "{bytes:?}"
        );
    }
}

#[tokio::test]
async fn what_the_socket_does_not_take_at_once_arrives_in_order() {
    let (near, mut far) = tokio::io::duplex(100);
    let mut queue: VecDeque<Bytes> = (0..50_u8)
        .map(|n| Bytes::from(vec![n; 1 + usize::from(n) * 900]))
        .collect();
    let lengths: usize = queue.iter().map(Bytes::len).sum();
    let writer = async move {
        let mut wire = Wire::new(near, &[], 100);
        poll_fn(|cx| wire.poll_send(cx, &mut queue)).await.unwrap();
    };
    let reader = async move {
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        all
    };
    let ((), all) = tokio::join!(writer, reader);
    let heads: usize = (0..50_usize)
        .map(|n| if 1 + n * 900 < 126 { 2 } else { 4 })
        .sum();
    assert_eq!(all.len(), lengths + heads);
}

async fn first_of(bytes: &[u8], limit: usize) -> Result<Bytes, WireError> {
    let (near, _far) = tokio::io::duplex(64);
    Wire::new(near, bytes, limit).recv().await
}

/// A masked frame as a client writes it.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        middle @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}
