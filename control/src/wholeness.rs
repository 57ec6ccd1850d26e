//! What a ledger must agree with, whichever store it is in.

use runit_core::ledger::{Ledger, Usage};
use runit_core::session::Session;

/// What is wrong with a session's ledger, given the sum of its usage records, deleted ones too.
pub(crate) fn problem_of(session: &Session, ledger: &Ledger, records: &Usage) -> Option<&'static str> {
    if ledger.charged() > session.cap_bytes {
        return Some("over the cap");
    }
    (ledger.total != *records).then_some("other than the sum of its records")
}
