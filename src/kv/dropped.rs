//! What a former primary has written and the new one does not have: kept in a file, for people to look through.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;

use crate::etf::text::{InspectLimits, inspect, parse};
use crate::etf::{TermView, encode, key};

/// Makes a file that was not there before, and gives its name with it. From any thread.
///
/// What is written into it is synced by [`Write::flush`].
pub type NewFile = Arc<dyn Fn() -> io::Result<(String, Box<dyn Write + Send>)> + Send + Sync>;

/// The pairs that a store drops, one a line, as Elixir prints `{key, value}`.
#[derive(Default)]
pub(super) struct DroppedPairs {
    new_file: Option<NewFile>,
    open: Option<(String, Box<dyn Write + Send>)>,
    pairs: u64,
    /// Pairs that are being read.
    expected: usize,
    /// All others were kept: the last of these ends it.
    is_ending: bool,
}

impl DroppedPairs {
    pub fn into_files(new_file: NewFile) -> Self {
        Self { new_file: Some(new_file), ..Self::default() }
    }

    /// Keeps a pair, before it is dropped: in the file, or, where there can be none, in the log.
    pub fn keep(&mut self, key: &[u8], value: &[u8]) {
        self.pairs += 1;
        let line = line(key, value);
        match self.write(&line) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                // What was written before is there.
                self.open = None;
                self.new_file = None;
                tracing::error!(%error, "no file for what the new primary does not have: it is logged, pair by pair");
            }
        }
        tracing::error!(pair = line.trim_end(), "dropped: the new primary does not have this");
    }

    /// Gives whether there is a file.
    fn write(&mut self, line: &str) -> io::Result<bool> {
        if self.open.is_none() {
            let Some(new_file) = &self.new_file else { return Ok(false) };
            self.open = Some(new_file()?);
        }
        match &mut self.open {
            Some((_, file)) => file.write_all(line.as_bytes()).map(|()| true),
            None => Ok(false),
        }
    }

    /// A pair is being read, and [comes](Self::came) later.
    pub const fn expect(&mut self) {
        self.expected += 1;
    }

    /// An expected pair has come, and was kept if it had to be.
    pub fn came(&mut self) {
        self.expected = self.expected.saturating_sub(1);
        if self.expected == 0 && std::mem::take(&mut self.is_ending) {
            self.end();
        }
    }

    /// All were kept, but for those that are expected: gives how many, and says where.
    pub fn end(&mut self) -> u64 {
        if self.expected > 0 {
            self.is_ending = true;
            return 0;
        }
        let pairs = std::mem::take(&mut self.pairs);
        if let Some((file, mut open)) = self.open.take() {
            if let Err(error) = open.flush() {
                tracing::error!(file, %error, "what the new primary does not have may not be on disk yet");
            }
            tracing::error!(
                file,
                pairs,
                "dropped: what the new primary does not have, or has otherwise, is in this file, a {{key, value}} each line"
            );
        }
        pairs
    }
}

/// `{key, value}` in a line. What cannot be read back from Elixir's syntax, as a pid, is a call that gives it.
fn line(key: &[u8], value: &[u8]) -> String {
    let pair = encode(|w| _ = w.tuple(2).raw(&key::outgoing(key)).raw(value));
    let text = TermView::parse(&pair).map(|pair| inspect(pair, InspectLimits { text_bytes_max: usize::MAX }));
    match text {
        Ok(text) if is_text_of(&text, &pair) => text + "\n",
        _ => {
            let mut call = String::from(":erlang.binary_to_term(<<131");
            for byte in &pair {
                // Writing into a string does not fail.
                let _ = write!(call, ", {byte}");
            }
            call + ">>)\n"
        }
    }
}

/// Whether a text is read as this term, and stands in one line.
fn is_text_of(text: &str, term: &[u8]) -> bool {
    let same = |read: &[u8]| {
        if read == term {
            return true;
        }
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let (Ok(read), Ok(term)) = (TermView::parse(read), TermView::parse(term)) else { return false };
        matches!(
            (key::canonical(read, &mut one), key::canonical(term, &mut other)),
            (Ok(read), Ok(term)) if read == term
        )
    };
    !text.contains(['\n', '\r']) && parse(text, None).is_ok_and(|read| same(read.view().bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::Pid;
    use parking_lot::Mutex;

    /// A file in memory.
    #[derive(Clone, Default)]
    struct File(Arc<Mutex<Vec<u8>>>);

    impl Write for File {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > 1_000 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_pair_is_a_line_that_can_be_read_back_whole() {
        let long = "x\n\"".repeat(100);
        let key = encode(|w| _ = w.tuple(2).atom("a b").integer(-1));
        let value = encode(|w| _ = w.map(1).binary(long.as_bytes()).list(2).integer(97).float(0.5).nil());
        let text = line(&key, &value);
        assert_eq!(text.matches('\n').count(), 1);
        let read = parse(text.trim_end(), None).expect("it can be read");
        let pair = encode(|w| _ = w.tuple(2).raw(&key).raw(&value));
        assert_eq!(read.view().bytes(), pair);
        let pid = encode(|w| _ = w.pid(&Pid { node: "n@h".into(), id: 1, serial: 0, creation: 7 }));
        let text = line(&pid, &pid);
        assert!(
            text.starts_with(":erlang.binary_to_term(<<131, 104, 2, 88, ") && text.ends_with(">>)\n"),
            "{text}"
        );
    }

    #[test]
    fn a_file_is_made_for_the_first_pair_and_another_after_the_end() {
        let files: Arc<Mutex<Vec<File>>> = Arc::default();
        let made = Arc::clone(&files);
        let mut dropped = DroppedPairs::into_files(Arc::new(move || {
            let file = File::default();
            made.lock().push(file.clone());
            Ok(("name".into(), Box::new(file)))
        }));
        assert_eq!((dropped.end(), files.lock().len()), (0, 0));
        let [one, two] = [1, 2].map(|number| encode(|w| _ = w.integer(number)));
        dropped.keep(&one, &two);
        dropped.keep(&two, &one);
        assert_eq!(dropped.end(), 2);
        dropped.keep(&one, &one);
        // A pair that cannot be written ends the file: it and all later ones go into the log.
        dropped.keep(&one, &encode(|w| _ = w.binary(&[b'x'; 2_000])));
        dropped.keep(&two, &two);
        assert_eq!(dropped.end(), 3);
        let texts: Vec<String> =
            files.lock().iter().map(|file| String::from_utf8(file.0.lock().clone()).unwrap()).collect();
        assert_eq!(texts, ["{1, 2}\n{2, 1}\n", "{1, 1}\n"]);
    }
}
