//! The kit judged by git itself: what a generator makes, a checkout of it matches; what differs is
//! seen.
#![allow(clippy::unwrap_used)]

mod broken;
mod repositories;
mod waiting;
