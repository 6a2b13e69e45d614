//! A candidate alone, told what happens; the [`simulation`] has several.

pub(in crate::elect) mod simulation;

use super::*;
use simulation::{Planted, run};

const LEASE: i64 = 77;
const SECOND: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "a time to begin with, the same for all tests of a run")]
pub(in crate::elect) fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

pub(in crate::elect) fn pid(node: &str, creation: u32) -> Pid {
    Pid { node: node.into(), id: 5, serial: 0, creation }
}

fn held(mod_revision: i64, by: Pid, lease: i64) -> Option<Held> {
    Some(Held { mod_revision, by: Some(by), lease })
}

/// A candidate with what it wants done.
struct One(Candidate, Instant);

impl One {
    /// It has its lease, and knows the keys.
    fn new(held: Option<Held>) -> Self {
        let mut one = Self(Candidate::new(pid("a@h", 1), start()), start());
        assert_eq!(one.outputs(), [Output::Lease { question: 1 }]);
        one.hand(Input::Granted { question: 1, lease: Some((LEASE, start() + 4 * SECOND)) });
        one.hand(Input::Keys { revision: 9, held, former: Former::default() });
        one
    }

    fn holding() -> Self {
        let mut one = Self::new(None);
        let campaign = one.campaign().expect("the key is free");
        let answer = Campaigned::Won { revision: 10 };
        one.hand(Input::Campaigned { question: campaign.question, answer });
        let outputs = one.outputs();
        let [Output::HeldBy(Some(_)) | Output::CatchUp { .. }, ..] = outputs[..] else {
            panic!("{outputs:?}")
        };
        let question = outputs.iter().find_map(|output| match output {
            Output::CatchUp { question } => Some(*question),
            _ => None,
        });
        let question = question.expect("the key is its own");
        one.hand(Input::CaughtUp { question, is_done: true });
        assert_eq!(one.outputs(), [Output::Hold { former: Vec::new() }]);
        one
    }

    fn hand(&mut self, input: Input) {
        self.0.handle(input, self.1);
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.0.poll_output()).collect()
    }

    fn sleep(&mut self, time: Duration) {
        self.1 += time;
        self.hand(Input::Time);
    }

    fn campaign(&mut self) -> Option<Campaign> {
        self.outputs().into_iter().find_map(|output| match output {
            Output::Campaign(campaign) => Some(campaign),
            _ => None,
        })
    }

    fn dial(&mut self) -> Option<u64> {
        self.outputs().into_iter().find_map(|output| match output {
            Output::Dial { question, .. } => Some(question),
            _ => None,
        })
    }
}

#[test]
fn a_free_key_is_taken_with_a_comparison_and_the_names_behind_all_that_was_written() {
    let mut one = One::new(None);
    let campaign = one.campaign().expect("the key is free");
    assert_eq!((campaign.lease, campaign.held_was, campaign.former_was), (LEASE, 0, 0));
    assert_eq!(campaign.former, [Life::of(&pid("a@h", 1))]);
    let former = Former { mod_revision: 12, lives: vec![Life::of(&pid("b@h", 2)), Life::of(&pid("a@h", 1))] };
    // Another was faster, and is gone again.
    let answer = Campaigned::Lost { revision: 13, held: None, former };
    one.hand(Input::Campaigned { question: campaign.question, answer });
    let campaign = one.campaign().expect("the key is free");
    assert_eq!((campaign.held_was, campaign.former_was), (0, 12));
    assert_eq!(campaign.former, [Life::of(&pid("a@h", 1)), Life::of(&pid("b@h", 2))]);
    // What is older than what is known says nothing.
    one.hand(Input::Held { revision: 12, held: held(12, pid("b@h", 2), 5) });
    one.hand(Input::Campaigned { question: campaign.question, answer: Campaigned::Won { revision: 14 } });
    let outputs = one.outputs();
    let Some(Output::CatchUp { question }) = outputs.first() else { panic!("{outputs:?}") };
    assert!(!one.0.holds());
    one.hand(Input::CaughtUp { question: *question, is_done: false });
    one.sleep(PAUSE);
    let outputs = one.outputs();
    let [Output::CatchUp { question }] = outputs[..] else { panic!("{outputs:?}") };
    one.hand(Input::CaughtUp { question, is_done: true });
    assert_eq!(one.outputs(), [Output::Hold { former: vec![Life::of(&pid("b@h", 2))] }]);
    assert!(one.0.holds());
}

#[test]
fn a_holder_gives_the_names_up_before_its_lease_ends_and_takes_its_own_key_again() {
    let mut one = One::holding();
    let until = start() + 4 * SECOND;
    assert_eq!((one.0.holds_until(), one.0.poll_timeout()), (Some(until), Some(until - MARGIN)));
    // Renewed in time.
    one.sleep(3 * SECOND);
    one.hand(Input::LeaseUntil(Some(until + SECOND)));
    one.sleep(SECOND);
    assert_eq!(one.outputs(), []);
    one.sleep(SECOND - MARGIN);
    let outputs = one.outputs();
    let [Output::GiveUp { to: None, patience: Duration::ZERO, .. }, Output::HeldBy(Some(_))] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert!(!one.0.holds() && one.0.holds_until().is_none());
    one.hand(Input::LeaseUntil(None));
    let outputs = one.outputs();
    let [Output::Lease { question }] = outputs[..] else { panic!("{outputs:?}") };
    one.hand(Input::Granted { question, lease: None });
    assert_eq!(one.outputs(), []);
    one.sleep(PAUSE);
    let outputs = one.outputs();
    let [Output::Lease { question }] = outputs[..] else { panic!("{outputs:?}") };
    one.hand(Input::Granted { question, lease: Some((LEASE + 1, one.1 + 4 * SECOND)) });
    let campaign = one.campaign().expect("it is its own");
    assert_eq!((campaign.lease, campaign.held_was), (LEASE + 1, 10));
}

#[test]
fn a_holder_that_sees_the_key_of_another_gives_the_names_up() {
    let mut one = One::holding();
    let other = pid("b@h", 2);
    one.hand(Input::Held { revision: 20, held: held(20, other.clone(), 5) });
    let outputs = one.outputs();
    let [Output::Dial { .. }, Output::GiveUp { to: Some(to), .. }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!((to, one.0.holds()), (&other, false));
    one.hand(Input::Held { revision: 21, held: None });
    assert!(one.campaign().is_some());
}

#[test]
fn what_an_earlier_process_of_the_node_has_is_taken_and_not_what_a_namesake_takes() {
    // Also where another epmd has given it the same creation.
    for namesake in [pid("a@h", 8), pid("a@h", 1)] {
        // Written before this one was there.
        let mut one = One::new(held(8, pid("a@h", 7), 5));
        let campaign = one.campaign().expect("an earlier process of the node has ended");
        one.hand(Input::Campaigned { question: campaign.question, answer: Campaigned::Won { revision: 10 } });
        one.outputs();
        // Another with its name does the same.
        one.hand(Input::Held { revision: 11, held: held(11, namesake.clone(), 6) });
        let outputs = one.outputs();
        assert!(outputs.contains(&Output::Namesake(namesake)), "{outputs:?}");
        assert!(one.campaign().is_none() && !one.0.holds());
        one.sleep(SECOND);
        assert!(one.campaign().is_none(), "it is not taken back and forth");
        one.hand(Input::Held { revision: 12, held: None });
        assert!(one.campaign().is_some(), "its lease has ended");
    }
}

#[test]
fn a_holder_says_whether_its_lease_or_its_key_is_gone() {
    for (is_lease_over, lost) in
        [(true, Input::LeaseUntil(None)), (false, Input::Held { revision: 20, held: None })]
    {
        let mut one = One::holding();
        one.hand(lost);
        let given_up = one.outputs().into_iter().find_map(|output| match output {
            Output::GiveUp { is_lease_over, .. } => Some(is_lease_over),
            _ => None,
        });
        assert_eq!(given_up, Some(is_lease_over));
    }
}

#[test]
fn the_key_of_a_node_that_was_connected_and_is_gone_is_taken_over_at_once() {
    let other = pid("b@h", 2);
    let mut one = One::new(held(8, other.clone(), 5));
    let outputs = one.outputs();
    assert!(outputs.contains(&Output::HeldBy(Some(other.clone()))), "{outputs:?}");
    let Some(Output::Dial { question, node }) = outputs.first() else { panic!("{outputs:?}") };
    assert_eq!(&**node, "b@h");
    // It was never connected to: a refusal says nothing.
    one.hand(Input::NotConnected { question: *question, is_gone: true });
    assert_eq!(one.campaign(), None);
    one.sleep(SECOND);
    let question = one.dial().expect("it is tried again");
    one.hand(Input::Connected { question, creation: 2 });
    one.hand(Input::Disconnected { question });
    let question = one.dial().expect("it may be there");
    // That takes long.
    one.hand(Input::NotConnected { question, is_gone: false });
    assert_eq!(one.campaign(), None);
    one.sleep(SECOND);
    let question = one.dial().expect("it is tried again");
    one.hand(Input::NotConnected { question, is_gone: true });
    let campaign = one.campaign().expect("it is gone");
    assert_eq!(campaign.held_was, 8);
    // It was there after all, and has written the key again.
    let answer = Campaigned::Lost { revision: 30, held: held(30, other, 6), former: Former::default() };
    one.hand(Input::Campaigned { question: campaign.question, answer });
    let outputs = one.outputs();
    assert!(matches!(outputs[..], [Output::Dial { .. }]), "{outputs:?}");
}

#[test]
fn another_life_of_the_holders_node_says_that_the_holder_is_gone() {
    let mut one = One::new(held(8, pid("b@h", 2), 5));
    let question = one.dial().expect("it is looked for");
    one.hand(Input::Connected { question, creation: 3 });
    assert_eq!(one.campaign().map(|campaign| campaign.held_was), Some(8));
    // So does an own node's.
    let mut one = One::new(held(8, pid("a@h", 7), 5));
    assert_eq!(one.campaign().map(|campaign| campaign.held_was), Some(8));
}

#[test]
fn a_value_that_is_not_understood_has_its_lease_waited_for_and_without_a_lease_it_is_nobodys() {
    let strange = |lease| Some(Held { mod_revision: 8, by: None, lease });
    let mut one = One::new(strange(5));
    assert_eq!(one.outputs(), [Output::HeldBy(None)]);
    one.hand(Input::Held { revision: 11, held: None });
    assert_eq!(one.campaign().map(|campaign| campaign.held_was), Some(0));
    let mut one = One::new(strange(0));
    assert_eq!(one.campaign().map(|campaign| campaign.held_was), Some(8));
}

#[test]
fn a_campaign_whose_outcome_is_unknown_is_won_where_the_watch_says_so() {
    let mut one = One::new(None);
    let campaign = one.campaign().expect("the key is free");
    one.hand(Input::Campaigned { question: campaign.question, answer: Campaigned::Failed });
    assert_eq!(one.campaign(), None, "not at once again");
    one.hand(Input::Held { revision: 15, held: held(15, pid("a@h", 1), LEASE) });
    assert!(matches!(one.outputs()[..], [Output::CatchUp { .. }, ..]));
    let mut one = One::new(None);
    let campaign = one.campaign().expect("the key is free");
    one.hand(Input::Campaigned { question: campaign.question, answer: Campaigned::Failed });
    one.sleep(PAUSE);
    assert!(one.campaign().is_some());
}

#[test]
fn a_holder_that_leaves_revokes_its_lease_and_keeps_the_names_until_another_holds() {
    let mut one = One::holding();
    one.hand(Input::Leave);
    assert_eq!(one.outputs(), [Output::Revoke]);
    one.hand(Input::Held { revision: 11, held: None });
    assert_eq!(one.outputs(), []);
    one.hand(Input::Held { revision: 12, held: held(12, pid("b@h", 2), 5) });
    let outputs = one.outputs();
    let [Output::GiveUp { question, to: Some(_), .. }] = outputs[..] else { panic!("{outputs:?}") };
    one.hand(Input::GivenUp { question });
    assert_eq!(one.outputs(), [Output::End]);
    assert!(one.0.is_over() && one.0.poll_timeout().is_none());
    // Nobody takes them.
    let mut one = One::holding();
    one.hand(Input::Leave);
    one.outputs();
    assert_eq!(one.0.poll_timeout(), Some(start() + HANDOVER));
    one.sleep(HANDOVER);
    assert_eq!(one.outputs(), [Output::End]);
    // It does not hold.
    let mut one = One::new(None);
    one.outputs();
    one.hand(Input::Leave);
    assert_eq!(one.outputs(), [Output::Revoke, Output::End]);
}

#[test]
fn never_two_hold_and_always_one_in_the_end_whatever_happens_to_them() {
    let mut holdings = 0;
    for seed in seeds() {
        holdings += run(seed, Planted::Nothing).unwrap_or_else(|error| panic!("ELECT_SEEDS={seed}: {error}"));
    }
    assert!(holdings > 4 * seeds().count(), "{holdings}: nothing happened");
}

/// `ELECT_SEEDS=FROM..TO`, or `ELECT_SEEDS=SEED`.
fn seeds() -> std::ops::Range<u64> {
    let Ok(said) = std::env::var("ELECT_SEEDS") else { return 0..400 };
    let number = |text: &str| text.parse().expect("a number");
    match said.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&said)..number(&said) + 1,
    }
}

#[test]
fn what_is_planted_is_noticed() {
    for planted in [Planted::LeaseThatLasts, Planted::NoCompare, Planted::CutIsGone, Planted::NeverGivesUp] {
        let noticed = (0..400).filter(|seed| run(*seed, planted).is_err()).count();
        assert!(noticed > 0, "{planted:?}");
    }
}
