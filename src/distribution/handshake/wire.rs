//! The messages of the handshake as bytes: reading and writing, no rules.
//!
//! All integers are big-endian (erl_dist_protocol). Names travel in Latin-1, as `dist_util` writes them
//! (`atom_to_binary(Node, latin1)`); only the name in the status `named:` is UTF-8.

use std::fmt;

use super::Malformed;
use crate::distribution::DistributionFlags;

pub(super) const OLD_NAME: u8 = b'n';
pub(super) const NAME: u8 = b'N';
pub(super) const STATUS: u8 = b's';
pub(super) const COMPLEMENT: u8 = b'c';
pub(super) const CHALLENGE_REPLY: u8 = b'r';
pub(super) const CHALLENGE_ACK: u8 = b'a';

const NAMED: &[u8] = b"named:";

/// `send_name`, in either form.
pub(super) struct SendName {
    pub(super) flags: DistributionFlags,
    /// `None` in the old form: it follows in the complement.
    pub(super) creation: Option<u32>,
    pub(super) name: String,
}

/// `send_name` as OTP 23 and later write it to a node that they know to be of version 6.
pub(super) fn send_name(flags: DistributionFlags, creation: u32, name: &str) -> Vec<u8> {
    framed(|packet| {
        packet.push(NAME);
        packet.extend_from_slice(&flags.bits().to_be_bytes());
        packet.extend_from_slice(&creation.to_be_bytes());
        push_name(packet, &to_latin1(name));
    })
}

/// Reads `send_name`. Bytes behind the name must be accepted and ignored.
pub(super) fn read_send_name(packet: &[u8]) -> Result<SendName, Malformed> {
    let mut fields = Fields(packet);
    match fields.u8()? {
        NAME => Ok(SendName {
            flags: DistributionFlags::from_bits(fields.u64()?),
            creation: Some(fields.u32()?),
            name: fields.name()?,
        }),
        OLD_NAME => {
            // The version is 5 whichever node sends it, and no node looks at it.
            fields.u16()?;
            let flags = DistributionFlags::from_bits(fields.u32()?.into());
            Ok(SendName { flags, creation: None, name: from_latin1(fields.0) })
        }
        tag => Err(Malformed::Tag { tag }),
    }
}

pub(super) fn status(status: &str) -> Vec<u8> {
    framed(|packet| {
        packet.push(STATUS);
        packet.extend_from_slice(status.as_bytes());
    })
}

/// The status that gives a nameless node its name.
pub(super) fn status_named(name: &str, creation: u32) -> Vec<u8> {
    framed(|packet| {
        packet.push(STATUS);
        packet.extend_from_slice(NAMED);
        push_name(packet, name.as_bytes());
        packet.extend_from_slice(&creation.to_be_bytes());
    })
}

/// What the status says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Status<'a> {
    Named { name: &'a str, creation: u32 },
    Other(&'a [u8]),
}

impl fmt::Display for Status<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { name, .. } => write!(f, "named:{name}"),
            Self::Other(status) => f.write_str(&from_latin1(status)),
        }
    }
}

/// Reads a status. Bytes behind a given name and its creation must be accepted and ignored.
pub(super) fn read_status(packet: &[u8]) -> Result<Status<'_>, Malformed> {
    let mut fields = Fields(packet);
    fields.tag(STATUS)?;
    let Some(given) = fields.0.strip_prefix(NAMED) else {
        return Ok(Status::Other(fields.0));
    };
    let mut fields = Fields(given);
    let length = fields.u16()?.into();
    let name = std::str::from_utf8(fields.take(length)?).map_err(|_| Malformed::NotUtf8)?;
    Ok(Status::Named { name, creation: fields.u32()? })
}

/// `send_challenge`.
#[derive(Debug)]
pub(super) struct SendChallenge {
    pub(super) flags: DistributionFlags,
    pub(super) challenge: u32,
    /// `None` in the old form, which only nodes older than OTP 23 send.
    pub(super) creation: Option<u32>,
    pub(super) name: String,
}

pub(super) fn send_challenge(flags: DistributionFlags, challenge: u32, creation: u32, name: &str) -> Vec<u8> {
    framed(|packet| {
        packet.push(NAME);
        packet.extend_from_slice(&flags.bits().to_be_bytes());
        packet.extend_from_slice(&challenge.to_be_bytes());
        packet.extend_from_slice(&creation.to_be_bytes());
        push_name(packet, &to_latin1(name));
    })
}

/// Reads `send_challenge`. Bytes behind the name must be accepted and ignored.
pub(super) fn read_send_challenge(packet: &[u8]) -> Result<SendChallenge, Malformed> {
    let mut fields = Fields(packet);
    match fields.u8()? {
        NAME => Ok(SendChallenge {
            flags: DistributionFlags::from_bits(fields.u64()?),
            challenge: fields.u32()?,
            creation: Some(fields.u32()?),
            name: fields.name()?,
        }),
        OLD_NAME => {
            fields.u16()?;
            let flags = DistributionFlags::from_bits(fields.u32()?.into());
            Ok(SendChallenge { flags, challenge: fields.u32()?, creation: None, name: from_latin1(fields.0) })
        }
        tag => Err(Malformed::Tag { tag }),
    }
}

/// Reads the complement of an old `send_name`: the high flags, and the creation.
pub(super) fn read_complement(packet: &[u8]) -> Result<(DistributionFlags, u32), Malformed> {
    let mut fields = Fields(packet);
    fields.tag(COMPLEMENT)?;
    let flags = DistributionFlags::from_bits(u64::from(fields.u32()?) << 32);
    let creation = fields.u32()?;
    fields.end()?;
    Ok((flags, creation))
}

pub(super) fn challenge_reply(challenge: u32, digest: [u8; 16]) -> Vec<u8> {
    framed(|packet| {
        packet.push(CHALLENGE_REPLY);
        packet.extend_from_slice(&challenge.to_be_bytes());
        packet.extend_from_slice(&digest);
    })
}

/// Reads the challenge to us and the answer to ours.
pub(super) fn read_challenge_reply(packet: &[u8]) -> Result<(u32, [u8; 16]), Malformed> {
    let mut fields = Fields(packet);
    fields.tag(CHALLENGE_REPLY)?;
    let reply = (fields.u32()?, *fields.chunk()?);
    fields.end()?;
    Ok(reply)
}

pub(super) fn challenge_ack(digest: [u8; 16]) -> Vec<u8> {
    framed(|packet| {
        packet.push(CHALLENGE_ACK);
        packet.extend_from_slice(&digest);
    })
}

/// Reads the answer to our challenge.
pub(super) fn read_challenge_ack(packet: &[u8]) -> Result<[u8; 16], Malformed> {
    let mut fields = Fields(packet);
    fields.tag(CHALLENGE_ACK)?;
    let digest = *fields.chunk()?;
    fields.end()?;
    Ok(digest)
}

fn framed(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = vec![0, 0];
    write(&mut packet);
    let length =
        u16::try_from(packet.len() - 2).expect("the longest part is a name, of 255 characters at most");
    #[expect(clippy::indexing_slicing, reason = "the packet begins with two bytes for it")]
    packet[..2].copy_from_slice(&length.to_be_bytes());
    packet
}

fn push_name(packet: &mut Vec<u8>, name: &[u8]) {
    let length = u16::try_from(name.len()).expect("a name has 255 characters at most");
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(name);
}

/// Characters past Latin-1 do not occur in names that a BEAM takes; a name with some goes out as UTF-8.
fn to_latin1(name: &str) -> Vec<u8> {
    let latin1: Option<Vec<u8>> = name.chars().map(|character| u8::try_from(character).ok()).collect();
    latin1.unwrap_or_else(|| name.as_bytes().to_vec())
}

fn from_latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// A cursor over what a peer sent.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn chunk<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (chunk, rest) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(chunk)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        let [byte] = *self.chunk().map_err(|_| Malformed::Empty)?;
        Ok(byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.chunk().copied().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.chunk().copied().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.chunk().copied().map(u64::from_be_bytes)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn name(&mut self) -> Result<String, Malformed> {
        let length = self.u16()?.into();
        self.take(length).map(from_latin1)
    }

    fn tag(&mut self, expected: u8) -> Result<(), Malformed> {
        match self.u8()? {
            tag if tag == expected => Ok(()),
            tag => Err(Malformed::Tag { tag }),
        }
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Long { bytes: self.0.len() }) }
    }
}
