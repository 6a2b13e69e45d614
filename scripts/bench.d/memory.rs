//! Resident memory per entry.

use crate::children::resident_bytes;
use crate::native::{Caller, VALUE_BYTES};
use crate::report::{Better, Table};
use crate::rounds::measure_each;
use crate::servers::{Kind, Lab};
use crate::{Findings, Plan, Result};

/// Fills each server with entries of a 16-byte key and a 100-byte value, and looks at what it grew by.
pub fn per_entry(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let entries: u64 = plan.pick(1_000_000, 50_000);
    let metrics = [("bytes/entry", Better::Lower), ("RSS MB", Better::Lower), ("puts/s", Better::Higher)];
    let title = format!("{entries} entries of a 16-byte key and a {VALUE_BYTES}-byte value");
    let mut table = Table::new(title, &metrics).expect("bytes/entry", "redis", 1.0).expect(
        "bytes/entry",
        "ETS by :erpc",
        // At most 60% of it.
        1.0 / 0.6,
    );
    let kinds = plan.servers(&[Kind::Kvnode, Kind::Redis, Kind::Ets, Kind::Genserver]);
    measure_each(&kinds, plan.pick(plan.rounds.min(3), 1), &mut table, findings, |kind| {
        let server = lab.start(kind)?;
        let mut caller = Caller::connect(&server.endpoint, "filler")?;
        // So that buffers of the connection have the size that they have under load, and are not counted.
        caller.fill(10_000)?;
        let before = resident_bytes(server.id())?;
        let filled = caller.fill(entries)?;
        let after = resident_bytes(server.id())?;
        let per_entry = (after as f64 - before as f64) / (entries - 10_000) as f64;
        Ok([per_entry, after as f64 / 1e6, filled.rate()])
    });
    findings.table(table);
    Ok(())
}
