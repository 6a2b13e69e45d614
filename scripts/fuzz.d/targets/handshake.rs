//! Any bytes as the other side's part of a handshake, from both sides: nobody is let in, and nothing grows.

#![no_main]

use kvnode::distribution::handshake::{
    Client, ClientStep, Local, Packets, Server, ServerStep, Standing, Unwelcome,
};
use kvnode::distribution::{Cookie, DistributionFlags, NodeName};
use libfuzzer_sys::fuzz_target;

fn local() -> Local {
    Local {
        name: NodeName::new("k@h").expect("a name"),
        creation: 7,
        flags: DistributionFlags::OFFERED,
        cookie: Cookie::new("a cookie that no input has"),
    }
}

/// Feeds packets, in pieces as the first byte says, until one is refused or all are read.
fn packets(data: &[u8], mut take: impl FnMut(&[u8]) -> bool) {
    let Some((&step, mut rest)) = data.split_first() else { return };
    let mut packets = Packets::new();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(usize::from(step) + 1));
        packets.push(now);
        rest = later;
        while let Some(packet) = packets.next_packet() {
            let Ok(packet) = packet else { return };
            if !take(packet) {
                return;
            }
        }
    }
}

fn serve(data: &[u8], standing: Standing) {
    let mut server = Some(Server::new(local(), 42));
    packets(data, |packet| {
        let waiting = server.take().expect("one goes on from the other");
        server = match waiting.handle(packet) {
            Ok(ServerStep::Continue { next, .. }) => Some(next),
            Ok(ServerStep::Claimed(claim)) => claim.answer(standing).ok().map(|(_, next)| next),
            Ok(ServerStep::Nameless(request)) => {
                let name = NodeName::new(&format!("X@{}", request.host()));
                name.ok().map(|name| request.name(name, 9).1)
            }
            Ok(ServerStep::Accepted { .. }) => panic!("let in without the cookie"),
            Err(error) => {
                let text = format!("{error} {:?}", error.farewell());
                assert!(!text.contains("a cookie that"));
                None
            }
        };
        server.is_some()
    });
}

fn dial(data: &[u8]) {
    let (_, client) = Client::new(local(), NodeName::new("m@h").expect("a name"), 42);
    let mut client = Some(client);
    packets(data, |packet| {
        let waiting = client.take().expect("one goes on from the other");
        client = match waiting.handle(packet) {
            Ok(ClientStep::Continue { next, .. }) => Some(next),
            Ok(ClientStep::Alive(alive)) => alive.answer(true).ok().map(|(_, next)| next),
            Ok(ClientStep::Connected(_)) => panic!("connected without the cookie"),
            Err(_) => None,
        };
        client.is_some()
    });
}

fuzz_target!(|data: &[u8]| {
    for standing in [
        Standing::Free,
        Standing::Connected,
        Standing::ConnectingOut,
        Standing::Refused(Unwelcome::NotListed),
    ] {
        serve(data, standing);
    }
    dial(data);
});
