"""What can go wrong, by name: how it is caused, and the text of docs/errors.md for it.

A cause is sent to the rule of the gateway that the field `x-case` names. `swap` changes the bytes or fields
that the client would send, below it, so that its own checks do not stand in the way.
"""

from dataclasses import dataclass, field


@dataclass
class Cause:
    name: str
    what: str
    case: str = ""
    stream: bool = False
    model: str = "llama"
    body: bytes | None = None
    fields: dict = field(default_factory=dict)
    target: str | None = None
    slow: bool = False
    gateway: str = "main"


def status(code: int, what: str) -> Cause:
    return Cause(f"server-{code}", f"The server itself answers {what}", f"status-{code}")


LARGE = b'{"model":"llama","messages":[{"role":"user","content":"' + b"a" * (65 << 20) + b'"}]}'

CAUSES = [
    Cause("nowhere", "No route matches", "nowhere"),
    Cause("models", "No server has the model", "models", model="unheard-of"),
    Cause("weightless", "A rule without a backend that has a weight", "weightless"),
    Cause("missing", "A backend that does not exist", "missing"),
    Cause("filtered", "A filter that is not supported", "filtered"),
    Cause("empty-pool", "A pool without members", "empty-pool"),
    Cause("empty-service", "A Service without endpoints", "empty-service"),
    Cause("dead", "The only server of a pool refuses connections", "dead"),
    Cause("dead-service", "The only server of a Service refuses connections", "dead-service"),
    Cause("closes", "The server closes without an answer", "closes"),
    Cause("resets", "The server resets without an answer", "resets"),
    Cause("breaks-off", "The server closes within its response head", "breaks-off"),
    Cause("babbles", "The server answers something that is no HTTP", "babbles"),
    Cause("smuggles", "The server answers with two lengths", "smuggles"),
    Cause("slow-try", "No response head within `backendRequest`", "slow-try"),
    Cause("slow", "No response head within `request`", "slow"),
    Cause("slow-stream", "`request` passes in mid-stream", "slow-stream", stream=True),
    Cause("silent-stream", "The server falls silent in mid-stream", "silent-stream", stream=True),
    Cause("sheddable", "A saturated pool and a sheddable model", gateway="saturated", model="cheap"),
    Cause("queue-full", "A saturated pool and a full queue", gateway="full"),
    Cause("queue-late", "A saturated pool and no turn in time", gateway="saturated"),
    Cause("engine-500", "Every server answers 500", "engine-500"),
    Cause("engine-503", "Every server answers 503", "engine-503"),
    Cause("engine-429", "Every server answers 429", "engine-429"),
    Cause("first-event", "An error event in place of the first token", "first-event", stream=True),
    Cause("first-400", "An error event of status 400 in place of the first token", "first-400", stream=True),
    Cause("cut-reset", "The server resets in mid-stream", "cut-reset", stream=True),
    Cause("cut-truncate", "The stream ends without its end mark", "cut-truncate", stream=True),
    Cause("cut-error", "An error event in mid-stream", "cut-error", stream=True),
    Cause("json-reset", "The server resets in the middle of a JSON answer", "cut-reset"),
    Cause("json-truncate", "The server closes in the middle of a JSON answer", "cut-truncate"),
    status(400, "400, for a prompt that is too long"),
    status(401, "401"),
    status(403, "403"),
    status(404, "404"),
    status(409, "409"),
    status(413, "413"),
    status(422, "422"),
    Cause("too-large", "A body of more than 64 MiB", "fine", body=LARGE),
    Cause("not-object", "A body that is no JSON object", "fine", body=b"[1, 2]"),
    Cause("not-json", "A body that is no JSON", "fine", body=b'{"model": llama}'),
    Cause("truncated", "A body that ends in the middle", "fine", body=b'{"model":"llama","messages":['),
    Cause("not-string", "A `model` that is no string", "fine", body=b'{"model":5}'),
    Cause("duplicate", "A `model` that stands twice", "fine", body=b'{"model":"llama","model":"other"}'),
    Cause("escaped", "A `model` that is spelt with escapes", "fine", body=b'{"\\u006dodel":"llama"}'),
    Cause("late-body", "A body that does not come in time", "fine", slow=True),
    Cause("large-head", "A head of more than 32 KiB", "fine", fields={"x-large": "a" * (33 << 10)}),
    Cause("many-fields", "More than 100 fields", "fine", fields={f"x-{n}": "a" for n in range(101)}),
    Cause("long-target", "A target of more than 8 KiB", "fine", target="/" + "a" * (9 << 10)),
    Cause("expectation", "An unknown `Expect`", "fine", fields={"expect": "wonders"}),
    Cause("bad-host", "A `Host` that is no name", "fine", fields={"host": "a b"}),
    Cause("options", "More than 64 options of `Connection`", "fine",
          fields={"connection": ",".join(f"x-{n}" for n in range(65))}),
]
