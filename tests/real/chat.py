"""Chat requests below the official clients, where every byte of an answer is seen.

An official client hides the closing `[DONE]` and turns an error event into an exception; the checks of
broken streams need to tell these apart. `in_threads` runs any client's calls side by side.
"""

import http.client
import json
import threading
import time
from dataclasses import dataclass, field

from servers import PATIENCE_S, Failed


@dataclass
class Answer:
    """What reached the client for one request."""

    stream: bool
    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    status: int = 0
    endpoint: str = ""
    body_bytes: int = 0
    content_events: int = 0
    finish_reason: str = ""
    error: object = None
    done: bool = False
    broken: str = ""

    def is_complete(self):
        """Everything came, and nothing says otherwise."""
        ended_well = self.done or not self.stream
        return self.status == 200 and ended_well and self.finish_reason in ("length", "stop") and not self.is_marked()

    def is_typed_cut(self):
        """A stream that broke after its first event and says so with an error event as its last word."""
        typed = isinstance(self.error, dict) and self.error.get("message") and self.error.get("type")
        return self.stream and self.status == 200 and self.content_events > 0 and bool(typed) and not self.done

    def is_marked(self):
        return self.error is not None or bool(self.broken)

    def __str__(self):
        kind = "stream" if self.stream else "plain"
        return (
            f"{kind} status={self.status} endpoint={self.endpoint} bytes={self.body_bytes} "
            f"events={self.content_events} finish={self.finish_reason!r} error={self.error!r} "
            f"done={self.done} broken={self.broken!r} after {self.ended - self.started:.2f} s"
        )


def chat_body(text, max_tokens, stream, model="tiny"):
    # The random model may draw its end token at any step: without ignore_eos lengths would differ.
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": stream,
    }


def chat(address, body, answer=None, timeout_s=PATIENCE_S):
    """Sends one chat request on a connection of its own; never raises for what the other side does.

    A caller that wants to watch the answer come passes its own.
    """
    answer = answer or Answer(stream=body["stream"])
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        answer.status = response.status
        answer.endpoint = response.headers.get("x-penstock-endpoint", "")
        if answer.stream and response.status == 200:
            read_stream(response, answer)
        else:
            read_plain(response, answer)
    except (OSError, http.client.HTTPException, ValueError) as problem:
        answer.broken = repr(problem)
    finally:
        connection.close()
        answer.ended = time.monotonic()
    return answer


def read_plain(response, answer):
    text = response.read()
    answer.body_bytes = len(text)
    body = json.loads(text)
    answer.error = body.get("error")
    for choice in body.get("choices", []):
        answer.finish_reason = choice.get("finish_reason") or ""


def read_stream(response, answer):
    while line := response.readline():
        answer.body_bytes += len(line)
        if answer.done and line.strip():
            raise ValueError(f"bytes after [DONE]: {line[:80]!r}")
        if line.startswith(b"data:"):
            read_event(line[5:].strip(), answer)


def read_event(text, answer):
    if text == b"[DONE]":
        answer.done = True
        return
    event = json.loads(text)
    if "error" in event:
        answer.error = event["error"]
    for choice in event.get("choices", []):
        if answer.error is not None:
            raise ValueError("an event of content after the error event")
        answer.content_events += 1
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason


def in_threads(threads, jobs, deadline_s):
    """Calls every job, at most `threads` at once; results in the jobs' order, the first error raised."""
    results = [None] * len(jobs)
    errors = []
    pending = list(enumerate(jobs))
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                if not pending or errors:
                    return
                index, job = pending.pop(0)
            try:
                results[index] = job()
            except Exception as problem:  # any error of any client is this check's failure
                errors.append(problem)

    # Daemons: a request that hangs past the deadline must not keep the program alive.
    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    ends_at = time.monotonic() + deadline_s
    for worker in workers:
        worker.join(max(0.0, ends_at - time.monotonic()))
    if errors:
        raise errors[0]
    if any(worker.is_alive() for worker in workers):
        raise Failed(f"requests still under way after {deadline_s} s")
    return results
