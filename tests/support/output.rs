//! What a child process prints, line by line, while it runs.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The lines of one pipe, collected by a thread of its own.
#[derive(Clone)]
pub struct Output(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Output {
    /// Reads `pipe` to its end in the background.
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        Self::with(pipe, |_| false)
    }

    /// The same, but lines for which `taken` says yes are not kept.
    pub fn with(
        pipe: impl Read + Send + 'static,
        mut taken: impl FnMut(&str) -> bool + Send + 'static,
    ) -> Self {
        let output = Self(Arc::default());
        let filled = output.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                if !taken(&line) {
                    filled.lock().lines.push(line);
                    filled.0.1.notify_all();
                }
            }
            drop(taken);
            filled.lock().ended = true;
            filled.0.1.notify_all();
        });
        output
    }

    /// How many lines there are: what comes later can be told from what was there before.
    pub fn mark(&self) -> usize {
        self.lock().lines.len()
    }

    /// Waits until a line after `mark` holds, and returns it. `None`: the output ended or time is up.
    pub fn wait_for(&self, mark: usize, patience: Duration, holds: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + patience;
        let mut seen = mark;
        let mut guard = self.lock();
        loop {
            if let Some(line) = guard.lines.iter().skip(seen).find(|line| holds(line)) {
                return Some(line.clone());
            }
            seen = seen.max(guard.lines.len());
            let left = deadline.checked_duration_since(Instant::now())?;
            if guard.ended {
                return None;
            }
            guard = self.0.1.wait_timeout(guard, left).expect("no thread panics with the lines").0;
        }
    }

    /// Waits for the end of the output.
    pub fn wait_for_end(&self, patience: Duration) -> bool {
        self.wait_for(usize::MAX, patience, |_| false);
        self.lock().ended
    }

    /// All that came so far.
    pub fn text(&self) -> String {
        self.text_since(0)
    }

    /// What came after `mark`.
    pub fn text_since(&self, mark: usize) -> String {
        self.lock().lines[mark..].join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.0.lock().expect("no thread panics with the lines")
    }
}
