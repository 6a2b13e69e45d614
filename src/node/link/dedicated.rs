//! A busy connection on a thread of its own.
//!
//! A BEAM's caller sends its next call some 25 µs after the answer to the last one. To be parked and woken in
//! between costs several times that: an event that has to be armed, a reactor, an executor, perhaps another
//! thread. So a connection that has something to do gets a thread, which looks at the socket again and again for a
//! short while, giving the processor to any thread that wants it, before it parks; one system call wakes it. A
//! connection that has been quiet goes back to the executor, where an idle one costs next to nothing.
//!
//! How long is looked, and whether at all, follows from what looking was good for lately.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use smol::io::{AsyncRead, AsyncWrite};

use crate::node::link::connection::Connection;
use crate::node::link::socket::Waits;
use crate::node::now;
use crate::node::peers::PeerDown;

/// How long the socket is looked at before the thread parks.
const LOOK: Duration = Duration::from_micros(60);
/// A connection that was parked for so long goes back to the executor.
const QUIET: Duration = Duration::from_secs(2);
/// Looks that must fail before looking is given up, and every how many parks it is tried again.
const SCORE_MAX: u32 = 16;

/// How a thread's work on a connection ended.
pub(in crate::node) enum Left<S> {
    /// The connection has ended.
    Down(PeerDown),
    /// It has been quiet: it goes on elsewhere.
    Quiet(Box<Connection<S>>),
}

/// Runs a connection on the calling thread until it ends or has been quiet for a while.
///
/// # Errors
/// The system gave no event to be woken by.
pub(in crate::node) fn run<S: AsyncRead + AsyncWrite + Waits + Unpin>(
    mut connection: Box<Connection<S>>,
) -> io::Result<Left<S>> {
    let bell = Arc::new(Bell::new()?);
    let waker = Waker::from(Arc::clone(&bell));
    let mut cx = Context::from_waker(&waker);
    connection.stream_mut().set_armed(false);
    let mut looking = Looking::default();
    let mut next_tick = now() + connection.interval();
    let mut busy_at = now();
    loop {
        let began = now();
        let tick = began >= next_tick;
        if tick {
            next_tick = began + connection.interval();
        }
        if let Poll::Ready(down) = connection.poll(&mut cx, tick) {
            return Ok(Left::Down(down));
        }
        if connection.take_handled() {
            busy_at = began;
        } else if began.duration_since(busy_at) >= QUIET && !connection.has_output() {
            connection.stream_mut().set_armed(true);
            return Ok(Left::Quiet(connection));
        }
        if looking.worth_it() {
            match look(&mut connection, &mut cx, &bell, next_tick) {
                Ok(found) => looking.found(found),
                Err(down) => return Ok(Left::Down(down)),
            }
        }
        // An output that was full and has been written has room for what waits behind it.
        // What the stream has already taken from the socket does not make that ready.
        let holds_input = connection.wants_input() && connection.stream().may_hold_input();
        if !connection.may_go_on() && !holds_input {
            bell.sleep(&connection, next_tick)?;
        }
    }
}

/// Looks at the socket for as long as something comes, and for a while after that; whether anything came.
fn look<S: AsyncRead + AsyncWrite + Waits + Unpin>(
    connection: &mut Connection<S>,
    cx: &mut Context<'_>,
    bell: &Bell,
    next_tick: Instant,
) -> Result<bool, PeerDown> {
    let mut found = false;
    let mut until = now() + LOOK;
    // What waits to be written has a better sign than looking: that there is room.
    while !bell.is_rung() && !connection.has_output() && !connection.may_go_on() {
        let at = now();
        if connection.look(cx)? {
            found = true;
            until = at + LOOK;
        } else if at >= until {
            break;
        } else {
            thread::yield_now();
        }
        if at >= next_tick {
            break;
        }
    }
    Ok(found)
}

/// Whether looking before parking is worth it.
struct Looking {
    score: u32,
    parks: u32,
}

impl Default for Looking {
    fn default() -> Self {
        Self { score: SCORE_MAX, parks: 0 }
    }
}

impl Looking {
    const fn worth_it(&mut self) -> bool {
        self.parks = self.parks.wrapping_add(1);
        self.score > 0 || self.parks.is_multiple_of(SCORE_MAX)
    }

    const fn found(&mut self, found: bool) {
        self.score = if found { SCORE_MAX } else { self.score.saturating_sub(1) };
    }
}

/// What wakes the thread: a flag while it is awake, an event while it sleeps.
struct Bell {
    rung: AtomicBool,
    asleep: AtomicBool,
    event: OwnedFd,
}

impl Bell {
    fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { rung: AtomicBool::new(false), asleep: AtomicBool::new(false), event })
    }

    fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }

    /// Sleeps until it is rung, the socket is ready, or the time has come.
    fn sleep<S: Waits + AsyncRead + AsyncWrite + Unpin>(
        &self,
        connection: &Connection<S>,
        until: Instant,
    ) -> io::Result<()> {
        self.asleep.store(true, Ordering::SeqCst);
        // A thread that rings now sees that we sleep, or we see that it was rung.
        if self.rung.swap(false, Ordering::SeqCst) {
            self.asleep.store(false, Ordering::Relaxed);
            return Ok(());
        }
        let mut wanted = PollFlags::empty();
        if connection.wants_input() {
            wanted |= PollFlags::IN;
        }
        if connection.has_output() {
            wanted |= PollFlags::OUT;
        }
        let socket = connection.stream().fd();
        let mut fds = [PollFd::from_borrowed_fd(socket, wanted), PollFd::new(&self.event, PollFlags::IN)];
        let left = until.saturating_duration_since(now());
        let timeout = Timespec::try_from(left).expect("an interval of seconds");
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.asleep.store(false, Ordering::SeqCst);
        if fds[1].revents().contains(PollFlags::IN) {
            let mut count = [0; 8];
            // It is there to be emptied; that it was rung is in the flag.
            let _empty = rustix::io::read(self.event.as_fd(), &mut count);
        }
        self.rung.store(false, Ordering::SeqCst);
        Ok(())
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            // An event that is full is rung.
            let _full = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_is_given_up_when_it_is_in_vain_and_tried_again_now_and_then() {
        let mut looking = Looking::default();
        let mut looks = 0;
        for _ in 0..1000 {
            if looking.worth_it() {
                looks += 1;
                looking.found(false);
            }
        }
        assert!((50..100).contains(&looks), "{looks}");
        looking.found(true);
        assert!((0..SCORE_MAX).all(|_| looking.worth_it()));
    }
}
