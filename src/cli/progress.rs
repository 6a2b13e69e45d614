//! What a person at a terminal sees while a question, or a check, takes long.

use std::future::{Future, pending};
use std::io::{IsTerminal, stderr, stdout};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use smol::Timer;

use crate::Node;

/// What is done by then needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the bar is drawn.
const INTERVAL: Duration = Duration::from_millis(100);

/// Does `work`, a question to `target`, and shows how far it has come once it takes longer than a second. Without a terminal
/// at standard error nothing is shown.
pub(super) async fn beside<T>(node: &Node, target: &str, work: impl Future<Output = T>) -> T {
    smol::future::or(work, show(node, target)).await
}

/// Does `work`, which is to do `what` with `whom`, and shows that, and since when, once it takes longer than a second. Without
/// a terminal at standard error nothing is shown.
pub(super) async fn waiting<T>(what: &str, whom: &str, work: impl Future<Output = T>) -> T {
    let shown = async {
        if !stderr().is_terminal() {
            return pending().await;
        }
        Timer::after(PATIENCE).await;
        let bar = Bar(ProgressBar::no_length().with_elapsed(PATIENCE));
        bar.0.set_style(ProgressStyle::with_template("{msg}, {elapsed}").expect("the template is right"));
        bar.0.set_message(format!("{what} {whom}"));
        loop {
            bar.0.tick();
            Timer::after(INTERVAL).await;
        }
    };
    smol::future::or(work, shown).await
}

/// Never ends, and takes the bar away when it is dropped.
async fn show<T>(node: &Node, target: &str) -> T {
    if !stderr().is_terminal() {
        return pending().await;
    }
    Timer::after(PATIENCE).await;
    let bar = Bar(ProgressBar::no_length());
    loop {
        bar.draw(node, target);
        Timer::after(INTERVAL).await;
    }
}

struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Bar {
    fn draw(&self, node: &Node, target: &str) {
        let peer = node.snapshot().peers.into_iter().find(|peer| peer.name == target);
        let (sent, queued, received) =
            peer.map_or((0, 0, 0), |peer| (peer.sent_bytes, peer.queued_bytes, peer.received_bytes));
        // What was sent and what waits are together what there is to send. Of an answer nobody knows the size before it is
        // there.
        let template =
            if queued > 0 { "{msg} {wide_bar} {bytes} of {total_bytes}" } else { "{msg} {elapsed}" };
        self.0.set_style(ProgressStyle::with_template(template).expect("the template is right"));
        if queued > 0 {
            self.0.set_message(format!("sending to {target}"));
            self.0.set_length(sent + queued);
            self.0.set_position(sent);
        } else {
            self.0.set_message(format!("waiting for {target}, {} received,", HumanBytes(received)));
            self.0.tick();
        }
    }
}

/// Entries that come, some after the others: their number is shown at standard error, once it takes longer than a second, where that
/// is a terminal and standard output is none, or has nothing else to show.
pub(super) struct Counter {
    bar: Bar,
    /// Standard output has lines of its own.
    beside_lines: bool,
}

impl Default for Counter {
    fn default() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let template = ProgressStyle::with_template("{human_pos} entries, {elapsed}");
        bar.set_style(template.expect("the template is right"));
        Self { bar: Bar(bar), beside_lines: true }
    }
}

impl Counter {
    /// Where nothing is printed meanwhile.
    pub(super) fn on_terminal() -> Self {
        Self { beside_lines: false, ..Self::default() }
    }

    /// So many more have come.
    pub(super) fn add(&self, count: usize) {
        let bar = &self.bar.0;
        let is_free = !self.beside_lines || !stdout().is_terminal();
        if bar.is_hidden() && bar.elapsed() >= PATIENCE && stderr().is_terminal() && is_free {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.inc(count as u64);
    }
}
