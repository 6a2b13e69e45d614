//! etcd without kvnode: members that are started here, with their data in the lab's folder and synced as by default, and a load by
//! the client of `src/etcd`, a request of its own for each put and get.

use std::cell::Cell;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kvnode::etcd::message::{Bytes, Call, Op, PutRequest, RangeRequest, TxnRequest};
use kvnode::etcd::{Ask, Config, Etcd};

use crate::children::{CpuTime, PATIENCE, Running, on_path, resident_bytes};
use crate::compiled::not_installed;
use crate::link::HOST;
use crate::native::{VALUE_BYTES, key, mix, value};
use crate::servers::{Lab, Place, free_port};
use crate::{Failure, Result, failure, stats};

/// What a member keeps at most: the loads are to come to no quota.
const QUOTA_BYTES: u64 = 8 << 30;
/// How long a request of a load may take. What the client gives up by default, to try it anew, would be counted twice.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// What plain keys begin with: about as long as what a key of a store begins with.
const PREFIX: &[u8] = b"plain00/local:kv/e/";
/// Keys that are put.
const PUT_KEYS: u64 = 100_000;
/// Keys that are got.
pub const GET_KEYS: u64 = 1_000;
/// Operations of a transaction by which they are put.
const OPERATIONS: u64 = 100;

/// A cluster of etcd. It ends with this value, and its data goes.
pub struct Members {
    members: Vec<Running>,
    endpoints: Vec<String>,
    folders: Vec<PathBuf>,
    client: Etcd,
}

/// What a load found.
pub struct Found {
    pub calls: usize,
    pub elapsed: Duration,
    /// In microseconds.
    times: Vec<u32>,
}

impl Found {
    /// Calls a second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }

    /// A quantile of the times, in milliseconds.
    pub fn quantile_millis(&mut self, quantile: f64) -> f64 {
        stats::quantile(&mut self.times, quantile) / 1e3
    }
}

impl Members {
    /// Starts so many, and waits until each of them answers what takes a leader.
    ///
    /// # Errors
    /// etcd is not installed, or a member has failed; the text is for people.
    pub fn start(lab: &Lab, count: usize) -> Result<Self> {
        if !on_path("etcd") {
            return Err(not_installed("etcd is not installed (apt: etcd-server)"));
        }
        let ports = free_ports(2 * count)?;
        let (clients, peers) = ports.split_at(count);
        let url = |port: &u16| format!("http://{HOST}:{port}");
        let numbers: Vec<u32> = (0..count).map(|_| lab.next_number()).collect();
        let cluster: Vec<String> =
            numbers.iter().zip(peers).map(|(number, peer)| format!("m{number}={}", url(peer))).collect();
        let endpoints: Vec<String> = clients.iter().map(url).collect();
        let (mut members, mut folders) = (Vec::new(), Vec::new());
        for ((number, endpoint), peer) in numbers.iter().zip(&endpoints).zip(peers) {
            let folder = lab.folder.path().join(format!("etcd{number}"));
            let mut command = Command::new("etcd");
            // What the settings of the user who runs this say of etcd.
            for (variable, _) in std::env::vars_os() {
                if variable.to_str().is_some_and(|name| name.starts_with("ETCD_")) {
                    command.env_remove(variable);
                }
            }
            command.args(["--name", &format!("m{number}"), "--data-dir"]).arg(&folder);
            command.args(["--listen-client-urls", endpoint, "--advertise-client-urls", endpoint]);
            let peer = url(peer);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &cluster.join(",")]);
            command.args(["--initial-cluster-token", &format!("kvnode-bench-{}", numbers[0])]);
            command.args(["--quota-backend-bytes", &QUOTA_BYTES.to_string()]);
            command.args(["--logger", "zap", "--log-level", "error"]);
            members.push(Running::start(&format!("etcd {number}"), &mut command, lab.folder.path())?);
            folders.push(folder);
        }
        let client = client(&endpoints)?;
        let started = Self { members, endpoints, folders, client };
        started.wait()?;
        Ok(started)
    }

    /// Waits until each member answers.
    fn wait(&self) -> Result<()> {
        for (member, endpoint) in self.members.iter().zip(&self.endpoints) {
            let ask = Ask { deadline: Some(PATIENCE), effect: None };
            let range = RangeRequest { key: Bytes::from_static(PREFIX), ..RangeRequest::default() };
            let answer = smol::block_on(client(std::slice::from_ref(endpoint))?.call_with(&range, ask));
            answer.map_err(|error| member.fault(&error.to_string()))?;
        }
        Ok(())
    }

    /// Where a kvnode that keeps its store here is started: below this prefix.
    pub fn place(&self, prefix: &str) -> Result<Place> {
        let endpoints = self.endpoints.join(",");
        let flags = ["--engine", "etcd", "--etcd", &endpoints, "--etcd-prefix", prefix];
        let kvnode = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Ok(Place { kvnode, page: Some(free_port()?), ..Place::default() })
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Processor time of each member.
    pub fn cpu(&self) -> Result<Vec<CpuTime>> {
        self.members.iter().map(|member| CpuTime::of(member.id())).collect()
    }

    /// What all of them have used since then, in nanoseconds.
    pub fn nanos_since(&self, before: &[CpuTime]) -> Result<f64> {
        let mut nanos = 0.0;
        for (member, before) in self.members.iter().zip(before) {
            nanos += before.nanos_since(member.id())?;
        }
        Ok(nanos)
    }

    /// Resident memory of the first member, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        resident_bytes(self.members[0].id())
    }

    /// So many tasks at once, each a put of 100 bytes after the other.
    pub fn puts(&self, tasks: usize, time: Duration) -> Result<Found> {
        let value = Bytes::from(value(VALUE_BYTES));
        self.load(tasks, time, |number| PutRequest {
            key: plain_key(mix(number) % PUT_KEYS),
            value: value.clone(),
            ..PutRequest::default()
        })
    }

    /// Puts what [`gets`](Self::gets) gets.
    pub fn prepare(&self) -> Result<()> {
        let value = Bytes::from(value(VALUE_BYTES));
        for first in (0..GET_KEYS).step_by(OPERATIONS as usize) {
            let puts = (first..first + OPERATIONS).map(|number| {
                let put =
                    PutRequest { key: plain_key(number), value: value.clone(), ..PutRequest::default() };
                Op::Put(put).into()
            });
            let txn = TxnRequest { success: puts.collect(), ..TxnRequest::default() };
            smol::block_on(self.client.call(&txn))?;
        }
        Ok(())
    }

    /// So many tasks at once, each a get after the other, linearizable as etcd's are by default.
    pub fn gets(&self, tasks: usize, time: Duration) -> Result<Found> {
        self.load(tasks, time, |number| RangeRequest {
            key: plain_key(mix(number) % GET_KEYS),
            ..RangeRequest::default()
        })
    }

    fn load<C: Call>(&self, tasks: usize, time: Duration, request: impl Fn(u64) -> C) -> Result<Found> {
        let next = Cell::new(0);
        let started = Instant::now();
        let until = started + time;
        let one = async || {
            let mut times = Vec::new();
            loop {
                let asked = Instant::now();
                if asked >= until && !times.is_empty() {
                    return Ok::<_, Failure>(times);
                }
                next.set(next.get() + 1);
                self.client.call(&request(next.get())).await?;
                times.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
        };
        let executor = smol::LocalExecutor::new();
        let running: Vec<_> = (0..tasks).map(|_| executor.spawn(one())).collect();
        let times = smol::block_on(executor.run(async {
            let mut all = Vec::new();
            for task in running {
                all.extend(task.await?);
            }
            Ok::<_, Failure>(all)
        }))?;
        Ok(Found { calls: times.len(), elapsed: started.elapsed(), times })
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.members.clear();
        for folder in &self.folders {
            // What is left goes with the lab's folder.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn client(endpoints: &[String]) -> Result<Etcd> {
    let mut config =
        Config::new(endpoints.to_vec()).with_deadline(REQUEST_MAX).with_try_duration_max(REQUEST_MAX);
    // With a thousand requests in flight on a busy machine a member seems dead that is not.
    config.check_duration_max = REQUEST_MAX;
    Ok(Etcd::connect(config)?)
}

fn plain_key(number: u64) -> Bytes {
    [PREFIX, &key(number)].concat().into()
}

/// Ports that differ from each other.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<std::io::Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// What etcd says of its version.
///
/// # Errors
/// It is not installed, or says nothing.
pub fn version() -> Result<String> {
    let output = Command::new("etcd").arg("--version").stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().next().ok_or_else(|| failure("etcd --version says nothing"))?;
    Ok(line.rsplit(' ').next().unwrap_or(line).to_owned())
}
