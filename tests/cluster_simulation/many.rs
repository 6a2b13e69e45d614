//! Many seeds, on all cores.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::run;
use super::world::Counts;

/// Every so many seeds one is run twice: what it does comes from the seed alone.
const TWICE: u64 = 20;

/// Says which seed it was, when the run fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "how the failure is seen again")]
            {
                eprintln!("seed: KVNODE_SIMULATION_FIRST={} KVNODE_SIMULATION_SEEDS=1", self.0);
            }
        }
    }
}

/// What has come of many seeds.
pub struct Ran {
    pub counts: Counts,
    pub seeds: u64,
    /// The time that all threads together were on a core.
    pub took: Duration,
}

/// How many seeds are run.
pub enum Until {
    Seeds(u64),
    /// As many as there is time for.
    Over(Duration),
}

/// How often it is said how far it is, where it takes as long as somebody wants it to.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Runs seeds from one on. Ends soon after the first that fails.
pub fn run_all(first: u64, until: &Until, start: Instant) -> Ran {
    #[expect(clippy::disallowed_methods, reason = "how long it takes is told")]
    let elapsed = {
        let begun = Instant::now();
        move || begun.elapsed()
    };
    let is_over = |at: u64| match until {
        Until::Seeds(seeds) => at >= *seeds,
        Until::Over(time) => elapsed() >= *time,
    };
    let told = AtomicU64::new(0);
    let tell = |at: u64| {
        let due = told.load(Ordering::Relaxed) + TOLD_EVERY.as_secs();
        let now = elapsed().as_secs();
        let is_mine = now >= due && told.swap(now, Ordering::Relaxed) < now;
        if matches!(until, Until::Over(_)) && is_mine {
            print(&format!("{at} seeds in {now} s: {:.0} a second", at as f64 / now as f64));
        }
    };
    let (next, has_failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let one = || {
        let mut ran = Ran { counts: Counts::default(), seeds: 0, took: Duration::ZERO };
        let begun = thread_time();
        while !has_failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if is_over(at) {
                break;
            }
            tell(at);
            let seed = Seed(first + at);
            let failing = Failing(&has_failed);
            let end = run(seed.0, start, &mut ran.counts);
            if seed.0.is_multiple_of(TWICE) {
                let again = run(seed.0, start, &mut Counts::default());
                assert_eq!(end, again, "the same seed went another way");
            }
            std::mem::forget(failing);
            ran.seeds += 1;
        }
        ran.took = thread_time().saturating_sub(begun);
        ran
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let mut sum = Ran { counts: Counts::default(), seeds: 0, took: Duration::ZERO };
        for one in all {
            let ran = one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sum.counts.add(&ran.counts);
            sum.took += ran.took;
            sum.seeds += ran.seeds;
        }
        sum
    })
}

/// The time that this thread was on a core, where the system says.
fn thread_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// For those that run it by hand.
pub fn print(text: &str) {
    #[expect(clippy::print_stderr, reason = "nothing else shows it")]
    {
        eprintln!("{text}");
    }
}

/// A run that ends by a panic: the others need not go on.
struct Failing<'a>(&'a AtomicBool);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
