//! The naive server: what one writes on a first day with erl_dist and eetf, to see what a way of our own is worth.
//!
//! A thread for each connection, erl_dist's handshake and channel, each message decoded into a tree of terms, one
//! `HashMap` of terms under one lock, each answer sent by itself. It has the flags that erl_dist offers by default:
//! no monitors, so that a caller sends one frame for a call, and waits in vain for a name that does not exist.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::thread;

use eetf::{Atom, Pid, Term, Tuple};
use erl_dist::epmd::{EpmdClient, NodeEntry};
use erl_dist::handshake::{HandshakeStatus, ServerSideHandshake};
use erl_dist::message::{Message, channel};
use erl_dist::node::{LocalNode, NodeName};
use smol::net::{TcpListener, TcpStream};

use crate::link::{COOKIE, HOST};
use crate::{Result, failure};

type Store = Arc<Mutex<HashMap<Term, Term>>>;

/// Runs until stdin ends, as a node of this name.
pub fn main(name: &str, epmd_port: u16) -> Result<()> {
    let name = NodeName::new(name, HOST)?;
    let (listener, local, _registration) = smol::block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let epmd = EpmdClient::new(TcpStream::connect((Ipv4Addr::LOCALHOST, epmd_port)).await?);
        let entry = NodeEntry::new_hidden(name.name(), listener.local_addr()?.port());
        let (registration, creation) = epmd.register(entry).await?;
        Ok::<_, crate::Failure>((listener, LocalNode::new(name, creation), registration))
    })?;
    let store = Store::default();
    thread::spawn(move || {
        loop {
            let Ok((stream, _)) = smol::block_on(listener.accept()) else { continue };
            let (local, store) = (local.clone(), Arc::clone(&store));
            // A connection that fails concerns nobody else; its client says so.
            thread::spawn(move || smol::block_on(serve(stream, local, &store)));
        }
    });
    println!("ready");
    io::stdout().flush()?;
    // The end of stdin is the end of the process that started this.
    io::stdin().lock().lines().for_each(drop);
    Ok(())
}

async fn serve(stream: TcpStream, local: LocalNode, store: &Store) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut handshake = ServerSideHandshake::new(stream, local.clone(), COOKIE);
    if handshake.execute_recv_name().await?.is_none() {
        return Err(failure("a node without a name"));
    }
    let (stream, peer) = handshake.execute_rest(HandshakeStatus::Ok).await?;
    let (mut sender, mut receiver) = channel(stream, local.flags & peer.flags);
    loop {
        let message = match receiver.recv().await? {
            Message::Tick => {
                sender.send(Message::Tick).await?;
                continue;
            }
            Message::RegSend(sent) => sent.message,
            Message::Send(sent) => sent.message,
            Message::SendSender(sent) => sent.message,
            _ => continue,
        };
        if let Some((to, answer)) = handle(message, store) {
            sender.send(Message::send(to, answer)).await?;
        }
    }
}

/// What a call is answered, and to whom. Anything but the requests of the loads is skipped.
fn handle(message: Term, store: &Store) -> Option<(Pid, Term)> {
    let mut parts = elements(message)?.into_iter();
    let kind = atom(parts.next()?)?;
    if kind == "$gen_cast" {
        carry_out(parts.next()?, store)?;
        return None;
    }
    if kind != "$gen_call" {
        return None;
    }
    let [Term::Pid(caller), tag] = <[Term; 2]>::try_from(elements(parts.next()?)?).ok()? else { return None };
    let answer = carry_out(parts.next()?, store)?;
    Some((caller, Tuple::from(vec![tag, answer]).into()))
}

fn carry_out(request: Term, store: &Store) -> Option<Term> {
    let mut parts = elements(request)?.into_iter();
    let (operation, key) = (atom(parts.next()?)?, parts.next()?);
    let mut store = store.lock().ok()?;
    match (operation.as_str(), parts.next()) {
        ("get", None) => Some(store.get(&key).cloned().unwrap_or_else(|| Atom::from("nil").into())),
        ("put" | "replicate_put", Some(value)) => {
            store.insert(key, value);
            Some(Atom::from("ok").into())
        }
        _ => None,
    }
}

fn elements(term: Term) -> Option<Vec<Term>> {
    if let Term::Tuple(tuple) = term { Some(tuple.elements) } else { None }
}

fn atom(term: Term) -> Option<String> {
    if let Term::Atom(atom) = term { Some(atom.name) } else { None }
}
