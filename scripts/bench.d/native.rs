//! The native load: prebuilt calls, so many in flight on a connection, and replies that are only counted.
//!
//! For servers of calls (frames of the distribution) and for Redis (RESP). Before anything is counted a few calls are
//! made one by one and looked at in full; while it is counted each reply must have the length of a right one.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kvnode::distribution::control::op;
use kvnode::etf::{Pid, Reference, TermWriter, encode};

use crate::children::{PATIENCE, own_thread_nanos};
use crate::link::{self, CREATION, HOST};
use crate::servers::{Endpoint, STORE};
use crate::{Result, failure, stats};

/// Bytes of each key.
const KEY_BYTES: usize = 16;
/// Bytes of each value.
pub const VALUE_BYTES: usize = 100;
/// What is asked for while a table is filled: calls in flight.
const FILL_WINDOW: usize = 1024;

/// The value of so many bytes that all clients here put, so that they agree whatever was put before.
pub fn value(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

/// The key of a number: spread, and another for each.
pub fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&mix(number).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// splitmix64: consecutive numbers become far ones.
pub const fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Get,
    Put,
}

/// When a load ends.
#[derive(Clone, Copy)]
pub enum Until {
    After(Duration),
    Calls(u64),
}

/// Which keys a load uses.
#[derive(Clone, Copy)]
pub enum Keys {
    /// All numbers below, in a random order, over and over.
    Random(u64),
    /// From 0 on.
    InOrder,
    /// From this on.
    From(u64),
}

impl Keys {
    #[inline]
    const fn nth(self, call: u64) -> u64 {
        match self {
            Self::Random(count) => mix(call) % count,
            Self::InOrder => call,
            Self::From(first) => first + call,
        }
    }
}

/// What one load found.
#[derive(Default)]
pub struct Outcome {
    pub calls: u64,
    pub elapsed: Duration,
    /// Processor time that the load itself used, in nanoseconds.
    pub client_nanos: u64,
    /// Nanoseconds from the write that a call was in to the read that its reply was in; where asked for.
    pub latencies: Vec<u32>,
}

/// One connection of the load.
pub struct Caller {
    stream: TcpStream,
    wire: Wire,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Lengths of right replies, to a get that finds and to a put.
    got_bytes: usize,
    put_bytes: usize,
}

enum Wire {
    Distribution { own: Pid },
    Resp,
}

/// One request, ready but for its key.
struct Template {
    bytes: Vec<u8>,
    key_at: usize,
}

impl Caller {
    /// Connects, as a node whose name begins so where the server is a node, and looks at its first answers in full: a
    /// value is put and got, and a key looked for that is not there.
    ///
    /// # Errors
    /// The server cannot be reached, or does not answer, or wrongly.
    pub fn connect(endpoint: &Endpoint, own: &str) -> Result<Self> {
        let (stream, first, wire) = match endpoint {
            Endpoint::Node { name, epmd_port, .. } => {
                // A name for each connection: the server may not have seen the end of the last one yet.
                static CONNECTED: AtomicU32 = AtomicU32::new(0);
                let own = format!("{own}{:05}", CONNECTED.fetch_add(1, Ordering::Relaxed));
                let linked = link::connect(*epmd_port, &own, name)?;
                let own = Pid { node: format!("{own}@{HOST}").into(), id: 90, serial: 1, creation: CREATION };
                (linked.stream, linked.first, Wire::Distribution { own })
            }
            Endpoint::Redis { port } => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                (stream, Vec::new(), Wire::Resp)
            }
        };
        let end = first.len();
        let mut buffer = first;
        buffer.resize(256 << 10, 0);
        let mut caller = Self { stream, wire, buffer, start: 0, end, got_bytes: 0, put_bytes: 0 };
        let (put, get) = (caller.template(Request::Put), caller.template(Request::Get));
        let far = u64::MAX / 2;
        let (ok, found, absent) = caller.answers();
        caller.put_bytes = caller.ask(&put, far, &ok)?;
        caller.got_bytes = caller.ask(&get, far, &found)?;
        if !matches!(endpoint, Endpoint::Node { stores: false, .. }) {
            caller.ask(&get, far + 1, &absent)?;
        }
        Ok(caller)
    }

    /// Puts that many keys, from the first on.
    pub fn fill(&mut self, keys: u64) -> Result<Outcome> {
        self.load(Request::Put, FILL_WINDOW, Keys::InOrder, Until::Calls(keys), false)
    }

    /// Keeps `window` calls in flight until the end, then waits for those that still are.
    pub fn load(
        &mut self,
        request: Request,
        window: usize,
        keys: Keys,
        until: Until,
        latencies: bool,
    ) -> Result<Outcome> {
        let template = self.template(request);
        let reply_bytes = if request == Request::Get { self.got_bytes } else { self.put_bytes };
        let len = template.bytes.len();
        let mut out = template.bytes.repeat(window);
        let mut outcome = Outcome::default();
        let (mut sent, mut next, mut waiting) = (0_u64, window, VecDeque::new());
        let client_before = own_thread_nanos();
        let started = Instant::now();
        let mut now = started;
        loop {
            let ended = matches!(until, Until::After(time) if now - started >= time);
            if let Until::Calls(calls) = until {
                next = next.min(usize::try_from(calls - sent).unwrap_or(usize::MAX));
            }
            if next > 0 && !ended {
                for call in out.chunks_exact_mut(len).take(next) {
                    call[template.key_at..template.key_at + KEY_BYTES].copy_from_slice(&key(keys.nth(sent)));
                    sent += 1;
                }
                self.stream.write_all(&out[..next * len])?;
                if latencies {
                    waiting.push_back((now, next));
                }
            }
            if outcome.calls == sent {
                break;
            }
            next = self.replies(reply_bytes)?;
            outcome.calls += next as u64;
            now = Instant::now();
            if latencies {
                note_latencies(&mut waiting, next, now, &mut outcome.latencies);
            }
        }
        outcome.elapsed = started.elapsed();
        outcome.client_nanos = own_thread_nanos().saturating_sub(client_before);
        Ok(outcome)
    }

    /// Reads once or more, and counts the replies that are complete.
    fn replies(&mut self, reply_bytes: usize) -> Result<usize> {
        let mut count = 0;
        while count == 0 {
            self.read(reply_bytes)?;
            while let Some(len) = self.complete_reply(reply_bytes)? {
                self.start += len;
                if len == reply_bytes {
                    count += 1;
                } else {
                    // A tick is answered with a tick.
                    self.stream.write_all(&[0; 4])?;
                }
            }
        }
        Ok(count)
    }

    fn read(&mut self, reply_bytes: usize) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < reply_bytes.max(4) {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let len = self.stream.read(&mut self.buffer[self.end..])?;
        if len == 0 {
            return Err(failure("the server closed the connection"));
        }
        self.end += len;
        Ok(())
    }

    /// The length of the next reply, or of a tick, when it is complete and as long as a right one is.
    #[inline]
    fn complete_reply(&self, reply_bytes: usize) -> Result<Option<usize>> {
        let unread = &self.buffer[self.start..self.end];
        let Some(head) = unread.first_chunk::<4>() else { return Ok(None) };
        let (len, right) = match self.wire {
            Wire::Distribution { .. } => {
                let len = u32::from_be_bytes(*head) as usize + 4;
                (len, len == reply_bytes || len == 4)
            }
            // An error, or a nil, which is shorter than any value.
            Wire::Resp => (reply_bytes, head[0] != b'-' && head != b"$-1\r"),
        };
        if !right {
            return Err(wrong(unread));
        }
        Ok(Some(len).filter(|len| unread.len() >= *len))
    }

    /// Puts one key.
    pub fn put(&mut self, number: u64) -> Result<()> {
        let (template, (ok, ..)) = (self.template(Request::Put), self.answers());
        self.ask(&template, number, &ok).map(drop)
    }

    /// Whether the server has a key.
    pub fn has(&mut self, number: u64) -> Result<bool> {
        let (template, (_, found, absent)) = (self.template(Request::Get), self.answers());
        let reply = self.exchange(&template, number, found.len())?;
        if reply.ends_with(&found) {
            Ok(true)
        } else if reply.ends_with(&absent) {
            Ok(false)
        } else {
            Err(wrong(reply))
        }
    }

    /// Makes one call; the reply must end in `expected`. Gives the length of the reply.
    fn ask(&mut self, template: &Template, number: u64, expected: &[u8]) -> Result<usize> {
        let reply = self.exchange(template, number, expected.len())?;
        if reply.ends_with(expected) { Ok(reply.len()) } else { Err(wrong(reply)) }
    }

    /// Makes one call, and gives the reply: `resp_bytes` of it where replies do not tell how long they are.
    fn exchange(&mut self, template: &Template, number: u64, resp_bytes: usize) -> Result<&[u8]> {
        let mut call = template.bytes.clone();
        call[template.key_at..template.key_at + KEY_BYTES].copy_from_slice(&key(number));
        self.stream.write_all(&call)?;
        loop {
            let unread = &self.buffer[self.start..self.end];
            let len = match (&self.wire, unread.first_chunk::<4>()) {
                (_, None) => usize::MAX,
                (Wire::Distribution { .. }, Some(head)) => u32::from_be_bytes(*head) as usize + 4,
                (Wire::Resp, Some(_)) => resp_bytes,
            };
            if unread.len() < len {
                self.read(1024)?;
                continue;
            }
            let from = self.start;
            self.start += len;
            if len == 4 && matches!(self.wire, Wire::Distribution { .. }) {
                // A tick is answered with a tick.
                self.stream.write_all(&[0; 4])?;
                continue;
            }
            return Ok(&self.buffer[from..from + len]);
        }
    }

    fn template(&self, request: Request) -> Template {
        let sample = key(u64::MAX / 3);
        let bytes = match &self.wire {
            Wire::Distribution { own } => call_frame(own, request, &sample),
            Wire::Resp => resp(request, &sample),
        };
        let key_at = bytes.windows(KEY_BYTES).position(|part| part == sample).unwrap_or_default();
        Template { bytes, key_at }
    }

    /// What the answers to a put, a get, and a get of nothing end in.
    fn answers(&self) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let value = value(VALUE_BYTES);
        match self.wire {
            Wire::Distribution { .. } => (
                b"\x02ok".to_vec(),
                encode(|w| {
                    w.binary(&value);
                }),
                b"\x03nil".to_vec(),
            ),
            Wire::Resp => {
                let found = [format!("${VALUE_BYTES}\r\n").as_bytes(), &value, b"\r\n"].concat();
                (b"+OK\r\n".to_vec(), found, b"$-1\r\n".to_vec())
            }
        }
    }
}

fn wrong(reply: &[u8]) -> crate::Failure {
    let shown = &reply[..reply.len().min(200)];
    failure(format!("a wrong answer: {}", shown.escape_ascii()))
}

/// The same load on several connections at once, a thread for each.
pub fn load_all(
    callers: &mut [Caller],
    request: Request,
    window: usize,
    keys: u64,
    time: Duration,
) -> Result<Outcome> {
    let start = Barrier::new(callers.len());
    let outcomes: Vec<Result<Outcome>> = thread::scope(|scope| {
        let threads: Vec<_> = callers
            .iter_mut()
            .map(|caller| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    caller.load(request, window, Keys::Random(keys), Until::After(time), window == 1)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(failure("a thread of the load failed"))))
            .collect()
    });
    let mut all = Outcome::default();
    for outcome in outcomes {
        let outcome = outcome?;
        all.calls += outcome.calls;
        all.client_nanos += outcome.client_nanos;
        all.elapsed = all.elapsed.max(outcome.elapsed);
        all.latencies.extend(outcome.latencies);
    }
    Ok(all)
}

impl Outcome {
    /// Calls a second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }

    /// A quantile of the latencies, in microseconds.
    pub fn quantile_micros(&mut self, quantile: f64) -> f64 {
        stats::quantile(&mut self.latencies, quantile) / 1e3
    }
}

fn note_latencies(
    waiting: &mut VecDeque<(Instant, usize)>,
    mut replies: usize,
    now: Instant,
    latencies: &mut Vec<u32>,
) {
    // Replies come in the order of the calls.
    while replies > 0 {
        let Some((sent_at, count)) = waiting.front_mut() else { return };
        let taken = replies.min(*count);
        let nanos = u32::try_from((now - *sent_at).as_nanos()).unwrap_or(u32::MAX);
        latencies.extend(std::iter::repeat_n(nanos, taken));
        *count -= taken;
        replies -= taken;
        if *count == 0 {
            waiting.pop_front();
        }
    }
}

/// The tag of every call here.
fn tag(own: &Pid) -> Reference {
    Reference { node: own.node.clone(), creation: own.creation, words: vec![7, 8, 9] }
}

/// A call as it is on the wire, without monitors: one frame.
pub fn call_frame(own: &Pid, request: Request, key: &[u8]) -> Vec<u8> {
    tagged_call_frame(own, false, request, key)
}

/// The same; `alias`: its tag has an alias, as OTP has it from 24 on.
pub fn tagged_call_frame(own: &Pid, alias: bool, request: Request, key: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0, 112, 131];
    TermWriter::new(&mut frame).tuple(4).unsigned(op::REG_SEND).pid(own).atom("").atom(STORE);
    frame.push(131);
    let mut w = TermWriter::new(&mut frame);
    w.tuple(3).atom("$gen_call").tuple(2).pid(own);
    if alias {
        w.list(1).atom("alias");
    }
    w.reference(&tag(own));
    match request {
        Request::Get => w.tuple(2).atom("get").binary(key),
        Request::Put => w.tuple(3).atom("put").binary(key).binary(&value(VALUE_BYTES)),
    };
    let len = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame
}

/// MONITOR_P or DEMONITOR_P, as they stand around a BEAM's call.
pub fn monitor_frame(own: &Pid, operation: u64) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0, 112, 131];
    TermWriter::new(&mut frame).tuple(4).unsigned(operation).pid(own).atom(STORE).reference(&tag(own));
    let len = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame
}

fn resp(request: Request, key: &[u8]) -> Vec<u8> {
    let mut bytes = match request {
        Request::Get => format!("*2\r\n$3\r\nGET\r\n${}\r\n", key.len()),
        Request::Put => format!("*3\r\n$3\r\nSET\r\n${}\r\n", key.len()),
    }
    .into_bytes();
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(b"\r\n");
    if request == Request::Put {
        bytes.extend_from_slice(format!("${VALUE_BYTES}\r\n").as_bytes());
        bytes.extend_from_slice(&value(VALUE_BYTES));
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
