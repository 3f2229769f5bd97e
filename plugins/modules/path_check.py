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
  - C(listener) is a route on the port to the Service, in the own configuration of each ready gateway replica. If there
    is none, the live VirtualService and Gateway are looked at for the reason.
  - C(drain) is the drain time of each ready gateway replica, by its own word. A change of the route, such as of its
    weights with O(method=route), cuts the sessions that are open at that time this many seconds later.
  - C(subsets) is pods with the labels of each version, none with those of two. Without any pod it is too early to tell.
  - C(destination_rule) is that the live DestinationRules, as Istio merges them for the gateway, have each subset that
    the live VirtualService sends connections to, with its labels in O(versions), and that pods have these.
  - C(endpoints) is the Service with its port, and a ready pod of each version that gets connections.
  - C(sidecars) is a ready sidecar in each pod of the versions.
  - C(sync) is that the proxies of the ready gateway replicas and of the Service's pods are connected to istiod, and
    have not refused the latest configuration of a listener. They are asked themselves.
  - C(mtls) is that each pod takes what the gateway sends to it, be it plain TCP, TLS or mutual TLS. What counts is the
    DestinationRules at the level of rule, subset and port, the PeerAuthentications of mesh, namespace, workload and
    port, whether the pod has a sidecar, and whether automatic mTLS is on in the mesh.
  - C(protocol) is that the Service's port is declared as TCP, by its C(appProtocol) or else its name. A declaration of
    HTTP breaks it, as sidecars refuse anything else then. Without a declaration it is in order with advice, as guessing
    harms only protocols in which the server speaks first.
  - C(conflicts) is that no other VirtualService, Gateway or TCPRoute owns the gateway's port, and that no other
    DestinationRule for the Service's host takes the place of the route's or has a subset of a version's name with other
    labels.
  - C(listener), C(drain) and C(sync) run C(pilot-agent) in pods, which takes the rights to C(get) and C(create)
    C(pods/exec). Without these they are not checked.
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
      - listener
      - drain
      - subsets
      - destination_rule
      - endpoints
      - sidecars
      - sync
      - mtls
      - protocol
      - conflicts
    default:
      - cluster
      - rights
      - istio
      - gateway_port
      - gateway_selector
      - listener
      - drain
      - subsets
      - destination_rule
      - endpoints
      - sidecars
      - sync
      - mtls
      - protocol
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
      - Name of the Service that the route goes to. C(listener), C(destination_rule), C(endpoints), C(sync), C(mtls) and
        C(protocol) need it.
      - For C(subsets) and C(sidecars), only pods that it selects count.
    type: str
    default: ""
  service_port:
    description: Port of that Service. C(listener), C(mtls) and C(protocol) need it, C(endpoints) does not compare V(0).
    type: int
    default: 0
  versions:
    description:
      - Pod labels of each version, by the version's name.
      - C(subsets), C(destination_rule), C(endpoints), C(sidecars) and C(mtls) need it.
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
    description:
      - Name of the route's VirtualService, which is no conflict with itself.
      - C(destination_rule) needs it, and C(listener) finds the reason for a missing listener with it.
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
  gateway_drain_seconds:
    description: The drain time in seconds that C(drain) is to find at each replica. V(0) takes any.
    type: int
    default: 0
  istio_namespace:
    description: Namespace of Istio's control plane, as far as no injection webhook says where that is.
    type: str
    default: istio-system
  revision:
    description:
      - Revision or tag of the control plane, as in the namespace label C(istio.io/rev).
      - Empty for the one that serves the label C(istio-injection=enabled).
      - If it is not given, the one that O(namespace) is labelled with.
        What hangs on it is not checked if this account may not read that.
    type: str
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - trafficshift.istio.cluster_reader
notes:
  - What this account may not read outside of O(namespace) is not checked. That hop says which right is missing. Within
    O(namespace) the same goes for C(pods/exec), and for PeerAuthentications.
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
drain_seconds:
  description: The drain time in force by gateway replica, of those that could be asked.
  returned: when the hop C(drain) was looked at
  type: dict
  sample: {istio-ingressgateway-59877d5fb8-2jzcf: 45.0}
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
      description: What to do about it, empty if nothing. With a hop that is in order it is advice.
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

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trafficshift.istio.plugins.module_utils import (
    _gateway,
    _held,
    _mesh,
    _path,
    _replicas,
    _sync,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    Cluster,
    ClusterError,
    ForbiddenError,
    argument_spec,
    cut,
    require_libraries,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._gateway import Replica
from ansible_collections.trafficshift.istio.plugins.module_utils._path import HOPS, Hop
from ansible_collections.trafficshift.istio.plugins.module_utils._pods import (
    Object,
    has_labels,
    is_ready,
    labels_of,
    sidecar,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._routes import (
    METHODS,
    destination_rule_name,
    validate_weights,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._sync import State

try:
    import yaml
except ImportError:
    yaml = None  # type: ignore[assignment]  # kubernetes needs it too, and is asked for first

NETWORKING = "networking.istio.io"
SECURITY = "security.istio.io/v1"
GATEWAY_API = "gateway.networking.k8s.io"
ISTIO_KINDS = {"DestinationRule": "destinationrules", "Gateway": "gateways", "VirtualService": "virtualservices"}
ROUTE_HOPS = ("listener", "destination_rule", "mtls")  # say nothing without Istio's kinds
EVERYWHERE_HOPS = ("destination_rule", "mtls", "conflicts")  # other namespaces can have what breaks them
PAUSE = 1.0  # seconds between two looks
NEEDED_VERBS = ("get", "list", "create", "patch", "delete")
NEEDED_READING = (("list", "", "pods"), ("get", "", "services"))


class Checker:
    """Reads what each hop needs, once, and lets _path judge it. A method is called like its hop."""

    def __init__(self, cluster: Cluster, params: dict[str, Any]) -> None:
        self.cluster = cluster
        self.params = params
        self.cache: dict[Any, Any] = {}
        self.places = list(dict.fromkeys([params["namespace"], params["gateway_namespace"]]))
        self.seen: list[str] = []  # the namespaces that could be looked into, if not all

    def check(self, hop: str) -> Hop:
        """Return what was found at a hop; what may not be read elsewhere than in the route's namespace stays open."""
        try:
            if hop in ROUTE_HOPS and not self._has_istio():
                return Hop(hop, None, "Not checked, as Istio is not installed")
            found: Hop = getattr(self, hop)()
        except ForbiddenError as error:
            return Hop(hop, False if error.namespace == self.params["namespace"] else None, *split(error))
        except ClusterError as error:
            return Hop(hop, False, *split(error))
        if found.ok and hop in EVERYWHERE_HOPS and self.seen:
            return found._replace(saw=f"{found.saw}, as far as this account sees ({' and '.join(self.seen)})")
        return found

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
        revision = self._revision()
        missing = [kind for kind in ISTIO_KINDS if not self.cluster.has(f"{NETWORKING}/v1", kind)]
        webhooks = [] if missing else self._webhooks()
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
        reference = f"{self.params['gateway_namespace']}/{self.params['gateway_service']}"
        return _path.check_gateway_port(self._gateway_service(), reference, self.params["gateway_port"])

    def gateway_selector(self) -> Hop:
        namespace = self.params["gateway_namespace"]
        pods = self._find("v1", "Pod", namespace)
        return _path.check_gateway_selector(pods, self._gateway_service(), namespace, self.params["gateway_selector"])

    def listener(self) -> Hop:
        pods = self._gateway_pods()
        self._gateway_service()  # read once, before several threads need it
        refused = None
        replicas: list[Replica] = []
        try:
            replicas = _replicas.ask(pods, self._replica, _late_replica)
        except ForbiddenError as error:
            refused = error
        hop = _path.check_listener(
            replicas,
            self.params["gateway_port"],
            route=self._route(),
            reference=f"{self.params['namespace']}/{self.params['route']}" if self.params["route"] else "",
            service=f"{self.params['namespace']}/{self.params['service']}",
            gateways=self._everywhere(f"{NETWORKING}/v1", "Gateway"),
            gateway_labels=[labels_of(pod) for pod in pods],
        )
        return unless_broken(hop, refused)

    def drain(self) -> Hop:
        replicas = _replicas.Replicas(self.cluster, self.params["gateway_namespace"], {})

        def ask(pod: Object) -> float | str:
            try:
                return _held.drain_seconds(json.loads(replicas.request(pod["metadata"]["name"], _held.DRAIN) or "{}"))
            except ForbiddenError:
                raise
            except (ClusterError, ValueError) as error:
                return cut(error)

        pods = self._gateway_pods()
        answers = _replicas.ask(pods, ask, lambda _pod, why: why)
        found = sorted((pod["metadata"]["name"], answer) for pod, answer in zip(pods, answers))
        return _path.check_drain(
            {name: answer for name, answer in found if isinstance(answer, float)},
            {name: answer for name, answer in found if isinstance(answer, str)},
            self.params["gateway_drain_seconds"],
        )

    def subsets(self) -> Hop:
        pods, versions, namespace = self._route_pods(), self.params["versions"], self.params["namespace"]
        hop = _path.check_subsets(pods, versions, self.params["weights"], namespace)
        if hop.ok and self.params["method"] == "endpoints":
            return _path.check_localities(pods, versions, namespace, self._mesh_localities()) or hop
        return hop

    def destination_rule(self) -> Hop:
        namespace, route = self.params["namespace"], self.params["route"]
        named = self._named_subsets()
        if named is None:
            port = self.params["gateway_port"]
            saw = f"Not checked, as there is no VirtualService {namespace}/{route} with a TCP route for port {port}"
            return Hop("destination_rule", None, saw)
        return _path.check_destination_rule(
            self._rules(self._everywhere(f"{NETWORKING}/v1", "DestinationRule"), self._mesh()[0]),
            service=f"{namespace}/{self.params['service']}",
            route=f"{namespace}/{route}",
            named=named,
            versions=self.params["versions"],
            pods=self._route_pods(),
        )

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

    def sync(self) -> Hop:
        refused = None
        states: list[State] = []
        home, namespace = self.params["gateway_namespace"], self.params["namespace"]
        injected = [pod for pod in self._route_pods() if sidecar(pod)[1]]
        for place, pods in ((home, self._gateway_pods()), (namespace, injected)):
            try:
                states += _replicas.ask(pods, self._state_of(place), _late_state(place))
            except ForbiddenError as error:
                refused = refused or error
        return unless_broken(_path.check_sync(states), refused)

    def mtls(self) -> Hop:
        namespace = self.params["namespace"]
        mesh, refused = self._mesh()
        policies: list[Object] = []
        for place in dict.fromkeys([namespace, mesh.root]) if self.cluster.has(SECURITY, "PeerAuthentication") else ():
            try:
                policies += self._find(SECURITY, "PeerAuthentication", place)
            except ForbiddenError as error:
                refused = refused or error
        rules = self._rules(self._everywhere(f"{NETWORKING}/v1", "DestinationRule"), mesh)
        versions = self.params["versions"]
        named = self._named_subsets()
        if named is None:  # no route yet
            named = _path.weighted(versions, self.params["weights"])
        subsets = {
            name: rules.subsets[name].labels if name in rules.subsets else versions.get(name, {}) for name in named
        }
        hop = _path.check_mtls(
            rules,
            subsets=subsets or {_path.NO_SUBSET: {}},
            port=self.params["service_port"],
            service=self._service(),
            pods=self._route_pods(),
            policies=policies,
            mesh=mesh,
        )
        return unless_broken(hop, refused)

    def protocol(self) -> Hop:
        reference = f"{self.params['namespace']}/{self.params['service']}"
        return _path.check_protocol(self._service(), reference, self.params["service_port"])

    def conflicts(self) -> Hop:
        home, selector = self.params["gateway_namespace"], self.params["gateway_selector"]
        pods = [pod for pod in self._find("v1", "Pod", home) if has_labels(pod, selector)]
        if not self._has_istio():
            return Hop("conflicts", None, "Istio is not installed, so there is no route to conflict with")
        api_gateways, tcp_routes = [], []
        for version in ("v1", "v1alpha2"):
            if self.cluster.has(f"{GATEWAY_API}/{version}", "TCPRoute"):
                tcp_routes = self._everywhere(f"{GATEWAY_API}/{version}", "TCPRoute")
                api_gateways = self._everywhere(f"{GATEWAY_API}/v1", "Gateway") if tcp_routes else []
                break
        return _path.check_conflicts(
            self.params["gateway_port"],
            own=(self.params["namespace"], self.params["route"]),
            gateway_labels=[labels_of(pod) for pod in pods] or [selector],
            gateways=self._everywhere(f"{NETWORKING}/v1", "Gateway"),
            virtual_services=self._everywhere(f"{NETWORKING}/v1", "VirtualService"),
            api_gateways=api_gateways,
            tcp_routes=tcp_routes,
            service=(home, self.params["gateway_service"]),
            rules=self._intended_rules() if self.params["route"] and self.params["service"] else None,
            versions=self.params["versions"],
        )

    def _has_istio(self) -> bool:
        return self.cluster.has(f"{NETWORKING}/v1", "VirtualService")

    def _gateway_pods(self) -> list[Object]:
        selector = self.params["gateway_selector"]
        pods = self._find("v1", "Pod", self.params["gateway_namespace"])
        return [pod for pod in pods if has_labels(pod, selector) and is_ready(pod)]

    def _replica(self, pod: Object) -> Replica:
        """Return what a gateway replica does with connections to the port, by its own configuration."""
        name = pod["metadata"]["name"]
        port = _gateway.listener_port(self._gateway_service(), self.params["gateway_port"], pod)
        destination = _gateway.Destination(
            f"{self.params['service']}.{self.params['namespace']}", self.params["service_port"]
        )
        replicas = _replicas.Replicas(self.cluster, self.params["gateway_namespace"], {})
        try:
            dump = json.loads(replicas.request(name, _gateway.listener_query(port)) or "{}")
            listener = _gateway.read_listener(dump, port, destination)
        except ForbiddenError:
            raise
        except (ClusterError, ValueError, TypeError, AttributeError) as error:
            return Replica(name, False, error=cut(error))
        listener = listener._replace(error=cut(listener.error))
        return _gateway.judge_replica(name, listener, None, _gateway.Wanted(None, []))

    def _state_of(self, namespace: str) -> Callable[[Object], State]:
        replicas = _replicas.Replicas(self.cluster, namespace, {})

        def state(pod: Object) -> State:
            name = pod["metadata"]["name"]
            reference = f"{namespace}/{name}"
            try:
                stats = replicas.request(name, _sync.STATS)
                found = _sync.read_state(reference, stats, json.loads(replicas.request(name, _sync.LISTENERS) or "{}"))
            except ForbiddenError:
                raise
            except (ClusterError, ValueError, TypeError, AttributeError) as error:
                return State(reference, error=cut(error))
            return found._replace(refused=cut(found.refused))

        return state

    def _route(self) -> Object | None:
        """Return the live VirtualService of the route."""
        wanted = (self.params["namespace"], self.params["route"])
        virtual_services = self._everywhere(f"{NETWORKING}/v1", "VirtualService")
        found = (
            item for item in virtual_services if (item["metadata"]["namespace"], item["metadata"]["name"]) == wanted
        )
        return next(found, None)

    def _named_subsets(self) -> list[str] | None:
        return _path.named_subsets(self._route(), self.params["service"], self.params["gateway_port"])

    def _rules(self, rules: Sequence[Object], mesh: _mesh.Mesh) -> _mesh.Rules:
        pods = self._gateway_pods()
        labels = labels_of(pods[0]) if pods else self.params["gateway_selector"]
        caller = _mesh.Caller(self.params["gateway_namespace"], labels)
        return _mesh.merge_rules(rules, (self.params["namespace"], self.params["service"]), caller, mesh.root)

    def _intended_rules(self) -> _mesh.Rules:
        """Return the DestinationRules that hold for the gateway, with the route's own if it is not there yet."""
        rules = self._everywhere(f"{NETWORKING}/v1", "DestinationRule")
        metadata = {"namespace": self.params["namespace"], "name": destination_rule_name(self.params["route"])}
        if not any(metadata.items() <= rule["metadata"].items() for rule in rules):
            subsets = [{"name": name, "labels": labels} for name, labels in self.params["versions"].items()]
            rules = [*rules, {"metadata": metadata, "spec": {"host": self.params["service"], "subsets": subsets}}]
        return self._rules(rules, self._mesh()[0])

    def _mesh(self) -> tuple[_mesh.Mesh, ForbiddenError | None]:
        """Return what the mesh's configuration says, and the right that is missing to know it."""
        namespace, config, refused = self._mesh_config()
        root = str(config.get("rootNamespace") or namespace)
        return _mesh.Mesh(root, config.get("enableAutoMtls") is not False), refused

    def _mesh_config(self) -> tuple[str, dict[str, Any], ForbiddenError | None]:
        """Return the control plane's namespace, the mesh's configuration, and the right that is missing to know it."""
        namespace, revision = self.params["istio_namespace"], self.params["revision"] or ""
        try:
            found = _path.injecting(self._webhooks(), self._revision())
            services = [(hook.get("clientConfig") or {}).get("service") for _name, _labels, hook in found]
            namespace = next((service["namespace"] for service in services if service), namespace)
            revision = next((labels.get("istio.io/rev", "") for _name, labels, _hook in found), revision)
            name = f"istio-{revision}" if revision not in ("", "default") else "istio"
            config_map = self._get("ConfigMap", name, namespace) or {}
            loaded = yaml.safe_load((config_map.get("data") or {}).get("mesh") or "{}")
        except ForbiddenError as error:
            return namespace, {}, error
        except yaml.YAMLError:  # then istiod keeps its defaults too
            loaded = {}
        return namespace, loaded if isinstance(loaded, dict) else {}, None

    def _webhooks(self) -> list[dict[str, Any]]:
        return self._find("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")

    def _revision(self) -> str:
        """Return the revision, as the namespace's label says if it is not given; the default's is empty."""
        if self.params["revision"] is not None:
            return str(self.params["revision"])
        namespace = self._get("Namespace", self.params["namespace"], "")
        return labels_of(namespace or {"metadata": {}}).get("istio.io/rev", "")

    def _mesh_localities(self) -> dict[str, Any]:
        """Return the localityLbSetting of the mesh's configuration, empty if there is none or it is not readable."""
        return self._mesh_config()[1].get("localityLbSetting") or {}

    def _gateway_service(self) -> dict[str, Any] | None:
        return self._get("Service", self.params["gateway_service"], self.params["gateway_namespace"])

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
            self.seen = self.seen or self.places
            return [item for namespace in self.places for item in self._permitted(api_version, kind, namespace)]

    def _permitted(self, api_version: str, kind: str, namespace: str) -> list[dict[str, Any]]:
        try:
            return self._find(api_version, kind, namespace)
        except ForbiddenError:
            if namespace == self.params["namespace"]:
                raise
            self.seen = [seen for seen in self.seen if seen != namespace]
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


def unless_broken(hop: Hop, refused: ForbiddenError | None) -> Hop:
    """Return the hop, or that it is not checked as a right is missing; what is seen to be broken is broken anyway."""
    return hop if hop.ok is False or not refused else Hop(hop.hop, None, *split(refused))


def _late_replica(pod: Object, why: str) -> Replica:
    return Replica(pod["metadata"]["name"], False, error=why)


def _late_state(namespace: str) -> Callable[[Object, str], State]:
    return lambda pod, why: State(f"{namespace}/{pod['metadata']['name']}", error=why)


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
    needs = {
        "listener": ["service", "service_port"],
        "subsets": ["versions"],
        "destination_rule": ["service", "versions", "route"],
        "endpoints": ["service", "versions"],
        "sidecars": ["versions"],
        "sync": ["service"],
        "mtls": ["service", "service_port", "versions"],
        "protocol": ["service", "service_port"],
    }
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
            gateway_drain_seconds={"type": "int", "default": 0},
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
        **{name: fact for hop in hops for name, fact in hop.facts.items()},
    }
    if broken and module.params["fail"]:
        module.fail_json(**result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
