//! How good what is printed is: a colour where there are colours.

use monofs_proto::v1;

/// How a cell's content should be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Plain,
    Good,
    Bad,
    Uneasy,
}

/// How good a member's state is.
pub fn member_mood(state: v1::MemberState) -> Mood {
    match state {
        v1::MemberState::Active => Mood::Good,
        v1::MemberState::Down => Mood::Bad,
        _ => Mood::Uneasy,
    }
}

/// How good a repository's state is.
pub fn repository_mood(state: v1::RepositoryState) -> Mood {
    match state {
        v1::RepositoryState::Ready => Mood::Good,
        v1::RepositoryState::Failed => Mood::Bad,
        _ => Mood::Uneasy,
    }
}
