//! "Did you mean": the nearest of some words by edit distance.

/// The candidate that `word` is most likely a slip of: the nearest one if it is near, else the only
/// one that contains it; `None` if there is none.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let mut containing = Vec::new();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates
        .into_iter()
        .filter(|candidate| *candidate != word)
    {
        let candidate_lower = candidate.to_lowercase();
        let edits = distance(&lower, &candidate_lower);
        let most = (candidate.len().min(word.len()) / 3).clamp(1, 3);
        if edits <= most && best.is_none_or(|(fewest, _)| edits < fewest) {
            best = Some((edits, candidate));
        }
        if lower.len() >= 4 && candidate_lower.contains(&lower) {
            containing.push(candidate);
        }
    }
    match (best, containing.as_slice()) {
        (Some((_, candidate)), _) => Some(candidate),
        (None, [only]) => Some(only),
        _ => None,
    }
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (row, char_a) in a.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, char_b) in b.iter().enumerate() {
            let at =
                |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&above, column) + usize::from(char_a != *char_b);
            let mut best = replaced
                .min(at(&above, column + 1) + 1)
                .min(at(&current, column) + 1);
            let last = column.checked_sub(1);
            if let Some(last) = last
                && b.get(last) == Some(&char_a)
                && previous == Some(*char_b)
            {
                best = best.min(at(&before, last) + 1);
            }
            current.push(best);
        }
        previous = Some(char_a);
        before = std::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_edits() {
        for (a, b, edits) in [
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("kitten", "sitting", 3),
            ("hostname", "hostnames", 1),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        let fields = ["hostnames", "parentRefs", "rules", "rulenames"];
        for (word, suggestion) in [
            ("hostname", Some("hostnames")),
            ("parentRef", Some("parentRefs")),
            ("parentrefs", Some("parentRefs")),
            ("rule", Some("rules")),
            ("name", None),
            ("host", Some("hostnames")),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, fields), suggestion, "{word}");
        }
    }
}
