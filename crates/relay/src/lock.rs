//! Mutexes that survive a panic of whoever held them: every guarded state here is consistent
//! between statements, and one broken task must not take its neighbours along.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever happened to an earlier holder.
pub(crate) trait Lock<T> {
    /// The guard; never held across an await.
    fn hold(&self) -> MutexGuard<'_, T>;
}

impl<T> Lock<T> for Mutex<T> {
    fn hold(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
