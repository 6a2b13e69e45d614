//! A load's rounds over its servers. What fails is written into the table and costs that server's figures alone.

use crate::compiled::is_not_installed;
use crate::report::Table;
use crate::servers::{Kind, Lab, Server};
use crate::{Failure, Findings, Plan, Result};

/// Tables that a server may fail in before the rest of the load is spared it: each failure may take a time-out.
const FAILURES_MAX: u32 = 2;

/// The servers of one load, started and in an order that differs from round to round.
pub struct Bench {
    /// Those that run.
    pub servers: Vec<Server>,
    /// By process id.
    failures: Vec<(u32, u32)>,
}

impl Bench {
    /// Starts the wanted ones of these servers; notes which cannot be started.
    pub fn start(lab: &Lab, plan: &Plan, kinds: &[Kind], findings: &mut Findings) -> Self {
        let mut servers = Vec::new();
        for kind in plan.servers(kinds) {
            match lab.start(kind) {
                Ok(server) => servers.push(server),
                Err(error) => left_out(kind, &error, findings),
            }
        }
        Self { servers, failures: Vec::new() }
    }

    /// Readies each server for what follows; those that fail are left out.
    pub fn ready(&mut self, findings: &mut Findings, mut ready: impl FnMut(&Server) -> Result<()>) {
        self.servers.retain(|server| match ready(server) {
            Ok(()) => true,
            Err(error) => {
                left_out(server.kind, &error, findings);
                false
            }
        });
    }

    /// Measures each server in each round into a row of the table.
    pub fn measure<const N: usize>(
        &mut self,
        plan: &Plan,
        table: &mut Table,
        mut measure: impl FnMut(&Server) -> Result<[f64; N]>,
    ) {
        let mut failed_now = Vec::new();
        for round in 0..plan.rounds {
            let first = round % self.servers.len().max(1);
            for server in self.servers[first..].iter().chain(&self.servers[..first]) {
                if failed_now.contains(&server.id()) {
                    continue;
                }
                if self.failures.iter().any(|(id, count)| *id == server.id() && *count >= FAILURES_MAX) {
                    table.fail(server.kind.name(), "has failed before");
                    failed_now.push(server.id());
                    continue;
                }
                match measure(server) {
                    Ok(values) => table.add(server.kind.name(), &values),
                    Err(error) => {
                        table.fail(server.kind.name(), error);
                        failed_now.push(server.id());
                    }
                }
            }
        }
        for id in failed_now {
            match self.failures.iter_mut().find(|(known, _)| *known == id) {
                Some((_, count)) => *count += 1,
                None => self.failures.push((id, 1)),
            }
        }
    }
}

/// Measures each kind of server in each round into a row of the table, where each measurement starts one of its own.
pub fn measure_each<const N: usize>(
    kinds: &[Kind],
    rounds: usize,
    table: &mut Table,
    findings: &mut Findings,
    mut measure: impl FnMut(Kind) -> Result<[f64; N]>,
) {
    let mut kinds = kinds.to_vec();
    for _ in 0..rounds {
        kinds.retain(|kind| match measure(*kind) {
            Ok(values) => {
                table.add(kind.name(), &values);
                true
            }
            Err(error) if is_not_installed(&error) => {
                left_out(*kind, &error, findings);
                false
            }
            Err(error) => {
                table.fail(kind.name(), error);
                false
            }
        });
    }
}

/// Measures rows that are no servers of a kind each, in an order that differs from round to round. A row that fails is spared the
/// rest of its rounds.
pub fn measure_rows<R, const N: usize>(
    rows: &[(&'static str, R)],
    rounds: usize,
    table: &mut Table,
    mut measure: impl FnMut(&R) -> Result<[f64; N]>,
) {
    let mut failed = Vec::new();
    for round in 0..rounds {
        let first = round % rows.len().max(1);
        for (name, row) in rows[first..].iter().chain(&rows[..first]) {
            if failed.contains(name) {
                continue;
            }
            match measure(row) {
                Ok(values) => table.add(name, &values),
                Err(error) => {
                    table.fail(name, error);
                    failed.push(*name);
                }
            }
        }
    }
}

/// Says of a kind that it is left out: it is not installed, or has failed.
pub fn left_out(kind: Kind, error: &Failure, findings: &mut Findings) {
    let text = format!("{kind} is left out: {error}");
    if is_not_installed(error) {
        findings.note(text);
    } else {
        findings.fail(text);
    }
}
