//! A store with the types of its keys and values: [`Handle`].
//!
//! ```no_run
//! use std::time::Duration;
//! use kvnode::handle::{Compared, Expected};
//! use kvnode::{Handle, Node, ServerRef, block_on};
//!
//! let node = Node::builder("shop").connect("kvnode@myhost").start()?;
//! let stock: Handle<String, i64> = node.store(ServerRef::global("slave1"));
//! block_on(async {
//!     stock.put("pencils", &12).await?;
//!     assert_eq!(stock.get("pencils").await?, Some(12));
//!     assert_eq!(stock.update_counter("pencils", -2).await?, 10);
//!     match stock.compare_and_put("pencils", Expected::Value(&10), &9).await? {
//!         Compared::Done => {}
//!         Compared::Conflict(there) => println!("somebody was faster: {there:?}"),
//!     }
//!     // Gone after half an hour.
//!     stock.clone().with_ttl(Duration::from_secs(1_800)).put("offer", &3).await?;
//!     let mut pages = stock.scan();
//!     while let Some(entries) = pages.next_page().await? {
//!         entries.iter().for_each(|(name, count)| println!("{name}: {count}"));
//!     }
//!     Ok::<(), kvnode::handle::Error>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Types become terms as [`etf::convert`](crate::etf::convert) says. What each request does is in docs/requests.md; the requests of
//! operators, as `:status`, are calls of a [`Client`].
//!
//! **The store is a kvnode's, of this node or another, or an Elixir server of the protocol.** That ends, with its data, when it is asked
//! what it does not know: so the node of the store is asked first whether it is a kvnode, once in its life. Of an Elixir server
//! [`get`](Handle::get), [`put`](Handle::put) and [`delete`](Handle::delete) are asked, without `confirm:`, `ttl:` and `consistency:`; all else is
//! [`Error::NotKvnode`], and nothing is sent.

mod error;
mod inbox;
mod kind;
mod pages;
mod request;
mod transaction;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::error::{Error, Refusal};
#[cfg(feature = "cli")]
pub(crate) use self::kind::is_kvnode;
pub use self::pages::Pages;
use self::request::{Asked, Options, Request, Target, unknown};
pub use self::transaction::{Transacted, Transaction};
pub use self::watch::{Changes, WatchBuilder, WatchEvent};
use crate::distribution::ServerRef;
use crate::etf::{TermView, from_term};
use crate::node::{Client, Node};

/// A store, asked with Rust types. See the [module](self).
///
/// ```no_run
/// use kvnode::{Handle, Node, ServerRef, block_on};
///
/// let node = Node::builder("shop").connect("kvnode@myhost").start()?;
/// let stock: Handle<String, i64> = node.store(ServerRef::global("slave1"));
/// block_on(stock.put("pencils", &12))?;
/// assert_eq!(block_on(stock.get("pencils"))?, Some(12));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Cheap to clone. What its methods give needs neither the handle nor the arguments any more, and asks nothing before it is
/// awaited.
///
/// All that can go wrong is an [`Error`], which says whether a write may have been done.
pub struct Handle<K, V> {
    target: Target,
    options: Options,
    types: PhantomData<fn(K) -> V>,
}

/// What names a key of the type `K`: the key, or what is borrowed of it and is the same term, as `str` is of `String`.
pub trait AsKey<K>: Serialize {}

impl<K: Serialize> AsKey<K> for K {}
impl AsKey<String> for str {}
impl<T: Serialize> AsKey<Vec<T>> for [T] {}

/// The precondition of a request that compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a, V> {
    /// This value, by `===`.
    Value(&'a V),
    /// The value of this revision.
    Revision(u64),
    /// Nothing.
    Absent,
}

/// What has come of a change that expected something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it may not have been done"]
pub enum Compared<V> {
    /// It is done.
    Done,
    /// Nothing has changed: the key has this value, of this revision, or nothing.
    Conflict(Option<(V, u64)>),
}

/// How long a key stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Until it is deleted.
    Always,
    /// So long, to the millisecond.
    For(Duration),
}

impl<K, V> Handle<K, V> {
    /// Of a store; what is asked comes from the client's process. [`Node::store`] is shorter.
    pub fn new(client: Client, store: ServerRef) -> Self {
        Self { target: Target::new(client, store), options: Options::default(), types: PhantomData }
    }

    /// Waits so long for each answer, 5 seconds unless it is said. `Duration::MAX` is `:infinity`.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.target.timeout = timeout;
        self
    }

    /// What it writes is answered once so many slaves have it (`confirm:`), or as [`Refusal::Unconfirmed`].
    #[must_use]
    pub const fn with_confirm(mut self, slaves: u32) -> Self {
        self.options.confirm = Some(slaves);
        self
    }

    /// What it puts ends so long after the store has it (`ttl:`), to the millisecond, after one at least. `Duration::MAX` is
    /// `:infinity`.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = Some(ttl);
        self
    }

    /// What it reads misses nothing that any kvnode of the store had answered when the read was asked (`consistency: :linearizable`).
    /// At a store in etcd each such read waits for etcd, which reads at the same time share; a slave refuses it
    /// ([`Refusal::SlaveOf`]). [Changes](Self::watch) are told as ever.
    #[must_use]
    pub const fn with_linearizable_reads(mut self) -> Self {
        self.options.consistency = Some("linearizable");
        self
    }

    /// What it reads is what the store's process has (`consistency: :session`), whatever `--etcd-reads` of its kvnode says. Unless one of the
    /// two is said the store decides.
    #[must_use]
    pub const fn with_session_reads(mut self) -> Self {
        self.options.consistency = Some("session");
        self
    }

    fn ask(&self, request: Request) -> Asked {
        request.to(self.target.clone())
    }

    /// A request that reads.
    fn read(&self, request: Request) -> Asked {
        self.ask(request.reading(&self.options))
    }

    /// A request that writes, and takes no `ttl:`.
    fn write(&self, request: Request) -> Asked {
        self.ask(request.with(&Options { ttl: None, ..self.options }))
    }

    /// A request that puts.
    fn put_by(&self, request: Request) -> Asked {
        self.ask(request.with(&self.options))
    }
}

/// Reads.
impl<K, V> Handle<K, V> {
    /// What a key has; `None`: nothing. An Elixir server does not tell nothing and `nil` apart: of that both are `None`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get<Q>(&self, key: &Q) -> impl Future<Output = Result<Option<V>, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
        V: DeserializeOwned,
    {
        self.read(Request::new("fetch").part(key)).answer_or_ask(
            "get",
            |answer| match found::<2>(answer) {
                Some([_, value]) => Ok(Some(from_term(value)?)),
                None => absent(answer),
            },
            |answer| if answer.is_atom("nil") { Ok(None) } else { read(answer).map(Some) },
        )
    }

    /// What a key has, with the revision of it, for [`Expected::Revision`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get_revision<Q>(
        &self,
        key: &Q,
    ) -> impl Future<Output = Result<Option<(V, u64)>, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
        V: DeserializeOwned,
    {
        self.read(Request::new("fetch_revision").part(key)).answer(|answer| match found::<3>(answer) {
            Some([_, value, revision]) => Ok(Some((from_term(value)?, from_term(revision)?))),
            None => absent(answer),
        })
    }

    /// Whether a key has something.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn contains<Q>(&self, key: &Q) -> impl Future<Output = Result<bool, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
    {
        self.read(Request::new("member").part(key)).answer(read)
    }

    /// How long a key stays; `None`: it is not there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn ttl<Q>(
        &self,
        key: &Q,
    ) -> impl Future<Output = Result<Option<Remains>, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
    {
        self.read(Request::new("ttl").part(key)).answer(|answer| match found::<2>(answer) {
            Some([_, ttl]) if ttl.is_atom("infinity") => Ok(Some(Remains::Always)),
            Some([_, ttl]) => Ok(Some(Remains::For(Duration::from_millis(from_term(ttl)?)))),
            None => absent(answer),
        })
    }

    /// Those of the keys that are there, as they are at one moment: 16,384 keys at most, and 64 MiB.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn get_many<Q>(
        &self,
        keys: &[&Q],
    ) -> impl Future<Output = Result<HashMap<K, V>, Error>> + Send + use<K, V, Q>
    where
        K: DeserializeOwned + Eq + Hash,
        Q: AsKey<K> + ?Sized,
        V: DeserializeOwned,
    {
        self.read(Request::new("get_many").part(keys)).answer(read)
    }

    /// The number of keys. A key that has ended counts until it is removed, for some 100 milliseconds.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn count(&self) -> impl Future<Output = Result<u64, Error>> + Send + use<K, V> {
        self.read(Request::new("count")).answer(read)
    }

    /// All entries, page by page.
    pub fn scan(&self) -> Pages<(K, V)>
    where
        K: DeserializeOwned,
        V: DeserializeOwned,
    {
        Pages::new(self.target.clone(), false, &self.options)
    }

    /// All keys, page by page.
    pub fn scan_keys(&self) -> Pages<K>
    where
        K: DeserializeOwned,
    {
        Pages::new(self.target.clone(), true, &self.options)
    }
}

/// Changes, as they come.
impl<K, V> Handle<K, V> {
    /// Has each change of the store told, from now on unless it is said, once it is [begun](WatchBuilder::begin).
    ///
    /// ```no_run
    /// # use kvnode::{Handle, Node, ServerRef, block_on};
    /// use kvnode::handle::WatchEvent;
    ///
    /// # let node = Node::builder("shop").connect("kvnode@myhost").start()?;
    /// let stock: Handle<String, i64> = node.store(ServerRef::global("slave1"));
    /// block_on(async {
    ///     let mut changes = stock.watch().initial().begin().await?;
    ///     loop {
    ///         match changes.next_event().await? {
    ///             Some(WatchEvent::Put { key, value, .. }) => println!("{key}: {value}"),
    ///             Some(WatchEvent::Delete { key, .. } | WatchEvent::Expire { key, .. }) => println!("{key}: none"),
    ///             Some(WatchEvent::Clear { .. }) => println!("nothing is left"),
    ///             Some(WatchEvent::Current { .. }) => println!("that is all, for now"),
    ///             // Too much has happened at once: go on behind what was told last.
    ///             Some(WatchEvent::Overrun) => match changes.seq() {
    ///                 Some(seq) => changes = stock.watch().from(seq).begin().await?,
    ///                 None => changes = stock.watch().initial().begin().await?,
    ///             },
    ///             Some(_) => {}
    ///             None => return Ok::<(), kvnode::handle::Error>(()),
    ///         }
    ///     }
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch(&self) -> WatchBuilder<K, V> {
        WatchBuilder::new(self.clone())
    }

    /// The same without values, which are not sent.
    pub fn watch_keys(&self) -> WatchBuilder<K, ()> {
        let Self { target, options, .. } = self;
        let keys = Handle { target: target.clone(), options: *options, types: PhantomData };
        WatchBuilder::new(keys).option("values", &false)
    }
}

/// Writes.
impl<K, V> Handle<K, V> {
    /// Puts a value, whatever is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn put<Q>(&self, key: &Q, value: &V) -> impl Future<Output = Result<(), Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
        V: Serialize,
    {
        self.put_by(Request::new("put").part(key).part(value)).answer(done)
    }

    /// Deletes a key. That the key is not there is no error.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete<Q>(&self, key: &Q) -> impl Future<Output = Result<(), Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
    {
        self.write(Request::new("delete").part(key)).answer(done)
    }

    /// Puts a value where nothing is. Gives whether that was so.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn put_new<Q>(
        &self,
        key: &Q,
        value: &V,
    ) -> impl Future<Output = Result<bool, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
        V: Serialize,
    {
        self.put_by(Request::new("put_new").part(key).part(value)).answer(read)
    }

    /// Puts a value where something is. Gives whether that was so.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn replace<Q>(
        &self,
        key: &Q,
        value: &V,
    ) -> impl Future<Output = Result<bool, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
        V: Serialize,
    {
        self.put_by(Request::new("replace").part(key).part(value)).answer(read)
    }

    /// Puts a value, and gives what was there; `None`: nothing, or `nil`.
    ///
    /// # Errors
    /// See [`Error`]. Where what was there is no `V` the answer is [unreadable](crate::CallError::Unreadable), and the value is put. A value
    /// that is `{:error, reason}` with one of the reasons for which a store does not write ([`Refusal::NoSpace`],
    /// [`Io`](Refusal::Io), [`Unavailable`](Refusal::Unavailable), [`Unknown`](Refusal::Unknown), [`TooMany`](Refusal::TooMany),
    /// [`TooLarge`](Refusal::TooLarge), [`Unconfirmed`](Refusal::Unconfirmed), [`SlaveOf`](Refusal::SlaveOf)) is taken for that.
    pub fn get_and_put<Q>(
        &self,
        key: &Q,
        value: &V,
    ) -> impl Future<Output = Result<Option<V>, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
        V: Serialize + DeserializeOwned,
    {
        self.put_by(Request::new("get_and_put").part(key).part(value)).answer_with_any(read)
    }

    /// Deletes a key, and gives what was there; `None`: nothing, or `nil`.
    ///
    /// # Errors
    /// As [`get_and_put`](Self::get_and_put).
    pub fn pop<Q>(&self, key: &Q) -> impl Future<Output = Result<Option<V>, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
        V: DeserializeOwned,
    {
        self.write(Request::new("pop").part(key)).answer_with_any(read)
    }

    /// Puts a value where the key has what is expected.
    ///
    /// # Errors
    /// See [`Error`]. That it has something else is none; where that is no `V` the answer is
    /// [unreadable](crate::CallError::Unreadable), and nothing has changed.
    pub fn compare_and_put<Q>(
        &self,
        key: &Q,
        expected: Expected<'_, V>,
        value: &V,
    ) -> impl Future<Output = Result<Compared<V>, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
        V: Serialize + DeserializeOwned,
    {
        let request = Request::new("compare_and_put").part(key).expected(expected).part(value);
        self.put_by(request).answer_or("conflict", compared)
    }

    /// Deletes a key where it has what is expected.
    ///
    /// # Errors
    /// As [`compare_and_put`](Self::compare_and_put).
    pub fn compare_and_delete<Q>(
        &self,
        key: &Q,
        expected: Expected<'_, V>,
    ) -> impl Future<Output = Result<Compared<V>, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
        V: Serialize + DeserializeOwned,
    {
        self.write(Request::new("compare_and_delete").part(key).expected(expected))
            .answer_or("conflict", compared)
    }

    /// Adds to the integer of a key, or to 0 where nothing is there, and gives the sum.
    ///
    /// # Errors
    /// See [`Error`]; [`Refusal::NotAnInteger`]. A sum of more than 128 bits is [unreadable](crate::CallError::Unreadable); it is
    /// done.
    pub fn update_counter<Q>(
        &self,
        key: &Q,
        by: i128,
    ) -> impl Future<Output = Result<i128, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
    {
        self.put_by(Request::new("update_counter").part(key).part(&by)).answer(read)
    }

    /// Adds to the integer of a key, or to `initial` where nothing is there, and gives the sum.
    ///
    /// # Errors
    /// As [`update_counter`](Self::update_counter).
    pub fn update_counter_from<Q>(
        &self,
        key: &Q,
        by: i128,
        initial: i128,
    ) -> impl Future<Output = Result<i128, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
    {
        self.put_by(Request::new("update_counter").part(key).part(&by).part(&initial)).answer(read)
    }

    /// Puts several values, all or none: 16,384 pairs at most, and 64 MiB.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn put_many<Q>(
        &self,
        pairs: &[(&Q, &V)],
    ) -> impl Future<Output = Result<(), Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
        V: Serialize,
    {
        self.put_by(Request::new("put_many").part(pairs)).answer(done)
    }

    /// Deletes several keys, all or none: 16,384 at most.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_many<Q>(&self, keys: &[&Q]) -> impl Future<Output = Result<(), Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
    {
        self.write(Request::new("delete_many").part(keys)).answer(done)
    }

    /// Deletes all keys at once: one write.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn clear(&self) -> impl Future<Output = Result<(), Error>> + Send + use<K, V> {
        self.write(Request::new("clear")).answer(done)
    }

    /// Has what is there end so long from now on, to the millisecond, after one at least; `Duration::MAX`: never. Gives whether something is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn touch<Q>(
        &self,
        key: &Q,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
    {
        self.write(Request::new("touch").part(key).part(&request::ttl_of(ttl))).answer(read)
    }

    /// Has what is there stay. Gives whether something is there.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn persist<Q>(&self, key: &Q) -> impl Future<Output = Result<bool, Error>> + Send + use<K, V, Q>
    where
        Q: AsKey<K> + ?Sized,
    {
        self.write(Request::new("persist").part(key)).answer(read)
    }

    /// Begins a transaction: guards and changes of several keys, all of which are made where all guards hold, and else none.
    pub const fn transact(&self) -> Transaction<'_, K, V> {
        Transaction::new(self)
    }
}

impl Node {
    /// A store with the types of its keys and values: of this node, or of one that this node reaches. Nothing is asked yet.
    ///
    /// ```no_run
    /// # use kvnode::{Handle, Node, ServerRef, block_on};
    /// let node = Node::builder("shop").connect("kvnode@myhost").start()?;
    /// let stock: Handle<String, i64> = node.store(ServerRef::global("slave1"));
    /// block_on(stock.put("pencils", &12))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn store<K, V>(&self, store: ServerRef) -> Handle<K, V> {
        Handle::new(self.client(), store)
    }
}

impl<K, V> Clone for Handle<K, V> {
    fn clone(&self) -> Self {
        let Self { target, options, types } = self;
        Self { target: target.clone(), options: *options, types: *types }
    }
}

impl<K, V> fmt::Debug for Handle<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("store", &format_args!("{}", self.target.store))
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// An answer that is what it is read as.
fn read<T: DeserializeOwned>(answer: TermView<'_>) -> Result<T, Error> {
    Ok(from_term(answer)?)
}

/// `{:ok, …}`
fn found<const N: usize>(answer: TermView<'_>) -> Option<[TermView<'_>; N]> {
    answer.as_tuple::<N>().filter(|parts| parts.first().is_some_and(|word| word.is_atom("ok")))
}

/// `:ok`
fn done(answer: TermView<'_>) -> Result<(), Error> {
    if answer.is_atom("ok") { Ok(()) } else { Err(unknown(answer)) }
}

/// `:error`, the answer where nothing is there.
fn absent<T>(answer: TermView<'_>) -> Result<Option<T>, Error> {
    if answer.is_atom("error") { Ok(None) } else { Err(unknown(answer)) }
}

/// `:ok`, or `{:error, {:conflict, present}}`, which is no error here.
fn compared<V: DeserializeOwned>(answer: TermView<'_>) -> Result<Compared<V>, Error> {
    if answer.is_atom("ok") {
        return Ok(Compared::Done);
    }
    let present =
        answer.as_tuple::<2>().and_then(|[_, reason]| reason.as_tuple::<2>()).map(|[_, present]| present);
    match present.map(|present| (present, present.as_tuple::<3>())) {
        Some((_, Some([_, value, revision]))) => {
            Ok(Compared::Conflict(Some((from_term(value)?, from_term(revision)?))))
        }
        Some((present, None)) if present.is_atom("absent") => Ok(Compared::Conflict(None)),
        _ => Err(unknown(answer)),
    }
}
