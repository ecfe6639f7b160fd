//! `monofs` as a process: what it prints, how it ends, what is left of it.

mod directories;
mod endings;
mod refusals;
mod repositories;
mod room;
mod runs;
mod terminal;
