//! What a change of the control state does, in one word and to what: for the log, and for whatever
//! else must know of every change.

use std::fmt;

/// A change of the control state. Shown as `verb subject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateAction<'a> {
    pub verb: StateVerb,
    /// The display path of an entry, or the name of a row, which may be empty.
    pub subject: &'a str,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateVerb {
    /// An entry is added to the catalogue.
    CreateEntry,
    /// What an entry says is changed, but for its commit and its holders.
    UpdateEntry,
    /// Another commit is shown to readers.
    PublishCommit,
    /// The nodes are noted that are about to be given a commit.
    GiveCommit,
    /// A node is recorded to hold the commit that is shown.
    AddHolder,
    /// A node is recorded to have lost it.
    RemoveHolder,
    /// A node is taken off the holders, so that its copy may be deleted.
    ReleaseHolder,
    /// An entry is removed from the catalogue.
    RemoveEntry,
    /// A row of the table with this prefix is written or removed.
    ChangeRow(&'static str),
}

impl StateVerb {
    /// The stable word used in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateEntry => "create-entry",
            Self::UpdateEntry => "update-entry",
            Self::PublishCommit => "publish-commit",
            Self::GiveCommit => "give-commit",
            Self::AddHolder => "add-holder",
            Self::RemoveHolder => "remove-holder",
            Self::ReleaseHolder => "release-holder",
            Self::RemoveEntry => "remove-entry",
            Self::ChangeRow(_) => "change-row",
        }
    }
}

impl fmt::Display for StateAction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.verb.as_str())?;
        if let StateVerb::ChangeRow(prefix) = self.verb {
            f.write_str(prefix)?;
        }
        f.write_str(self.subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_named_with_its_table_and_an_entry_by_its_path() {
        let row = StateAction {
            verb: StateVerb::ChangeRow("intent/"),
            subject: "node1",
        };
        assert_eq!(row.to_string(), "change-row intent/node1");
        let entry = StateAction {
            verb: StateVerb::PublishCommit,
            subject: "host/team/x",
        };
        assert_eq!(entry.to_string(), "publish-commit host/team/x");
    }
}
