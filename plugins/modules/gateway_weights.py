#!/usr/bin/python
# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_weights
short_description: Read the weights that Istio's gateway replicas have, and wait for them
version_added: "0.1.0"
description:
  - Reads from each ready replica of the ingress gateway how it splits connections to a port, from the replica's own
    configuration. Nothing is guessed from what the API server or istiod say.
  - Waits until every replica has exactly the weights that are wanted, and has no newer configuration that it does not
    use yet. Replicas may come and go in the meantime.
  - Runs C(pilot-agent) in the gateway's pods, which takes the rights to C(get) and C(create) C(pods/exec). Without
    them the module succeeds with RV(convergence=behavioural).
options:
  service:
    description: Name of the gateway's Service, whose C(targetPort) is the port that the pods listen on.
    type: str
    default: istio-ingressgateway
  port:
    description: Port of the gateway, as in the Gateway object and the gateway's Service.
    type: int
    required: true
  weights:
    description:
      - The percentage of each version that every replica is to have. Those with 0 are as good as not named.
      - With O(method=endpoints) every replica also has to have an endpoint for each of them.
      - An empty mapping waits until there is no route.
      - Without this option weights are read and not compared.
    type: dict
  endpoint_weights:
    description:
      - The percentage of each version in the Service's endpoints, for a route that is going to name the Service as a
        whole. The route is not looked at.
    type: dict
  clusters:
    description:
      - Versions (subsets) that every replica is to know, for a route that is going to name them.
    type: list
    elements: str
    default: []
  wait:
    description: Whether to wait, and to fail if it takes too long.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait.
    type: int
    default: 60
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - trafficshift.istio.cluster_reader
  - trafficshift.istio.gateway_reader
author:
  - The trafficshift.istio maintainers (@trafficshift)
"""

EXAMPLES = r"""
- name: Wait until every gateway replica sends one connection in five to v2
  trafficshift.istio.gateway_weights:
    port: 31400
    destination: tcp-echo.default
    destination_port: 9000
    weights: {v1: 80, v2: 20}

- name: Wait until every gateway replica knows v2
  trafficshift.istio.gateway_weights:
    port: 31400
    destination: tcp-echo.default
    destination_port: 9000
    clusters: [v2]

- name: Wait until every gateway replica shares the Service's connections among its endpoints
  trafficshift.istio.gateway_weights:
    port: 31400
    destination: tcp-echo.default
    destination_port: 9000
    weights: {v1: 80, v2: 20}
    method: endpoints

- name: Show what the gateway replicas have
  trafficshift.istio.gateway_weights:
    port: 31400
    destination: tcp-echo.default
    destination_port: 9000
    wait: false
"""

RETURN = r"""
replicas:
  description: What each ready replica had when it was last asked.
  returned: when the cluster answers
  type: list
  elements: dict
  contains:
    name:
      description: Name of the pod.
      type: str
      returned: always
    weights:
      description:
        - Percentage by version. A cluster of another Service goes by its whole name.
        - Empty without a route, null if it was not read.
        - With O(method=endpoints), what connections get. A version with a weight and without an endpoint gets nothing.
      type: dict
      returned: always
    method:
      description: Where these weights stand, null if the replica has none by version.
      type: str
      returned: always
    missing:
      description:
        - Versions that have the wanted weight, and no endpoint that is ready. Nobody sees an error, as the others get
          their share.
      type: list
      elements: str
      returned: always
    clusters:
      description: The versions that the replica knows, null if it was not read.
      type: list
      elements: str
      returned: always
    warming:
      description: Whether the replica has a newer configuration that it does not use yet.
      type: bool
      returned: always
    ok:
      description: Whether the replica has what is wanted.
      type: bool
      returned: always
    error:
      description: Why the replica could not be asked, or refused its latest configuration. Empty if neither.
      type: str
      returned: always
  sample:
    - name: istio-ingressgateway-59877d5fb8-2jzcf
      weights: {v1: 80, v2: 20}
      method: route
      missing: []
      clusters: null
      warming: false
      ok: true
      error: ""
converged:
  description: Whether every ready replica has what is wanted, null if that is not known.
  returned: when the cluster answers
  type: bool
  sample: true
convergence:
  description: V(observed) if the replicas were looked at, V(behavioural) if this account may not.
  returned: when the cluster answers
  type: str
  sample: observed
reason:
  description: The same in one sentence.
  returned: when the cluster answers
  type: str
  sample: All 2 gateway replicas have v1 80 / v2 20 on port 31400.
duration:
  description: Seconds that it took.
  returned: when the cluster answers
  type: float
  sample: 0.61
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trafficshift.istio.plugins.module_utils import _gateway
from ansible_collections.trafficshift.istio.plugins.module_utils._client import ClusterError, argument_spec, connect
from ansible_collections.trafficshift.istio.plugins.module_utils._convergence import Gateway, observe
from ansible_collections.trafficshift.istio.plugins.module_utils._routes import METHODS, validate_weights


def check_options(params: dict[str, Any]) -> None:
    """Raise ValueError with one sentence if the destination or the weights are wrong."""
    _gateway.check_host(params["destination"])
    for option in ("weights", "endpoint_weights"):
        if params[option]:
            params[option] = validate_weights(params[option], params[option])
    if params["endpoint_weights"] is not None and (params["weights"] is not None or not params["endpoint_weights"]):
        raise ValueError("endpoint_weights needs a version, and takes the place of weights: give one of the two.")


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(
            namespace={"type": "str", "default": "istio-system"},
            service={"type": "str", "default": "istio-ingressgateway"},
            selector={"type": "dict", "default": {"istio": "ingressgateway"}},
            port={"type": "int", "required": True},
            destination={"type": "str", "required": True},
            destination_port={"type": "int", "required": True},
            weights={"type": "dict"},
            method={"type": "str", "choices": list(METHODS), "default": METHODS[0]},
            endpoint_weights={"type": "dict"},
            clusters={"type": "list", "elements": "str", "default": []},
            wait={"type": "bool", "default": True},
            wait_timeout={"type": "int", "default": 60},
        ),
        supports_check_mode=True,
    )
    try:
        check_options(module.params)
        result = observe(Gateway(connect(module), module.params))
    except (ClusterError, ValueError) as error:
        module.fail_json(msg=str(error))
    if result.pop("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
