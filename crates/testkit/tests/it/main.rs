//! The kit judged by git itself: what a generator makes, a checkout of it matches; what differs is
//! seen.
#![allow(clippy::unwrap_used)]

mod broken;
mod left_behind;
mod repositories;
mod waiting;
