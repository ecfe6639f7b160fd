//! Parts of lists.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Default number of items in one answer.
const LIMIT_DEFAULT: usize = 100;
/// Largest number of items in one answer.
const LIMIT_MAX: usize = 1000;

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ListPaging {
    /// Items passed over.
    #[param(minimum = 0, maximum = 10_000_000)]
    pub offset: Option<u32>,
    /// Items in the answer.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// Where an answer lies in its list.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Page)]
pub struct ListPage {
    /// Items that match.
    pub total: usize,
    pub offset: usize,
    pub limit: usize,
    /// The `offset` of the items that follow; `null` = there are no more.
    pub next_offset: Option<usize>,
}

impl ListPage {
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

    /// Of a list that is told as a whole.
    pub fn whole(total: usize) -> Self {
        Self::new(0, total, total, total)
    }
}

impl ListPaging {
    /// Offset and limit, within their bounds. Errors: the limit is 0 or too large.
    pub fn checked(&self) -> monofs_model::Result<(usize, usize)> {
        let limit = self.limit.map_or(LIMIT_DEFAULT, |limit| limit as usize);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(monofs_model::Error::invalid(format!(
                "'limit' is 1 to {LIMIT_MAX}, not {limit}"
            )));
        }
        Ok((self.offset.unwrap_or_default() as usize, limit))
    }

    /// The part of `items` that is wanted. Errors: as for [`ListPaging::checked`].
    pub fn cut<T>(&self, items: Vec<T>) -> monofs_model::Result<(Vec<T>, ListPage)> {
        let (offset, limit) = self.checked()?;
        let total = items.len();
        let part: Vec<T> = items.into_iter().skip(offset).take(limit).collect();
        let page = ListPage::new(offset, limit, part.len(), total);
        Ok((part, page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_of_a_list_is_in_exactly_one_part() {
        let mut seen = Vec::new();
        let mut offset = Some(0);
        while let Some(from) = offset {
            let paging = ListPaging {
                offset: Some(from as u32),
                limit: Some(4),
            };
            let (part, page) = paging.cut((0..10).collect()).expect("4 is a limit");
            assert_eq!(page.total, 10);
            seen.extend(part);
            offset = page.next_offset;
        }
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_eq!(ListPage::whole(3).next_offset, None);
    }

    #[test]
    fn a_limit_has_bounds() {
        for limit in [0, 1001] {
            let paging = ListPaging {
                offset: None,
                limit: Some(limit),
            };
            assert!(paging.checked().is_err(), "{limit}");
        }
        assert_eq!(ListPaging::default().checked().ok(), Some((0, 100)));
    }
}
