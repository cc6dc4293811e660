//! Sealing and opening: the only place where plaintext and ciphertext meet.
//!
//! What is sealed is first *packed*: one byte for the encoding (0 plain, 1 raw deflate with the
//! preset [`DICTIONARY`]), the length of the data in four bytes (big-endian), the data, and zeros
//! up to a bucket, so that sizes tell little.

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use farhelm_proto::envelope::{self, Envelope};
use farhelm_proto::letter::{self, Letter};
use farhelm_proto::{OfferId, StreamId};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use hpke::{Deserializable as _, OpModeR, OpModeS, PskBundle, Serializable as _};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};

use crate::keys::{ContentKey, Identity, Kem, PublicKeys};

/// The preset dictionary of encoding 1; a part of the protocol version, at most 16 KiB.
pub const DICTIONARY: &[u8] = include_bytes!("seal/dictionary.txt");

/// Most bytes that a packed message may unpack to.
pub const MAX_PLAINTEXT: usize = 8 * 1024 * 1024;

type HpkeAead = hpke::aead::AesGcm256;
type HpkeKdf = hpke::kdf::HkdfSha256;

const LETTER_INFO: &[u8] = b"farhelm/1/letter";
const PAIRING_INFO: &[u8] = b"farhelm/1/pairing";
const BLOB_DOMAIN: &[u8] = b"farhelm/1/blob\0";
const NONCE: usize = 12;
const PREFIX: usize = 5;
/// Nothing is padded to less than this.
const SMALLEST_BUCKET: usize = 64;
/// Letters are padded to multiples of this: an approval looks like a denial or a short prompt.
const LETTER_BUCKET: usize = 1024;
/// Shorter data is not worth compressing.
const COMPRESS_FROM: usize = 64;

/// A sealed message did not open: altered, meant for somebody else, or sealed with another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealed message does not open")]
pub struct CannotOpen;

/// Seals a stream's content and signs it. `nonce` must be fresh random bytes.
///
/// # Panics
///
/// Never: AES-GCM takes messages of up to 64 GiB.
#[must_use]
pub fn seal_envelope(
    key: &ContentKey,
    header: &envelope::Header,
    plaintext: &[u8],
    nonce: [u8; NONCE],
    host: &Identity,
) -> Envelope {
    let header = header.to_bytes();
    let body = encrypt(key, &header, &pack(plaintext, padme), nonce);
    Envelope::sign(header, body, host.signing())
}

/// Opens an envelope whose signature has been checked.
///
/// # Errors
///
/// [`CannotOpen`] when header, body or key do not belong together.
pub fn open_envelope(key: &ContentKey, envelope: &Envelope) -> Result<Vec<u8>, CannotOpen> {
    unpack(&decrypt(key, &envelope.header, &envelope.body)?)
}

/// Seals a blob of a stream.
#[must_use]
pub fn seal_blob(
    key: &ContentKey,
    stream: StreamId,
    epoch: u32,
    bytes: &[u8],
    nonce: [u8; NONCE],
) -> Vec<u8> {
    encrypt(
        key,
        &blob_context(stream, epoch),
        &pack(bytes, padme),
        nonce,
    )
}

/// Opens a blob.
///
/// # Errors
///
/// [`CannotOpen`] when it is of another stream or epoch, or was altered.
pub fn open_blob(
    key: &ContentKey,
    stream: StreamId,
    epoch: u32,
    sealed: &[u8],
) -> Result<Vec<u8>, CannotOpen> {
    unpack(&decrypt(key, &blob_context(stream, epoch), sealed)?)
}

/// The name of a blob: SHA-256 of its sealed bytes.
#[must_use]
pub fn blob_name(sealed: &[u8]) -> [u8; 32] {
    Sha256::digest(sealed).into()
}

/// Seals a letter for `to` and signs it.
///
/// # Errors
///
/// [`CannotOpen`] when `to` has no usable key.
pub fn seal_letter(
    from: &Identity,
    to: &PublicKeys,
    header: &letter::Header,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Letter, CannotOpen> {
    seal_with(
        &OpModeS::Base,
        LETTER_INFO,
        from,
        to,
        header,
        plaintext,
        rng,
    )
}

/// Opens a letter whose signature has been checked.
///
/// # Errors
///
/// [`CannotOpen`] when it is for somebody else or was altered.
pub fn open_letter(to: &Identity, letter: &Letter) -> Result<Vec<u8>, CannotOpen> {
    open_with(&OpModeR::Base, LETTER_INFO, to, letter)
}

/// Seals a pair request: only who knows the link's secret can make one (HPKE PSK mode).
///
/// # Errors
///
/// [`CannotOpen`] when `to` has no usable key.
pub fn seal_pair_request(
    from: &Identity,
    to: &PublicKeys,
    header: &letter::Header,
    secret: &[u8; 32],
    offer: OfferId,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Letter, CannotOpen> {
    let psk = PskBundle::new(secret, offer.as_bytes()).map_err(|_| CannotOpen)?;
    seal_with(
        &OpModeS::Psk(psk),
        PAIRING_INFO,
        from,
        to,
        header,
        plaintext,
        rng,
    )
}

/// Opens a pair request made with the link's secret.
///
/// # Errors
///
/// [`CannotOpen`] when the secret is another, or the request was altered.
pub fn open_pair_request(
    to: &Identity,
    secret: &[u8; 32],
    offer: OfferId,
    letter: &Letter,
) -> Result<Vec<u8>, CannotOpen> {
    let psk = PskBundle::new(secret, offer.as_bytes()).map_err(|_| CannotOpen)?;
    open_with(&OpModeR::Psk(psk), PAIRING_INFO, to, letter)
}

fn seal_with(
    mode: &OpModeS<'_, Kem>,
    info: &[u8],
    from: &Identity,
    to: &PublicKeys,
    header: &letter::Header,
    plaintext: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Letter, CannotOpen> {
    let header = header.to_bytes();
    let recipient = to.sealing_key().map_err(|_| CannotOpen)?;
    let packed = pack(plaintext, |length| length.next_multiple_of(LETTER_BUCKET));
    let (enc, body) = hpke::single_shot_seal_with_rng::<HpkeAead, HpkeKdf, Kem>(
        mode, &recipient, info, &packed, &header, rng,
    )
    .map_err(|_| CannotOpen)?;
    let mut enc_bytes = [0; 32];
    enc_bytes.copy_from_slice(&enc.to_bytes());
    Ok(Letter::sign(header, enc_bytes, body, from.signing()))
}

fn open_with(
    mode: &OpModeR<'_, Kem>,
    info: &[u8],
    to: &Identity,
    letter: &Letter,
) -> Result<Vec<u8>, CannotOpen> {
    let enc = <Kem as hpke::Kem>::EncappedKey::from_bytes(letter.enc.as_slice())
        .map_err(|_| CannotOpen)?;
    let packed = hpke::single_shot_open::<HpkeAead, HpkeKdf, Kem>(
        mode,
        to.sealing(),
        &enc,
        info,
        &letter.body,
        &letter.header,
    )
    .map_err(|_| CannotOpen)?;
    unpack(&packed)
}

fn encrypt(key: &ContentKey, context: &[u8], packed: &[u8], nonce: [u8; NONCE]) -> Vec<u8> {
    let cipher = Aes256Gcm::new(key.expose().into());
    let mut body = nonce.to_vec();
    let payload = Payload {
        msg: packed,
        aad: context,
    };
    body.extend(cipher.encrypt(&nonce.into(), payload).unwrap_or_default());
    body
}

fn decrypt(key: &ContentKey, context: &[u8], body: &[u8]) -> Result<Vec<u8>, CannotOpen> {
    let (nonce, ciphertext) = body.split_first_chunk::<NONCE>().ok_or(CannotOpen)?;
    let cipher = Aes256Gcm::new(key.expose().into());
    cipher
        .decrypt(
            nonce.into(),
            Payload {
                msg: ciphertext,
                aad: context,
            },
        )
        .map_err(|_| CannotOpen)
}

fn blob_context(stream: StreamId, epoch: u32) -> Vec<u8> {
    [BLOB_DOMAIN, stream.as_bytes(), &epoch.to_be_bytes()].concat()
}

/// Packs data; `bucket` says how long the whole is to be. Public for the fuzz targets alone; not part
/// of the API.
#[doc(hidden)]
#[must_use]
pub fn pack(data: &[u8], bucket: impl Fn(usize) -> usize) -> Vec<u8> {
    let compressed = (data.len() >= COMPRESS_FROM)
        .then(|| deflate(data))
        .flatten();
    let (encoding, data) = match &compressed {
        Some(smaller) if smaller.len() < data.len() => (1, smaller.as_slice()),
        Some(_) | None => (0, data),
    };
    let mut packed = Vec::with_capacity(bucket(PREFIX + data.len()));
    packed.push(encoding);
    packed.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    packed.extend(data);
    packed.resize(bucket(packed.len()), 0);
    packed
}

/// Undoes [`pack`]. Public for the fuzz targets alone; not part of the API.
///
/// # Errors
///
/// [`CannotOpen`] when the bytes are not packed data.
#[doc(hidden)]
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>, CannotOpen> {
    let (prefix, rest) = packed.split_first_chunk::<PREFIX>().ok_or(CannotOpen)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    let data = usize::try_from(length)
        .ok()
        .and_then(|length| rest.get(..length))
        .ok_or(CannotOpen)?;
    match prefix[0] {
        0 => Ok(data.to_vec()),
        1 => inflate(data).ok_or(CannotOpen),
        _ => Err(CannotOpen),
    }
}

fn deflate(data: &[u8]) -> Option<Vec<u8>> {
    let mut stream = Compress::new(Compression::fast(), false);
    stream.set_dictionary(DICTIONARY).ok()?;
    let mut output = Vec::with_capacity(data.len() + 64);
    match stream
        .compress_vec(data, &mut output, FlushCompress::Finish)
        .ok()?
    {
        Status::StreamEnd => Some(output),
        Status::Ok | Status::BufError => None,
    }
}

/// Inflates to at most [`MAX_PLAINTEXT`] bytes.
fn inflate(data: &[u8]) -> Option<Vec<u8>> {
    let mut stream = Decompress::new(false);
    stream.set_dictionary(DICTIONARY).ok()?;
    let mut output = Vec::with_capacity((data.len() * 4).clamp(1024, MAX_PLAINTEXT));
    loop {
        let consumed = usize::try_from(stream.total_in()).ok()?;
        let before = output.len();
        match stream
            .decompress_vec(data.get(consumed..)?, &mut output, FlushDecompress::Finish)
            .ok()?
        {
            Status::StreamEnd => return Some(output),
            Status::Ok | Status::BufError => {
                let stuck = output.len() == before && output.len() < output.capacity();
                if stuck || output.len() >= MAX_PLAINTEXT {
                    return None;
                }
                output.reserve(output.len().min(MAX_PLAINTEXT - output.len()));
            }
        }
    }
}

/// Rounds a length up so that at most 12 % is added and only O(log log n) bits leak
/// (Padmé, from the PURBs paper, <https://arxiv.org/abs/1806.03160>, section 4).
fn padme(length: usize) -> usize {
    if length <= SMALLEST_BUCKET {
        return SMALLEST_BUCKET;
    }
    let exponent = length.ilog2();
    let low_bits = exponent - (exponent.ilog2() + 1);
    length.next_multiple_of(1 << low_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_reads_back_and_hides_the_length() {
        for length in [0, 1, 59, 60, 500, 5_000, 70_000] {
            let data: Vec<u8> = (0..length)
                .map(|n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
                .collect();
            let packed = pack(&data, padme);
            assert_eq!(unpack(&packed), Ok(data));
            assert_eq!(packed.len(), padme(packed.len()));
        }
    }

    #[test]
    fn events_shrink_with_the_dictionary() {
        let data = br#"[{"seq":17,"at":1795000000000,"event":{"type":"tool_updated","tool":{"id":"toolu_1","title":"Write hello.txt","kind":"edit","status":"pending"}}}]"#;
        assert!(deflate(data).unwrap().len() * 2 < data.len());
    }

    #[test]
    fn s13_a_bomb_is_not_inflated() {
        let bomb = {
            let zeros = vec![0; MAX_PLAINTEXT * 2];
            deflate(&zeros).unwrap()
        };
        assert_eq!(inflate(&bomb), None);
    }

    #[test]
    fn truncated_packs_are_refused() {
        let packed = pack(
            b"hello hello hello hello hello hello hello hello hello hello hello hello",
            padme,
        );
        for end in 0..PREFIX + 3 {
            assert_eq!(unpack(&packed[..end]), Err(CannotOpen));
        }
    }

    #[test]
    fn padding_adds_at_most_an_eighth() {
        for length in 65..20_000 {
            let padded = padme(length);
            assert!(padded >= length && padded * 100 <= length * 112);
        }
    }
}
