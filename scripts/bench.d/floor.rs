//! The floor: the least that a server of calls can do, to measure others by. It is no store.
//!
//! It reads all the frames that one read brings, answers each call by copying bytes, and writes once. What is
//! answered to a get is a constant: the last value of another length that was put, one for keys that begin with
//! `large` and one for all others. It offers monitors, as kvnode does, so that a BEAM's call is three frames here too,
//! of which it only skips two; it can be told not to, to see what they cost.
//!
//! *Parked* it blocks in the read. *Polling* it asks the socket again and again for a short while, yielding the
//! processor each time, before it blocks.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use kvnode::distribution::DistributionFlags;

use crate::{Result, link};

/// Runs until stdin ends, as a node of this name that polls for that long and offers these flags.
pub fn main(name: &str, epmd_port: u16, poll: Duration, flags: DistributionFlags) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let _registration = link::register(epmd_port, name, listener.local_addr()?.port())?;
    let full_name = format!("{name}@{}", link::HOST);
    thread::spawn(move || {
        loop {
            // A connection that fails concerns nobody else; its client says so.
            let Ok(linked) = link::accept(&listener, &full_name, flags) else { continue };
            thread::spawn(move || Floor::new(linked, poll).and_then(|mut floor| floor.run()));
        }
    });
    println!("ready");
    io::stdout().flush()?;
    // The end of stdin is the end of the process that started this.
    io::stdin().lock().lines().for_each(drop);
    Ok(())
}

/// Room for one read.
const ROOM_BYTES: usize = 256 << 10;

struct Floor {
    stream: TcpStream,
    poll: Duration,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    out: Vec<u8>,
    constants: Constants,
}

/// The encoded answers to a get of a small and of a large value.
struct Constants([Vec<u8>; 2]);

impl Constants {
    fn of(&mut self, key: &[u8]) -> &mut Vec<u8> {
        // BINARY_EXT and its length stand before the text.
        let large = key.get(5..).is_some_and(|text| text.starts_with(b"large"));
        &mut self.0[usize::from(large)]
    }
}

impl Floor {
    fn new(linked: link::Linked, poll: Duration) -> io::Result<Self> {
        let link::Linked { stream, first } = linked;
        stream.set_nonblocking(!poll.is_zero())?;
        let mut buffer = first;
        let end = buffer.len();
        buffer.resize(ROOM_BYTES.max(end), 0);
        let constants = Constants([const { [119, 3, b'n', b'i', b'l'] }; 2].map(Vec::from));
        Ok(Self { stream, poll, buffer, start: 0, end, out: Vec::new(), constants })
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            while let Some(len) = self.complete_frame() {
                let from = self.start + 4;
                self.start = from + len;
                if len == 0 {
                    self.out.extend_from_slice(&[0; 4]);
                } else if answer(&self.buffer[from..from + len], &mut self.constants, &mut self.out).is_none()
                {
                    return Err(ErrorKind::InvalidData.into());
                }
            }
            self.write()?;
            self.make_room();
            match self.read()? {
                0 => return Ok(()),
                len => self.end += len,
            }
        }
    }

    fn claimed_len(&self) -> Option<usize> {
        let head = self.buffer[self.start..self.end].first_chunk::<4>()?;
        Some(u32::from_be_bytes(*head) as usize)
    }

    fn complete_frame(&self) -> Option<usize> {
        self.claimed_len().filter(|len| self.end - self.start >= 4 + len)
    }

    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let want = self.claimed_len().map_or(ROOM_BYTES, |len| len + 4 + ROOM_BYTES);
        if self.buffer.len() < want {
            self.buffer.resize(want, 0);
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut polling_since = None;
        loop {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let since = *polling_since.get_or_insert_with(Instant::now);
                    if since.elapsed() < self.poll {
                        thread::yield_now();
                        continue;
                    }
                    self.stream.set_nonblocking(false)?;
                    let read = self.stream.read(&mut self.buffer[self.end..]);
                    self.stream.set_nonblocking(true)?;
                    return read;
                }
                read => return read,
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.out.len() {
            match self.stream.write(&self.out[written..]) {
                Ok(len) => written += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stream.set_nonblocking(false)?;
                    let wrote = self.stream.write_all(&self.out[written..]);
                    self.stream.set_nonblocking(true)?;
                    wrote?;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        Ok(())
    }
}

/// Answers one frame, where it is a call. `None`: bytes that no caller here sends.
fn answer(frame: &[u8], constants: &mut Constants, out: &mut Vec<u8>) -> Option<()> {
    // 112, 131, SMALL_TUPLE_EXT, arity, SMALL_INTEGER_EXT, operation
    let [112, 131, 104, _, 97, operation, fields @ ..] = frame else { return None };
    let fields = match operation {
        // SEND_SENDER and REG_SEND: from whom and to whom does not matter. SEND: the cookie and to whom.
        22 => skip_pid(skip_pid(fields)?)?,
        6 => skip_atom(skip_atom(skip_pid(fields)?)?)?,
        2 => skip_pid(skip_atom(fields)?)?,
        _ => return Some(()),
    };
    let [131, 104, arity, message @ ..] = fields else { return None };
    if *arity != 3 {
        // A cast.
        return Some(());
    }
    let [104, 2, from @ ..] = skip_atom(message)? else { return None };
    let tag = skip_pid(from)?;
    let request = skip_tag(tag)?;
    let (pid, tag) = (&from[..from.len() - tag.len()], &tag[..tag.len() - request.len()]);
    let [104, request_arity, request @ ..] = request else { return None };
    let key = skip_atom(request)?;
    let constant = constants.of(key);
    let reply: &[u8] = if *request_arity == 3 {
        let value = skip_key(key)?;
        if value.len() != constant.len() {
            constant.clear();
            constant.extend_from_slice(value);
        }
        &[119, 2, b'o', b'k']
    } else {
        constant
    };
    let len = 8 + pid.len() + 3 + tag.len() + reply.len();
    out.extend_from_slice(&u32::try_from(len).ok()?.to_be_bytes());
    out.extend_from_slice(&[112, 131, 104, 3, 97, 2, 119, 0]);
    out.extend_from_slice(pid);
    out.extend_from_slice(&[131, 104, 2]);
    out.extend_from_slice(tag);
    out.extend_from_slice(reply);
    Some(())
}

fn skip_atom(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [119 | 115, len, rest @ ..] => rest.get(usize::from(*len)..),
        [118 | 100, high, low, rest @ ..] => rest.get(usize::from(u16::from_be_bytes([*high, *low]))..),
        _ => None,
    }
}

fn skip_pid(bytes: &[u8]) -> Option<&[u8]> {
    let [88, rest @ ..] = bytes else { return None };
    skip_atom(rest)?.get(12..)
}

fn skip_reference(bytes: &[u8]) -> Option<&[u8]> {
    let [90, high, low, rest @ ..] = bytes else { return None };
    skip_atom(rest)?.get(4 + 4 * usize::from(u16::from_be_bytes([*high, *low]))..)
}

/// A reference, or `[alias | Reference]`.
fn skip_tag(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [108, 0, 0, 0, 1, rest @ ..] => skip_reference(skip_atom(rest)?),
        _ => skip_reference(bytes),
    }
}

/// The keys that the loads use: a binary.
fn skip_key(bytes: &[u8]) -> Option<&[u8]> {
    let [109, a, b, c, d, rest @ ..] = bytes else { return None };
    rest.get(u32::from_be_bytes([*a, *b, *c, *d]) as usize..)
}
