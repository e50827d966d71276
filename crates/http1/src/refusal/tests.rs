//! No cause without a message that shows it.
use std::collections::BTreeSet;

use super::*;

#[test]
fn every_cause_is_shown_by_a_row() {
    let mut shown = BTreeSet::new();
    shown.extend(crate::request::tests::REFUSED.iter().map(|row| row.2));
    shown.extend(
        crate::request::tests::refused_by_limit()
            .iter()
            .map(|row| row.2),
    );
    shown.extend(crate::response::tests::REFUSED.iter().map(|row| row.1));
    shown.extend(crate::body::tests::REFUSED.iter().map(|row| row.2));
    let all: BTreeSet<_> = ALL.iter().map(|refusal| refusal.code).collect();
    assert_eq!(all.len(), ALL.len(), "codes are unique");
    assert_eq!(shown, all);
}

#[test]
fn says_what_is_wrong_and_its_code() {
    let text = BARE_LINE_FEED.to_string();
    assert_eq!(
        text,
        "a line of the head ends in a line feed alone (bare_line_feed)"
    );
}
