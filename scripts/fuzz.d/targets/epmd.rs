//! Any requests to the epmd daemon, from near and far: afterwards it still answers NAMES_REQ, and only those that are
//! near have changed anything.

#![no_main]

use kvnode::epmd::protocol::{Asker, Next, Registry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let names =
        |registry: &mut Registry| registry.answer(Asker { connection: u32::MAX, local: false }, b"n").answer;
    let mut registry = Registry::new(4369, false, 7);
    let nobody = names(&mut registry);
    assert_eq!(nobody[..4], 4369_u32.to_be_bytes());
    let mut near = false;
    for (connection, part) in data.split(|&byte| byte == 0xff).enumerate() {
        let Some((&kind, request)) = part.split_first() else { continue };
        let asker = Asker { connection: connection as u32, local: kind % 2 == 0 };
        // The shell passes on no empty request.
        if request.is_empty() {
            continue;
        }
        near |= asker.local;
        let outcome = registry.answer(asker, request);
        if outcome.next == Next::Keep && kind % 3 == 0 {
            registry.closed(asker.connection);
        }
    }
    assert!(near || names(&mut registry) == nobody, "somebody far has changed something");
});
