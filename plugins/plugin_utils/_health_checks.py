# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gates that are asked elsewhere: a PromQL query at a Prometheus, or a page.

Redirects are not followed, so that a token goes nowhere but to the address that was given. Proxies are taken from the
environment as urllib does it (http_proxy, https_proxy, no_proxy), except that this machine itself, localhost and
loopback addresses, is never asked through one. A token is never told, not even when a server says it.
"""

from __future__ import annotations

import dataclasses
import http.client
import ipaddress
import json
import math
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlencode, urlsplit

from ansible_collections.trafficshift.istio.plugins.module_utils._gates import Gate
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import tls_context
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import (
    REPLY_LIMIT,
    Exchange,
    compile_match,
)

TIMEOUT = 10.0  # seconds, of one attempt as a whole
ATTEMPTS = 2
ANSWER_LIMIT = 1 << 20  # bytes of a Prometheus' answer
SHOWN = 160  # characters of what a server says that are shown
_FIELDS = {
    "promql": {"name", "promql", "prometheus", "min", "max", "token", "ca_file", "timeout"},
    "url": {"name", "url", "status", "match", "token", "ca_file", "timeout"},
}


class _Unreachable(Exception):
    """No answer, or not a whole one."""


@dataclasses.dataclass(frozen=True)
class Check:
    """A check that makes sense; `promql` is "" if it is of a page. Its repr holds no token."""

    name: str
    url: str  # of the page, or of the Prometheus' query API without the query
    promql: str = ""
    least: float | None = None
    most: float | None = None
    status: int = 200
    match: str = ""
    token: str = dataclasses.field(default="", repr=False)
    ca_file: str | None = None
    timeout: float = TIMEOUT


def validate_checks(checks: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Return the checks of tcp_rollout_checks.

    Raises ValueError, in one sentence, that names the check and what is wrong with it.
    """
    if not isinstance(checks, (list, tuple)):
        raise ValueError("checks is no list; give a list of checks, each with a name and promql or url")
    made: list[Check] = []
    for number, entry in enumerate(checks, 1):
        if not isinstance(entry, Mapping):
            raise ValueError(f"check {number} is no mapping; give it a name and promql or url")
        name = entry.get("name")
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > SHOWN:
            raise ValueError(f"check {number} has no name; give it one of at most {SHOWN} characters in one line")
        if name in [check.name for check in made]:
            raise ValueError(f"check {number} is called {name!r} as one before it; give each a name of its own")
        try:
            made.append(_validated({key: value for key, value in entry.items() if value is not None}))
        except ValueError as error:
            raise ValueError(f"check {number}, {name!r}: {error}") from None
    return made


def run_check(check: Check) -> Gate:
    """Ask and return the gate "check NAME", not passed if nothing could be learned, for which it is asked twice."""
    said = ""
    for _attempt in range(ATTEMPTS):
        try:
            status, body = _fetch(check)
        except _Unreachable as error:
            said = str(error)
        else:
            ok, said = _judge_samples(check, status, body) if check.promql else _judge_page(check, status, body)
            return Gate(f"check {check.name}", ok, said)
    return Gate(f"check {check.name}", False, f"{_shown_url(check)} gave no answer twice: {said}")


def _validated(entry: Mapping[str, Any]) -> Check:
    kinds = [kind for kind in _FIELDS if kind in entry]
    if len(kinds) != 1:
        raise ValueError(f"it has {'both promql and url' if kinds else 'neither promql nor url'}; give one of them")
    kind = kinds[0]
    unknown = sorted(str(key) for key in entry if key not in _FIELDS[kind])
    if unknown:
        raise ValueError(f"{unknown[0]!r} has no meaning with {kind}; leave it out")
    for field in {"promql", "prometheus", "url", "match", "token", "ca_file"} & set(entry):
        if not isinstance(entry[field], str):
            raise ValueError(f"{field} is no string; give one")
    token, timeout = entry.get("token", ""), entry.get("timeout", TIMEOUT)
    if not all(32 < ord(char) < 127 for char in token):
        raise ValueError("token has characters that no header can carry, such as a newline at its end; give it without")
    if not _is_number(timeout) or not 0 < timeout <= 3600:
        raise ValueError(f"timeout is {timeout!r}; give seconds, above 0 and at most 3600")
    ca_file = entry.get("ca_file") or None
    if ca_file:
        tls_context(ca_file)
    if kind == "promql":
        if not entry["promql"].strip() or "prometheus" not in entry:
            raise ValueError(
                "promql needs an expression, and the address of a server in prometheus, such as http://127.0.0.1:9090"
            )
        least, most = entry.get("min"), entry.get("max")
        if least is None and most is None:
            raise ValueError("it has no limit; give min, max or both")
        for field, limit in (("min", least), ("max", most)):
            if limit is not None and not _is_number(limit):
                raise ValueError(f"{field} is {limit!r}; give a number")
        if least is not None and most is not None and least > most:
            raise ValueError(f"min is {least:g} and max is {most:g}, between which nothing is; exchange them")
        url = _checked_url("prometheus", entry["prometheus"])
        if urlsplit(url).query:
            raise ValueError("prometheus has a query; give the server's address alone")
        url = url.rstrip("/") + "/api/v1/query"
        return Check(entry["name"], url, entry["promql"], least, most, token=token, ca_file=ca_file, timeout=timeout)
    status, match = entry.get("status", 200), entry.get("match", "")
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"status is {status!r}; give a status code from 200 to 599")
    if match:
        _searching(match)
    url = _checked_url("url", entry["url"])
    return Check(entry["name"], url, status=status, match=match, token=token, ca_file=ca_file, timeout=timeout)


def _checked_url(field: str, url: str) -> str:
    """Return the address; what is wrong with it is said without it, for it may hold a secret."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
        raise ValueError(f"{field} is no address that can be asked; give one like https://host:port/path")
    if parts.username is not None:
        raise ValueError(f"{field} has a user in it; give a token instead")
    if parts.fragment:
        raise ValueError(f"{field} has a fragment, which no server sees; leave out what begins with #")
    return url


def _searching(match: str) -> Exchange:
    """Return what searches a body's beginning, as much of it as takes bounded time."""
    wrapped = f"(?P<destination>)(?:{match})"
    try:
        return Exchange([""], b"", compile_match(wrapped))
    except ValueError as error:
        raise ValueError(str(error).replace(repr(wrapped), repr(match))) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        return None


def _opener(check: Check, parts: SplitResult) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if _is_here(parts.hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    if parts.scheme == "https":
        handlers.append(urllib.request.HTTPSHandler(context=tls_context(check.ca_file)))
    return urllib.request.build_opener(*handlers)


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _fetch(check: Check) -> tuple[int, bytes]:
    """Return the status and the body, of which one byte more than the limit shows that it is longer.

    A thread of its own does it, since nothing else bounds the whole of name resolution, headers and body. When the time
    is over the thread is left to end with its next read.
    """
    url = f"{check.url}?{urlencode({'query': check.promql})}" if check.promql else check.url
    limit = ANSWER_LIMIT if check.promql else REPLY_LIMIT
    request = urllib.request.Request(url, headers={"Accept": "application/json" if check.promql else "*/*"})
    if check.token:
        request.add_unredirected_header("Authorization", f"Bearer {check.token}")
    found: list[tuple[int, bytes]] = []
    failed: list[str] = []
    over = threading.Event()
    late = f"its {check.timeout:g} s were over"

    def ask() -> None:
        try:
            try:
                answer = _opener(check, urlsplit(url)).open(request, timeout=check.timeout)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                if 300 <= answer.code < 400:
                    found.append((answer.code, (answer.headers.get("location") or "").encode()))
                    return
                body = b""
                while len(body) <= limit and not over.is_set():
                    piece = answer.read1(min(65536, limit + 1 - len(body)))
                    body += piece
                    if not piece:
                        # read1, unlike read, does not complain of a body that was cut off.
                        if getattr(answer, "length", 0):
                            raise http.client.IncompleteRead(b"")
                        break
                found.append((answer.code, body))
        except http.client.HTTPException as error:
            failed.append(f"what came is no whole HTTP answer ({type(error).__name__})")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            # Without an errno it is the socket's own time limit, which is the same.
            timed_out = isinstance(reason, TimeoutError) and reason.errno is None
            said = late if timed_out else _cut(check, getattr(reason, "strerror", None) or reason)
            failed.append(said or type(reason).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(check.timeout)
    if not found and not failed:
        over.set()
        raise _Unreachable(late)
    if failed:
        raise _Unreachable(failed[0])
    return found[0]


def _judge_page(check: Check, status: int, body: bytes) -> tuple[bool, str]:
    where = _shown_url(check)
    if status != check.status:
        return False, f"{where} has status {status}, {check.status} is wanted{_redirected(check, status, body)}"
    if not check.match:
        return True, f"{where} has status {status}"
    if 300 <= status < 400:
        return False, f"{where} has status {status}, whose body is not read; leave out match"
    if _searching(check.match).read(body, True) == ("", ""):
        return True, f"{where} has status {status} and a body that matches {_cut(check, check.match)}"
    begins = _cut(check, body.decode(errors="replace")) or "empty"
    return False, f"the body of {where} does not match {_cut(check, check.match)} where it is searched: {begins}"


def _judge_samples(check: Check, status: int, body: bytes) -> tuple[bool, str]:
    """Judge the answer of Prometheus' HTTP API to an instant query (prometheus.io/docs, querying, HTTP API)."""
    where = _shown_url(check)
    if 300 <= status < 400:
        return False, f"{where} has status {status}{_redirected(check, status, body)}"
    if len(body) > ANSWER_LIMIT:
        return False, f"{where} gave more than {ANSWER_LIMIT} bytes; aggregate in the query"
    try:
        answer = json.loads(body)
        if answer["status"] == "error":
            return False, f"{where} refused the query: {_cut(check, answer.get('error', ''))}"
        kind, result = answer["data"]["resultType"], answer["data"]["result"]
        if status != 200 or answer["status"] != "success":
            _no_answer()
        if kind not in ("vector", "scalar"):
            return False, f"the query gives a {_cut(check, kind)}; one that gives a vector or a scalar can be judged"
        if kind == "scalar":
            result = [{"value": result}]
        if any("histogram" in sample for sample in result):
            return False, "the query gives a histogram; one that gives numbers can be judged"
        samples = [(float(s["value"][1]), dict(s.get("metric") or {})) for s in result]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        begins = _cut(check, body.decode(errors="replace")) or "nothing"
        return False, f"{where} gave no answer of a Prometheus but, with status {status}, {begins}"
    if not samples:
        return False, "the query gives no sample: there is no such metric, or a comparison in the query drops all"
    bad = [sample for sample in samples if not _within(check, sample[0])]
    value, labels = bad[0] if bad else samples[0]
    of = f" of {_cut(check, json.dumps(labels))}" if labels else ""
    more = f" ({len(bad)} of {len(samples)} samples are not)" if len(bad) > 1 else ""
    if bad:
        return False, f"the value{of} is {value:g}, {_limits(check)} is wanted{more}"
    all_of = f"all {len(samples)} values are" if len(samples) > 1 else f"the value is {value:g},"
    return True, f"{all_of} {_limits(check)}"


def _no_answer() -> NoReturn:
    raise ValueError


def _within(check: Check, value: float) -> bool:
    """Return whether the value keeps the limits, which NaN does not."""
    low = -math.inf if check.least is None else check.least
    high = math.inf if check.most is None else check.most
    return low <= value <= high


def _limits(check: Check) -> str:
    if check.least is None:
        return f"at most {check.most:g}"
    return f"at least {check.least:g}" if check.most is None else f"{check.least:g} to {check.most:g}"


def _redirected(check: Check, status: int, location: bytes) -> str:
    if not 300 <= status < 400 or not location:
        return ""
    target = _cut(check, location.decode(errors="replace").partition("?")[0])
    return f": it redirects to {target}, which is not followed; give the address that answers"


def _shown_url(check: Check) -> str:
    """Return the address without a query, which may hold a secret."""
    return _cut(check, check.url.partition("?")[0])


def _cut(check: Check, text: Any) -> str:
    """Return text as one line of bounded length, without control characters and without the token."""
    said = str(text)
    if check.token:
        said = said.replace(check.token, "(token)")
    line = " ".join("".join(char if char.isprintable() else " " for char in said[: 4 * SHOWN]).split())
    return line if len(line) <= SHOWN else line[:SHOWN] + "…"


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
