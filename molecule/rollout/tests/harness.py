# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of moving production need: clients that notice everything, a witness of each weight, things that break.

Everything here is a context manager that ends what it began. Times are those of time.monotonic, in seconds.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

PORT = 31400  # of the gateway's Service
RECORD = "trafficshift.istio/rollout"  # the annotation in which a rollout says what it does
ISTIO = "istio-system"
LIMIT = 100_000  # connections that one client makes at most

Address = tuple[str, int]
Kubectl = Callable[..., str]
Node = Callable[..., str]


# --- Clients ---------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """One connection: which version answered, or else the kind of error."""

    began: float
    at: float  # when it ended
    word: str
    error: str


def say(connection: socket.socket) -> str:
    """Say something on a connection and return the first word of the answer; OSError if there is none."""
    connection.sendall(b"hello\n")
    line = connection.makefile().readline()
    if not line.endswith("\n"):
        raise EOFError
    return line.partition(" ")[0]


def kind_of(error: BaseException) -> str:
    """Name what a client ran into."""
    names = {
        ConnectionRefusedError: "refused",
        ConnectionResetError: "reset",
        BrokenPipeError: "reset",
        TimeoutError: "timeout",
        EOFError: "empty",
    }
    return names.get(type(error), repr(error))


class Clients:
    """Some who connect again and again, each one connection at a time, with hardly a pause."""

    def __init__(self, address: Address, number: int = 2, pause: float = 0.01) -> None:
        self.address = address
        self.pause = pause
        self.seen: list[Seen] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _each in range(number)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def words(self, since: float = 0.0) -> Counter[str]:
        """Return how often each version answered connections that began at a time or later."""
        return Counter(seen.word for seen in self.seen if seen.word and seen.began >= since)

    def errors(self) -> list[Seen]:
        """Return the connections that got no answer."""
        return [seen for seen in self.seen if seen.error]

    def wait(self, number: int = 300, timeout: float = 120) -> None:
        """Wait until so many more connections were made."""
        enough, deadline = len(self.seen) + number, time.monotonic() + timeout
        while len(self.seen) < enough:
            assert time.monotonic() < deadline and any(thread.is_alive() for thread in self._threads)
            self._ended.wait(0.05)

    def _run(self) -> None:
        for _each in range(LIMIT):
            began = time.monotonic()
            try:
                with socket.create_connection(self.address, timeout=10) as connection:
                    word, error = say(connection), ""
            except (OSError, EOFError) as failure:
                word, error = "", kind_of(failure)
            self.seen.append(Seen(began, time.monotonic(), word, error))
            if self._ended.wait(self.pause):
                return


class Session:
    """A connection that is held, and what became of it: `died` is when it ended, None if it lives, `how` the way."""

    def __init__(self, address: Address, chats: bool) -> None:
        self.socket = socket.create_connection(address, timeout=30)
        self.chats = chats
        self.version = say(self.socket)
        self.opened = time.monotonic()
        self.died: float | None = None
        self.how = ""
        self.answers = 0
        self.waits = False


class Held:
    """Sessions that are held open, some idle and some chatting once in `every` seconds."""

    def __init__(self, address: Address, idle: int = 5, chatting: int = 5, every: float = 1.0) -> None:
        self.every = every
        self.sessions: list[Session] = []
        self._kinds = [False] * idle + [True] * chatting
        self._address = address
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Held:
        try:
            for chats in self._kinds:
                self.sessions.append(Session(self._address, chats))
            self._thread.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        """Ask each session that seems to live whether it does, and close them."""
        self._ended.set()
        self._thread.join()
        for session in self.living():
            try:
                if session.waits:
                    session.socket.recv(4096)
                assert say(session.socket) == session.version
            except (OSError, EOFError) as error:
                self._note(session, kind_of(error))
        self._close()

    def living(self) -> list[Session]:
        """Return the sessions that have not ended."""
        return [session for session in self.sessions if session.died is None]

    def dead(self) -> list[Session]:
        """Return the sessions that have ended."""
        return [session for session in self.sessions if session.died is not None]

    def _close(self) -> None:
        for session in self.sessions:
            session.socket.close()

    def _note(self, session: Session, how: str) -> None:
        session.died, session.how = time.monotonic(), how

    def _watch(self) -> None:
        chat = time.monotonic()
        while not self._ended.is_set():
            living = {session.socket: session for session in self.living()}
            if not living:
                return
            for ready in select.select(list(living), [], [], 0.1)[0]:
                session = living[ready]
                try:
                    if ready.recv(4096):
                        session.answers, session.waits = session.answers + 1, False
                    else:
                        self._note(session, "closed")
                except OSError as error:
                    self._note(session, kind_of(error))
            if time.monotonic() < chat:
                continue
            chat += self.every
            for session in living.values():
                if session.chats and session.died is None and not session.waits:
                    try:
                        session.socket.sendall(b"still here\n")
                        session.waits = True
                    except OSError as error:
                        self._note(session, kind_of(error))


# --- What the route says ---------------------------------------------------------------------------------------------


class State(NamedTuple):
    """A route as it was from a moment on: its weights without zeros, where they stand, and the rollout's record."""

    at: float
    weights: dict[str, int]
    method: str
    record: dict[str, Any] | None


class WeightWatch:
    """Every set of weights that a route ever has, read from its objects without the collection's own code."""

    def __init__(self, facts: Mapping[str, str], name: str = "tcp-echo") -> None:
        self._kubectl = [facts["kubectl"], "--kubeconfig", facts["k8s_kubeconfig"], "-n", facts["tcp_route_namespace"]]
        self._names = {"virtualservice": name, "destinationrule": f"{name}-destination"}
        self._events: list[tuple[int, float, str, dict[str, Any]]] = []
        self._news = threading.Condition()
        self._watches: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> WeightWatch:
        try:
            for kind, name in self._names.items():
                command = [*self._kubectl, "get", kind, name, "--watch", "--output-watch-events", "-o", "json"]
                watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                self._watches.append(watch)
                self._threads.append(threading.Thread(target=self._read, args=(kind, watch)))
                self._threads[-1].start()
            self._settle()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        try:
            self._settle()
        finally:
            self._end()

    def states(self) -> list[State]:
        """Return the route's states in the order in which the API server took them, each one once."""
        found: list[State] = []
        objects: dict[str, dict[str, Any]] = {}
        with self._news:
            events = sorted(self._events, key=lambda event: event[0])
        for _version, at, kind, item in events:
            objects[kind] = item
            if len(objects) == len(self._names):
                state = State(at, *_weights(objects["virtualservice"], objects["destinationrule"]))
                if not found or state[1:] != found[-1][1:]:
                    found.append(state)
        return found

    def now(self) -> State:
        """Return the route's state once the watches have seen what is there now."""
        self._settle()
        return self.states()[-1]

    def sets(self) -> list[dict[str, int]]:
        """Return the sets of weights in their order, each until the next."""
        found: list[dict[str, int]] = []
        for state in self.states():
            if not found or state.weights != found[-1]:
                found.append(state.weights)
        return found

    def until(self, wanted: Callable[[State], bool], timeout: float = 120) -> State:
        """Wait for a state from now on, the present one included, and return it."""
        deadline = time.monotonic() + timeout
        known = max(0, len(self.states()) - 1)
        with self._news:
            while True:
                states = self.states()
                for state in states[known:]:
                    if wanted(state):
                        return state
                left = deadline - time.monotonic()
                assert left > 0, f"not seen in {timeout} s; the last was {states[-1:]}"
                self._news.wait(left)

    def _settle(self) -> None:
        """Wait until the watches have seen what is there now."""
        deadline = time.monotonic() + 60
        for kind, name in self._names.items():
            command = [*self._kubectl, "get", kind, name, "-o", "jsonpath={.metadata.resourceVersion}"]
            now = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            with self._news:
                while not any(event[0] >= now for event in self._events if event[2] == kind):
                    assert all(watch.poll() is None for watch in self._watches), "a watch has ended"
                    assert time.monotonic() < deadline
                    self._news.wait(1)

    def _read(self, kind: str, watch: subprocess.Popen[str]) -> None:
        assert watch.stdout is not None
        for line in watch.stdout:
            item = json.loads(line)["object"]
            with self._news:
                self._events.append((int(item["metadata"]["resourceVersion"]), time.monotonic(), kind, item))
                self._news.notify_all()

    def _end(self) -> None:
        for watch in self._watches:
            watch.terminate()
            watch.wait()
        for thread in self._threads:
            thread.join()


def _weights(virtual: dict[str, Any], rule: dict[str, Any]) -> tuple[dict[str, int], str, dict[str, Any] | None]:
    """Return weights, method and record; the weights are {"everybody": 100} if nothing says who gets connections."""
    (entry,) = [
        entry
        for entry in virtual["spec"].get("tcp", [])
        if any(match.get("port") == PORT for match in entry.get("match", []))
    ]
    text = virtual["metadata"].get("annotations", {}).get(RECORD)
    record = json.loads(text) if text else None
    subsets = {
        route["destination"]["subset"]: route.get("weight", 100 if len(entry["route"]) == 1 else 0)
        for route in entry["route"]
        if "subset" in route["destination"]
    }
    if subsets:
        return {name: weight for name, weight in subsets.items() if weight}, "route", record
    balancer = rule["spec"].get("trafficPolicy", {}).get("loadBalancer", {})
    shares = balancer.get("localityLbSetting", {}).get("distribute") or [{"to": {"everybody": 100}}]
    return {name: weight for name, weight in shares[0]["to"].items() if weight}, "endpoints", record


# --- A playbook that can be killed -----------------------------------------------------------------------------------


class Playbook:
    """A playbook that runs beside the test. Its processes are known by a mark in their environment, orphans too."""

    MARK = "TRAFFICSHIFT_TEST_PLAYBOOK"

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], nohup: bool = False) -> None:
        self.lines: list[str] = []
        self.mark = uuid.uuid4().hex
        # Whatever ignores signals above the tests, these start as from a terminal.
        self._command = ["env", "--default-signal", *(["--ignore-signal=HUP"] if nohup else []), *command]
        self._environment = {**environment, self.MARK: self.mark, "PYTHONUNBUFFERED": "1"}
        self._news = threading.Condition()

    def __enter__(self) -> Playbook:
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.began = time.monotonic()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        for pid in self.processes():
            self._signal(pid, signal.SIGKILL)
        self.process.wait()
        self._thread.join()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def wait(self, timeout: float = 600) -> int:
        """Return the exit code, once all of its processes have ended."""
        deadline = time.monotonic() + timeout
        code = self.process.wait(timeout)
        while self.processes():
            assert time.monotonic() < deadline, f"still there: {self.processes()}"
            time.sleep(0.1)
        self._thread.join()
        return code

    def until(self, text: str, timeout: float = 120) -> float:
        """Wait until its output has a text; return the time."""
        deadline = time.monotonic() + timeout
        with self._news:
            while text not in self.output:
                assert self.process.poll() is None and time.monotonic() < deadline, self.output
                self._news.wait(1)
        return time.monotonic()

    def kill(self, number: signal.Signals, *, everything: bool = False) -> float:
        """Send a signal to its first process, or to everything that it started; return the time."""
        for pid in self.processes() if everything else [self.process.pid]:
            self._signal(pid, number)
        return time.monotonic()

    def interrupt(self) -> float:
        """Press Ctrl-C: the terminal sends SIGINT to the processes of the foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)
        return time.monotonic()

    def processes(self) -> list[int]:
        """Return the ids of its processes that run, whoever is their parent now."""
        mark = f"{self.MARK}={self.mark}".encode()
        found = []
        for directory in Path("/proc").iterdir():
            if directory.name.isdecimal():
                # Empty for a process that has ended and waits to be asked for.
                with contextlib.suppress(OSError):
                    if mark in (directory / "environ").read_bytes().split(b"\0"):
                        found.append(int(directory.name))
        return found

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()


# --- The API server in trouble ---------------------------------------------------------------------------------------


class FlakyApi:
    """Stands before the API server on loopback, passes requests on, and can be told not to.

    It speaks plain HTTP with the client and TLS with the server; what the client says who it is goes along, and nothing
    is added. One connection carries one request, so that each can be turned away; websockets pass.
    """

    def __init__(self, facts: Mapping[str, str]) -> None:
        command = [facts["kubectl"], "--kubeconfig", facts["k8s_kubeconfig"]]
        view = subprocess.run(
            [*command, "config", "view", "--raw", "--minify", "-o", "json"], check=True, capture_output=True, text=True
        )
        self._config = json.loads(view.stdout)
        cluster = self._config["clusters"][0]["cluster"]
        server = urlsplit(cluster["server"])
        self.upstream = (server.hostname or "", server.port or 443)
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.tls = ssl.create_default_context(cadata=authority)
        self.passed: Counter[str] = Counter()  # requests by method
        self.turned_away: Counter[int] = Counter()  # requests by the status they got
        self.rule: tuple[int, int, Callable[[str, str], bool]] | None = None

    def __enter__(self) -> FlakyApi:
        self._listen(0)
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_exception: object) -> None:
        self._refuse()

    def kubeconfig(self, path: Path, token: str) -> str:
        """Write a kubeconfig of an account that comes this way; return its path."""
        config = json.loads(json.dumps(self._config))
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self.port}"}
        config["users"][0]["user"] = {"token": token}
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return str(path)

    @contextlib.contextmanager
    def answering(
        self, status: int, *, retry_after: int = 1, when: Callable[[str, str], bool] = lambda _method, _path: True
    ) -> Iterator[None]:
        """Answer requests with a status for the time of the block, those of which `when` says so by method and path."""
        self.rule = (status, retry_after, when)
        try:
            yield
        finally:
            self.rule = None

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse new connections for the time of the block."""
        self._refuse()
        try:
            yield
        finally:
            self._listen(self.port)

    def _listen(self, port: int) -> None:
        api = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):  # whoever hangs up
                    api._handle(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def _refuse(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.socket.close()

    def _handle(self, client: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            more = client.recv(65536)
            if not more:
                return
            received += more
        head, _blank, body = received.partition(b"\r\n\r\n")
        first, *headers = head.decode("latin-1").split("\r\n")
        fields = [line.partition(":") for line in headers]
        named = {name.strip().lower(): value.strip() for name, _colon, value in fields}
        while len(body) < int(named.get("content-length", "0")):
            more = client.recv(65536)
            if not more:
                return
            body += more
        method, path = first.split()[:2]
        rule = self.rule
        if rule and rule[2](method, path):
            self.turned_away[rule[0]] += 1
            client.sendall(_refusal(rule[0], rule[1]))
            return
        self.passed[method] += 1
        if "upgrade" not in named:
            headers = [line for line in headers if not line.lower().startswith("connection:")] + ["Connection: close"]
        request = "\r\n".join([first, *headers, "", ""]).encode("latin-1") + body
        plain = socket.create_connection(self.upstream, timeout=60)
        with self.tls.wrap_socket(plain, server_hostname=self.upstream[0]) as server:
            server.sendall(request)
            _splice(client, server)


def _refusal(status: int, retry_after: int) -> bytes:
    body = json.dumps(
        {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "the test says so", "code": status}
    )
    head = f"HTTP/1.1 {status} Turned Away\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Retry-After: {retry_after}\r\nConnection: close\r\n\r\n{body}".encode()


def _splice(client: socket.socket, server: ssl.SSLSocket) -> None:
    """Pass on what either side says until one has said all."""
    while True:
        ready = [server] if server.pending() else select.select([client, server], [], [])[0]
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (client if source is server else server).sendall(data)


# --- Faults ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def gateway_pod_killed(kubectl: Kubectl, node: Node) -> Iterator[str]:
    """Kill a replica of the gateway with all it holds; in the end there are as many as before, and it gets nothing."""
    pods = ("get", "pods", "-n", ISTIO, "-l", "istio=ingressgateway", "-o")
    name, address = kubectl(*pods, "jsonpath={.items[0].metadata.name} {.items[0].status.podIP}").split()
    # Deleting a pod, even without grace, leaves its proxy a while to serve on. The kill is the shell's last act: the
    # container ends with its Envoy, and whatever runs in it.
    kill = (
        "for comm in /proc/[0-9]*/comm; do case $(cat $comm) in envoy) pid=$(echo $comm | tr -dc 0-9);; esac; done; "
        "kill -9 $pid"
    )
    try:
        kubectl("exec", name, "-n", ISTIO, "-c", "istio-proxy", "--", "sh", "-c", kill)
        kubectl("delete", "pod", name, "-n", ISTIO, "--grace-period=0", "--force", "--wait=false")
        yield name
    finally:
        kubectl("rollout", "status", "deployment/istio-ingressgateway", "-n", ISTIO, "--timeout=180s")
        _wait_until_forgotten(kubectl, node, address)


def _wait_until_forgotten(kubectl: Kubectl, node: Node, address: str) -> None:
    """Wait until nothing sends connections to the address of a gateway pod that is gone.

    Besides the Service and kube-proxy's rules, that is the node's connection table: a connection that was begun while
    kube-proxy did not know yet stays there for two minutes, and takes every other from the same source port along into
    nowhere (https://github.com/kubernetes/kubernetes/issues/101607).
    """
    slices = ("get", "endpointslices", "-n", ISTIO, "-l", "kubernetes.io/service-name=istio-ingressgateway", "-o")
    deadline = time.monotonic() + 120
    known = True
    while known:
        assert time.monotonic() < deadline, f"{address} is still an endpoint of the gateway"
        time.sleep(0.2)
        endpoints = kubectl(*slices, "jsonpath={.items[*].endpoints[*].addresses[*]}").split()
        known = address in endpoints or f"--to-destination {address}:" in node("iptables-save", "-t", "nat")
    # The first command fails when there is nothing to delete.
    table = f"-p tcp --reply-src {address}"
    assert not node("sh", "-c", f"conntrack -D {table} >/dev/null; conntrack -L {table}")


@contextlib.contextmanager
def istiod_gone(kubectl: Kubectl) -> Iterator[None]:
    """Have no istiod for the time of the block; in the end it is there, and lets changes of routes pass again."""
    replicas = kubectl("get", "deployment/istiod", "-n", ISTIO, "-o", "jsonpath={.spec.replicas}")
    try:
        kubectl("scale", "deployment/istiod", "-n", ISTIO, "--replicas=0")
        kubectl("wait", "pods", "-n", ISTIO, "-l", "app=istiod", "--for=delete", "--timeout=120s")
        yield
    finally:
        kubectl("scale", "deployment/istiod", "-n", ISTIO, f"--replicas={replicas}")
        kubectl("rollout", "status", "deployment/istiod", "-n", ISTIO, "--timeout=180s")
        _wait_for_validation(kubectl)


def _wait_for_validation(kubectl: Kubectl) -> None:
    """Wait until the API server reaches istiod, which it asks about every change of Istio's objects."""
    metadata = {"name": "is-istiod-there", "namespace": ISTIO}
    rule = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata}
    definition = json.dumps({**rule, "spec": {"host": "nowhere.invalid"}})
    deadline = time.monotonic() + 60
    while True:
        try:
            kubectl("create", "--dry-run=server", "-f", "-", stdin=definition)
            return
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


@contextlib.contextmanager
def version_with(
    kubectl: Kubectl, namespace: str, version: str, arguments: list[str], *, at_once: bool = False
) -> Iterator[None]:
    """Run a version of tcp-echo with other arguments for the time of the block.

    `at_once` ends all of its pods first and waits for none of the new, so that they may crash.
    """
    name = f"deployment/tcp-echo-{version}"
    spec = json.loads(kubectl("get", name, "-n", namespace, "-o", "json"))["spec"]
    (own,) = [container for container in spec["template"]["spec"]["containers"] if container["name"] == "tcp-echo"]

    def patch(args: list[str], strategy: dict[str, Any]) -> None:
        change = {
            "strategy": {"type": strategy["type"], "rollingUpdate": strategy.get("rollingUpdate")},
            "template": {"spec": {"containers": [{"name": "tcp-echo", "args": args}]}},
        }
        kubectl("patch", name, "-n", namespace, "-p", json.dumps({"spec": change}))

    def wait() -> None:
        kubectl("rollout", "status", name, "-n", namespace, "--timeout=180s")

    try:
        patch(arguments, {"type": "Recreate"} if at_once else spec["strategy"])
        if not at_once:
            wait()
        yield
    finally:
        patch(own["args"], spec["strategy"])
        wait()


def crashing(kubectl: Kubectl, namespace: str, version: str) -> contextlib.AbstractContextManager[None]:
    """Have a version's pods crash as often as they are started."""
    return version_with(kubectl, namespace, version, ["no-port", "crash"], at_once=True)


def rubbish(kubectl: Kubectl, namespace: str, version: str) -> contextlib.AbstractContextManager[None]:
    """Have a version accept connections and answer what nobody expects."""
    return version_with(kubectl, namespace, version, ["9000", "rubbish"])
