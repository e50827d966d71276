//! The messages of Envoy's external processing protocol (`envoy.service.ext_proc.v3`), as far as
//! endpoint pickers use them, and those of gRPC's health check. Written by hand: field numbers are
//! Envoy's, unknown fields are passed over.

use std::collections::HashMap;

/// The one call of the protocol: a stream of messages each way, one call per HTTP request.
pub(crate) const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";
/// gRPC's health check.
pub(crate) const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// Whose health is asked for.
pub(crate) const SERVICE: &str = "envoy.service.ext_proc.v3.ExternalProcessor";
/// `ProcessingMode.BodySendMode`: chunks both ways, none of which waits for another.
pub(crate) const FULL_DUPLEX_STREAMED: i32 = 4;

/// What a proxy says.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProcessingRequest {
    #[prost(oneof = "Said", tags = "2, 3, 4, 5, 6, 7")]
    pub(crate) said: Option<Said>,
    #[prost(message, optional, tag = "8")]
    pub(crate) metadata_context: Option<Metadata>,
    /// In the first message of a call only.
    #[prost(message, optional, tag = "11")]
    pub(crate) protocol_config: Option<ProtocolConfiguration>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Said {
    #[prost(message, tag = "2")]
    RequestHeaders(HttpHeaders),
    #[prost(message, tag = "3")]
    ResponseHeaders(HttpHeaders),
    #[prost(message, tag = "4")]
    RequestBody(HttpBody),
    #[prost(message, tag = "5")]
    ResponseBody(HttpBody),
    #[prost(message, tag = "6")]
    RequestTrailers(HttpTrailers),
    #[prost(message, tag = "7")]
    ResponseTrailers(HttpTrailers),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct ProtocolConfiguration {
    #[prost(int32, tag = "1")]
    pub(crate) request_body_mode: i32,
    #[prost(int32, tag = "2")]
    pub(crate) response_body_mode: i32,
    #[prost(bool, tag = "3")]
    pub(crate) send_body_without_waiting_for_header_response: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HttpHeaders {
    #[prost(message, optional, tag = "1")]
    pub(crate) headers: Option<HeaderMap>,
    #[prost(bool, tag = "3")]
    pub(crate) end_of_stream: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HttpBody {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) body: bytes::Bytes,
    #[prost(bool, tag = "2")]
    pub(crate) end_of_stream: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HttpTrailers {
    #[prost(message, optional, tag = "1")]
    pub(crate) trailers: Option<HeaderMap>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HeaderMap {
    #[prost(message, repeated, tag = "1")]
    pub(crate) headers: Vec<HeaderValue>,
}

/// Names are in lower case. Of the two values one is used; Envoy uses `raw_value`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HeaderValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) raw_value: Vec<u8>,
}

impl HeaderValue {
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.raw_value.is_empty() {
            self.value.as_bytes()
        } else {
            &self.raw_value
        }
    }
}

/// What filters tell each other, by namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Metadata {
    #[prost(map = "string, message", tag = "1")]
    pub(crate) filter_metadata: HashMap<String, Struct>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Struct {
    #[prost(map = "string, message", tag = "1")]
    pub(crate) fields: HashMap<String, Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Value {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub(crate) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Kind {
    #[prost(int32, tag = "1")]
    Null(i32),
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(message, tag = "5")]
    Struct(Struct),
    #[prost(message, tag = "6")]
    List(ListValue),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListValue {
    #[prost(message, repeated, tag = "1")]
    pub(crate) values: Vec<Value>,
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self {
            kind: Some(Kind::Text(text.into())),
        }
    }
}

impl Value {
    pub(crate) fn list(values: Vec<Self>) -> Self {
        Self {
            kind: Some(Kind::List(ListValue { values })),
        }
    }
}

impl Struct {
    pub(crate) fn of(name: &str, value: Value) -> Self {
        Self {
            fields: HashMap::from([(name.to_owned(), value)]),
        }
    }
}

impl Metadata {
    /// One value of one namespace.
    pub(crate) fn of(namespace: &str, name: &str, value: Value) -> Self {
        Self {
            filter_metadata: HashMap::from([(namespace.to_owned(), Struct::of(name, value))]),
        }
    }
}

/// What a picker answers.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProcessingResponse {
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(crate) answer: Option<Answer>,
    #[prost(message, optional, tag = "8")]
    pub(crate) dynamic_metadata: Option<Struct>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Answer {
    #[prost(message, tag = "1")]
    RequestHeaders(PartResponse),
    #[prost(message, tag = "2")]
    ResponseHeaders(PartResponse),
    #[prost(message, tag = "3")]
    RequestBody(PartResponse),
    #[prost(message, tag = "4")]
    ResponseBody(PartResponse),
    #[prost(message, tag = "5")]
    RequestTrailers(TrailersResponse),
    #[prost(message, tag = "6")]
    ResponseTrailers(TrailersResponse),
    #[prost(message, tag = "7")]
    Immediate(ImmediateResponse),
}

/// `HeadersResponse` and `BodyResponse`, which have the same one field.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PartResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) response: Option<CommonResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CommonResponse {
    #[prost(message, optional, tag = "2")]
    pub(crate) header_mutation: Option<HeaderMutation>,
    #[prost(bool, tag = "5")]
    pub(crate) clear_route_cache: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TrailersResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header_mutation: Option<HeaderMutation>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HeaderMutation {
    #[prost(message, repeated, tag = "1")]
    pub(crate) set_headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) remove_headers: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<HeaderValue>,
    /// Old; `google.protobuf.BoolValue`.
    #[prost(message, optional, tag = "2")]
    pub(crate) append: Option<BoolValue>,
    #[prost(int32, tag = "3")]
    pub(crate) append_action: i32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct BoolValue {
    #[prost(bool, tag = "1")]
    pub(crate) value: bool,
}

/// The answer to the client, in place of everything else.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ImmediateResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<HttpStatus>,
    #[prost(message, optional, tag = "2")]
    pub(crate) headers: Option<HeaderMutation>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) body: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    pub(crate) grpc_status: Option<GrpcStatus>,
    /// For people.
    #[prost(string, tag = "5")]
    pub(crate) details: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct HttpStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct GrpcStatus {
    #[prost(uint32, tag = "1")]
    pub(crate) status: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
}

/// 0: unknown; 1: serving; 2: not serving; 3: no such service.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    pub(crate) status: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    /// Bytes as Envoy's generated code writes them.
    #[test]
    fn messages_have_the_numbers_of_the_protocol() {
        let request = ProcessingRequest {
            said: Some(Said::RequestBody(HttpBody {
                body: bytes::Bytes::from_static(b"hi"),
                end_of_stream: true,
            })),
            metadata_context: Some(Metadata::of("a", "b", Value::text("c"))),
            protocol_config: Some(ProtocolConfiguration {
                request_body_mode: FULL_DUPLEX_STREAMED,
                response_body_mode: 0,
                send_body_without_waiting_for_header_response: true,
            }),
        };
        let expected: &[u8] = b"\x22\x06\x0a\x02hi\x10\x01\
            \x42\x11\x0a\x0f\x0a\x01a\x12\x0a\x0a\x08\x0a\x01b\x12\x03\x1a\x01c\
            \x5a\x04\x08\x04\x18\x01";
        assert_eq!(request.encode_to_vec(), expected);
        let response: &[u8] =
            b"\x0a\x14\x0a\x12\x12\x0e\x0a\x0c\x0a\x0a\x0a\x01k\x1a\x05value\x28\x01\
            \x42\x0a\x0a\x08\x0a\x01m\x12\x03\x1a\x01v\x62\x00";
        let response = ProcessingResponse::decode(response).unwrap();
        let Some(Answer::RequestHeaders(PartResponse {
            response: Some(common),
        })) = &response.answer
        else {
            unreachable!("{response:?}")
        };
        assert!(common.clear_route_cache);
        let mutation = common.header_mutation.as_ref().unwrap();
        let header = mutation.set_headers[0].header.as_ref().unwrap();
        assert_eq!((header.key.as_str(), header.bytes()), ("k", &b"value"[..]));
        let metadata = response.dynamic_metadata.unwrap();
        assert_eq!(metadata.fields["m"], Value::text("v"));
    }
}
