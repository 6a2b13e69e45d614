//! A store that answers later, as a repair reads it: held against what its slaves are to have by then.

use kvnode::replica::{Lineage, PresentValue, Source, SourceRead};

use super::node::Served;
use super::shelf::number;

pub struct InTurn<'a>(pub &'a dyn Served);

impl Source for InTurn<'_> {
    fn parts(&self) -> usize {
        self.0.source().parts()
    }

    fn keys(&self, part: usize, since: u64, show: &mut dyn FnMut(&[u8])) -> SourceRead {
        self.0.source().keys(part, since, show)
    }

    fn read(&self, key: &[u8], show: &mut dyn FnMut(PresentValue<'_>)) -> SourceRead {
        let source = self.0.source();
        source.read(key, &mut |value| {
            let (seq, key) = (source.seq(), number(key));
            let (read, held) =
                (value.map(|value| number(value.value)), self.0.data_at(seq).get(&key).copied());
            assert_eq!(
                read, held,
                "of key {key}, where the last write that the slaves were told of is {seq}"
            );
            show(value);
        })
    }

    fn in_order(&self, run: &mut dyn FnMut()) {
        self.0.source().in_order(run);
    }

    fn seq(&self) -> u64 {
        self.0.source().seq()
    }

    fn revision(&self) -> u64 {
        self.0.source().revision()
    }

    fn lineage(&self) -> Lineage {
        self.0.source().lineage()
    }

    fn len(&self) -> usize {
        self.0.source().len()
    }
}
