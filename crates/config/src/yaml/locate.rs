//! Finds a field's place in a document by its path, and the path of a place.
//!
//! Reads the document once more, untyped but with positions; only done to report something.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// A document as positions.
pub(super) struct Tree(Spanned<Node>);

enum Node {
    Scalar,
    Sequence(Vec<Spanned<Node>>),
    Mapping(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

macro_rules! scalars {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Node, E> { Ok(Node::Scalar) })*
    };
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128,
        visit_f64: f64, visit_str: &str, visit_bytes: &[u8]);

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element()? {
            nodes.push(node);
        }
        Ok(Node::Sequence(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            nodes.push(entry);
        }
        Ok(Node::Mapping(nodes))
    }
}

/// Line and column from 1, within the document.
type Place = (u32, u32);

fn place(location: Location) -> Place {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    (number(location.line()), number(location.column()))
}

impl Tree {
    /// `None` if the text cannot be read far enough.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut options = super::bounded();
        options.duplicate_keys = serde_saphyr::options::DuplicateKeyPolicy::PassThrough;
        serde_saphyr::from_str_with_options(text, options)
            .ok()
            .map(Self)
    }

    /// Where the field stands: its key if it has one. The nearest field above it that is written
    /// if it is not.
    pub(super) fn place_of(&self, path: &str) -> Place {
        let mut found = place(self.0.referenced);
        let mut node = &self.0.value;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next = match (node, step.strip_suffix(']')) {
                (Node::Sequence(items), Some(index)) => {
                    let index = index.parse().unwrap_or(usize::MAX);
                    items.get(index).map(|item| (item.referenced, &item.value))
                }
                (Node::Mapping(entries), None) => entries
                    .iter()
                    .find(|(key, _)| key.value == step)
                    .map(|(key, value)| (key.referenced, &value.value)),
                _ => None,
            };
            let Some((location, below)) = next else { break };
            found = place(location);
            node = below;
        }
        found
    }

    /// Path of the field that a place belongs to.
    pub(super) fn path_at(&self, line: u32, column: u32) -> Option<String> {
        let mut path = String::new();
        descend(&self.0.value, (line, column), &mut path).then_some(path)
    }
}

/// Appends the steps to the last field that starts at or before `wanted`.
fn descend(node: &Node, wanted: Place, path: &mut String) -> bool {
    match node {
        Node::Scalar => false,
        Node::Sequence(items) => {
            let before = |item: &&Spanned<Node>| place(item.referenced) <= wanted;
            let count = items.iter().take_while(before).count();
            let Some(item) = count.checked_sub(1).and_then(|last| items.get(last)) else {
                return false;
            };
            path.push_str(&format!("[{}]", count - 1));
            descend(&item.value, wanted, path);
            true
        }
        Node::Mapping(entries) => {
            let before =
                |(key, _): &&(Spanned<String>, Spanned<Node>)| place(key.referenced) <= wanted;
            let Some((key, value)) = entries.iter().take_while(before).last() else {
                return false;
            };
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&key.value);
            if place(key.referenced) < wanted {
                descend(&value.value, wanted, path);
            }
            true
        }
    }
}
