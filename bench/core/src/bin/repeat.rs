//! `repeat CASE TIMES`: does one thing of core's so many times. `bench/instructions.py` runs it under callgrind, twice; what the
//! second run has more, divided by how much more often, is the price of one.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use runit_bench_core::{
    MIB, NOW, POLICY, TOKEN, address, full_budget, full_ledger, lease_book, lease_request, locked_session,
    pass_one_byte, presented,
};
use runit_core::permit::authorize;
use runit_core::{AccessToken, LockMode, SecretHash};

type Case = (&'static str, fn() -> Box<dyn FnMut()>);

const CASES: [Case; 9] = [
    ("token_hash", || Box::new(|| done(AccessToken::parse(black_box(TOKEN)).map(|token| token.hash())))),
    ("authorize_by_token", || request(None, TOKEN, 1)),
    ("authorize_by_cookie", || request(Some("cookie"), "Jupyter's", 1)),
    ("authorize_wrong_token", || request(None, "guess", 1)),
    ("authorize_wrong_address", || request(None, TOKEN, 2)),
    ("reserve_and_spend", || {
        let budget = full_budget();
        Box::new(move || pass_one_byte(&budget))
    }),
    ("attribute_of_4", || {
        let (budget, mut book) = (full_budget(), lease_book(4, Instant::now()));
        Box::new(move || {
            pass_one_byte(&budget);
            book.attribute(&budget);
        })
    }),
    ("ledger_standing", || {
        let ledger = full_ledger();
        Box::new(move || done(black_box(&ledger).standing(10_240 * MIB)))
    }),
    // With the copy that each grant is made on, so that all are the same.
    ("ledger_grant", || {
        let (full, request) = (full_ledger(), lease_request(99));
        Box::new(move || done(full.clone().grant(black_box(&request), u64::MAX, &POLICY, NOW)))
    }),
];

fn request(cookie: Option<&str>, token: &str, from: u8) -> Box<dyn FnMut()> {
    let (session, presented) = (locked_session(), presented(cookie, token));
    assert_eq!(presented.tokens.len(), 1);
    assert!(session.lock.as_ref().is_some_and(|lock| lock.token == SecretHash::of(TOKEN)));
    Box::new(move || {
        done(authorize(black_box(&session), black_box(&presented), address(from), LockMode::Exact));
    })
}

/// Keeps the compiler from leaving it out.
fn done<T>(result: T) {
    let _ = black_box(result);
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let case = arguments.first().and_then(|name| CASES.iter().find(|(case, _)| case == name));
    let times = arguments.get(1).and_then(|times| times.parse::<u32>().ok());
    let (Some((_, case)), Some(times)) = (case, times) else {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::FAILURE;
    };
    let mut case = case();
    (0..times).for_each(|_| case());
    ExitCode::SUCCESS
}
