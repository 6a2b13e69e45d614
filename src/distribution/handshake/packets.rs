//! Handshake packets out of a stream of bytes.
//!
//! During the handshake every message has a length of two bytes before it, after it one of four bytes
//! (erl_dist_protocol, "Definitions"); over TLS all have four ([`Lengths`]). The first frames of the connection often come in the same read as the last
//! packet of the handshake: they stay here untouched until they are fetched.

use super::Malformed;

/// Longest packet that is taken, in bytes. Real ones have about 300 at most (a name is at most 255 characters), and any
/// later version may add something behind the name.
pub const PACKET_BYTES_MAX: usize = 4096;

/// Cuts what a socket gives into packets of the handshake.
///
/// Bounded when it is pushed to only while [`next_packet`](Self::next_packet) says `None`: it then holds less than one
/// packet and one read.
#[derive(Debug, Default)]
pub struct Packets {
    bytes: Vec<u8>,
    taken: usize,
    lengths: Lengths,
}

/// How the length before a packet of the handshake is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lengths {
    /// In two bytes (erl_dist_protocol, "Definitions").
    #[default]
    TwoBytes,
    /// In four bytes, as of the frames after it: over TLS (`{packet, 4}` in ssl's inet_tls_dist).
    FourBytes,
}

impl Lengths {
    /// What [`Client`](super::Client) and [`Server`](super::Server) say is to be sent, with such lengths: packets in a row,
    /// or nothing.
    ///
    /// # Panics
    /// Not with what those two say: something else than whole packets is our misuse.
    pub fn of(self, packets: Vec<u8>) -> Vec<u8> {
        if self == Self::TwoBytes {
            return packets;
        }
        let mut wide = Vec::with_capacity(packets.len() + 4);
        let mut rest = &packets[..];
        while let Some((length, behind)) = rest.split_first_chunk::<2>() {
            let (packet, others) = behind.split_at(u16::from_be_bytes(*length).into());
            wide.extend_from_slice(&[0, 0]);
            wide.extend_from_slice(length);
            wide.extend_from_slice(packet);
            rest = others;
        }
        wide
    }
}

impl Packets {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty one, for packets with such lengths.
    pub fn with_lengths(lengths: Lengths) -> Self {
        Self { lengths, ..Self::default() }
    }

    /// Takes what was read.
    pub fn push(&mut self, read: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(read);
    }

    /// The next whole packet without its length; `None` when more must be read.
    ///
    /// Not to be called once the handshake is over: what follows has another framing, see
    /// [`into_rest`](Self::into_rest).
    ///
    /// # Errors
    /// [`Malformed::Oversized`] when a packet over [`PACKET_BYTES_MAX`] is announced: the other side's fault, and
    /// every later call says the same.
    pub fn next_packet(&mut self) -> Option<Result<&[u8], Malformed>> {
        let left = self.bytes.get(self.taken..)?;
        let (length, behind) = match self.lengths {
            Lengths::TwoBytes => {
                let (length, behind) = left.split_first_chunk()?;
                (u16::from_be_bytes(*length).into(), behind)
            }
            Lengths::FourBytes => {
                let (length, behind) = left.split_first_chunk()?;
                (u32::from_be_bytes(*length), behind)
            }
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > PACKET_BYTES_MAX {
            return Some(Err(Malformed::Oversized { bytes: length }));
        }
        let (packet, rest) = behind.split_at_checked(length)?;
        self.taken = self.bytes.len() - rest.len();
        Some(Ok(packet))
    }

    /// What came behind the packets that were taken: the first bytes of the connection.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.bytes.drain(..self.taken);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_however_the_bytes_are_cut() {
        let stream = b"\0\x03sok\0\0\0\x01a";
        for cut in 0..=stream.len() {
            let mut packets = Packets::new();
            let mut seen = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                packets.push(part);
                while let Some(packet) = packets.next_packet() {
                    seen.push(packet.unwrap().to_vec());
                }
            }
            assert_eq!(seen, [b"sok".to_vec(), Vec::new(), b"a".to_vec()], "cut at {cut}");
            assert_eq!(packets.into_rest(), b"");
        }
    }

    #[test]
    fn bytes_behind_the_last_packet_are_handed_over_untouched() {
        let mut packets = Packets::new();
        packets.push(b"\0\x03sok\0\0\0\x07\x70\x83");
        assert_eq!(packets.next_packet(), Some(Ok(&b"sok"[..])));
        assert_eq!(packets.into_rest(), b"\0\0\0\x07\x70\x83");
    }

    #[test]
    fn lengths_of_four_bytes_are_read_and_written() {
        assert_eq!(Lengths::TwoBytes.of(b"\0\x03sok".to_vec()), b"\0\x03sok");
        assert_eq!(Lengths::FourBytes.of(Vec::new()), b"");
        let stream = [Lengths::FourBytes.of(b"\0\x03sok\0\x01a".to_vec()), vec![0; 3]].concat();
        for cut in 0..=stream.len() {
            let mut packets = Packets::with_lengths(Lengths::FourBytes);
            let mut seen = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                packets.push(part);
                while let Some(packet) = packets.next_packet() {
                    seen.push(packet.unwrap().to_vec());
                }
            }
            assert_eq!(seen, [b"sok".to_vec(), b"a".to_vec()], "cut at {cut}");
            assert_eq!(packets.into_rest(), b"\0\0\0");
        }
        let mut packets = Packets::with_lengths(Lengths::FourBytes);
        packets.push(&[0xff; 4]);
        assert_eq!(packets.next_packet(), Some(Err(Malformed::Oversized { bytes: u32::MAX as usize })));
    }

    #[test]
    fn an_oversized_packet_is_refused_by_its_length_alone() {
        let mut packets = Packets::new();
        packets.push(&[0x10]);
        assert_eq!(packets.next_packet(), None);
        packets.push(&[0x01]);
        assert_eq!(packets.next_packet(), Some(Err(Malformed::Oversized { bytes: 4097 })));
        assert_eq!(packets.next_packet(), Some(Err(Malformed::Oversized { bytes: 4097 })));

        let mut largest = Packets::new();
        largest.push(&[0x10, 0x00]);
        largest.push(&[7; PACKET_BYTES_MAX]);
        assert_eq!(largest.next_packet(), Some(Ok(&[7; PACKET_BYTES_MAX][..])));
    }
}
