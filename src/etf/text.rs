//! Elixir syntax.

use super::TermView;

/// How much of a term is printed.
#[derive(Clone, Copy, Debug)]
pub struct InspectLimits {
    /// Bytes of output after which the rest is elided.
    pub text_bytes_max: usize,
}

impl InspectLimits {
    /// One log line.
    pub const LOG: Self = Self { text_bytes_max: 200 };
}

/// Prints a term as Elixir's `inspect/1` does.
pub fn inspect(_term: TermView<'_>, _limits: InspectLimits) -> String {
    String::new()
}
