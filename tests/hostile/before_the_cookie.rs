//! Before the cookie is proved.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kvnode::distribution::handshake::{Client, ClientStep, Local, Packets};
use kvnode::distribution::{Cookie, DistributionFlags, NodeName};

use crate::scene::{Scene, closed};
use crate::support::{COOKIE, Scripted, wait_until};

fn send_name(name: &str) -> Vec<u8> {
    let mut body = vec![b'N'];
    body.extend(0xd_07df_7fbd_u64.to_be_bytes());
    body.extend(7_u32.to_be_bytes());
    body.extend((name.len() as u16).to_be_bytes());
    body.extend(name.as_bytes());
    [&(body.len() as u16).to_be_bytes()[..], &body].concat()
}

#[test]
fn five_hundred_idle_connections_keep_nobody_out_and_are_closed() {
    let mut scene = Scene::start("");
    let mut idle: Vec<TcpStream> = (0..500).map(|_| scene.stranger()).collect();
    let start = Instant::now();
    scene.all_is_well(0);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    idle.iter_mut().for_each(closed);
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    scene.all_is_well(0);
    let said = scene.kv.log().lines().filter(|line| line.contains("too many connections")).count();
    assert_eq!(said, 1, "in the log once");
}

#[test]
fn a_set_up_that_trickles_is_ended_after_ten_seconds() {
    let mut scene = Scene::start("");
    let mut slow = scene.stranger();
    let start = Instant::now();
    slow.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
    // Each byte alone; the first packet never ends within its step.
    let name = send_name("slow@h");
    for byte in name.iter().chain(std::iter::repeat(&0)) {
        let _gone = slow.write_all(&[*byte]);
        match slow.read(&mut [0; 64]) {
            Ok(0) => break,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            _ => assert!(start.elapsed() < Duration::from_secs(11), "still open"),
        }
    }
    assert!(start.elapsed() > Duration::from_secs(5), "a slow step is not a wrong one");
    scene.all_is_well(0);
}

#[test]
fn packets_of_the_handshake_that_are_none_are_closed_and_logged_once() {
    let mut scene = Scene::start("");
    let bad: [&[u8]; 8] = [
        &[0, 0],
        &[255, 255],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0, 1, b'N'],
        &[0, 3, b'n', 0, 5],
        &send_name("no name at all"),
        &send_name("a@\u{1b}[2J"),
        &[0, 4, 255, 254, 253, 252],
    ];
    for _ in 0..20 {
        for bytes in bad {
            let mut stranger = scene.stranger();
            stranger.write_all(bytes).expect("the port is open");
            closed(&mut stranger);
        }
    }
    for len in 0..send_name("peer@h").len() {
        let mut stranger = scene.stranger();
        stranger.write_all(&send_name("peer@h")[..len]).expect("the port is open");
        stranger.shutdown(std::net::Shutdown::Write).expect("a socket");
        closed(&mut stranger);
    }
    scene.all_is_well(0);
    let said = scene.kv.log().lines().filter(|line| line.contains("handshake refused")).count();
    assert!((1..=4).contains(&said), "once for each kind of fault: {said}\n{}", scene.kv.log());
}

#[test]
fn cookies_cannot_be_guessed_faster_than_ten_a_second() {
    let mut scene = Scene::start("");
    let until = Instant::now() + Duration::from_secs(4);
    let (port, kv) = (scene.port, scene.kv.name().to_owned());
    let tries: usize = std::thread::scope(|scope| {
        let guessers: Vec<_> = (0..16)
            .map(|number| {
                let kv = &kv;
                scope.spawn(move || {
                    let mut tries = 0;
                    while Instant::now() < until {
                        let guess = format!("guess{number}.{tries}");
                        let refused = Scripted::try_connect(port, &format!("g{number}@h"), kv, &guess);
                        assert!(refused.is_err(), "guessed");
                        tries += usize::from(Instant::now() < until);
                    }
                    tries
                })
            })
            .collect();
        guessers.into_iter().map(|guesser| guesser.join().expect("no panic")).sum()
    });
    assert!(tries <= 16 + 45, "{tries} in 4 s");
    wait_until("a good peer of the same address is let in", || {
        Scripted::try_connect(port, "patient@h", &kv, COOKIE).is_ok()
    });
    scene.all_is_well(0);
    let log = scene.kv.log();
    assert!(!log.contains("guess") && !log.contains(COOKIE), "no cookie in the log:\n{log}");
    assert!(log.lines().filter(|line| line.contains("handshake refused")).count() <= 3, "{log}");
}

/// Tells other threads that it is over, also where a test fails before.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Sends a digest, and does not wait for what is said to it.
fn guess_and_hang_up(port: u16, to: &str) -> Result<(), String> {
    let said = |error: &dyn ToString| error.to_string();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(|error| said(&error))?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let local = Local {
        name: NodeName::new("hasty@h").expect("a good name"),
        creation: 7,
        flags: DistributionFlags::OFFERED,
        cookie: Cookie::new("a guess"),
    };
    let (hello, mut client) = Client::new(local, NodeName::new(to).expect("a good name"), 42);
    stream.write_all(&hello).map_err(|error| said(&error))?;
    let mut packets = Packets::new();
    loop {
        let Some(packet) = packets.next_packet() else {
            let mut bytes = [0; 512];
            match stream.read(&mut bytes).map_err(|error| said(&error))? {
                0 => return Err("closed".to_owned()),
                len => packets.push(&bytes[..len]),
            }
            continue;
        };
        let packet = packet.map_err(|error| said(&error))?;
        let ClientStep::Continue { send, next } = client.handle(packet).map_err(|error| said(&error))? else {
            return Err("not as far as to the digest".to_owned());
        };
        client = next;
        if !send.is_empty() {
            return stream.write_all(&send).map_err(|error| said(&error));
        }
    }
}

#[test]
fn good_peers_are_let_in_at_once_beside_wrong_digests_of_the_same_address() {
    let mut scene = Scene::start("");
    let (port, kv, over) = (scene.port, scene.kv.name().to_owned(), AtomicBool::new(false));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for number in 0..8 {
            let (kv, over) = (&kv, &over);
            scope.spawn(move || {
                let name = format!("wrong{number}@h");
                while !over.load(Ordering::SeqCst) {
                    assert!(Scripted::try_connect(port, &name, kv, "wrong").is_err());
                }
            });
        }
        scene.kv.wait_for_log(&["wrong", "its cookie is not ours"]);
        for number in 0..200 {
            scene.peer(&format!("p{number}@h")).use_the_store();
        }
    });
    // A turn for each would be 20 s and more.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    scene.all_is_well(0);
}

#[test]
fn good_peers_are_let_in_beside_those_who_guess_and_hang_up() {
    let mut scene = Scene::start("");
    let (port, kv, over) = (scene.port, scene.kv.name().to_owned(), AtomicBool::new(false));
    let guesses = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    guesses.fetch_add(usize::from(guess_and_hang_up(port, &kv).is_ok()), Ordering::SeqCst);
                }
            });
        }
        // Far more than are looked at.
        wait_until("many guesses", || guesses.load(Ordering::SeqCst) > 500);
        wait_until("a good peer is let in", || Scripted::try_connect(port, "patient@h", &kv, COOKIE).is_ok());
    });
    scene.all_is_well(0);
    assert!(!scene.kv.log().contains("a guess"), "no cookie in the log:\n{}", scene.kv.log());
}

#[test]
fn tls_at_a_port_without_it_is_in_the_log_once() {
    let mut scene = Scene::start("");
    for _ in 0..50 {
        let mut stranger = scene.stranger();
        // A record of type 22 of TLS 1.x, which begins a ClientHello.
        stranger.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).expect("the port is open");
        closed(&mut stranger);
    }
    scene.all_is_well(0);
    let said = scene.kv.log().lines().filter(|line| line.contains("it speaks TLS")).count();
    assert_eq!(said, 1, "{}", scene.kv.log());
}

#[test]
fn a_peer_that_comes_and_goes_does_not_fill_the_log() {
    let mut scene = Scene::start("");
    let begin = Instant::now();
    for _ in 0..600 {
        drop(scene.peer("restless@h"));
    }
    scene.all_is_well(0);
    // 200 of each kind in 10 s.
    let lines_max = 200 * (1 + begin.elapsed().as_secs() as usize / 10);
    let log = scene.kv.log();
    for kind in ["INFO peer up", "INFO peer down"] {
        let said = log.lines().filter(|line| line.contains(kind) && line.contains("restless@h")).count();
        assert!((1..=lines_max.min(599)).contains(&said), "{kind}: {said} lines");
    }
}

#[test]
fn nothing_is_open_but_where_bind_says() {
    let scene = Scene::start("--bind 127.0.0.1");
    scene.peer("near@h").use_the_store();
    // All of 127/8 is this machine, and nobody listens there.
    let elsewhere = TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), scene.port));
    assert_eq!(elsewhere.map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn under_a_name_that_is_only_claimed_nothing_happens() {
    let mut scene = Scene::start("");
    let mut claimed = Vec::new();
    for _ in 0..50 {
        for name in ["good@h", "new@h"] {
            let mut stranger = scene.stranger();
            stranger.write_all(&send_name(name)).expect("the port is open");
            claimed.push(stranger);
        }
    }
    // One goes as far as to a wrong digest under the name of a connected peer.
    assert!(Scripted::try_connect(scene.port, "good@h", scene.kv.name(), "wrong").is_err());
    scene.good.use_the_store();
    // The real holder of the name is not told to go away.
    scene.peer("new@h").use_the_store();
    scene.all_is_well(0);
    assert!(!scene.kv.log().contains("peer=good@h: replaced"), "{}", scene.kv.log());
}

#[test]
fn only_those_that_are_allowed_are_let_in() {
    let scene = Scene::start("--allow *@h --allow exactly@elsewhere");
    scene.peer("anyone@h").use_the_store();
    scene.peer("exactly@elsewhere").use_the_store();
    let refused = Scripted::try_connect(scene.port, "other@elsewhere", scene.kv.name(), COOKIE);
    assert!(refused.is_err());
    scene.kv.wait_for_log(&["other@elsewhere was refused: it is not among --allow; "]);
    assert!(Scripted::try_connect(scene.port, "long@else.where", scene.kv.name(), COOKIE).is_err());
    scene.kv.wait_for_log(&["long@else.where was refused: its name is long, ours are short; "]);
}
