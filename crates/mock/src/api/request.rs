//! From a body to jobs: reads the fields that matter, renders the prompt, checks its length.
//! Fields nobody reads here (temperature, tools' meaning) are accepted and change nothing else.

use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::Deserialize;
use serde_json::Value;
use sim::engine::{AdapterId, Job, JobId};

use super::Api;
use super::error::Problem;
use crate::driver::Ends;
use crate::journal::Record;
use crate::spec::MockSpec;
use crate::text;

/// Choices of all prompts of one request.
const CHOICES: usize = 128;

/// One request, understood.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) api: Api,
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) ends: Ends,
    pub(crate) choices: Vec<Choice>,
}

/// One text to generate (or one input to embed).
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    /// Of its words.
    pub(crate) seed: u64,
    /// Whether usage counts its prompt: choices of one prompt share it.
    pub(crate) counts_prompt: bool,
    pub(crate) job: Job,
}

#[derive(Debug, Deserialize)]
struct Wire {
    model: Option<String>,
    messages: Option<Vec<Message>>,
    prompt: Option<Value>,
    input: Option<Value>,
    system: Option<Value>,
    tools: Option<Value>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    n: Option<u32>,
    cache_salt: Option<String>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    content: Option<Value>,
    tool_calls: Option<Value>,
}

/// As vLLM: a body of another type than JSON is refused, one without a type is read.
pub(crate) fn media_type(head: &Parts) -> Result<(), Problem> {
    let Some(value) = head.headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    if essence.trim().eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Problem::media_type())
    }
}

/// Reads the body of a request to `api`.
pub(crate) fn read(
    spec: &MockSpec,
    api: Api,
    body: &[u8],
    record: &Record,
) -> Result<Asked, Problem> {
    if body.is_empty() {
        let message = "{'type': 'missing', 'loc': 'body', 'msg': 'Field required'}";
        return Err(Problem::invalid("body", message));
    }
    let wire: Wire =
        serde_json::from_slice(body).map_err(|error| Problem::invalid("body", error))?;
    // As vLLM: without a name the first model answers.
    let first = || spec.models.first().cloned().unwrap_or_default();
    let model = wire.model.clone().unwrap_or_else(first);
    record.model(&model);
    let adapter = spec.adapters.iter().position(|adapter| *adapter == model);
    if adapter.is_none() && !spec.models.contains(&model) {
        return Err(Problem::unknown_model(&model, &spec.models));
    }
    let limit = output_limit(spec, api, &wire)?;
    let mut asked = Asked {
        api,
        model,
        stream: wire.stream.unwrap_or(false) && api != Api::Embeddings,
        include_usage: wire
            .stream_options
            .as_ref()
            .is_some_and(|o| o.include_usage == Some(true)),
        ends: if limit.is_some() {
            Ends::Length
        } else {
            Ends::Stop
        },
        choices: Vec::new(),
    };
    let adapter = adapter
        .and_then(|index| u32::try_from(index).ok())
        .map(AdapterId);
    add_choices(spec, &wire, limit, &mut asked)?;
    for choice in &mut asked.choices {
        choice.job.adapter = adapter;
    }
    Ok(asked)
}

/// One choice per prompt and copy.
fn add_choices(
    spec: &MockSpec,
    wire: &Wire,
    limit: Option<u32>,
    asked: &mut Asked,
) -> Result<(), Problem> {
    let prompts = prompts(asked.api, wire)?;
    let copies = wire.n.unwrap_or(1).max(1);
    if prompts.len().saturating_mul(copies as usize) > CHOICES {
        return Err(Problem::bad_value(
            "n",
            format!("at most {CHOICES} choices are served"),
        ));
    }
    let identity = (
        asked.model.as_str(),
        wire.cache_salt.as_deref().unwrap_or_default(),
    );
    for prompt in &prompts {
        for copy in 0..copies {
            let seed = text::seed(prompt, copy, spec.seed);
            let mut job = job(spec, prompt, (seed, limit), &mut asked.ends)?;
            let output = (seed, job.output_tokens);
            job.block_hashes =
                text::block_hashes(identity, prompt, output, spec.engine.block_tokens);
            asked.choices.push(Choice {
                seed,
                counts_prompt: copy == 0,
                job,
            });
        }
    }
    Ok(())
}

/// Tokens to generate: as many as asked for (0 for embeddings), or `None` when nobody said.
fn output_limit(spec: &MockSpec, api: Api, wire: &Wire) -> Result<Option<u32>, Problem> {
    if api == Api::Embeddings {
        return Ok(Some(0));
    }
    let limit = wire.max_completion_tokens.or(wire.max_tokens);
    let longest = spec.max_model_len;
    match limit {
        Some(0) => Err(Problem::bad_value(
            "max_tokens",
            "max_tokens must be at least 1, got 0.",
        )),
        Some(limit) if limit > longest => {
            let message = format!(
                "max_tokens={limit} cannot be greater than max_model_len={longest}. Please \
                 request fewer output tokens. (parameter=max_tokens, value={limit})"
            );
            Err(Problem::bad_value("max_tokens", message))
        }
        other => Ok(other),
    }
}

/// The job for one choice, without blocks; an answer that the context cuts ends by length.
fn job(
    spec: &MockSpec,
    prompt: &[u8],
    output: (u64, Option<u32>),
    ends: &mut Ends,
) -> Result<Job, Problem> {
    let (seed, limit) = output;
    let longest = spec.max_model_len;
    let prompt_tokens = text::tokens(prompt.len()).max(1);
    if prompt_tokens > longest || (prompt_tokens == longest && limit != Some(0)) {
        let message = format!(
            "This model's maximum context length is {longest} tokens. However, your prompt \
             contains at least {prompt_tokens} input tokens, which exceeds this limit even \
             without any output tokens. Please reduce the length of the input prompt. \
             (parameter=input_tokens, value={prompt_tokens})"
        );
        return Err(Problem::bad_value("input_tokens", message));
    }
    let wanted = limit.unwrap_or_else(|| text::natural_length(seed));
    let output_tokens = wanted.min(longest - prompt_tokens);
    if output_tokens < wanted {
        *ends = Ends::Length;
    }
    let id = JobId(0);
    Ok(Job {
        id,
        prompt_tokens,
        output_tokens,
        block_hashes: Vec::new(),
        adapter: None,
    })
}

fn prompts(api: Api, wire: &Wire) -> Result<Vec<Vec<u8>>, Problem> {
    let missing = |field: &str| {
        let loc = format!("body.{field}");
        let message = format!("{{'type': 'missing', 'loc': '{loc}', 'msg': 'Field required'}}");
        Problem::invalid(&loc, message)
    };
    match api {
        Api::Chat | Api::Messages => {
            let messages = wire.messages.as_ref().ok_or_else(|| missing("messages"))?;
            if messages.is_empty() {
                return Err(Problem::no_messages());
            }
            Ok(vec![render(wire, messages)])
        }
        Api::Completions => several(
            "prompt",
            wire.prompt.as_ref().ok_or_else(|| missing("prompt"))?,
        ),
        Api::Embeddings => several(
            "input",
            wire.input.as_ref().ok_or_else(|| missing("input"))?,
        ),
    }
}

/// A string, token ids, or an array of either.
fn several(field: &str, value: &Value) -> Result<Vec<Vec<u8>>, Problem> {
    let wrong = || Problem::invalid(&format!("body.{field}"), "string or token ids expected");
    match value {
        Value::String(text) => Ok(vec![text.clone().into_bytes()]),
        Value::Array(items) if items.iter().all(Value::is_u64) && !items.is_empty() => {
            Ok(vec![token_ids(items)])
        }
        Value::Array(items) if !items.is_empty() => {
            let each = items.iter().map(|item| match item {
                Value::String(text) => Ok(text.clone().into_bytes()),
                Value::Array(ids) if ids.iter().all(Value::is_u64) => Ok(token_ids(ids)),
                _ => Err(wrong()),
            });
            each.collect()
        }
        _ => Err(wrong()),
    }
}

/// One token per id, whatever the tokenizer would say.
fn token_ids(ids: &[Value]) -> Vec<u8> {
    let each = ids.iter().filter_map(Value::as_u64);
    each.flat_map(|id| u32::try_from(id).unwrap_or(u32::MAX).to_le_bytes())
        .collect()
}

/// A chat template: what the engine would see. It ends where the answer begins, so the next turn
/// of the conversation begins with this prompt and its answer.
fn render(wire: &Wire, messages: &[Message]) -> Vec<u8> {
    let mut out = String::new();
    if let Some(tools) = &wire.tools {
        turn(&mut out, "tools", &tools.to_string());
    }
    if let Some(system) = &wire.system {
        turn(&mut out, "system", &plain_text(system));
    }
    for message in messages {
        let mut content = message.content.as_ref().map(plain_text).unwrap_or_default();
        if let Some(calls) = &message.tool_calls {
            content.push_str(&calls.to_string());
        }
        turn(&mut out, &message.role, &content);
    }
    out.push_str("<|assistant|>\n");
    out.into_bytes()
}

fn turn(out: &mut String, role: &str, content: &str) {
    for piece in ["<|", role, "|>\n", content, "\n"] {
        out.push_str(piece);
    }
}

/// The text of a content: a string, or parts of which the text ones are joined.
fn plain_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let each = parts
                .iter()
                .map(|part| match part.get("text").and_then(Value::as_str) {
                    Some(text) => text.to_owned(),
                    None => part.to_string(),
                });
            each.collect()
        }
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
