use super::*;
use crate::distribution::control::op;
use crate::distribution::{Arrival, ControlMessage, Inbound};
use crate::etf::{Cursor, Pid, Reference, SharedBytes, TermWriter};

const FORMS: [FrameForm; 2] = [FrameForm::PassThrough, FrameForm::DistHeader];
const PIECES: Cut = Cut { whole_bytes_max: 100_000, fragment_bytes: 30_000 };

fn ours(id: u32) -> Pid {
    Pid { node: "k@h".into(), id, serial: 0, creation: 1 }
}

fn theirs(id: u32) -> Pid {
    Pid { node: "m@h".into(), id, serial: 0, creation: 1 }
}

/// How a message of ours is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Pid,
    Alias,
    Name,
}

/// A message to process `to` of the peer, from our process 1: its number and `len` bytes.
fn write(out: &mut Outbound, to: u32, by: By, number: u32, len: usize, shared: bool) {
    let open = out.begin();
    let mut term = out.term();
    match by {
        By::Pid => term.tuple(3).unsigned(op::SEND).atom("").pid(&theirs(to)),
        By::Alias => {
            let alias = Reference { node: "m@h".into(), creation: 1, words: vec![number, to, 3] };
            term.tuple(3).unsigned(op::ALIAS_SEND).pid(&ours(1)).reference(&alias)
        }
        By::Name => term.tuple(4).unsigned(op::REG_SEND).pid(&ours(1)).atom("").atom("name"),
    };
    let body = vec![number as u8; len];
    out.payload().tuple(3).unsigned(u64::from(to)).unsigned(u64::from(number));
    if shared {
        let to = (by == By::Alias).then_some((to, 0));
        let value = crate::etf::encode(|w| _ = w.binary(&body));
        return out.finish_with_shared(open, SharedBytes::from(value), to);
    }
    TermWriter::new(out.tail_for_tests()).binary(&body);
    match by {
        By::Alias => out.finish_for(open, (to, 0)),
        By::Pid | By::Name => out.finish(open),
    }
}

/// Writes at most `most` bytes of what is ready to the other side; gives the messages that are whole there by then,
/// each its receiver and its number.
fn flow(outflow: &mut Outflow, inbound: &mut Inbound, most: usize) -> Vec<(u32, u32)> {
    let Some(ready) = outflow.ready() else { return Vec::new() };
    let mut slices = Vec::new();
    ready.slices(&mut slices);
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(most).collect();
    outflow.advance(bytes.len());
    let (mut rest, mut got) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let mut len = 0;
        for room in inbound.rooms() {
            let here = room.len().min(rest.len());
            room[..here].copy_from_slice(&rest[..here]);
            rest = &rest[here..];
            len += here;
        }
        inbound.filled(len);
        while let Some(arrival) = inbound.next_arrival().expect("good frames") {
            let contents = match &arrival {
                Arrival::Frame(range) => inbound.slice(range.clone()),
                Arrival::Large(frame) => &frame[..],
                Arrival::Tick => continue,
                Arrival::Skipped(skipped) => panic!("{skipped:?} is within the bounds"),
            };
            let mut cursor = Cursor::new(contents);
            ControlMessage::parse(&mut cursor).expect("a control message");
            if inbound.form() == FrameForm::PassThrough {
                cursor.version().expect("a payload");
            }
            assert_eq!(cursor.tuple(), Ok(3));
            let (to, number) = (cursor.unsigned().expect("a pid"), cursor.unsigned().expect("a number"));
            let body = cursor.binary().expect("bytes");
            assert!(body.iter().all(|byte| *byte == number as u8) && cursor.rest().is_empty());
            got.push((to as u32, number as u32));
        }
    }
    got
}

fn pair(form: FrameForm) -> (Outflow, Inbound) {
    (Outflow::new(form, AliasForm::AliasSend, 1 << 20, 1 << 30), Inbound::new(&[], form, 1 << 30))
}

fn drain(outflow: &mut Outflow, inbound: &mut Inbound) -> Vec<(u32, u32)> {
    let mut got = Vec::new();
    while !outflow.is_empty() {
        got.extend(flow(outflow, inbound, 10_000));
    }
    got
}

#[test]
fn small_answers_pass_a_large_one_but_for_those_to_its_receiver() {
    for by in [By::Pid, By::Alias] {
        let (mut outflow, mut inbound) = pair(FrameForm::DistHeader);
        outflow.set_cut(PIECES);
        write(outflow.fresh(), 1, by, 1, 400_000, true);
        for (to, number) in [(1, 2), (2, 3), (1, 4), (3, 5)] {
            write(outflow.fresh(), to, by, number, 10, false);
        }
        outflow.settle();
        // The first fragment may be on its way by then.
        let _begun = flow(&mut outflow, &mut inbound, 10);
        write(outflow.fresh(), 2, by, 6, 10, false);
        write(outflow.fresh(), 1, by, 7, 10, false);
        outflow.settle();
        let got = drain(&mut outflow, &mut inbound);
        assert_eq!(got, [(2, 3), (3, 5), (2, 6), (1, 1), (1, 2), (1, 4), (1, 7)], "{by:?}");
    }
}

#[test]
fn what_may_be_for_the_receiver_of_a_large_message_waits_too() {
    let (mut outflow, mut inbound) = pair(FrameForm::DistHeader);
    outflow.set_cut(PIECES);
    write(outflow.fresh(), 1, By::Pid, 1, 400_000, false);
    // The process with that name may be the first or the second.
    write(outflow.fresh(), 9, By::Name, 2, 10, false);
    write(outflow.fresh(), 2, By::Pid, 3, 10, false);
    outflow.settle();
    outflow.tick();
    assert_eq!(drain(&mut outflow, &mut inbound), [(1, 1), (9, 2), (2, 3)]);
    // A large message to a name is one of another process of ours to nobody else.
    write(outflow.fresh(), 9, By::Name, 4, 400_000, false);
    write(outflow.fresh(), 2, By::Alias, 5, 10, false);
    outflow.settle();
    assert_eq!(drain(&mut outflow, &mut inbound), [(9, 4), (2, 5)]);
}

#[test]
fn everything_comes_as_it_went_in_and_in_order_whatever_the_writes_take() {
    let mut state = 1_u64;
    let mut below = move |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    for round in 0..60 {
        let form = FORMS[round % 2];
        let (mut outflow, mut inbound) = pair(form);
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for number in 0..60 {
            let (to, len) = (below(5) as u32, [5, 1000, 70_000, 200_000][below(4) as usize]);
            let by = [By::Pid, By::Alias, By::Alias, By::Name][below(4) as usize];
            let shared = below(2) == 0;
            sent.push((to, number, by));
            if below(3) == 0 {
                let mut frames = Outbound::default();
                write(&mut frames, to, by, number, len, shared);
                outflow.push(&mut frames);
            } else {
                write(outflow.fresh(), to, by, number, len, shared);
                outflow.settle();
            }
            if below(4) == 0 {
                let whole_bytes_max = below(300_000) as usize;
                outflow.set_cut(Cut { whole_bytes_max, fragment_bytes: 500 + below(80_000) as usize });
            }
            got.extend(flow(&mut outflow, &mut inbound, 1 + below(100_000) as usize));
        }
        got.extend(drain(&mut outflow, &mut inbound));
        assert_eq!((outflow.len(), outflow.others_len(), outflow.room()), (0, 0, Room::FREE));
        assert_eq!((outflow.waiting.kept, outflow.barriers.len(), outflow.receivers.len()), (0, 0, 0));
        // What goes to a name may be for anyone: it is in order with everything.
        for to in 0..5 {
            let is_named = |number: u32| sent[number as usize].2 == By::Name;
            let of = |(one, number): &(u32, u32)| *one == to || is_named(*number);
            let got: Vec<u32> = got.iter().filter(|at| of(at)).map(|(_, number)| *number).collect();
            let sent = sent.iter().map(|(to, number, _)| (*to, *number));
            let sent: Vec<u32> = sent.filter(of).map(|(_, number)| number).collect();
            assert_eq!(got, sent, "round {round}, process {to}, {form:?}");
        }
    }
}

#[test]
fn a_value_that_a_store_has_takes_no_room() {
    let (mut outflow, _) = pair(FrameForm::DistHeader);
    let stored: Vec<SharedBytes> = (0..4).map(|_| SharedBytes::from(vec![1; 600_000])).collect();
    for (to, value) in stored.iter().enumerate() {
        let open = outflow.fresh().begin();
        outflow.fresh().term().tuple(3).unsigned(op::SEND).atom("").pid(&theirs(to as u32));
        outflow.fresh().finish_with_shared(open, value.clone(), None);
        outflow.settle();
    }
    assert_eq!(outflow.room(), Room::FREE, "the store has them");
    drop(stored);
    outflow.exclusive = Exclusive::default();
    assert_eq!(outflow.room(), Room { small: true, large: false }, "nobody else has them");
    assert!(outflow.len() >= 2_400_000);
}

#[test]
fn large_answers_in_any_number_are_bounded_and_leave_in_order() {
    let (mut outflow, _) = pair(FrameForm::DistHeader);
    let stored = SharedBytes::from(vec![1; 70_000]);
    let mut count = 0_u32;
    while outflow.room().small {
        count += 1;
        let open = outflow.fresh().begin();
        outflow.fresh().term().tuple(3).unsigned(op::SEND).atom("").pid(&theirs(count % 3));
        outflow.fresh().finish_with_shared(open, stored.clone(), None);
        outflow.settle();
    }
    assert_eq!(count as usize, outflow.bytes_max / KEPT_COST);
    let mut left = 0;
    while let Some(ready) = outflow.ready() {
        let len = ready.len();
        left += len;
        outflow.advance(len);
    }
    assert!(left > count as usize * 70_000 && outflow.is_empty() && outflow.room() == Room::FREE);
}

/// Small answers of very many receivers, behind one frame whose receiver is not known.
#[test]
fn very_many_receivers_cost_each_what_a_few_do() {
    const RECEIVERS: u32 = 200_000;
    let (mut outflow, mut inbound) = pair(FrameForm::DistHeader);
    outflow.set_cut(PIECES);
    write(outflow.fresh(), 1, By::Pid, 1, 400_000, false);
    write(outflow.fresh(), 9, By::Name, 2, 10, false);
    outflow.settle();
    #[expect(clippy::disallowed_methods, reason = "a bound that only what is quadratic is over")]
    let began = std::time::Instant::now();
    for to in 0..RECEIVERS {
        write(outflow.fresh(), 10 + to, By::Pid, 3, 10, false);
        outflow.settle();
    }
    let got = drain(&mut outflow, &mut inbound);
    assert_eq!(got.len(), RECEIVERS as usize + 2);
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}
