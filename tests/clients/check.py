"""Provokes every cause of causes.py with the official clients and compares the class that each raises with
the table of docs/errors.md. Ends every process that it started."""

import argparse
import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

import anthropic
import httpx2 as httpx
import openai
from causes import CAUSES

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "errors.md"
HELLO = 'data: {"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}\n\n'
MESSAGE = (
    'event: message_start\ndata: {"type":"message_start","message":{"id":"a","type":"message","role":"assistant",'
    '"content":[],"model":"llama","stop_reason":null,"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
    'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello"}}\n\n'
)
BAD_FIRST = 'data: {"error":{"message":"too long","type":"BadRequestError","code":400}}\n\ndata: [DONE]\n\n'
STREAM = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def chunk(text: str) -> str:
    return f"{len(text):x}\r\n{text}\r\n"


def whole_request(connection: socket.socket) -> bytes:
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        if end:
            length = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
            if len(body) >= int(length[0] if length else 0):
                return data
        part = connection.recv(65536)
        if not part:
            return data
        data += part


def scripted(answer) -> int:
    """A server that answers every POST with the bytes of `answer(request)`; None after them: it stays silent."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = whole_request(connection)
            if not request.startswith(b"POST"):
                connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                return
            text, silent = answer(request)
            connection.sendall(text.encode())
            if silent:
                connection.recv(1)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def says(text: str):
    return scripted(lambda _: (text, False))


def begins(request: bytes):
    events = MESSAGE if b"/v1/messages" in request.split(b"\r\n")[0] else HELLO
    return STREAM + chunk(events), True


def status_answer(code: int) -> str:
    body = json.dumps({"error": {"message": "told by the server", "type": "server_said", "code": code}})
    return f"HTTP/1.1 {code} Told\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"


class Processes:
    def __init__(self, penstock: str) -> None:
        self.penstock = penstock
        self.all: list[subprocess.Popen] = []

    def start(self, *arguments: str) -> None:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.all.append(subprocess.Popen([self.penstock, *arguments], **quiet))

    def mock(self, *arguments: str) -> int:
        port = free_port()
        self.start("mock", "--listen", f"127.0.0.1:{port}", "--model", "llama", "--model", "cheap", *arguments)
        wait(lambda: socket.create_connection(("127.0.0.1", port)).close())
        return port

    def gateway(self, *arguments: str, listen: int, silence: str = "1s") -> int:
        admin = free_port()
        self.start("run", *arguments, "--admin", f"127.0.0.1:{admin}", "--access-log", "off",
                   "--limit", "body-idle=1s", "--limit", f"stream-idle={silence}")
        wait(lambda: httpx.get(f"http://127.0.0.1:{admin}/readyz").raise_for_status())
        return listen

    def end(self) -> None:
        for process in self.all:
            process.kill()
            process.wait()


def knows(models: str) -> None:
    """Names are refused only where the servers have told theirs."""
    if "llama" not in httpx.get(models).text:
        raise OSError("not yet")


def wait(done) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            return done()
        except (OSError, httpx.HTTPError):
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def pool(name: str, ports: list[int]) -> str:
    slices = "".join(
        f"---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        f"metadata: {{name: {name}-{port}, labels: {{app: {name}}}}}\naddressType: IPv4\n"
        f"ports: [{{port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
        for port in ports
    )
    numbers = ", ".join(f"{{number: {port}}}" for port in ports or [8000])
    return (
        f"---\napiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {{name: {name}}}\n"
        f"spec: {{selector: {{matchLabels: {{app: {name}}}}}, targetPorts: [{numbers}]}}\n{slices}"
    )


def service(name: str, ports: list[int]) -> str:
    slices = "".join(
        f"---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        f"metadata: {{name: {name}-{port}, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\n"
        f"ports: [{{port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
        for port in ports
    )
    return f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n{slices}"


def main_gateway(processes: Processes, folder: pathlib.Path) -> int:
    dead = free_port()
    hangs = processes.mock("--fault", "hang")
    begun = scripted(begins)
    pools = {
        "fine": [processes.mock()],
        "models": [processes.mock()],
        "empty-pool": [],
        "dead": [dead],
        "closes": [says("")],
        "resets": [processes.mock("--fault", "refuse")],
        "breaks-off": [says("HTTP/1.1 200 OK\r\ncontent-type: ")],
        "babbles": [says("<html>no HTTP</html>\r\n\r\n")],
        "smuggles": [says("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")],
        "slow-try": [hangs],
        "slow": [hangs],
        "slow-stream": [begun],
        "silent-stream": [begun],
        "first-event": [processes.mock("--fault", "error-event")],
        "first-400": [says(STREAM + chunk(BAD_FIRST) + "0\r\n\r\n")],
        "cut-reset": [processes.mock("--fault", "reset:after=2")],
        "cut-truncate": [processes.mock("--fault", "truncate:after=2")],
        "cut-error": [processes.mock("--fault", "error-event:after=2")],
    }
    pools |= {f"engine-{code}": [processes.mock("--fault", str(code))] for code in (500, 503, 429)}
    pools |= {f"status-{code}": [says(status_answer(code))] for code in (400, 401, 403, 404, 409, 413, 422)}
    extra = {"slow-try": "timeouts: {backendRequest: 200ms}, ", "slow": "timeouts: {request: 200ms}, ",
             "slow-stream": "timeouts: {request: 400ms}, "}
    rules = [
        f"{{matches: [{{headers: [{{name: x-case, value: {name}}}]}}], {extra.get(name, '')}backendRefs: "
        f"[{{group: inference.networking.k8s.io, kind: InferencePool, name: {name}}}]}}"
        for name in pools
    ]
    web = "{name: %s, port: 80%s}"
    extension = "filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Filter, name: none}}], "
    for name, filters, backend in [
        ("weightless", "", web % ("empty-service", ", weight: 0")),
        ("missing", "", web % ("gone", "")),
        ("filtered", extension, web % ("empty-service", "")),
        ("empty-service", "", web % ("empty-service", "")),
        ("dead-service", "", web % ("dead-service", "")),
    ]:
        rules.append(f"{{matches: [{{headers: [{{name: x-case, value: {name}}}]}}], {filters}backendRefs: [{backend}]}}")
    listen = free_port()
    text = (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n"
        "  gatewayClassName: penstock\n  addresses: [{value: 127.0.0.1}]\n"
        f"  listeners: [{{name: http, port: {listen}, protocol: HTTP}}]\n"
    )
    # A route has at most 16 rules.
    for at in range(0, len(rules), 16):
        part = ", ".join(rules[at:at + 16])
        text += (
            f"---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: route-{at}}}\n"
            f"spec: {{parentRefs: [{{name: gw}}], rules: [{part}]}}\n"
        )
    text += service("empty-service", []) + service("dead-service", [dead])
    text += "".join(pool(name, ports) for name, ports in pools.items())
    (folder / "main.yaml").write_text(text)
    return processes.gateway(str(folder / "main.yaml"), listen=listen)


def saturated(processes: Processes, folder: pathlib.Path, name: str, requests: int) -> int:
    """A gateway whose only server is taken for as long as this process lives."""
    listen = free_port()
    server = scripted(begins)
    text = (
        f"listen: 127.0.0.1:{listen}\npools:\n  - name: chat\n    endpoints: [http://127.0.0.1:{server}]\n"
        f"    saturationSeconds: 0.0001\n    queue: {{requests: {requests}, seconds: {1 if requests > 1 else 60}}}\n"
        "    models:\n      - {name: llama, criticality: Critical, targets: [{name: llama}]}\n"
        "      - {name: cheap, criticality: Sheddable, targets: [{name: llama}]}\n"
    )
    (folder / f"{name}.yaml").write_text(text)
    processes.gateway(str(folder / f"{name}.yaml"), listen=listen, silence="60s")
    body = b'{"model":"llama","stream":true,"messages":[{"role":"user","content":"holds"}]}'
    for _ in range(1 if requests > 1 else 2):
        held = socket.create_connection(("127.0.0.1", listen))
        held.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        HELD.append(held)
        if len(HELD) == 1 or requests == 1:
            time.sleep(0.3)
    return listen


HELD: list[socket.socket] = []




class Swap(httpx.HTTPTransport):
    """Sends what the cause says in place of what the client would."""

    def __init__(self, cause) -> None:
        super().__init__()
        self.cause = cause

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        cause = self.cause
        body = cause.body if cause.body is not None else request.content
        url = request.url.copy_with(path=cause.target) if cause.target else request.url
        fields = {name: value for name, value in request.headers.items() if name != "content-length"}
        fields |= cause.fields | {"x-case": cause.case}
        if cause.slow:
            def pieces():
                yield body[:10]
                time.sleep(3)
                yield body[10:]
            fields["content-length"] = str(len(body))
            request = httpx.Request(request.method, url, headers=fields, content=pieces(), extensions=request.extensions)
        else:
            request = httpx.Request(request.method, url, headers=fields, content=body, extensions=request.extensions)
        return super().handle_request(request)


def ask_openai(address: str, cause) -> None:
    with httpx.Client(transport=Swap(cause), timeout=20) as http:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, http_client=http)
        messages = [{"role": "user", "content": "hello"}]
        answer = client.chat.completions.create(model=cause.model, messages=messages, stream=cause.stream)
        if cause.stream:
            for _ in answer:
                pass


def ask_anthropic(address: str, cause) -> None:
    with httpx.Client(transport=Swap(cause), timeout=20) as http:
        client = anthropic.Anthropic(base_url=address, api_key="none", max_retries=0, http_client=http)
        messages = [{"role": "user", "content": "hello"}]
        answer = client.messages.create(model=cause.model, messages=messages, max_tokens=5, stream=cause.stream)
        if cause.stream:
            for _ in answer:
                pass


def raised(ask, address: str, cause) -> tuple[str, str]:
    """The class that the client raises, and the status that it was told."""
    try:
        ask(address, cause)
    except (openai.APIError, anthropic.APIError) as error:
        return type(error).__name__, str(getattr(error, "status_code", ""))
    except Exception as error:  # A class of no client is a finding, not a crash of this program.
        return f"{type(error).__module__}.{type(error).__name__}", ""
    return "nothing", ""


def row(cause, of_openai: tuple[str, str], of_anthropic: tuple[str, str]) -> str:
    told = of_openai[1] or of_anthropic[1] or "in the stream" if cause.stream else of_openai[1] or "none"
    return f"| {cause.what} | {told} | `{of_openai[0]}` | `{of_anthropic[0]}` |"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--penstock", required=True)
    parser.add_argument("--print", action="store_true")
    options = parser.parse_args()
    processes = Processes(options.penstock)
    with tempfile.TemporaryDirectory() as name:
        try:
            folder = pathlib.Path(name)
            ports = {"main": main_gateway(processes, folder)}
            models = f"http://127.0.0.1:{ports['main']}/v1/models"
            wait(lambda: knows(models))
            rows = []
            for cause in CAUSES:
                seen = []
                for ask in (ask_openai, ask_anthropic):
                    # The one server of these is taken anew for each: its stream is held by this process.
                    if cause.gateway != "main":
                        ports[cause.gateway] = saturated(processes, folder, cause.gateway, 1 if cause.gateway == "full" else 9)
                    seen.append(raised(ask, f"http://127.0.0.1:{ports[cause.gateway]}", cause))
                rows.append(row(cause, *seen))
        finally:
            processes.end()
    if options.print:
        print("\n".join(rows))
        return 0
    page = PAGE.read_text().splitlines()
    wrong = [line for line in rows if line not in page]
    for line in wrong:
        print(f"docs/errors.md does not say: {line}")
    print(f"{len(rows)} causes, {len(wrong)} that the page does not tell")
    return 1 if wrong or len(rows) < 40 else 0


if __name__ == "__main__":
    sys.exit(main())
