//! Real BEAMs as judges of the order of keys: what they sort sorts alike by [`order_key`].

#![allow(clippy::print_stderr, reason = "a failure is to be seen again")]

mod support;

use kvnode::etf::TermView;
use kvnode::etf::order::order_key;
use kvnode::etf::text::{InspectLimits, inspect};
use support::judge::Judge;
use support::on_every_otp_from;

#[test]
fn keys_sort_as_every_otp_sorts_terms() {
    on_every_otp_from(23, |otp| {
        let mut judge = Judge::start(otp, "order_beam.exs", include_str!("order_beam.exs"));
        let said = judge.line();
        let bytes = judge.read("sorted");
        let mut rest = &bytes[..];
        let mut sorted = Vec::new();
        while let Some((len, behind)) = rest.split_first_chunk::<4>() {
            let (term, behind) = behind.split_at(u32::from_be_bytes(*len) as usize);
            let term = TermView::parse(term).expect("a BEAM encodes right");
            sorted.push((term, order_key(term).expect("it has an order"), behind[0]));
            rest = &behind[1..];
        }
        assert!(sorted.len() > 6_000, "{said}");
        let (mut equal, mut wrong) = ([0; 3], Vec::new());
        for pair in sorted.windows(2) {
            let ((term, key, mark), (next, next_key, _)) = (&pair[0], &pair[1]);
            equal[usize::from(*mark)] += 1;
            let is_right = match mark {
                0 => key < next_key,
                1 => key != next_key,
                _ => key == next_key,
            };
            if !is_right {
                let show = |term: &TermView<'_>| inspect(*term, InspectLimits::LOG);
                wrong.push(format!("{mark}: {} and {}", show(term), show(next)));
            }
        }
        eprintln!("{said}: less, ==, === of neighbours: {equal:?}");
        assert!(
            wrong.is_empty(),
            "{said}: {} are wrong, as\n{}",
            wrong.len(),
            wrong[..wrong.len().min(20)].join("\n")
        );
        assert!(equal.iter().all(|count| *count > 20), "{equal:?}");
        judge.must_say("done");
    });
}
