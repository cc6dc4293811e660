//! The ceremony, frame by frame, honest and not.

use farhelm_core::grant::Grant;
use farhelm_core::roster::Change;
use farhelm_core::seal::seal_letter;
use farhelm_proto::Timestamp;

use super::*;

#[test]
fn a_device_joins_after_codes_were_compared() {
    let (host, mut ceremony) = begin();
    let code = compare_code(&ceremony.request.hash(), &[7; 32]);
    let challenge = challenge(&ceremony, 7);
    assert_eq!(tell(&mut ceremony, &host, &challenge), Ok(Step::Code(code)));
    assert_eq!(tell(&mut ceremony, &host, &challenge), Ok(Step::Nothing));
    let accepted = accepted(&host, &ceremony);
    let Ok(Step::Joined(known)) = tell(&mut ceremony, &host, &accepted) else {
        panic!("a device that was let in has joined");
    };
    assert_eq!(
        (known.keys, known.name.as_str()),
        (*host.public(), "laptop")
    );
}

#[test]
fn s15_an_answer_signed_by_another_key_is_refused() {
    let (host, mut ceremony) = begin();
    let relay = Identity::from_seed([66; 64]).unwrap();
    let mut letter = seal(&ceremony, &host, &challenge(&ceremony, 7));
    letter.signature = Letter::sign(
        letter.header.to_vec(),
        *letter.enc,
        letter.body.to_vec(),
        relay.signing(),
    )
    .signature;
    let error = ceremony.take(&Frame::Letter(letter)).unwrap_err();
    assert_eq!(error.code, Code::BadSignature);
}

#[test]
fn s15_an_answer_to_another_request_is_refused() {
    let (host, mut ceremony) = begin();
    let (_, other) = begin();
    let swapped = challenge(&other, 7);
    assert_eq!(tell(&mut ceremony, &host, &swapped), Err(Code::Tampered));
}

#[test]
fn s15_a_second_code_is_not_shown() {
    let (host, mut ceremony) = begin();
    let first = challenge(&ceremony, 7);
    tell(&mut ceremony, &host, &first).unwrap();
    let second = challenge(&ceremony, 8);
    assert_eq!(tell(&mut ceremony, &host, &second), Err(Code::Tampered));
}

#[test]
fn s16_nobody_is_let_in_before_codes_were_compared() {
    let (host, mut ceremony) = begin();
    let accepted = accepted(&host, &ceremony);
    assert_eq!(tell(&mut ceremony, &host, &accepted), Err(Code::Tampered));
}

#[test]
fn s17_a_roster_without_this_device_or_of_another_host_is_refused() {
    let (host, mut ceremony) = begin();
    let (other_host, other) = begin();
    let first = challenge(&ceremony, 7);
    tell(&mut ceremony, &host, &first).unwrap();
    let without_us = accepted(&host, &other);
    assert_eq!(tell(&mut ceremony, &host, &without_us), Err(Code::Tampered));
    drop(other_host);
    let stranger = Identity::from_seed([67; 64]).unwrap();
    let founded_by_another = accepted(&stranger, &ceremony);
    assert_eq!(
        tell(&mut ceremony, &host, &founded_by_another),
        Err(Code::Tampered)
    );
}

#[test]
fn a_refusal_says_why() {
    let (host, mut ceremony) = begin();
    let refused = PairAnswer::Refused {
        code: Code::PairingRefused,
    };
    assert_eq!(
        tell(&mut ceremony, &host, &refused),
        Err(Code::PairingRefused)
    );
}

#[test]
fn letters_of_others_are_left_alone() {
    let (_, mut ceremony) = begin();
    let stranger = Identity::from_seed([66; 64]).unwrap();
    let letter = seal(&ceremony, &stranger, &challenge(&ceremony, 7));
    assert_eq!(
        ceremony.take(&Frame::Letter(letter)),
        Ok((Step::Nothing, None))
    );
}

fn begin() -> (Identity, Ceremony) {
    let host = Identity::from_seed([1; 64]).unwrap();
    let device = Arc::new(Identity::from_seed(rng::random()).unwrap());
    let offer = pairing::Link {
        relay: "http://localhost:1".into(),
        host: *host.public(),
        secret: [9; 32],
    };
    (host, Ceremony::begin(device, offer, "phone").unwrap())
}

fn challenge(ceremony: &Ceremony, nonce: u8) -> PairAnswer {
    let request = to_base64(&ceremony.request.hash());
    PairAnswer::Challenge {
        nonce: to_base64(&[nonce; 32]),
        host: "laptop".into(),
        request,
    }
}

fn accepted(host: &Identity, ceremony: &Ceremony) -> PairAnswer {
    let mut roster = Roster::found(*host.public(), "laptop", Timestamp(1), host.signing());
    let change = Change::Admitted {
        keys: *ceremony.identity.public(),
        name: "phone".into(),
        grant: Grant::owner(),
    };
    roster
        .extend(&roster.next_entry(change, Timestamp(2), host.peer(), host.signing()))
        .unwrap();
    PairAnswer::Accepted {
        roster: roster.entries().to_vec(),
    }
}

/// An answer as `host` would send it.
fn seal(ceremony: &Ceremony, host: &Identity, answer: &PairAnswer) -> Letter {
    let header = Header {
        suite: SUITE,
        kind: Kind::PairAnswer,
        from: host.peer(),
        to: ceremony.identity.peer(),
        id: CommandId::from_bytes(rng::random()),
        not_after: Timestamp(0),
        offer: Some(ceremony.offer.offer()),
    };
    let body = serde_json::to_vec(answer).unwrap();
    seal_letter(
        host,
        ceremony.identity.public(),
        &header,
        &body,
        &mut rng::os_rng(),
    )
    .unwrap()
}

fn tell(ceremony: &mut Ceremony, host: &Identity, answer: &PairAnswer) -> Result<Step, Code> {
    let letter = seal(ceremony, host, answer);
    ceremony
        .take(&Frame::Letter(letter))
        .map(|(step, _)| step)
        .map_err(|error| error.code)
}
