//! A good peer's calls while others mean harm: what each attack costs it, beside the same calls without.
//!
//! The attackers run on this machine too and take their share of its processors, so that part of what is shown is theirs:
//! the row `busy machine`, where as many threads only compute, says how much.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use kvnode::distribution::control::op;
use kvnode::etf::{Pid, Reference, TermWriter, encode};

use crate::children::resident_bytes;
use crate::link::{self, CREATION, HOST};
use crate::native::{Caller, Keys, Request, Until, VALUE_BYTES};
use crate::report::{Better, Table, verdict};
use crate::servers::{Endpoint, Kind, Lab, STORE, Server};
use crate::{Findings, Plan, Result, failure};

/// How many times a call's p99 may be what it is without an attack.
const P99_TIMES_MAX: f64 = 3.0;
/// What no call may take longer than, in milliseconds.
const WORST_MS_MAX: f64 = 250.0;
/// Bytes of each value that is asked for and not read.
const LARGE_BYTES: usize = 64 << 20;
/// Monitors, and as many links, of a peer that leaves.
const WATCHES: u32 = 100_000;
/// Peers that are connected at once and say nothing.
const PEERS: usize = 1_000;
/// Connections of strangers that say nothing.
const STRANGERS: usize = 500;
/// Keys of the good peer.
const KEYS: u64 = 1_000;

/// What is done to the node meanwhile: on a thread of its own, again and again until it is told to end.
type Attack = fn(&Target, &AtomicBool) -> Result<()>;

const ATTACKS: [(&str, Attack); 11] = [
    ("nothing", |_, ended| {
        wait(ended);
        Ok(())
    }),
    ("busy machine", compute),
    ("500 idle strangers", idle_strangers),
    ("strangers that come and go", strangers),
    ("1,000 idle peers", idle_peers),
    ("a reader that never reads", never_reads),
    ("100,000 monitors and links, and gone", watches),
    ("a flood of atoms", atoms),
    ("a flood of unknown calls", unknown_calls),
    ("a flood of spawn requests", spawns),
    ("the same, beside 1,000 idle peers", spawns_and_peers),
];

/// The node that is attacked.
struct Target {
    name: String,
    epmd_port: u16,
    port: u16,
}

/// Measures each attack in each round, on a server that was started for it.
pub fn attacks(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let metrics = [
        ("p50 µs", Better::Lower),
        ("p99 µs", Better::Lower),
        ("worst ms", Better::Lower),
        ("RSS MB", Better::Lower),
    ];
    let mut table = Table::new("a good peer's calls, one at a time, while another does", &metrics);
    for _ in 0..plan.rounds {
        for (name, attack) in ATTACKS {
            let server = lab.start(Kind::Kvnode)?;
            match under(&server, plan, attack) {
                Ok(values) => table.add(name, &values),
                Err(error) => table.fail(name, error),
            }
        }
    }
    let (alone, busy) = (table.median("nothing", 1), table.median("busy machine", 1));
    for (name, _) in ATTACKS.iter().skip(2) {
        let (Some(p99), Some(worst)) = (table.median(name, 1), table.median(name, 2)) else { continue };
        let (Some(alone), Some(busy)) = (alone, busy) else { continue };
        let times = p99 / alone.max(busy);
        let verdict = verdict(times <= P99_TIMES_MAX && worst <= WORST_MS_MAX);
        table.note(format!("{name}: p99 {times:.2} times, worst {worst:.1} ms: {verdict}"));
    }
    findings.table(table);
    Ok(())
}

fn under(server: &Server, plan: &Plan, attack: Attack) -> Result<[f64; 4]> {
    let Endpoint::Node { name, epmd_port, .. } = &server.endpoint else {
        return Err(failure("only a node is attacked"));
    };
    let target = Target { name: name.clone(), epmd_port: *epmd_port, port: link::lookup(*epmd_port, name)? };
    let mut good = Caller::connect(&server.endpoint, "good")?;
    good.fill(KEYS)?;
    let time = plan.time.max(Duration::from_millis(200)) * 2;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let outcome = attack(&target, &ended);
            // What is measured must have been going on.
            if ended.load(Ordering::Relaxed) {
                Ok(())
            } else {
                outcome.and(Err(failure("the attack ended early")))
            }
        });
        let outcome = good.load(Request::Get, 1, Keys::Random(KEYS), Until::After(time), true);
        let resident = resident_bytes(server.id());
        ended.store(true, Ordering::Relaxed);
        attacker.join().unwrap_or_else(|_| Err(failure("a thread of the attack failed")))?;
        let mut outcome = outcome?;
        let worst = outcome.latencies.iter().max().copied().unwrap_or_default();
        Ok([
            outcome.quantile_micros(0.5),
            outcome.quantile_micros(0.99),
            f64::from(worst) / 1e6,
            resident? as f64 / 1e6,
        ])
    })
}

fn wait(ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(5));
    }
}

fn compute(_: &Target, ended: &AtomicBool) -> Result<()> {
    let mut number = 1_u64;
    while !ended.load(Ordering::Relaxed) {
        number = std::hint::black_box(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number >> 29));
    }
    Ok(())
}

/// A peer that knows the cookie and means harm.
struct Bad {
    stream: TcpStream,
    pid: Pid,
}

impl Bad {
    fn connect(target: &Target, name: &str) -> Result<Self> {
        let linked = link::connect(target.epmd_port, name, &target.name)?;
        let pid = Pid { node: format!("{name}@{HOST}").into(), id: 90, serial: 1, creation: CREATION };
        Ok(Self { stream: linked.stream, pid })
    }

    /// Reads whatever comes, on a thread of its own, until the connection ends.
    fn reading(self) -> Result<Self> {
        let mut stream = self.stream.try_clone()?;
        thread::spawn(move || {
            let mut bytes = vec![0; 256 << 10];
            while stream.read(&mut bytes).is_ok_and(|len| len > 0) {}
        });
        Ok(self)
    }

    /// Writes the same bytes again and again. That the other side closes is not ours to mind.
    fn flood(&mut self, mut bytes: impl FnMut(u64) -> Vec<u8>, ended: &AtomicBool) -> Result<()> {
        self.stream.set_write_timeout(Some(Duration::from_millis(100)))?;
        let mut number = 0;
        while !ended.load(Ordering::Relaxed) {
            let batch = bytes(number);
            number += 1;
            let mut rest = &batch[..];
            while !rest.is_empty() && !ended.load(Ordering::Relaxed) {
                match self.stream.write(rest) {
                    Ok(len) => rest = &rest[len..],
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn reference(&self, number: u32) -> Reference {
        Reference {
            node: self.pid.node.clone(),
            creation: CREATION,
            words: vec![number & 0x3_ffff, number >> 18, 3],
        }
    }

    /// A call of the store.
    fn call(&self, number: u32, request: impl FnOnce(&mut TermWriter<'_>)) -> Vec<u8> {
        let control = encode(|w| _ = w.tuple(4).unsigned(op::REG_SEND).pid(&self.pid).atom("").atom(STORE));
        let payload = encode(|w| {
            w.tuple(3).atom("$gen_call").tuple(2).pid(&self.pid).reference(&self.reference(number));
            request(w);
        });
        frame(&control, &payload)
    }

    /// A spawn request whose function answers later, with a monitor on its process.
    fn spawn(&self, number: u32) -> Vec<u8> {
        let control = encode(|w| {
            w.tuple(6)
                .unsigned(op::SPAWN_REQUEST)
                .reference(&self.reference(number))
                .pid(&self.pid)
                .pid(&self.pid);
            w.tuple(3).atom("gen_server").atom("call").unsigned(2).list(1).atom("monitor").nil();
        });
        let arguments = encode(|w| {
            w.list(2).atom(STORE).tuple(2).atom("get").atom("a").nil();
        });
        frame(&control, &arguments)
    }
}

fn frame(control: &[u8], payload: &[u8]) -> Vec<u8> {
    let version: &[u8] = if payload.is_empty() { &[] } else { &[131] };
    let contents = [&[112, 131][..], control, version, payload].concat();
    [&(contents.len() as u32).to_be_bytes()[..], &contents].concat()
}

fn idle_strangers(target: &Target, ended: &AtomicBool) -> Result<()> {
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, target.port));
    let _idle = (0..STRANGERS).map(|_| connect()).collect::<std::io::Result<Vec<_>>>()?;
    wait(ended);
    Ok(())
}

/// As far as to a name that they have not proved, one after the other.
fn strangers(target: &Target, ended: &AtomicBool) -> Result<()> {
    let name = b"stranger@127.0.0.1";
    let mut hello = vec![b'N'];
    hello.extend(0xd_07df_7fbd_u64.to_be_bytes());
    hello.extend(7_u32.to_be_bytes());
    hello.extend((name.len() as u16).to_be_bytes());
    hello.extend(name);
    let hello = [&(hello.len() as u16).to_be_bytes()[..], &hello].concat();
    while !ended.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, target.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let _gone = stream.write_all(&hello).and_then(|()| stream.read(&mut [0; 64]));
    }
    Ok(())
}

fn peers(target: &Target, ended: &AtomicBool) -> Result<Vec<Bad>> {
    let mut peers = Vec::new();
    while peers.len() < PEERS && !ended.load(Ordering::Relaxed) {
        peers.push(Bad::connect(target, &format!("idle{}", peers.len()))?);
    }
    Ok(peers)
}

fn idle_peers(target: &Target, ended: &AtomicBool) -> Result<()> {
    let _peers = peers(target, ended)?;
    wait(ended);
    Ok(())
}

fn never_reads(target: &Target, ended: &AtomicBool) -> Result<()> {
    let mut bad = Bad::connect(target, "deaf")?;
    let value = vec![7; LARGE_BYTES];
    let put = bad.call(1, |w| {
        w.tuple(3).atom("put").atom("large").binary(&value);
    });
    bad.stream.write_all(&put)?;
    let get = bad.call(2, |w| {
        w.tuple(2).atom("get").atom("large");
    });
    bad.flood(|_| get.repeat(100), ended)
}

fn watches(target: &Target, ended: &AtomicBool) -> Result<()> {
    let mut number = 0;
    while !ended.load(Ordering::Relaxed) {
        number += 1;
        let mut bad = Bad::connect(target, &format!("leaves{number}"))?;
        let mut bytes = Vec::new();
        for at in 0..WATCHES {
            let control = encode(|w| {
                w.tuple(4).unsigned(op::MONITOR_P).pid(&bad.pid).atom(STORE).reference(&bad.reference(at));
            });
            bytes.extend(frame(&control, &[]));
        }
        // No exit signal ends it, so that what is measured is not the end of a store.
        let net_kernel = net_kernel_pid(&mut bad)?;
        for at in 0..WATCHES {
            let from = Pid { id: at, ..bad.pid.clone() };
            let control = encode(|w| _ = w.tuple(3).unsigned(op::LINK).pid(&from).raw(&net_kernel));
            bytes.extend(frame(&control, &[]));
        }
        bad.stream.write_all(&bytes)?;
        // An answer: all of it has been handled.
        net_kernel_pid(&mut bad)?;
    }
    Ok(())
}

/// The encoded pid of `net_kernel`, asked for by rpc.
fn net_kernel_pid(bad: &mut Bad) -> Result<Vec<u8>> {
    let control = encode(|w| {
        w.tuple(6)
            .unsigned(op::SPAWN_REQUEST)
            .reference(&bad.reference(u32::MAX))
            .pid(&bad.pid)
            .pid(&bad.pid);
        w.tuple(3).atom("erpc").atom("execute_call").unsigned(4).list(1).atom("monitor").nil();
    });
    let arguments = encode(|w| {
        w.list(4).reference(&bad.reference(u32::MAX)).atom("erlang").atom("whereis");
        w.list(1).atom("net_kernel").nil().nil();
    });
    bad.stream.write_all(&frame(&control, &arguments))?;
    // {Ref, return, Pid} stands at the end of the second frame, after that of the reply to the request.
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let len = bad.stream.read(&mut buffer)?;
        if len == 0 {
            return Err(failure("closed"));
        }
        bytes.extend_from_slice(&buffer[..len]);
        let returned = encode(|w| _ = w.atom("return"));
        if let Some(at) = bytes.windows(returned.len()).position(|part| part == returned) {
            let rest = bytes[at + returned.len()..].to_vec();
            let mut cursor = kvnode::etf::Cursor::new(&rest);
            if let Ok(pid) = cursor.term() {
                return Ok(pid.bytes().to_vec());
            }
        }
    }
}

fn atoms(target: &Target, ended: &AtomicBool) -> Result<()> {
    let mut bad = Bad::connect(target, "atoms")?.reading()?;
    let pid = bad.pid.clone();
    let batch = |number: u64| {
        let mut bytes = Vec::new();
        for at in 0..100 {
            let atom = format!("atom{number}x{at}");
            let control = encode(|w| _ = w.tuple(4).unsigned(op::REG_SEND).pid(&pid).atom("").atom(&atom));
            bytes.extend(frame(&control, &encode(|w| _ = w.atom(&atom))));
        }
        bytes
    };
    bad.flood(batch, ended)
}

fn unknown_calls(target: &Target, ended: &AtomicBool) -> Result<()> {
    let mut bad = Bad::connect(target, "unknown")?.reading()?;
    let call = bad.call(1, |w| {
        w.tuple(2).atom("frob").binary(&[b'x'; VALUE_BYTES]);
    });
    bad.flood(|_| call.repeat(100), ended)
}

fn spawns(target: &Target, ended: &AtomicBool) -> Result<()> {
    let mut bad = Bad::connect(target, "spawns")?.reading()?;
    let batch: Vec<u8> = (0..100).flat_map(|number| bad.spawn(number)).collect();
    bad.flood(|_| batch.clone(), ended)
}

fn spawns_and_peers(target: &Target, ended: &AtomicBool) -> Result<()> {
    let _peers = peers(target, ended)?;
    spawns(target, ended)
}
