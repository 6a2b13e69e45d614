//! The etcd of stores, step by step: its members, what they take, how fast they are, and what they keep. What a figure means says [`judge`].

mod judge;

use std::time::{Duration, Instant};

use judge::{Auth, Clock, Compactor, History, Member, Size, Verdict};

use super::{Failed, Report, now_ms};
use crate::cli::progress::waiting;
use crate::etcd::message::{
    AlarmAction, AlarmKind, AlarmMember, AlarmRequest, AuthenticateRequest, Bytes, DeleteRangeRequest,
    LeaseGrantRequest, LeaseRevokeRequest, MemberListRequest, MemberListResponse, Op, OpResponse, PutRequest,
    RangeRequest, StatusResponse, TxnRequest, prefix_end,
};
use crate::etcd::{self, Error, Etcd, MemberPage, own_certificate_end};
use crate::program::EtcdConfig;
use crate::program::holder::{Compacted, holder_of};
use crate::store::etcd::OPERATIONS_MAX;

/// Writes and reads that are measured.
const TRIES: usize = 10;
/// The key that they are of ends with a lease of so many seconds, should this program end before it is deleted.
const LEASE_SECS: i64 = 60;
/// What is to be done where a question failed that follows others which did not.
const AGAIN: &str = "try again: etcd has just answered";
/// Stores that are looked at.
const STORES_MAX: usize = 50;

/// Etcd with the settings of a kvnode, and what members have said.
struct Asked<'a> {
    config: &'a EtcdConfig,
    etcd: Etcd,
    statuses: Vec<Result<StatusResponse, Error>>,
}

pub(super) async fn examine(report: &mut Report, config: &EtcdConfig) -> Result<(), Failed> {
    let etcd = match Etcd::connect(client(config)) {
        Ok(etcd) => etcd,
        Err(error) => {
            return Err(report.bad(
                "settings",
                error.to_string(),
                "this is about the flags that were typed here: give --etcd, --etcd-ca, --etcd-cert and --etcd-key as a node would \
                 be started with",
            ));
        }
    };
    let statuses = waiting("asking", "the members of etcd", etcd.statuses()).await;
    let asked = Asked { config, etcd, statuses };
    asked.members(report)?;
    asked.rights(report).await?;
    let members = asked.etcd.call(&MemberListRequest::default()).await;
    asked.quorum(report, members)?;
    asked.alarms(report).await;
    let pages = waiting("asking", "the members of etcd for their pages", asked.pages()).await;
    waiting("writing to", "etcd", asked.speed(report)).await;
    asked.transactions(report).await;
    asked.sizes(report, &pages);
    waiting("asking", "etcd for its history", asked.history(report)).await;
    asked.clock(report, &pages);
    asked.tls(report, &pages);
    Ok(())
}

/// As a kvnode with these settings speaks to it.
fn client(config: &EtcdConfig) -> etcd::Config {
    let EtcdConfig { endpoints, ca, cert, key, user, .. } = config;
    let tls = etcd::TlsFiles { ca: ca.clone(), cert: cert.clone(), key: key.clone() };
    let user =
        user.as_ref().map(|user| etcd::User { name: user.name.clone(), password: user.password.clone() });
    etcd::Config { tls, user, ..etcd::Config::new(endpoints.iter().cloned()) }
}

impl Asked<'_> {
    fn endpoint(&self, at: usize) -> &str {
        self.config.endpoints.get(at).map_or("", String::as_str)
    }

    /// Those that have said how they are, each with its place among the endpoints.
    fn answered(&self) -> impl Iterator<Item = (usize, &StatusResponse)> {
        self.statuses.iter().enumerate().filter_map(|(at, status)| Some((at, status.as_ref().ok()?)))
    }

    /// The place of the leader; where it is not among the endpoints that of a member that answers.
    fn leader(&self) -> Option<usize> {
        let leads =
            |status: &StatusResponse| status.header.is_some_and(|header| header.member_id == status.leader);
        let leader = self.answered().find(|(_, status)| leads(status));
        leader.or_else(|| self.answered().next()).map(|(at, _)| at)
    }

    /// Each member; it ends here where none can be asked for anything.
    fn members(&self, report: &mut Report) -> Result<(), Failed> {
        let index = self.answered().map(|(_, status)| status.raft_index).max().unwrap_or_default();
        for (at, status) in self.statuses.iter().enumerate() {
            let endpoint = self.endpoint(at);
            let verdict = match status {
                Ok(status) => judge::member(&Member {
                    endpoint,
                    version: &status.version,
                    leads: status.header.is_some_and(|header| header.member_id == status.leader),
                    is_learner: status.is_learner,
                    term: status.raft_term,
                    index: status.raft_index,
                    behind: index.saturating_sub(status.raft_index),
                    unapplied: status.raft_index.saturating_sub(status.raft_applied_index),
                }),
                Err(error) => judge::silent(endpoint, error),
            };
            report.say("member", verdict);
        }
        let differs = |of: fn(&StatusResponse) -> String| {
            let mut all: Vec<String> = self.answered().map(|(_, status)| of(status)).collect();
            all.sort_unstable();
            all.dedup();
            (all.len() > 1).then(|| all.join(", "))
        };
        if let Some(versions) = differs(|status| status.version.clone()) {
            report.noted(
                "versions",
                versions,
                "members of several versions are meant for an upgrade alone: bring all to the latest of them",
            );
        }
        if let Some(leaders) = differs(|status| format!("{:x}", status.leader)) {
            report.bad(
                "leader",
                format!("members name several leaders: {leaders}"),
                "try again in a second, as an election may be under way; where it stays so, see that they reach each other at \
                 their --listen-peer-urls",
            );
        }
        if self.answered().next().is_some() { Ok(()) } else { Err(Failed) }
    }

    /// How many members there are, and how many of them answer.
    fn quorum(&self, report: &mut Report, members: Result<MemberListResponse, Error>) -> Result<(), Failed> {
        let members = match members {
            Ok(answer) => answer.members,
            Err(error) => {
                let todo = "see what of the members above is not as it should be";
                return Err(report.bad("quorum", format!("the members are not told: {error}"), todo));
            }
        };
        let answer: Vec<u64> =
            self.answered().filter_map(|(_, status)| Some(status.header?.member_id)).collect();
        let voters: Vec<u64> =
            members.iter().filter(|member| !member.is_learner).map(|member| member.id).collect();
        let answering = voters.iter().filter(|id| answer.contains(id)).count();
        let is_named = |id: &u64| answer.contains(id);
        let silent = self.statuses.iter().filter(|status| status.is_err()).count();
        let unnamed = voters.iter().filter(|id| !is_named(id)).count().saturating_sub(silent);
        let urls =
            members.iter().filter(|member| !is_named(&member.id)).flat_map(|member| &member.client_urls);
        let urls: Vec<String> = urls.take(8).map(|url| url.escape_debug().to_string()).collect();
        report.say("quorum", judge::quorum(voters.len(), answering, unnamed, &urls));
        Ok(())
    }

    async fn alarms(&self, report: &mut Report) {
        let ask =
            AlarmRequest { action: AlarmAction::Get.into(), member_id: 0, alarm: AlarmKind::None.into() };
        let told = self.etcd.call(&ask).await;
        let name = |id: u64| {
            let found = self
                .answered()
                .find(|(_, status)| status.header.is_some_and(|header| header.member_id == id));
            found.map_or_else(|| format!("the member {id:x}"), |(at, _)| self.endpoint(at).to_owned())
        };
        let alarms: Vec<(AlarmKind, String)> = match told {
            Ok(answer) => {
                let of = |alarm: &AlarmMember| (alarm.alarm(), name(alarm.member_id));
                answer.alarms.iter().take(16).map(of).collect()
            }
            // They stand among what each says of itself.
            Err(_) => {
                let errors = self
                    .answered()
                    .flat_map(|(at, status)| status.errors.iter().map(move |error| (at, error)));
                let kind = |error: &str| match error {
                    error if error.contains("NOSPACE") => Some(AlarmKind::NoSpace),
                    error if error.contains("CORRUPT") => Some(AlarmKind::Corrupt),
                    _ => None,
                };
                errors.filter_map(|(at, error)| Some((kind(error)?, self.endpoint(at).to_owned()))).collect()
            }
        };
        if alarms.is_empty() {
            return report.good("alarms", "none");
        }
        for (kind, member) in alarms {
            report.say("alarms", judge::alarm(kind, &member));
        }
    }

    /// Whether etcd knows the user, and lets it read and write below the prefix; it ends here where not.
    async fn rights(&self, report: &mut Report) -> Result<(), Failed> {
        let auth = match &self.config.user {
            None => Ok(Auth::NoUser),
            Some(user) => {
                let (name, password) = (user.name.clone(), user.password.clone());
                match self.etcd.call(&AuthenticateRequest { name, password }).await {
                    Ok(_) => Ok(Auth::On),
                    Err(Error::Refused { text, .. }) if text.contains("authentication is not enabled") => {
                        Ok(Auth::Off)
                    }
                    Err(error) => Err(error),
                }
            }
        };
        let prefix = format!("{}/", self.config.prefix);
        let range_end = prefix_end(prefix.as_bytes()).into();
        let read = RangeRequest {
            key: prefix.clone().into(),
            range_end,
            limit: 1,
            keys_only: true,
            ..RangeRequest::default()
        };
        let outcome = match auth {
            Ok(auth) => self.etcd.call(&read).await.map(|_| auth),
            Err(error) => Err(error),
        };
        let user = self.config.user.as_ref().map(|user| user.name.as_str());
        let has_certificate = self.config.cert.is_some();
        let is_good = outcome.is_ok();
        report.say("auth", judge::rights(outcome, user, has_certificate, &prefix));
        if is_good { Ok(()) } else { Err(Failed) }
    }

    /// A key of no store, below the prefix.
    fn key(&self) -> Bytes {
        format!("{}/doctor/{:016x}", self.config.prefix, random()).into()
    }

    /// How long a write takes that most members have on disk, and a read that most members have confirmed.
    async fn speed(&self, report: &mut Report) {
        let key = self.key();
        let user = self.config.user.as_ref().map(|user| user.name.as_str());
        let lease = self.etcd.call(&LeaseGrantRequest { ttl: LEASE_SECS, id: 0 }).await;
        let lease = match lease {
            Ok(granted) => granted.id,
            Err(error) => return report.say("write", judge::not_written(&error, user, &self.config.prefix)),
        };
        let mut writes = Vec::new();
        let put = PutRequest {
            key: key.clone(),
            value: Bytes::from_static(b"kvnode doctor"),
            lease,
            ..PutRequest::default()
        };
        let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
        let mut failed = None;
        for _ in 0..TRIES {
            let began = now();
            if let Err(error) = self.etcd.call(&put).await {
                failed = Some(error);
                break;
            }
            writes.push(began.elapsed());
            let began = now();
            if let Err(error) = self.etcd.call(&delete).await {
                failed = Some(error);
                break;
            }
            writes.push(began.elapsed());
        }
        // Else it ends by itself.
        let _ = self.etcd.call(&LeaseRevokeRequest { id: lease }).await;
        match failed {
            Some(error) => report.say("write", judge::not_written(&error, user, &self.config.prefix)),
            None => report.say("write", judge::writes(&mut writes)),
        }
        let mut reads = Vec::new();
        let read = RangeRequest { key, ..RangeRequest::default() };
        for _ in 0..TRIES {
            let began = now();
            match self.etcd.call(&read).await {
                Ok(_) => reads.push(began.elapsed()),
                Err(error) => {
                    let todo = "see what of the members above is not as it should be";
                    return report.say("read", Verdict::Bad(error.to_string(), todo.to_owned()));
                }
            }
        }
        report.say("read", judge::reads(&mut reads));
    }

    /// Whether it takes transactions with as many operations as stores send.
    async fn transactions(&self, report: &mut Report) {
        let read = Op::Range(RangeRequest { key: self.key(), ..RangeRequest::default() });
        let look = TxnRequest { success: vec![read.into(); OPERATIONS_MAX], ..TxnRequest::default() };
        let outcome = self.etcd.call(&look).await.map(drop);
        report.say("transactions", judge::transactions(outcome, OPERATIONS_MAX));
    }

    /// The page `/metrics` of each member that answers.
    async fn pages(&self) -> Vec<(usize, Result<(MemberPage, i64), Error>)> {
        let mut pages = Vec::new();
        for (at, _) in self.answered() {
            let before = now_ms();
            let page = self.etcd.page_of(at, "/metrics").await;
            pages.push((at, page.map(|page| (page, before))));
        }
        pages
    }

    fn sizes(&self, report: &mut Report, pages: &[Page]) {
        for (at, status) in self.answered() {
            let page = pages.iter().find(|(of, _)| *of == at).and_then(|(_, page)| page.as_ref().ok());
            let told = u64::try_from(status.db_size_quota).ok().filter(|quota| *quota > 0);
            let figure = page.and_then(|(page, _)| page.figure("etcd_server_quota_backend_bytes"));
            let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
            report.say(
                "size",
                judge::size(&Size {
                    endpoint: self.endpoint(at),
                    file: bytes(status.db_size),
                    used: bytes(status.db_size_in_use),
                    quota: told.or(figure.filter(|quota| *quota >= 1.0).map(|quota| quota as u64)),
                }),
            );
        }
    }

    /// What is kept of the past, who compacts it, and who holds the stores.
    async fn history(&self, report: &mut Report) {
        let stores = match self.stores().await {
            Ok(stores) => stores,
            Err(error) => {
                return report.say("history", Verdict::Bad(error.to_string(), AGAIN.to_owned()));
            }
        };
        let newest =
            stores.iter().filter_map(|store| store.compacted.as_ref()).max_by_key(|note| note.unix_ms);
        let compactor = newest.map(|note| Compactor {
            node: note.node.clone(),
            revision: note.revision,
            age: Duration::from_millis(u64::try_from(now_ms()).unwrap_or(0).saturating_sub(note.unix_ms)),
        });
        match self.oldest().await {
            Ok((oldest, revision)) => {
                report.say("history", judge::history(&History { oldest, revision, compactor }))
            }
            Err(error) => {
                return report.say("history", Verdict::Bad(error.to_string(), AGAIN.to_owned()));
            }
        }
        for store in &stores {
            match &store.holder {
                Some(node) => report.good("store", format!("{}: its names are held by {node}", store.id)),
                None => report.noted(
                    "store",
                    format!("{}: no kvnode holds its names", store.id),
                    "no kvnode with this etcd and prefix serves it now, or none has it loaded",
                ),
            }
        }
        if stores.is_empty() {
            report.good("store", format!("there is none below {}/ yet", self.config.prefix));
        }
    }

    /// The stores below the prefix.
    async fn stores(&self) -> Result<Vec<Store>, Error> {
        let prefix = format!("{}/=names/", self.config.prefix);
        let range_end = prefix_end(prefix.as_bytes()).into();
        let limit = STORES_MAX as i64;
        let names = self
            .etcd
            .call(&RangeRequest { key: prefix.into(), range_end, limit, ..RangeRequest::default() })
            .await?;
        let mut ids: Vec<Bytes> = names.kvs.into_iter().map(|kv| kv.value).collect();
        ids.sort_unstable();
        ids.dedup();
        let key = |id: &Bytes, name: &str| -> Bytes {
            [self.config.prefix.as_bytes(), b"/", id, b"/", name.as_bytes()].concat().into()
        };
        let mut stores = Vec::new();
        for id in ids {
            let read =
                |name| Op::Range(RangeRequest { key: key(&id, name), ..RangeRequest::default() }).into();
            let look = TxnRequest { success: vec![read("h"), read("c")], ..TxnRequest::default() };
            let mut found =
                self.etcd.call(&look).await?.responses.into_iter().map(|found| match found.response {
                    Some(OpResponse::Range(found)) => found.kvs.into_iter().next().map(|kv| kv.value),
                    _ => None,
                });
            let mut next = || found.next().flatten();
            let holder = next().and_then(|value| holder_of(&value));
            let compacted = next().and_then(|value| Compacted::read(&value));
            let id = String::from_utf8_lossy(&id).escape_debug().take(100).collect();
            stores.push(Store { id, holder, compacted });
        }
        Ok(stores)
    }

    /// The oldest revision that can be read, and the newest: found by halves, as etcd tells it to watches alone, and reads all its history
    /// for them.
    async fn oldest(&self) -> Result<(i64, i64), Error> {
        let key = self.key();
        let newest = self.etcd.call(&RangeRequest { key: key.clone(), ..RangeRequest::default() }).await?;
        let newest = newest.header.map_or(0, |header| header.revision);
        let is_kept = async |revision: i64| {
            let read = RangeRequest { key: key.clone(), revision, ..RangeRequest::default() };
            match self.etcd.call(&read).await {
                Ok(_) => Ok(true),
                Err(Error::Compacted { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        // `gone` is compacted, or before the first; `kept` is not.
        let (mut gone, mut kept) = (0, newest);
        while kept - gone > 1 {
            let middle = gone + (kept - gone) / 2;
            if is_kept(middle).await? { kept = middle } else { gone = middle }
        }
        Ok((kept, newest))
    }

    fn clock(&self, report: &mut Report, pages: &[Page]) {
        let leader = self.leader();
        let page = pages.iter().find(|(at, _)| Some(*at) == leader);
        let Some((at, page)) = page else { return };
        let clock = match page {
            Ok((MemberPage { date: Some(date), .. }, before)) => {
                Clock::Said { secs: *date, before_ms: *before, after_ms: now_ms() }
            }
            Ok(_) => Clock::NotSaid("its page has no date".to_owned()),
            Err(error) => Clock::NotSaid(error.to_string()),
        };
        report.say("clock", judge::clock(self.endpoint(*at), &clock));
    }

    fn tls(&self, report: &mut Report, pages: &[Page]) {
        let now = u64::try_from(now_ms() / 1000).unwrap_or(0);
        for (at, page) in pages {
            let endpoint = self.endpoint(*at);
            if !endpoint.trim().starts_with("https:") {
                continue;
            }
            let end = page.as_ref().map(|(page, _)| page.certificate_end);
            report.say(
                "tls",
                judge::certificate(
                    &format!("{endpoint} is verified by --etcd-ca; its certificate"),
                    end.ok().flatten(),
                    now,
                ),
            );
        }
        if let Ok(end @ Some(_)) = own_certificate_end(&client(self.config).tls) {
            report.say("tls", judge::certificate("the own certificate, --etcd-cert,", end, now));
        }
        if let Some(verdict) = judge::plain(&self.config.endpoints) {
            report.say("tls", verdict);
        }
    }
}

/// A member's page, and when it was asked for.
type Page = (usize, Result<(MemberPage, i64), Error>);

struct Store {
    id: String,
    holder: Option<String>,
    compacted: Option<Compacted>,
}

impl Report {
    fn say(&mut self, name: &'static str, verdict: Verdict) {
        match verdict {
            Verdict::Good(found) => self.good(name, found),
            Verdict::Note(found, note) => self.noted(name, found, note),
            Verdict::Bad(found, todo) => _ = self.bad(name, found, todo),
        }
    }
}

fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| now_ms().unsigned_abs())
}

#[expect(clippy::disallowed_methods, reason = "the doctor measures how long etcd takes")]
fn now() -> Instant {
    Instant::now()
}
