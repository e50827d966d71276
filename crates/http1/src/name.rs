//! Names of fields that a gateway adds itself, checked when the program is built.
//!
//! They begin with `x-`, so none of them is a field that the codec treats specially.

/// A field name in lower case that begins with `x-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldName(&'static str);

impl FieldName {
    /// Checked at compile time when used in a constant.
    ///
    /// # Panics
    /// The name does not begin with `x-`, or has a byte other than `a-z`, `0-9` and `-`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        let mut rest = name.as_bytes();
        assert!(
            matches!(rest, [b'x', b'-', _, ..]),
            "the name begins with x-"
        );
        while let [byte, behind @ ..] = rest {
            assert!(
                matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'),
                "lower case letters, digits and hyphens only"
            );
            rest = behind;
        }
        Self(name)
    }

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}
