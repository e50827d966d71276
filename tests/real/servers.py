"""The processes of the real-server run: vLLM replicas and the gateway in front of them.

Every process runs in a session of its own, is ended by its group id, and writes its id to the run's
`groups` file first, so that run.sh can end what is left should this program die.
Counters are read from each replica's own /metrics, past the gateway: they are the run's evidence.
"""

import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
# A replica that compiles after its first requests answers nothing meanwhile, on a busy machine for a minute.
# Whatever waits for a replica waits this long; what is promised is checked by counters, not by this clock.
PATIENCE_S = 150
SAMPLE = re.compile(r"^(vllm:\w+)(?:\{.*\})? (\S+)$")


class Failed(Exception):
    """A check that does not hold, or a process that does not come up; the text says why."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(url, timeout_s=10):
    """Body of an answer 200, else None."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return answer.read()
    except (urllib.error.URLError, OSError):
        return None


def wait_until(condition, deadline_s, what):
    """Polls until `condition` gives a true value and returns it with the seconds that it took."""
    started = time.monotonic()
    while True:
        value = condition()
        elapsed_s = time.monotonic() - started
        if value:
            return value, elapsed_s
        if elapsed_s > deadline_s:
            raise Failed(f"not within {deadline_s} s: {what}")
        time.sleep(0.1)


class Process:
    """One child in its own session, its output in a log file."""

    def __init__(self, name, command, logs):
        self.name = name
        self.log = os.path.join(logs, f"{name}.log")
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        with open(os.path.join(logs, "groups"), "a", encoding="ascii") as groups:
            groups.write(f"{self.child.pid}\n")

    def is_alive(self):
        return self.child.poll() is None

    def signal_group(self, number):
        try:
            os.killpg(self.child.pid, number)
        except ProcessLookupError:
            pass

    def kill(self):
        """The whole group at once, as a machine that fails would; returns when none of it is left."""
        self.signal_group(signal.SIGKILL)
        self.child.wait(timeout=60)
        wait_until(self.is_gone, 60, f"the end of {self.name}'s processes")

    def is_gone(self):
        try:
            os.killpg(self.child.pid, 0)
            return False
        except ProcessLookupError:
            return True

    def end(self, grace_s=30):
        """Returns whether the process ended by itself when asked to."""
        if self.is_alive():
            self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(timeout=grace_s)
            return True
        except subprocess.TimeoutExpired:
            return False
        finally:
            self.kill()

    def wait_until_up(self, url, deadline_s):
        def is_up():
            if not self.is_alive():
                raise Failed(f"{self.name} ended with {self.child.returncode}, see {self.log}")
            return get(url) is not None

        return wait_until(is_up, deadline_s, f"{self.name} answering {url}, see {self.log}")[1]


class Replica:
    """One vLLM server at a fixed port; it can be killed and started again."""

    def __init__(self, number, adapter, settings):
        self.number = number
        self.adapter = adapter
        self.settings = settings
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self.process = None

    def start(self, *options):
        core = (self.number - 1) % (os.cpu_count() or 1)
        script = os.path.join(HERE, "start_vllm.sh")
        settings = self.settings
        command = [script, settings.venv, settings.models, str(self.port), str(core), self.adapter, *options]
        self.process = Process(f"vllm-{self.number}", command, settings.logs)

    def wait_until_up(self, deadline_s):
        return self.process.wait_until_up(f"{self.url}/health", deadline_s)

    def counters(self):
        """Each vLLM metric's sum over its label sets; gauges too."""
        text = get(f"{self.url}/metrics", timeout_s=PATIENCE_S)
        if text is None:
            raise Failed(f"replica {self.number} gave no metrics within {PATIENCE_S} s")
        sums = {}
        for line in text.decode().splitlines():
            sample = SAMPLE.match(line)
            if sample:
                sums[sample[1]] = sums.get(sample[1], 0.0) + float(sample[2])
        return sums

    def count(self, name):
        return self.counters().get(f"vllm:{name}", 0.0)


class Gateway:
    """`penstock run` with both replicas as its endpoints."""

    def __init__(self, replicas, settings):
        self.binary = settings.penstock
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self.admin_url = f"http://127.0.0.1:{free_port()}"
        command = [self.binary, "run"]
        for replica in replicas:
            command += ["--endpoint", replica.url]
        command += ["--listen", self.address, "--admin", self.admin_url.removeprefix("http://")]
        self.process = Process("penstock", command, settings.logs)

    def wait_until_up(self, deadline_s):
        return self.process.wait_until_up(f"{self.admin_url}/readyz", deadline_s)

    def probes(self):
        """Requests of the gateway's own to replicas that cut answers or look slow."""
        return self.metric("penstock_probes_total")

    def healthy(self):
        """Replicas that are not left out."""
        return self.metric("penstock_endpoint_healthy")

    def metric(self, name):
        """Its sum over all label sets."""
        text = (get(f"{self.admin_url}/metrics") or b"").decode()
        return sum(float(value) for value in re.findall(rf"^{name}\{{.*\}} (\S+)$", text, re.MULTILINE))

    def why(self, *arguments):
        """Output of `penstock why`; an exit code other than 0 fails the check."""
        command = [self.binary, "why", *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)} exited {done.returncode}: {done.stderr.strip()[-400:]}")
        return done.stdout
