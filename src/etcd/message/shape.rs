//! Bounds what a message grows to when it is read: two bytes of a list can become an entry of two hundred, so that entries are
//! counted before.

/// Fields of a message, and of those in its lists, that are read at most. An entry of a range is one, an event of a watch too.
pub const ENTRIES_MAX: usize = 1 << 18;

/// Where a message has lists: fields whose content is looked into as well.
#[derive(Debug)]
pub struct Shape(&'static [(u64, &'static Shape)]);

/// Without lists, or with such as are lists of plain values.
pub(super) static HEADER: Shape = Shape(&[]);
pub(super) static AUTH: Shape = Shape(&[]);
pub(super) static STATUS: Shape = Shape(&[]);
pub(super) static LEASE_KEYS: Shape = Shape(&[]);
pub(super) static ALARM: Shape = Shape(&[]);
pub(super) static RANGE: Shape = Shape(&[]);
pub(super) static PUT: Shape = Shape(&[]);
pub(super) static DELETE: Shape = Shape(&[]);
pub(in crate::etcd) static WATCH: Shape = Shape(&[]);
/// Each member has two lists.
pub(super) static MEMBERS: Shape = Shape(&[(2, &HEADER)]);
pub(super) static TXN: Shape = Shape(&[(3, &OP)]);
static OP: Shape = Shape(&[(1, &RANGE), (2, &PUT), (3, &DELETE), (4, &TXN)]);

/// What is wrong with a message before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::etcd) enum Misshapen {
    /// It has more than [`ENTRIES_MAX`].
    TooManyEntries,
    /// A field is not whole, or of no kind that etcd uses.
    NotProtobuf,
}

impl Shape {
    /// Counts. (Protocol Buffers, "Encoding": a field is its number and kind as one varint, then a varint, eight bytes, a length
    /// with so many bytes, or four bytes. Kinds 3 and 4, groups, are in no message of etcd.)
    pub(in crate::etcd) fn check(&'static self, message: &[u8]) -> Result<(), Misshapen> {
        let mut entries = 0;
        let mut inside = vec![(message, self)];
        while let Some((mut bytes, shape)) = inside.pop() {
            while !bytes.is_empty() {
                entries += 1;
                if entries > ENTRIES_MAX {
                    return Err(Misshapen::TooManyEntries);
                }
                let key = varint(&mut bytes)?;
                let content = match key & 7 {
                    0 => {
                        varint(&mut bytes)?;
                        continue;
                    }
                    1 => 8,
                    2 => varint(&mut bytes)?,
                    5 => 4,
                    _ => return Err(Misshapen::NotProtobuf),
                };
                let len = usize::try_from(content).map_err(|_| Misshapen::NotProtobuf)?;
                let (content, rest) = bytes.split_at_checked(len).ok_or(Misshapen::NotProtobuf)?;
                bytes = rest;
                let inner = shape.0.iter().find(|(field, _)| key & 7 == 2 && *field == key >> 3);
                inside.extend(inner.map(|(_, shape)| (content, *shape)));
            }
        }
        Ok(())
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Misshapen> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Misshapen::NotProtobuf)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Misshapen::NotProtobuf)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::etcd::message::{KeyValue, OpResponse, RangeResponse, ResponseOp, TxnResponse};

    fn range(entries: usize) -> RangeResponse {
        RangeResponse { kvs: vec![KeyValue::default(); entries], count: 7, ..RangeResponse::default() }
    }

    fn txn(response: OpResponse) -> TxnResponse {
        TxnResponse { responses: vec![ResponseOp { response: Some(response) }], ..TxnResponse::default() }
    }

    #[test]
    fn entries_are_counted_before_they_are_read_also_deep_inside() {
        assert_eq!(RANGE.check(&range(ENTRIES_MAX - 1).encode_to_vec()), Ok(()));
        assert_eq!(RANGE.check(&range(ENTRIES_MAX).encode_to_vec()), Err(Misshapen::TooManyEntries));
        let deep = |entries| txn(OpResponse::Txn(txn(OpResponse::Range(range(entries))))).encode_to_vec();
        assert_eq!(TXN.check(&deep(1000)), Ok(()));
        assert_eq!(TXN.check(&deep(ENTRIES_MAX)), Err(Misshapen::TooManyEntries));
    }

    #[test]
    fn a_message_nested_without_end_is_walked_and_then_refused_by_the_reader() {
        let mut message = Vec::new();
        for _ in 0..5_000 {
            let op = [vec![0x22], length(message.len()), message].concat();
            message = [vec![0x1a], length(op.len()), op].concat();
        }
        assert_eq!(TXN.check(&message), Ok(()));
        assert!(TxnResponse::decode(&message[..]).is_err());
    }

    fn length(mut len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while len >= 0x80 {
            bytes.push((len & 0x7f) as u8 | 0x80);
            len >>= 7;
        }
        bytes.push(len as u8);
        bytes
    }

    #[test]
    fn what_is_cut_or_of_another_kind_is_refused_and_nothing_panics() {
        let whole = txn(OpResponse::Range(range(3))).encode_to_vec();
        for len in 0..whole.len() {
            let _refused_or_shorter = TXN.check(&whole[..len]);
        }
        assert_eq!(TXN.check(&whole[..whole.len() - 1]), Err(Misshapen::NotProtobuf));
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = byte;
                let _refused_or_another = TXN.check(&changed);
            }
        }
        assert_eq!(HEADER.check(&[0x0b]), Err(Misshapen::NotProtobuf), "a group");
        assert_eq!(HEADER.check(&[0xff; 11]), Err(Misshapen::NotProtobuf));
        assert_eq!(
            HEADER.check(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Err(Misshapen::NotProtobuf)
        );
    }
}
