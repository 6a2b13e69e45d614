use super::*;

/// A message that was skipped, as [`receive`] gives it.
fn shown(head: &[u8], bytes: usize, bound: Bound) -> Vec<u8> {
    [format!("{} ", TooLarge { bytes, bound }).as_bytes(), head].concat()
}

/// Receives bytes in reads of `step` at most; gives the contents of what arrived, a tick as nothing.
fn receive(inbound: &mut Inbound, bytes: &[u8], step: usize) -> Result<Vec<Vec<u8>>, FrameError> {
    let (mut rest, mut got) = (bytes, Vec::new());
    while !rest.is_empty() {
        let mut read = 0;
        for room in inbound.rooms() {
            let len = room.len().min(rest.len()).min(step - read);
            room[..len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
            read += len;
        }
        inbound.filled(read);
        while let Some(arrival) = inbound.next_arrival()? {
            got.push(match arrival {
                Arrival::Tick => Vec::new(),
                Arrival::Frame(range) => inbound.slice(range).to_vec(),
                Arrival::Large(frame) => frame.to_vec(),
                Arrival::Skipped(skipped) => shown(&skipped.head, skipped.size.bytes, skipped.size.bound),
            });
        }
    }
    Ok(got)
}

fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    [&(contents.len() as u32).to_be_bytes()[..], &contents].concat()
}

fn message(form: FrameForm, contents: &[u8]) -> Vec<u8> {
    framed(&[form.head(), contents])
}

/// The frames of a message in fragments of `len` bytes.
fn fragments(sequence: u64, contents: &[u8], len: usize) -> Vec<Vec<u8>> {
    let parts: Vec<&[u8]> = contents.chunks(len).collect();
    let fragment = |(at, part): (usize, &&[u8])| {
        let (sequence, number) = (sequence.to_be_bytes(), ((parts.len() - at) as u64).to_be_bytes());
        match at {
            0 => framed(&[&[131, 69], &sequence, &number, &[0], part]),
            _ => framed(&[&[131, 70], &sequence, &number, part]),
        }
    };
    parts.iter().enumerate().map(fragment).collect()
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + seed + at / 251) as u8).collect()
}

#[test]
fn frames_and_ticks_come_out_as_they_went_in_whatever_the_reads_were() {
    for form in [FrameForm::PassThrough, FrameForm::DistHeader] {
        let large = pattern(600_000, 1);
        let mut sent = message(form, b"one");
        sent.extend_from_slice(&[0; 4]);
        sent.extend(message(form, &large));
        sent.extend(message(form, b"three"));
        for step in [1, 3, 4096, 70_000, sent.len()] {
            let mut inbound = Inbound::new(&[], form, 1 << 20);
            let got = receive(&mut inbound, &sent, step).expect("good frames");
            assert_eq!(got, [b"one".to_vec(), Vec::new(), large.clone(), b"three".to_vec()], "{step}");
        }
    }
}

#[test]
fn mixed_fragments_come_out_as_whole_messages_when_their_last_one_is_here() {
    let (one, two) = (pattern(200_000, 1), pattern(90_000, 2));
    let mut sent = Vec::new();
    let (ones, twos) = (fragments(1, &one, 65_536), fragments(u64::MAX, &two, 30_000));
    assert_eq!((ones.len(), twos.len()), (4, 3));
    for (at, one) in ones.iter().enumerate() {
        sent.extend_from_slice(one);
        sent.extend(message(FrameForm::DistHeader, &[at as u8]));
        sent.extend_from_slice(twos.get(at).map_or(&[0; 4], |frame| frame));
    }
    // The sequence is used again.
    sent.extend(fragments(1, &two, 65_536).concat());
    sent.extend(fragments(1, b"a single one", 100).concat());
    let expected = [&[0][..], &[1], &[2], &two, &one, &[3], &[], &two, b"a single one"].map(<[u8]>::to_vec);
    for step in [1, 5, 4096, 70_000, sent.len()] {
        let mut inbound = Inbound::new(&[], FrameForm::DistHeader, 1 << 20);
        assert_eq!(receive(&mut inbound, &sent, step).expect("good frames"), expected, "{step}");
        assert!(inbound.fragments.is_empty());
    }
}

#[test]
fn what_is_left_of_a_message_that_its_sender_gave_up_is_dropped() {
    let mut sent = fragments(7, &[1; 100], 60).remove(0);
    sent.extend(fragments(7, b"anew", 2).concat());
    let mut inbound = Inbound::new(&[], FrameForm::DistHeader, 1 << 20);
    assert_eq!(receive(&mut inbound, &sent, 9), Ok(vec![b"anew".to_vec()]));
    assert!(inbound.fragments.is_empty());
}

#[test]
fn fragments_out_of_turn_and_too_many_of_them_are_refused() {
    let receive_all = |frames: &[Vec<u8>], limits: InboundLimits| {
        receive(&mut Inbound::new(&[], FrameForm::DistHeader, limits), &frames.concat(), 4096)
    };
    let limits =
        InboundLimits { frame_bytes_max: 1000, unfinished_bytes_max: 1500, unfinished_messages_max: 8 };
    let good = fragments(5, &[0; 900], 300);
    assert_eq!(receive_all(&good, limits).map(|got| got.len()), Ok(1));
    for (frames, error) in [
        (vec![good[1].clone()], FrameError::Fragment { sequence: 5, number: 2, expected: None }),
        (
            vec![good[0].clone(), good[2].clone()],
            FrameError::Fragment { sequence: 5, number: 1, expected: Some(2) },
        ),
        (
            // Of nothing there are as many as one likes, and each costs memory.
            (0..9).map(|sequence| fragments(sequence, &[0; 3], 1).remove(0)).collect(),
            FrameError::UnfinishedMessages { messages_max: 8 },
        ),
        (
            // What is skipped has its place too.
            (0..9).map(|sequence| fragments(sequence, &[0; 3000], 600).remove(0)).collect(),
            FrameError::UnfinishedMessages { messages_max: 8 },
        ),
        (
            vec![fragments(5, &[0; 1500], 600)[0].clone(), fragments(5, &[0; 1500], 600)[2].clone()],
            FrameError::Fragment { sequence: 5, number: 1, expected: Some(2) },
        ),
        (
            vec![framed(&[&[131, 69], &[0; 16], &[0], b"x"])],
            FrameError::Fragment { sequence: 0, number: 0, expected: None },
        ),
        (vec![framed(&[&[131, 69], &[0; 8], &1_u64.to_be_bytes(), &[3], b"x"])], FrameError::AtomCache(3)),
        (vec![framed(&[&[131, 68, 3], b"x"])], FrameError::AtomCache(3)),
        (
            vec![framed(&[&[131, 69], b"x"])],
            FrameError::Head { form: FrameForm::DistHeader, first: [131, 69] },
        ),
        (
            vec![framed(&[&[112, 131], b"x"])],
            FrameError::Head { form: FrameForm::DistHeader, first: [112, 131] },
        ),
    ] {
        assert_eq!(receive_all(&frames, limits), Err(error));
    }
}

#[test]
fn a_claimed_length_takes_no_memory() {
    for form in [FrameForm::PassThrough, FrameForm::DistHeader] {
        let mut inbound = Inbound::new(&[], form, 1 << 30);
        let mut claim = (1_u32 << 29).to_be_bytes().to_vec();
        claim.extend(form.head());
        claim.extend([0; 1000]);
        assert_eq!(receive(&mut inbound, &claim, 100), Ok(Vec::new()));
        assert!(inbound.capacity() < 16 << 10, "{}", inbound.capacity());
    }
    let mut inbound = Inbound::new(&[], FrameForm::DistHeader, 1 << 30);
    let claim = framed(&[&[131, 69], &[0; 8], &1000_u64.to_be_bytes(), &[0], &[7; 1000]]);
    assert_eq!(receive(&mut inbound, &claim, 100), Ok(Vec::new()));
    assert!(inbound.capacity() < 16 << 10, "{}", inbound.capacity());
}

/// Every size of a read that may matter: those around a head, those of what is read straight, and all at once.
fn steps(all: usize) -> impl Iterator<Item = usize> {
    (1..40).chain([1000, STRAIGHT_BYTES - 1, STRAIGHT_BYTES, 70_000, all])
}

#[test]
fn a_frame_over_the_bound_is_skipped_at_its_place() {
    for form in [FrameForm::PassThrough, FrameForm::DistHeader] {
        for len in [1001, 5000, 90_000, 400_000] {
            let large = pattern(len - form.head().len(), 1);
            let sent = [&message(form, b"one")[..], &message(form, &large), &[0; 4], &message(form, b"two")]
                .concat();
            let head = &large[..large.len().min(HEAD_BYTES)];
            let expected = [b"one".to_vec(), shown(head, len, Bound::Frame(1000)), vec![], b"two".to_vec()];
            for step in steps(sent.len()) {
                let mut inbound = Inbound::new(&[], form, 1000);
                assert_eq!(receive(&mut inbound, &sent, step), Ok(expected.to_vec()), "{len} by {step}");
                assert!(inbound.capacity() <= KEEP_BYTES, "{}", inbound.capacity());
            }
        }
    }
}

#[test]
fn fragments_over_the_bound_of_a_message_are_skipped_whether_that_is_known_at_once_or_not() {
    let limits =
        InboundLimits { frame_bytes_max: 1000, unfinished_bytes_max: 5000, unfinished_messages_max: 8 };
    let (large, small) = (pattern(9000, 1), pattern(900, 2));
    // 1. Known at the first; 2. it alone is too long; 3. the second is longer than the first said.
    let claimed = fragments(1, &large, 600);
    let single = fragments(2, &large, 9000);
    let number = |number: u64| [&2_u64.to_be_bytes()[..], &number.to_be_bytes()].concat();
    let grown = [
        framed(&[&[131, 69], &number(2), &[0], &large[..10]]),
        framed(&[&[131, 70], &number(1), &large[10..]]),
    ];
    for sent in [&claimed[..], &single, &grown] {
        let others = fragments(7, &small, 100);
        let mut mixed = Vec::new();
        for at in 0..sent.len().max(others.len()) {
            mixed.extend(sent.get(at).into_iter().chain(others.get(at)).flatten());
            mixed.extend(message(FrameForm::DistHeader, &[at as u8]));
        }
        for step in steps(mixed.len()) {
            let mut inbound = Inbound::new(&[], FrameForm::DistHeader, limits);
            let got = receive(&mut inbound, &mixed, step).expect("good frames");
            let is_large = |got: &&Vec<u8>| got.len() > 1;
            let arrived: Vec<&Vec<u8>> = got.iter().filter(is_large).collect();
            let skipped = shown(&large, 9000, Bound::Frame(1000));
            assert_eq!(arrived.len(), 2, "{step}");
            assert!(arrived.contains(&&skipped) && arrived.contains(&&small), "{step}");
            assert_eq!(got.len(), 2 + sent.len().max(others.len()));
            assert!(inbound.fragments.is_empty());
        }
    }
    let mut inbound = Inbound::new(&[], FrameForm::DistHeader, limits);
    let hopeless = framed(&[&[131, 69], &[0; 8], &[255; 8], &[0], b"xy"]);
    assert_eq!(receive(&mut inbound, &hopeless, 100), Ok(vec![]), "it never ends, and costs its beginning");
    let anew = fragments(0, b"anew", 2).concat();
    assert_eq!(receive(&mut inbound, &anew, 7), Ok(vec![b"anew".to_vec()]));
    assert!(inbound.fragments.is_empty());
}

#[test]
fn past_the_bound_of_all_unfinished_messages_the_newest_is_skipped() {
    let limits =
        InboundLimits { frame_bytes_max: 100_000, unfinished_bytes_max: 150_000, unfinished_messages_max: 8 };
    let messages: Vec<Vec<u8>> = (0..4).map(|seed| pattern(60_000, seed)).collect();
    let frames: Vec<Vec<Vec<u8>>> =
        messages.iter().zip(0..).map(|(message, sequence)| fragments(sequence, message, 9000)).collect();
    // In turn, as processes of a BEAM send them.
    let sent: Vec<u8> =
        (0..frames[0].len()).flat_map(|at| frames.iter().flat_map(move |one| one[at].clone())).collect();
    let bound = Bound::Unfinished(150_000);
    let expected = [
        messages[0].clone(),
        messages[1].clone(),
        shown(&messages[2], 60_000, bound),
        shown(&messages[3], 60_000, bound),
    ];
    for step in steps(sent.len()) {
        let mut inbound = Inbound::new(&[], FrameForm::DistHeader, limits);
        assert_eq!(receive(&mut inbound, &sent, step), Ok(expected.to_vec()), "{step}");
        assert!(inbound.fragments.is_empty());
    }
}

#[test]
fn what_is_skipped_costs_its_beginning_and_of_very_many_little_of_that() {
    let limits =
        InboundLimits { frame_bytes_max: 1000, unfinished_bytes_max: 1000, unfinished_messages_max: 1 << 16 };
    let mut inbound = Inbound::new(&[], FrameForm::DistHeader, limits);
    let heads = skipped::HEADS_BYTES / HEAD_BYTES;
    for sequence in 0..heads as u64 + 500 {
        let first = fragments(sequence, &[7; 140_000], 70_000).remove(0);
        assert_eq!(receive(&mut inbound, &first, first.len()), Ok(vec![]));
    }
    let bytes_max = skipped::HEADS_BYTES + 500 * skipped::SHORT_HEAD_BYTES + KEEP_BYTES;
    assert!(inbound.capacity() <= bytes_max, "{} over {bytes_max}", inbound.capacity());
    for sequence in 0..heads as u64 + 500 {
        let last = fragments(sequence, &[7; 140_000], 70_000).remove(1);
        let head = if sequence < heads as u64 { HEAD_BYTES } else { skipped::SHORT_HEAD_BYTES };
        let got = receive(&mut inbound, &last, last.len());
        assert_eq!(got, Ok(vec![shown(&vec![7; head], 140_000, Bound::Frame(1000))]));
    }
    assert!(inbound.fragments.is_empty() && inbound.capacity() <= KEEP_BYTES);
}

#[test]
fn the_newest_is_found_at_once_among_very_many() {
    let limits = InboundLimits {
        frame_bytes_max: 1000,
        unfinished_bytes_max: 60_000,
        unfinished_messages_max: 1 << 16,
    };
    let mut inbound = Inbound::new(&[], FrameForm::DistHeader, limits);
    // Each of the later ones is the newest, and one too many.
    let begun: Vec<u8> = (0..65_000).flat_map(|sequence| fragments(sequence, &[7; 3], 1).remove(0)).collect();
    assert_eq!(receive(&mut inbound, &begun, 1 << 20), Ok(vec![]));
    assert!(inbound.fragments.is_skipped(64_999) && !inbound.fragments.is_skipped(59_999));
}

#[test]
fn no_cut_and_no_change_of_bytes_panics_or_takes_memory() {
    let limits =
        InboundLimits { frame_bytes_max: 300, unfinished_bytes_max: 500, unfinished_messages_max: 4 };
    let mut sent = message(FrameForm::DistHeader, &[1; 400]);
    for at in 0..4 {
        for (sequence, len) in [(1, 100), (2, 90), (3, 120)] {
            sent.extend(&fragments(sequence, &pattern(len * 4, 3), len)[at]);
        }
    }
    for at in 0..sent.len() {
        let mut inbound = Inbound::new(&[], FrameForm::DistHeader, limits);
        assert!(receive(&mut inbound, &sent[..at], 7).is_ok(), "cut at {at}");
        for byte in [0, 1, 68, 69, 70, 131, 255] {
            let mut changed = sent.clone();
            changed[at] = byte;
            for form in [FrameForm::DistHeader, FrameForm::PassThrough] {
                let mut inbound = Inbound::new(&[], form, limits);
                let _whatever = receive(&mut inbound, &changed, 64);
                assert!(inbound.capacity() < 4 * (REST_BYTES + sent.len()), "{}", inbound.capacity());
            }
        }
    }
}

#[test]
fn a_frame_of_another_form_is_refused_however_long_it_is() {
    for len in [1, 101] {
        let mut inbound = Inbound::new(&[0, 0, 0, len, 131, 0], FrameForm::PassThrough, 100);
        let head = FrameError::Head { form: FrameForm::PassThrough, first: [131, 0] };
        assert_eq!(inbound.next_arrival(), Err(head), "{len}");
    }
}
