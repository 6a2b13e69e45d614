//! Connections of the distribution over blocking sockets: epmd, and the library's handshake from both sides.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use kvnode::distribution::handshake::{Client, ClientStep, Local, Packets, Server, ServerStep, Standing};
use kvnode::distribution::{Cookie, DistributionFlags, NodeName};

use crate::{Result, failure};

/// The cookie of everything that is started here.
pub const COOKIE: &str = "bench";
/// The host in every node's name: nothing leaves the loopback, and no name has to be resolved.
pub const HOST: &str = "127.0.0.1";
/// The creation of every node that this program is itself.
pub const CREATION: u32 = 5;
/// What no answer may take longer than.
const PATIENCE: Duration = Duration::from_secs(60);

fn local(name: &str, flags: DistributionFlags) -> Result<Local> {
    let name = NodeName::new(name).map_err(|error| failure(format!("{name}: {error}")))?;
    Ok(Local { name, creation: CREATION, flags, cookie: Cookie::new(COOKIE) })
}

/// A set-up connection, and what was read behind the handshake.
pub struct Linked {
    pub stream: TcpStream,
    pub first: Vec<u8>,
}

/// Asks epmd for the port of a node (erl_dist_protocol, "Get the Distribution Port of Another Node").
pub fn lookup(epmd_port: u16, name: &str) -> Result<u16> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, epmd_port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = u16::try_from(name.len() + 1)?.to_be_bytes().to_vec();
    request.push(b'z');
    request.extend_from_slice(name.as_bytes());
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match answer.as_slice() {
        [b'w', 0, high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(failure(format!("epmd does not know {name}"))),
    }
}

/// Registers a hidden node (erl_dist_protocol, "Register a Node in EPMD"), for as long as the stream lives.
pub fn register(epmd_port: u16, name: &str, port: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, epmd_port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut body = vec![b'x'];
    body.extend_from_slice(&port.to_be_bytes());
    // A hidden node, over TCP, versions 6 to 6.
    body.extend_from_slice(&[72, 0, 0, 6, 0, 6]);
    body.extend_from_slice(&u16::try_from(name.len())?.to_be_bytes());
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(&[0, 0]);
    let mut request = u16::try_from(body.len())?.to_be_bytes().to_vec();
    request.extend_from_slice(&body);
    stream.write_all(&request)?;
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    if head[1] != 0 {
        return Err(failure(format!("epmd refuses {name}")));
    }
    let mut creation = [0; 4];
    stream.read_exact(&mut creation[..if head[0] == b'v' { 4 } else { 2 }])?;
    Ok(stream)
}

/// Connects to a node, as a hidden node of this name, without the host.
pub fn connect(epmd_port: u16, own: &str, peer: &str) -> Result<Linked> {
    let port = lookup(epmd_port, peer)?;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let peer =
        NodeName::new(&format!("{peer}@{HOST}")).map_err(|error| failure(format!("{peer}: {error}")))?;
    let (hello, mut client) = Client::new(
        local(&format!("{own}@{HOST}"), DistributionFlags::OFFERED.difference(DistributionFlags::FRAGMENTS))?,
        peer,
        challenge()?,
    );
    stream.write_all(&hello)?;
    let mut packets = Packets::new();
    loop {
        let packet = next_packet(&mut stream, &mut packets)?;
        let (send, next) = match client.handle(&packet)? {
            ClientStep::Continue { send, next } => (send, next),
            ClientStep::Alive(alive) => alive.answer(true)?,
            ClientStep::Connected(_) => return Ok(Linked { stream, first: packets.into_rest() }),
        };
        stream.write_all(&send)?;
        client = next;
    }
}

/// Accepts one connection of a node that knows the cookie, and sets it up.
pub fn accept(listener: &TcpListener, name: &str, flags: DistributionFlags) -> Result<Linked> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut server = Server::new(local(name, flags)?, challenge()?);
    let mut packets = Packets::new();
    loop {
        let packet = next_packet(&mut stream, &mut packets)?;
        let (send, next) = match server.handle(&packet)? {
            ServerStep::Continue { send, next } => (send, next),
            ServerStep::Claimed(claim) => claim.answer(Standing::Free)?,
            ServerStep::Nameless(_) => return Err(failure("a node without a name")),
            ServerStep::Accepted { send, .. } => {
                stream.write_all(&send)?;
                return Ok(Linked { stream, first: packets.into_rest() });
            }
        };
        stream.write_all(&send)?;
        server = next;
    }
}

fn next_packet(stream: &mut TcpStream, packets: &mut Packets) -> Result<Vec<u8>> {
    loop {
        if let Some(packet) = packets.next_packet() {
            return Ok(packet.map_err(|error| failure(error.to_string()))?.to_vec());
        }
        let mut bytes = [0; 1024];
        let len = stream.read(&mut bytes)?;
        if len == 0 {
            return Err(failure("closed during the handshake"));
        }
        packets.push(&bytes[..len]);
    }
}

fn challenge() -> Result<u32> {
    getrandom::u32().map_err(|error| failure(error.to_string()))
}
