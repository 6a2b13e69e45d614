//! A person who types commands.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use super::kvnode::program;
use super::{COOKIE, Epmd};

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Said {
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("it is text")
    }
}

/// A person at a terminal of this cluster.
pub struct Person<'a> {
    epmd: &'a Epmd,
    pub home: tempfile::TempDir,
}

impl<'a> Person<'a> {
    /// One whose cookie file has the cookie of all tests.
    pub fn new(epmd: &'a Epmd) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().expect("a folder can be made");
        let file = home.path().join(".erlang.cookie");
        fs::write(&file, COOKIE).expect("it is ours");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).expect("it is ours");
        Self { epmd, home }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).env("HOME", self.home.path()).env("ERL_EPMD_PORT", self.epmd.port().to_string());
        for variable in
            ["ERL_EPMD_ADDRESS", "XDG_CONFIG_HOME", "NO_COLOR", "ERL_INET_ETC_DIR", "KVNODE_COOKIE"]
        {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn types_with(&self, args: &[&str], input: &[u8]) -> Said {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("it was built");
        let mut stdin = child.stdin.take().expect("it is piped");
        // A program that reads nothing may be gone by now.
        let _gone = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().expect("it is our child");
        let stderr = String::from_utf8(output.stderr).expect("it is text");
        Said { code: output.status.code().expect("it ended by itself"), stdout: output.stdout, stderr }
    }

    pub fn types(&self, args: &[&str]) -> Said {
        self.types_with(args, b"")
    }

    /// What is printed by a command that does what it is for.
    #[track_caller]
    pub fn gets(&self, args: &[&str]) -> String {
        let said = self.types(args);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{args:?}");
        said.text()
    }

    /// The command ends with this code and all of these in its message.
    #[track_caller]
    pub fn fails(&self, args: &[&str], code: i32, parts: &[&str]) {
        let said = self.types(args);
        assert_eq!(said.code, code, "{args:?}: {said:?}");
        assert!(said.stderr.starts_with("kvnode: ") && said.stdout.is_empty(), "{said:?}");
        assert!(!said.stderr.contains(COOKIE), "{said:?}");
        for part in parts {
            assert!(said.stderr.contains(part), "{args:?}: {part:?} is not in {said:?}");
        }
    }

    /// The doctor ends with this check, and says what to do.
    #[track_caller]
    pub fn doctor(&self, args: &[&str], check: &str, parts: &[&str]) {
        let typed: Vec<&str> = ["doctor"].iter().chain(args).copied().collect();
        let said = self.types(&typed);
        assert_eq!(said.code, 1, "{said:?}");
        let text = said.text();
        let failed = format!("FAIL  {check:<10} ");
        assert_eq!(text.matches("FAIL").count(), 1, "{text}");
        assert!(text.contains(&failed) && text.contains("      to do      "), "{failed} is not in {text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(!text.contains(COOKIE) && said.stderr.contains(check), "{said:?}");
    }
}
