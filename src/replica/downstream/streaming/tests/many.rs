//! Writes of several keys.

use super::*;

#[test]
fn a_write_of_several_keys_goes_whole_to_a_kvnode_and_key_by_key_to_others() {
    let [k, l] = ["k", "l"].map(atom);
    let source = OneKey(k.clone());
    let mut told = Vec::new();
    let mut line = Line::new(&source, 1 << 20);
    line.greeted(1, GreetingAnswer::Taken(said()));
    let session = line.greetings[0];
    line.settled();
    line.slave.push_many(8, &[put(&k, &k), delete(&l)], |pushed| told.push(pushed));
    line.slave.push_many(9, &[put(&k, &k)], |pushed| told.push(pushed));
    line.slave.push_many(10, &[], |pushed| told.push(pushed));
    assert_eq!(
        line.taken().0,
        [
            format!("{{:\"$gen_cast\", {{:replica_many, {session}, 8, [{{5, :k, :k}}, {{:l}}]}}}}"),
            format!("{{:\"$gen_cast\", {{:replica_put, {session}, 9, 5, :k, :k}}}}"),
        ]
    );
    assert_eq!(told, [Pushed::Ready, Pushed::Ready]);

    let mut line = Line::new(&source, 1 << 20);
    line.found(1);
    line.swept(None);
    line.settled();
    line.slave.push_many(8, &[put(&k, &k), delete(&l)], |_| {});
    let sent = line.taken().0;
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(sent[0].contains("replicate_put") && sent[1].contains("replicate_delete"), "{sent:?}");

    // What it is not sent it lacks key by key.
    line.gone();
    told.clear();
    line.slave.push_many(9, &[put(&k, &k), put(&l, &k)], |pushed| told.push(pushed));
    assert_eq!(told, [Pushed::Kept, Pushed::Kept]);
}

#[test]
fn a_slave_that_has_a_part_of_a_write_of_several_keys_has_the_write_before() {
    let [k, l] = ["k", "l"].map(atom);
    let source = OneKey(k.clone());
    let mut line = Line::new(&source, 1 << 20);
    line.found(1);
    line.swept(None);
    line.settled();
    line.slave.push_many(9, &[put(&k, &k), put(&l, &k)], |_| {});
    let Phase::Streaming { stream, .. } = &mut line.slave.phase else { panic!("it is followed") };
    let seqs: Vec<Option<u64>> = (0..2)
        .map(|_| {
            stream.log.send().expect("it waits");
            stream.log.sent_seq()
        })
        .collect();
    assert_eq!(seqs, [Some(8), Some(9)]);
}
