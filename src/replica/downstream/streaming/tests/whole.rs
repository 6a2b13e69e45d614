//! When a slave of the Elixir kind has everything: it is sent no mark that says so.

use std::cell::Cell;

use super::*;

/// Keys that lie in parts, each its own value, and the number of the last write.
struct Parts(Vec<Vec<Vec<u8>>>, Cell<u64>);

impl Parts {
    const fn new(keys: Vec<Vec<Vec<u8>>>) -> Self {
        Self(keys, Cell::new(7))
    }
}

impl Source for Parts {
    fn parts(&self) -> usize {
        self.0.len()
    }

    fn keys(&self, part: usize, _since: u64, show: &mut dyn FnMut(&[u8])) -> SourceRead {
        self.0[part].iter().for_each(|key| show(key));
        SourceRead::Shown
    }

    fn read(&self, key: &[u8], show: &mut dyn FnMut(PresentValue<'_>)) -> SourceRead {
        let is_there = self.0.iter().flatten().any(|known| known == key);
        let present = Present { value: key, traits: Traits::none(), revision: 5, deadline: 0 };
        show(is_there.then_some(present));
        SourceRead::Shown
    }

    fn in_order(&self, run: &mut dyn FnMut()) {
        run();
    }

    fn seq(&self) -> u64 {
        self.1.get()
    }

    fn lineage(&self) -> Lineage {
        lineage()
    }

    fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }
}

impl Line<'_> {
    /// All that is due is done, and each answer comes before the next step. Gives how often it was asked.
    fn settled_step_by_step(&mut self) -> usize {
        self.carry_out();
        let mut asked = 0;
        for _ in 0..100 {
            if let Some(mark) = self.taken().1 {
                asked += 1;
                self.acknowledged(mark);
            } else if self.slave.poll_timeout().is_none_or(|due| due > self.now) {
                return asked;
            }
            self.hand(Input::Timeout);
        }
        panic!("it goes on for ever");
    }
}

#[test]
fn what_is_acknowledged_before_the_end_of_a_copy_is_confirmed_with_that_end() {
    let source = Parts::new(vec![vec![atom("k")], Vec::new()]);
    let mut line = Line::new(&source, 1 << 20);
    line.slave.want(7);
    line.found(1);
    assert!(line.swept(None));
    assert_eq!(line.settled_step_by_step(), 2, "of the key, and of the end");
    assert_eq!(line.slave.confirmed(), 7);
    assert_eq!(line.slave.stream_due(), None, "and then nothing more");
}

#[test]
fn a_store_that_has_nothing_is_confirmed_by_a_slave_that_has_nothing() {
    let source = Parts::new(vec![Vec::new()]);
    let mut line = Line::new(&source, 1 << 20);
    line.slave.want(7);
    line.found(1);
    assert!(line.swept(None));
    assert_eq!((line.settled_step_by_step(), line.slave.confirmed()), (1, 7));
}

#[test]
fn a_write_that_no_message_tells_of_is_confirmed_with_what_came_before_it() {
    let source = Parts::new(vec![Vec::new()]);
    let mut line = Line::new(&source, 1 << 20);
    line.found(1);
    assert!(line.swept(None));
    line.settled_step_by_step();
    // Of the deletion it is told; then all keys are to be compared.
    line.slave.push(8, delete(&atom("k")));
    line.slave.want(8);
    let mark = line.taken().1.expect("asked at once");
    line.slave.want(9);
    source.1.set(9);
    line.hand(Input::CopyAll);
    line.repair();
    assert!(line.swept(None));
    line.repair();
    assert_eq!(line.slave.confirmed(), 7);
    line.acknowledged(mark);
    assert_eq!(line.slave.confirmed(), 9);
    assert_eq!(line.settled_step_by_step(), 0, "it is not asked again");
}
