//! The shell: sockets, tasks and the clock.
