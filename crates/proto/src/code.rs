//! The closed list of what may cross the wire as an error.

use minicbor::{Decode, Decoder, Encode};

macro_rules! codes {
    ($($(#[$doc:meta])* $number:literal $name:ident = $text:literal, $retry:literal, $sentence:literal;)*) => {
        /// An error as peers tell each other: a stable number on the wire, a stable word for
        /// people and logs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
        #[cbor(index_only)]
        pub enum Code {
            $(#[doc = $sentence] $(#[$doc])* #[n($number)] $name,)*
        }

        /// A number of a later version reads as [`Code::Internal`]: whoever gets it cannot tell why, and need not
        /// leave because of that.
        impl<'b, C> Decode<'b, C> for Code {
            fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Ok(match decoder.u32()? {
                    $($number => Self::$name,)*
                    _ => Self::Internal,
                })
            }
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable word that CLI, web and log show.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means and what to do, in one sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }

            /// Whether the same thing may succeed when tried again later.
            #[must_use]
            pub const fn may_retry(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }

            /// The code with this word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == word)
            }
        }
    };
}

codes! {
    1 Internal = "internal", true, "something went wrong on the other side; its log has the detail";
    2 UnsupportedVersion = "unsupported_version", false, "the two sides speak different protocol versions; update the older one";
    3 BadFrame = "bad_frame", false, "a frame could not be understood";
    4 TooLarge = "too_large", false, "a frame was larger than its kind may be";
    5 UnknownFrame = "unknown_frame", false, "a frame of a kind this side does not know";
    6 NotNow = "not_now", true, "that frame is not allowed in this state of the connection";
    7 BadProof = "bad_proof", false, "the key could not be proved";
    8 Timeout = "timeout", true, "the other side took too long";
    9 NotFound = "not_found", false, "no such thing, or not for this peer";
    10 Gap = "gap", true, "the sequence does not continue what is stored";
    11 Full = "full", true, "a store or mailbox is full";
    12 RateLimited = "rate_limited", true, "too many requests; wait a little";
    13 Superseded = "superseded", false, "the same peer connected again from elsewhere";
    14 Restarting = "restarting", true, "the relay restarts; connect again shortly";
    15 NotAllowed = "not_allowed", false, "this relay does not serve this peer";
    16 StoreFailed = "store_failed", true, "the relay could not write to its store";
    17 CaptivePortal = "captive_portal", true, "a page of the network answered in the relay's place; sign in to the network in a browser, then it connects by itself";
    18 Intercepted = "intercepted", true, "the relay shows a certificate that this machine has no reason to trust, so something in between may be reading along; a private authority can be named with FARHELM_CA_FILE";
    19 NotARelay = "not_a_relay", true, "something else than a relay answered at that address; check the address, or what stands in between";
    20 BadLink = "bad_link", false, "the pairing link is cut off or not a farhelm link; copy it whole";
    21 LinkExpired = "link_expired", false, "the pairing link has expired; make a new one with `farhelm pair`";
    22 LinkUsed = "link_used", false, "the pairing link was already used, or newer ones took its place; make a new one with `farhelm pair`";
    23 WrongSecret = "wrong_secret", false, "the pairing link does not belong to this host; copy it whole or make a new one";
    24 PairingRefused = "pairing_refused", false, "the pairing was refused on the host";
    30 BadSeal = "bad_seal", false, "a sealed message did not open; it was altered or not meant for this peer";
    31 BadSignature = "bad_signature", false, "a signature did not match; the message was altered or forged";
    32 Tampered = "tampered", false, "the log does not continue what was seen before; the relay may be altering it";
    33 RolledBack = "rolled_back", false, "the relay shows an older state than was seen before";
    34 KeyMissing = "key_missing", true, "the key for this part of the log has not arrived yet";
    40 Forbidden = "forbidden", false, "this device may not do that; its owner can grant it";
    41 Revoked = "revoked", false, "this device was removed from the fleet; pair it again";
    42 Expired = "expired", false, "the command arrived after its time was over";
    43 ApprovalNotPending = "approval_not_pending", false, "the approval was already decided, or is void";
    44 DigestMismatch = "digest_mismatch", false, "what was shown is not what would run; look at the approval again";
    45 UnknownOption = "unknown_option", false, "the agent does not offer that option";
    46 SessionNotFound = "session_not_found", false, "no such session on this host";
    47 SessionEnded = "session_ended", false, "the session has ended";
    48 NothingRunning = "nothing_running", false, "no turn is running";
    49 PromptNotQueued = "prompt_not_queued", false, "the prompt is not waiting any more";
    50 UnknownMode = "unknown_mode", false, "the agent does not offer that mode";
    51 BadCommand = "bad_command", false, "the command could not be understood";
    52 DuplicateCommand = "duplicate_command", false, "the command id was used before for something else";
    53 QueueFull = "queue_full", true, "too many prompts are waiting in this session";
    60 AgentUnknown = "agent_unknown", false, "no agent of that name is known; see `farhelm up --help`";
    61 AgentMissing = "agent_missing", false, "the agent's program is not installed or not on the PATH";
    62 AgentExited = "agent_exited", true, "the agent's program ended";
    63 AgentSilent = "agent_silent", true, "the agent did not answer in time";
    64 AgentGarbage = "agent_garbage", true, "the agent printed something that is not its protocol";
    65 AgentRefused = "agent_refused", true, "the agent answered with an error";
    66 AgentLoginNeeded = "agent_login_needed", false, "the agent wants to be logged in first; run it once by itself";
    70 FolderMissing = "folder_missing", false, "the folder does not exist or is not a folder";
    71 StateUnusable = "state_unusable", false, "the state folder cannot be used";
    72 AlreadyRunning = "already_running", false, "another daemon uses this state folder";
    73 NotRunning = "not_running", false, "no daemon is running; start one with `farhelm up`";
    74 RelayUnreachable = "relay_unreachable", true, "the relay cannot be reached";
    75 HostOffline = "host_offline", true, "the host is not connected; commands wait for it";
    76 JournalFailed = "journal_failed", true, "the journal could not be written; free some disk space";
    77 TunnelFailed = "tunnel_failed", true, "the tunnel program did not give an address";
    78 NotPaired = "not_paired", false, "this machine is not paired; use `farhelm join LINK`";
    79 Ambiguous = "ambiguous", false, "more than one thing matches; give more of its id";
    80 Withheld = "withheld", true, "the relay has newer events of the host and does not pass them on";
    81 HostSilent = "host_silent", true, "the host is connected to the relay and does not answer; look at it with `farhelm doctor` there";
    82 ClockSkew = "clock_skew", false, "this machine's clock is wrong; set it";
    83 NoService = "no_service", false, "there is no service manager here that Farhelm knows; start it with `farhelm up`";
    84 Copied = "copied", false, "another daemon runs with the keys of this host, or this state folder is an older copy; end one of them";
    85 PromptChanged = "prompt_changed", false, "somebody has changed that prompt meanwhile; look at it again";
    86 Recalled = "recalled", false, "the command was taken back before it had an effect";
    87 TooLate = "too_late", false, "the command has had its effect and cannot be taken back";
    88 NotIndeterminate = "not_indeterminate", false, "what became of the first command is known; there is nothing to send again";
    89 HistoryLimited = "history_limited", true, "the relay does not have that part of the log any more; the host has it";
    90 DiskFull = "disk_full", true, "the disk is full; free some space there, and what waits goes on by itself";
    91 JournalFull = "journal_full", false, "the logs alone need more room than the journal may have; raise `journal_mib` in config.toml";
    92 HistoryDamaged = "history_damaged", false, "a part of this log was damaged on the host's disk and is lost";
    93 HistoryDropped = "history_dropped", false, "the oldest part of this log was dropped to keep the journal within its size";
    95 TooManyAgents = "too_many_agents", true, "as many agents run as may at once; end some, or raise `agents_at_once` in config.toml";
    96 KeeperLost = "keeper_lost", true, "the process that held the agent was ended, and the agent with it";
    97 RelaySilent = "relay_silent", true, "the relay lets the host connect and does not answer it; look at that relay and its log, or restart it: the host tries again by itself";
}

impl core::fmt::Display for Code {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Code {
    /// Reads the word; one that a newer peer made is [`Code::Internal`].
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let word = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Ok(Self::from_word(&word).unwrap_or(Self::Internal))
    }
}

#[cfg(feature = "ts")]
impl ts_rs::TS for Code {
    type WithoutGenerics = Self;
    type OptionInnerType = Self;
    fn name(_: &ts_rs::Config) -> String {
        "string".to_owned()
    }
    fn inline(cfg: &ts_rs::Config) -> String {
        Self::name(cfg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_parse_back() {
        for code in Code::ALL {
            assert_eq!(Code::from_word(code.as_str()), Some(*code));
        }
    }

    #[test]
    fn f23_a_number_of_a_later_version_reads_as_internal() {
        let numbers: Vec<Code> = [0_u32, 2, 4_000_000_000]
            .into_iter()
            .map(|number| minicbor::decode(&minicbor::to_vec(number).unwrap()).unwrap())
            .collect();
        assert_eq!(numbers.first(), Some(&Code::Internal));
        assert_ne!(numbers.get(1), Some(&Code::Internal));
        assert_eq!(numbers.get(2), Some(&Code::Internal));
        for code in Code::ALL {
            let bytes = minicbor::to_vec(code).unwrap();
            assert_eq!(minicbor::decode::<Code>(&bytes).unwrap(), *code);
        }
        assert!(minicbor::decode::<Code>(&minicbor::to_vec("internal").unwrap()).is_err());
    }
}
