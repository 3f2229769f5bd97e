# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one way to the API server: plain dicts out, and every failure one sentence in a ClusterError."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_SPEC

try:
    import urllib3
    from ansible_collections.kubernetes.core.plugins.module_utils.k8s.client import get_api_client
    from ansible_collections.kubernetes.core.plugins.module_utils.k8s.exceptions import CoreException
    from kubernetes.client import ApiClient, CoreV1Api
    from kubernetes.client.exceptions import ApiException
    from kubernetes.client.rest import RESTClientObject
    from kubernetes.dynamic.exceptions import ResourceNotFoundError, ResourceNotUniqueError
    from kubernetes.stream import stream
    from openshift.dynamic import DynamicClient

    IMPORT_ERROR = None
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

SHOWN = 300  # characters of what a server said that are shown
FIRST_TIMEOUT = (6, 6)  # seconds to connect, and between two reads; at most two attempts
REQUEST_TIMEOUT = (6, 30)  # the same for questions with longer answers
KINDS = "kinds"  # stands for the API server's own list of what it serves
ERROR_CHANNEL = 3  # of an exec's websocket, with the status of the command
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)  # what the libraries make of an odd answer


class ClusterError(Exception):
    """What is wrong, where and what to do, in one sentence."""


class ForbiddenError(ClusterError):
    """The account lacks a right in `namespace`, "" for all namespaces."""

    def __init__(self, message: str, namespace: str) -> None:
        super().__init__(message)
        self.namespace = namespace


class UnreachableError(ClusterError):
    """The API server cannot be reached, or cannot answer now."""


class MissingKindError(ClusterError):
    """The API server does not know the kind."""


class ConflictError(ClusterError):
    """Somebody else changed the object since it was read."""


def cut(text: Any, length: int = SHOWN) -> str:
    """Return text from a server as one line of bounded length, without control characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in str(text)[: 4 * length]).split())
    return line if len(line) <= length else line[:length] + "…"


def argument_spec(**own: Any) -> dict[str, Any]:
    """Return a module's options with those for authentication, which are kubernetes.core's."""
    return {**AUTH_ARG_SPEC, **own}


def connect(module: AnsibleModule) -> Cluster:
    """Return the cluster; fails the module with one sentence if libraries are missing or it does not answer."""
    require_libraries(module)
    try:
        return Cluster(module.params)
    except ClusterError as error:
        module.fail_json(msg=str(error))
        raise  # not reached


def require_libraries(module: AnsibleModule) -> None:
    """Fail the module if the Python libraries for Kubernetes are not there."""
    if IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("kubernetes and openshift"), exception=IMPORT_ERROR)


class Cluster:
    """Reads from the API server, and patches. Every method raises ClusterError."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        """Connect with the authentication options among the parameters of a module."""
        _limit_waiting()
        self.server = "the API server"
        self._clock = datetime.now(timezone.utc), time.monotonic()
        try:
            api = get_api_client(**{name: params.get(name) for name in AUTH_ARG_SPEC}).client
        except Exception as error:  # whatever a broken kubeconfig makes the libraries raise
            raise _translate(error, _host_of(error), kubeconfig=_kubeconfig(params)) from error
        self._api_client = api.client
        self.server = f"the API server {_host(api.client.configuration.host)}"
        # A list of kinds of its own: the shared one is keyed by address, and clusters come and go behind one address.
        with tempfile.TemporaryDirectory() as folder, self._readable("list", KINDS):
            self._dynamic = DynamicClient(api.client, cache_file=f"{folder}/kinds.json")
            self._kinds: dict[tuple[str, str], Any] = {}
            self._kind("v1", "Pod")  # the first question that takes valid credentials

    @property
    def version(self) -> str:
        """The version of the API server, for example v1.34.4."""
        return cut(self._dynamic.version.get("kubernetes", {}).get("gitVersion", "unknown"), 60)

    @property
    def time(self) -> datetime:
        """The API server's time, going by its last answer about objects, to the second."""
        told, at = self._clock
        return told + timedelta(seconds=time.monotonic() - at)

    def has(self, api_version: str, kind: str) -> bool:
        """Return whether the API server knows the kind."""
        try:
            self._kind(api_version, kind)
        except MissingKindError:
            return False
        return True

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        """Return one object, None if it is not there."""
        return self._read("get", api_version, kind, namespace, name=name)

    def find(self, api_version: str, kind: str, namespace: str = "", labels: str = "") -> list[dict[str, Any]]:
        """Return the objects that match the label selector, those of all namespaces if none is given."""
        found = self._read("list", api_version, kind, namespace, label_selector=labels or None)
        if found is None:
            raise MissingKindError(_missing(api_version, kind))
        # Items of a list do not say what they are.
        return [{"apiVersion": api_version, "kind": kind, **item} for item in found.get("items") or []]

    def patch(self, definition: Mapping[str, Any]) -> dict[str, Any]:
        """Merge what an object is to have into the live one (RFC 7386: lists are replaced, None removes) and return it.

        With a resourceVersion in its metadata it is refused with ConflictError if the object is not that one any more.
        """
        api_version, kind, metadata = definition["apiVersion"], definition["kind"], definition["metadata"]
        answer = self._read(
            "patch",
            api_version,
            kind,
            metadata["namespace"],
            name=metadata["name"],
            body=dict(definition),
            content_type="application/merge-patch+json",
        )
        if answer is None:
            raise ClusterError(
                f"The {kind} {metadata['namespace']}/{metadata['name']} is gone: find out who removed it, and declare "
                "the route anew."
            )
        return answer

    def may(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Return whether the account has the right; a subresource stands behind a slash, as in pods/exec."""
        name, _slash, sub = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": name, "subresource": sub, "namespace": namespace}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "metadata": {},
            "spec": {"resourceAttributes": attributes},
        }
        with self._readable("create", "selfsubjectaccessreviews.authorization.k8s.io"):
            kind = self._kind("authorization.k8s.io/v1", "SelfSubjectAccessReview")
            answer = kind.create(body=review, serialize=False, _request_timeout=REQUEST_TIMEOUT)
            return bool(json.loads(answer.data).get("status", {}).get("allowed"))

    def execute(self, namespace: str, pod: str, container: str, command: list[str], timeout: float) -> str:
        """Return what a command in a container wrote to its standard output.

        `timeout` in seconds is for the command; reaching the pod may take longer. Can be called from several threads.
        """
        # The library bends the client it is given to a websocket for the time of the call, so each call has its own.
        client = ApiClient(self._api_client.configuration)
        client.default_headers = dict(self._api_client.default_headers)
        where = f"{namespace}/{pod}"
        try:
            channel = stream(
                CoreV1Api(client).connect_get_namespaced_pod_exec,
                pod,
                namespace,
                container=container,
                command=command,
                stdout=True,
                stderr=True,
                stdin=False,
                tty=False,
                _preload_content=False,
            )
            try:
                channel.run_forever(timeout=timeout)
                if channel.is_open():
                    raise ClusterError(f"{command[0]} in the pod {where} took longer than {timeout:.0f} s.")
                status = json.loads(channel.read_channel(ERROR_CHANNEL) or "{}")
                output = channel.read_channel(1)
                complaint = channel.read_channel(2)
            finally:
                channel.close()
        except ApiException as error:
            raise _refused_exec(error, namespace, where) from error
        except (OSError, ValueError) as error:
            raise ClusterError(f"The pod {where} could not be asked: {cut(error)}.") from error
        if status.get("status") != "Success":
            said = cut(status.get("message") or "the connection broke")
            raise ClusterError(f"{command[0]} in the pod {where} failed: {said} {cut(complaint)}".rstrip() + ".")
        return output

    def _kind(self, api_version: str, kind: str) -> Any:
        if (api_version, kind) not in self._kinds:
            with self._readable("list", KINDS):
                try:
                    self._kinds[api_version, kind] = self._dynamic.resources.get(api_version=api_version, kind=kind)
                except (ResourceNotFoundError, ResourceNotUniqueError) as error:
                    raise MissingKindError(_missing(api_version, kind)) from error
        return self._kinds[api_version, kind]

    def _read(self, verb: str, api_version: str, kind: str, namespace: str, **query: Any) -> dict[str, Any] | None:
        resource = self._kind(api_version, kind)
        group = api_version.rpartition("/")[0]
        with self._readable(verb, f"{resource.name}.{group}".rstrip("."), namespace):
            call = resource.patch if verb == "patch" else resource.get
            try:
                answer = call(namespace=namespace or None, serialize=False, _request_timeout=REQUEST_TIMEOUT, **query)
                with suppress(TypeError, ValueError):  # no usable date: the clock stays as it was
                    self._clock = parsedate_to_datetime(answer.headers["Date"]), time.monotonic()
                return json.loads(answer.data)
            except ApiException as error:
                if error.status == 404:
                    return None
                raise

    @contextmanager
    def _readable(self, verb: str, resource: str, namespace: str = "") -> Iterator[None]:
        try:
            yield
        except (ApiException, urllib3.exceptions.HTTPError, OSError, *UNREADABLE) as error:
            raise _translate(error, self.server, verb, resource, namespace) from error


def _limit_waiting() -> None:
    """Give the libraries' own calls a timeout and one retry; they ask the server while they load, without a limit."""
    urllib3.util.Retry.DEFAULT = urllib3.util.Retry(total=1, connect=0, redirect=2, other=0)
    if not hasattr(RESTClientObject.request, "limited"):
        original = RESTClientObject.request

        @wraps(original)
        def request(*args: Any, **kwargs: Any) -> Any:
            kwargs["_request_timeout"] = kwargs.get("_request_timeout") or FIRST_TIMEOUT
            return original(*args, **kwargs)

        request.limited = True  # type: ignore[attr-defined]
        RESTClientObject.request = request  # type: ignore[method-assign]


def _translate(
    error: Exception, server: str, verb: str = "", resource: str = "", namespace: str = "", *, kubeconfig: str = ""
) -> ClusterError:
    """Return the sentence for whatever the libraries raised."""
    if isinstance(error, ClusterError):
        return error
    if isinstance(error, ApiException):
        if error.status == 401:
            return ClusterError(
                f"{_capital(server)} does not accept the credentials (401 Unauthorized): the token or client "
                "certificate is wrong or has expired, so get a new kubeconfig."
            )
        if error.status == 403 and resource in ("", KINDS):
            return ClusterError(
                f"{_capital(server)} does not let this account in (403 Forbidden): check that the kubeconfig has "
                "credentials, and that the account has rights."
            )
        if error.status == 403:
            return forbidden(verb, resource, namespace)
        if error.status == 409:
            return ConflictError(
                f"{_capital(server)} refused to {verb} {resource} (409): somebody else changed it at the same time, so "
                "look who writes it too, and try again."
            )
        doing = f" when asked to {verb} {resource}" if verb else ""
        said = cut(_body_message(error.body) or error.reason or "").rstrip(".")
        answer = f"{_capital(server)} answered {error.status} ({said}){doing}"
        if error.status == 429 or error.status >= 500:
            return UnreachableError(f"{answer}: try again later.")
        return ClusterError(f"{answer}: check that the kubeconfig points to the API server of a cluster.")
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, ssl.SSLError) or "SSL" in type(reason).__name__:
        return ClusterError(
            f"No trusted connection to {server} ({_ssl_words(reason)}): check the certificates in the kubeconfig, and "
            "the clock of this machine."
        )
    if isinstance(error, urllib3.exceptions.HTTPError) or isinstance(reason, (socket.timeout, ConnectionError)):
        return UnreachableError(
            f"{_capital(server)} does not answer ({_network_words(reason)}): check that the cluster runs and that the "
            "kubeconfig points to it."
        )
    if isinstance(error, CoreException) or not verb:
        said = cut(error).replace("Could not create API client: ", "").rstrip(".") or type(error).__name__
        if "No configuration found" in said:
            said = f"no kubeconfig at {kubeconfig}"
        return ClusterError(
            f"There is no cluster to talk to ({said}): check kubeconfig and context, or the environment variables "
            "KUBECONFIG and K8S_AUTH_KUBECONFIG."
        )
    return ClusterError(f"{_capital(server)} gave no usable answer ({cut(error)}): check that it is one.")


def _refused_exec(error: Any, namespace: str, where: str) -> ClusterError:
    """Return the sentence for what came of asking for a command in a pod.

    An answer to the handshake is one text to the library: "Handshake status 503 Unavailable -+-+- headers -+-+- body".
    """
    head, _line, rest = str(error.reason or error).partition(" -+-+- ")
    found = re.match(r"Handshake status (\d+) ?(.*)", head)
    status, words = (int(found.group(1)), found.group(2)) if found else (error.status, head)
    if status == 403:
        # A websocket takes the right to get, and from Kubernetes 1.35 on that to create too.
        return forbidden("get and create", "pods/exec", namespace)
    if not status:
        return ClusterError(f"The pod {where} could not be asked: {cut(words)}.")
    body = rest.partition(" -+-+- ")[2] if found else error.body
    said = cut(_body_message(body) or words).rstrip(".")
    sentence = f"The pod {where} could not be asked: the API server answered {status} ({said})"
    if status == 429 or status >= 500:
        return UnreachableError(f"{sentence}, so try again later.")
    return ClusterError(f"{sentence}.")


def forbidden(verb: str, resource: str, namespace: str) -> ForbiddenError:
    """Return the error that names the missing right."""
    place = f"in the namespace {namespace}" if namespace else "in the whole cluster"
    sentence = f"This account may not {verb} {resource} {place} (403): ask for that right, or use another account."
    return ForbiddenError(sentence, namespace)


def _missing(api_version: str, kind: str) -> str:
    return f"The cluster does not know the kind {kind} of {api_version}: install what brings it, for example Istio."


def _body_message(body: Any) -> str:
    """Return what a body of an answer says, empty if nothing."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        return str(json.loads(text)["message"])
    except (TypeError, ValueError, KeyError):
        return "" if text == "None" else text


def _ssl_words(reason: Any) -> str:
    text = str(reason)
    start = text.find("certificate verify failed")
    text = text[start:] if start >= 0 else text
    return cut(text.partition(" (_ssl.c")[0].rstrip("')"))


def _network_words(reason: Any) -> str:
    names = {
        "ConnectTimeoutError": "no connection within the time limit",
        "ReadTimeoutError": "no reply within the time limit",
        "NameResolutionError": "its name cannot be resolved",
    }
    known = names.get(type(reason).__name__)
    if known:
        return known
    text = str(reason)
    return cut(text.rpartition("] ")[2] if "[Errno" in text else text)


def _host(url: str) -> str:
    """Return a URL without anything secret that may stand in it."""
    parts = urlsplit(url or "")
    return cut(
        f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"
    )


def _kubeconfig(params: Mapping[str, Any]) -> str:
    """Return where the libraries look for the kubeconfig."""
    given = params.get("kubeconfig") or os.environ.get("K8S_AUTH_KUBECONFIG") or os.environ.get("KUBECONFIG")
    return cut(given if isinstance(given, str) else "~/.kube/config")


def _host_of(error: Exception) -> str:
    pool: Any = getattr(error, "pool", None)
    return f"the API server {cut(pool.host)}:{pool.port}" if hasattr(pool, "host") else "the API server"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
