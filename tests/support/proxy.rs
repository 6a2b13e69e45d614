//! What stands between a client and an etcd, and can be cut.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Passes on what comes, both ways. It ends with the test's process.
pub struct Proxy {
    port: u16,
    is_cut: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// In front of `http://ADDRESS:PORT`.
    pub fn before(endpoint: &str) -> Self {
        let target = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("some port is free");
        let port = listener.local_addr().expect("it listens").port();
        let (is_cut, streams) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (cut, known) = (Arc::clone(&is_cut), Arc::clone(&streams));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let both = || Some([client.try_clone().ok()?, server.try_clone().ok()?]);
                let (Some(one), Some(other), Some(kept)) = (both(), both(), both()) else { continue };
                {
                    let mut known = known.lock().expect("no thread panics with it");
                    if cut.load(Ordering::Acquire) {
                        continue;
                    }
                    known.extend(kept);
                }
                let [from_client, to_server] = one;
                let [to_client, from_server] = other;
                for (mut from, mut to) in [(from_client, to_server), (from_server, to_client)] {
                    std::thread::spawn(move || {
                        let _ended = std::io::copy(&mut from, &mut to);
                        let _closed = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { port, is_cut, streams }
    }

    /// Where it listens, on this machine.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// All connections end, and none is made.
    pub fn cut(&self) {
        let mut streams = self.streams.lock().expect("no thread panics with it");
        self.is_cut.store(true, Ordering::Release);
        for stream in streams.drain(..) {
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }

    /// Connections are made again.
    pub fn mend(&self) {
        self.is_cut.store(false, Ordering::Release);
    }
}
