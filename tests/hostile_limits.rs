//! Limits that `hostile.rs` would have to wait or send long for, short here: on a node of the library, with and without
//! TLS.

#![cfg(feature = "program")]
#![allow(clippy::disallowed_methods, reason = "tests of real nodes live in real time")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use futures_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};
use kvnode::config::{Limits, TlsConfig};
use kvnode::distribution::control::op;
use kvnode::{Node, block_on};
use support::tls::{Ca, Files};
use support::{COOKIE, Epmd, Otp, Scripted, Term, at_host, binary, short_hostname, term, term_with};

/// Longer than anything that is waited for here.
const LONG: Duration = Duration::from_secs(60);

struct Scene {
    node: Arc<Node>,
    port: u16,
    files: Option<Files>,
    epmd: Epmd,
}

impl Scene {
    fn start(limits: Limits, files: Option<Files>) -> Self {
        let epmd = Epmd::start();
        let builder = Node::builder("limits").cookie(COOKIE).epmd(epmd.config()).limits(limits);
        let builder = match &files {
            Some(files) => builder.tls(config(files)),
            None => builder,
        };
        let node = builder.start().expect("it starts");
        let port = epmd.port_of("limits").expect("it is registered");
        Self { node, port, files, epmd }
    }

    fn with_tls(limits: Limits) -> Self {
        Self::start(limits, Some(Ca::new("test").files(&Otp::newest(), &short_hostname())))
    }

    fn peer(&self, name: &str) -> Scripted {
        Scripted::connect(self.port, name, self.node.name().as_str())
    }

    fn stranger(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("the port is open");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        stream
    }

    /// A client that has the certificate of a good node.
    fn client(&self) -> ClientConnection {
        let files = self.files.as_ref().expect("a scene with TLS");
        let read = |name| std::fs::read(files.path(name)).expect("it is there");
        let certificate = |name| CertificateDer::from_pem_slice(&read(name)).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.pem")).expect("a CA");
        let key = PrivateKeyDer::from_pem_slice(&read("key.pem")).expect("a key");
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate("cert.pem")], key)
            .expect("they belong together");
        let host = ServerName::try_from(short_hostname()).expect("a host name");
        ClientConnection::new(Arc::new(config), host).expect("a client")
    }

    /// A good node comes by TLS, and is let in.
    #[track_caller]
    fn a_good_node_comes(&self) {
        let files = self.files.as_ref().expect("a scene with TLS");
        let at = self.epmd.config();
        let good = Node::builder("good").cookie(COOKIE).epmd(at).tls(config(files)).outgoing_only();
        let good = good.start().expect("it starts");
        let came = block_on(good.connect_to(self.node.name().as_str()));
        assert!(came.is_ok(), "{came:?}");
        block_on(good.stop());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        block_on(self.node.stop());
    }
}

fn config(files: &Files) -> TlsConfig {
    TlsConfig::new(files.path("cert.pem"), files.path("key.pem"), files.path("ca.pem"))
}

fn is_gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}

/// Says these bytes one by one, then zeros, until the other side closes.
#[track_caller]
fn trickle(mut stream: TcpStream, bytes: &[u8]) {
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
    let start = Instant::now();
    for byte in bytes.iter().chain(std::iter::repeat(&0)) {
        let _gone = stream.write_all(&[*byte]);
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return,
            Err(error) if is_gone(error.kind()) => return,
            _ => assert!(start.elapsed() < LONG, "still open"),
        }
    }
}

/// Waits until the other side closes.
#[track_caller]
fn closed(stream: &mut TcpStream) {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if is_gone(error.kind()) => return,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

#[test]
fn each_step_has_its_time_with_tls_too() {
    let step = Duration::from_secs(1);
    let limits =
        Limits::default().with_handshake_step_duration_max(step).with_handshake_duration_max(LONG * 2);
    let scene = Scene::with_tls(limits);
    let mut hello = Vec::new();
    scene.client().write_tls(&mut hello).expect("memory");
    let within_tls = |stream: &mut TcpStream| {
        let mut client = scene.client();
        client.complete_io(stream).expect("a good certificate");
        client
    };
    let ends = |what: &'static str, how: &(dyn Fn(TcpStream) + Sync)| {
        let start = Instant::now();
        how(scene.stranger());
        let took = start.elapsed();
        println!("{what}: {took:?}");
        assert!(took >= step && took < LONG / 2, "{what}: {took:?}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| ends("silence", &|mut stream| closed(&mut stream)));
        scope.spawn(|| ends("a hello byte by byte", &|stream| trickle(stream, &hello)));
        scope.spawn(|| {
            ends("a hello and no more", &|mut stream| {
                stream.write_all(&hello).expect("the port is open");
                closed(&mut stream);
            });
        });
        scope.spawn(|| {
            ends("TLS and no more", &|mut stream| {
                let _client = within_tls(&mut stream);
                closed(&mut stream);
            });
        });
        scope.spawn(|| {
            ends("a name byte by byte within TLS", &|mut stream| {
                let mut client = within_tls(&mut stream);
                stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
                // The length of the packet, and what never becomes that long.
                for byte in [0, 0, 0, 200].into_iter().chain(std::iter::repeat(b'N')) {
                    client.writer().write_all(&[byte]).expect("memory");
                    let _gone = client.write_tls(&mut stream);
                    match stream.read(&mut [0; 4096]) {
                        Ok(0) => return,
                        Err(error) if is_gone(error.kind()) => return,
                        _ => {}
                    }
                }
            });
        });
    });
    scene.a_good_node_comes();
}

#[test]
fn there_is_one_time_for_tls_and_the_handshake_together() {
    let all = Duration::from_secs(4);
    let limits = Limits::default().with_handshake_step_duration_max(all).with_handshake_duration_max(all);
    let scene = Scene::with_tls(limits);
    let mut stranger = scene.stranger();
    let start = Instant::now();
    // Late, and not too late: as long as a slow one may take.
    std::thread::sleep(all - Duration::from_millis(500));
    let _may_be_over = scene.client().complete_io(&mut stranger);
    closed(&mut stranger);
    let took = start.elapsed();
    assert!(took >= all && took < all * 2 - Duration::from_millis(750), "{took:?}");
    scene.a_good_node_comes();
}

#[test]
fn a_node_that_is_dialled_and_says_nothing_is_given_up_after_a_step() {
    let step = Duration::from_secs(1);
    let limits =
        Limits::default().with_handshake_step_duration_max(step).with_handshake_duration_max(LONG * 2);
    let deaf = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = deaf.local_addr().expect("it is bound").port();
    for scene in [Scene::with_tls(limits.clone()), Scene::start(limits, None)] {
        let _registered = scene.epmd.register("deaf", port);
        let start = Instant::now();
        let error = block_on(scene.node.connect_to(&at_host("deaf"))).expect_err("it says nothing");
        let took = start.elapsed();
        assert!(took >= step && took < LONG, "{took:?}: {error}");
        assert!(error.to_string().contains("in time"), "{error}");
    }
}

#[test]
fn idle_connections_make_room_at_a_tls_port_too() {
    let limits = Limits::default()
        .with_handshakes_per_address_max(8)
        .with_handshake_step_duration_max(LONG * 2)
        .with_handshake_duration_max(LONG * 2);
    let scene = Scene::with_tls(limits);
    let mut idle: Vec<TcpStream> = (0..40).map(|_| scene.stranger()).collect();
    scene.a_good_node_comes();
    // Each that came made room for itself, the good one too.
    idle[..40 - 7].iter_mut().for_each(closed);
    let last = idle.last_mut().expect("there are 40");
    last.set_nonblocking(true).expect("a socket");
    let open = last.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(open, Err(ErrorKind::WouldBlock), "the newest is still being set up");
}

/// A message in two fragments, the first of so many bytes.
fn fragments(sequence: u64, message: &[u8], first: usize) -> [Vec<u8>; 2] {
    let (first, second) = message.split_at(first);
    let sequence = sequence.to_be_bytes();
    let frame = |parts: &[&[u8]]| {
        let frame = parts.concat();
        [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
    };
    [
        frame(&[&[131, 69], &sequence, &2_u64.to_be_bytes(), &[0], first]),
        frame(&[&[131, 70], &sequence, &1_u64.to_be_bytes(), second]),
    ]
}

/// Sets a monitor of `net_kernel`, and gives a call of that with so many bytes: without the head of a frame.
fn large_call(peer: &mut Scripted, number: u32, bytes: usize) -> Vec<u8> {
    let monitor = format!("#PID<0.90.1>, :net_kernel, #Reference<0.3.2.{number}>");
    let monitor = peer.signal(op::MONITOR_P, &monitor, &[]);
    assert!(peer.send(&monitor));
    let control = peer.control(op::REG_SEND, "#PID<0.90.1>, :\"\", :net_kernel", &[]);
    let request = term_with("{:is_auth, $1}", &[&binary(&vec![7; bytes])]);
    [control, peer.gen_call(&peer.pid(), number, &request)].concat()
}

/// Waits until the call ends by its monitor, with a reason in which these words are.
#[track_caller]
fn ends(peer: &mut Scripted, number: u32, words: &[&str]) {
    let reference = peer.reference(number).encoded();
    loop {
        let frame = peer.next_frame().expect("the connection is open");
        let is_it = frame.windows(reference.len()).any(|part| part == reference);
        if is_it && frame.get(2..4) == Some(&[97, op::PAYLOAD_MONITOR_P_EXIT as u8]) {
            let text = String::from_utf8_lossy(&frame);
            assert!(text.contains("system_limit") && words.iter().all(|word| text.contains(word)), "{text}");
            return;
        }
    }
}

#[test]
fn a_call_over_the_bound_ends_and_the_connection_goes_on() {
    let limits = Limits::default().with_frame_bytes_max(1 << 20);
    let scene = Scene::start(limits, None);
    let mut peer = scene.peer("some@h");
    let words = ["over the bound of 1048576 (--frame-bytes-max)"];
    let call = large_call(&mut peer, 1, 3 << 20);
    let frame = peer.frame(&call, &[]);
    assert!(peer.send(&frame));
    ends(&mut peer, 1, &words);
    // Known at the first fragment, and at the second only.
    for (number, first) in [(2, 2 << 20), (3, 100_000)] {
        let call = large_call(&mut peer, number, 3 << 20);
        let [first, second] = fragments(7, &call, first);
        assert!(peer.send(&first));
        peer.pid_of("net_kernel");
        assert!(peer.send(&second));
        ends(&mut peer, number, &words);
    }
    peer.pid_of("net_kernel");
}

#[test]
fn past_what_may_be_under_way_the_newest_call_ends_and_the_others_are_served() {
    let limits = Limits::default().with_frame_bytes_max(1 << 20).with_unfinished_bytes_max(3 << 20);
    let scene = Scene::start(limits, None);
    let mut peer = scene.peer("some@h");
    let calls: Vec<[Vec<u8>; 2]> = (0..5)
        .map(|number| {
            let call = large_call(&mut peer, number, 950 << 10);
            fragments(number.into(), &call, 900 << 10)
        })
        .collect();
    for [first, _] in &calls {
        assert!(peer.send(first));
    }
    // It is read in order.
    peer.pid_of("net_kernel");
    for (number, [_, second]) in (0..).zip(&calls) {
        assert!(peer.send(second));
        if number < 3 {
            assert_eq!(peer.answer(number), term(":yes"));
        } else {
            ends(&mut peer, number, &["3145728 (--unfinished-bytes-max)"]);
        }
    }
    peer.pid_of("net_kernel");
}

#[test]
fn messages_that_are_skipped_have_a_bound_too() {
    let limits = Limits::default().with_frame_bytes_max(1 << 20).with_unfinished_messages_max(100);
    let scene = Scene::start(limits, None);
    let mut bad = scene.peer("bad@h");
    for sequence in 0..101 {
        let begun = &fragments(sequence, &vec![0; 3 << 20], 2 << 20)[0];
        if !bad.send(begun) {
            break;
        }
    }
    bad.wait_for_end();
    scene.peer("good@h").pid_of("net_kernel");
}

#[test]
fn one_message_is_let_through_whatever_the_bound_says() {
    let limits = Limits::default().with_frame_bytes_max(1 << 20).with_unfinished_bytes_max(0);
    let scene = Scene::start(limits, None);
    let mut peer = scene.peer("good@h");
    let control = peer.control(op::REG_SEND, "#PID<0.90.1>, :\"\", :nobody", &[]);
    let payload = binary(&vec![7; 600_000]);
    let message = [&control[..], &payload].concat();
    let [first, second] = fragments(7, &message, message.len() - 200_000);
    assert!(peer.send(&first) && peer.send(&second));
    peer.pid_of("net_kernel");
}
