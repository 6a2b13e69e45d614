//! `{:backup, path}`: a backup that a caller has the store write.

use std::sync::Arc;

use super::KeyValueServer;
use super::reason::write_result;
use super::server::refuse;
use crate::etf::TermView;
use crate::process::{Caller, Turn};
use crate::store::{Done, Store};

impl<S: Store> KeyValueServer<S> {
    pub(super) fn call_backup(&self, path: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let Some(path) = path.as_binary().and_then(|path| str::from_utf8(path).ok()) else {
            return refuse(&"a backup's path is a binary", caller, &self.watch, turn);
        };
        let later = || {
            let (caller, dispatch) = (caller.to_owned(&turn.me.pid), Arc::clone(&self.dispatch));
            let figures = Arc::clone(&self.watch);
            Box::new(move |result| caller.reply(&*dispatch, |w| write_result(w, &result, &figures))) as Done
        };
        if let Some(result) = self.store().backup(path, later) {
            turn.reply(caller, |w| write_result(w, &result, &self.watch));
        }
    }
}
