#!/usr/bin/python
# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: path_check
short_description: Check the way of a connection through Istio's ingress gateway, hop by hop
version_added: "0.1.0"
description:
  - Looks at everything that has to be in place for TCP connections to get through the ingress gateway to the versions
    of a service, and says at each hop what it saw and what to do about it. Changes nothing.
  - Fails with one sentence about the first hop that is broken. The result holds all hops either way.
  - C(cluster) is the API server and the credentials for it.
  - C(rights) is what the account needs to set routes in O(namespace).
  - C(istio) is Istio's kinds, an available istiod, and an injection webhook that can be called.
  - C(gateway_port) is the port in the ingress gateway's Service.
  - C(gateway_selector) is a ready gateway pod that has the labels and gets the Service's connections.
  - C(subsets) is pods with the labels of each version, none with those of two. Without any pod it is too early to tell.
  - C(endpoints) is the Service with its port, and a ready pod of each version that gets connections.
  - C(sidecars) is a ready sidecar in each pod of the versions.
  - C(conflicts) is that no other VirtualService, Gateway or TCPRoute owns the gateway's port.
options:
  hops:
    description:
      - The hops to check. They are always checked in the order of the choices.
      - A hop that needs an option which is not given fails the task.
    type: list
    elements: str
    choices:
      - cluster
      - rights
      - istio
      - gateway_port
      - gateway_selector
      - subsets
      - endpoints
      - sidecars
      - conflicts
    default:
      - cluster
      - rights
      - istio
      - gateway_port
      - gateway_selector
      - subsets
      - endpoints
      - sidecars
      - conflicts
  fail:
    description: Whether a broken hop fails the task.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to look again and again as long as a hop is broken. V(0) looks once.
    type: int
    default: 0
  namespace:
    description: Namespace of the route, the Service and its pods.
    type: str
    default: default
  service:
    description:
      - Name of the Service that the route goes to. C(endpoints) needs it.
      - For C(subsets) and C(sidecars), only pods that it selects count.
    type: str
    default: ""
  service_port:
    description: Port of that Service. V(0) is not compared.
    type: int
    default: 0
  versions:
    description: Pod labels of each version, by the version's name. C(subsets), C(endpoints) and C(sidecars) need it.
    type: dict
    default: {}
  weights:
    description:
      - Percentage of each version. A version with 0 needs no pod.
      - Without weights each version needs one.
    type: dict
    default: {}
  method:
    description:
      - Where the weights stand. With V(endpoints), C(subsets) is also that each version's pods have the label
        C(istio-locality) with the version's name, and that the mesh does not balance by localities, as far as this
        account may read its configuration.
    type: str
    choices: [route, endpoints]
    default: route
  route:
    description: Name of the route's VirtualService, which is no conflict with itself.
    type: str
    default: ""
  gateway_namespace:
    description: Namespace of the ingress gateway's Service and pods.
    type: str
    default: istio-system
  gateway_service:
    description: Name of the ingress gateway's Service.
    type: str
    default: istio-ingressgateway
  gateway_selector:
    description: Labels of the ingress gateway's pods, as in the Gateway object.
    type: dict
    default:
      istio: ingressgateway
  gateway_port:
    description: Port of the ingress gateway.
    type: int
    default: 31400
  istio_namespace:
    description: Namespace of Istio's control plane, as far as no injection webhook says where that is.
    type: str
    default: istio-system
  revision:
    description:
      - Revision or tag of the control plane, as in the namespace label C(istio.io/rev).
      - Empty for the one that serves the label C(istio-injection=enabled).
      - If it is not given, the one that O(namespace) is labelled with.
    type: str
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - trafficshift.istio.cluster_reader
notes:
  - What this account may not read outside of O(namespace) is not checked. That hop says which right is missing.
  - An API server that does not answer is reported within 15 seconds.
author:
  - The trafficshift.istio maintainers (@trafficshift)
"""

EXAMPLES = r"""
- name: The cluster answers
  trafficshift.istio.path_check:
    hops: [cluster]

- name: Everything is in place for the route
  trafficshift.istio.path_check:
    namespace: default
    service: tcp-echo
    service_port: 9000
    versions: {v1: {version: v1}, v2: {version: v2}}
    weights: {v1: 80, v2: 20}
    route: tcp-echo
    gateway_port: 31400

- name: Wait until Istio is ready
  trafficshift.istio.path_check:
    hops: [cluster, istio, gateway_port, gateway_selector]
    wait_timeout: 300

- name: See what is missing without failing
  trafficshift.istio.path_check:
    hops: [cluster, istio, gateway_port, gateway_selector]
    fail: false
  register: path
"""

RETURN = r"""
msg:
  description: One sentence about the first broken hop, or that all are in order.
  returned: always
  type: str
  sample: "The ingress gateway Service istio-system/istio-ingressgateway has no port 31400 (it has 15021, 80, 443): run
    the istio role, or add {name: tcp, port: 31400} to the Service."
broken:
  description: Name of the first broken hop, empty if there is none.
  returned: when the options are valid
  type: str
  sample: gateway_port
hops:
  description: What was found, in the order of the way.
  returned: when the options are valid
  type: list
  elements: dict
  contains:
    hop:
      description: Name of the hop.
      type: str
      returned: always
    ok:
      description: Whether it is in order, null if it was not checked.
      type: bool
      returned: always
    saw:
      description: What is there.
      type: str
      returned: always
    fix:
      description: What to do about it, empty if nothing.
      type: str
      returned: always
    message:
      description: Both in one sentence.
      type: str
      returned: always
  sample:
    - hop: cluster
      ok: true
      saw: The API server https://127.0.0.1:6443 answers, version v1.34.4
      fix: ""
      message: The API server https://127.0.0.1:6443 answers, version v1.34.4.
"""

import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.yaml import yaml_load
from ansible_collections.trafficshift.istio.plugins.module_utils import _path
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    Cluster,
    ClusterError,
    ForbiddenError,
    argument_spec,
    require_libraries,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._path import HOPS, Hop
from ansible_collections.trafficshift.istio.plugins.module_utils._pods import has_labels, labels_of
from ansible_collections.trafficshift.istio.plugins.module_utils._routes import METHODS, validate_weights

NETWORKING = "networking.istio.io"
GATEWAY_API = "gateway.networking.k8s.io"
ISTIO_KINDS = {"DestinationRule": "destinationrules", "Gateway": "gateways", "VirtualService": "virtualservices"}
PAUSE = 1.0  # seconds between two looks
NEEDED_VERBS = ("get", "create", "patch", "delete")
NEEDED_READING = (("list", "", "pods"), ("get", "", "services"))


class Checker:
    """Reads what each hop needs, once, and lets _path judge it. A method is called like its hop."""

    def __init__(self, cluster: Cluster, params: dict[str, Any]) -> None:
        self.cluster = cluster
        self.params = params
        self.cache: dict[Any, Any] = {}

    def check(self, hop: str) -> Hop:
        """Return what was found at a hop; what may not be read elsewhere than in the route's namespace stays open."""
        try:
            return getattr(self, hop)()
        except ForbiddenError as error:
            return Hop(hop, False if error.namespace == self.params["namespace"] else None, *split(error))
        except ClusterError as error:
            return Hop(hop, False, *split(error))

    def rights(self) -> Hop:
        namespace = self.params["namespace"]
        needed = list(NEEDED_READING)
        if not self.cluster.may("*", NETWORKING, "*", namespace):
            needed += [(verb, NETWORKING, name) for verb in NEEDED_VERBS for name in ISTIO_KINDS.values()]
        refused: dict[str, list[str]] = {}
        for verb, group, resource in needed:
            if not self.cluster.may(verb, group, resource, namespace):
                refused.setdefault(verb, []).append(resource)
        return _path.check_rights(refused, namespace)

    def istio(self) -> Hop:
        revision = self._revision() if self.params["revision"] is None else self.params["revision"]
        missing = [kind for kind in ISTIO_KINDS if not self.cluster.has(f"{NETWORKING}/v1", kind)]
        webhooks = [] if missing else self._find("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")
        hooks = [found[-1] for found in _path.injecting(webhooks, revision)]
        called = [(hook.get("clientConfig") or {}).get("service") for hook in hooks]
        services = [service for service in called if service]
        endpoints = {(service["namespace"], service["name"]): self._ready_endpoints(service) for service in services}
        # A webhook says itself where its control plane is.
        namespace = services[0]["namespace"] if services else self.params["istio_namespace"]
        planes = [] if missing else self._find("apps/v1", "Deployment", namespace, "app=istiod")
        return _path.check_istio(
            missing,
            control_planes=planes,
            webhooks=webhooks,
            endpoints=endpoints,
            namespace=namespace,
            revision=revision,
        )

    def gateway_port(self) -> Hop:
        namespace, name = self.params["gateway_namespace"], self.params["gateway_service"]
        return _path.check_gateway_port(
            self._get("Service", name, namespace), f"{namespace}/{name}", self.params["gateway_port"]
        )

    def gateway_selector(self) -> Hop:
        namespace = self.params["gateway_namespace"]
        service = self._get("Service", self.params["gateway_service"], namespace)
        pods = self._find("v1", "Pod", namespace)
        return _path.check_gateway_selector(pods, service, namespace, self.params["gateway_selector"])

    def subsets(self) -> Hop:
        pods, versions, namespace = self._route_pods(), self.params["versions"], self.params["namespace"]
        hop = _path.check_subsets(pods, versions, self.params["weights"], namespace)
        if hop.ok and self.params["method"] == "endpoints":
            return _path.check_localities(pods, versions, namespace, self._mesh_localities()) or hop
        return hop

    def endpoints(self) -> Hop:
        return _path.check_endpoints(
            self._service(),
            f"{self.params['namespace']}/{self.params['service']}",
            self.params["service_port"],
            pods=self._route_pods(),
            versions=self.params["versions"],
            weights=self.params["weights"],
        )

    def sidecars(self) -> Hop:
        return _path.check_sidecars(self._route_pods(), self.params["versions"], self.params["namespace"])

    def conflicts(self) -> Hop:
        home, selector = self.params["gateway_namespace"], self.params["gateway_selector"]
        pods = [pod for pod in self._find("v1", "Pod", home) if has_labels(pod, selector)]
        if not self.cluster.has(f"{NETWORKING}/v1", "VirtualService"):
            return Hop("conflicts", None, "Istio is not installed, so there is no route to conflict with")
        api_gateways, tcp_routes = [], []
        for version in ("v1", "v1alpha2"):
            if self.cluster.has(f"{GATEWAY_API}/{version}", "TCPRoute"):
                tcp_routes = self._everywhere(f"{GATEWAY_API}/{version}", "TCPRoute")
                api_gateways = self._everywhere(f"{GATEWAY_API}/v1", "Gateway") if tcp_routes else []
                break
        hop = _path.check_conflicts(
            self.params["gateway_port"],
            own=(self.params["namespace"], self.params["route"]),
            gateway_labels=[labels_of(pod) for pod in pods] or [selector],
            gateways=self._everywhere(f"{NETWORKING}/v1", "Gateway"),
            virtual_services=self._everywhere(f"{NETWORKING}/v1", "VirtualService"),
            api_gateways=api_gateways,
            tcp_routes=tcp_routes,
            service=(home, self.params["gateway_service"]),
        )
        if hop.ok and self.cache.get("partly"):
            seen = " and ".join(dict.fromkeys([self.params["namespace"], home]))
            return hop._replace(saw=f"{hop.saw}, as far as this account sees ({seen})")
        return hop

    def _revision(self) -> str:
        """Return the revision that the route's namespace is labelled with, empty for the default or if not readable."""
        try:
            namespace = self._get("Namespace", self.params["namespace"], "")
        except ForbiddenError:
            return ""
        return labels_of(namespace or {"metadata": {}}).get("istio.io/rev", "")

    def _mesh_localities(self) -> dict[str, Any]:
        """Return the localityLbSetting of the mesh's configuration, empty if there is none or it is not readable."""
        revision = self._revision() if self.params["revision"] is None else self.params["revision"]
        name = f"istio-{revision}" if revision not in ("", "default") else "istio"
        try:
            found = self._get("ConfigMap", name, self.params["istio_namespace"]) or {}
        except ForbiddenError:
            return {}
        mesh = yaml_load((found.get("data") or {}).get("mesh", ""))
        return (isinstance(mesh, dict) and mesh.get("localityLbSetting")) or {}

    def _service(self) -> dict[str, Any] | None:
        name = self.params["service"]
        return self._get("Service", name, self.params["namespace"]) if name else None

    def _route_pods(self) -> list[_path.Object]:
        return _path.route_pods(self._find("v1", "Pod", self.params["namespace"]), self._service())

    def _ready_endpoints(self, service: dict[str, str]) -> int:
        slices = self._find(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            service["namespace"],
            f"kubernetes.io/service-name={service['name']}",
        )
        endpoints = [endpoint for item in slices for endpoint in item.get("endpoints") or []]
        # A condition that is not set means yes.
        return sum((endpoint.get("conditions") or {}).get("ready") is not False for endpoint in endpoints)

    def _everywhere(self, api_version: str, kind: str) -> list[dict[str, Any]]:
        """Return the objects of all namespaces, or else of the two that matter most."""
        try:
            return self._find(api_version, kind)
        except ForbiddenError:
            self.cache["partly"] = True
            namespaces = dict.fromkeys([self.params["namespace"], self.params["gateway_namespace"]])
            return [item for namespace in namespaces for item in self._permitted(api_version, kind, namespace)]

    def _permitted(self, api_version: str, kind: str, namespace: str) -> list[dict[str, Any]]:
        try:
            return self._find(api_version, kind, namespace)
        except ForbiddenError:
            if namespace == self.params["namespace"]:
                raise
            return []

    def _find(self, api_version: str, kind: str, namespace: str = "", labels: str = "") -> list[dict[str, Any]]:
        key = (api_version, kind, namespace, labels)
        if key not in self.cache:
            self.cache[key] = self.cluster.find(api_version, kind, namespace, labels)
        return self.cache[key]

    def _get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        key = (kind, name, namespace)
        if key not in self.cache:
            self.cache[key] = self.cluster.get("v1", kind, name, namespace)
        return self.cache[key]


def split(error: ClusterError) -> tuple[str, str]:
    """Return what an error saw and what it says to do."""
    saw, _colon, fix = str(error).rstrip(".").rpartition(": ")
    return (saw, fix) if saw else (fix, "")


def wait(
    look: Callable[[], list[Hop]], timeout: float, *, clock: Callable[[], float], sleep: Callable[[float], None]
) -> list[Hop]:
    """Return the hops as they are in order, or else as they are when `timeout` seconds have passed."""
    deadline = clock() + timeout
    while True:
        hops = look()
        left = deadline - clock()
        if left <= 0 or all(hop.ok is not False for hop in hops):
            return hops
        sleep(min(PAUSE, left))


def walk(params: dict[str, Any]) -> list[Hop]:
    """Return the hops that were asked for, in order."""
    wanted = [hop for hop in HOPS if hop in params["hops"]]
    try:
        cluster = Cluster(params)
    except ClusterError as error:
        rest = [Hop(hop, None, "Not checked, as the cluster cannot be asked") for hop in wanted if hop != "cluster"]
        return [Hop("cluster", False, *split(error)), *rest]
    checker = Checker(cluster, params)
    answers = Hop(
        "cluster", True, f"{cluster.server[:1].upper()}{cluster.server[1:]} answers, version {cluster.version}"
    )
    return [answers if hop == "cluster" else checker.check(hop) for hop in wanted]


def check_options(params: dict[str, Any]) -> None:
    """Raise ValueError with one sentence if a hop lacks an option, or weights are wrong."""
    needs = {"subsets": ["versions"], "endpoints": ["service", "versions"], "sidecars": ["versions"]}
    for hop in params["hops"]:
        missing = [option for option in needs.get(hop, []) if not params[option]]
        if missing:
            raise ValueError(f"The hop {hop} cannot be checked without {' and '.join(missing)}.")
    if params["weights"]:
        params["weights"] = validate_weights(params["weights"], params["versions"])


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(
            hops={"type": "list", "elements": "str", "choices": list(HOPS), "default": list(HOPS)},
            fail={"type": "bool", "default": True},
            wait_timeout={"type": "int", "default": 0},
            namespace={"type": "str", "default": "default"},
            service={"type": "str", "default": ""},
            service_port={"type": "int", "default": 0},
            versions={"type": "dict", "default": {}},
            weights={"type": "dict", "default": {}},
            method={"type": "str", "choices": list(METHODS), "default": METHODS[0]},
            route={"type": "str", "default": ""},
            gateway_namespace={"type": "str", "default": "istio-system"},
            gateway_service={"type": "str", "default": "istio-ingressgateway"},
            gateway_selector={"type": "dict", "default": {"istio": "ingressgateway"}},
            gateway_port={"type": "int", "default": 31400},
            istio_namespace={"type": "str", "default": "istio-system"},
            revision={"type": "str"},
        ),
        supports_check_mode=True,
    )
    require_libraries(module)
    try:
        check_options(module.params)
    except ValueError as error:
        module.fail_json(msg=str(error))
    timeout = module.params["wait_timeout"]
    hops = wait(lambda: walk(module.params), timeout, clock=time.monotonic, sleep=time.sleep)
    broken = next((hop for hop in hops if hop.ok is False), None)
    open_hops = [hop.hop for hop in hops if hop.ok is None]
    fine = f"{len(hops) - len(open_hops)} of {len(hops)} hops are in order"
    fine += f", not checked: {', '.join(open_hops)}." if open_hops else "."
    waited = f" Waited {timeout} s for it." if timeout else ""
    result = {
        "msg": broken.message + waited if broken else fine,
        "broken": broken.hop if broken else "",
        "hops": [hop.result() for hop in hops],
    }
    if broken and module.params["fail"]:
        module.fail_json(**result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
