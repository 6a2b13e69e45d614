//! What monitors cost: the same floor with and without them.
//!
//! A BEAM's `GenServer.call` is three frames to a node that offers DIST_MONITOR and DIST_MONITOR_NAME, and one to a node
//! that does not: at the price that a caller waits for its whole time-out where nobody is, and is told no reasons.

use crate::beam::{CALLERS, Client, callers};
use crate::report::Table;
use crate::rounds::Bench;
use crate::servers::{Kind, Lab};
use crate::{Findings, Plan, Result};

const SERVERS: [Kind; 6] = [
    Kind::Kvnode,
    Kind::Genserver,
    Kind::Parked,
    Kind::ParkedUnmonitored,
    Kind::Polling,
    Kind::PollingUnmonitored,
];

/// One caller and many, against floors that offer monitors and floors that do not.
pub fn monitors(lab: &Lab, plan: &Plan, findings: &mut Findings) -> Result<()> {
    let Some(mut client) = Client::start(lab, findings)? else { return Ok(()) };
    let mut bench = Bench::start(lab, plan, &SERVERS, findings);
    client.prepare(&mut bench, findings);
    let millis = plan.time.as_millis() as u64;
    for count in [1, 128, 1000] {
        let mut table = Table::new(format!("with and without monitors, BEAM callers: {count}"), &CALLERS);
        bench.measure(plan, &mut table, |server| callers(&mut client, server, millis, count));
        let pairs = [(Kind::ParkedUnmonitored, Kind::Parked), (Kind::PollingUnmonitored, Kind::Polling)];
        for (without, with) in pairs {
            let gain =
                |column| table.between(without.name(), with.name(), column).map(|spread| spread.median);
            if let (Some(rate), Some(server), Some(client)) = (gain(0), gain(1), gain(2)) {
                table.note(format!(
                    "{without}: {rate:.2} times the calls/s of {with}, {:.2} of its server's time a call and {:.2} of \
                     its caller's",
                    1.0 / server,
                    1.0 / client
                ));
            }
        }
        findings.table(table);
    }
    Ok(())
}
