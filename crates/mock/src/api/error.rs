//! Refusals in the caller's dialect: vLLM's texts, OpenAI's or Anthropic's shape.
//! Each constructor is one recorded refusal; the status decides Anthropic's error type.

use http::Response;
use http::header::{HeaderValue, RETRY_AFTER};
use serde_json::json;

use super::body::MockBody;
use super::{Api, json as respond_json};
use crate::driver::SubmitError;

/// Why a request gets no tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    status: u16,
    kind: &'static str,
    message: String,
    param: Option<String>,
    retry_after: Option<HeaderValue>,
}

impl Problem {
    fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            param: None,
            retry_after: None,
        }
    }

    fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The body does not parse; `param` is vLLM's `body` or `body.FIELD`.
    pub(crate) fn invalid(param: &str, message: impl core::fmt::Display) -> Self {
        Self::new(
            400,
            "Bad Request",
            format!("1 validation error:\n  {message}"),
        )
        .about(param)
    }

    pub(crate) fn bad_value(param: &str, message: impl Into<String>) -> Self {
        Self::new(400, "BadRequestError", message).about(param)
    }

    pub(crate) fn no_messages() -> Self {
        let message = "Cannot apply chat template to an empty conversation. \
                       Provide at least one message.";
        Self::new(400, "BadRequestError", message)
    }

    pub(crate) fn media_type() -> Self {
        let message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' \
                       is allowed";
        Self::new(400, "Bad Request", message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the request body is longer than {limit} bytes");
        Self::new(413, "Request Entity Too Large", message)
    }

    pub(crate) fn unknown_model(model: &str, known: &[String]) -> Self {
        let known = known.join(", ");
        let message = format!("The model `{model}` does not exist. Valid aliases: {known}.");
        Self::new(404, "NotFoundError", message).about("model")
    }

    pub(crate) fn internal() -> Self {
        let message =
            "EngineCore encountered an issue. See stack trace (above) for the root cause.";
        Self::new(500, "InternalServerError", message)
    }

    pub(crate) fn busy() -> Self {
        let message = "The engine is currently busy and cannot accept new requests. Please try \
                       again later or on a different instance.";
        Self::new(503, "Service Unavailable", message)
    }

    pub(crate) fn too_many() -> Self {
        let mut problem = Self::new(429, "Too Many Requests", "Too many requests. Slow down.");
        problem.retry_after = Some(HeaderValue::from_static("1"));
        problem
    }

    pub(crate) fn submit(error: &SubmitError) -> Self {
        match error {
            SubmitError::Refused(refused) => Self::new(400, "BadRequestError", refused.to_string()),
            SubmitError::Full => Self::busy(),
            SubmitError::Stopped => Self::internal(),
        }
    }

    /// The JSON of the error: a body, or an event's data.
    pub(crate) fn json(&self, api: Api) -> String {
        let value = match api {
            Api::Messages => json!({
                "type": "error",
                "error": { "type": self.anthropic_kind(), "message": self.message },
            }),
            Api::Chat | Api::Completions | Api::Embeddings => json!({
                "error": {
                    "message": self.message,
                    "type": self.kind,
                    "param": self.param,
                    "code": self.status,
                },
            }),
        };
        value.to_string()
    }

    pub(crate) fn response(&self, api: Api) -> Response<MockBody> {
        let mut response = respond_json(self.status, self.json(api));
        if let Some(after) = &self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, after.clone());
        }
        response
    }

    fn anthropic_kind(&self) -> &'static str {
        match self.status {
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        }
    }
}
