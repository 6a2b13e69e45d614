//! Distribution flags: what a node can do, offered in the handshake.
//!
//! A flag is in force only where both sides offered it (erl_dist_protocol, "Distribution Flags"). The names and bits
//! are those of `dist.hrl` without its prefix `DFLAG_`; where the prose of erl_dist_protocol gives another bit
//! (MANDATORY_25_DIGEST), the header is what nodes send.

use std::fmt;

use crate::etf::Traits;

/// A set of distribution flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DistributionFlags(u64);

/// Defines a constant for each flag, and the table that names are taken from.
macro_rules! distribution_flags {
    ($($(#[$doc:meta])+ $name:ident = $bit:literal;)+) => {
        impl DistributionFlags {
            $($(#[$doc])+ pub const $name: Self = Self(1 << $bit);)+

            /// Every flag that has a name, lowest bit first.
            pub const NAMED: &'static [(Self, &'static str)] = &[$((Self::$name, stringify!($name)),)+];
        }
    };
}

distribution_flags! {
    /// The node is published: part of the global name space. A hidden node is one that does not offer it.
    PUBLISHED = 0;
    /// An atom cache in the old form. Obsolete.
    ATOM_CACHE = 1;
    /// References of three words. Mandatory.
    EXTENDED_REFERENCES = 2;
    /// Monitors across nodes: MONITOR_P, DEMONITOR_P, MONITOR_P_EXIT.
    DIST_MONITOR = 3;
    /// Funs have a tag of their own. Mandatory from OTP 25 on.
    FUN_TAGS = 4;
    /// Monitors of registered names across nodes.
    DIST_MONITOR_NAME = 5;
    /// An atom cache in the old form, of a hidden node. Obsolete.
    HIDDEN_ATOM_CACHE = 6;
    /// NEW_FUN_EXT. Mandatory.
    NEW_FUN_TAGS = 7;
    /// Pids and ports of more than 18 bits. Mandatory.
    EXTENDED_PIDS_PORTS = 8;
    /// EXPORT_EXT: `fun M:F/A`. Mandatory from OTP 25 on.
    EXPORT_PTR_TAG = 9;
    /// BIT_BINARY_EXT. Mandatory from OTP 25 on.
    BIT_BINARIES = 10;
    /// NEW_FLOAT_EXT. Mandatory from OTP 25 on.
    NEW_FLOATS = 11;
    /// Text of I/O requests may be any Unicode.
    UNICODE_IO = 12;
    /// The distribution header with its atom cache.
    DIST_HDR_ATOM_CACHE = 13;
    /// SMALL_ATOM_EXT.
    SMALL_ATOM_TAGS = 14;
    /// ATOM_UTF8_EXT and SMALL_ATOM_UTF8_EXT. Mandatory.
    UTF8_ATOMS = 16;
    /// MAP_EXT. Mandatory from OTP 25 on.
    MAP_TAG = 17;
    /// NEW_PID_EXT, NEW_PORT_EXT and NEWER_REFERENCE_EXT: creations of 32 bits. Mandatory.
    BIG_CREATION = 18;
    /// SEND_SENDER in place of SEND, so that the receiver learns who sent.
    SEND_SENDER = 19;
    /// Any term may be the label of a sequential trace token.
    BIG_SEQTRACE_LABELS = 20;
    /// PAYLOAD_EXIT and its kin: reasons travel behind the control message and not in it.
    EXIT_PAYLOAD = 22;
    /// Large messages come in fragments.
    FRAGMENTS = 23;
    /// Version 6 of the handshake, from OTP 23 on. Mandatory from OTP 25 on.
    HANDSHAKE_23 = 24;
    /// UNLINK_ID and UNLINK_ID_ACK: the link protocol without its old races. Mandatory from OTP 26 on.
    UNLINK_ID = 25;
    /// Stands for all flags that OTP 25 made mandatory. Bit 26, whatever else is written about it.
    MANDATORY_25_DIGEST = 26;
    /// SPAWN_REQUEST and SPAWN_REPLY.
    SPAWN = 32;
    /// No capability but a request of the connecting node: to be given a name by the accepting one.
    NAME_ME = 33;
    /// Larger pids, ports and references (up to five words), V4_PORT_EXT. Mandatory from OTP 26 on.
    V4_NC = 34;
    /// Process aliases: ALIAS_SEND. Deprecated from OTP 28 on, to be removed in OTP 30.
    ALIAS = 35;
    /// LOCAL_EXT. Never on the wire between BEAM nodes.
    LOCAL_EXT = 36;
    /// ALTACT_SIG_SEND: messages to aliases, and messages and exit signals with priority. From OTP 28 on.
    ALTACT_SIG = 37;
    /// Native records, from OTP 29 on.
    NATIVE_RECORDS = 38;
}

impl DistributionFlags {
    /// What this node offers to every peer. See [`Self::OFFERED_BECAUSE`].
    pub const OFFERED: Self = union(Self::OFFERED_BECAUSE);

    /// The flags that are offered, and why each.
    pub const OFFERED_BECAUSE: &'static [(Self, &'static str)] = &[
        (Self::EXTENDED_REFERENCES, "mandatory; references are echoed as they came, whatever their length"),
        (Self::DIST_MONITOR, "calls are monitored; without it a BEAM sends no MONITOR_P at all"),
        (Self::FUN_TAGS, "mandatory; funs are stored and given back as they came"),
        (Self::DIST_MONITOR_NAME, "without it a call to a name that nobody has waits for its whole time-out"),
        (Self::NEW_FUN_TAGS, "mandatory; funs are stored and given back as they came"),
        (Self::EXTENDED_PIDS_PORTS, "mandatory; pids are echoed as they came"),
        (Self::EXPORT_PTR_TAG, "mandatory; without it `&M.f/a` would come as a tuple and not be `===`"),
        (Self::BIT_BINARIES, "mandatory; without it a bit string would come as a tuple"),
        (Self::NEW_FLOATS, "mandatory; a float in eight bytes is exact and needs no reading of text"),
        (Self::UNICODE_IO, "text is passed on as the term that it is, so nothing restricts it to Latin-1"),
        (Self::SMALL_ATOM_TAGS, "every form of an atom is read; a byte less for each"),
        (Self::UTF8_ATOMS, "mandatory; atoms of every script are keys and values"),
        (Self::MAP_TAG, "mandatory; maps are keys and values"),
        (Self::BIG_CREATION, "mandatory; our creation has 32 bits, so pids of a former life are told apart"),
        (Self::SEND_SENDER, "the sender's pid comes with each message, for logs and limits"),
        (Self::BIG_SEQTRACE_LABELS, "trace tokens are walked over unread, so their labels may be any term"),
        (
            Self::FRAGMENTS,
            // `scripts/bench mixed`, medians of three rounds, OTP 25, two cores. Small gets beside puts of 64 MiB on one
            // connection: p99 13 ms with fragments, 92 ms without (a GenServer on a BEAM: 54 ms), p50 4 and 55 ms, the large
            // puts at 0.92 of the MB/s; beside puts and gets: p99 49 and 118 ms, the large ones at 1.16.
            // Our answers cut into 64 KiB to 1 MiB, on loopback (a busier machine): beside gets of 64 MiB p50 was 10 to
            // 53 ms and not 54 to 81 ms, but p99 290 to 470 ms and not 114 to 240 ms, at half the MB/s, as a BEAM copies a
            // message of fragments together before it reads it. So a message of ours is one frame where that takes up to 0.2 s
            // at the rate that was measured on the connection (`pace.rs`), and fragments of 20 ms where it takes longer: at
            // 80 Mbit/s a small get beside one of 60 MiB took 4.8 s with one frame, and 60 ms at worst with fragments, at the
            // same 6.6 s for the large one (`scripts/bench links`). On loopback a lone 16 MiB get keeps its rate, as one frame.
            // And a BEAM drops a node of which half a packet is all that comes for its tick time.
            "a large message goes in pieces that small calls pass by: a BEAM's always, ours on a link that is slow for it",
        ),
        (Self::EXIT_PAYLOAD, "the answer of a spawned call is an exit reason and may be large"),
        (Self::HANDSHAKE_23, "mandatory; this is version 6 of the handshake, and no other is spoken"),
        (Self::UNLINK_ID, "mandatory from OTP 26 on; both link protocols are spoken"),
        (
            Self::MANDATORY_25_DIGEST,
            "all that it stands for is offered, and later OTP may look for nothing else",
        ),
        (Self::SPAWN, "rpc and erpc are spawn requests; without it they fail or fall back to rex"),
        (Self::V4_NC, "mandatory from OTP 26 on; references of five words are echoed like others"),
        (Self::ALIAS, "calls from OTP 24 on are answered to an alias, so late answers go nowhere"),
        (
            Self::ALTACT_SIG,
            "answers to aliases from OTP 28 on, and the only way to them from OTP 30 on, which removes ALIAS_SEND",
        ),
    ];

    /// The flags that are not offered, and why each.
    pub const WITHHELD_BECAUSE: &'static [(Self, &'static str)] = &[
        (Self::PUBLISHED, "a hidden node: published, we would have to take part in global's own protocol"),
        (Self::ATOM_CACHE, "obsolete"),
        (Self::HIDDEN_ATOM_CACHE, "obsolete"),
        (
            Self::DIST_HDR_ATOM_CACHE,
            "values with atoms would come as references to a table of the connection and have to be rewritten to be \
             stored; frames stay self-contained",
        ),
        (Self::NAME_ME, "a request, not a capability: set for one handshake where a name is wanted"),
        (Self::LOCAL_EXT, "for a node that reads its own bytes"),
        (Self::NATIVE_RECORDS, "safe not to offer; the records themselves are read all the same"),
    ];

    /// What this node needs of a peer: what OTP 23 has always needed, and version 6 of the handshake.
    ///
    /// No more than that, so that OTP 23 to 29 and C nodes all pass. What a peer lacks beyond it is its own loss,
    /// like aliases on OTP 23.
    pub const MANDATORY: Self = Self(
        Self::EXTENDED_REFERENCES.0
            | Self::NEW_FUN_TAGS.0
            | Self::EXTENDED_PIDS_PORTS.0
            | Self::UTF8_ATOMS.0
            | Self::BIG_CREATION.0
            | Self::HANDSHAKE_23.0,
    );

    /// What MANDATORY_25_DIGEST stands for (`dist.hrl`, MANDATORY_DFLAGS_25).
    pub const MANDATORY_25: Self = Self(
        Self::EXTENDED_REFERENCES.0
            | Self::FUN_TAGS.0
            | Self::NEW_FUN_TAGS.0
            | Self::EXTENDED_PIDS_PORTS.0
            | Self::EXPORT_PTR_TAG.0
            | Self::BIT_BINARIES.0
            | Self::NEW_FLOATS.0
            | Self::UTF8_ATOMS.0
            | Self::MAP_TAG.0
            | Self::BIG_CREATION.0
            | Self::HANDSHAKE_23.0,
    );

    /// No flag at all.
    pub const NONE: Self = Self(0);

    /// From the wire. Bits without a name are kept.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// To the wire.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `other` are in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether a node that offers these flags knows process aliases, so that a call of ours may be answered to one.
    pub const fn knows_aliases(self) -> bool {
        self.contains(Self::ALIAS) || self.contains(Self::ALTACT_SIG)
    }

    /// Whether a node that offers these flags can decode a term with these traits. What it cannot decode costs it the
    /// connection: no release reads [`Traits::OLD_FUN`], and what else depends on a flag stands where the traits are.
    #[inline]
    pub const fn can_decode(self, traits: Traits) -> bool {
        !traits.contains(Traits::OLD_FUN)
            && (!traits.contains(Traits::V4_NC) || self.contains(Self::V4_NC))
            && (!traits.contains(Traits::NATIVE_RECORD) || self.contains(Self::NATIVE_RECORDS))
    }

    /// Whether no flag is in this set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The flags of either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flags that both sets have: what is in force between two nodes that offered them.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The flags of this set that are not in the other.
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// This set with what MANDATORY_25_DIGEST stands for, when that is in it (`dist_util`,
    /// expand_mandatory_25_flag).
    #[must_use]
    pub const fn expanded(self) -> Self {
        if self.contains(Self::MANDATORY_25_DIGEST) { self.union(Self::MANDATORY_25) } else { self }
    }

    /// The flags that a node which offers this set lacks to be a peer of ours. Empty: it may connect.
    pub const fn missing(self) -> Self {
        Self::MANDATORY.difference(self.expanded())
    }

    /// The names of the flags in this set, lowest bit first. Bits without a name are passed over.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMED.iter().filter(move |(flag, _)| self.contains(*flag)).map(|&(_, name)| name)
    }
}

impl fmt::Display for DistributionFlags {
    /// The names, with commas; `bit N` for what has no name; `no flags` for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no flags");
        }
        let mut before = "";
        for bit in (0..u64::BITS).filter(|bit| self.0 & (1 << bit) != 0) {
            let flag = Self(1 << bit);
            match Self::NAMED.iter().find(|(named, _)| *named == flag) {
                Some((_, name)) => write!(f, "{before}{name}")?,
                None => write!(f, "{before}bit {bit}")?,
            }
            before = ", ";
        }
        Ok(())
    }
}

impl fmt::Debug for DistributionFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DistributionFlags({:#x}: {self})", self.0)
    }
}

const fn union(mut table: &[(DistributionFlags, &str)]) -> DistributionFlags {
    let mut all = DistributionFlags::NONE;
    while let [(flag, _), others @ ..] = table {
        all = all.union(*flag);
        table = others;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    // Captured: what `send_name` of each version carries.
    const OTP_23: DistributionFlags = DistributionFlags::from_bits(0x1_01df_7fbd);
    const OTP_25: DistributionFlags = DistributionFlags::from_bits(0xd_07df_7fbd);
    const OTP_29: DistributionFlags = DistributionFlags::from_bits(0x6d_07df_7fbd);

    #[test]
    fn every_otp_from_23_to_29_may_connect() {
        for flags in [OTP_23, OTP_25, OTP_29] {
            assert_eq!(flags.missing(), DistributionFlags::NONE);
        }
    }

    #[test]
    fn what_is_missing_is_listed_by_name() {
        let flags = OTP_25
            .difference(DistributionFlags::UTF8_ATOMS.union(DistributionFlags::HANDSHAKE_23))
            .difference(DistributionFlags::MANDATORY_25_DIGEST);
        assert_eq!(flags.missing().to_string(), "UTF8_ATOMS, HANDSHAKE_23");
        assert_eq!(flags.missing().names().collect::<Vec<_>>(), ["UTF8_ATOMS", "HANDSHAKE_23"]);
    }

    #[test]
    fn the_digest_flag_stands_for_all_that_otp_25_made_mandatory() {
        let digest = DistributionFlags::MANDATORY_25_DIGEST;
        assert_eq!(digest.bits(), 0x400_0000);
        assert_eq!(digest.missing(), DistributionFlags::NONE);
        assert_eq!(digest.expanded(), digest.union(DistributionFlags::MANDATORY_25));
        assert_eq!(DistributionFlags::SPAWN.expanded(), DistributionFlags::SPAWN);
    }

    #[test]
    fn each_named_flag_is_either_offered_or_withheld_and_has_one_bit() {
        for &(flag, name) in DistributionFlags::NAMED {
            let in_table =
                |table: &[(DistributionFlags, &str)]| table.iter().filter(|(f, _)| *f == flag).count();
            let offered = in_table(DistributionFlags::OFFERED_BECAUSE);
            let withheld = in_table(DistributionFlags::WITHHELD_BECAUSE);
            assert_eq!(offered + withheld, 1, "{name}");
            assert_eq!(flag.bits().count_ones(), 1, "{name}");
        }
    }

    #[test]
    fn what_is_offered_is_what_a_hidden_otp_29_offers_but_for_the_atom_cache_and_native_records() {
        let withheld = DistributionFlags::PUBLISHED
            .union(DistributionFlags::DIST_HDR_ATOM_CACHE)
            .union(DistributionFlags::NATIVE_RECORDS);
        assert_eq!(DistributionFlags::OFFERED, OTP_29.difference(withheld));
        let newer = DistributionFlags::ALTACT_SIG;
        assert_eq!(DistributionFlags::OFFERED.difference(newer), OTP_25.difference(withheld));
    }

    #[test]
    fn aliases_are_known_by_either_flag() {
        let both = DistributionFlags::ALIAS.union(DistributionFlags::ALTACT_SIG);
        assert!(OTP_25.knows_aliases() && OTP_29.knows_aliases() && !OTP_23.knows_aliases());
        // OTP 30 removes ALIAS_SEND, and may offer ALIAS no more.
        assert!(OTP_29.difference(DistributionFlags::ALIAS).knows_aliases());
        assert!(!OTP_29.difference(both).knows_aliases());
    }

    #[test]
    fn what_is_offered_satisfies_otp_26_and_later() {
        // dist.hrl of OTP 27 and 29: MANDATORY_DFLAGS_25 and MANDATORY_DFLAGS_26.
        let mandatory_26 = DistributionFlags::MANDATORY_25
            .union(DistributionFlags::V4_NC)
            .union(DistributionFlags::UNLINK_ID)
            .union(DistributionFlags::MANDATORY_25_DIGEST);
        assert!(DistributionFlags::OFFERED.contains(mandatory_26));
    }

    #[test]
    fn sets_are_shown_by_name_and_unknown_bits_by_number() {
        assert_eq!(DistributionFlags::NONE.to_string(), "no flags");
        let odd = DistributionFlags::ALIAS.union(DistributionFlags::from_bits(1 << 63 | 1 << 15));
        assert_eq!(odd.to_string(), "bit 15, ALIAS, bit 63");
        assert_eq!(format!("{:?}", DistributionFlags::PUBLISHED), "DistributionFlags(0x1: PUBLISHED)");
    }

    #[test]
    fn names_and_bits_agree_with_the_second_opinion() {
        use erl_dist::DistributionFlags as Theirs;
        for (ours, theirs) in [
            (DistributionFlags::PUBLISHED, Theirs::PUBLISHED),
            (DistributionFlags::DIST_MONITOR_NAME, Theirs::DIST_MONITOR_NAME),
            (DistributionFlags::NEW_FLOATS, Theirs::NEW_FLOATS),
            (DistributionFlags::MAP_TAG, Theirs::MAP_TAGS),
            (DistributionFlags::BIG_CREATION, Theirs::BIG_CREATION),
            (DistributionFlags::SEND_SENDER, Theirs::SEND_SENDER),
            (DistributionFlags::EXIT_PAYLOAD, Theirs::EXIT_PAYLOAD),
            (DistributionFlags::FRAGMENTS, Theirs::FRAGMENTS),
            (DistributionFlags::UNLINK_ID, Theirs::UNLINK_ID),
            (DistributionFlags::SPAWN, Theirs::SPAWN),
            (DistributionFlags::NAME_ME, Theirs::NAME_ME),
            (DistributionFlags::V4_NC, Theirs::V4_NC),
            (DistributionFlags::ALIAS, Theirs::ALIAS),
        ] {
            assert_eq!(ours.bits(), theirs.bits());
        }
    }
}
