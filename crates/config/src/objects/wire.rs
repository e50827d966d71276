//! How wire types are declared: `wire!` for structs, `open_enum!` for enums, and checked scalars.
//!
//! A wire struct refuses unknown fields, as an API server with strict validation does, and leaves
//! absent ones absent. An open enum keeps a value it does not know, so that it can become a
//! status instead of an error.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// `wire!(/// doc Name { required: T; optional: Option<T> })`.
macro_rules! wire {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$required_meta:meta])* $required:ident : $required_type:ty),* ;
        $($(#[$optional_meta:meta])* $optional:ident : $optional_type:ty),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            $($(#[$required_meta])* pub $required: $required_type,)*
            $(
                $(#[$optional_meta])*
                #[serde(default, skip_serializing_if = "crate::objects::wire::is_default")]
                pub $optional: $optional_type,
            )*
        }
    };
}

/// An enum of the API whose unknown values survive as `Unknown`.
macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $($variant,)*
            /// A value that this version does not know, as written.
            Unknown(String),
        }
        impl $name {
            /// The values that this version knows.
            pub const KNOWN: &'static [&'static str] = &[$($text),*];
            /// The API's spelling.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Unknown(text) => text,
                }
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    _ => Self::Unknown(text.to_owned()),
                }
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d).map(|text| Self::from(text.as_str()))
            }
        }
    };
}

pub(crate) use {open_enum, wire};

/// Whether a field says what its absence says.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A TCP port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(u16);

impl Port {
    /// `None` for zero.
    pub fn new(number: u16) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// The number, never zero.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// A backend's weight, 0 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u32);

impl Weight {
    /// `None` above 1,000,000.
    pub fn new(weight: u32) -> Option<Self> {
        (weight <= 1_000_000).then_some(Self(weight))
    }

    /// The number.
    pub fn value(self) -> u32 {
        self.0
    }
}

macro_rules! checked_integer {
    ($name:ident, $from:expr, $expecting:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Number;
                impl Visitor<'_> for Number {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$name, E> {
                        $from(number)
                            .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
                    }
                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$name, E> {
                        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
                    }
                }
                deserializer.deserialize_i64(Number)
            }
        }
    };
}

checked_integer!(
    Port,
    |number: i64| u16::try_from(number).ok().and_then(Port::new),
    "a port, 1 to 65535"
);
checked_integer!(
    Weight,
    |number: i64| u32::try_from(number).ok().and_then(Weight::new),
    "a weight, 0 to 1000000"
);
