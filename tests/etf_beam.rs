//! Real BEAMs as judges of canonical keys and of printed terms.
//!
//! Each OTP version present encodes several hundred terms in every way that it knows, and in the oddest ways that
//! it still reads. All encodings of one term have to be one key, those of different terms different keys, and
//! the BEAM has to read the key as the term that it was. `etf_beam.exs` is the other side.

#![allow(clippy::print_stderr, reason = "what is not compared is said")]

mod support;

use std::collections::{HashMap, HashSet};

use kvnode::etf::compressed::inflate;
use kvnode::etf::key::{canonical, check_maps, outgoing};
use kvnode::etf::tag::{COMPRESSED, VERSION_MAGIC};
use kvnode::etf::text::{InspectLimits, inspect};
use kvnode::etf::{TermView, Traits};
use support::judge::{Judge, lengthened};
use support::{Otp, on_every_otp_from};

const WHOLE: InspectLimits = InspectLimits { text_bytes_max: 64 << 20 };

fn judge(otp: &Otp) -> Judge {
    Judge::start(otp, "etf_beam.exs", include_str!("etf_beam.exs"))
}

/// Reads what the script has written.
struct Entries<'a>(&'a [u8]);

struct Entry<'a> {
    encodings: Vec<&'a [u8]>,
    text: Option<&'a str>,
    phash2: u32,
}

impl<'a> Entries<'a> {
    fn number(&mut self) -> u32 {
        let (number, rest) = self.0.split_first_chunk().expect("the file is whole");
        self.0 = rest;
        u32::from_be_bytes(*number)
    }

    fn bytes(&mut self, len: u32) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len as usize);
        self.0 = rest;
        bytes
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let encodings = (0..self.number())
            .map(|_| {
                let len = self.number();
                self.bytes(len)
            })
            .collect();
        let text = match self.number() {
            u32::MAX => None,
            len => Some(std::str::from_utf8(self.bytes(len)).expect("Elixir writes UTF-8")),
        };
        Some(Entry { encodings, text, phash2: self.number() })
    }
}

/// The term without version byte and compression.
fn unpacked(encoding: &[u8]) -> Vec<u8> {
    match encoding {
        [VERSION_MAGIC, COMPRESSED, rest @ ..] => {
            let (term, consumed) = inflate(rest, 64 << 20).expect("a BEAM compresses right");
            assert_eq!(consumed, rest.len());
            term
        }
        [VERSION_MAGIC, rest @ ..] => rest.to_vec(),
        _ => panic!("no version byte"),
    }
}

fn shown(bytes: &[u8]) -> String {
    inspect(TermView::parse(bytes).expect("it was parsed before"), WHOLE)
}

fn key_of(encoding: &[u8]) -> Vec<u8> {
    let bytes = unpacked(encoding);
    let term = TermView::parse(&bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    if term.traits().contains(Traits::MAP) {
        assert_eq!(check_maps(term), Ok(()), "{term:?}");
    }
    let mut scratch = Vec::new();
    let key = canonical(term, &mut scratch).unwrap_or_else(|error| panic!("{error}: {term:?}")).to_vec();
    let again = TermView::parse(&key).expect("canonical bytes are a term");
    assert_eq!(canonical(again, &mut Vec::new()).expect("they are canonical"), key, "{again:?}");
    key
}

/// A term's hash, which is the same on every OTP, and its key.
type Keyed = (u32, Vec<u8>);

/// The keys of all terms of one version, each with the hash that every OTP gives this term (`erlang:phash2/2`);
/// and how many of them, from the first on, the other versions have too.
fn keys_of(otp: &Otp) -> (Vec<Keyed>, usize) {
    let mut judge = judge(otp);
    let head = judge.line();
    let ["terms", terms, "portable", portable, "text", text] = head.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{head}");
    };
    let encoded = judge.read("encoded");
    let keys: Vec<_> = Entries(&encoded).map(|entry| (entry.phash2, one_key(&entry))).collect();
    assert_eq!(keys.len().to_string(), terms);
    assert_different(&keys);
    if text == "true" {
        compare_texts(&encoded, &judge.read("shown"));
    } else {
        eprintln!("    the texts are not compared: they are those of Elixir 1.18 and later");
    }
    // As it is sent: an alias has its fifth word then.
    let sent: Vec<_> = keys.iter().map(|(_, key)| outgoing(key)).collect();
    judge.write("canonical", &lengthened(sent.iter().map(|key| &key[..])));
    let (changed, count) = changed(&encoded, otp);
    judge.write("changed", &changed);
    judge.must_say(&format!("judged {count}"));
    eprintln!("    {count} changed terms that it reads as we do");
    (keys, portable.parse().expect("a number"))
}

fn one_key(entry: &Entry<'_>) -> Vec<u8> {
    let keys: Vec<Vec<u8>> = entry.encodings.iter().map(|encoding| key_of(encoding)).collect();
    for (key, encoding) in keys.iter().zip(&entry.encodings) {
        assert!(*key == keys[0], "{} is not one key: {:?}", shown(key), &encoding[..encoding.len().min(300)]);
    }
    keys[0].clone()
}

/// Encodings with one byte changed that are still a term to us, each with its key; and how many. What we take,
/// a BEAM has to read: it may be stored by one node and asked for by another.
fn changed(encoded: &[u8], otp: &Otp) -> (Vec<u8>, usize) {
    let (mut out, mut seen) = (Vec::new(), HashSet::new());
    let mut scratch = Vec::new();
    for encoding in Entries(encoded).flat_map(|entry| entry.encodings) {
        let mut bytes = unpacked(encoding);
        // A node knows more about its own identifiers than their form.
        if bytes.len() > 100 || bytes.windows(6).any(|part| part == b"nonode") {
            continue;
        }
        for at in 0..bytes.len() {
            let kept = bytes[at];
            for byte in [0, 1, 2, 4, 255, kept ^ 1, kept ^ 128, kept.wrapping_add(1), kept.wrapping_sub(1)] {
                bytes[at] = byte;
                let Ok(term) = TermView::parse(&bytes) else { continue };
                if term.traits().contains(Traits::NATIVE_RECORD) && otp.release < 29 {
                    continue;
                }
                if let Ok(key) = canonical(term, &mut scratch)
                    && seen.insert(bytes.clone())
                {
                    out.extend(lengthened([&bytes, key]));
                }
            }
            bytes[at] = kept;
        }
    }
    (out, seen.len())
}

fn assert_different(keys: &[Keyed]) {
    let mut seen = HashMap::new();
    for (at, (_, key)) in keys.iter().enumerate() {
        if let Some(before) = seen.insert(key, at) {
            panic!("terms {before} and {at} are one key: {}", shown(key));
        }
    }
}

fn compare_texts(encoded: &[u8], more: &[u8]) {
    let (mut compared, mut wrong) = (0, Vec::new());
    for Entry { encodings, text, .. } in Entries(encoded).chain(Entries(more)) {
        let Some(wanted) = text else { continue };
        // The first of the BEAM's own, for the order of a map.
        let own = encodings.iter().find(|encoding| encodings.len() == 1 || **encoding != encodings[0]);
        let got = shown(&unpacked(own.unwrap_or(&encodings[0])));
        compared += 1;
        // An atom in a rare script may stand in quotes: it is the same atom.
        let quoted = !wanted.is_ascii() && got.replace('"', "") == wanted;
        if got != wanted && !quoted {
            wrong.push(format!("{:.200} is {:.200}", got, wanted));
        }
    }
    eprintln!("    {compared} texts compared");
    assert!(
        wrong.is_empty(),
        "{} of {compared} wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(6000)].join("\n")
    );
}

#[test]
fn every_encoding_of_a_term_is_one_key_that_every_otp_reads() {
    let mut first: Option<(Vec<Keyed>, String)> = None;
    // The script asks OTP for encodings that came with 25.
    on_every_otp_from(25, |otp| {
        let (mut keys, portable) = keys_of(otp);
        eprintln!("    {} keys, {portable} of terms that other versions have", keys.len());
        keys.truncate(portable);
        let Some((others, label)) = &first else {
            first = Some((keys, otp.label.clone()));
            return;
        };
        let mut same = 0;
        for ((hash, key), (other_hash, other)) in keys.iter().zip(others) {
            // A struct's fields are not those of another version: then it is another term.
            if hash == other_hash {
                assert!(key == other, "{} here, {} on {label}", shown(key), shown(other));
                same += 1;
            }
        }
        eprintln!("    {same} of them are the keys of {label}");
        assert!(same > 300);
    });
}

/// Every encoding of a term as eetf's tree and back; the BEAM says whether it is still the term.
#[cfg(feature = "eetf")]
#[test]
fn every_term_of_a_beam_comes_back_from_eetf() {
    use kvnode::etf::OwnedTerm;
    use kvnode::etf::tree::ToEetfError;

    on_every_otp_from(25, |otp| {
        let mut judge = judge(otp);
        assert!(judge.line().starts_with("terms "));
        let encoded = judge.read("encoded");
        let (mut back, mut through, mut refused) = (Vec::new(), 0, 0);
        for entry in Entries(&encoded) {
            let bytes: Vec<Vec<u8>> = entry.encodings.iter().map(|encoding| unpacked(encoding)).collect();
            let trees = bytes
                .iter()
                .map(|bytes| eetf::Term::try_from(TermView::parse(bytes).expect("a BEAM has written it")));
            let term = match trees.collect::<Result<Vec<_>, _>>() {
                Ok(trees) => {
                    assert!(
                        trees.iter().all(|tree| *tree == trees[0]),
                        "{} is not one tree",
                        shown(&bytes[0])
                    );
                    through += 1;
                    OwnedTerm::try_from(&trees[0])
                        .unwrap_or_else(|error| panic!("{error}: {}", trees[0]))
                        .into_bytes()
                }
                Err(error) => {
                    let text = shown(&bytes[0]);
                    match error {
                        ToEetfError::MapInKey => {
                            assert!(text.contains("%{%{") || text.contains("{%{"), "{text}")
                        }
                        ToEetfError::TooDeep { .. } => assert!(text.len() > 256, "{text}"),
                        ToEetfError::NativeRecord | ToEetfError::EqualKeys => {
                            assert!(otp.release > 25, "{text}")
                        }
                        error => panic!("{error}: {text}"),
                    }
                    refused += 1;
                    bytes[0].clone()
                }
            };
            back.push(term);
        }
        judge.write("canonical", &lengthened(back.iter().map(Vec::as_slice)));
        judge.write("changed", &[]);
        judge.must_say("judged 0");
        eprintln!("    {through} terms came back, {refused} were refused");
        assert!(through > 300 && refused < 30);
    });
}
