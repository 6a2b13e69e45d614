//! Promotions, and the primaries that they supersede.

use super::*;

fn stepped_down(outputs: &[Output]) -> bool {
    let Answer::Greeted { stepped_down, .. } = reply(outputs) else { panic!("it was taken") };
    stepped_down
}

#[test]
fn a_former_primary_with_slaves_says_so_until_it_is_up_to_date() {
    let mut upstream = upstream();
    let with_slaves = Around { has_slaves: true, ..FREE };
    let outputs = greet(&mut upstream, greeting(1, &[1], 1), with_slaves).expect("it is taken");
    assert!(stepped_down(&outputs) && outputs.iter().any(|output| matches!(output, Output::GiveUp)));
    // The answer was lost, and its slaves are the new primary's by now.
    assert!(stepped_down(&greet(&mut upstream, greeting(1, &[1], 2), FREE).expect("it is taken")));
    mark(&mut upstream, 2, CopyMark::Whole, 10);
    assert!(!stepped_down(&greet(&mut upstream, greeting(1, &[1], 3), FREE).expect("it is taken")));
    // The store that is promoted next does not know it.
    assert!(stepped_down(&greet(&mut upstream, greeting(2, &[2], 4), FREE).expect("it is taken")));
}

#[test]
fn one_that_is_promoted_after_a_restart_has_no_place_among_the_writes_of_its_former_primary() {
    let position = Some(Position { primary: 1, applied: 12 });
    let before = Membership { was_slave: true, position, ..Membership::default() };
    let mut upstream = started_again(&before, OWN);
    let promoted = hand(&mut upstream, Input::Promote { reports: false });
    assert!(matches!(logs(&promoted)[..], [Event::Promoted { former: None, term: 1, .. }]), "{promoted:?}");
    let around = Around { is_empty: false, ..FREE };
    let greeted = greet(&mut upstream, greeting(7, &[1], 1), around).expect("it is a slave");
    assert_eq!(had(&greeted), (None, 0), "else what it has written would stay");
}

#[test]
fn a_promotion_is_one_note_and_takes_over_what_the_primary_had() {
    let mut upstream = upstream();
    let [global, remote] = [ServerRef::global("kv"), ServerRef::remote("kv", "p@h")];
    let slave = KnownSlave { name: ServerRef::remote("kv", "s@h"), node: None };
    let names = vec![global.clone(), remote.clone()];
    let primary = Greeting { names, slaves: vec![slave.clone()], ..greeting(0, &[1], 1) };
    greet(&mut upstream, primary.clone(), FREE).expect("it is a slave");
    mark(&mut upstream, 1, CopyMark::Whole, 12);
    let promoted = hand(&mut upstream, Input::Promote { reports: false });
    let event = Event::Promoted { former: Some(primary.pid.clone()), term: 1, seq: 12, is_elected: false };
    assert_eq!(
        promoted,
        [
            Output::RenewAll,
            Output::Log(event),
            Output::Leave { primary: primary.pid, session: 1 },
            Output::AddDownstream(slave),
            Output::AddDownstream(KnownSlave { name: remote, node: Some("p@h".into()) }),
            Output::ClaimName(global.clone()),
            Output::Persist { changed: Changed::Promotion, then: Some(Answer::Ok) },
        ]
    );
    let durable = upstream.durable();
    assert_eq!((durable.rank(), durable.role, durable.was_slave), ((1, OWN), TermRole::Promoted, false));
    assert_eq!(durable.names_taken, [global]);
    // Its former primary, which finds its name here, is its slave; nobody is that of a store that was not promoted.
    let pid = greeting(0, &[1], 1).pid;
    let offered = hand(&mut upstream, Input::Offer(pid.clone()));
    assert!(offered.contains(&Output::AddDownstream(as_slave(&[], &pid))));
    assert_eq!(reply(&offered), Answer::Ok);
    let offered = hand(&mut self::upstream(), Input::Offer(pid));
    assert_eq!(offered, [Output::Reply(Answer::Error("not_promoted"))]);
}

#[test]
fn a_primary_that_is_refused_is_adopted_where_it_belongs_to_this_store() {
    let owner = Membership { term: 2, promoted: OWN, role: TermRole::Promoted, ..Membership::default() };
    let mut upstream = Upstream::new(OWN, owner.clone(), false);
    let adopted = |upstream: &mut Upstream, greeting: Greeting, around: Around| {
        let outputs = hand(upstream, Input::Hello(greeting, around));
        assert_eq!(reply(&outputs), Answer::Error("superseded"));
        outputs.iter().any(|output| matches!(output, Output::AddDownstream(_)))
    };
    let orphan = |promoted| Greeting {
        lineage: Lineage { term: 2, promoted, path: Lineage::of_orphan(9).into(), family: FAMILY },
        ..greeting(2, &[9], 1)
    };
    assert!(adopted(&mut upstream, orphan(OWN), FREE), "it has followed this promotion");
    assert!(!adopted(&mut upstream, orphan(OWN - 1), FREE), "and not that of another");
    assert!(!adopted(&mut upstream, greeting(1, &[9], 1), FREE), "it has nothing to do with this store");
    let shares_name = Around { shares_name: true, ..FREE };
    assert!(adopted(&mut upstream, greeting(1, &[9], 1), shares_name), "one whose name was taken over");
    let is_slave = Around { is_greeted_by_slave: true, ..shares_name };
    assert!(!adopted(&mut upstream, greeting(1, &[9], 1), is_slave), "it is a slave already");
    // A slave of the promoted store has nobody to adopt.
    let follows = Membership { role: TermRole::Follows, ..owner };
    assert!(!adopted(&mut started_again(&follows, OWN), greeting(1, &[9], 1), shares_name));
}

/// What is done with a primary of term 1 and of this family.
fn superseded(upstream: &mut Upstream, family: u64) -> Vec<Output> {
    let primary = greeting(1, &[9], 1);
    let lineage = Lineage { family, ..primary.lineage.clone() };
    let mut outputs = hand(upstream, Input::Hello(Greeting { lineage, ..primary }, FREE));
    assert_eq!(reply(&outputs), Answer::Error("superseded"));
    outputs.retain(|output| !matches!(output, Output::Reply(_) | Output::Log(_)));
    outputs
}

#[test]
fn a_primary_of_an_older_term_and_of_the_family_becomes_a_slave_whomever_it_greets() {
    let itself = as_slave(&[], &greeting(1, &[9], 1).pid);
    let owner = Membership {
        term: 2,
        promoted: OWN,
        role: TermRole::Promoted,
        family: FAMILY,
        ..Membership::default()
    };
    let mut upstream = Upstream::new(OWN, owner.clone(), false);
    assert_eq!(superseded(&mut upstream, FAMILY), [Output::AddDownstream(itself.clone())]);
    assert_eq!(superseded(&mut upstream, FAMILY + 1), []);
    let handed_up = hand(&mut upstream, Input::Superseded(itself.clone()));
    assert_eq!(handed_up.last(), Some(&Output::AddDownstream(itself.clone())), "by a slave");
    // Once it is one, nothing more is said.
    hand(&mut upstream, Input::SlavesAre(vec![itself.clone()]));
    assert_eq!(hand(&mut upstream, Input::Superseded(itself.clone())), []);

    // A slave has its own primary do that, and so on to the first.
    let mut slave = self::upstream();
    greet(&mut slave, greeting(2, &[PROMOTED], 4), FREE).expect("it is a slave");
    let primary = greeting(2, &[PROMOTED], 4);
    let hand_up = Output::HandUp { primary: primary.pid.clone(), session: 4, superseded: itself.clone() };
    assert_eq!(superseded(&mut slave, FAMILY).as_slice(), std::slice::from_ref(&hand_up));
    assert_eq!(superseded(&mut slave, FAMILY + 1), []);
    assert_eq!(hand(&mut slave, Input::Superseded(itself.clone())), [hand_up]);
    down(&mut slave, &primary);
    assert_eq!(superseded(&mut slave, FAMILY), [], "nobody is there");
}

#[test]
fn a_family_is_kept_over_restarts_and_left_where_a_primary_removes_its_slave() {
    let mut primary = upstream();
    assert_eq!((primary.lineage().family, primary.durable().family), (OWN, 0));
    hand(
        &mut primary,
        Input::SlavesAre(vec![as_slave(&[ServerRef::global("a")], &greeting(0, &[1], 1).pid)]),
    );
    assert_eq!(started_again(primary.durable(), OWN + 1).lineage().family, OWN, "its slaves know it by that");
    greet(&mut primary, greeting(0, &[1], 1), FREE).expect("it is a slave");
    assert_eq!(started_again(primary.durable(), OWN + 1).lineage().family, FAMILY);
    hand(&mut primary, Input::Bye { session: 1 });
    assert_eq!(started_again(primary.durable(), OWN + 1).lineage().family, OWN);
}

#[test]
fn of_two_that_were_promoted_apart_from_each_other_one_yields() {
    let promoted = |incarnation| {
        let mut upstream = Upstream::new(incarnation, Membership::default(), false);
        let around = Around { is_empty: false, ..FREE };
        greet(&mut upstream, greeting(0, &[1], 1), around).expect("it is a slave");
        assert!(!upstream.durable().must_export);
        assert_eq!(reply(&hand(&mut upstream, Input::Promote { reports: false })), Answer::Ok);
        upstream
    };
    let hello = |of: &Upstream| Greeting { lineage: of.lineage(), ..greeting(0, &[of.incarnation()], 2) };
    let (mut low, mut high) = (promoted(3), promoted(4));
    let around = Around { has_slaves: true, ..FREE };
    assert_eq!(greet(&mut high, hello(&low), around), Err("superseded"));
    low.greeting(true);
    let yields = greet(&mut low, hello(&high), around).expect("the other is higher");
    let stepped_down = |answer| matches!(answer, Answer::Greeted { stepped_down: true, .. });
    assert!(is_demoted(&yields) && stepped_down(reply(&yields)));
    assert!(low.durable().must_export, "it may have writes that the other has not");
    assert_eq!(low.lineage(), Lineage { term: 1, promoted: 4, path: vec![4, 3], family: FAMILY });
    // Their slaves follow, though the primary that they have is there.
    let mut slave = upstream();
    greet(&mut slave, greeting(0, &[1], 1), FREE).expect("it is a slave");
    greet(&mut slave, hello(&promoted(3)), FREE).expect("it is a slave");
    assert!(greet(&mut slave, hello(&high), FREE).is_ok_and(|outputs| !is_demoted(&outputs)));
    assert_eq!(greet(&mut slave, hello(&promoted(3)), FREE), Err("superseded"));
    assert!(!slave.durable().must_export);
}

#[test]
fn of_an_own_promotion_nobody_else_is_the_primary_and_of_anothers_not_who_has_followed_it() {
    let was_slave = Membership { was_slave: true, ..Membership::default() };
    let mut owner = Upstream::new(OWN, was_slave, false);
    assert_eq!(reply(&hand(&mut owner, Input::Promote { reports: false })), Answer::Ok);
    let around = Around { is_empty: false, ..FREE };
    // Its role is kept over a restart, which gives another incarnation.
    let mut owner = started_again(owner.durable(), OWN + 1);
    assert!(owner.is_owner() && !owner.lineage().is_orphan());
    let of = |lineage: Lineage| Greeting { lineage, ..greeting(1, &[9], 1) };
    let mut slave = upstream();
    greet(&mut slave, of(owner.lineage()), FREE).expect("it is a slave");
    assert_eq!(slave.lineage().path, [OWN + 1, OWN]);
    // The slave is started again: it is the primary of nobody, neither of the owner nor of others.
    let started = OWN + 2;
    let durable = slave.durable().clone();
    let mut slave = started_again(&durable, started);
    assert!(slave.lineage().is_orphan());
    assert_eq!(slave.lineage().incarnation(), started);
    assert_eq!(greet(&mut owner, of(slave.lineage()), around), Err("superseded"));
    assert_eq!(greet(&mut upstream(), of(slave.lineage()), FREE), Err("superseded"));
    // Also while it greets others itself, it takes the primary above it; what its slaves are there is told apart.
    slave.greeting(true);
    let higher = Lineage { path: vec![started + 1], ..owner.lineage() };
    let greeted = greet(&mut slave, of(higher), around).expect("it is a slave again");
    assert!(is_demoted(&greeted) && !logs(&greeted).iter().any(|event| matches!(event, Event::Demoted(_))));
    assert!(!slave.lineage().is_orphan());
    // The primary that has removed it has no claim to it any more.
    hand(&mut slave, Input::Bye { session: 1 });
    assert!(!slave.lineage().is_orphan() && slave.durable().role == TermRole::None);
    assert_eq!(greet(&mut owner, of(slave.lineage()), around), Err("superseded"));
    // An orphan can be promoted, whatever it has, and is the primary then.
    let mut orphan = started_again(&durable, started);
    assert_eq!(reply(&hand(&mut orphan, Input::Promote { reports: false })), Answer::Ok);
    assert!(orphan.is_owner());
    assert!(greet(&mut owner, of(orphan.lineage()), around).is_ok_and(|outputs| is_demoted(&outputs)));
    assert!(!owner.is_owner());
}

#[test]
fn what_a_slave_that_was_started_again_drops_after_a_promotion_is_told() {
    for was_slave in [false, true] {
        let before = Membership { was_slave, ..Membership::default() };
        let mut upstream = started_again(&before, OWN);
        let around = Around { is_empty: false, ..FREE };
        let greeted = greet(&mut upstream, greeting(1, &[PROMOTED], 1), around).expect("it is a slave");
        assert!(logs(&greeted).iter().any(|event| matches!(event, Event::Demoted(_))));
        // It may have been written to while it had no primary.
        assert!(upstream.durable().must_export);
        mark(&mut upstream, 1, CopyMark::Begin, 3);
        let copy = upstream.durable().copies;
        assert_eq!(mark(&mut upstream, 1, CopyMark::End, 4), [Output::SwapIn { copy, export: true }]);
        assert_eq!(hand(&mut upstream, Input::CopyIsIn { copy }).len(), 1, "to be kept once");
        assert!(upstream.durable().was_slave && !upstream.durable().must_export);
        assert!(mark(&mut upstream, 1, CopyMark::Whole, 5).is_empty());
    }
}
