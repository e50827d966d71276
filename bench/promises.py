#!/usr/bin/env python3
"""promises.py [MODULE...]: runs the drills of docs/promises.md at full length against a release build and
writes what they measured, beside what is promised, into the page, with dates and machine. Exit code 1 when a
drill failed or a figure is worse than promised. All drills take about half an hour, a third of it the soak;
with modules named, such as `failover`, only those run and the other rows stay. `just promises` calls it."""

import datetime
import os
import pathlib
import platform
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "promises.md"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
LONGEST_SECONDS = 1800
SOAK_SECONDS = 600

# What is promised: name of the figure, words, whether it is the most or the least, how much, how it is written.
PROMISES = [
    ("event_added_p99_ms", "added to an event, 200 streams at a time, 99th percentile", "at most", 1.0, "{:.2f} ms"),
    ("cancel_p99_ms", "from a client's leaving to the server's seeing it, 99th percentile over all ways and moments", "at most", 50.0, "{:.1f} ms"),
    ("aborts", "random aborts", "at least", 100_000, "{:,.0f}"),
    ("aborts_memory_growth_percent", "memory of the second half of them over that of the first", "at most", 2.0, "{:.1f} %"),
    ("failover_500_failures", "failures that clients see of a server that answers 500", "at most", 0, "{:.0f}"),
    ("failover_hang_failures", "of one that hangs, where a try has a limit", "at most", 0, "{:.0f}"),
    ("failover_silence_failures", "of one that hangs without such a limit", "at most", 5, "{:.0f}"),
    ("failover_reset_failures", "of one that resets in mid-stream", "at most", 5, "{:.0f}"),
    ("failover_slow_failures", "of one that is ten times slower", "at most", 0, "{:.0f}"),
    ("failover_slow_requests", "requests that still go to one that is ten times slower, of 100", "at most", 5, "{:.0f}"),
    ("failover_500_used_again_s", "until it is used again once cured: after 500", "at most", 2.0, "{:.1f} s"),
    ("failover_hang_used_again_s", "after a hang", "at most", 2.0, "{:.1f} s"),
    ("failover_silence_used_again_s", "after a hang without such a limit", "at most", 2.0, "{:.1f} s"),
    ("failover_reset_used_again_s", "after resets", "at most", 2.0, "{:.1f} s"),
    ("failover_slow_used_again_s", "after being slow", "at most", 2.0, "{:.1f} s"),
    ("memory.never_read.clients", "clients that never read their answers", "at least", 2_000, "{:,.0f}"),
    ("memory.never_read.resident_mib", "most memory then, with `--memory-limit 96MiB`", "at most", 96, "{:.0f} MiB"),
    ("memory.http2_short.clients", "clients of HTTP/2 with 20 requests each that never read short answers", "at least", 900, "{:,.0f}"),
    ("memory.http2_short.resident_mib", "most memory then, too, with `--memory-limit 64MiB`", "at most", 64, "{:.0f} MiB"),
    ("memory.http2_long.resident_mib", "the same with answers of 64 KiB", "at most", 64, "{:.0f} MiB"),
    ("memory.http2_events.resident_mib", "the same with event streams", "at most", 64, "{:.0f} MiB"),
    ("memory.bodies.resident_mib", "most memory with 200 bodies of 30 MB at once and `--memory-limit 512MiB`", "at most", 512, "{:.0f} MiB"),
    ("memory.names.requests", "requests, each with another model, key and prompt", "at least", 1_000_000, "{:,.0f}"),
    ("memory.names.resident_mib", "most memory then, with `--memory-limit 64MiB`", "at most", 64, "{:.0f} MiB"),
    ("soak.seconds", "soak: slow readers, aborts, broken requests and reloads", "at least", SOAK_SECONDS, "{:.0f} s"),
    ("soak.growth_percent", "memory of its last half over the half before", "at most", 2.0, "{:.2f} %"),
    ("drain.streams_whole", "streams that end whole after SIGTERM, all that were open", "at least", 500, "{:.0f}"),
    ("churn.reloads", "reloads under load, one a second, with members replaced", "at least", 60, "{:.0f}"),
    ("churn.requests_none_failed", "requests meanwhile, none of which failed", "at least", 1_000, "{:,.0f}"),
    ("churn.edits", "broken edits, each refused with its place or applied", "at least", 5_000, "{:,.0f}"),
    ("tls_flood_slowest_ms", "slowest of 100 answers during a flood of TLS handshakes", "at most", 2000.0, "{:.0f} ms"),
]


def machine() -> str:
    models = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    kernel = platform.release().split("-")[0]
    return f"{len(models)} cores of {models[0] if models else platform.machine()}, Linux {kernel}"


def modules(page: str) -> list[str]:
    """All that the page links to; what takes longest comes last."""
    named = dict.fromkeys(re.findall(r"\[`(\w+)::", page))
    return sorted(named, key=lambda name: name in ("memory", "soak"))


def run(module: str, environment: dict) -> tuple[bool, dict]:
    command = ["cargo", "test", "-q", "-p", "penstock", "--test", "it", "--", f"{module}::", "--nocapture", "--test-threads", "1"]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"{module:10} BROKEN: no end after {LONGEST_SECONDS} s", flush=True)
        return False, {}
    passed = re.search(r"test result: ok\. ([1-9]\d*) passed", done.stdout)
    held = done.returncode == 0 and passed is not None
    print(f"{module:10} {f'held, {passed[1]} drills' if held else 'BROKEN'}", flush=True)
    if not held:
        print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr, flush=True)
    found = re.findall(r"measured: (\S+) (\S+)", done.stdout)
    return held, {name: float(value) for name, value in found}


def table(figures: dict, before: str, today: str) -> tuple[bool, list[str]]:
    """The rows; those of figures that were not measured now are kept."""
    known = {row.split(" | ")[0]: row for row in before.splitlines()}
    held, rows = True, ["| What | Promised | Measured | On |", "|---|---|---|---|"]
    for name, words, bound, promised, form in PROMISES:
        value = figures.get(name)
        if value is None:
            held &= f"| {words}" in known
            rows.append(known.get(f"| {words}", f"| {words} | {bound} {form.format(promised)} | **not measured** | |"))
            continue
        kept = round(value, 2) <= promised if bound == "at most" else value >= promised
        held &= kept
        shown = form.format(value) if kept else f"**{form.format(value)}**"
        rows.append(f"| {words} | {bound} {form.format(promised)} | {shown} | {today} |")
    return held, rows


def main() -> int:
    subprocess.run(["cargo", "build", "-q", "--release", "-p", "penstock"], cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    environment = os.environ | {
        "PENSTOCK_PROMISES": "1",
        "PENSTOCK_SOAK_SECONDS": str(SOAK_SECONDS),
        "PENSTOCK_BINARY": str(target / "release" / "penstock"),
    }
    asked = sys.argv[1:] or modules(PAGE.read_text())
    held, figures = True, {}
    for module in asked:
        passed, found = run(module, environment)
        held &= passed
        figures |= found
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    old, after = rest.split(END)
    kept, rows = table(figures, old, datetime.date.today().isoformat())
    text = f"By `just promises` on {machine()}; figures that are worse than promised are bold.\n\n" + "\n".join(rows)
    print("\n" + text)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    return 0 if held and kept else 1


if __name__ == "__main__":
    sys.exit(main())
