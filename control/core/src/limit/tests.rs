use super::*;
use proptest::prelude::*;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

fn limit(requests: u32, window_ms: u64) -> Limit {
    Limit { requests, window: Duration::from_millis(window_ms) }
}

#[test]
fn a_request_comes_free_exactly_a_window_after_it_was_admitted() {
    let mut log = SlidingLog::new(limit(2, 100));
    assert!(log.admit(&"a", at(0)).admitted);
    assert!(log.admit(&"a", at(60)).admitted);
    let refused = log.admit(&"a", at(99));
    assert_eq!((refused.admitted, refused.remaining, refused.next_free), (false, 0, Duration::from_millis(1)));
    assert!(log.admit(&"a", at(100)).admitted, "a window later");
    assert!(!log.admit(&"a", at(159)).admitted, "the second one still counts");
}

#[test]
fn the_answer_says_what_is_left_and_when_more_comes() {
    let mut log = SlidingLog::new(limit(3, 100));
    let first = log.admit(&"a", at(10));
    assert_eq!((first.remaining, first.next_free), (2, Duration::from_millis(100)));
    let second = log.admit(&"a", at(40));
    assert_eq!((second.remaining, second.next_free), (1, Duration::from_millis(70)));
}

#[test]
fn a_refusal_is_worth_an_event_once_in_a_window() {
    let mut log = SlidingLog::new(limit(1, 100));
    log.admit(&"a", at(0));
    let worth: Vec<_> = [10, 20, 99].map(|ms| log.admit(&"a", at(ms)).first_refusal).into();
    assert_eq!(worth, [true, false, false]);
    assert!(log.admit(&"a", at(100)).admitted);
    assert!(!log.admit(&"a", at(109)).first_refusal, "the window of the first report is not over");
    assert!(log.admit(&"a", at(110)).first_refusal);
}

#[test]
fn a_clock_that_steps_back_admits_nobody() {
    let mut log = SlidingLog::new(limit(1, 100));
    assert!(log.admit(&"a", at(1_000)).admitted);
    assert!(!log.admit(&"a", at(0)).admitted);
    assert!(log.admit(&"a", at(1_100)).admitted);
}

#[test]
fn what_is_forgiven_was_never_there_and_the_rest_still_counts() {
    let mut log = SlidingLog::new(limit(2, 100));
    let honest = log.admit(&"a", at(0));
    assert!(log.admit(&"a", at(50)).admitted);
    log.forgive(&"a", honest.at);
    log.forgive(&"a", at(7));
    assert!(log.admit(&"a", at(60)).admitted);
    assert!(!log.admit(&"a", at(149)).admitted, "the one at 50 is still in the window");
    assert!(log.admit(&"a", at(150)).admitted);
}

#[test]
fn a_shared_log_forgives_too() {
    let mut log = SlidingLog::with_capacity(limit(1, 100), 1);
    assert!(log.admit(&"first", at(0)).admitted);
    let shared = log.admit(&"second", at(1));
    assert!(shared.admitted && !log.admit(&"third", at(2)).admitted);
    log.forgive(&"second", shared.at);
    assert!(log.admit(&"third", at(3)).admitted);
}

#[test]
fn another_limit_counts_what_was_admitted_before() {
    let mut log = SlidingLog::new(limit(1, 100));
    assert!(log.admit(&"a", at(0)).admitted);
    log.set_limit(limit(2, 100));
    assert!(log.admit(&"a", at(1)).admitted && !log.admit(&"a", at(2)).admitted);
}

#[test]
fn a_full_table_refuses_newcomers_too_much_and_old_keys_nothing() {
    let mut log = SlidingLog::with_capacity(limit(2, 100), 4);
    for key in 0..4 {
        assert!(log.admit(&key, at(0)).admitted);
    }
    assert_eq!([10, 11, 12].map(|key| log.admit(&key, at(1)).admitted), [true, true, false], "one overflow log");
    assert!((0..4).all(|key| log.admit(&key, at(2)).admitted), "keys that were there before");
    assert!(log.logs.len() <= 4);
    assert!(!log.admit(&10, at(100)).admitted, "free slots do not let one out of its overflow log early");
    assert!(log.admit(&12, at(101)).admitted);
}

/// All that was admitted, and a check over every window that begins at an admission.
#[derive(Default)]
struct Oracle {
    admitted: HashMap<u8, Vec<u64>>,
}

impl Oracle {
    fn admits(&self, key: u8, now: u64, limit: Limit) -> bool {
        let past = self.admitted.get(&key).map_or(&[][..], Vec::as_slice);
        let in_window = past.iter().filter(|&&at| now - at < millis(limit.window)).count();
        in_window < limit.requests as usize
    }

    fn most_in_any_window(&self, window: u64) -> usize {
        let in_window =
            |times: &Vec<u64>, start: u64| times.iter().filter(|&&t| t >= start && t - start < window).count();
        self.admitted.values().flat_map(|times| times.iter().map(|&start| in_window(times, start))).max().unwrap_or(0)
    }
}

proptest! {
    /// Steps are drawn so that admissions often fall exactly on, one before or one after a window's end.
    #[test]
    fn with_room_for_all_it_decides_as_the_brute_force_oracle_does(
        requests in 1_u32..5,
        steps in prop::collection::vec((0_u8..4, prop::sample::select(vec![0_u64, 1, 7, 49, 50, 51, 99, 100, 101])), 1..200),
    ) {
        let limit = limit(requests, 100);
        let (mut log, mut oracle, mut now) = (SlidingLog::with_capacity(limit, 16), Oracle::default(), 0);
        for (key, step) in steps {
            now += step;
            let expected = oracle.admits(key, now, limit);
            prop_assert_eq!(log.admit(&key, at(now)).admitted, expected);
            if expected {
                oracle.admitted.entry(key).or_default().push(now);
            }
        }
    }

    #[test]
    fn without_room_it_still_never_admits_more_than_the_limit(
        requests in 1_u32..5,
        capacity in 1_usize..40,
        steps in prop::collection::vec((any::<u8>(), prop::sample::select(vec![0_u64, 0, 0, 1, 2, 49, 99, 100])), 1..400),
    ) {
        let limit = limit(requests, 100);
        let (mut log, mut oracle, mut now) = (SlidingLog::with_capacity(limit, capacity), Oracle::default(), 0);
        for (key, step) in steps {
            now += step;
            let key = key % 64;
            if log.admit(&key, at(now)).admitted {
                prop_assert!(oracle.admits(key, now, limit));
                oracle.admitted.entry(key).or_default().push(now);
            }
            prop_assert!(log.logs.len() <= capacity);
        }
        prop_assert!(oracle.most_in_any_window(100) <= requests as usize);
    }
}
