//! What questions have in common: how long a page is, and values that have a form.

use std::str::FromStr;

use crate::api::problem::Problem;

/// A page's length.
pub(super) fn page(asked: Option<u32>, usual: usize, most: usize) -> Result<usize, Problem> {
    match asked.map(|limit| limit as usize) {
        None => Ok(usual),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::InvalidQuery(format!("limit: must be 1 to {most}"))),
    }
}

/// A value of the query that has a form.
pub(super) fn parsed<T: FromStr>(name: &str, text: Option<&str>) -> Result<Option<T>, Problem> {
    let parse = |text: &str| text.parse().map_err(|_| Problem::InvalidQuery(format!("{name}: cannot be understood")));
    text.map(parse).transpose()
}
