//! The switch lock: names, and the inodes that they lead to, are read under its read side and
//! change only under its write side.
//!
//! Invariants, checked in debug builds by a mark on the thread that holds the lock:
//! - A thread takes the lock once at a time. A second read waits behind a writer that waits for the
//!   first one, and both wait for ever.
//! - Code that may take other locks in an order of its own, wait for something, start a task or
//!   talk to the kernel does not run under the lock. It says so with [`assert_not_held`].
//!
//! A guard cannot leave its thread, so no task holds the lock while it awaits something.
//!
//! Used by the file system of a mount; here, because nothing here may be called under it.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

thread_local! {
    static HELD_BY_THIS_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Panics in a debug build if this thread holds a switch lock. `doing` names what must not be done
/// under it.
#[track_caller]
pub fn assert_not_held(doing: &str) {
    if cfg!(debug_assertions) {
        assert!(
            !HELD_BY_THIS_THREAD.get(),
            "{doing}: not while this thread holds the switch lock"
        );
    }
}

/// A value behind a switch lock.
#[derive(Debug, Default)]
pub struct SwitchLock<T>(RwLock<T>);

impl<T> SwitchLock<T> {
    /// Looks at the value. Other threads may look too.
    #[track_caller]
    pub fn read(&self) -> SwitchGuard<RwLockReadGuard<'_, T>> {
        let mark = HeldMark::set();
        SwitchGuard {
            value: self.0.read(),
            _mark: mark,
        }
    }

    /// Changes the value, alone.
    #[track_caller]
    pub fn write(&self) -> SwitchGuard<RwLockWriteGuard<'_, T>> {
        let mark = HeldMark::set();
        SwitchGuard {
            value: self.0.write(),
            _mark: mark,
        }
    }
}

/// One side of the lock, held.
pub struct SwitchGuard<G> {
    // Dropped before the mark.
    value: G,
    _mark: HeldMark,
}

impl<G: Deref> Deref for SwitchGuard<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.value
    }
}

impl<G: DerefMut> DerefMut for SwitchGuard<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.value
    }
}

/// Marks a thread as one that holds a switch lock, until it is dropped by the same thread.
struct HeldMark {
    /// Keeps the guards on their thread.
    _not_send: PhantomData<*const ()>,
}

impl HeldMark {
    #[track_caller]
    fn set() -> Self {
        assert_not_held("take the switch lock");
        if cfg!(debug_assertions) {
            HELD_BY_THIS_THREAD.set(true);
        }
        Self {
            _not_send: PhantomData,
        }
    }
}

impl Drop for HeldMark {
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            HELD_BY_THIS_THREAD.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn panics(work: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(work)).is_err()
    }

    #[test]
    fn a_thread_that_takes_the_lock_twice_is_stopped_whichever_sides_it_takes() {
        let lock = SwitchLock::default();
        let take_twice: [fn(&SwitchLock<u8>); 4] = [
            |lock| drop((lock.read(), lock.read())),
            |lock| drop((lock.read(), lock.write())),
            |lock| drop((lock.write(), lock.read())),
            |lock| drop((lock.write(), lock.write())),
        ];
        for twice in take_twice {
            assert!(panics(|| twice(&lock)));
            // The mark went with the guard, so the thread may take the lock again.
            drop(lock.read());
            drop(lock.write());
        }
    }

    #[test]
    fn a_lock_of_another_mount_counts_as_well() {
        let mine = SwitchLock::<u8>::default();
        let other = SwitchLock::<u8>::default();
        assert!(panics(|| drop((mine.read(), other.read()))));
    }

    #[test]
    fn what_must_not_be_done_under_the_lock_is_stopped_there_and_nowhere_else() {
        let lock = SwitchLock::<u8>::default();
        assert_not_held("make a document");
        let guard = lock.read();
        assert!(panics(|| assert_not_held("make a document")));
        // Another thread holds nothing.
        let other = std::thread::spawn(|| assert_not_held("make a document"));
        assert!(other.join().is_ok());
        drop(guard);
        assert_not_held("make a document");
    }
}
