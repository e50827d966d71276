#!/usr/bin/env python3
"""The real-server run: two vLLM replicas behind `penstock run`, checked with the official clients.

Replica 1 has only lora-a, replica 2 only lora-b, and neither reports cached tokens at first; what the
replicas did is read from their own counters. Checks run in the order of CHECKS, each with a deadline; a
failed one does not stop the rest. Breaking replicas is in broken.py. Started by run.sh.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import time
import traceback

import anthropic
import openai

import broken
from chat import chat, chat_body, in_threads
from servers import PATIENCE_S, Failed, Gateway, Replica, get, wait_until

START_SECONDS = 300
MODELS = {"tiny", "lora-a", "lora-b"}
WORDS = "the of to in hello world token cache prefix queue request route replica gateway stream answer".split()


def expect(holds, text):
    if not holds:
        raise Failed(text)


def question(text):
    return [{"role": "user", "content": text}]


class Run:
    """What the checks share: both replicas, the gateway and the official clients."""

    def __init__(self, settings):
        self.settings = settings
        self.replicas = [Replica(1, "lora-a", settings), Replica(2, "lora-b", settings)]
        self.gateway = None
        self.openai = None
        self.anthropic = None

    def start(self):
        for replica in self.replicas:
            replica.start()
        for replica in self.replicas:
            print(f"replica {replica.number} at {replica.url} up after {replica.wait_until_up(START_SECONDS):.0f} s")
        self.gateway = Gateway(self.replicas, self.settings)
        seconds = self.gateway.wait_until_up(60)
        print(f"penstock at {self.gateway.url}, admin {self.gateway.admin_url}, ready after {seconds:.1f} s")
        # No retries of the clients' own: they would hide what the gateway did.
        shared = {"api_key": "unused", "max_retries": 0, "timeout": PATIENCE_S}
        self.openai = openai.OpenAI(base_url=f"{self.gateway.url}/v1", **shared)
        self.anthropic = anthropic.Anthropic(base_url=self.gateway.url, **shared)

    def end(self):
        processes = [replica.process for replica in self.replicas]
        if self.gateway:
            processes.insert(0, self.gateway.process)
        for process in processes:
            if process:
                process.kill()

    def served(self):
        """Requests that each replica has finished, from its own counter."""
        return [replica.count("request_success_total") for replica in self.replicas]

    def wait_for_served(self, before, total):
        """Each replica's share once `total` more requests are counted; the counter trails an answer a little."""

        def shares():
            now = [after - earlier for after, earlier in zip(self.served(), before)]
            return now if sum(now) >= total else None

        return wait_until(shares, PATIENCE_S, f"{total} more requests in the replicas' counters")[0]

    def wait_until_idle(self):
        def is_idle():
            counts = [r.count(f"num_requests_{state}") for r in self.replicas for state in ("running", "waiting")]
            return not any(counts)

        wait_until(is_idle, PATIENCE_S, "both replicas idle")

    def wait_until_trusted(self):
        """A replica that looked slow while it compiled gets no requests until it has shown that it is not."""
        wait_until(lambda: self.gateway.healthy() == len(self.replicas), PATIENCE_S, "both replicas in use again")


def lists_all_models(run):
    def listed():
        names = {model.id for model in run.openai.models.list()}
        return names if names == MODELS else None

    _, seconds = wait_until(listed, PATIENCE_S, f"/v1/models listing exactly {sorted(MODELS)}")
    return f"all three names {seconds:.1f} s after readiness"


def refuses_an_unknown_model(run):
    before = run.served()
    try:
        run.openai.chat.completions.create(model="tinny", messages=question("hello"), max_tokens=4)
    except openai.NotFoundError as problem:
        expect(problem.code == "model_not_found", f"code {problem.code!r}, body {problem.body}")
        expect(run.served() == before, "a replica served the request")
        return str(problem.body.get("message"))
    raise Failed("the request was answered")


def reports_usage_and_headers(run):
    sent = "real-run-request-1"
    create = run.openai.chat.completions.with_raw_response.create
    raw = create(
        model="tiny",
        messages=question("hello"),
        max_tokens=5,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
        extra_headers={"x-request-id": sent},
    )
    usage = [chunk.usage for chunk in raw.parse() if chunk.usage]
    expect(len(usage) == 1, f"{len(usage)} chunks with usage")
    expect(usage[0].completion_tokens == 5 and usage[0].prompt_tokens > 0, f"usage {usage[0]}")
    expect(raw.headers.get("x-request-id") == sent, f"x-request-id {raw.headers.get('x-request-id')!r}")
    endpoint = raw.headers.get("x-penstock-endpoint", "")
    known = any(replica.address in endpoint for replica in run.replicas)
    expect(known, f"x-penstock-endpoint {endpoint!r} is no replica's address")
    raw = create(model="tiny", messages=question("hello"), max_tokens=2)
    expect(raw.headers.get("x-request-id"), "no x-request-id made where the client sent none")
    return f"endpoint {endpoint}"


def completes_200_streams_over_both(run):
    before, probes_before = run.served(), run.gateway.probes()

    def one(number):
        stream = run.openai.chat.completions.create(
            model="tiny",
            messages=question(f"{number} please explain the cache"),
            max_tokens=16,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        reasons = [choice.finish_reason for chunk in stream for choice in chunk.choices if choice.finish_reason]
        expect(reasons == ["length"], f"stream {number} finished with {reasons}")

    in_threads(8, [lambda n=n: one(n) for n in range(200)], 2 * PATIENCE_S)
    shares = run.wait_for_served(before, 200)
    # A replica that compiles at its first requests looks slow, and the gateway asks it itself.
    probes = run.gateway.probes() - probes_before
    expect(200 <= sum(shares) <= 200 + probes, f"the replicas served {shares}, not 200 in all and {probes:.0f} probes")
    # Not half and half: each replica has one core, and what else runs there makes it slower, at times tenfold.
    expect(min(shares) >= 10, f"shares {shares}: both replicas should serve")
    return f"shares {shares[0]:.0f} and {shares[1]:.0f}"


def ends_streams_with_done(run):
    body = chat_body("hello there", 12, True)
    answers = in_threads(8, [lambda: chat(run.gateway.address, body)] * 40, PATIENCE_S)
    bad = [str(answer) for answer in answers if not answer.is_complete()]
    expect(not bad, f"{len(bad)} of 40 incomplete: {bad[:3]}")
    return "40 raw streams with finish_reason and [DONE], nothing after it"


def held_by(address, why):
    """Blocks of the prompt that this endpoint is believed to hold, in the table of `penstock why`; None
    where it has no row, as it was left out for being slow."""
    rows = [line.split() for line in why.splitlines() if line.startswith(f"  {address} ")]
    # endpoint, five terms, their sum, held: "7/9".
    return int(rows[0][7].partition("/")[0]) if rows else None


class PrefixTrial:
    """Twelve long system prompts, each first asked once, all at the same time, then each twice more."""

    ROUNDS = 2
    # Whether load spreads the prompts depends on the speed of both cores at that moment.
    MOST_PRIMINGS = 6
    # A replica that has just been slow is rightly left although it holds a prefix: what counts is the first
    # token. A gateway that does not follow prefixes meets about 0.6 of them, every time, and one that forgot
    # where a prefix is fails at once.
    TRIES = 3
    SHARE = 0.95

    def __init__(self, run):
        self.run = run
        self.homes = {}

    def ask(self, prompt, text, max_tokens):
        return self.run.openai.chat.completions.with_raw_response.create(
            model="tiny",
            messages=[{"role": "system", "content": prompt}, *question(text)],
            max_tokens=max_tokens,
            extra_body={"ignore_eos": True},
        )

    def hits(self):
        return [replica.count("prefix_cache_hits_total") for replica in self.run.replicas]

    def prime(self):
        """Side by side, so that load spreads them over both replicas: else one replica would hold them all."""
        seen = []
        for _ in range(self.MOST_PRIMINGS):
            # New text every time: no replica may know it already.
            prompts = [" ".join(random.choice(WORDS) for _ in range(400)) for _ in range(12)]
            before = self.run.served()
            answers = in_threads(12, [lambda p=p: self.ask(p, "first", 64) for p in prompts], PATIENCE_S)
            shares = self.run.wait_for_served(before, len(prompts))
            if min(shares) >= 3:
                self.homes = {p: raw.headers["x-penstock-endpoint"] for p, raw in zip(prompts, answers)}
                return shares
            seen.append(shares)
            time.sleep(2)
        raise Failed(f"the prompts were never spread over the replicas: {seen}")

    def measure(self):
        """Hit tokens of the follow-ups, those that perfect placement gives, and the follow-ups' usage."""
        self.run.wait_until_idle()
        self.run.wait_until_trusted()
        before = self.hits()
        follow_ups = list(self.homes) * self.ROUNDS
        random.shuffle(follow_ups)
        answers = [self.ask(prompt, f"and {n}", 4) for n, prompt in enumerate(follow_ups)]
        self.run.wait_until_idle()
        hit_tokens = sum(self.hits()) - sum(before)
        usages = [raw.parse().usage for raw in answers]
        # Only whole blocks of 32 tokens can hit; at most 32 tokens of a prompt are the question and the frame.
        wanted = sum((usage.prompt_tokens - 32) // 32 * 32 for usage in usages)
        self.explain_strays(follow_ups, answers)
        return hit_tokens, wanted, usages

    def explain_strays(self, follow_ups, answers):
        """Whoever went elsewhere did so although the gateway knew where its prefix is."""
        for prompt, raw in zip(follow_ups, answers):
            home = self.homes[prompt]
            if raw.headers["x-penstock-endpoint"] == home:
                continue
            why = self.run.gateway.why(raw.headers["x-penstock-decision"], "--admin", self.run.gateway.admin_url)
            expect(held_by(home, why) != 0, f"{home} is not known to hold the prefix:\n{why}")
            print(f"a follow-up went elsewhere than to {home}:\n{why}")

    def follow(self):
        """What became of the first try whose follow-ups met their prefixes, and the usage of its answers."""
        seen = []
        for number in range(1, self.TRIES + 1):
            shares = self.prime()
            hit_tokens, wanted, usages = self.measure()
            spread = " and ".join(f"{share:.0f}" for share in shares)
            seen.append(f"{hit_tokens:.0f} tokens hit of {wanted} that can, prompts spread {spread}")
            if hit_tokens >= self.SHARE * wanted:
                return f"{seen[-1]} (try {number})", usages
        raise Failed("; ".join(seen))


def follows_shared_prefixes_unreported(run):
    told, usages = PrefixTrial(run).follow()
    reported = [usage.prompt_tokens_details for usage in usages if usage.prompt_tokens_details]
    expect(not reported, f"cached-token reporting is on: {reported[:1]}")
    return told


def follows_shared_prefixes_reported(run):
    """After replica 2 came back with cached-token reporting on."""
    told, usages = PrefixTrial(run).follow()
    details = [usage.prompt_tokens_details for usage in usages]
    reported = sum(detail.cached_tokens or 0 for detail in details if detail)
    expect(reported > 0, "no answer reported cached tokens")
    return f"{told}, {reported} of them reported in usage"


def sends_adapters_home(run):
    # The premise, at the replica itself: without the adapter it answers 404.
    for replica, other in zip(run.replicas, reversed(run.replicas)):
        answer = chat(replica.address, chat_body("hello", 2, False, other.adapter))
        expect(answer.status == 404, f"replica {replica.number} has {other.adapter}: {answer}")

    def one(adapter, number):
        answer = run.openai.chat.completions.create(
            model=adapter, messages=question(f"{number} hello"), max_tokens=8, extra_body={"ignore_eos": True}
        )
        expect(answer.choices[0].finish_reason == "length", f"{adapter}: {answer.choices[0]}")
        expect(answer.model == adapter, f"{adapter} answered as {answer.model}")

    before, probes_before = run.served(), run.gateway.probes()
    adapters = [run.replicas[number % 2].adapter for number in range(40)]
    in_threads(4, [lambda a=a, n=n: one(a, n) for n, a in enumerate(adapters)], PATIENCE_S)
    shares = run.wait_for_served(before, 40)
    most = 20 + run.gateway.probes() - probes_before
    expect(all(20 <= share <= most for share in shares), f"the replicas served {shares}, not 20 each")
    return "20 of each served where the adapter is"


class CancelTrial:
    """One long answer whose client leaves early; what the engine made of it is read from its counters."""

    WANTED = 1900
    READ = 5
    # A replica whose front stalls gives nothing out until its engine has the whole answer, or hears of the
    # cancel only then. Nobody can cancel that; a gateway that never cancels fails every time.
    TRIES = 5

    def __init__(self, run):
        self.run = run

    def at_rest(self):
        """Tokens generated so far, in a list; none while a request is under way."""
        counters = [replica.counters() for replica in self.run.replicas]

        def total(name):
            return sum(counts.get(f"vllm:{name}", 0.0) for counts in counters)

        busy = total("num_requests_running") + total("num_requests_waiting")
        return [] if busy else [total("generation_tokens_total")]

    def tokens(self):
        """How many the engine generated, and the seconds until it was seen at rest."""
        before, _ = wait_until(self.at_rest, PATIENCE_S, "a count of tokens at rest")

        def stays_at_rest():
            first = self.at_rest()
            time.sleep(3)
            return first if first == self.at_rest() and first > before else []

        stream = self.run.openai.chat.completions.create(
            model="tiny",
            messages=question("write on"),
            max_tokens=self.WANTED,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        chunks = (chunk for chunk in stream for choice in chunk.choices if choice.delta.content)
        seen = sum(1 for _ in zip(range(self.READ), chunks))
        stream.close()
        expect(seen == self.READ, f"the stream ended after {seen} chunks")
        after, seconds = wait_until(stays_at_rest, PATIENCE_S, "the engine at rest after the cancelled request")
        return after[0] - before[0], seconds


def frees_the_engine_on_cancel(run):
    """The engine stops in the middle of an answer whose client has gone, however long it takes to say so."""
    trial = CancelTrial(run)
    for number in range(1, trial.TRIES + 1):
        tokens, seconds = trial.tokens()
        expect(trial.READ <= tokens <= trial.WANTED, f"{tokens:.0f} tokens generated, {trial.READ} read")
        if tokens < trial.WANTED:
            return f"at rest {seconds:.1f} s later, after {tokens:.0f} of {trial.WANTED} tokens (try {number})"
    raise Failed(f"the engine generated all {trial.WANTED} tokens, {trial.TRIES} times of {trial.TRIES}")


def why_explains_the_last_decision(run):
    raw = run.openai.chat.completions.with_raw_response.create(
        model="tiny", messages=question("why here"), max_tokens=2
    )
    text = run.gateway.why("last", "--admin", run.gateway.admin_url)
    for replica in run.replicas:
        expect(replica.address in text, f"{replica.address} is not in the explanation:\n{text}")
    number = raw.headers.get("x-penstock-decision")
    expect(number, "no x-penstock-decision in the answer")
    text = run.gateway.why(number, "--admin", run.gateway.admin_url)
    expect(run.replicas[0].address in text, f"`why {number}` explains nothing:\n{text}")
    return f"both candidates explained, decision {number} found"


def replays_its_decisions(run):
    file = os.path.join(run.settings.logs, "decisions.jsonl")
    run.gateway.why("--save", file, "--admin", run.gateway.admin_url)
    with open(file, encoding="utf-8") as lines:
        count = sum(1 for line in lines if line.strip())
    expect(count >= 100, f"only {count} decisions recorded")
    run.gateway.why("--replay", file)
    return f"{count} decisions give the same winner again"


def not_ended_by_chance(ask):
    """vLLM's Messages API knows no ignore_eos, and a model of random weights may end at any token."""
    for _ in range(4):
        answer = ask()
        if answer.stop_reason != "end_turn":
            break
    return answer


def serves_the_anthropic_client(run):
    request = {"model": "tiny", "max_tokens": 6, "messages": question("hello")}
    message = not_ended_by_chance(lambda: run.anthropic.messages.create(**request))
    expect(message.stop_reason == "max_tokens" and message.content[0].text, f"{message}")
    expect(message.usage.output_tokens == 6, f"usage {message.usage}")
    pieces = []

    def streamed():
        with run.anthropic.messages.stream(**request) as stream:
            pieces[:] = stream.text_stream
            return stream.get_final_message()

    final = not_ended_by_chance(streamed)
    expect(pieces and "".join(pieces) == final.content[0].text, f"{pieces} against {final}")
    expect(final.stop_reason == "max_tokens" and final.usage.output_tokens == 6, f"{final}")
    try:
        run.anthropic.messages.create(**{**request, "model": "tinny"})
    except anthropic.NotFoundError as problem:
        expect(problem.body.get("type") == "error", f"not an error of the Anthropic form: {problem.body}")
        return "plain, streamed, and an unknown model's 404"
    raise Failed("an unknown model was answered")


def lives_on(run):
    process = run.gateway.process
    expect(process.is_alive(), f"penstock ended with {process.child.returncode}, see {process.log}")
    expect(get(f"{run.gateway.admin_url}/livez") is not None, "/livez gives no answer")
    expect(process.end(), "penstock did not end within 30 s of SIGTERM")
    return f"until SIGTERM, exit code {process.child.returncode}"


# In order, each with its deadline in seconds: what it takes at most in all, its waits for replicas included,
# unless several of them stall. Restarts wait for a vLLM to load.
CHECKS = [
    (lists_all_models, PATIENCE_S + 30),
    (refuses_an_unknown_model, PATIENCE_S + 30),
    (reports_usage_and_headers, PATIENCE_S + 30),
    (completes_200_streams_over_both, 3 * PATIENCE_S),
    (ends_streams_with_done, PATIENCE_S + 30),
    (follows_shared_prefixes_unreported, 2 * PATIENCE_S),
    (sends_adapters_home, 2 * PATIENCE_S),
    (frees_the_engine_on_cancel, 2 * PATIENCE_S),
    (why_explains_the_last_decision, PATIENCE_S + 30),
    (serves_the_anthropic_client, PATIENCE_S + 30),
    (broken.survives_a_killed_server, 3 * PATIENCE_S),
    (broken.uses_the_restarted_replica, START_SECONDS + 2 * PATIENCE_S),
    (follows_shared_prefixes_reported, 2 * PATIENCE_S),
    (broken.survives_a_killed_engine, 3 * PATIENCE_S),
    (broken.uses_the_other_restarted_replica, START_SECONDS + 2 * PATIENCE_S),
    (broken.survives_a_server_asked_to_stop, 3 * PATIENCE_S),
    (replays_its_decisions, 90),
    (lives_on, 90),
]


@contextlib.contextmanager
def deadline(seconds):
    def expire(*_):
        raise Failed(f"not done within {seconds} s")

    signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def perform(run, check, seconds):
    """Runs one check and prints its line; whether it passed."""
    name = check.__name__.replace("_", " ")
    started = time.monotonic()
    try:
        with deadline(seconds):
            detail = check(run)
        verdict = "PASS"
    except Failed as problem:
        verdict, detail = "FAIL", str(problem)
    except Exception as problem:  # a client's own exception is this check's failure, and the rest still run
        traceback.print_exc()
        verdict, detail = "FAIL", repr(problem)
    print(f"{verdict} {name} ({time.monotonic() - started:.1f} s): {detail}", flush=True)
    return verdict == "PASS"


def main():
    parser = argparse.ArgumentParser(description="Check penstock in front of two real vLLM replicas.")
    for name in ("venv", "models", "logs", "penstock"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--only", default="", help="run only checks whose name contains this text")
    settings = parser.parse_args()
    # SIGTERM unwinds like an exception, so that every process is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    run = Run(settings)
    chosen = [(check, seconds) for check, seconds in CHECKS if settings.only in check.__name__]
    try:
        run.start()
        results = [perform(run, check, seconds) for check, seconds in chosen]
    except Failed as problem:
        print(f"FAIL start: {problem}")
        return 1
    finally:
        run.end()
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
