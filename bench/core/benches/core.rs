//! What core costs where it is asked most often: once a request, once a read or write, once a lease.
//!
//! Every input is fixed, so two runs measure the same work. `yardstick` is a plain atomic addition: a machine's noise
//! moves it as well, so ratios to it say more than nanoseconds do. `bench/README.md` says how to read the numbers.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion};
use runit_bench_core::{
    MIB, NOW, POLICY, TOKEN, WANT, address, full_budget, full_ledger, lease_book, lease_id, lease_request,
    locked_session, pass_one_byte, presented, session_id,
};
use runit_core::budget::Budget;
use runit_core::ledger::LeaseReport;
use runit_core::permit::authorize;
use runit_core::{AccessToken, LockMode};

/// Ledgers that are made at a time, so that they are as near as one that was just loaded: 160 KB together.
const BATCH: BatchSize = BatchSize::NumIterations(16);

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    yardstick(&mut criterion);
    token(&mut criterion);
    permit(&mut criterion);
    budget(&mut criterion);
    attribution(&mut criterion);
    ledger(&mut criterion);
    criterion.final_summary();
}

fn yardstick(criterion: &mut Criterion) {
    let counter = AtomicU64::new(0);
    criterion.bench_function("yardstick/fetch_add", |b| b.iter(|| counter.fetch_add(1, Ordering::SeqCst)));
}

/// A renter's token, from the text in a header to what is looked up: once or twice a request.
fn token(criterion: &mut Criterion) {
    criterion.bench_function("token/parse_and_hash", |b| {
        b.iter(|| AccessToken::parse(black_box(TOKEN)).map(|token| token.hash()));
    });
}

/// The decision on a request: once a request.
fn permit(criterion: &mut Criterion) {
    let session = locked_session();
    let by_token = presented(None, TOKEN);
    // What JupyterLab's page sends: our cookie, and a header of its own that is not ours.
    let by_cookie = presented(Some("cookie"), "Jupyter's");
    let wrong = presented(None, "guess");
    let (home, elsewhere) = (address(1), address(2));
    let mut group = criterion.benchmark_group("authorize");
    for (name, presented, from) in [
        ("by_token", &by_token, home),
        ("by_cookie", &by_cookie, home),
        ("wrong_token", &wrong, home),
        ("wrong_address", &by_token, elsewhere),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| authorize(black_box(&session), black_box(presented), black_box(from), LockMode::Exact));
        });
    }
    group.finish();
}

/// The meter: once a read or write of a socket.
fn budget(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("budget");
    let budget = full_budget();
    group.bench_function("reserve_and_spend", |b| b.iter(|| pass_one_byte(&budget)));
    let empty = Budget::default();
    group.bench_function("reserve_of_nothing", |b| b.iter(|| black_box(&empty).reserve(WANT).bytes()));
    // Each of two threads passes as many bytes as asked for, on one session: the time of the slower one.
    group.bench_function("reserve_and_spend_by_two_threads", |b| {
        b.iter_custom(|iterations| {
            let budget = full_budget();
            let start = Barrier::new(2);
            let timed = || {
                start.wait();
                let begun = Instant::now();
                (0..iterations).for_each(|_| pass_one_byte(&budget));
                begun.elapsed()
            };
            thread::scope(|scope| {
                let other = scope.spawn(timed);
                let mine = timed();
                mine.max(other.join().expect("nothing in it panics"))
            })
        });
    });
    group.finish();
}

/// Which lease spent bytes belong to: twice a second for each active session, and before each lease.
fn attribution(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lease_book");
    for leases in [1, 4] {
        let budget = full_budget();
        let mut book = lease_book(leases, Instant::now());
        group.bench_function(format!("spend_and_attribute_of_{leases}"), |b| {
            b.iter(|| {
                pass_one_byte(&budget);
                book.attribute(&budget);
            });
        });
    }
    group.finish();
}

/// The durable ledger's rules, without the store: a few times a second for each active session.
fn ledger(criterion: &mut Criterion) {
    let full = full_ledger();
    let request = lease_request(99);
    let report = |closing| LeaseReport {
        lease: lease_id(0),
        session: session_id(),
        sequence: 2,
        bytes_in: 10,
        bytes_out: 1000,
        closing,
    };
    let mut group = criterion.benchmark_group("ledger_of_288_buckets");
    group.bench_function("grant", |b| {
        b.iter_batched_ref(|| full.clone(), |ledger| ledger.grant(black_box(&request), u64::MAX, &POLICY, NOW), BATCH);
    });
    for (name, report) in [("report", report(false)), ("report_closing", report(true))] {
        group.bench_function(name, |b| {
            b.iter_batched_ref(|| full.clone(), |ledger| ledger.report(black_box(&report), NOW), BATCH);
        });
    }
    group.bench_function("standing", |b| b.iter(|| black_box(&full).standing(10_240 * MIB)));
    group.finish();
}
