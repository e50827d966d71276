//! Decoding JSON that a newer schema may have written: a struct takes the fields that it names and
//! leaves the others, although wire types refuse unknown fields everywhere else. An explicit `null`
//! counts as an empty list, map or struct, as Go writes those.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// A JSON value, decoded with indulgence.
pub(crate) struct Lenient(pub(crate) Value);

impl Lenient {
    fn list(values: Vec<Value>) -> SeqDeserializer<std::vec::IntoIter<Lenient>, Error> {
        SeqDeserializer::new(
            values
                .into_iter()
                .map(Lenient)
                .collect::<Vec<_>>()
                .into_iter(),
        )
    }

    fn map(
        fields: impl Iterator<Item = (String, Value)>,
    ) -> MapDeserializer<'static, impl Iterator<Item = (String, Lenient)>, Error> {
        MapDeserializer::new(fields.map(|(name, value)| (name, Lenient(value))))
    }
}

impl IntoDeserializer<'_, Error> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(values) => visitor.visit_seq(Self::list(values)),
            Value::Object(fields) => visitor.visit_map(Self::map(fields.into_iter())),
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_seq(Self::list(Vec::new())),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_map(Self::map(Map::new().into_iter())),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(fields) => {
                let fields = fields.into_iter();
                let fields = fields.filter(|(name, _)| known.contains(&name.as_str()));
                visitor.visit_map(Self::map(fields))
            }
            _ => self.deserialize_map(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use crate::objects::{Kind, Resource};

    #[track_caller]
    fn decode(kind: Kind, text: &str) -> Resource {
        Resource::from_json(kind, serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn unknown_fields_and_nulls_of_a_newer_server_are_left_out() {
        let slice = decode(
            Kind::EndpointSlice,
            r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4","new":1,
                "metadata":{"name":"a","namespace":"n","managedFields":[{"f:x":{}}],"soon":{"a":[1]}},
                "endpoints":null,"ports":null}"#,
        );
        let Resource::EndpointSlice(slice) = slice else {
            unreachable!()
        };
        assert!(slice.endpoints.is_empty() && slice.ports.is_empty());

        let gateway = decode(
            Kind::Gateway,
            r#"{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"name":"g"},
                "spec":{"gatewayClassName":"c","listeners":[{"name":"l","port":80,"protocol":"HTTP","x":{"y":1},
                "allowedRoutes":{"namespaces":{"from":"All","y":2}}}]}}"#,
        );
        let Resource::Gateway(gateway) = gateway else {
            unreachable!()
        };
        assert_eq!(gateway.spec.listeners[0].name, "l");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let text = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"ports":[{"port":70000}]}}"#;
        let json = serde_json::from_str(text).unwrap();
        let error = Resource::from_json(Kind::Service, json).unwrap_err();
        assert!(error.to_string().contains("a port"), "{error}");
    }
}
