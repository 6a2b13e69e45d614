//! What stands in etcd of a holder, as bytes that a person can read too.
//!
//! ```text
//! <store>/h    1 CREATION ID SERIAL NODE      the holder: its process
//! <store>/hs   CREATION NODE                  a line for each node that has held, the last first
//! ```

use std::fmt::Write;
use std::sync::Arc;

use crate::distribution::NodeName;
use crate::etf::Pid;

/// Nodes that have held and are known.
pub const FORMER_MAX: usize = 64;
/// Bytes of a value that is read at most: as many names of the longest kind have less.
const BYTES_MAX: usize = 128 << 10;
/// The form of a holder's value. One of another form is not understood, and its lease is waited for.
const FORM: &str = "1";

/// One life of a node: a node that is started again is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    /// Its name.
    pub node: Arc<str>,
    /// Its creation.
    pub creation: u32,
}

impl Life {
    /// The life that a process is of.
    pub fn of(pid: &Pid) -> Self {
        Self { node: Arc::clone(&pid.node), creation: pid.creation }
    }

    /// Whether a process is of it.
    pub fn has(&self, pid: &Pid) -> bool {
        self.creation == pid.creation && self.node == pid.node
    }
}

/// The value that names a holder.
pub fn write_holder(pid: &Pid) -> Vec<u8> {
    format!("{FORM} {} {} {} {}", pid.creation, pid.id, pid.serial, pid.node).into_bytes()
}

/// Reads it; `None`: it is none, or of a form that is not known here.
pub fn read_holder(value: &[u8]) -> Option<Pid> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= BYTES_MAX)?;
    let mut parts = text.splitn(5, ' ');
    parts.next().filter(|form| *form == FORM)?;
    let mut number = || parts.next()?.parse::<u32>().ok();
    let (creation, id, serial) = (number()?, number()?, number()?);
    Some(Pid { node: read_node(parts.next()?)?, id, serial, creation })
}

/// The value that names those that have held.
pub fn write_former(former: &[Life]) -> Vec<u8> {
    let mut text = String::new();
    for Life { node, creation } in former.iter().take(FORMER_MAX) {
        // A string takes everything.
        let _ = writeln!(text, "{creation} {node}");
    }
    text.into_bytes()
}

/// Reads it: what is no such line is left out.
pub fn read_former(value: &[u8]) -> Vec<Life> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= BYTES_MAX);
    let life = |line: &str| {
        let (creation, node) = line.split_once(' ')?;
        Some(Life { node: read_node(node)?, creation: creation.parse().ok()? })
    };
    text.unwrap_or_default().lines().filter_map(life).take(FORMER_MAX).collect()
}

fn read_node(text: &str) -> Option<Arc<str>> {
    NodeName::new(text).ok().map(|name| name.as_str().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn life(node: &str, creation: u32) -> Life {
        Life { node: node.into(), creation }
    }

    #[test]
    fn a_holder_and_those_before_it_are_read_as_they_were_written() {
        let pid = Pid { node: "kv 1@höst".into(), id: 7, serial: 2, creation: u32::MAX };
        assert_eq!(write_holder(&pid), "1 4294967295 7 2 kv 1@höst".as_bytes());
        assert_eq!(read_holder(&write_holder(&pid)), Some(pid.clone()));
        assert!(Life::of(&pid).has(&pid) && !life("kv 1@höst", 1).has(&pid));
        for other in ["", "2 1 7 2 a@h", "1 1 7 a@h", "1 -1 7 2 a@h", "1 1 7 2 a", "1 1 7 2 a@h\n", "1 1 7 2"]
        {
            assert_eq!(read_holder(other.as_bytes()), None, "{other:?}");
        }
        let former = [life("b@h", 3), life("a@h", 1)];
        assert_eq!(write_former(&former), b"3 b@h\n1 a@h\n");
        assert_eq!(read_former(&write_former(&former)), former);
        assert_eq!(read_former(b"3 b@h\nelse\n\n1 a@h"), former);
        let many: Vec<Life> = (0..100).map(|creation| life("a@h", creation)).collect();
        assert_eq!(read_former(&write_former(&many)), many[..FORMER_MAX]);
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(pid) = read_holder(&bytes) {
                prop_assert_eq!(read_holder(&write_holder(&pid)), Some(pid));
            }
            let former = read_former(&bytes);
            prop_assert_eq!(read_former(&write_former(&former)), former);
        }
    }
}
