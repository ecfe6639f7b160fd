//! The documents of the HTTP API, in one place: what they are called, and how they follow from what
//! the router knows.
//!
//! Invariants: fields are only ever added; times are seconds since the epoch, sizes are bytes; what
//! is not known is `null`.

pub(crate) mod browse;
pub(crate) mod guide;
pub(crate) mod jobs;
pub(crate) mod members;
pub(crate) mod overview;
pub(crate) mod placement;
pub(crate) mod repos;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Default and largest number of items in one answer.
pub(crate) const PAGE: usize = 100;
pub(crate) const PAGE_MAX: usize = 1000;

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// Items passed over.
    #[param(minimum = 0, maximum = 10_000_000)]
    pub offset: Option<u32>,
    /// Items in the answer.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// Where an answer lies in its list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Page {
    /// Items that match.
    pub total: usize,
    pub offset: usize,
    pub limit: usize,
    /// The `offset` of the items that follow; `null` = there are no more.
    pub next_offset: Option<usize>,
}

impl Page {
    /// Of `shown` items after the first `offset` of `total`.
    pub fn new(offset: usize, limit: usize, shown: usize, total: usize) -> Self {
        let end = offset + shown;
        Self {
            total,
            offset,
            limit,
            next_offset: (shown > 0 && end < total).then_some(end),
        }
    }
}

impl Paging {
    /// Offset and limit, within their bounds. Errors: the limit is 0 or too large.
    pub fn checked(&self) -> monofs_model::Result<(usize, usize)> {
        bounds(self.offset, self.limit)
    }

    /// The part of `items` that is wanted. Errors: as for [`Paging::checked`].
    pub fn cut<T>(&self, items: Vec<T>) -> monofs_model::Result<(Vec<T>, Page)> {
        let (offset, limit) = self.checked()?;
        let total = items.len();
        let part: Vec<T> = items.into_iter().skip(offset).take(limit).collect();
        let page = Page::new(offset, limit, part.len(), total);
        Ok((part, page))
    }
}

/// Offset and limit of a list. Errors: the limit is 0 or too large.
pub(crate) fn bounds(
    offset: Option<u32>,
    limit: Option<u32>,
) -> monofs_model::Result<(usize, usize)> {
    let limit = limit.map_or(PAGE, |limit| limit as usize);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(monofs_model::Error::invalid(format!(
            "'limit' is 1 to {PAGE_MAX}, not {limit}"
        )));
    }
    Ok((offset.unwrap_or_default() as usize, limit))
}

/// A time that is not known is 0 on the wire.
pub(crate) fn known(seconds: i64) -> Option<i64> {
    (seconds != 0).then_some(seconds)
}

/// A text that is not there is empty on the wire.
pub(crate) fn said(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
