//! A node that says exactly what a test writes: a socket, our own handshake, then any bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvnode::distribution::control::op;
use kvnode::distribution::handshake::{Client, ClientStep, Local, Packets};
use kvnode::distribution::{Arrival, Cookie, DistributionFlags, FrameForm, Inbound, NodeName};
use kvnode::etf::{Cursor, Pid, Reference};

use super::term::{Term, term, term_of};
use super::wait::PATIENCE;

/// The life of every scripted node.
const CREATION: u32 = 77;

/// A connected node that is driven by hand.
pub struct Scripted {
    stream: TcpStream,
    inbound: Inbound,
    name: Arc<str>,
    form: FrameForm,
    calls: u32,
}

/// How a handshake was not to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl Scripted {
    /// Connects to the node `to` at this port of the loopback, with the cookie of all tests.
    #[track_caller]
    pub fn connect(port: u16, name: &str, to: &str) -> Self {
        Self::try_connect(port, name, to, super::COOKIE).expect("a good peer is let in")
    }

    /// The same with another cookie.
    ///
    /// # Errors
    /// The other side has refused.
    pub fn try_connect(port: u16, name: &str, to: &str, cookie: &str) -> Result<Self, Refused> {
        Self::set_up(port, name, to, cookie, DistributionFlags::OFFERED, None)
    }

    /// As [`connect`](Self::connect), as a node that offers these flags.
    #[track_caller]
    pub fn offering(offered: DistributionFlags, port: u16, name: &str, to: &str) -> Self {
        Self::set_up(port, name, to, super::COOKIE, offered, None).expect("a good peer is let in")
    }

    /// Connects under the name of a connected node that goes in the middle of it, and gives up when it is told that the
    /// name is connected.
    ///
    /// # Errors
    /// The other side has refused, or said `alive`.
    pub fn connect_after(old: Self, port: u16, to: &str) -> Result<Self, Refused> {
        let name = Arc::clone(&old.name);
        Self::set_up(port, &name, to, super::COOKIE, DistributionFlags::OFFERED, Some(old))
    }

    fn set_up(
        port: u16,
        name: &str,
        to: &str,
        cookie: &str,
        flags: DistributionFlags,
        mut old: Option<Self>,
    ) -> Result<Self, Refused> {
        let goes_on = old.is_none();
        let refused = |error: &dyn ToString| Refused(error.to_string());
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(|error| refused(&error))?;
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let own = NodeName::new(name).expect("a good name");
        let local = Local { name: own.clone(), creation: CREATION, flags, cookie: Cookie::new(cookie) };
        let (hello, mut client) = Client::new(local, NodeName::new(to).expect("a good name"), 42);
        stream.write_all(&hello).map_err(|error| refused(&error))?;
        drop(old.take());
        let mut packets = Packets::new();
        loop {
            let packet = loop {
                if let Some(packet) = packets.next_packet() {
                    break packet.map_err(|error| refused(&error))?.to_vec();
                }
                let mut bytes = [0; 512];
                match stream.read(&mut bytes).map_err(|error| refused(&error))? {
                    0 => return Err(Refused("closed".into())),
                    len => packets.push(&bytes[..len]),
                }
            };
            let (send, next) = match client.handle(&packet).map_err(|error| refused(&error))? {
                ClientStep::Continue { send, next } => (send, next),
                ClientStep::Alive(alive) => alive.answer(goes_on).map_err(|error| refused(&error))?,
                ClientStep::Connected(connected) => {
                    let form = FrameForm::in_force(connected.peer.in_force);
                    let inbound = Inbound::new(&packets.into_rest(), form, 1 << 30);
                    return Ok(Self { stream, inbound, name: own.shared(), form, calls: 0 });
                }
            };
            stream.write_all(&send).map_err(|error| refused(&error))?;
            client = next;
        }
    }

    /// A process of this node.
    pub fn pid(&self) -> Pid {
        Pid { node: Arc::clone(&self.name), id: 90, serial: 1, creation: CREATION }
    }

    /// A reference of this node.
    pub fn reference(&self, number: u32) -> Reference {
        Reference { node: Arc::clone(&self.name), creation: CREATION, words: vec![number, 2, 3] }
    }

    /// A term in Elixir's syntax, in which `#PID<0.90.1>` is [`pid`](Self::pid) and `#Reference<0.3.2.7>` is
    /// [`reference`](Self::reference)`(7)`; see [`term_with`](super::term::term_with).
    #[track_caller]
    pub fn term(&self, text: &str, parts: &[&dyn Term]) -> Vec<u8> {
        term_of(&self.name, CREATION, text, parts)
    }

    /// A control message: an operation, and what stands behind it in the tuple, with commas.
    #[track_caller]
    pub fn control(&self, operation: u64, rest: &str, parts: &[&dyn Term]) -> Vec<u8> {
        self.term(&format!("{{{operation}, {rest}}}"), parts)
    }

    /// A frame with that and no payload.
    #[track_caller]
    pub fn signal(&self, operation: u64, rest: &str, parts: &[&dyn Term]) -> Vec<u8> {
        self.frame(&self.control(operation, rest, parts), &[])
    }

    /// Sends these bytes as they are. `false`: the other side has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The bytes of one frame: its length, its head, a control message and a payload (nothing: none).
    pub fn frame(&self, control: &[u8], payload: &[u8]) -> Vec<u8> {
        let version: &[u8] = if payload.is_empty() { &[] } else { self.form.payload_head() };
        let frame = [self.form.head(), control, version, payload].concat();
        [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
    }

    /// A frame that sends encoded bytes to a registered name.
    pub fn reg_send(&self, to: &str, payload: &[u8]) -> Vec<u8> {
        let control = self.control(op::REG_SEND, &format!("#PID<0.90.1>, :\"\", :\"{to}\""), &[]);
        self.frame(&control, payload)
    }

    /// The payload of a call.
    pub fn gen_call(&self, from: &Pid, number: u32, request: impl Term) -> Vec<u8> {
        self.term("{:\"$gen_call\", {$1, $2}, $3}", &[from, &self.reference(number), &request])
    }

    /// A frame with a call to the process registered as `to`.
    pub fn call_frame(&self, to: &str, number: u32, request: impl Term) -> Vec<u8> {
        self.reg_send(to, &self.gen_call(&self.pid(), number, request))
    }

    /// Calls the only store, and gives the encoded answer.
    #[track_caller]
    pub fn call(&mut self, request: impl Term) -> Vec<u8> {
        self.calls += 1;
        let number = self.calls;
        let frame = self.call_frame("Elixir.KeyValueStore", number, request);
        assert!(self.send(&frame), "the connection is open");
        self.answer(number)
    }

    /// The encoded pid of a registered process, asked for by `:erpc`.
    #[track_caller]
    pub fn pid_of(&mut self, name: &str) -> Vec<u8> {
        let reference = self.reference(u32::MAX);
        let spawn = "$1, #PID<0.90.1>, #PID<0.90.1>, {:erpc, :execute_call, 4}, [:monitor]";
        let arguments = self.term(&format!("[$1, :erlang, :whereis, [:\"{name}\"]]"), &[&reference]);
        let frame = self.frame(&self.control(op::SPAWN_REQUEST, spawn, &[&reference]), &arguments);
        assert!(self.send(&frame), "the connection is open");
        // The exit reason: {Reference, return, Pid}.
        let returned = [&[104, 3], &reference.encoded()[..], &term(":return")].concat();
        loop {
            let frame = self.next_frame().expect("the connection is open");
            if let Some(at) = frame.windows(returned.len()).position(|part| part == returned) {
                return frame[at + returned.len()..].to_vec();
            }
        }
    }

    /// Waits for the answer to a call.
    #[track_caller]
    pub fn answer(&mut self, number: u32) -> Vec<u8> {
        loop {
            let frame = self.next_frame().expect("the connection is open");
            if let Some(answer) = self.answer_in(&frame, number) {
                return answer;
            }
        }
    }

    /// The answer to that call, if this message is it.
    fn answer_in(&self, message: &[u8], number: u32) -> Option<Vec<u8>> {
        let tag = self.reference(number).encoded();
        let mut cursor = Cursor::new(message);
        cursor.term().expect("a control message");
        let payload = cursor.rest();
        let payload = payload.strip_prefix(self.form.payload_head()).unwrap_or(payload);
        // {Tag, Answer}
        payload.strip_prefix(&[104, 2]).and_then(|rest| rest.strip_prefix(&tag[..])).map(<[u8]>::to_vec)
    }

    /// How much the system receives before it is read.
    pub fn set_receive_buffer(&mut self, bytes: usize) {
        rustix::net::sockopt::set_socket_recv_buffer_size(&self.stream, bytes).expect("a socket");
    }

    /// Gets an atom's value from the only store as a node on a slow link does: so many bytes are read in a second, and a
    /// tick goes out that often.
    ///
    /// # Errors
    /// The other side has closed the connection; after so many bytes were read.
    pub fn get_slowly(&mut self, key: &str, per_sec: u64, tick: Duration) -> Result<Vec<u8>, u64> {
        self.calls += 1;
        let number = self.calls;
        let frame = self.call_frame("Elixir.KeyValueStore", number, format!("{{:get, :{key}}}"));
        assert!(self.send(&frame), "the connection is open");
        let started = Instant::now();
        let (mut read, mut ticked) = (0, started);
        loop {
            if ticked.elapsed() >= tick {
                ticked += tick;
                if !self.send(&[0; 4]) {
                    return Err(read);
                }
            }
            let message = match self.inbound.next_arrival().expect("kvnode sends good frames") {
                Some(Arrival::Tick) => continue,
                Some(Arrival::Frame(range)) => self.inbound.slice(range).to_vec(),
                Some(Arrival::Large(bytes)) => bytes.to_vec(),
                Some(Arrival::Skipped(skipped)) => panic!("{skipped:?} is within the bounds"),
                None => {
                    let due = Duration::from_secs_f64(read as f64 / per_sec as f64);
                    std::thread::sleep(due.saturating_sub(started.elapsed()));
                    let [room, _] = self.inbound.rooms();
                    let most = room.len().min(32 << 10);
                    match self.stream.read(&mut room[..most]) {
                        Ok(0) => return Err(read),
                        Ok(len) => {
                            self.inbound.filled(len);
                            read += len as u64;
                        }
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(read),
                        Err(error) => panic!("nothing came: {error}"),
                    }
                    continue;
                }
            };
            if let Some(answer) = self.answer_in(&message, number) {
                return Ok(answer);
            }
        }
    }

    /// The next message; `None`: the other side has closed the connection.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.inbound.next_arrival().expect("kvnode sends good frames") {
                Some(Arrival::Tick) => {}
                Some(Arrival::Frame(range)) => return Some(self.inbound.slice(range).to_vec()),
                Some(Arrival::Large(bytes)) => return Some(bytes.to_vec()),
                Some(Arrival::Skipped(skipped)) => panic!("{} from kvnode", skipped.size),
                None => {
                    let [room, _] = self.inbound.rooms();
                    match self.stream.read(room) {
                        Ok(0) => return None,
                        Ok(len) => self.inbound.filled(len),
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                        Err(error) => panic!("nothing came: {error}"),
                    }
                }
            }
        }
    }

    /// Waits until the other side closes the connection, which it must.
    #[track_caller]
    pub fn wait_for_end(&mut self) {
        let start = Instant::now();
        while self.next_frame().is_some() {
            assert!(start.elapsed() < PATIENCE, "the connection is not closed");
        }
    }

    /// Puts, and looks whether it is there: what every good peer can do at any time. How long the two took.
    #[track_caller]
    pub fn use_the_store(&mut self) -> Duration {
        let (number, start) = (self.calls, Instant::now());
        assert_eq!(self.call(format!("{{:put, :good, {number}}}")), term(":ok"));
        assert_eq!(self.call("{:get, :good}"), term(&number.to_string()));
        start.elapsed()
    }
}
