//! Checks every stored object of a repository against its id and reports on the way.

use monofs_model::{Result, StorageId};
use monofs_proto::v1;
use monofs_store::repo::RepoStore;

use crate::answer::AnswerSink;

/// Objects between two progress messages.
const REPORT_EVERY: u64 = 1000;
/// Wrong objects named in one answer; the rest are counted.
const ERRORS_MAX: usize = 100;

/// Checks `store`; ends early when the receiver is gone. Blocking.
pub(super) fn verify(
    store: &RepoStore,
    id: &StorageId,
    sink: &AnswerSink<v1::VerifyProgress>,
) -> Result<()> {
    // A message now and then shows that the check goes on.
    let mut reported = 0;
    let report = store.check(&mut |progress| {
        if progress.rows_done < reported + REPORT_EVERY {
            return true;
        }
        reported = progress.rows_done;
        let message = v1::VerifyProgress {
            storage_id: id.to_string(),
            objects_checked: progress.rows_done,
            bytes_checked: progress.bytes_done,
            errors: Vec::new(),
            finished: false,
        };
        sink.blocking_send(Ok(message)).is_ok()
    })?;

    // The last message names what is wrong.
    let mut errors: Vec<String> = report
        .problems
        .iter()
        .take(ERRORS_MAX)
        .map(ToString::to_string)
        .collect();
    if report.problems_total > errors.len() as u64 {
        errors.push(format!(
            "and {} more",
            report.problems_total - errors.len() as u64
        ));
    }
    let message = v1::VerifyProgress {
        storage_id: id.to_string(),
        objects_checked: report.trees + report.blobs,
        bytes_checked: report.bytes,
        errors,
        finished: true,
    };
    // The receiver may be gone, and then the result is of no use.
    let _ = sink.blocking_send(Ok(message));
    Ok(())
}
