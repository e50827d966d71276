"""Checks that break a vLLM replica in the middle of a load, and bring it back.

Three ways to go, because a server looks different in each: the whole process group killed (connections
drop); only the engine killed (vLLM sends an error event, then a clean `[DONE]`, and exits); SIGTERM (what
vLLM does varies: finish_reason "abort" or no finish_reason at all and then a clean `[DONE]`, the error
event, or silence until it is killed). Of every request it must hold: it succeeds, or it is a stream that
had begun and whose last word is a typed error event.
"""

import os
import random
import signal
import subprocess
import threading
import time

from chat import Answer, chat, chat_body
from servers import PATIENCE_S, Failed, wait_until

RESTART_SECONDS = 300
# Lengths vary and every thread takes turns between streamed and plain, so that neither kind settles on one
# replica and the requests do not run in step. Long, because on a busy machine a client reads what its
# replica gave out a hundred tokens ago.
ANSWER_TOKENS = (300, 600)
# A replica that had already given out all that was asked of it when it broke shows nothing.
MOST_TRIES = 3
# What an orchestrator leaves between SIGTERM and SIGKILL; vLLM may hold on to its connections that long.
GRACE_SECONDS = 8


class NothingShown(Exception):
    """Nothing went wrong, but the replica broke at a moment that cut no stream."""


class Load:
    """Chats without pause from threads of their own, until told to stop; answers are collected."""

    def __init__(self, address, threads, plain_too):
        self.address = address
        self.answers = []
        self.under_way = {}
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self.work, args=(number, plain_too), daemon=True) for number in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    def work(self, thread, plain_too):
        turn = thread
        while not self.stopping.is_set():
            turn += 1
            stream = turn % 2 == 0 or not plain_too
            body = chat_body(f"{thread} {turn} hello world", random.randint(*ANSWER_TOKENS), stream)
            self.under_way[thread] = Answer(stream)
            self.answers.append(chat(self.address, body, self.under_way[thread]))

    def streams_in_the_middle(self, replica):
        """Streams from this replica that have begun and will not end in the next moment."""
        return sum(
            answer.stream and replica.address in answer.endpoint and 5 < answer.content_events < ANSWER_TOKENS[0] // 2
            for answer in list(self.under_way.values())
        )

    def stop(self):
        self.stopping.set()
        # Longer than any of them waits for a byte.
        ends_at = time.monotonic() + PATIENCE_S + 30
        for thread in self.threads:
            thread.join(max(0.0, ends_at - time.monotonic()))
        if any(thread.is_alive() for thread in self.threads):
            raise Failed("requests hang after the replica was broken")


def judge(answers, broken_at, cuts_wanted):
    bad = [str(answer) for answer in answers if not answer.is_complete() and not answer.is_typed_cut()]
    if bad:
        raise Failed(f"{len(bad)} of {len(answers)} neither complete nor a typed cut: " + "; ".join(bad[:4]))
    cut = [answer for answer in answers if answer.is_typed_cut()]
    straddling = [answer for answer in answers if answer.started < broken_at < answer.ended]
    plain = sum(not answer.stream for answer in straddling)
    after = sum(answer.started > broken_at for answer in answers)
    # Without streams on the broken replica and requests after it, the check would have shown nothing.
    if len(cut) < cuts_wanted or after < 10:
        raise NothingShown(f"{len(cut)} streams cut, {len(straddling)} under way, {after} after")
    return (
        f"{len(answers)} requests, {len(straddling)} under way at that moment ({plain} not streamed), "
        f"{len(cut)} streams cut with a typed error, e.g. {cut[0].error if cut else None}, {after} after it"
    )


def break_until_shown(run, replica, break_it, plain_too=True):
    for tries in range(1, MOST_TRIES + 1):
        try:
            return f"{break_under_load(run, replica, break_it, plain_too)} (try {tries})"
        except NothingShown as problem:
            if tries == MOST_TRIES:
                raise Failed(f"nothing shown in {tries} tries, at last {problem}") from problem
            restart(run, replica)


def break_under_load(run, replica, break_it, plain_too):
    run.wait_until_idle()
    load = Load(run.gateway.address, 10, plain_too)
    try:
        wait_until(lambda: len(load.answers) >= 10, PATIENCE_S, "a load of chats")
        wait_until(lambda: load.streams_in_the_middle(replica) >= 2, PATIENCE_S, "two streams from the replica")
        broken_at = time.monotonic()
        break_it(replica)
        wait_until(lambda: len(load.answers) >= 30 and time.monotonic() > broken_at + 6, PATIENCE_S, "a load that goes on")
    finally:
        load.stop()
    return judge(load.answers, broken_at, cuts_wanted=1)


def restart(run, replica, *options):
    """Waits until the restarted replica serves again what comes through the gateway."""
    replica.process.kill()
    replica.start(*options)
    up_s = replica.wait_until_up(RESTART_SECONDS)
    load = Load(run.gateway.address, 8, True)
    try:
        _, served_s = wait_until(
            lambda: replica.count("request_success_total") >= 5, PATIENCE_S, f"replica {replica.number} used again"
        )
    finally:
        load.stop()
    bad = [str(answer) for answer in load.answers if not answer.is_complete()]
    if bad:
        raise Failed(f"{len(bad)} of {len(load.answers)} failed: {bad[:3]}")
    return f"up after {up_s:.0f} s, 5 requests finished there {served_s:.1f} s later"


def kill_engine(replica):
    """vLLM's engine is the server's child process of that name; the server notices and exits by itself."""
    children = subprocess.run(
        ["ps", "-o", "pid=,comm=", "--ppid", str(replica.process.child.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    engines = [line.split()[0] for line in children.stdout.splitlines() if "Engine" in line]
    if len(engines) != 1:
        raise Failed(f"no engine among the children: {children.stdout!r}")
    os.kill(int(engines[0]), signal.SIGKILL)


def survives_a_killed_server(run):
    return break_until_shown(run, run.replicas[1], lambda replica: replica.process.kill())


def uses_the_restarted_replica(run):
    return restart(run, run.replicas[1], "--enable-prompt-tokens-details")


def survives_a_killed_engine(run):
    return break_until_shown(run, run.replicas[0], kill_engine)


def uses_the_other_restarted_replica(run):
    return restart(run, run.replicas[0])


def ask_to_stop(replica):
    replica.process.child.send_signal(signal.SIGTERM)
    threading.Timer(GRACE_SECONDS, replica.process.signal_group, [signal.SIGKILL]).start()


def survives_a_server_asked_to_stop(run):
    # Streams only: to a plain request vLLM may give a 200 with the text so far and finish_reason "abort".
    return break_until_shown(run, run.replicas[1], ask_to_stop, plain_too=False)
