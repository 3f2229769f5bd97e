# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to the API server, against a small one that answers as told: each failure is one sentence."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils import _client
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    Cluster,
    ClusterError,
    ForbiddenError,
    MissingKindError,
    UnreachableError,
    cut,
)
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTClientObject
from urllib3.exceptions import MaxRetryError, SSLError
from urllib3.util import Retry

SECRET = "the-token-that-nobody-may-see"


def status(code: int, message: str = "") -> tuple[int, Any]:
    return code, {"kind": "Status", "code": code, "message": message}


POD = {"name": "pods", "kind": "Pod", "namespaced": True, "verbs": ["get", "list"]}
REVIEW = {
    "name": "selfsubjectaccessreviews",
    "kind": "SelfSubjectAccessReview",
    "namespaced": False,
    "verbs": ["create"],
}
PATHS: dict[str, tuple[int, Any]] = {
    "/version": (200, {"gitVersion": "v1.34.4"}),
    "/apis": (
        200,
        {
            "kind": "APIGroupList",
            "groups": [
                {
                    "name": "authorization.k8s.io",
                    "versions": [{"version": "v1", "groupVersion": "authorization.k8s.io/v1"}],
                    "preferredVersion": {"version": "v1", "groupVersion": "authorization.k8s.io/v1"},
                }
            ],
        },
    ),
    "/api/v1": (200, {"kind": "APIResourceList", "groupVersion": "v1", "resources": [POD]}),
    "/apis/authorization.k8s.io/v1": (
        200,
        {"kind": "APIResourceList", "groupVersion": "authorization.k8s.io/v1", "resources": [REVIEW]},
    ),
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": (201, {"status": {"allowed": True}}),
    "/api/v1/namespaces/shop/pods": (200, {"items": [{"metadata": {"name": "a"}}]}),
    "/api/v1/namespaces/shop/pods/a": (200, {"kind": "Pod", "metadata": {"name": "a"}}),
    "/api/v1/namespaces/shop/pods/b": status(404, "not found"),
    "/api/v1/namespaces/edge/pods": status(403, "pods is forbidden"),
    "/api/v1/pods": status(403, "pods is forbidden"),
    "/api/v1/namespaces/busy/pods": status(503, "etcd\nis away" + "x" * 2000),
    "/api/v1/namespaces/odd/pods": (200, "<html>"),
}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths = dict(PATHS)
        self.delay = 0.0
        self.seen: list[tuple[str, str, Any]] = []

    def handle_error(self, *_request: Any) -> None:
        """Keep quiet about clients that gave up."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, json.loads(body) if body else None))
        time.sleep(self.server.delay)
        code, answer = self.server.paths.get(self.path.partition("?")[0], status(404, "the path is not known"))
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test its own caches and environment, and take back what the client sets for its process."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(RESTClientObject, "request", RESTClientObject.request)
    monkeypatch.setattr(Retry, "DEFAULT", Retry.DEFAULT)
    for name in ("KUBECONFIG", "K8S_AUTH_KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def connect(server: Server) -> Cluster:
    return Cluster({"host": server.url, "api_key": SECRET})


def test_plain_dicts_come_back(server: Server) -> None:
    cluster = connect(server)
    assert cluster.version == "v1.34.4"
    assert cluster.find("v1", "Pod", "shop", "app=x") == [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    ]
    assert server.seen[-1][1].endswith("/shop/pods?labelSelector=app%3Dx")
    found = cluster.get("v1", "Pod", "a", "shop")
    assert found is not None
    assert found["metadata"] == {"name": "a"}
    assert cluster.get("v1", "Pod", "b", "shop") is None


@pytest.mark.parametrize(
    ("verb", "group", "asked", "resource", "subresource"),
    [("patch", "networking.istio.io", "gateways", "gateways", ""), ("get", "", "pods/exec", "pods", "exec")],
)
def test_a_right_is_asked_for(
    server: Server, verb: str, group: str, asked: str, resource: str, subresource: str
) -> None:
    assert connect(server).may(verb, group, asked, "shop")
    assert server.seen[-1][0] == "POST"
    assert server.seen[-1][2]["spec"]["resourceAttributes"] == {
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "namespace": "shop",
    }


def test_a_missing_right_is_named(server: Server) -> None:
    with pytest.raises(ForbiddenError) as caught:
        connect(server).find("v1", "Pod", "edge")
    assert caught.value.namespace == "edge"
    assert str(caught.value) == (
        "This account may not list pods in the namespace edge (403): ask for that right, or use another account."
    )
    with pytest.raises(ForbiddenError, match="list pods in the whole cluster"):
        connect(server).find("v1", "Pod")


def test_a_missing_kind_is_named(server: Server) -> None:
    cluster = connect(server)
    assert not cluster.has("networking.istio.io/v1", "Gateway")
    with pytest.raises(MissingKindError, match=r"does not know the kind Gateway of networking\.istio\.io/v1: install"):
        cluster.get("networking.istio.io/v1", "Gateway", "g", "shop")


def test_a_server_in_trouble_is_quoted_in_one_bounded_line(server: Server) -> None:
    with pytest.raises(UnreachableError) as caught:
        connect(server).find("v1", "Pod", "busy")
    text = str(caught.value)
    assert text.startswith(f"The API server {server.url} answered 503 (etcd is awayxxx")
    assert text.endswith("when asked to list pods: try again later.")
    assert "\n" not in text
    assert len(text) < 600


def test_an_answer_that_is_none(server: Server) -> None:
    with pytest.raises(ClusterError, match="gave no usable answer"):
        connect(server).find("v1", "Pod", "odd")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            status(401),
            "does not accept the credentials (401 Unauthorized): the token or client certificate is wrong",
        ),
        (status(403), "does not let this account in (403 Forbidden): check that the kubeconfig has credentials"),
        (status(404), "answered 404"),
        (status(500, "oops"), "answered 500 (oops)"),
        ((200, "<html>"), ""),
    ],
)
def test_not_let_in(server: Server, answer: Any, message: str) -> None:
    for path in ("/version", "/apis", "/api/v1"):
        server.paths[path] = answer
    with pytest.raises(ClusterError) as caught:
        connect(server)
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)


def test_nobody_listens() -> None:
    gone = Server()
    gone.server_close()
    with pytest.raises(UnreachableError) as caught:
        connect(gone)
    assert str(caught.value) == (
        f"The API server 127.0.0.1:{gone.server_port} does not answer (Connection refused): check that the cluster "
        "runs and that the kubeconfig points to it."
    )


def test_a_server_that_never_answers(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "FIRST_TIMEOUT", (0.2, 0.2))
    server.delay = 5
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="no reply within the time limit"):
        connect(server)
    assert time.monotonic() - began < server.delay


def test_a_dead_server_is_reported_within_15_seconds() -> None:
    assert 2 * max(_client.FIRST_TIMEOUT) < 15


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no kubeconfig at {path}"),
        ("a: [b", "There is no cluster to talk to ("),
        ("hello", "There is no cluster to talk to ("),
        ("{}", "There is no cluster to talk to ("),
    ],
)
def test_a_kubeconfig_that_is_none(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ClusterError) as caught:
        Cluster({"kubeconfig": str(path)})
    assert message.format(path=path) in str(caught.value)
    assert str(caught.value).endswith("or the environment variables KUBECONFIG and K8S_AUTH_KUBECONFIG.")


def test_certificates() -> None:
    text = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1006)"
    error = MaxRetryError(None, "/version", SSLError(text))  # type: ignore[arg-type]
    assert str(_client._translate(error, "the API server https://a:6443")) == (
        "No trusted connection to the API server https://a:6443 (certificate verify failed: certificate has expired): "
        "check the certificates in the kubeconfig, and the clock of this machine."
    )


def test_credentials_in_a_url_are_not_shown() -> None:
    assert _client._host(f"https://me:{SECRET}@a.example.com:6443/k?token={SECRET}") == "https://a.example.com:6443"


@given(st.text(max_size=500), st.integers(1, 100))
def test_what_a_server_said_is_one_bounded_line(text: str, length: int) -> None:
    shown = cut(text, length)
    assert len(shown) <= length + 1
    assert shown.isprintable()


def refused(monkeypatch: pytest.MonkeyPatch, **answer: Any) -> ClusterError:
    """Return what a command in a pod raises when it is answered like that."""

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise ApiException(**answer)

    monkeypatch.setattr(_client, "stream", refuse)
    cluster = object.__new__(Cluster)
    cluster._api_client = ApiClient(Configuration())
    with pytest.raises(ClusterError) as caught:
        cluster.execute("shop", "p", "c", ["true"], 1)
    return caught.value


def handshake(status: str, body: str | None) -> dict[str, Any]:
    """Return what the library makes of an answer to the handshake of a websocket."""
    return {"status": 0, "reason": f"Handshake status {status} -+-+- {{'audit-id': '{SECRET}'}} -+-+- {body}"}


def test_the_rights_to_look_into_a_pod_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A websocket takes get, and create from Kubernetes 1.35 on; whoever is told of one only would ask twice."""
    error = refused(monkeypatch, **handshake("403 Forbidden", '{"message": "no"}'))
    assert isinstance(error, ForbiddenError)
    assert "may not get and create pods/exec in the namespace shop" in str(error)
    assert error.namespace == "shop"


ASKED = "The pod shop/p could not be asked"


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (
            handshake("503 Service Unavailable", '{"kind": "Status", "message": "too busy."}'),
            UnreachableError,
            f"{ASKED}: the API server answered 503 (too busy), so try again later.",
        ),
        (
            handshake("429 Too Many Requests", None),
            UnreachableError,
            f"{ASKED}: the API server answered 429 (Too Many Requests), so try again later.",
        ),
        (
            {"status": 503, "reason": "Service Unavailable"},
            UnreachableError,
            f"{ASKED}: the API server answered 503 (Service Unavailable), so try again later.",
        ),
        (
            handshake("404 Not Found", '{"kind": "Status", "message": "pods \\"p\\" not found"}'),
            ClusterError,
            f'{ASKED}: the API server answered 404 (pods "p" not found).',
        ),
        ({"status": 0, "reason": "[Errno 104] reset"}, ClusterError, f"{ASKED}: [Errno 104] reset."),
    ],
)
def test_a_pod_that_cannot_be_asked_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], kind: type[ClusterError], sentence: str
) -> None:
    error = refused(monkeypatch, **answer)
    assert (type(error), str(error)) == (kind, sentence)
