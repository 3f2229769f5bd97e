# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks against servers on loopback, orderly and not, and the checks that are refused."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils._health_checks import (
    ANSWER_LIMIT,
    SHOWN,
    Check,
    run_check,
    validate_checks,
)
from servers import LONG, Certificates, drip, flood, hang, leave, say, server

TOKEN = "s3cret-token"


class Pages(ThreadingHTTPServer):
    """Answers with `status`, `headers` and `body`, and remembers what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.status, self.body, self.headers = 200, b"", {}  # type: ignore[var-annotated]
        self.asked: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Page(BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", "")))
        self.send_response(self.server.status)
        for name, value in {"Content-Length": str(len(self.server.body)), **self.server.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Pages]:
    made = Pages()
    if tls:
        made.socket = tls.wrap_socket(made.socket, server_side=True)
    thread = threading.Thread(target=made.serve_forever, args=[0.01], daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        made.server_close()


@pytest.fixture
def pages() -> Iterator[Pages]:
    with serving() as made:
        yield made


def check(**entry: Any) -> Check:
    return validate_checks([{"name": "c", **entry}])[0]


def ask(**entry: Any) -> tuple[bool, str]:
    gate = run_check(check(**entry))
    assert gate.gate == "check c"
    assert "\n" not in gate.msg
    assert len(gate.msg) < 4 * SHOWN
    assert TOKEN not in gate.msg
    return gate.ok, gate.msg


def query(pages: Pages, result: Any, kind: str = "vector", **limits: Any) -> tuple[bool, str]:
    pages.body = json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()
    return ask(promql="up", prometheus=pages.url, **(limits or {"min": 1, "max": 5}))


def samples(*values: str) -> list[dict[str, Any]]:
    return [{"metric": {"pod": f"p{number}"}, "value": [1.5, value]} for number, value in enumerate(values)]


def test_a_query_as_it_is_sent(pages: Pages) -> None:
    pages.body = b'{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}'
    made = check(promql='rate(x{a="b"}[1m]) > 0', prometheus=f"{pages.url}/prom/", max=3, token=TOKEN)
    assert run_check(made) == ("check c", True, "the value is 3, at most 3")
    ((path, authorization),) = pages.asked
    assert urlsplit(path).path == "/prom/api/v1/query"
    assert parse_qs(urlsplit(path).query) == {"query": ['rate(x{a="b"}[1m]) > 0']}
    assert authorization == f"Bearer {TOKEN}"
    assert TOKEN not in repr(made)


@pytest.mark.parametrize(
    ("values", "ok", "message"),
    [
        (["1"], True, "the value is 1, 1 to 5"),
        (["1", "5"], True, "all 2 values are 1 to 5"),
        (["1", "5.01"], False, 'the value of {"pod": "p1"} is 5.01, 1 to 5 is wanted'),
        (["0", "7", "2"], False, 'the value of {"pod": "p0"} is 0, 1 to 5 is wanted (2 of 3 samples are not)'),
        (["NaN"], False, 'the value of {"pod": "p0"} is nan, 1 to 5 is wanted'),
        (["+Inf"], False, 'the value of {"pod": "p0"} is inf, 1 to 5 is wanted'),
        ([], False, "the query gives no sample: there is no such metric, or a comparison in the query drops all"),
    ],
)
def test_samples(pages: Pages, values: list[str], ok: bool, message: str) -> None:
    told = query(pages, samples(*values))
    assert told[0] is ok
    assert told[1].startswith(message)


def test_one_limit(pages: Pages) -> None:
    assert query(pages, samples("9"), min=1)[0]
    assert query(pages, samples("0"), min=1) == (False, 'the value of {"pod": "p0"} is 0, at least 1 is wanted')
    assert query(pages, samples("NaN"), min=1)[0] is False
    assert query(pages, samples("-9"), max=0)[0]


@pytest.mark.parametrize(
    ("result", "kind", "message"),
    [
        ([1, "x"], "string", "the query gives a string"),
        ([], "matrix", "the query gives a matrix"),
        ([{"metric": {}, "histogram": [1, {}]}], "vector", "the query gives a histogram"),
        ([{"metric": {}, "value": [1, "many"]}], "vector", "gave no answer of a Prometheus"),
        ({}, "scalar", "gave no answer of a Prometheus"),
        (7, "vector", "gave no answer of a Prometheus"),
    ],
)
def test_what_cannot_be_judged(pages: Pages, result: Any, kind: str, message: str) -> None:
    ok, told = query(pages, result, kind)
    assert not ok
    assert message in told


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, b'{"status":"error","error":"parse \\n' + b"x" * 9999 + b'"}', "refused the query: parse xxx"),
        (503, b"no healthy upstream", "gave no answer of a Prometheus but, with status 503, no healthy upstream"),
        (500, b'{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}', "with status 500"),
        (200, b"", "with status 200, nothing"),
        (200, b"[" * 100000, "gave no answer of a Prometheus"),
        (200, b"\xff\x00" + TOKEN.encode(), "(token)"),
        (200, b" " * (ANSWER_LIMIT + 1), f"gave more than {ANSWER_LIMIT} bytes"),
        (401, TOKEN.encode(), "with status 401, (token)"),
    ],
)
def test_other_answers_of_a_prometheus(pages: Pages, status: int, body: bytes, message: str) -> None:
    pages.status, pages.body = status, body
    ok, told = ask(promql="up", prometheus=pages.url, min=0, token=TOKEN)
    assert not ok
    assert message in told


@pytest.mark.parametrize(
    ("status", "body", "entry", "ok", "message"),
    [
        (200, b"", {}, True, "has status 200"),
        (204, b"", {"status": 204}, True, "has status 204"),
        (503, b"", {"status": 503}, True, "has status 503"),
        (503, b"", {}, False, "has status 503, 200 is wanted"),
        (200, b'{"state": "UP"}', {"match": '"state": "(UP|OK)"'}, True, "a body that matches"),
        (200, b"all Fine", {"match": "(?i:fine)|good"}, True, "a body that matches"),
        (200, b"fine" + b"x" * 100000, {"match": "fine"}, True, "a body that matches"),
        (200, b"b\x1b[31mad " + TOKEN.encode(), {"match": "good"}, False, "where it is searched: b [31mad (token)"),
        (200, b"", {"match": "good"}, False, "where it is searched: empty"),
        (200, b"x" * 100000 + b"good", {"match": "good"}, False, "where it is searched: xxx"),
    ],
)
def test_pages(pages: Pages, status: int, body: bytes, entry: Any, ok: bool, message: str) -> None:
    pages.status, pages.body = status, body
    told = ask(url=f"{pages.url}/health?key=hidden", token=TOKEN, **entry)
    assert told[0] is ok
    assert message in told[1]
    assert "hidden" not in told[1]
    assert len(pages.asked) == 1


@pytest.mark.parametrize("entry", [{}, {"match": "fine"}])
def test_redirects_are_not_followed(pages: Pages, entry: Any) -> None:
    with serving() as other:
        pages.status, pages.headers = 302, {"Location": f"{other.url}/elsewhere?key=hidden"}
        ok, told = ask(url=pages.url, token=TOKEN, **entry)
        assert not ok
        assert told.endswith(
            f"it redirects to {other.url}/elsewhere, which is not followed; give the address that answers"
        )
        assert ask(url=pages.url, status=302) == (True, f"{pages.url} has status 302")
        assert not ask(promql="up", prometheus=pages.url, min=0, token=TOKEN)[0]
        assert other.asked == []


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_this_machine_is_not_asked_through_a_proxy(
    pages: Pages, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    with serving() as proxy:
        monkeypatch.setenv(variable, proxy.url)
        assert ask(url=pages.url)[0]
        assert ask(url=pages.url.replace("127.0.0.1", "localhost"))[0]
        assert proxy.asked == []
        if variable == "http_proxy":
            assert ask(url="http://monitoring.invalid/health")[0]
            assert [path for path, _token in proxy.asked] == ["http://monitoring.invalid/health"]


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (drip, "its 0.3 s were over"),
        (say(b"HTTP/1.1 200 OK\r\n", then=drip), "its 0.3 s were over"),
        (say(b"HTTP/1.1 200 OK\r\n\r\n", then=drip), "its 0.3 s were over"),
        (hang, "its 0.3 s were over"),
        (leave, "gave no answer twice: "),
        (say(b"SSH-2.0-OpenSSH\r\n"), "what came is no whole HTTP answer (BadStatusLine)"),
        (say(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nfine"), "no whole HTTP answer (IncompleteRead)"),
        (say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "no whole HTTP answer"),
        (say(b"HTTP/1.1 200 OK\r\n", then=flood), "no whole HTTP answer (LineTooLong)"),
    ],
)
def test_broken_servers(behave: Any, message: str) -> None:
    timeout = 0.3 if "0.3 s" in message else LONG
    with server(behave) as port:
        ok, told = ask(url=f"http://127.0.0.1:{port}/health", match="fine", token=TOKEN, timeout=timeout)
    assert not ok
    assert told.startswith(f"http://127.0.0.1:{port}/health gave no answer twice: ")
    assert message in told


def test_an_endless_body_is_read_in_part() -> None:
    with server(say(b"HTTP/1.1 200 OK\r\n\r\n", then=flood)) as port:
        ok, told = ask(promql="up", prometheus=f"http://127.0.0.1:{port}", min=0)
    assert not ok
    assert told.endswith(f" gave more than {ANSWER_LIMIT} bytes; aggregate in the query")


def test_a_second_attempt() -> None:
    answers = iter([leave, say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")])

    def behave(connection: Any) -> None:
        next(answers)(connection)

    with server(behave) as port:
        assert ask(url=f"http://127.0.0.1:{port}", match="^fine$")[0]
    ok, told = ask(url=f"http://127.0.0.1:{port}")
    assert not ok
    assert "gave no answer twice: Connection refused" in told


def test_tls(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with serving(certificates.server(["localhost"])) as pages:
        url = pages.url.replace("http://127.0.0.1", "https://localhost")
        assert ask(url=url, ca_file=certificates.ca_file, token=TOKEN)[0]
        assert "certificate verify failed" in ask(url=url)[1]
        wrong_name = ask(url=url.replace("localhost", "127.0.0.1"), ca_file=certificates.ca_file)
        assert not wrong_name[0]
        made = check(url=url, ca_file=certificates.ca_file)
        Path(certificates.ca_file).unlink()
        gate = run_check(made)
    assert not gate.ok
    assert "cannot be read" in gate.msg


PAGE = {"url": "http://127.0.0.1/"}
QUERY = {"promql": "up", "prometheus": "http://127.0.0.1:9090", "min": 1}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "neither promql nor url"),
        ({**PAGE, **QUERY}, "both promql and url"),
        ({**PAGE, "min": 1}, "'min' has no meaning with url"),
        ({**QUERY, "status": 200}, "'status' has no meaning with promql"),
        ({**PAGE, "url": 7}, "url is no string"),
        ({**PAGE, "url": "ftp://127.0.0.1/"}, "url is no address"),
        ({**PAGE, "url": "http:///x"}, "url is no address"),
        ({**PAGE, "url": "http://[::1/"}, "url is no address"),
        ({**PAGE, "url": "http://h:99999/"}, "url is no address"),
        ({**PAGE, "url": "http://h/a b"}, "url is no address"),
        ({**PAGE, "url": f"http://me:{TOKEN}@h/"}, "url has a user in it"),
        ({**PAGE, "url": "http://h/#x"}, "url has a fragment"),
        ({**PAGE, "status": "200"}, "status is '200'"),
        ({**PAGE, "status": 99}, "status is 99"),
        ({**PAGE, "match": "("}, "match '(' is no regular expression"),
        ({**PAGE, "match": "(a+)+b"}, "match '(a+)+b' leaves too much choice"),
        ({**PAGE, "timeout": 0}, "timeout is 0"),
        ({**PAGE, "timeout": True}, "timeout is True"),
        ({**PAGE, "token": f"{TOKEN}\n"}, "token has characters"),
        ({**PAGE, "ca_file": "/nonexistent/ca.pem"}, "ca_file '/nonexistent/ca.pem' cannot be read"),
        ({**QUERY, "promql": " "}, "promql needs an expression"),
        ({"promql": "up", "min": 1}, "promql needs an expression, and the address"),
        ({**QUERY, "min": None}, "it has no limit"),
        ({**QUERY, "min": "1"}, "min is '1'"),
        ({**QUERY, "max": float("nan")}, "max is nan"),
        ({**QUERY, "max": 0}, "min is 1 and max is 0"),
        ({**QUERY, "prometheus": "http://h/?a=b"}, "prometheus has a query"),
    ],
)
def test_refused_checks(entry: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        validate_checks([{"name": "a", **PAGE}, {"name": "b", **entry}])
    assert str(caught.value).startswith("check 2, 'b': ")
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ({"name": "a"}, "checks is no list"),
        (["a"], "check 1 is no mapping"),
        ([PAGE], "check 1 has no name"),
        ([{"name": "a\nb", **PAGE}], "check 1 has no name"),
        ([{"name": "a", **PAGE}] * 2, "check 2 is called 'a' as one before it"),
    ],
)
def test_refused_lists(checks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate_checks(checks)


def test_defaults() -> None:
    assert validate_checks([]) == []
    assert check(**PAGE, match=None) == Check("c", "http://127.0.0.1/", status=200, timeout=10)
