//! The atomics of the hot path: std's, and loom's when its model checker runs (`--cfg loom`).

#[cfg(loom)]
pub use modelled::{AtomicBool, AtomicU64};
#[cfg(loom)]
pub use std::sync::atomic::Ordering;

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

/// Loom takes `SeqCst` accesses for `AcqRel` ones, but knows `SeqCst` fences: a fence before each such access gives them
/// the total order that the language promises, and accesses with other orderings nothing. Nor does loom know that an
/// exchange comes right after the store that it read, so a store is an exchange here, whose place it knows.
#[cfg(loom)]
mod modelled {
    use loom::sync::atomic as model;
    use std::sync::atomic::Ordering;

    fn order(ordering: Ordering) -> Ordering {
        if ordering == Ordering::SeqCst {
            model::fence(Ordering::SeqCst);
        }
        ordering
    }

    /// See [`std::sync::atomic::AtomicU64`].
    #[derive(Debug, Default)]
    pub struct AtomicU64(model::AtomicU64);

    impl AtomicU64 {
        /// As std's.
        pub fn load(&self, ordering: Ordering) -> u64 {
            self.0.load(order(ordering))
        }

        /// As std's.
        pub fn store(&self, value: u64, ordering: Ordering) {
            self.0.swap(value, order(ordering));
        }

        /// As std's.
        pub fn fetch_add(&self, value: u64, ordering: Ordering) -> u64 {
            self.0.fetch_add(value, order(ordering))
        }

        /// As std's; never fails for nothing.
        ///
        /// # Errors
        /// The value found, if it is not `current`.
        pub fn compare_exchange_weak(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.0.compare_exchange(current, new, order(success), failure)
        }
    }

    /// See [`std::sync::atomic::AtomicBool`].
    #[derive(Debug, Default)]
    pub struct AtomicBool(model::AtomicBool);

    impl AtomicBool {
        /// As std's.
        pub fn load(&self, ordering: Ordering) -> bool {
            self.0.load(order(ordering))
        }

        /// As std's.
        pub fn store(&self, value: bool, ordering: Ordering) {
            self.0.swap(value, order(ordering));
        }

        /// As std's.
        pub fn swap(&self, value: bool, ordering: Ordering) -> bool {
            self.0.swap(value, order(ordering))
        }
    }
}
