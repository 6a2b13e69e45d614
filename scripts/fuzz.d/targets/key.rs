//! Any bytes as keys: the canonical form of a term is a term whose canonical form is itself, and two terms are the same
//! key exactly where eetf reads the same from them.

#![no_main]

use eetf::Term;
use kvnode::etf::tag::{ATOM_EXT, FLOAT_EXT, SMALL_ATOM_EXT};
use kvnode::etf::{Cursor, TermView, key};
use libfuzzer_sys::fuzz_target;

/// Longest term that eetf is asked about: it recurses, and this bounds how deep.
const ORACLE_BYTES_MAX: usize = 1024;

fn canonical(bytes: &[u8]) -> Option<Vec<u8>> {
    let term = TermView::parse(bytes).ok()?;
    let mut scratch = Vec::new();
    key::canonical(term, &mut scratch).map(<[u8]>::to_vec).ok()
}

/// What a term means to eetf: the same text exactly for the same terms. `None`: it cannot say.
fn meaning(bytes: &[u8]) -> Option<String> {
    // It reads the text form of a float as one of 32 bits.
    if bytes.len() > ORACLE_BYTES_MAX || bytes.contains(&FLOAT_EXT) {
        return None;
    }
    let wire = [&[131][..], bytes].concat();
    let mut text = String::new();
    say(&Term::decode(&wire[..]).ok()?, false, &mut text)?;
    // It reads the Latin-1 of old atoms as UTF-8.
    let old_atoms = bytes.iter().any(|tag| [ATOM_EXT, SMALL_ATOM_EXT].contains(tag));
    let beyond_ascii = !text.is_ascii() || text.contains("\\u{");
    (!old_atoms || !beyond_ascii).then_some(text)
}

fn say_all<'a>(terms: impl IntoIterator<Item = &'a Term>, in_map: bool, out: &mut String) -> Option<()> {
    for term in terms {
        say(term, in_map, out)?;
        out.push(',');
    }
    Some(())
}

/// Its own types tell encodings apart, and not only values: they are put together here.
fn say(term: &Term, in_map: bool, out: &mut String) -> Option<()> {
    let elements = |elements: &[Term], out: &mut String| {
        out.push('[');
        say_all(elements, in_map, out)
    };
    match term {
        Term::Atom(atom) => out.push_str(&format!("a{:?}", atom.name)),
        Term::FixInteger(integer) => out.push_str(&format!("i{}", integer.value)),
        Term::BigInteger(integer) => out.push_str(&format!("i{}", integer.value)),
        // To it 0.0 and -0.0 are one key of a map, which has lost a pair then.
        Term::Float(float) if in_map && float.value == 0.0 => return None,
        Term::Float(float) => out.push_str(&format!("f{:x}", float.value.to_bits())),
        Term::Pid(pid) => {
            out.push_str(&format!("p{:?}.{}.{}.{}", pid.node.name, pid.id, pid.serial, pid.creation))
        }
        Term::Port(port) => out.push_str(&format!("o{:?}.{}.{}", port.node.name, port.id, port.creation)),
        Term::Reference(reference) => {
            // A BEAM's =:= takes words that one of two has more as equal where they are 0.
            let more = reference.id.iter().rev().take_while(|&&word| word == 0).count();
            let words = &reference.id[..reference.id.len() - more];
            out.push_str(&format!("r{:?}.{}.{words:?}", reference.node.name, reference.creation));
        }
        Term::ExternalFun(fun) => {
            out.push_str(&format!("e{:?}.{:?}.{}", fun.module.name, fun.function.name, fun.arity));
        }
        // What makes two of them the same is more than it keeps.
        Term::InternalFun(_) => return None,
        Term::Binary(binary) => out.push_str(&format!("b{:?}", binary.bytes)),
        Term::BitBinary(bits) => {
            let (mut bytes, tail) = (bits.bytes.clone(), bits.tail_bits_size);
            if tail == 8 || bytes.is_empty() {
                out.push_str(&format!("b{bytes:?}"));
                return Some(());
            }
            let last = bytes.last_mut()?;
            *last &= 0xff_u8.checked_shl(8 - u32::from(tail)).unwrap_or(0);
            out.push_str(&format!("b{bytes:?}:{tail}"));
        }
        Term::ByteList(list) => {
            out.push('[');
            list.bytes.iter().for_each(|byte| out.push_str(&format!("i{byte},")));
            out.push(']');
        }
        Term::List(list) => {
            elements(&list.elements, out)?;
            out.push(']');
        }
        // No elements before the tail: a BEAM reads the tail alone.
        Term::ImproperList(list) if list.elements.is_empty() => say(&list.last, in_map, out)?,
        Term::ImproperList(list) => {
            elements(&list.elements, out)?;
            // A tail that is a list makes one list of both.
            match &*list.last {
                Term::List(_) | Term::ByteList(_) | Term::ImproperList(_) => return None,
                last => {
                    out.push('|');
                    say(last, in_map, out)?;
                    out.push(']');
                }
            }
        }
        Term::Tuple(tuple) => {
            out.push('{');
            say_all(&tuple.elements, in_map, out)?;
            out.push('}');
        }
        Term::Map(map) => {
            let mut pairs = Vec::new();
            for (key, value) in &map.map {
                let mut pair = String::new();
                say_all([key, value], true, &mut pair)?;
                pairs.push(pair);
            }
            pairs.sort();
            out.push_str(&format!("%{}", pairs.join(";")));
            out.push('%');
        }
    }
    Some(())
}

fuzz_target!(|data: &[u8]| {
    // Two terms, one behind the other; with one alone its canonical form is the other.
    let mut cursor = Cursor::new(data);
    if cursor.term().is_err() {
        return;
    }
    let (one, other) = data.split_at(data.len() - cursor.rest().len());
    let Some(key) = canonical(one) else { return };
    assert_eq!(canonical(&key).as_ref(), Some(&key), "the canonical form of {one:?}");
    // What is in a list is the same key there.
    let in_a_list = |bytes: &[u8]| canonical(&[&[108, 0, 0, 0, 1][..], bytes, &[106]].concat());
    assert!(in_a_list(one).is_some());
    assert_eq!(in_a_list(one), in_a_list(&key), "{one:?} in a list");

    let (other, other_key) = match canonical(other) {
        Some(other_key) => (other, other_key),
        None => (&key[..], key.clone()),
    };
    if let (Some(meant), Some(other_meant)) = (meaning(one), meaning(other)) {
        assert_eq!(
            meant == other_meant,
            key == other_key,
            "{one:?} and {other:?}: {meant} and {other_meant}"
        );
    }
});
