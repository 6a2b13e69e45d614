//! What the figures of an etcd mean, and what to do about those that are not as they should be: values without I/O.

use std::net::IpAddr;
use std::time::Duration;

use super::super::CLOCKS_MAX_MS;
use crate::cli::size::short;
use crate::etcd::Error;
use crate::etcd::message::AlarmKind;

/// A write that takes longer is worth a look: an SSD that is the member's own syncs in 1 to 10 ms, and a round trip between zones takes 2.
const WRITE_SLOW: Duration = Duration::from_millis(25);
/// A write that takes as long as a leader's heartbeat (100 ms, where nobody has set it): elections follow from that.
const WRITE_BAD: Duration = Duration::from_millis(100);
/// The same of reads, which sync nothing.
const READ_SLOW: Duration = Duration::from_millis(15);
const READ_BAD: Duration = Duration::from_millis(100);
/// Entries that a member may lack of another's log, as they are asked one after the other.
const BEHIND_MAX: u64 = 1000;
/// From so many entries on that are not applied etcd refuses requests ("too many requests", `maxGapBetweenApplyAndCommitIndex`).
const UNAPPLIED_MAX: u64 = 5000;
/// etcd's bound where nobody has set it.
const QUOTA_DEFAULT: u64 = 2 << 30;
/// Parts of the bound from which on something is to be done, and said.
const FULL_BAD: f64 = 0.8;
const FULL_NOTED: f64 = 0.6;
/// A file from this size on is worth a defragmentation where half of it is not in use.
const DEFRAGMENT_BYTES: u64 = 100 << 20;
/// Revisions that are much where nobody compacts.
const HISTORY_MUCH: i64 = 10_000;
/// Revisions that are much where somebody has compacted, some time.
const HISTORY_HUGE: i64 = 1_000_000;
/// A compaction by a kvnode that is so long ago is none that goes on.
const COMPACTED_AGO_MAX: Duration = Duration::from_secs(3600);
/// Days before the end of a certificate from which on something is to be done, and said.
const DAYS_BAD: u64 = 7;
const DAYS_NOTED: u64 = 30;

/// What a figure means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All is well.
    Good(String),
    /// It is good to know: what was found, and what it means.
    Note(String, String),
    /// Something is to be done: what was found, and what to do.
    Bad(String, String),
}

use Verdict::{Bad, Good, Note};

fn bad(found: impl Into<String>, todo: impl Into<String>) -> Verdict {
    Bad(found.into(), todo.into())
}

fn note(found: impl Into<String>, meaning: impl Into<String>) -> Verdict {
    Note(found.into(), meaning.into())
}

/// A member that has answered.
pub(super) struct Member<'a> {
    pub(super) endpoint: &'a str,
    pub(super) version: &'a str,
    pub(super) leads: bool,
    pub(super) is_learner: bool,
    pub(super) term: u64,
    pub(super) index: u64,
    /// Entries of the log that it lacks of the longest.
    pub(super) behind: u64,
    /// Entries of its log that it has not applied.
    pub(super) unapplied: u64,
}

pub(super) fn member(member: &Member<'_>) -> Verdict {
    let Member { endpoint, version, leads, is_learner, term, index, behind, unapplied } = member;
    let role = match (leads, is_learner) {
        (true, _) => "leads",
        (false, true) => "learns, without a vote",
        (false, false) => "follows",
    };
    let version: String = version.escape_debug().take(32).collect();
    let found = format!("{endpoint} is etcd {version}, {role}, term {term}, index {index}");
    if *behind > BEHIND_MAX {
        let todo = "its disk is slow, or its network to the leader; or it was away until now: look again in a minute";
        return bad(format!("{found}: {behind} entries behind"), todo);
    }
    if *unapplied >= UNAPPLIED_MAX {
        let todo =
            "it does not come up with what it is asked, and refuses requests: see its CPU and its disk";
        return bad(format!("{found}: {unapplied} entries are not applied"), todo);
    }
    Good(found)
}

/// A member that has not answered as it should.
pub(super) fn silent(endpoint: &str, error: &Error) -> Verdict {
    let text = match error {
        Error::Unavailable { reason } | Error::Unknown { reason } => reason.clone(),
        error => error.to_string(),
    };
    let text = text.strip_prefix(endpoint.trim()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&text);
    let says = |part: &str| text.to_ascii_lowercase().contains(part);
    let todo = match error {
        Error::LeaderLost => {
            let found = format!("{endpoint} answers, and has no leader");
            let todo = "most members have to run and to reach each other: start those that are down, and see that no firewall \
                        stands between their --listen-peer-urls";
            return bad(found, todo);
        }
        Error::OtherCluster { .. } => {
            let found = format!("{endpoint} belongs to another cluster than the others");
            return bad(found, "name the members of one etcd alone in --etcd");
        }
        _ if says("certificate") && (says("required") || says("bad")) => {
            "it wants a certificate of its clients: give one by --etcd-cert and --etcd-key that its --trusted-ca-file has signed"
        }
        _ if says("certificate") => {
            "its certificate is not signed by --etcd-ca, has ended, or does not have this host name in it: give the CA that \
             has signed it, and name the member as its certificate does"
        }
        // Of the alert that says so nothing may have come.
        _ if endpoint.trim().starts_with("https:") && says("connection closed") => {
            "it ends the connection: where it wants a certificate of its clients (--client-cert-auth), give one by --etcd-cert and \
             --etcd-key that its --trusted-ca-file has signed; else see that an etcd listens there"
        }
        _ if says("refused") => {
            "nothing listens there: start that member, see its --listen-client-urls, or leave it out of --etcd"
        }
        _ if says("lookup") || says("resolve") || says("name or service") => {
            "the host is not known: see its name in --etcd, and put it into /etc/hosts or the name server"
        }
        _ if says("connect within") || says("unreachable") || says("no route") => {
            "see that the machine is up, and that no firewall stands before that port"
        }
        _ if says("not answered within") => {
            "it takes connections and says nothing: see whether its process is stopped, or its machine overloaded"
        }
        _ => {
            "see that an etcd of version 3.4 or later listens there, and that http:// and https:// are not mixed up"
        }
    };
    bad(format!("{endpoint} does not answer: {text}"), todo)
}

/// `unnamed`: voters that are not among the endpoints; `urls`: where these are found.
pub(super) fn quorum(voters: usize, answering: usize, unnamed: usize, urls: &[String]) -> Verdict {
    let needed = voters / 2 + 1;
    let found = format!("{answering} of {voters} members with a vote answer, and {needed} are needed");
    if unnamed > 0 {
        let meaning = format!(
            "{unnamed} of the members are not named, and are not asked when others are away: add {} to --etcd",
            urls.join(",")
        );
        return note(found, meaning);
    }
    if answering < needed {
        return bad(
            found,
            "nothing can be written, and nothing read that is to be the newest: start the members that do not answer",
        );
    }
    match voters {
        1 => note(
            found,
            "it ends with its machine, and the stores with it: etcd outlives a machine with three members",
        ),
        _ if answering == needed => {
            bad(format!("{found}: no further one may fail"), "bring the members back that do not answer")
        }
        _ if voters.is_multiple_of(2) => note(
            format!("{found}: {} may fail", answering - needed),
            "an odd number of members lets as many fail, and answers sooner",
        ),
        _ => Good(format!("{found}: {} may fail", answering - needed)),
    }
}

pub(super) fn alarm(kind: AlarmKind, member: &str) -> Verdict {
    match kind {
        AlarmKind::Corrupt => bad(
            format!("CORRUPT: the data of {member} differ from those of the others"),
            "end that member, take it out (etcdctl member remove), and add it again with an empty folder (etcdctl member add)",
        ),
        AlarmKind::NoSpace => bad(
            format!("NOSPACE: the file of {member} has come to its bound, and nothing is written any more"),
            "etcdctl compact with the revision of `etcdctl endpoint status`, then etcdctl defrag for each member, then etcdctl alarm \
             disarm; before, raise --quota-backend-bytes where the entries themselves take that much",
        ),
        AlarmKind::None => {
            note(format!("{member} has an alarm that is not known here"), "see etcdctl alarm list")
        }
    }
}

/// How a client gets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Auth {
    /// It has no user.
    NoUser,
    /// Its user is known.
    On,
    /// It has a user, and etcd asks for none.
    Off,
}

pub(super) fn rights(
    outcome: Result<Auth, Error>,
    user: Option<&str>,
    has_certificate: bool,
    prefix: &str,
) -> Verdict {
    let whom = user.map_or_else(|| "a client without a user".to_owned(), |user| format!("the user {user}"));
    match outcome {
        Ok(Auth::On) => Good(format!("authentication is on, and {whom} may read below {prefix}")),
        Ok(Auth::NoUser) if has_certificate => {
            Good(format!("the certificate alone gets in, and may read below {prefix}"))
        }
        Ok(Auth::NoUser) => note(
            "authentication is off",
            "whoever reaches a member reads and writes everything: let none but the kvnodes reach it, or turn it on (etcdctl auth \
             enable, --etcd-user)",
        ),
        Ok(Auth::Off) => note(
            format!("authentication is off, and {whom} is not asked for"),
            "whoever reaches a member reads and writes everything; etcdctl auth enable turns it on",
        ),
        Err(Error::TokenExpired) => bad(
            "authentication is on, and there is no user",
            "give --etcd-user, and its password in --etcd-password-file or KVNODE_ETCD_PASSWORD",
        ),
        Err(Error::Denied { text })
            if text.contains("authentication failed") || text.contains("invalid user") =>
        {
            bad(
                format!("etcd does not know {whom} with this password"),
                "see the user (etcdctl user list) and the password",
            )
        }
        Err(Error::Denied { text }) => {
            bad(format!("{whom} may not read below {prefix}: {text}"), grant(user, prefix))
        }
        Err(error) => bad(error.to_string(), "see what of the members above is not as it should be"),
    }
}

fn grant(user: Option<&str>, prefix: &str) -> String {
    let user = user.unwrap_or("USER");
    format!(
        "give it a role that may: etcdctl role add kvnode; etcdctl role grant-permission kvnode --prefix=true readwrite {prefix}; \
         etcdctl user grant-role {user} kvnode"
    )
}

/// Whether a transaction of so many operations is taken.
pub(super) fn transactions(outcome: Result<(), Error>, operations: usize) -> Verdict {
    match outcome {
        Ok(()) => Good(format!("{operations} operations are taken at once")),
        Err(Error::TooManyOperations) => bad(
            format!("etcd takes fewer than {operations} operations at once"),
            "start its members with --max-txn-ops=128, which is the default, or more: until then writes go in smaller parts, and a \
             put_many has room for fewer keys",
        ),
        Err(error) => bad(error.to_string(), "see what of the members above is not as it should be"),
    }
}

pub(super) fn not_written(error: &Error, user: Option<&str>, prefix: &str) -> Verdict {
    match error {
        Error::Denied { text } => {
            let whom = user.map_or_else(|| "this client".to_owned(), |user| format!("the user {user}"));
            let prefix = format!("{prefix}/");
            bad(format!("{whom} may not write below {prefix}: {text}"), grant(user, &prefix))
        }
        Error::NoSpace => bad("nothing can be written: there is no space", "see the alarms above"),
        error => bad(error.to_string(), "see what of the members above is not as it should be"),
    }
}

/// The median and the longest, in words.
fn times(times: &mut [Duration]) -> Option<(Duration, String)> {
    times.sort_unstable();
    let (median, worst) = (*times.get(times.len() / 2)?, *times.last()?);
    let millis = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    Some((median, format!("{}, at worst {}, of {}", millis(median), millis(worst), times.len())))
}

pub(super) fn writes(all: &mut [Duration]) -> Verdict {
    let Some((median, text)) = times(all) else { return note("none was made", "nothing is known") };
    let found = format!("a write, synced by most members, takes {text}");
    let disk = "etcd wants a disk of its own that syncs in less than 10 ms (an SSD; its metric \
                etcd_disk_wal_fsync_duration_seconds), a CPU that others do not take, and members near each other";
    match median {
        median if median >= WRITE_BAD => bad(
            found,
            format!("as long as a leader may be silent, so that others are elected time and again: {disk}"),
        ),
        median if median >= WRITE_SLOW => {
            note(found, format!("each write of a store takes that long: {disk}"))
        }
        _ => Good(found),
    }
}

pub(super) fn reads(all: &mut [Duration]) -> Verdict {
    let Some((median, text)) = times(all) else { return note("none was made", "nothing is known") };
    let found = format!("a read, confirmed by most members, takes {text}");
    let network = "see the network between this machine and the members, and between them, and whether others take their CPU";
    match median {
        median if median >= READ_BAD => bad(found, network),
        median if median >= READ_SLOW => note(found, network),
        _ => Good(found),
    }
}

/// The file of a member, in bytes.
pub(super) struct Size<'a> {
    pub(super) endpoint: &'a str,
    pub(super) file: u64,
    pub(super) used: u64,
    /// `None`: it is not told.
    pub(super) quota: Option<u64>,
}

pub(super) fn size(size: &Size<'_>) -> Verdict {
    let Size { endpoint, file, used, quota } = *size;
    let part = file as f64 / quota.unwrap_or(QUOTA_DEFAULT).max(1) as f64;
    let bound = match quota {
        Some(quota) => format!("{} ({:.0}%)", short(quota), part * 100.0),
        None => {
            "a bound that it does not tell (2.0 GiB unless --quota-backend-bytes says otherwise)".to_owned()
        }
    };
    let found = format!("{endpoint} has {} of {bound}, {} in use", short(file), short(used));
    let unused = file.saturating_sub(used);
    let defragment = format!(
        "etcdctl defrag --endpoints {endpoint} gives {} back; one member after the other, as each answers nothing meanwhile",
        short(unused)
    );
    if part >= FULL_BAD {
        let todo = if unused >= file / 4 {
            format!("at its bound etcd takes no more writes: {defragment}")
        } else {
            "at its bound etcd takes no more writes: have its history compacted (below), delete what is not needed, or raise \
             --quota-backend-bytes; etcd advises 8 GiB at most"
                .to_owned()
        };
        return bad(found, todo);
    }
    if file >= DEFRAGMENT_BYTES && unused >= file / 2 {
        return note(found, defragment);
    }
    if part >= FULL_NOTED {
        return note(
            found,
            "at its bound etcd takes no more writes: see that its history is compacted (below)",
        );
    }
    Good(found)
}

/// What is kept of the past.
pub(super) struct History {
    /// The oldest revision that can be read.
    pub(super) oldest: i64,
    pub(super) revision: i64,
    /// The kvnode that has compacted last.
    pub(super) compactor: Option<Compactor>,
}

pub(super) struct Compactor {
    pub(super) node: String,
    pub(super) revision: i64,
    pub(super) age: Duration,
}

pub(super) fn history(history: &History) -> Verdict {
    let History { oldest, revision, compactor } = history;
    let kept = revision.saturating_sub(*oldest);
    let found = format!("revisions {oldest} to {revision} are kept");
    let by = compactor.as_ref().map(|Compactor { node, revision, age }| {
        format!("{node} has compacted up to {revision}, {} ago", ago(*age))
    });
    let found = by.map_or_else(|| found.clone(), |by| format!("{found}; {by}"));
    let todo = "have a kvnode do it, which is --etcd-compact 5m and the default, or etcd: --auto-compaction-mode periodic \
                --auto-compaction-retention 5m";
    let goes_on = compactor.as_ref().is_some_and(|compactor| compactor.age <= COMPACTED_AGO_MAX);
    if goes_on && kept < HISTORY_HUGE {
        return Good(found);
    }
    if *oldest <= 1 && kept >= HISTORY_MUCH {
        return bad(
            format!("{found}: nobody has ever compacted"),
            format!("the file grows with each write until it is full: {todo}"),
        );
    }
    if kept >= HISTORY_HUGE {
        return note(
            format!("{found}, which are {kept}"),
            format!("does somebody still compact? Else the file grows with each write: {todo}"),
        );
    }
    match oldest {
        ..=1 => Good(format!("{found}: nobody has compacted yet, and little is to be")),
        _ => Good(found),
    }
}

fn ago(age: Duration) -> String {
    match age.as_secs() {
        secs if secs >= 172_800 => format!("{} days", secs / 86_400),
        secs if secs >= 7_200 => format!("{} h", secs / 3600),
        secs if secs >= 120 => format!("{} min", secs / 60),
        secs => format!("{secs} s"),
    }
}

/// The clock of a member.
pub(super) enum Clock {
    /// It had these whole seconds since 1970, between two moments of the clock here.
    Said { secs: u64, before_ms: i64, after_ms: i64 },
    /// It is not known, and why.
    NotSaid(String),
}

pub(super) fn clock(endpoint: &str, clock: &Clock) -> Verdict {
    let (secs, before, after) = match clock {
        Clock::Said { secs, before_ms, after_ms } => (*secs, *before_ms, *after_ms),
        Clock::NotSaid(why) => {
            return note(format!("that of {endpoint} is not known: {why}"), "compare it by hand");
        }
    };
    // Of the second that it said any moment may be meant.
    let (from, to) = (secs as i64 * 1000, secs as i64 * 1000 + 999);
    let off = if to < before { before - to } else { (from - after).max(0) };
    if off > CLOCKS_MAX_MS {
        return bad(
            format!("the clock of {endpoint} is {:.1} s off ours", off as f64 / 1000.0),
            "set both clocks by NTP: keys with a deadline end by the clock of the kvnode that is asked",
        );
    }
    Good(format!("that of {endpoint} agrees with ours, to a second"))
}

/// `end`, in seconds since 1970; `None`: it is not known.
pub(super) fn certificate(whose: &str, end: Option<u64>, now: u64) -> Verdict {
    let Some(end) = end else {
        return note(format!("{whose} could not be looked at"), "when it ends is not known");
    };
    let days = end.saturating_sub(now) / 86_400;
    let found = match (end <= now, days) {
        (true, _) => format!("{whose} has ended"),
        (false, 0) => format!("{whose} ends today"),
        (false, 1) => format!("{whose} ends tomorrow"),
        (false, days) => format!("{whose} ends in {days} days"),
    };
    match days {
        days if days < DAYS_BAD => bad(
            found,
            "renew it: files are read at each connection, so that a kvnode takes the new one by itself",
        ),
        days if days < DAYS_NOTED => note(found, "renew it soon"),
        _ => Good(found),
    }
}

/// Endpoints without TLS that are not on this machine.
pub(super) fn plain(endpoints: &[String]) -> Option<Verdict> {
    let is_plain = |endpoint: &&String| {
        let Some(host) = endpoint.trim().strip_prefix("http://") else { return false };
        let host = host.trim_end_matches('/');
        let host = match host.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => host,
            _ => host,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let plain: Vec<&str> = endpoints.iter().filter(is_plain).map(|endpoint| endpoint.trim()).collect();
    (!plain.is_empty()).then(|| {
        note(
            format!("none to {}", plain.join(", ")),
            "whoever is on the way reads keys, values and passwords, and may change them: https:// and --etcd-ca, unless the network is \
             the members' and the kvnodes' alone",
        )
    })
}

#[cfg(test)]
mod tests;
