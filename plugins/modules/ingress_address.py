#!/usr/bin/python
# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ingress_address
short_description: Find the address of an ingress gateway's port
version_added: "0.1.0"
description:
  - Finds the host and port under which one port of the ingress gateway's Service is reached from outside the cluster,
    and says how it was found.
  - Looks for the load balancer's IP address, its hostname, the mapping that a lab's node carries in the annotation
    C(trafficshift.istio/host-ports), and the node port at a node's external or else internal address, in this order.
  - Only ready nodes are used, and with C(externalTrafficPolicy=Local) only those that run a ready pod of the Service.
options:
  service:
    description: Name of the ingress gateway's Service.
    type: str
    default: istio-ingressgateway
  namespace:
    description: Namespace of that Service.
    type: str
    default: istio-system
  port:
    description: Port of that Service.
    type: int
    required: true
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - trafficshift.istio.cluster_reader
author:
  - The trafficshift.istio maintainers (@trafficshift)
seealso:
  - module: trafficshift.istio.tcp_probe
"""

EXAMPLES = r"""
- name: Find out where to connect to
  trafficshift.istio.ingress_address:
    port: 31400
  register: ingress

- name: Probe it
  trafficshift.istio.tcp_probe:
    host: "{{ ingress.host }}"
    port: "{{ ingress.port }}"
    expect: {one: 80, two: 20}
"""

RETURN = r"""
host:
  description: Address or name to connect to.
  returned: success
  type: str
  sample: 127.0.0.1
port:
  description: Port to connect to. It is the node port if a node is the way in.
  returned: success
  type: int
  sample: 31400
source:
  description: What the address was found in. One of V(loadbalancer_ip), V(loadbalancer_hostname), V(lab_loopback),
    V(node_port).
  returned: success
  type: str
  sample: lab_loopback
reason:
  description: The same in one sentence.
  returned: success
  type: str
  sample: The lab node dev-control-plane publishes node port 31400 there.
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    Cluster,
    ClusterError,
    argument_spec,
    connect,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._ingress import Ingress, find_ingress
from ansible_collections.trafficshift.istio.plugins.module_utils._pods import is_ready, selector_text


def look_up(cluster: Cluster, name: str, namespace: str, port: int) -> Ingress:
    """Return the address of a Service's port; raises ClusterError or ValueError with one sentence."""
    service = cluster.get("v1", "Service", name, namespace)
    if service is None:
        raise ValueError(
            f"There is no Service {namespace}/{name}: run the istio role, or name the Service of the ingress gateway."
        )
    spec = service.get("spec") or {}
    wants_nodes = any(entry.get("nodePort") for entry in spec.get("ports") or [])
    balanced = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress")
    nodes = cluster.find("v1", "Node") if wants_nodes and not balanced else []
    if nodes and spec.get("externalTrafficPolicy") == "Local":
        pods = cluster.find("v1", "Pod", namespace, selector_text(spec.get("selector") or {}))
        homes = {pod["spec"].get("nodeName") for pod in pods if is_ready(pod)}
        nodes = [node for node in nodes if node["metadata"]["name"] in homes]
    return find_ingress(service, port, nodes)


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(
            service={"type": "str", "default": "istio-ingressgateway"},
            namespace={"type": "str", "default": "istio-system"},
            port={"type": "int", "required": True},
        ),
        supports_check_mode=True,
    )
    cluster = connect(module)
    try:
        found = look_up(cluster, module.params["service"], module.params["namespace"], module.params["port"])
    except (ClusterError, ValueError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found._asdict())


if __name__ == "__main__":
    main()
