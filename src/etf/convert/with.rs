//! For `#[serde(with = "…")]` at a field: values that Erlang writes in another way than serde does.
//!
//! | module | Rust | Erlang |
//! | --- | --- | --- |
//! | [`millis`] | `Duration` | an integer, in milliseconds |
//! | [`timeout`] | `Duration`, without end `Duration::MAX` | an integer, in milliseconds, or `:infinity` |
//! | [`undefined`] | `Option<T>` | `:undefined`, or the value |
//! | [`bytes`] | `Vec<u8>`, `Box<[u8]>`, `[u8; N]` | a binary |
//!
//! None of these is what the type is without the attribute. serde hands a `Duration` on as a struct of two fields, which a
//! struct of your own may be too. And where `:undefined` were `None` in every place, an optional atom that is `:undefined` would be lost.
//!
//! ```
//! use std::time::Duration;
//!
//! use kvnode::etf::OwnedTerm;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Fetch {
//!     #[serde(with = "kvnode::etf::with::bytes")]
//!     body: Vec<u8>,
//!     #[serde(with = "kvnode::etf::with::timeout")]
//!     limit: Duration,
//!     #[serde(with = "kvnode::etf::with::millis")]
//!     pause: Duration,
//!     #[serde(with = "kvnode::etf::with::undefined")]
//!     proxy: Option<String>,
//! }
//!
//! let fetch = Fetch { body: vec![0, 255], limit: Duration::MAX, pause: Duration::from_secs(2), proxy: None };
//! let term = OwnedTerm::from_value(&fetch)?;
//! assert_eq!(format!("{term:?}"), "%{body: <<0, 255>>, limit: :infinity, pause: 2000, proxy: :undefined}");
//! assert_eq!(term.to::<Fetch>()?, fetch);
//! # Ok::<(), kvnode::etf::ConvertError>(())
//! ```

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};

/// In milliseconds. A part of one counts as one, so that no time above zero is written as zero.
fn whole_millis(duration: Duration) -> u128 {
    let rounded = duration.as_millis() + u128::from(!duration.subsec_nanos().is_multiple_of(1_000_000));
    rounded.min(Duration::MAX.as_millis())
}

/// The way back; `None` at more than a `Duration` can be.
fn of_millis(millis: u128) -> Option<Duration> {
    let rest = Duration::from_millis((millis % 1000) as u64);
    Some(Duration::from_secs((millis / 1000).try_into().ok()?) + rest)
}

/// The atom that is a time without end.
pub(super) const INFINITY: &str = "infinity";

/// Reads milliseconds; of words those that `named` knows.
struct Millis {
    wanted: &'static str,
    named: fn(&str) -> Option<Duration>,
}

impl<'de> Visitor<'de> for Millis {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_u64<E: Error>(self, millis: u64) -> Result<Duration, E> {
        Ok(Duration::from_millis(millis))
    }

    // As some formats hand on every integer.
    fn visit_i64<E: Error>(self, millis: i64) -> Result<Duration, E> {
        let unsigned = u64::try_from(millis);
        let refused = |_| E::invalid_value(serde::de::Unexpected::Signed(millis), &self);
        unsigned.map(Duration::from_millis).map_err(refused)
    }

    fn visit_u128<E: Error>(self, millis: u128) -> Result<Duration, E> {
        of_millis(millis)
            .ok_or_else(|| E::custom(format_args!("{millis} ms are more than a Duration can be")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        (self.named)(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }

    // From other formats, which have no atoms.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A `Duration` as an integer, in milliseconds.
///
/// A part of a millisecond is written as a whole one. A negative integer and a float are refused.
///
/// ```
/// use std::time::Duration;
///
/// use kvnode::etf::{OwnedTerm, atom};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(rename_all = "snake_case")]
/// enum Request {
///     Sleep(#[serde(with = "kvnode::etf::with::millis")] Duration), // {:sleep, 1500}
/// }
///
/// let term = OwnedTerm::from_value(&Request::Sleep(Duration::from_millis(1500)))?;
/// assert_eq!(format!("{term:?}"), "{:sleep, 1500}");
///
/// let negative = OwnedTerm::from_value(&(atom("sleep"), -1))?;
/// let error = negative.to::<Request>().err().expect("no time is negative");
/// assert_eq!(error.to_string(), "wanted milliseconds, met integer `-1`, at {1}");
/// # Ok::<(), kvnode::etf::ConvertError>(())
/// ```
pub mod millis {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    use super::{Millis, whole_millis};

    /// For serde's `with` and `serialize_with`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(whole_millis(*duration)) {
            Ok(millis) => serializer.serialize_u64(millis),
            Err(_) => serializer.serialize_u128(whole_millis(*duration)),
        }
    }

    /// For serde's `with` and `deserialize_with`.
    ///
    /// # Errors
    /// Where the term is no integer, or an integer that is negative or more than a `Duration` can be: the sender's fault.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_u64(Millis { wanted: "milliseconds", named: |_| None })
    }
}

/// A `Duration` as a timeout of Erlang's: an integer, in milliseconds, or `:infinity`, which is `Duration::MAX`.
///
/// As [`millis`], with one more word. To serde's other formats `Duration::MAX` is the string `infinity`; it can be read from those
/// that say what they hold, as JSON does.
///
/// ```
/// use std::time::Duration;
///
/// use kvnode::etf::{OwnedTerm, atom};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Limit(#[serde(with = "kvnode::etf::with::timeout")] Duration);
///
/// let Limit(limit) = OwnedTerm::atom("infinity").to()?;
/// assert_eq!(limit, Duration::MAX);
/// let Limit(limit) = OwnedTerm::from_value(&5000)?.to()?;
/// assert_eq!(limit, Duration::from_secs(5));
/// # Ok::<(), kvnode::etf::ConvertError>(())
/// ```
pub mod timeout {
    use std::time::Duration;

    use serde::{Deserializer, Serialize, Serializer};

    use super::super::{atom, token};
    use super::{INFINITY, Millis, millis};

    /// For serde's `with` and `serialize_with`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        if *duration == Duration::MAX {
            return atom(INFINITY).serialize(serializer);
        }
        millis::serialize(duration, serializer)
    }

    /// For serde's `with` and `deserialize_with`.
    ///
    /// # Errors
    /// Where there is neither `:infinity` nor an integer, or one that is negative or more than a `Duration` can be: the sender's
    /// fault.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let named = |text: &str| (text == INFINITY).then_some(Duration::MAX);
        let visitor = Millis { wanted: "milliseconds or :infinity", named };
        deserializer.deserialize_newtype_struct(token::TIMEOUT, visitor)
    }
}

/// An `Option<T>` whose `None` is `:undefined`, as Erlang's records and libraries have it.
///
/// `nil` is read as `None` too, as without the attribute. To serde's other formats it is a plain `Option`. A field that may be missing says
/// `#[serde(default, with = "kvnode::etf::with::undefined")]`.
///
/// ```
/// use kvnode::etf::{OwnedTerm, atom};
/// use serde::{Deserialize, Serialize};
///
/// // -record(user, {name, email}).
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// #[serde(rename_all = "snake_case")]
/// enum Record {
///     User(String, #[serde(with = "kvnode::etf::with::undefined")] Option<String>),
/// }
///
/// let user = Record::User("Mafalda".into(), None);
/// let term = OwnedTerm::from_value(&user)?;
/// assert_eq!(format!("{term:?}"), r#"{:user, "Mafalda", :undefined}"#);
/// assert_eq!(term.to::<Record>()?, user);
/// let nil = OwnedTerm::from_value(&(atom("user"), "Mafalda", ()))?;
/// assert_eq!(nil.to::<Record>()?, user);
/// # Ok::<(), kvnode::etf::ConvertError>(())
/// ```
pub mod undefined {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::{Error, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::super::token;

    /// For serde's `with` and `serialize_with`.
    ///
    /// # Errors
    /// Those of the value and the serializer.
    pub fn serialize<T: Serialize, S: Serializer>(
        option: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(token::UNDEFINED, option)
    }

    /// For serde's `with` and `deserialize_with`.
    ///
    /// # Errors
    /// Where the value is neither of the two atoms nor what `T` asks for: the sender's fault.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        deserializer.deserialize_newtype_struct(token::UNDEFINED, Undefined(PhantomData))
    }

    struct Undefined<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Undefined<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value or :undefined")
        }

        fn visit_none<E: Error>(self) -> Result<Option<T>, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
            T::deserialize(deserializer).map(Some)
        }

        // From other formats.
        fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
            Option::deserialize(deserializer)
        }
    }
}

/// Bytes as a binary: `Vec<u8>`, `Box<[u8]>`, `Arc<[u8]>`, `[u8; N]`. A [`Binary`](super::Binary) is one by itself.
///
/// ```
/// use kvnode::etf::{Binary, OwnedTerm};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Digest(#[serde(with = "kvnode::etf::with::bytes")] [u8; 4]);
///
/// let term = OwnedTerm::from_value(&Digest([1, 2, 3, 255]))?;
/// assert_eq!(format!("{term:?}"), "<<1, 2, 3, 255>>");
/// assert_eq!(term.to::<Digest>()?, Digest([1, 2, 3, 255]));
///
/// let short = OwnedTerm::from_value(&Binary::from([1, 2]))?;
/// let error = short.to::<Digest>().unwrap_err().to_string();
/// assert_eq!(error, "wanted a binary of another length, met 2 bytes");
/// # Ok::<(), kvnode::etf::ConvertError>(())
/// ```
pub mod bytes {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::super::Binary;

    /// For serde's `with` and `serialize_with`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T, S>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: AsRef<[u8]> + ?Sized,
        S: Serializer,
    {
        serializer.serialize_bytes(bytes.as_ref())
    }

    /// For serde's `with` and `deserialize_with`.
    ///
    /// # Errors
    /// Where there is no binary, or, of an array, one of another length: the sender's fault.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: TryFrom<Vec<u8>>,
        D: Deserializer<'de>,
    {
        let Binary(bytes) = Binary::deserialize(deserializer)?;
        let len = bytes.len();
        let refused =
            |_| D::Error::custom(format_args!("wanted a binary of another length, met {len} bytes"));
        bytes.try_into().map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConvertError, from_term, to_term};
    use super::*;
    use crate::etf::{OwnedTerm, TermView};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Time(#[serde(with = "millis")] Duration);

    fn read(value: &impl Serialize) -> Result<Time, ConvertError> {
        from_term(TermView::parse(&to_term(value).expect("a term")).expect("well formed"))
    }

    #[test]
    fn a_time_of_any_length_is_written_rounded_up_and_read_back() {
        let written = |time| format!("{:?}", OwnedTerm::from_value(&Time(time)).expect("a term"));
        assert_eq!(written(Duration::ZERO), "0");
        assert_eq!(written(Duration::from_nanos(1)), "1");
        assert_eq!(written(Duration::from_micros(1001)), "2");
        assert_eq!(written(Duration::MAX), "18446744073709551615999");
        let longest = Duration::from_secs(u64::MAX) + Duration::from_millis(999);
        assert_eq!(read(&Duration::MAX.as_millis()), Ok(Time(longest)));
        let error = read(&(Duration::MAX.as_millis() + 1)).unwrap_err().to_string();
        assert_eq!(error, "wanted milliseconds, met the integer 18446744073709551616000");
        assert_eq!(read(&u64::MAX), Ok(Time(Duration::from_millis(u64::MAX))));
    }

    #[test]
    fn other_formats_keep_the_values() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct All {
            #[serde(with = "millis")]
            millis: Duration,
            #[serde(with = "timeout")]
            timeout: Duration,
            #[serde(with = "undefined")]
            none: Option<u8>,
            #[serde(with = "undefined")]
            some: Option<u8>,
            #[serde(with = "bytes")]
            bytes: Box<[u8]>,
        }
        let (millis, timeout) = (Duration::from_secs(1), Duration::MAX);
        let all = All { millis, timeout, none: None, some: Some(1), bytes: [1, 2].into() };
        let json = serde_json::to_string(&all).expect("JSON");
        let wanted = r#"{"millis":1000,"timeout":"infinity","none":null,"some":1,"bytes":[1,2]}"#;
        assert_eq!(json, wanted);
        assert_eq!(serde_json::from_str::<All>(&json).expect("it comes back"), all);
    }
}
