//! A BEAM as a judge: a script that writes files, waits for a line, and says what it makes of the files that were put beside.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Stdio};

use super::otp::Otp;

/// A script that runs.
pub struct Judge {
    beam: Child,
    lines: Lines<BufReader<ChildStdout>>,
    folder: tempfile::TempDir,
}

impl Judge {
    /// Starts the script of this name and text on this version, with the modules of all tests and a new folder as its argument.
    #[track_caller]
    pub fn start(otp: &Otp, name: &str, text: &str) -> Self {
        let folder = otp.scratch();
        let script = folder.path().join(name);
        std::fs::write(&script, text).expect("the script can be copied");
        let mut beam = otp
            .command("elixir")
            .env("LC_ALL", "C.UTF-8")
            .args(["--erl", "+t 4000000", "-pa"])
            .args([otp.modules(), otp.inside(&script), otp.inside(folder.path())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("elixir can be started");
        let lines = BufReader::new(beam.stdout.take().expect("it is a pipe")).lines();
        Self { beam, lines, folder }
    }

    /// The next line that it says.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.lines.next().expect("the script says more").expect("it is readable")
    }

    /// What it has written into a file of its folder.
    #[track_caller]
    pub fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(file)).expect("the script wrote it")
    }

    /// Puts a file into its folder.
    #[track_caller]
    pub fn write(&self, file: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(file), bytes).expect("the BEAM's folder can be written");
    }

    /// Lets it go on. It has to say this, and to end well.
    #[track_caller]
    pub fn must_say(mut self, verdict: &str) {
        writeln!(self.beam.stdin.as_mut().expect("it is a pipe")).expect("the script waits");
        assert_eq!(self.line(), verdict);
        let status = self.beam.wait().expect("it was started");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ended = self.beam.kill();
        let _status = self.beam.wait();
    }
}

/// Parts one behind the other, each with its length in 32 bits before it.
pub fn lengthened<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    parts.into_iter().flat_map(|part| [&(part.len() as u32).to_be_bytes(), part].concat()).collect()
}
