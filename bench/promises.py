#!/usr/bin/env python3
"""promises.py: runs the drills at full length against a release build and writes what they measured, beside
what is promised, into docs/promises.md, with date and machine. Exit code 1 when a drill failed or a figure
is worse than promised. Takes about ten minutes. `just promises` calls it."""

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

# What is promised: name of the figure, words, the most that it may be, how it is written.
PROMISES = [
    ("event_added_p99_ms", "added to an event, 200 streams at a time, 99th percentile", 1.0, "{:.2f} ms"),
    ("cancel_p99_ms", "from a client's leaving to the server's seeing it, 99th percentile over all ways and moments", 50.0, "{:.1f} ms"),
    ("aborts_memory_growth_percent", "memory of the second 50,000 random aborts over that of the first", 2.0, "{:.1f} %"),
    ("failover_500_failures", "failures that clients see of a server that answers 500", 0, "{:.0f}"),
    ("failover_hang_failures", "of one that hangs, where a try has a limit", 0, "{:.0f}"),
    ("failover_silence_failures", "of one that hangs without such a limit", 5, "{:.0f}"),
    ("failover_reset_failures", "of one that resets in mid-stream", 5, "{:.0f}"),
    ("failover_slow_failures", "of one that is ten times slower", 0, "{:.0f}"),
    ("failover_slow_requests", "requests that still go to one that is ten times slower, of 100", 5, "{:.0f}"),
    ("failover_500_used_again_s", "until it is used again once cured: after 500", 2.0, "{:.1f} s"),
    ("failover_hang_used_again_s", "after a hang", 2.0, "{:.1f} s"),
    ("failover_reset_used_again_s", "after resets", 2.0, "{:.1f} s"),
    ("failover_slow_used_again_s", "after being slow", 2.0, "{:.1f} s"),
    ("tls_flood_slowest_ms", "slowest of 100 answers during a flood of TLS handshakes", 2000.0, "{:.0f} ms"),
]
DRILLS = ["latency::", "cancel::", "failover::", "tls::a_flood", "silence::", "errors::", "linger::", "floods::", "trust::"]


def machine() -> str:
    models = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    kernel = platform.release().split("-")[0]
    return f"{len(models)} cores of {models[0] if models else platform.machine()}, Linux {kernel}"


def run(drill: str, environment: dict) -> tuple[bool, dict]:
    command = ["cargo", "test", "-q", "-p", "penstock", "--test", "it", "--", drill, "--nocapture", "--test-threads", "1"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    found = dict(re.findall(r"measured: (\S+) (\S+)", done.stdout))
    print(f"{drill:14} {'held' if done.returncode == 0 else 'BROKEN'}", flush=True)
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
    return done.returncode == 0, {name: float(value) for name, value in found.items()}


def main() -> int:
    subprocess.run(["cargo", "build", "-q", "--release", "-p", "penstock"], cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    environment = os.environ | {"PENSTOCK_PROMISES": "1", "PENSTOCK_BINARY": str(target / "release" / "penstock")}
    held, figures = True, {}
    for drill in DRILLS:
        passed, found = run(drill, environment)
        held &= passed
        figures |= found
    rows = ["| What | Promised | Measured |", "|---|---|---|"]
    for name, words, most, form in PROMISES:
        value = figures.get(name)
        kept = value is not None and round(value, 2) <= most
        held &= kept
        shown = "not measured" if value is None else form.format(value)
        rows.append(f"| {words} | at most {form.format(most)} | {shown if kept else '**' + shown + '**'} |")
    aborts = figures.get("aborts", 0)
    today = datetime.date.today().isoformat()
    text = f"By `just promises` on {today}, {machine()}; {aborts:,.0f} aborts. Figures that are worse than promised are bold.\n\n"
    table = text + "\n".join(rows)
    print("\n" + table)
    page = PAGE.read_text()
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
