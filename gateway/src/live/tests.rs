use super::*;
use crate::testing::{spent_file, view};
use runit_core::ledger::Lease;
use uuid::Uuid;

#[test]
fn bytes_of_a_lease_that_is_over_are_not_spent_before_anybody_has_given_them_back() {
    let (_data, file) = spent_file();
    let (refills, _asked) = mpsc::unbounded_channel();
    let id = SessionId::from_uuid(Uuid::new_v4());
    let session = Arc::new(LiveSession::new(view(id, 1), Counters::new(file, id), refills));
    let lease = |number, ttl| Lease { id: LeaseId::from_uuid(Uuid::from_u128(number)), granted: 100, ttl };
    let mut book = LeaseBook::new(id);
    let now = Instant::now();
    for (number, seconds) in [(1, 3_600), (2, 60)] {
        let lease = lease(number, Duration::from_secs(seconds));
        assert!(session.deposit(lease.granted, now + lease.ttl));
        book.add(&lease, now, Duration::ZERO);
        session.note_end(&book);
        let reservation = session.reserve(10);
        assert_eq!(reservation.bytes(), 10);
        session.spend(reservation, Direction::In, 10);
    }

    // As after a stop of more than a minute: the time is past, and the loop has not run.
    assert!(session.deposit(1, now));
    assert_eq!(session.reserve(10).bytes(), 0);
    assert_eq!(session.budget.balance().left, 181);

    session.withdrawn(book.give_back(&session.budget, now + Duration::from_secs(60), false));
    session.note_end(&book);
    assert_eq!(session.reserve(1_000).bytes(), 81, "what is left of the longer one");
}
