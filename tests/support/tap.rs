//! A tap on the wire between two nodes: passes all bytes on, and keeps the signals that it sees.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kvnode::distribution::{Arrival, FrameForm, Inbound};
use kvnode::etf::{Cursor, TermView};

/// A signal: its control message, and whether the node that was connected to sent it.
#[derive(Clone, Debug)]
pub struct Heard {
    /// By the node behind the tap; else by the node that connected.
    pub by_server: bool,
    /// The control message, encoded.
    pub control: Vec<u8>,
}

impl Heard {
    /// The number of the operation.
    pub fn operation(&self) -> u64 {
        self.element(0).as_unsigned().expect("an operation is a number")
    }

    /// An element of the control message.
    pub fn element(&self, at: usize) -> TermView<'_> {
        let mut cursor = Cursor::new(&self.control);
        let arity = cursor.tuple().expect("a tuple");
        assert!(at < arity, "{arity} elements");
        (0..at).for_each(|_| _ = cursor.term().expect("an element"));
        cursor.term().expect("an element")
    }

    /// How many elements the control message has.
    pub fn arity(&self) -> usize {
        Cursor::new(&self.control).tuple().expect("a tuple")
    }
}

/// What listens in place of a node, and passes on to it.
pub struct Tap {
    port: u16,
    heard: Arc<Mutex<Vec<Heard>>>,
    ended: Arc<AtomicBool>,
    listens: Option<JoinHandle<()>>,
}

impl Tap {
    /// For a node that listens at this port of the loopback.
    pub fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
        let own = listener.local_addr().expect("it is bound").port();
        let (heard, ended) = (Arc::<Mutex<Vec<Heard>>>::default(), Arc::new(AtomicBool::new(false)));
        let listens = {
            let (heard, ended) = (Arc::clone(&heard), Arc::clone(&ended));
            std::thread::spawn(move || {
                for client in listener.incoming() {
                    if ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let client = client.expect("a connection");
                    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                    // Before their frames the client sends its name and an answer to the challenge, the server a status, a
                    // challenge and its own answer (erl_dist_protocol, "Distribution Handshake").
                    pass(&client, &server, 2, false, &heard);
                    pass(&server, &client, 3, true, &heard);
                }
            })
        };
        Self { port: own, heard, ended, listens: Some(listens) }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The signals that passed since this was last asked.
    pub fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.heard.lock().expect("nothing panics with it"))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        let _ended = self.listens.take().map(JoinHandle::join);
    }
}

/// Passes on what one side sends, on a thread of its own that ends with the connection. `packets`: those of the
/// handshake.
fn pass(from: &TcpStream, to: &TcpStream, packets: usize, by_server: bool, heard: &Arc<Mutex<Vec<Heard>>>) {
    let both = from.try_clone().and_then(|from| Ok((from, to.try_clone()?)));
    let (mut from, mut to) = both.expect("sockets can be shared");
    let heard = Arc::clone(heard);
    std::thread::spawn(move || {
        let mut ear = Ear { packets, shaken: Vec::new(), inbound: None, by_server, heard };
        let mut bytes = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut bytes) {
            ear.hear(&bytes[..len]);
            if to.write_all(&bytes[..len]).is_err() {
                break;
            }
        }
        let _gone = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}

struct Ear {
    packets: usize,
    /// Of the handshake.
    shaken: Vec<u8>,
    inbound: Option<Inbound>,
    by_server: bool,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Ear {
    fn hear(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if self.inbound.is_none() {
            self.shaken.extend_from_slice(bytes);
            while self.packets > 0 {
                let [high, low, rest @ ..] = &self.shaken[..] else { return };
                let len = usize::from(u16::from_be_bytes([*high, *low]));
                if rest.len() < len {
                    return;
                }
                self.shaken.drain(..2 + len);
                self.packets -= 1;
            }
            self.inbound = Some(Inbound::new(&self.shaken, FrameForm::DistHeader, 1 << 30));
            bytes = &[];
        }
        let inbound = self.inbound.as_mut().expect("it was made just now");
        loop {
            while let Some(arrival) = inbound.next_arrival().expect("nodes send good frames") {
                let frame = match arrival {
                    Arrival::Tick => continue,
                    Arrival::Frame(range) => inbound.slice(range).to_vec(),
                    Arrival::Large(bytes) => bytes.to_vec(),
                    Arrival::Skipped(skipped) => panic!("{skipped:?} is within the bounds"),
                };
                let control = Cursor::new(&frame).term().expect("a control message").bytes().to_vec();
                let heard = Heard { by_server: self.by_server, control };
                self.heard.lock().expect("nothing panics with it").push(heard);
            }
            if bytes.is_empty() {
                return;
            }
            let [room, _] = inbound.rooms();
            let len = room.len().min(bytes.len());
            room[..len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            inbound.filled(len);
        }
    }
}
