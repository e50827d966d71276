//! Which LLM API a request speaks, told from method and path alone.
//!
//! Everything unknown is `Other`: passed through, placed by load, never refused here.
//! Paths are those of OpenAI and Anthropic, which vLLM, SGLang and llama.cpp serve too.

/// The API of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI `POST /v1/chat/completions`.
    ChatCompletions,
    /// OpenAI `POST /v1/completions`.
    Completions,
    /// OpenAI `POST /v1/embeddings`.
    Embeddings,
    /// OpenAI `POST /v1/responses`.
    Responses,
    /// Anthropic `POST /v1/messages`.
    Messages,
    /// Anything else.
    Other,
}

/// In whose words errors are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `{"error":{"message","type","param","code"}}`.
    OpenAi,
    /// `{"type":"error","error":{"type","message"}}`.
    Anthropic,
}

impl Api {
    /// The API that `path` (without query, as received) belongs to.
    #[must_use]
    pub fn of(method: &str, path: &str) -> Self {
        if method != "POST" {
            return Self::Other;
        }
        match path {
            "/v1/chat/completions" => Self::ChatCompletions,
            "/v1/completions" => Self::Completions,
            "/v1/embeddings" => Self::Embeddings,
            "/v1/responses" => Self::Responses,
            "/v1/messages" => Self::Messages,
            _ => Self::Other,
        }
    }

    /// The dialect of its errors.
    #[must_use]
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Messages => Dialect::Anthropic,
            _ => Dialect::OpenAi,
        }
    }

    /// A short stable name for logs and metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_apis_from_method_and_path() {
        let cases = [
            (
                "POST",
                "/v1/chat/completions",
                Api::ChatCompletions,
                Dialect::OpenAi,
            ),
            ("POST", "/v1/completions", Api::Completions, Dialect::OpenAi),
            ("POST", "/v1/embeddings", Api::Embeddings, Dialect::OpenAi),
            ("POST", "/v1/responses", Api::Responses, Dialect::OpenAi),
            ("POST", "/v1/messages", Api::Messages, Dialect::Anthropic),
            ("GET", "/v1/chat/completions", Api::Other, Dialect::OpenAi),
            (
                "POST",
                "/v1/messages/count_tokens",
                Api::Other,
                Dialect::OpenAi,
            ),
            ("POST", "/v1/chat/completions/", Api::Other, Dialect::OpenAi),
            ("POST", "/", Api::Other, Dialect::OpenAi),
        ];
        for (method, path, api, dialect) in cases {
            assert_eq!(Api::of(method, path), api, "{method} {path}");
            assert_eq!(api.dialect(), dialect, "{method} {path}");
        }
    }
}
