//! How good what is printed is: a colour where there are colours.

use monofs_api::members::MemberCondition;
use monofs_proto::v1;

/// How a cell's content should be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Plain,
    Good,
    Bad,
    Uneasy,
}

/// Text that is neither good nor bad.
pub fn plain(text: impl Into<String>) -> (String, Mood) {
    (text.into(), Mood::Plain)
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

/// A node's state, with what it does not do although it should.
pub fn node_mood(member: &v1::Member) -> (String, Mood) {
    let state = MemberCondition::from(member.state()).word();
    let mood = member_mood(member.state());
    let uneasy = match mood {
        Mood::Bad => Mood::Bad,
        _ => Mood::Uneasy,
    };
    match (member.failed_over, member.share_percent) {
        (true, _) => (format!("{state}, failed over"), uneasy),
        (false, percent @ 1..100) => (format!("{state}, {percent} % of reads"), uneasy),
        (false, _) => (state.to_owned(), mood),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_what_it_does_not_do_although_it_should() {
        let mut member = v1::Member {
            state: v1::MemberState::Active.into(),
            share_percent: 100,
            ..Default::default()
        };
        assert_eq!(node_mood(&member), ("active".to_owned(), Mood::Good));
        member.share_percent = 25;
        let gradually = ("active, 25 % of reads".to_owned(), Mood::Uneasy);
        assert_eq!(node_mood(&member), gradually);
        member.failed_over = true;
        assert_eq!(
            node_mood(&member),
            ("active, failed over".to_owned(), Mood::Uneasy)
        );
        member.state = v1::MemberState::Down.into();
        assert_eq!(
            node_mood(&member),
            ("down, failed over".to_owned(), Mood::Bad)
        );
    }
}
