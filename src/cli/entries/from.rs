//! `kvnode import --from`: a whole store, of a running kvnode, of a folder or of a backup, with its deadlines.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use async_signal::{Signal, Signals};
use smol::future::FutureExt;
use smol::stream::StreamExt;

use super::put::{Batch, Entry, NotPut, Puts};
use super::{AT_ONCE, counted};
use crate::cli::answer::{Form, refusal, text};
use crate::cli::ask::{AskArgs, DEFAULT_TO, Session, ToArgs, target};
use crate::cli::log::say;
use crate::cli::replica::in_map;
use crate::cli::store::{Store, with_store_for_long};
use crate::cli::{CliError, print, server_name};
use crate::config::ServerName;
use crate::etf::{OwnedTerm, TermView};
use crate::program::Consistency;
use crate::within::within;

/// Where a store comes from.
enum Source<'a> {
    Node,
    #[cfg(feature = "disk")]
    Folder(&'a Path),
    #[cfg(feature = "disk")]
    Backup(&'a Path),
    /// There is something, of which no store comes.
    Other(&'a Path),
}

/// What has come of a store beside its entries.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Entries whose time was over, which were left out.
    ended: u64,
    /// Writes that the store has taken meanwhile.
    writes: u64,
}

/// Puts a whole store into the store that the command asks.
pub(super) fn import(from: &str, store: Option<&str>, to: &ToArgs, ask: &AskArgs) -> Result<(), CliError> {
    let name = store
        .map(|typed| {
            server_name::server(typed).map_err(|why| CliError::usage(format!("--from-store {typed}: {why}")))
        })
        .transpose()?;
    let source = source(from);
    if let Source::Other(path) = source {
        let path = path.display();
        return Err(CliError::cannot_run(format!(
            "--from {path}: it is neither a folder with stores (--data-dir) nor a backup; lines of kvnode export are put by kvnode \
             import {path}, and a node is named as NAME@HOST"
        )));
    }
    let (count, seen) = with_store_for_long(to, ask, async |into: &Store<'_>| {
        let mut signals = Signals::new([Signal::Int, Signal::Term]).map_err(CliError::cannot_run)?;
        let (puts, seen) = (Puts::new(into), Cell::new(Seen::default()));
        let all = async {
            match source {
                #[cfg(feature = "disk")]
                Source::Folder(path) => {
                    kept::all(path, kept::Kept::Folder, name.as_ref(), &puts, &seen).await
                }
                #[cfg(feature = "disk")]
                Source::Backup(path) => {
                    kept::all(path, kept::Kept::Backup, name.as_ref(), &puts, &seen).await
                }
                Source::Other(_) => Ok(()),
                Source::Node => from_node(from, name.as_ref(), into, ask, &puts, &seen).await,
            }
        };
        let interrupted = async {
            signals.next().await;
            Err(CliError::Failed("interrupted".to_owned()))
        };
        all.or(interrupted).await.map_err(|error| stopped(error, from, &puts))?;
        let count = puts.finish()?;
        Ok((count, seen.get()))
    })?;
    match ask.form() {
        Form::Json => print(&format!("{{\"entries\":{count},\"ended\":{}}}\n", seen.ended))?,
        _ if seen.ended > 0 => {
            print(&format!("{}, {} whose time was over left out\n", counted(count), seen.ended))?
        }
        _ => print(&format!("{}\n", counted(count)))?,
    }
    if seen.writes > 0 {
        return Err(CliError::Failed(format!(
            "the store of {from} was written to {} times meanwhile: what has come is of no one moment. End its writers and run this again; what is \
             there is put again, and keys that were deleted there stay here",
            seen.writes
        )));
    }
    Ok(())
}

fn source(from: &str) -> Source<'_> {
    let path = Path::new(from);
    match fs::metadata(path) {
        #[cfg(feature = "disk")]
        Ok(meta) if meta.is_dir() && path.join("format").exists() => Source::Folder(path),
        #[cfg(feature = "disk")]
        Ok(meta) if meta.is_file() && kept::is_backup(path) => Source::Backup(path),
        Ok(_) => Source::Other(path),
        // No node has a slash in its name.
        Err(_) if from.contains('/') => Source::Other(path),
        Err(_) => Source::Node,
    }
}

/// What is in the store when it ends early, and how to go on.
fn stopped(error: CliError, from: &str, puts: &Puts<'_>) -> CliError {
    match puts.count() {
        0 if !puts.has_begun() => error.with_hint("nothing was put"),
        0 => error.with_hint("entries may have been put: run it again, and what is there is put again"),
        count => error.with_hint(&format!(
            "{} of {from} are in the store: run it again, and what is there is put again",
            counted(count)
        )),
    }
}

async fn put(puts: &Puts<'_>, batch: Batch) -> Result<(), CliError> {
    puts.put(batch).await.map_err(|(NotPut::Refused(error) | NotPut::Unknown(error))| error)
}

/// What a store of a node says of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Standing {
    /// Its life, and what it has counted to.
    incarnation: u64,
    seq: u64,
    /// Keys that it has removed as their time was over.
    expired: u64,
}

/// What keeps a store of a node.
struct Keeping {
    is_in_etcd: bool,
    /// The node of its primary, where it is a slave.
    slave_of: Option<String>,
}

impl Keeping {
    fn of(status: TermView<'_>) -> Self {
        let slave_of = in_map(status, "primary").filter(|primary| !primary.is_atom("nil"));
        let node = |primary: TermView<'_>| {
            let node = in_map(primary, "node").and_then(TermView::as_atom);
            node.map_or_else(|| text(primary), |node| node.to_str().escape_debug().to_string())
        };
        let is_in_etcd = in_map(status, "engine").is_some_and(|engine| engine.is_atom("etcd"));
        Self { is_in_etcd, slave_of: slave_of.map(node) }
    }
}

impl Standing {
    async fn of(store: &Store<'_>) -> Result<Self, CliError> {
        let status = store.call(OwnedTerm::atom("status").view()).await?;
        Self::read(&status)
    }

    fn read(status: &OwnedTerm) -> Result<Self, CliError> {
        let number = |key: &str| in_map(status.view(), key).and_then(TermView::as_unsigned);
        let read = || {
            Some(Self {
                incarnation: number("incarnation")?,
                seq: number("seq")?,
                expired: number("expired")?,
            })
        };
        read().ok_or_else(|| CliError::Failed(format!("it answers :status by {}", text(status.view()))))
    }

    /// Writes between the two but those that remove keys whose time is over.
    fn writes_until(self, after: Self) -> u64 {
        after.seq.saturating_sub(self.seq).saturating_sub(after.expired.saturating_sub(self.expired))
    }
}

/// The store of a node that runs, page by page. It is compared with itself before and after: where it was at rest, what has come is what it has. One in
/// etcd is asked for all that any of its nodes has taken, which a node that is cut off does not have.
async fn from_node(
    from: &str,
    name: Option<&ServerName>,
    into: &Store<'_>,
    ask: &AskArgs,
    puts: &Puts<'_>,
    seen: &Cell<Seen>,
) -> Result<(), CliError> {
    let at = target("--from", from)?;
    let node = Arc::clone(&into.session.node);
    let connected = within(ask.time(), node.connect_to(&at.to_string())).await;
    let connected = connected
        .ok_or_else(|| {
            CliError::cannot_run(format!("--from {at}: it was not reached within {} s", ask.timeout))
        })?
        .map_err(|error| CliError::cannot_run(format!("--from {error}; kvnode doctor {at} says more")))?;
    let session = Session { node, connected, time: into.session.time };
    let usual = server_name::server(DEFAULT_TO).map_err(CliError::usage)?;
    let name = name.unwrap_or(&usual);
    let store = Store::find(&session, name, ask).await?;
    if store.at() == into.at() {
        return Err(CliError::usage(format!(
            "--from {from}: it is the store that is asked; --node or --to says another"
        )));
    }
    let status = store.call(OwnedTerm::atom("status").view()).await?;
    let (before, keeping) = (Standing::read(&status)?, Keeping::of(status.view()));
    if let Some(primary) = &keeping.slave_of {
        say(&format!(
            "the store of {from} is a slave of {primary}: what comes is what it has, and the newest may be at {primary} alone"
        ));
    }
    let mut cursor: Option<OwnedTerm> = None;
    loop {
        let request = OwnedTerm::write(|w| {
            w.tuple(2).atom("scan").list(2 + usize::from(cursor.is_some()) + usize::from(keeping.is_in_etcd));
            w.tuple(2).atom("limit").unsigned(AT_ONCE as u64);
            w.tuple(2).atom("ttl").atom("true");
            if keeping.is_in_etcd {
                w.tuple(2).atom("consistency").atom(Consistency::Linearizable.code());
            }
            if let Some(cursor) = &cursor {
                w.tuple(2).atom("cursor").term(cursor.view());
            }
            w.nil();
        });
        let page = store.page(request.map_err(CliError::cannot_run)?.view()).await?;
        let shown = page.view().as_tuple::<2>();
        let shown = shown.and_then(|[entries, next]| Some((entries.elements(AT_ONCE)?, next)));
        let Some((entries, next)) = shown else { return Err(not_shown(page.view(), from)) };
        let mut batch = Batch::default();
        for entry in entries {
            let Some([key, value, left]) = entry.as_tuple::<3>() else { return Err(not_shown(entry, from)) };
            let pair =
                OwnedTerm::write(|w| _ = w.tuple(2).term(key).term(value)).map_err(CliError::cannot_run)?;
            if batch.is_full_for(pair.view().bytes().len()) {
                put(puts, std::mem::take(&mut batch)).await?;
            }
            batch.push(Entry { pair, ttl: left.as_unsigned() });
        }
        put(puts, batch).await?;
        if next.is_atom("done") {
            break;
        }
        cursor = Some(OwnedTerm::from(next));
    }
    let after = Standing::of(&store).await?;
    if after.incarnation != before.incarnation {
        return Err(CliError::Failed(format!("the store of {from} was started again meanwhile")));
    }
    seen.set(Seen { ended: 0, writes: before.writes_until(after) });
    Ok(())
}

fn not_shown(answer: TermView<'_>, from: &str) -> CliError {
    if refusal(answer).is_some_and(|reason| reason.is_atom("unavailable")) {
        return CliError::Failed(format!(
            "{from} does not reach the etcd of its store, and may lack what other nodes have taken since: ask another node of the store, or kvnode \
             status --node {from} how it is"
        ));
    }
    let is_older = refusal(answer)
        .and_then(|reason| reason.as_tuple::<2>())
        .is_some_and(|[word, option]| word.is_atom("unknown_option") && option.is_atom("ttl"));
    CliError::Failed(if is_older {
        format!(
            "{from} is a kvnode of a version before, which does not say when keys end: a store on disk comes from its folder or its backup, others by \
             kvnode export and kvnode import"
        )
    } else {
        format!("{from} answers {}", text(answer))
    })
}

/// Stores in files.
#[cfg(feature = "disk")]
mod kept {
    use std::cell::Cell;
    use std::fs::File;
    use std::io::Read;
    use std::path::Path;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::{Batch, CliError, Entry, Puts, Seen, put};
    use crate::config::ServerName;
    use crate::etf::{OwnedTerm, key};
    use crate::program::name_kept;
    use crate::store::disk::{BackupError, Part, ReadOnlyDisk, read_backup};

    /// What a backup begins with.
    const MARK: &[u8] = b"kvnode backup\n";

    /// Which kind of file.
    #[derive(Clone, Copy)]
    pub(super) enum Kept {
        Folder,
        Backup,
    }

    pub(super) fn is_backup(path: &Path) -> bool {
        let mut begins = [0; MARK.len()];
        File::open(path).and_then(|mut file| file.read_exact(&mut begins)).is_ok() && begins == *MARK
    }

    /// A folder that nobody has, or a backup that is whole.
    enum Opened {
        Folder(Box<ReadOnlyDisk>),
        Backup(Box<Path>),
    }

    impl Opened {
        fn open(path: &Path, kept: Kept) -> Result<Self, CliError> {
            Ok(match kept {
                Kept::Folder => {
                    Self::Folder(Box::new(ReadOnlyDisk::open(path).map_err(CliError::cannot_run)?))
                }
                Kept::Backup => Self::Backup(path.into()),
            })
        }

        /// The names of each store. A backup is read to its end, and is right then.
        fn stores(&self) -> Result<Vec<Vec<String>>, BackupError> {
            match self {
                Self::Folder(disk) => disk.stores(),
                Self::Backup(path) => {
                    let stores = read_backup(path, &mut |_| Ok(()), &mut |_, _| true)?;
                    Ok(stores.into_iter().map(|store| store.names).collect())
                }
            }
        }

        fn visit(
            &self,
            show: &mut dyn FnMut(Part<'_>) -> Result<(), BackupError>,
        ) -> Result<(), BackupError> {
            match self {
                Self::Folder(disk) => disk.visit(show, &mut |_, _| true),
                Self::Backup(path) => read_backup(path, show, &mut |_, _| true).map(drop),
            }
        }
    }

    /// Puts all entries of a store in a file.
    pub(super) async fn all(
        path: &Path,
        kept: Kept,
        name: Option<&ServerName>,
        puts: &Puts<'_>,
        seen: &Cell<Seen>,
    ) -> Result<(), CliError> {
        let (path, name) = (path.to_owned(), name.map(name_kept));
        // A thread reads, and waits where the store takes its time.
        let (tell, told) = smol::channel::bounded(2);
        let shown = path.display().to_string();
        let reading = smol::unblock(move || {
            let opened = Opened::open(&path, kept)?;
            let stores = opened.stores().map_err(CliError::cannot_run)?;
            let chosen = choose(&shown, &stores, name.as_deref())?;
            let mut reader = Reader { tell, chosen, at: None, batch: Batch::default(), ended: 0, now: now() };
            opened.visit(&mut |part| reader.show(part)).map_err(CliError::cannot_run)?;
            reader.send().map_err(CliError::cannot_run)?;
            Ok(reader.ended)
        });
        while let Ok(batch) = told.recv().await {
            put(puts, batch).await?;
        }
        seen.set(Seen { ended: reading.await?, writes: 0 });
        Ok(())
    }

    /// The place of the store that is wanted.
    fn choose(path: &str, stores: &[Vec<String>], name: Option<&str>) -> Result<usize, CliError> {
        let all = || stores.iter().map(|names| names.join(",")).collect::<Vec<_>>().join("; ");
        match (name, stores) {
            (Some(name), _) => {
                let found = stores.iter().position(|names| names.iter().any(|known| known == name));
                found.ok_or_else(|| {
                    CliError::cannot_run(format!(
                        "--from {path}: no store there has the name {name}; it has {}",
                        all()
                    ))
                })
            }
            (None, []) => Err(CliError::cannot_run(format!("--from {path}: there is no store in it"))),
            (None, [_]) => Ok(0),
            (None, _) => Err(CliError::usage(format!(
                "--from {path}: there are {} stores in it; --from-store says which one comes: {}",
                stores.len(),
                all()
            ))),
        }
    }

    struct Reader {
        tell: smol::channel::Sender<Batch>,
        chosen: usize,
        /// The store that is shown.
        at: Option<usize>,
        batch: Batch,
        ended: u64,
        /// The machine's clock when this began: keys have the rest of their time from when they are put.
        now: u64,
    }

    impl Reader {
        fn show(&mut self, part: Part<'_>) -> Result<(), BackupError> {
            match part {
                Part::Store(..) => {
                    self.at = Some(self.at.map_or(0, |at| at + 1));
                    self.now = now();
                }
                Part::Entry(key, value) if self.at == Some(self.chosen) => {
                    if value.deadline != 0 && value.deadline <= self.now {
                        self.ended += 1;
                        return Ok(());
                    }
                    let ttl = (value.deadline != 0).then(|| value.deadline - self.now);
                    let pair = OwnedTerm::write(|w| _ = w.tuple(2).raw(&key::outgoing(key)).raw(value.bytes));
                    let pair = pair.map_err(|error| BackupError::Unreadable {
                        store: "that is read".to_owned(),
                        what: error.to_string(),
                    })?;
                    if self.batch.is_full_for(pair.view().bytes().len()) {
                        self.send()?;
                    }
                    self.batch.push(Entry { pair, ttl });
                }
                Part::Entry(..) | Part::Note(..) => {}
            }
            Ok(())
        }

        fn send(&mut self) -> Result<(), BackupError> {
            // A closed channel: the importing side has ended, and tells its reason.
            let sent =
                self.tell.send_blocking(std::mem::take(&mut self.batch)).map_err(|_| BackupError::Stopped);
            // It may have waited for a while.
            self.now = now();
            sent
        }
    }

    /// The clock that deadlines of files go by, in milliseconds.
    #[expect(clippy::disallowed_methods, reason = "files say when keys end by the machine's clock")]
    fn now() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_store_is_chosen_by_its_name_or_because_there_is_no_other() {
            let one = vec![vec!["global:a".to_owned(), "local:b".to_owned()]];
            let two = vec![one[0].clone(), vec!["local:c".to_owned()]];
            assert_eq!(choose("f", &one, None).ok(), Some(0));
            assert_eq!(choose("f", &two, Some("local:c")).ok(), Some(1));
            assert_eq!(choose("f", &two, Some("local:b")).ok(), Some(0));
            let said = |stores: &[Vec<String>], name| choose("f", stores, name).unwrap_err().to_string();
            assert!(said(&two, None).ends_with("which one comes: global:a,local:b; local:c"));
            assert!(said(&two, Some("local:d")).contains("no store there has the name local:d"));
            assert!(said(&[], None).contains("there is no store in it"));
        }
    }
}
