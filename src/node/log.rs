//! Logs: one line on stderr for each event that an operator wants.
