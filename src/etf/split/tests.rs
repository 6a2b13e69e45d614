use super::*;

/// One term of every tag, most of them inside of another.
fn one_of_each() -> Vec<Vec<u8>> {
    let node = [119, 1, b'n'];
    let of = |parts: &[&[u8]]| parts.concat();
    let float = [b"c1.50000000000000000000e+00".as_slice(), &[0; 5]].concat();
    let fun = of(&[&[2], &[7; 16], &[0, 0, 0, 3, 0, 0, 0, 2], &node, &[97, 3, 98, 0, 0, 1, 0, 103], &node]);
    let fun = of(&[&fun, &[0, 0, 0, 1, 0, 0, 0, 2, 3, 104, 1, 106, 107, 0, 1, 9]]);
    let fun = of(&[&[112], &(fun.len() as u32 + 4).to_be_bytes(), &fun]);
    let mut terms = vec![
        vec![97, 7],
        vec![98, 255, 0, 0, 7],
        vec![110, 2, 1, 5, 5],
        vec![111, 0, 0, 0, 2, 0, 5, 5],
        vec![70, 63, 248, 0, 0, 0, 0, 0, 0],
        float,
        vec![115, 1, 233],
        vec![100, 0, 1, 233],
        vec![119, 2, 195, 169],
        vec![118, 0, 2, 195, 169],
        vec![109, 0, 0, 0, 2, 1, 2],
        vec![77, 0, 0, 0, 2, 3, 1, 224],
        vec![106],
        vec![107, 0, 2, 1, 2],
        vec![108, 0, 0, 0, 2, 97, 1, 106, 106],
        vec![108, 0, 0, 0, 1, 97, 1, 97, 2],
        vec![104, 2, 97, 1, 106],
        vec![105, 0, 0, 0, 2, 97, 1, 106],
        vec![116, 0, 0, 0, 2, 97, 1, 97, 2, 97, 3, 106],
        of(&[&[88], &node, &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]]),
        of(&[&[103], &node, &[0, 0, 0, 1, 0, 0, 0, 2, 3]]),
        of(&[&[90, 0, 5], &node, &[0; 4], &[1; 20]]),
        of(&[&[114, 0, 3], &node, &[3, 0, 0, 0, 5, 1, 1, 1, 1, 1, 1, 1, 1]]),
        of(&[&[101], &node, &[0, 0, 0, 5, 3]]),
        of(&[&[120], &node, &[0; 12]]),
        of(&[&[89], &node, &[0; 8]]),
        of(&[&[102], &node, &[0, 0, 0, 5, 3]]),
        of(&[&[113], &node, &node, &[97, 2]]),
        fun.clone(),
        of(&[&[117, 0, 0, 0, 1, 103], &node, &[0, 0, 0, 1, 0, 0, 0, 2, 3], &node, &[97, 1, 97, 1, 106]]),
        of(&[&[67, 0, 0, 0, 1, 1], &node, &node, &node, &[106]]),
    ];
    let whole = of(&[&[105], &(terms.len() as u32).to_be_bytes(), &terms.concat()]);
    terms.push(of(&[&[116, 0, 0, 0, 1], &fun, &whole]));
    terms
}

fn parse(bytes: &[u8]) -> Result<Traits, TermError> {
    TermView::parse(bytes).map(TermView::traits)
}

#[test]
fn every_kind_of_term_ends_where_it_ends() {
    for term in one_of_each() {
        assert_eq!(parse(&term).err(), None, "{term:?}");
        let more = [&term[..], &[97, 1]].concat();
        let mut cursor = Cursor::new(&more);
        assert_eq!(cursor.term().unwrap().bytes(), term);
        assert_eq!(cursor.rest(), [97, 1]);
        assert_eq!(parse(&more), Err(TermError::TrailingBytes));
    }
}

#[test]
fn every_cut_is_an_error_and_no_changed_byte_a_panic() {
    for term in one_of_each() {
        for len in 0..term.len() {
            assert!(parse(&term[..len]).is_err(), "{:?}", &term[..len]);
        }
        for at in 0..term.len() {
            let mut changed = term.clone();
            for byte in 0..=255 {
                changed[at] = byte;
                if let Ok(view) = TermView::parse(&changed) {
                    _ = format!("{view:?}");
                    _ = super::super::key::canonical(view, &mut Vec::new());
                    _ = super::super::key::check_maps(view);
                }
            }
        }
    }
}

#[test]
fn what_needs_a_second_look_is_noticed_at_any_depth() {
    let cases = [
        (&[116, 0, 0, 0, 1, 97, 1, 97, 1][..], Traits::none()),
        (&[116, 0, 0, 0, 2, 97, 1, 97, 1, 97, 2, 97, 2], Traits::MAP),
        (&[90, 0, 3, 119, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Traits::none()),
        (&[90, 0, 4, 119, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Traits::V4_NC),
        (&[67, 0, 0, 0, 1, 0, 119, 0, 119, 0, 119, 0, 106], Traits::NATIVE_RECORD),
    ];
    for (term, traits) in cases {
        assert_eq!(parse(term), Ok(traits));
        assert_eq!(parse(&[&[104, 2, 106, 108, 0, 0, 0, 1][..], term, &[106]].concat()), Ok(traits));
    }
    let all = Traits::MAP.union(Traits::NATIVE_RECORD);
    assert!(all.contains(Traits::MAP) && all.intersects(Traits::MAP) && !all.contains(Traits::V4_NC));
    assert_eq!(Traits::from_bits(all.bits()), all);
}

#[test]
fn a_count_beyond_the_bytes_is_refused_at_once() {
    for head in [&[108, 255, 255, 255, 255][..], &[105, 255, 255, 255, 255], &[116, 255, 255, 255, 255]] {
        let many = [head, &[106; 100]].concat();
        assert_eq!(parse(&many), Err(TermError::Truncated));
    }
    assert_eq!(parse(&[109, 255, 255, 255, 255, 1]), Err(TermError::Truncated));
    assert_eq!(parse(&[67, 255, 255, 255, 255, 0, 119, 0, 119, 0, 119, 0]), Err(TermError::Truncated));
}

#[test]
fn depth_needs_no_stack() {
    for head in [&[104, 1][..], &[108, 0, 0, 0, 0], &[116, 0, 0, 0, 1, 106], &[105, 0, 0, 0, 1]] {
        let deep = [head.repeat(1_000_000), vec![106]].concat();
        assert!(parse(&deep).is_ok());
    }
}

#[test]
fn what_a_beam_refuses_is_refused() {
    let wrong = |bytes: &[u8]| parse(bytes).unwrap_err();
    let atom = |tag: u8, text: &[u8]| [&[tag][..], &(text.len() as u16).to_be_bytes(), text].concat();
    assert_eq!(wrong(&atom(118, &[b'a'; 256])), TermError::Atom);
    assert_eq!(wrong(&atom(100, &[b'a'; 256])), TermError::Atom);
    assert_eq!(wrong(&atom(118, "é".repeat(256).as_bytes())), TermError::Atom);
    assert_eq!(wrong(&[119, 1, 255]), TermError::Atom);
    assert!(parse(&atom(118, "🙂".repeat(255).as_bytes())).is_ok());
    assert!(parse(&atom(100, &[255; 255])).is_ok());
    assert_eq!(wrong(&[70, 127, 240, 0, 0, 0, 0, 0, 0]), TermError::Float);
    assert_eq!(wrong(&[70, 127, 248, 0, 0, 0, 0, 0, 0]), TermError::Float);
    assert_eq!(wrong(&[77, 0, 0, 0, 0, 0]), TermError::BitBinary);
    assert_eq!(wrong(&[77, 0, 0, 0, 1, 0, 1]), TermError::BitBinary);
    assert_eq!(wrong(&[77, 0, 0, 0, 1, 9, 1]), TermError::BitBinary);
    assert_eq!(wrong(&[90, 0, 6, 119, 0, 0, 0, 0, 0]), TermError::Reference);
    assert_eq!(wrong(&[101, 119, 0, 0, 4, 0, 0, 1]), TermError::Reference);
    assert_eq!(wrong(&[101, 119, 0, 0, 3, 255, 255, 4]), TermError::Creation);
    assert_eq!(wrong(&[103, 119, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]), TermError::Creation);
    assert_eq!(wrong(&[102, 119, 0, 0, 0, 0, 0, 4]), TermError::Creation);
    assert_eq!(wrong(&[113, 119, 0, 119, 0, 98, 0, 0, 0, 1]), TermError::Export);
    assert_eq!(wrong(&[67, 0, 0, 0, 0, 2, 119, 0, 119, 0]), TermError::Record);
    assert_eq!(wrong(&[131, 97, 1]), TermError::Tag(131));
    assert_eq!(wrong(&[80, 0, 0, 0, 2, 120, 156]), TermError::Tag(80));
    assert_eq!(wrong(&[]), TermError::Truncated);
    assert_eq!(Cursor::new(&[130]).version(), Err(TermError::Version(130)));
    let fun = one_of_each().swap_remove(28);
    for size in (0..=fun.len() as u32 + 8).filter(|size| *size + 1 != fun.len() as u32) {
        let mut fun = fun.clone();
        fun[1..5].copy_from_slice(&size.to_be_bytes());
        assert!(matches!(wrong(&fun), TermError::Fun | TermError::Truncated), "{size}");
    }
    let float = |text: &str| {
        let mut bytes = [0; 32];
        bytes[0] = FLOAT_EXT;
        bytes[1..=text.len()].copy_from_slice(text.as_bytes());
        parse(&bytes).is_ok()
    };
    for text in ["1.5", "+1.5", "-1.5E5", "0.0e-400", "123.25e+01"] {
        assert!(float(text), "{text}");
    }
    for text in
        ["", "1", ".5", "5.", "1.5e", " 1.5", "1.5 ", "inf", "nan", "1.0e999", "1.5e0x", "--1.5", "1.5e5.0"]
    {
        assert!(!float(text), "{text}");
    }
}

#[test]
fn an_atom_is_its_text_in_either_encoding() {
    let atom = |bytes| Cursor::new(bytes).atom().unwrap();
    let (latin1, utf8) = (atom(&[115, 1, 233]), atom(&[119, 2, 195, 169]));
    assert!(latin1 == "é" && utf8 == "é");
    assert_eq!(latin1.to_str(), utf8.to_str());
    // Latin-1 bytes that happen to be UTF-8 are still Latin-1.
    let both = atom(&[115, 2, 195, 169]);
    assert!(both != "é" && both == "Ã©");
    assert!(atom(&[100, 0, 2, b'o', b'k']) == "ok" && atom(&[119, 2, b'o', b'k']) != "okay");
}

#[test]
fn parts_are_found_where_they_are() {
    let bytes = [104, 3, 119, 1, b'a', 97, 5, 108, 0, 0, 0, 1, 106, 106];
    let term = TermView::parse(&bytes).unwrap();
    let [a, five, list] = term.as_tuple().unwrap();
    assert!(a.is_atom("a") && !a.is_atom("b") && !five.is_atom("a"));
    assert_eq!(five.as_unsigned(), Some(5));
    assert_eq!(list.bytes(), &bytes[7..]);
    assert_eq!(list.cursor().list(), Ok(1));
    assert!(term.as_tuple::<2>().is_none() && five.as_tuple::<1>().is_none() && !list.is_nil());
    assert_eq!(term.tuple_arity(), Some(3));
    let unsigned = |bytes: &[u8]| TermView::parse(bytes).unwrap().as_unsigned();
    assert_eq!(unsigned(&[98, 0, 0, 1, 0]), Some(256));
    assert_eq!(unsigned(&[98, 255, 255, 255, 255]), None);
    assert_eq!(unsigned(&[110, 9, 0, 1, 0, 0, 0, 0, 0, 0, 128, 0]), Some((1 << 63) + 1));
    assert_eq!(unsigned(&[110, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]), None);
    assert_eq!(unsigned(&[110, 1, 1, 1]), None);
    let pid = TermView::parse(&[103, 119, 1, b'n', 0, 0, 0, 1, 0, 0, 0, 2, 3]).unwrap().as_pid().unwrap();
    assert!(pid.node == "n" && (pid.id, pid.serial, pid.creation) == (1, 2, 3));
    let reference = [114, 0, 2, 119, 1, b'n', 3, 0, 0, 0, 1, 0, 0, 0, 2];
    let reference = TermView::parse(&reference).unwrap().as_reference().unwrap();
    assert_eq!((reference.creation, reference.words()), (3, &[1, 2][..]));
}
