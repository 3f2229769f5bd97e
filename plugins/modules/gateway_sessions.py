#!/usr/bin/python
# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_sessions
short_description: Count where Istio's gateway replicas send connections, and judge the split
version_added: "0.1.0"
description:
  - Reads from each replica of the ingress gateway how many connections it made to each version of a Service, how many
    of them failed, and how many are open. Envoy counts them for any TCP protocol and for every client.
  - Given back as O(since), what one task returned tells the next what was counted in between. With O(expect) that is
    judged like the replies in M(trafficshift.istio.tcp_probe), so that a split can be judged by the connections of real
    users, without probes and without a service that says its name.
  - With O(tally) the counters have to confirm what a probe counted.
  - Refuses to judge when counters were lost, such as those of an endpoint that went away in the meantime. Gateway
    replicas may come and go.
  - Counts connections from the gateway to the versions, whichever of its ports they came in at. With sidecars, one that
    reaches a pod whose application does not listen is no failure to the gateway.
  - Runs C(pilot-agent) in the gateway's pods, which takes the rights to C(get) and C(create) C(pods/exec).
options:
  since:
    description: What this module returned before, as it was registered. Connections made from then on are counted.
    type: dict
  expect:
    description:
      - Expected percentage by version (subset), in sum 100. The task fails unless the split is as expected.
      - Takes O(since) or O(wait_timeout).
    type: dict
  profile:
    description: How the split is judged, as in M(trafficshift.istio.tcp_probe).
    type: str
    choices: [strict, quick, fixed]
    default: strict
  tolerance:
    description: How far a share may be off, as a fraction. The profile's by default.
    type: float
  alpha:
    description: Largest chance that a split within the tolerance fails. The profile's by default.
    type: float
  beta:
    description: Largest chance that a split outside of the tolerance passes. The profile's by default.
    type: float
  max_probes:
    description:
      - Number of connections after which the waiting ends without a verdict. The profile's by default.
      - With O(profile=fixed), the number that is waited for and judged once.
    type: int
  max_errors:
    description: How many connections may fail, or go to a version that O(expect) does not name.
    type: int
    default: 0
  tally:
    description:
      - Number of connections to each version that a probe counted since O(since).
      - The task fails unless the counters have at least these, and unless the split of all connections has nothing
        against a probe that passed. Whether it suffices for a verdict of its own does not matter then.
    type: dict
  tally_failed:
    description: Number of connections of that probe that got no answer.
    type: int
    default: 0
  wait_timeout:
    description:
      - Seconds to read again until the counters suffice for a verdict and cover O(tally), and until every replica could
        be read. V(0) reads once.
    type: int
    default: 0
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - trafficshift.istio.cluster_reader
  - trafficshift.istio.gateway_reader
notes:
  - Reading takes about half a second, all replicas at the same time. Envoy 1.40 sends what concerns the destination.
    Older ones send the counters of all their endpoints, about 800 bytes each, which took 0.24 seconds for 2000.
  - Envoy counts a connection when it has accepted it and begins to make its own to the version. A client that closes at
    once can be a second ahead of that. One that closes its side first and waits for the end of the other is not.
author:
  - The trafficshift.istio maintainers (@trafficshift)
"""

EXAMPLES = r"""
- name: Judge where users' connections go, for at most ten minutes
  trafficshift.istio.gateway_sessions:
    destination: tcp-echo.default
    destination_port: 9000
    expect: {v1: 80, v2: 20}
    wait_timeout: 600

- name: Read the counters
  trafficshift.istio.gateway_sessions:
    destination: tcp-echo.default
    destination_port: 9000
  register: before

- name: Make connections
  trafficshift.istio.tcp_probe:
    host: 127.0.0.1
    port: 31400
    expect: {one: 80, two: 20}
  register: probe

- name: The gateway has counted them, and as many for each version
  trafficshift.istio.gateway_sessions:
    destination: tcp-echo.default
    destination_port: 9000
    since: "{{ before }}"
    expect: {v1: 80, v2: 20}
    tally: {v1: "{{ probe.counts.one }}", v2: "{{ probe.counts.two }}"}
    wait_timeout: 10
"""

RETURN = r"""
witness:
  description: V(available), or V(unavailable) if this account may not look into the gateway's pods.
  returned: when the cluster answers
  type: str
  sample: available
replicas:
  description: What each replica had counted since its proxy started. At most 10 replicas.
  returned: when the replicas were read
  type: list
  elements: dict
  contains:
    name:
      description: Name of the pod.
      type: str
      returned: always
    incarnation:
      description: What changes when the pod or its proxy starts anew.
      type: str
      returned: always
    ready:
      description: Whether the replica gets connections.
      type: bool
      returned: always
    subsets:
      description:
        - Counters by version, V(cx_total) of connections that were begun, V(cx_connect_fail) of those that did not come
          about, V(cx_active) of those that are open. The same by endpoint, of at most 10.
        - The empty version is the Service as a whole. Null if the replica was not read.
      type: dict
      returned: always
    growth:
      description: As RV(growth), of this replica.
      type: dict
      returned: with O(since) or O(expect)
    error:
      description: Why the replica could not be read. Empty if it was.
      type: str
      returned: always
  sample:
    - name: istio-ingressgateway-59877d5fb8-2jzcf
      incarnation: 0f6c4dd0-64a5-4d69-b5c6-6f3bb10c0d1f/0
      ready: true
      subsets:
        v2:
          cx_total: 302
          cx_connect_fail: 0
          cx_active: 0
          endpoints:
            10.244.0.6:9000: {cx_total: 302, cx_connect_fail: 0, cx_active: 0}
      growth:
        v2: {connections: 302, connect_failures: 0, live: 0}
      error: ""
totals:
  description:
    - The counters of all replicas together, by version.
    - With O(method=endpoints), Envoy forgets the endpoints of a version without a share, so that connections that are
      still open to them are missing here.
  returned: when the replicas were read
  type: dict
  sample:
    v2: {cx_total: 302, cx_connect_fail: 0, cx_active: 0}
method:
  description: What told the versions apart.
  returned: when the replicas were read
  type: str
  sample: route
taken:
  description: When the counters were read last.
  returned: when the replicas were read
  type: str
  sample: "2026-11-24T05:47:49.120+00:00"
reading:
  description: Everything that was read, for O(since) of a later task. Not shortened.
  returned: when the replicas were read
  type: dict
growth:
  description: By version, connections since O(since) or since the task began, those that failed, and how many are open.
  returned: with O(since) or O(expect)
  type: dict
  sample:
    v1: {connections: 1198, connect_failures: 0, live: 3}
    v2: {connections: 302, connect_failures: 0, live: 1}
window:
  description: Seconds from the first reading to the last.
  returned: with O(since) or O(expect)
  type: float
  sample: 12.301
complete:
  description:
    - Whether the counters of every replica that gets connections were read, and nothing is missing in RV(growth).
    - Also false after a replica has gone, which takes nothing from a verdict.
  returned: when the replicas were read
  type: bool
  sample: true
notes:
  description: What else is to be known of the counters, such as replicas that came and went. At most 10 sentences.
  returned: when the replicas were read
  type: list
  elements: str
  sample: []
reason:
  description: What was seen, and what the verdict rests on, in one sentence.
  returned: when the cluster answers
  type: str
  sample: >-
    tcp-echo.default:9000: the split is as expected, v1 80 %, v2 20 % (seen in 1500 connections: v1 1198, v2 302)
verdict:
  description:
    - The judgement, V(pass), V(fail) or V(inconclusive).
    - V(fail) too if the counters deny O(tally), V(inconclusive) if they can neither confirm nor deny it.
  returned: with O(expect), or if O(tally) is not confirmed
  type: str
  sample: pass
passed:
  description:
    - Whether the verdict is V(pass).
    - With O(tally), whether the counters confirm it and the verdict is not V(fail).
  returned: with O(expect) or O(tally)
  type: bool
  sample: true
counts:
  description: Number of connections to each version that came about.
  returned: with O(expect)
  type: dict
  sample: {v1: 1198, v2: 302}
errors:
  description:
    - Number of other connections. V(connect_fail) are those that the gateway could not make, V(unexpected) those to
      versions that O(expect) does not name.
  returned: with O(expect)
  type: dict
  sample: {}
error_details:
  description: Which versions the errors of each kind concern.
  returned: with O(expect)
  type: dict
  sample: {}
probes:
  description: Number of connections that were judged, errors included.
  returned: with O(expect)
  type: int
  sample: 1500
shares:
  description: Each version's share of RV(probes), as a fraction.
  returned: with O(expect)
  type: dict
  sample: {v1: 0.798667, v2: 0.201333}
intervals:
  description: Lower and upper bound of each version's share, as fractions.
  returned: with O(expect)
  type: dict
  sample: {v1: [0.765, 0.829], v2: [0.171, 0.235]}
more:
  description: About how many more connections would settle it, null if it is settled or no number would.
  returned: with O(expect)
  type: int
  sample: null
deviations:
  description: The versions whose share is out of tolerance, as in M(trafficshift.istio.tcp_probe).
  returned: with O(expect)
  type: list
  elements: dict
  sample: []
expect:
  description: The expectation that was judged.
  returned: with O(expect)
  type: dict
  sample: {v1: 80, v2: 20}
profile:
  description: The profile that was judged with.
  returned: with O(expect)
  type: str
  sample: strict
tolerance:
  description: The tolerance that was judged with.
  returned: with O(expect)
  type: float
  sample: 0.05
alpha:
  description: The chance of a wrong V(fail) that was judged with, null with O(profile=fixed).
  returned: with O(expect)
  type: float
  sample: 0.001
beta:
  description: The chance of a wrong V(pass) that was judged with, null with O(profile=fixed).
  returned: with O(expect)
  type: float
  sample: 0.001
max_probes:
  description: The number of connections that ends the waiting.
  returned: with O(expect)
  type: int
  sample: 5000
max_errors:
  description: The number of errors that was allowed.
  returned: with O(expect)
  type: int
  sample: 0
error_rates:
  description: The chances of a wrong verdict, as in M(trafficshift.istio.tcp_probe).
  returned: with O(expect)
  type: dict
  sample: {false_fail: 0.001, false_pass: 0.001}
agreement:
  description: Whether the counters confirm O(tally).
  returned: with O(tally)
  type: dict
  contains:
    agrees:
      description: Null if that cannot be known.
      type: bool
      returned: always
    reason:
      description: The same in one sentence.
      type: str
      returned: always
  sample:
    agrees: true
    reason: the gateway's replicas counted all 1500 connections of the probe, and 0 of others
others:
  description: Connections to each version that O(tally) does not account for.
  returned: with O(tally)
  type: dict
  sample: {v1: 0, v2: 0}
duration:
  description: Seconds that it took.
  returned: when the cluster answers
  type: float
  sample: 1.02
"""

import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.trafficshift.istio.plugins.module_utils import _gateway, _verdict
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    ClusterError,
    argument_spec,
    connect,
    cut,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._counters import Gateway, observe
from ansible_collections.trafficshift.istio.plugins.module_utils._routes import METHODS

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def check_options(params: dict[str, Any]) -> _verdict.Question | None:
    """Return the question if there is one; raises ValueError with one sentence if options are wrong."""
    _gateway.check_host(params["destination"])
    if params["tally"] is not None:
        if not params["since"]:
            raise ValueError("tally is what a probe counted since a first reading: give that reading as since.")
        try:
            params["tally"] = {str(version): int(number) for version, number in params["tally"].items()}
        except (TypeError, ValueError) as error:
            raise ValueError(f"tally has something else than numbers of connections in it ({cut(error)}).") from error
        if any(number < 0 for number in params["tally"].values()):
            raise ValueError("tally has a number of connections below 0 in it.")
    if params["expect"] is None:
        return None
    if not params["since"] and params["wait_timeout"] <= 0:
        raise ValueError("expect has no connections to judge: give an earlier reading as since, or a wait_timeout.")
    # Templates of older ansible-core turn numbers into text.
    expect = {
        str(version): float(given) if isinstance(given, str) and _NUMBER.fullmatch(given) else given
        for version, given in params["expect"].items()
    }
    number = "probes" if params["profile"] == "fixed" else "max_probes"
    given = {name: params[name] for name in ("tolerance", "alpha", "beta", "max_errors")}
    return _verdict.ask(expect, params["profile"], **given, **{number: params["max_probes"]})


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(
            namespace={"type": "str", "default": "istio-system"},
            selector={"type": "dict", "default": {"istio": "ingressgateway"}},
            destination={"type": "str", "required": True},
            destination_port={"type": "int", "required": True},
            method={"type": "str", "choices": list(METHODS), "default": METHODS[0]},
            since={"type": "dict"},
            expect={"type": "dict"},
            profile={"type": "str", "choices": ["strict", "quick", "fixed"], "default": "strict"},
            tolerance={"type": "float"},
            alpha={"type": "float"},
            beta={"type": "float"},
            max_probes={"type": "int"},
            max_errors={"type": "int", "default": 0},
            tally={"type": "dict"},
            tally_failed={"type": "int", "default": 0},
            wait_timeout={"type": "int", "default": 0},
        ),
        supports_check_mode=True,
    )
    try:
        question = check_options(module.params)
        result = observe(Gateway(connect(module), module.params), module.params, question)
    except (ClusterError, ValueError) as error:
        module.fail_json(msg=str(error))
    if result.pop("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
