use super::*;
use crate::distribution::alias_form::Addresses;

fn drain(out: &mut Outbound, step: usize) -> Vec<u8> {
    let mut written = Vec::new();
    while !out.is_empty() {
        let mut slices = Vec::new();
        out.slices(&mut slices);
        let chunk: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(step).collect();
        assert!(!chunk.is_empty(), "something waits, so something can be written");
        out.advance(chunk.len());
        written.extend(chunk);
    }
    written
}

/// For a peer with distribution headers.
fn with_headers(alias_form: AliasForm) -> Outbound {
    Outbound::new(FrameForm::DistHeader, alias_form)
}

/// One frame with an answer to an alias, and what it is on the wire in the forms of `out`.
fn answer(out: &mut Outbound) -> Vec<u8> {
    let term = |id: u8| [97, id];
    let (from, alias, to) = (term(1), term(2), term(3));
    let addresses = Addresses { from: &from, alias: &alias, to: &to };
    let open = out.begin();
    let form = out.alias_form();
    form.write(&mut out.term(), addresses);
    out.payload().atom("x");
    out.finish(open);
    let control = crate::etf::encode(|w| form.write(w, addresses));
    let frame = [out.form.head(), &control, out.form.payload_head(), &[119, 1, b'x']].concat();
    [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
}

fn fill(out: &mut Outbound) -> Vec<u8> {
    let form = out.form;
    let mut expected = Vec::new();
    for (at, shared) in [false, true, true, false].into_iter().enumerate() {
        let open = out.begin();
        out.term().integer(at as i64);
        let value = SharedBytes::from(&*vec![at as u8; 10 * at]);
        out.payload().atom("x");
        let parts = [form.head(), &[97, at as u8], form.payload_head(), &[119, 1, b'x']].concat();
        let len = parts.len() + if shared { value.len() } else { 0 };
        expected.extend_from_slice(&(len as u32).to_be_bytes());
        expected.extend_from_slice(&parts);
        if shared {
            expected.extend_from_slice(&value);
            out.finish_with_shared(open, value, None);
        } else {
            out.finish(open);
        }
    }
    expected
}

#[test]
fn what_is_queued_comes_out_in_order_whatever_the_writes_take() {
    for form in [FrameForm::PassThrough, FrameForm::DistHeader] {
        for step in [1, 7, 1000] {
            let mut out = Outbound::new(form, AliasForm::Send);
            let expected = fill(&mut out);
            assert_eq!(out.len(), expected.len());
            assert_eq!(drain(&mut out, step), expected);
        }
    }
}

#[test]
fn appending_keeps_the_order_also_when_the_first_is_half_written() {
    let (mut one, mut two) = (Outbound::default(), Outbound::default());
    let mut expected = fill(&mut one);
    expected.extend(fill(&mut two));
    one.advance(3);
    one.append(&mut two);
    assert!(two.is_empty());
    assert_eq!(drain(&mut one, 5), expected[3..]);
}

#[test]
fn frames_for_a_peer_that_was_not_known_take_the_form_of_its_connection() {
    let (mut unknown, mut out) = (Outbound::default(), with_headers(AliasForm::Send));
    let expected = fill(&mut with_headers(AliasForm::Send));
    fill(&mut unknown);
    out.append(&mut unknown);
    assert_eq!(drain(&mut out, 9), expected);
    fill(&mut unknown);
    out.tick();
    out.append(&mut unknown);
    assert_eq!(drain(&mut out, 9)[4..], expected);
}

#[test]
fn answers_for_a_peer_that_was_not_known_are_sent_as_it_takes_them() {
    for form in [FrameForm::PassThrough, FrameForm::DistHeader] {
        for alias_form in [AliasForm::AltactSigSend, AliasForm::AliasSend, AliasForm::Send] {
            let mut known = Outbound::new(form, alias_form);
            let expected = [fill(&mut known), answer(&mut known), fill(&mut known)].concat();
            assert_eq!(drain(&mut known, 1000), expected);
            // Through a queue that does not know the peer either, as while it is being connected to.
            let (mut late, mut connecting) = (Outbound::default(), Outbound::default());
            let mut out = Outbound::new(form, alias_form);
            fill(&mut late);
            answer(&mut late);
            connecting.append(&mut late);
            fill(&mut late);
            connecting.append(&mut late);
            out.append(&mut connecting);
            assert_eq!(drain(&mut out, 7), expected, "{form:?}, {alias_form:?}");
        }
    }
}
