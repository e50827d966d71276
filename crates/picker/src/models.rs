//! Names of models and what they stand for. Stand-in: the other branch has the file.

/// A name that the engine may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The name.
    pub name: String,
    /// Share of the requests; `None`: cost chooses.
    pub weight: Option<u32>,
}

/// All names of a pool.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelTable {}
