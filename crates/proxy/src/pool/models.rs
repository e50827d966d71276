//! Which models a pool serves: what objects declare and what its servers announce.
//!
//! Servers are asked for `/v1/models` now and then. A name that nobody declares or announces is
//! answered with 404 only when every ready server has answered lately without it; else the request
//! goes on, and the server decides. What is no list of models is no answer; an empty list is one.

use super::{Endpoint, Pool};
use crate::clock;
use crate::upstream::fetch::Fetcher;
use arc_swap::ArcSwap;
use llm::ModelCard;
use parking_lot::Mutex;
use picker::Micros;
use rustc_hash::FxHashSet;
use std::sync::Arc;
use std::time::Duration;

/// A server's word counts for this long.
const FRESH: Duration = Duration::from_secs(30);
/// Lists are refreshed for an unknown name at most this often.
const REFRESH_AT_MOST: Duration = Duration::from_secs(1);
/// A list of models is not larger than this.
pub(super) const MOST_LIST_BYTES: usize = 1 << 20;
/// Near names that a refusal offers.
const NEAR_NAMES: usize = 3;

/// What one server said it serves.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    cards: ArcSwap<Vec<ModelCard>>,
    at: Mutex<Option<Micros>>,
}

impl Announced {
    pub(crate) fn cards(&self) -> Arc<Vec<ModelCard>> {
        self.cards.load_full()
    }

    /// Takes a new answer and, when it differs from the one before, has `rebuild` take it over.
    ///
    /// The answer counts as fresh only after that, for other threads too: who finds all answers
    /// fresh finds their names in the catalogue.
    pub(super) fn update(&self, cards: Vec<ModelCard>, rebuild: impl FnOnce()) {
        let mut at = self.at.lock();
        if at.is_none() || **self.cards.load() != cards {
            self.cards.store(Arc::new(cards));
            rebuild();
        }
        *at = Some(clock::now());
    }

    fn is_fresh(&self) -> bool {
        self.at
            .lock()
            .is_some_and(|at| clock::now().0 < at.0 + FRESH.as_micros() as u64)
    }
}

/// How the names of a pool are kept up to date.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    /// Held from the look at all announcements to the new set: the last set has all of them.
    rebuilding: Mutex<()>,
    refreshed: tokio::sync::Mutex<Option<Micros>>,
}

impl Pool {
    /// Whether an object declares the model or a server announces it.
    pub(crate) fn knows_model(&self, model: &str) -> bool {
        self.seen.load().knows_model(model)
    }

    /// All names, sorted.
    pub(crate) fn model_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.seen.load().names.iter().cloned().collect();
        names.sort();
        names
    }

    /// Rebuilds the set of names from objects and announcements.
    pub(crate) fn recatalogue(&self) {
        let _rebuilding = self.catalogue.rebuilding.lock();
        let mut names: FxHashSet<String> = self
            .seen()
            .spec
            .models
            .names()
            .map(|name| name.to_owned())
            .collect();
        for endpoint in self.endpoints() {
            names.extend(
                endpoint
                    .announced
                    .cards()
                    .iter()
                    .map(|card| card.id.clone()),
            );
        }
        let names = Arc::new(names);
        self.show(|seen| seen.names = names.clone());
    }

    /// `Some(near names)` when the model, which nobody declared or announced yet, certainly is not
    /// served here.
    pub(crate) async fn unknown_model(self: &Arc<Self>, model: &str) -> Option<Vec<String>> {
        self.refresh_models().await;
        let endpoints = self.endpoints();
        let all_said = endpoints
            .iter()
            .all(|endpoint| endpoint.announced.is_fresh());
        if self.knows_model(model) || !all_said || endpoints.is_empty() {
            return None;
        }
        Some(near(model, self.model_names()))
    }

    /// Asks all servers once; callers at the same time share the answer.
    async fn refresh_models(self: &Arc<Self>) {
        let asked = clock::now();
        let mut refreshed = self.catalogue.refreshed.lock().await;
        let lately = asked.0.saturating_sub(REFRESH_AT_MOST.as_micros() as u64);
        if refreshed.is_some_and(|at| at.0 >= lately) {
            return;
        }
        let endpoints = self.endpoints();
        let asking = endpoints.iter().map(|endpoint| async {
            let mut fetcher = Fetcher::new(endpoint.clone());
            // A server that does not answer is one that has not said it lacks the model.
            let _ = refresh(self, endpoint, &mut fetcher).await;
        });
        futures_util::future::join_all(asking).await;
        *refreshed = Some(clock::now());
    }
}

/// Asks one server for its models and tells the pool when they changed.
pub(super) async fn refresh(
    pool: &Arc<Pool>,
    endpoint: &Endpoint,
    fetcher: &mut Fetcher,
) -> std::io::Result<()> {
    let deadline = Duration::from_secs(2);
    let (status, body) = fetcher.get("/v1/models", MOST_LIST_BYTES, deadline).await?;
    if status != 200 {
        return Err(std::io::Error::other(format!(
            "/v1/models answered {status}"
        )));
    }
    let Some(cards) = llm::scan_models(body) else {
        return Err(std::io::Error::other("/v1/models answered no list"));
    };
    endpoint.announced.update(cards, || {
        pool.recatalogue();
        pool.announce(endpoint);
    });
    Ok(())
}

/// The names nearest to `model`, by edit distance.
fn near(model: &str, names: Vec<String>) -> Vec<String> {
    let mut ranked: Vec<(usize, String)> = names
        .into_iter()
        .map(|name| (distance(model, &name), name))
        .collect();
    ranked.sort();
    ranked
        .into_iter()
        .take(NEAR_NAMES)
        .map(|(_, name)| name)
        .collect()
}

/// Levenshtein's distance; long names are compared by their first 64 characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            let cost = diagonal + usize::from(from != *to);
            left = cost.min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_fresh_only_once_its_names_are_known() {
        let announced = Announced::default();
        let card = |id: &str| ModelCard {
            id: id.to_owned(),
            parent: None,
            root: None,
            max_model_len: None,
        };
        let mut rebuilt = 0;
        for cards in [vec![], vec![], vec![card("a")], vec![card("a")]] {
            announced.update(cards.clone(), || {
                rebuilt += 1;
                assert_eq!(*announced.cards(), cards);
                // Who asks for freshness meanwhile waits for the new set.
                assert!(announced.at.try_lock().is_none());
            });
            assert!(announced.is_fresh());
        }
        assert_eq!(rebuilt, 2);
    }

    #[test]
    fn distance_counts_edits() {
        for (a, b, edits) in [
            ("", "", 0),
            ("a", "", 1),
            ("tiny", "tiny", 0),
            ("tny", "tiny", 1),
            ("llama", "lama3", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn near_names_come_nearest_first() {
        let names = ["qwen", "tiny-chat", "tiny"].map(str::to_owned).to_vec();
        assert_eq!(near("tinny", names)[0], "tiny");
    }
}
