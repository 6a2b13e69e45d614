//! Locks with a rank, so that a debug build notices two that are taken in a wrong order, long before they stand still. The page
//! of [`kv`](super) has the ranks. A release build has the locks alone: a rank is a part of the type, and what is held is
//! nothing.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use parking_lot::{Mutex, RwLock};

use held::Held;

/// A place in the order.
pub(super) trait Rank {
    /// Lower ones are taken first.
    const RANK: u8;
    /// What is locked.
    const NAME: &'static str;
}

/// The ranks, first to last; the page of [`kv`](super) says what they are of. (Types, since rustc 1.95 ends itself over numbers as
/// parameters where a server is built from another.)
pub(super) mod rank {
    macro_rules! ranks {
        ($($name:ident = $rank:literal,)+) => {
            $(
                pub struct $name;

                impl super::Rank for $name {
                    const RANK: u8 = $rank;
                    const NAME: &'static str = stringify!($name);
                }
            )+
        };
    }

    ranks! {
        Settling = 10,
        Turns = 20,
        Noting = 25,
        Upstream = 30,
        Aside = 35,
        Waiting = 40,
        Slaves = 50,
        Order = 60,
        Machine = 65,
        HeldBack = 70,
        Watches = 75,
        Reads = 80,
        Alone = 90,
    }
}

/// A mutex that is locked while those of lower ranks may be held, and no others.
pub(super) struct Ranked<R, T>(Mutex<T>, PhantomData<R>);

/// The same of a lock for many readers.
pub(super) struct RankedReads<R, T>(RwLock<T>, PhantomData<R>);

/// A lock that is held.
#[must_use = "dropped, it is held no more"]
pub(super) struct Guard<G> {
    // Before what follows: it is released first.
    guard: G,
    _held: Held,
}

impl<R: Rank, T: Default> Default for Ranked<R, T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<R: Rank, T: Default> Default for RankedReads<R, T> {
    fn default() -> Self {
        Self(RwLock::default(), PhantomData)
    }
}

impl<R: Rank, T> Ranked<R, T> {
    pub(super) const fn new(value: T) -> Self {
        Self(Mutex::new(value), PhantomData)
    }

    #[inline]
    pub(super) fn lock(&self) -> Guard<parking_lot::MutexGuard<'_, T>> {
        let held = Held::take::<R>();
        Guard { guard: self.0.lock(), _held: held }
    }
}

impl<R: Rank, T> RankedReads<R, T> {
    #[inline]
    pub(super) fn read(&self) -> Guard<parking_lot::RwLockReadGuard<'_, T>> {
        let held = Held::take::<R>();
        Guard { guard: self.0.read(), _held: held }
    }

    /// The same where this thread may be one of its readers already.
    #[inline]
    pub(super) fn read_recursive(&self) -> Guard<parking_lot::RwLockReadGuard<'_, T>> {
        let held = Held::take_again::<R>();
        Guard { guard: self.0.read_recursive(), _held: held }
    }

    #[inline]
    pub(super) fn write(&self) -> Guard<parking_lot::RwLockWriteGuard<'_, T>> {
        let held = Held::take::<R>();
        Guard { guard: self.0.write(), _held: held }
    }
}

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    #[inline]
    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    #[inline]
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

#[cfg(debug_assertions)]
mod held {
    use std::cell::RefCell;

    use super::Rank;

    thread_local! {
        /// The locks that this thread holds: their ranks and names.
        static HELD: RefCell<Vec<(u8, &'static str)>> = const { RefCell::new(Vec::new()) };
    }

    /// That a lock of a rank is held, or about to be.
    pub(super) struct Held(u8);

    impl Held {
        /// # Panics
        /// In a debug build, where a lock of this rank or a later one is held by this thread.
        pub(super) fn take<R: Rank>() -> Self {
            Self::after::<R>(|held| held < R::RANK)
        }

        /// # Panics
        /// In a debug build, where a lock of a later rank is held by this thread, and none of this one.
        pub(super) fn take_again<R: Rank>() -> Self {
            let is_reader = HELD.with_borrow(|held| held.iter().any(|(rank, _)| *rank == R::RANK));
            Self::after::<R>(|held| held < R::RANK || is_reader)
        }

        fn after<R: Rank>(may_be_held: impl Fn(u8) -> bool) -> Self {
            HELD.with_borrow_mut(|held| {
                if let Some((_, wrong)) = held.iter().find(|(rank, _)| !may_be_held(*rank)) {
                    panic!("{} is locked while {wrong} is: the page of kv has the order", R::NAME);
                }
                held.push((R::RANK, R::NAME));
            });
            Self(R::RANK)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            // A thread that ends has nothing to say any more.
            _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                if let Some(at) = held.iter().rposition(|(rank, _)| *rank == self.0) {
                    held.remove(at);
                }
            });
        }
    }
}

#[cfg(not(debug_assertions))]
mod held {
    use super::Rank;

    /// Nothing.
    pub(super) struct Held;

    impl Held {
        #[inline]
        pub(super) const fn take<R: Rank>() -> Self {
            let _known_to_the_compiler = (R::RANK, R::NAME);
            Self
        }

        #[inline]
        pub(super) const fn take_again<R: Rank>() -> Self {
            Self::take::<R>()
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    type First = Ranked<rank::Upstream, u32>;
    type Second = RankedReads<rank::Slaves, u32>;
    type Third = Ranked<rank::Order, u32>;

    fn is_refused(act: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(act)).is_err()
    }

    #[test]
    fn locks_are_taken_in_the_order_of_their_ranks() {
        let (first, second, third) = (First::new(1), Second::default(), Third::new(3));
        let guard = first.lock();
        let mut written = second.write();
        *written = 2;
        assert_eq!((*guard, *written, *third.lock()), (1, 2, 3));
        // In whatever order they are released.
        drop(guard);
        drop(written);
        assert_eq!((*first.lock(), *second.read()), (1, 2));
    }

    #[test]
    fn a_wrong_order_is_caught_before_it_waits() {
        let (first, second, third) = (First::new(1), Second::default(), Third::new(3));
        let guard = third.lock();
        assert!(is_refused(|| _ = first.lock()));
        assert!(is_refused(|| _ = second.read()));
        assert!(is_refused(|| _ = second.read_recursive()));
        assert!(is_refused(|| _ = second.write()));
        assert!(is_refused(|| _ = third.lock()), "nor twice");
        drop(guard);
        assert_eq!(*first.lock(), 1, "what was refused is not held");
        // Others are not concerned.
        let _guard = third.lock();
        std::thread::scope(|scope| scope.spawn(|| *first.lock()).join()).expect("it holds nothing");
    }

    #[test]
    fn a_reader_may_read_again_where_that_is_said() {
        let (second, third) = (Second::default(), Third::new(3));
        let _read = second.read();
        assert!(is_refused(|| _ = second.read()), "a writer may wait between the two");
        let _third = third.lock();
        assert_eq!(*second.read_recursive(), 0);
    }
}
