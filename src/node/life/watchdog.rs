//! Says which server holds a thread of the node.
//!
//! A thread of servers numbers the polls that it begins, in a place of its own, and notes when each has ended. The watch
//! looks at these places now and then: a poll that is still going on after some looks is said, once. So a poll costs two
//! uncontended locks and no look at the clock.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::node::{Node, after};
use crate::process::ProcessId;

/// How often the watch looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks that find the same poll until it is said: over a second lies between the first and the last.
const LOOKS: u32 = 3;

/// Whose code a thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Whose {
    /// A server's handlers.
    Server(ProcessId),
    /// A task that ends with a process.
    TaskOf(ProcessId),
    /// A task of the program.
    Task,
}

/// A poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    number: u64,
    /// `None`: it has ended.
    whose: Option<Whose>,
}

/// What a thread of servers is at.
#[derive(Debug, Default)]
pub(in crate::node) struct Seat(Mutex<Turn>);

thread_local! {
    static SEAT: OnceCell<Arc<Seat>> = const { OnceCell::new() };
}

/// The calling thread is watched at this seat from now on.
pub(in crate::node) fn sit_at(seat: Arc<Seat>) {
    SEAT.with(|mine| _ = mine.set(seat));
}

/// The calling thread runs code of the program until this is dropped. On threads that are not watched it does nothing.
pub(in crate::node) struct Busy(());

impl Busy {
    pub(in crate::node) fn with(whose: Whose) -> Self {
        note(|turn| *turn = Turn { number: turn.number.wrapping_add(1), whose: Some(whose) });
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        note(|turn| turn.whose = None);
    }
}

fn note(write: impl FnOnce(&mut Turn)) {
    // A thread that ends has none any more.
    _ = SEAT.try_with(|seat| {
        if let Some(seat) = seat.get() {
            write(&mut seat.0.lock());
        }
    });
}

/// What the watch has seen of a thread.
#[derive(Debug, Default)]
struct Seen {
    turn: Turn,
    looks: u32,
}

impl Seen {
    /// One more look. Gives whose poll it is where that is to be said now: once for each that goes on.
    fn look(&mut self, turn: Turn) -> Option<Whose> {
        if turn.whose.is_none() || turn != self.turn {
            *self = Self { turn, looks: u32::from(turn.whose.is_some()) };
            return None;
        }
        self.looks = self.looks.saturating_add(1);
        turn.whose.filter(|_| self.looks == LOOKS)
    }
}

/// Watches the threads of servers for as long as the node lives.
pub(in crate::node) async fn watch(node: Arc<Node>, seats: Vec<Arc<Seat>>) {
    let mut seats: Vec<_> = seats.into_iter().map(|seat| (seat, Seen::default())).collect();
    loop {
        after(LOOK_EVERY).await;
        for (seat, seen) in &mut seats {
            let turn = *seat.0.lock();
            if let Some(whose) = seen.look(turn) {
                say(&node, whose);
            }
        }
    }
}

fn say(node: &Node, whose: Whose) {
    match whose {
        Whose::Server(id) => tracing::warn!(
            process = label(node, id),
            "a server has held a thread of the node for over a second, and others wait for it: what blocks is for \
             kvnode::unblock"
        ),
        Whose::TaskOf(id) => tracing::warn!(
            process = label(node, id),
            "a task of a process has held a thread of the node for over a second, and servers wait for it: what blocks is \
             for kvnode::unblock"
        ),
        Whose::Task => tracing::warn!(
            "a task has held a thread of the node for over a second, and servers wait for it: what blocks is for \
             kvnode::unblock"
        ),
    }
}

/// The names of a process, else its pid.
fn label(node: &Node, id: ProcessId) -> String {
    let Some(process) = node.process(id) else { return "one that has ended".to_owned() };
    let names = node.registry.names_of(&process);
    if names.is_empty() { format!("{process:?}") } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(number: u64) -> Turn {
        Turn { number, whose: Some(Whose::Task) }
    }

    #[test]
    fn a_poll_that_goes_on_is_said_once_and_each_next_one_anew() {
        let mut seen = Seen::default();
        let mut said = |turn| seen.look(turn).is_some();
        assert_eq!([1, 1, 1, 1, 1].map(|number| said(turn(number))), [false, false, true, false, false]);
        assert_eq!([2, 2].map(|number| said(turn(number))), [false, false], "not long enough");
        assert_eq!([3, 4, 5, 6].map(|number| said(turn(number))), [false; 4], "all are short");
        assert_eq!([7, 7, 7].map(|number| said(turn(number))), [false, false, true]);
    }

    #[test]
    fn an_idle_thread_is_not_said() {
        let mut seen = Seen::default();
        let idle = Turn { number: 1, whose: None };
        assert!((0..9).all(|_| seen.look(idle).is_none()));
        assert!(seen.look(turn(2)).is_none() && seen.look(turn(2)).is_none());
        assert!(seen.look(Turn { number: 2, whose: None }).is_none());
        assert!(seen.look(turn(3)).is_none(), "what was before counts no more");
    }

    #[test]
    fn a_seat_tells_what_its_thread_is_at() {
        let seat = Arc::new(Seat::default());
        let of_thread = Arc::clone(&seat);
        let thread = std::thread::spawn(move || {
            drop(Busy::with(Whose::Task));
            sit_at(Arc::clone(&of_thread));
            let busy = Busy::with(Whose::Task);
            let within = *of_thread.0.lock();
            drop(busy);
            within
        });
        assert_eq!(thread.join().unwrap(), turn(1), "nothing was noted before it had a seat");
        assert_eq!(*seat.0.lock(), Turn { number: 1, whose: None });
    }
}
