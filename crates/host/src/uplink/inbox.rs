//! What came from the relay and the daemon has not taken yet. Before it is known that this host is
//! no copy, nothing is passed on; what a mailbox can hold fits, and what does not is asked for
//! again.

use std::collections::VecDeque;

use farhelm_proto::letter::{Kind, Letter};
use farhelm_proto::limits::{MAILBOX_BYTES, MAILBOX_LETTERS, MEMBERS};

use super::Mail;

/// Probes beyond that are left out: whoever asks does so again and again.
const PROBES: usize = MEMBERS;

/// Letters, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    mail: VecDeque<(Mail, Weight)>,
    letters: usize,
    bytes: usize,
    probes: usize,
    /// Whether the relay has more of them than it will give on this connection.
    left_out: bool,
}

/// As what something counts.
#[derive(Clone, Copy, Debug)]
enum Weight {
    Letter(usize),
    Probe,
}

impl Inbox {
    /// Puts a letter in, or leaves it to the relay.
    pub(super) fn put(&mut self, letter: Letter) {
        let is_probe = letter
            .parse_header()
            .is_ok_and(|header| header.kind == Kind::Probe);
        if is_probe {
            self.put_probe(Mail::Letter(letter));
            return;
        }
        let bytes =
            letter.header.len() + letter.enc.len() + letter.body.len() + letter.signature.len();
        if self.letters < MAILBOX_LETTERS && self.bytes + bytes <= MAILBOX_BYTES {
            self.letters += 1;
            self.bytes += bytes;
            self.mail
                .push_back((Mail::Letter(letter), Weight::Letter(bytes)));
        } else {
            self.leave_out();
        }
    }

    /// The relay has letters that it takes for delivered.
    pub(super) const fn leave_out(&mut self) {
        self.left_out = true;
    }

    /// Puts in something that nobody keeps.
    pub(super) fn put_probe(&mut self, mail: Mail) {
        if self.probes < PROBES {
            self.probes += 1;
            self.mail.push_back((mail, Weight::Probe));
        }
    }

    /// What came first.
    pub(super) fn take(&mut self) -> Option<Mail> {
        let (mail, weight) = self.mail.pop_front()?;
        match weight {
            Weight::Letter(bytes) => {
                self.letters -= 1;
                self.bytes -= bytes;
            }
            Weight::Probe => self.probes -= 1,
        }
        Some(mail)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mail.is_empty()
    }

    /// Whether no more should be read from the relay, if that can wait.
    pub(super) const fn is_full(&self) -> bool {
        self.letters >= ENOUGH || self.bytes >= ENOUGH_BYTES
    }

    /// Whether everything was taken, and the relay has more that it gives on another connection only.
    pub(super) fn wants_more(&self) -> bool {
        self.left_out && self.is_empty()
    }

    /// The relay gives again what was not taken.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Letters with which one waits before reading more, once one may.
const ENOUGH: usize = 64;
/// Bytes of them.
const ENOUGH_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use farhelm_proto::letter::Header;
    use farhelm_proto::{CommandId, PeerId, Timestamp};

    use super::*;

    /// One of the tests' letters weighs so much besides its body.
    const SHELL: usize = 300;

    fn letter(kind: Kind, number: usize, bytes: usize) -> Letter {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let header = Header {
            suite: 1,
            kind,
            from: PeerId::from_bytes([1; 16]),
            to: PeerId::from_bytes([2; 16]),
            id: CommandId::from_bytes(id),
            not_after: Timestamp(0),
            offer: None,
        };
        Letter {
            header: header.to_bytes().into(),
            enc: [0; 32].into(),
            body: vec![0; bytes].into(),
            signature: [0; 64].into(),
        }
    }

    fn commands(inbox: &mut Inbox) -> Vec<CommandId> {
        let mut ids = Vec::new();
        while let Some(mail) = inbox.take() {
            if let Mail::Letter(letter) = mail {
                let header = letter.parse_header().unwrap();
                ids.extend((header.kind == Kind::Command).then_some(header.id));
            }
        }
        ids
    }

    #[test]
    fn f09_what_a_mailbox_holds_fits_in_its_order_however_many_probes_come_between() {
        for (count, bytes) in [
            (MAILBOX_LETTERS, 1),
            (MAILBOX_BYTES / (SHELL + 100_000), 100_000),
        ] {
            let mut inbox = Inbox::default();
            for number in 0..count {
                inbox.put(letter(Kind::Probe, number, 10));
                inbox.put(letter(Kind::Command, number, bytes));
            }
            let ids = commands(&mut inbox);
            assert_eq!(ids.len(), count);
            assert!(ids.is_sorted());
            assert!(!inbox.wants_more());
        }
    }

    #[test]
    fn f09_what_is_left_out_is_asked_for_once_the_rest_is_taken_and_all_is_counted() {
        for bytes in [1, 100_000] {
            let mut inbox = Inbox::default();
            for number in 0..=MAILBOX_LETTERS {
                inbox.put(letter(Kind::Command, number, bytes));
            }
            assert!(inbox.is_full() && !inbox.wants_more());
            assert!(!commands(&mut inbox).is_empty());
            assert!(inbox.wants_more() && !inbox.is_full());
            inbox.clear();
            assert!(!inbox.wants_more());
            assert_eq!((inbox.letters, inbox.bytes, inbox.probes), (0, 0, 0));
        }
    }
}
