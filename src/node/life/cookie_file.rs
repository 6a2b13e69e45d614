//! The cookie file, where and how Erlang keeps it (kernel, `auth.erl`, read_cookie and create_cookie).
//!
//! `~/.erlang.cookie` comes first, then (from OTP 25 on) `$XDG_CONFIG_HOME/erlang/.erlang.cookie`; where there is
//! neither, the first is made with random content. Paths are shown, the content never is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::distribution::Cookie;
use crate::distribution::cookie::COOKIE_CHARACTERS_MAX;

/// What is read of a cookie file, in bytes: a cookie of full length, and line ends behind it.
const FILE_BYTES_MAX: u64 = 1024;
/// Letters of a cookie that is made here; as many as Erlang makes.
const RANDOM_LETTERS: usize = 20;

/// Where a cookie file may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookiePlaces {
    home: Option<PathBuf>,
    config: Option<PathBuf>,
}

/// A cookie that came from a file.
#[derive(Clone, Debug)]
pub struct CookieFile {
    /// The secret.
    pub cookie: Cookie,
    /// The file that it stands in.
    pub path: PathBuf,
    /// Whether the file was made just now: then no other node can know it yet.
    pub created: bool,
}

impl CookiePlaces {
    /// The places of this user: from `HOME` and `XDG_CONFIG_HOME`.
    pub fn from_environment() -> Self {
        let folder =
            |variable| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self::new(folder("HOME"), folder("XDG_CONFIG_HOME"))
    }

    /// The places below a home folder and a configuration folder. Without the latter it is the one of the system below
    /// the home folder (stdlib, `filename:basedir(user_config, _)`).
    pub fn new(home: Option<PathBuf>, config: Option<PathBuf>) -> Self {
        let default = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".config" };
        let config = config.or_else(|| home.as_ref().map(|home| home.join(default)));
        Self {
            home: home.map(|home| home.join(".erlang.cookie")),
            config: config.map(|config| config.join("erlang/.erlang.cookie")),
        }
    }

    /// Reads the cookie; `None` where there is no file.
    ///
    /// # Errors
    /// The file cannot be used as it is, by the same rules as Erlang's.
    pub fn read(&self) -> Result<Option<CookieFile>, CookieFileError> {
        for path in [&self.home, &self.config].into_iter().flatten() {
            match read(path) {
                Err(CookieFileError::Read { reason, .. }) if reason.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(cookie) => return Ok(Some(CookieFile { cookie, path: path.clone(), created: false })),
            }
        }
        Ok(None)
    }

    /// Reads the cookie, or makes one where there is none.
    ///
    /// # Errors
    /// The file cannot be used as it is, by the same rules as Erlang's, or cannot be made.
    pub fn read_or_create(&self) -> Result<CookieFile, CookieFileError> {
        if let Some(file) = self.read()? {
            return Ok(file);
        }
        let path = self.home.as_ref().or(self.config.as_ref()).ok_or(CookieFileError::NoHome)?;
        let created =
            create(path).map_err(|reason| CookieFileError::Create { path: path.clone(), reason })?;
        // Read again: another process may have been first, and then its cookie is the one.
        Ok(CookieFile { cookie: read(path)?, path: path.clone(), created })
    }
}

fn read(path: &Path) -> Result<Cookie, CookieFileError> {
    let error = |reason| CookieFileError::Read { path: path.to_owned(), reason };
    // Looked at before it is opened: opening a pipe would wait for its other end.
    check_attributes(path, &fs::metadata(path).map_err(error)?)?;
    let file = File::open(path).map_err(error)?;
    check_attributes(path, &file.metadata().map_err(error)?)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(error)?;
    parse(&bytes).map_err(|fault| CookieFileError::Content { path: path.to_owned(), fault })
}

fn check_attributes(path: &Path, attributes: &fs::Metadata) -> Result<(), CookieFileError> {
    if !attributes.is_file() {
        return Err(CookieFileError::NotRegular { path: path.to_owned() });
    }
    // auth.erl, check_attributes: Mode band 8#077.
    let mode = attributes.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(CookieFileError::Accessible { path: path.to_owned(), mode });
    }
    Ok(())
}

/// auth.erl, check_cookie: printable ASCII and spaces up to the first other character, behind which only line ends and
/// spaces may follow. Spaces before that character belong to the cookie.
fn parse(bytes: &[u8]) -> Result<Cookie, ContentFault> {
    let end = bytes.iter().position(|byte| !(b' '..=b'~').contains(byte)).unwrap_or(bytes.len());
    let (cookie, rest) = bytes.split_at(end);
    if !rest.iter().all(|byte| matches!(byte, b'\n' | b'\r' | b' ')) {
        return Err(ContentFault::Characters);
    }
    if cookie.is_empty() {
        return Err(ContentFault::Empty);
    }
    if cookie.len() > COOKIE_CHARACTERS_MAX || bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ContentFault::TooLong);
    }
    Ok(Cookie::new(cookie.iter().map(|&byte| char::from(byte)).collect::<String>()))
}

/// Makes the file whole or not at all, and says whether it did: nobody ever reads one that is half written.
fn create(path: &Path) -> io::Result<bool> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let letters = random_letters(RANDOM_LETTERS)?;
    let scratch = folder.join(format!(".erlang.cookie.{}", random_letters(8)?));
    let linked = write_new(&scratch, &letters).and_then(|()| fs::hard_link(&scratch, path));
    // Best effort: a scratch file that stays is private, and useless.
    let _ = fs::remove_file(&scratch);
    let done = match linked {
        Err(reason) if reason.kind() != io::ErrorKind::AlreadyExists => {
            // A file system without hard links; for any other reason this says the same again.
            write_new(path, &letters)
        }
        linked => linked,
    };
    match done {
        Err(reason) if reason.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        done => done.map(|()| true),
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    file.write_all(text.as_bytes())
}

/// Upper-case letters, all equally likely, from the system's random source.
fn random_letters(count: usize) -> io::Result<String> {
    // The largest multiple of 26 that a byte can hold: bytes from there on would favour the first letters.
    const FAIR: u8 = 234;
    let mut letters = String::with_capacity(count);
    while letters.len() < count {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let fair = bytes.iter().filter(|&&byte| byte < FAIR);
        letters.extend(fair.map(|byte| char::from(b'A' + byte % 26)).take(count - letters.len()));
    }
    Ok(letters)
}

/// Why there is no cookie to use. All of them are for the user to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CookieFileError {
    /// Neither `HOME` nor `XDG_CONFIG_HOME` is set.
    #[error("HOME is not set, so there is no place for a cookie file: use --cookie, or set HOME")]
    NoHome,
    /// It cannot be read.
    #[error("cannot read the cookie file {path}: {reason}; make it yours (chown), or use --cookie")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        reason: io::Error,
    },
    /// It is a folder, a device or a pipe.
    #[error("the cookie file {path} is not a regular file; remove it and a new one is made, or use --cookie")]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner have rights on it.
    #[error(
        "the cookie file {path} must be accessible by its owner only, and its mode is {mode:04o}; run: chmod 400 {path}"
    )]
    Accessible {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is no cookie in it.
    #[error(
        "the cookie file {path} {}; write the cookie of the cluster into it, or remove it and a new one is made",
        .fault.as_str()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: ContentFault,
    },
    /// It cannot be made.
    #[error("cannot make the cookie file {path}: {reason}; make its folder writable, or use --cookie")]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        reason: io::Error,
    },
}

/// What is wrong in a cookie file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentFault {
    /// Nothing before the first line end.
    Empty,
    /// Something else than printable ASCII, or a second line.
    Characters,
    /// Longer than an atom.
    TooLong,
}

impl ContentFault {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "is empty",
            Self::Characters => "has bad characters (one line of printable ASCII is wanted)",
            Self::TooLong => "is too long (a cookie has 255 characters at most)",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(home: &tempfile::TempDir) -> CookiePlaces {
        CookiePlaces::new(Some(home.path().into()), None)
    }

    fn put(path: &Path, content: &str, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_cookie_is_made_once_for_the_owner_only() {
        let home = tempfile::tempdir().unwrap();
        let first = places(&home).read_or_create().unwrap();
        assert!(first.created);
        assert_eq!(first.path, home.path().join(".erlang.cookie"));
        assert_eq!(fs::metadata(&first.path).unwrap().permissions().mode() & 0o777, 0o400);
        let text = fs::read_to_string(&first.path).unwrap();
        assert_eq!(text.len(), 20);
        assert!(text.bytes().all(|byte| byte.is_ascii_uppercase()));
        let again = places(&home).read_or_create().unwrap();
        assert!(!again.created);
        assert_eq!(again.cookie, first.cookie);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "no scratch file is left");
    }

    #[test]
    fn processes_that_start_at_once_agree_on_one_cookie() {
        let home = tempfile::tempdir().unwrap();
        let barrier = std::sync::Barrier::new(8);
        let found: Vec<CookieFile> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        places(&home).read_or_create().unwrap()
                    })
                })
                .collect();
            tries.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(found.iter().filter(|file| file.created).count(), 1);
        assert!(found.iter().all(|file| file.cookie == found[0].cookie));
    }

    #[test]
    fn the_home_folder_comes_before_the_configuration_folder() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join(".config/erlang/.erlang.cookie");
        put(&config, "from_config", 0o400);
        let found = places(&home).read_or_create().unwrap();
        assert_eq!((found.path, found.cookie), (config, Cookie::new("from_config")));
        put(&home.path().join(".erlang.cookie"), "from_home", 0o600);
        assert_eq!(places(&home).read_or_create().unwrap().cookie, Cookie::new("from_home"));
        let elsewhere = CookiePlaces::new(None, Some(home.path().join(".config")));
        assert_eq!(elsewhere.read_or_create().unwrap().cookie, Cookie::new("from_config"));
        assert!(matches!(CookiePlaces::new(None, None).read_or_create(), Err(CookieFileError::NoHome)));
    }

    // Each of these was tried with `erl` of OTP 25, which printed erlang:get_cookie(), or its error.
    #[test]
    fn the_content_is_read_as_erlang_reads_it() {
        let text = |text: &str| parse(text.as_bytes());
        assert_eq!(text("abc"), Ok(Cookie::new("abc")));
        assert_eq!(text("abc  \n"), Ok(Cookie::new("abc  ")));
        assert_eq!(text(" abc"), Ok(Cookie::new(" abc")));
        assert_eq!(text("abc\r\n \n"), Ok(Cookie::new("abc")));
        assert_eq!(text("abc\ndef"), Err(ContentFault::Characters));
        assert_eq!(text("a\tb"), Err(ContentFault::Characters));
        assert_eq!(text("é"), Err(ContentFault::Characters));
        assert_eq!(text(""), Err(ContentFault::Empty));
        assert_eq!(text("\n"), Err(ContentFault::Empty));
        assert_eq!(text(&"a".repeat(255)), Ok(Cookie::new("a".repeat(255))));
        assert_eq!(text(&"a".repeat(256)), Err(ContentFault::TooLong));
        assert_eq!(text(&format!("a{}", "\n".repeat(2000))), Err(ContentFault::TooLong));
    }

    #[test]
    fn a_file_that_others_can_use_is_refused() {
        for mode in [0o440, 0o404, 0o420, 0o401] {
            let home = tempfile::tempdir().unwrap();
            put(&home.path().join(".erlang.cookie"), "SECRETSECRET", mode);
            let error = places(&home).read_or_create().unwrap_err();
            assert!(matches!(&error, CookieFileError::Accessible { mode: found, .. } if *found == mode));
            assert!(error.to_string().contains("chmod 400"), "{error}");
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_replaced() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".erlang.cookie")).unwrap();
        assert!(matches!(places(&home).read_or_create(), Err(CookieFileError::NotRegular { .. })));
        let error = CookiePlaces::new(Some("/nonexistent/home".into()), None).read_or_create().unwrap_err();
        assert!(matches!(error, CookieFileError::Create { .. }), "{error}");
    }
}
