//! The pairings a host holds open, and the strangers who wrote because of one.
//!
//! Kept in memory only: an offer lives for minutes, and a host opens its offers again whenever
//! it connects.

use farhelm_proto::{Code, CommandId, OfferId, PeerId, Timestamp, limits};

/// Offers of one host.
#[derive(Default)]
pub(crate) struct Offers {
    offers: Vec<Offer>,
    guests: Vec<Guest>,
}

struct Offer {
    id: OfferId,
    state: State,
    /// Who wrote what; a repeated letter counts once.
    letters: Vec<(PeerId, CommandId)>,
}

enum State {
    Open { until: Timestamp },
    Closed { at: Timestamp },
}

/// A stranger that the host may answer.
struct Guest {
    peer: PeerId,
    until: Timestamp,
}

impl Offers {
    /// Opens an offer, or moves its end. When it ends is the host's to say, on its own clock; here
    /// it only stops to let strangers write, some time later.
    ///
    /// # Errors
    ///
    /// The code to refuse with: too many are open, or this one was closed.
    pub(crate) fn open(&mut self, id: OfferId, now: Timestamp) -> Result<(), Code> {
        self.tidy(now);
        let until = now.plus_millis(OPEN_MILLIS);
        if let Some(offer) = self.offers.iter_mut().find(|offer| offer.id == id) {
            return match &mut offer.state {
                State::Open { until: end } => {
                    *end = until;
                    Ok(())
                }
                State::Closed { .. } => Err(Code::LinkUsed),
            };
        }
        let open = self
            .offers
            .iter()
            .filter(|offer| matches!(offer.state, State::Open { .. }))
            .count();
        if open >= limits::OPEN_OFFERS {
            return Err(Code::Full);
        }
        self.offers.push(Offer {
            id,
            state: State::Open { until },
            letters: Vec::new(),
        });
        Ok(())
    }

    /// Closes an offer; the guest to keep may be written to for a full pairing from now on.
    pub(crate) fn close(&mut self, id: OfferId, keep: Option<PeerId>, now: Timestamp) {
        self.tidy(now);
        if let Some(offer) = self.offers.iter_mut().find(|offer| offer.id == id) {
            offer.state = State::Closed { at: now };
        }
        for guest in self
            .guests
            .iter_mut()
            .filter(|guest| Some(guest.peer) == keep)
        {
            guest.until = now.plus_millis(GUEST_MILLIS);
        }
    }

    /// Lets a stranger's pair request through.
    ///
    /// # Errors
    ///
    /// The code to refuse with.
    pub(crate) fn admit(
        &mut self,
        id: Option<OfferId>,
        peer: PeerId,
        letter: CommandId,
        now: Timestamp,
    ) -> Result<(), Code> {
        self.tidy(now);
        let offer = self
            .offers
            .iter_mut()
            .find(|offer| Some(offer.id) == id)
            .ok_or(Code::LinkExpired)?;
        match offer.state {
            State::Closed { .. } => return Err(Code::LinkUsed),
            State::Open { .. } => {}
        }
        if !offer.letters.contains(&(peer, letter)) {
            if offer.letters.len() >= OFFER_LETTERS {
                return Err(Code::RateLimited);
            }
            offer.letters.push((peer, letter));
        }
        let until = now.plus_millis(GUEST_MILLIS);
        match self.guests.iter_mut().find(|guest| guest.peer == peer) {
            Some(guest) => guest.until = until,
            None => self.guests.push(Guest { peer, until }),
        }
        Ok(())
    }

    /// Whether the host may answer this stranger.
    pub(crate) fn is_guest(&self, peer: PeerId, now: Timestamp) -> bool {
        self.guests
            .iter()
            .any(|guest| guest.peer == peer && now <= guest.until)
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_idle(&mut self, now: Timestamp) -> bool {
        self.tidy(now);
        self.offers.is_empty() && self.guests.is_empty()
    }

    fn tidy(&mut self, now: Timestamp) {
        self.offers.retain(|offer| match offer.state {
            State::Open { until } => now <= until,
            State::Closed { at } => now.millis_since(at) <= CLOSED_MILLIS,
        });
        self.guests.retain(|guest| now <= guest.until);
        let excess = self.offers.len().saturating_sub(REMEMBERED);
        self.offers.drain(..excess);
    }
}

/// Letters that one offer lets through.
const OFFER_LETTERS: usize = 3;
/// How long a stranger may be answered.
const GUEST_MILLIS: u64 = 15 * 60 * 1000;
/// How long a closed offer is told from an unknown one.
const CLOSED_MILLIS: u64 = 60 * 60 * 1000;
/// How long strangers may write because of an offer.
const OPEN_MILLIS: u64 = limits::OFFER_MILLIS + 5 * 60 * 1000;
/// Offers remembered at most, open ones among them; the oldest go first.
const REMEMBERED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    #[test]
    fn an_offer_lets_three_letters_through_and_counts_repeats_once() {
        let mut offers = Offers::default();
        offers.open(offer(1), NOW).unwrap();
        assert_eq!(
            offers.admit(Some(offer(1)), peer(1), letter(1), NOW),
            Ok(())
        );
        assert_eq!(
            offers.admit(Some(offer(1)), peer(1), letter(1), NOW),
            Ok(())
        );
        assert_eq!(
            offers.admit(Some(offer(1)), peer(2), letter(1), NOW),
            Ok(())
        );
        assert_eq!(
            offers.admit(Some(offer(1)), peer(1), letter(2), NOW),
            Ok(())
        );
        assert_eq!(
            offers.admit(Some(offer(1)), peer(3), letter(1), NOW),
            Err(Code::RateLimited)
        );
        assert!(offers.is_guest(peer(2), NOW) && !offers.is_guest(peer(3), NOW));
        assert!(!offers.is_guest(peer(2), NOW.plus_millis(GUEST_MILLIS + 1)));
    }

    #[test]
    fn used_and_expired_links_are_told_apart() {
        let mut offers = Offers::default();
        offers.open(offer(1), NOW).unwrap();
        offers.open(offer(2), NOW).unwrap();
        offers.close(offer(1), None, NOW);
        let later = NOW.plus_millis(OPEN_MILLIS + 1);
        let mut admit = |id, now| offers.admit(id, peer(1), letter(1), now);
        assert_eq!(admit(Some(offer(1)), later), Err(Code::LinkUsed));
        assert_eq!(admit(Some(offer(2)), later), Err(Code::LinkExpired));
        assert_eq!(admit(Some(offer(3)), later), Err(Code::LinkExpired));
        assert_eq!(admit(None, later), Err(Code::LinkExpired));
        assert_eq!(
            admit(Some(offer(1)), NOW.plus_millis(CLOSED_MILLIS + 1)),
            Err(Code::LinkExpired)
        );
    }

    #[test]
    fn only_so_many_offers_are_open_at_once() {
        let mut offers = Offers::default();
        let count = u8::try_from(limits::OPEN_OFFERS).unwrap();
        for n in 0..count {
            offers.open(offer(n), NOW).unwrap();
        }
        assert_eq!(offers.open(offer(count), NOW), Err(Code::Full));
        offers.close(offer(0), None, NOW);
        assert_eq!(offers.open(offer(count), NOW), Ok(()));
        assert_eq!(offers.open(offer(0), NOW), Err(Code::LinkUsed));
    }

    fn offer(n: u8) -> OfferId {
        OfferId::from_bytes([n; 16])
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 16])
    }

    fn letter(n: u8) -> CommandId {
        CommandId::from_bytes([n; 16])
    }
}
