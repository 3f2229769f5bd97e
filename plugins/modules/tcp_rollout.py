# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action tcp_rollout, which lies in plugins/action/tcp_rollout.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tcp_rollout
short_description: Move TCP traffic to another version in proven steps, and take it back when one fails
version_added: "0.1.0"
author:
  - The trafficshift.istio maintainers (@trafficshift)
description:
  - The work of the role P(trafficshift.istio.tcp_rollout#role), which finds most options out by itself.
  - Runs on the controller, as one task, so that it can take back what it did whatever ends it. It is the only thing in
    this collection that changes a cluster without M(kubernetes.core.k8s).
  - SIGINT, SIGTERM and SIGHUP take the traffic back; under C(nohup) a hangup changes nothing. The process that does
    so may outlive C(ansible-playbook) for as long as that takes, and then writes to the standard error that
    C(ansible-playbook) had.
options:
  route:
    description:
      - The route that is live, with C(name), C(namespace), C(service), C(service_port), C(versions), C(gateway_name),
        C(gateway_port) and C(gateway_selector), as the variables of the role P(trafficshift.istio.tcp_route#role).
    type: dict
    required: true
  gateway_namespace:
    description: Namespace of the ingress gateway.
    type: str
    required: true
  gateway_service:
    description: Service of the ingress gateway.
    type: str
    required: true
  ingress:
    description: Where connections go in, as M(trafficshift.istio.ingress_address) returns it.
    type: dict
    required: true
  probe:
    description: Options of M(trafficshift.istio.tcp_probe), without those that the steps make up.
    type: dict
    default: {}
  words:
    description: Version by what a reply says, one reply for each version.
    type: dict
    required: true
  witness:
    description: What judges the split, as in the role P(trafficshift.istio.tcp_verify#role).
    type: str
    choices: [probe, gateway, both]
    default: probe
  window:
    description: Seconds to wait for connections of others, with O(witness=gateway).
    type: int
    default: 300
  old:
    description: The version that has the connections.
    type: str
    required: true
  new:
    description: The version that is to get them.
    type: str
    required: true
  steps:
    description: Percentages to go through, rising.
    type: list
    elements: raw
    required: true
  method:
    description: Where the weights stand.
    type: str
    choices: [route, endpoints]
    default: endpoints
  hold:
    description: Seconds to stay at each step.
    type: float
    default: 0.0
  deadline:
    description: Seconds for all steps together.
    type: float
    default: 3600.0
  on_resume:
    description: What to do about a rollout that was killed.
    type: str
    choices: [back, resume]
    default: back
  take_lock:
    description: Id of a rollout that is known to be dead.
    type: str
    default: ""
  lock_timeout:
    description: Seconds without a sign of life after which a rollout counts as dead.
    type: int
    default: 60
  max_failures:
    description: Connections to one version that the gateway may fail to make in one step.
    type: int
    default: 0
  alpha:
    description: Chance that a new version that is no worse than the old one is taken for worse.
    type: float
    default: 0.001
  obstacle:
    description: What is known to stand in the way forward, one sentence. It stops no way back.
    type: str
    default: ""
  checks:
    description: More to be asked at the end of each step.
    type: list
    elements: dict
    default: []
  tasks:
    description: File of tasks to run at the end of each step.
    type: str
    default: ""
  max_sessions_cut:
    description: Live sessions that one change may cut.
    type: int
  sessions_wait:
    description: Seconds to wait until few enough sessions remain.
    type: float
    default: 0.0
  drain_timeout:
    description: Seconds to wait, after 100 percent, for the old version's last session to end.
    type: float
    default: 300.0
  canary_idle:
    description: Connections to hold open without a word.
    type: int
    default: 0
  canary_chatting:
    description: Connections to hold open and talk on.
    type: int
    default: 0
  wait_timeout:
    description: Seconds to wait for anything, such as replicas to converge or an API server to answer again.
    type: float
    default: 60.0
  report_dir:
    description: Directory on the controller for reports.
    type: str
    default: ""
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
attributes:
  check_mode:
    description: Can run in check mode and say what it would do without changing anything.
    support: full
  diff_mode:
    description: Shows the weights before and after.
    support: full
requirements:
  - kubernetes >= 24.2.0
  - openshift >= 0.13.2
seealso:
  - module: trafficshift.istio.tcp_probe
  - module: trafficshift.istio.gateway_weights
  - module: trafficshift.istio.gateway_sessions
"""

EXAMPLES = r"""
- name: Move half of the connections to v2
  trafficshift.istio.tcp_rollout:
    route:
      name: tcp-echo
      namespace: default
      service: tcp-echo
      service_port: 9000
      versions: {v1: {version: v1}, v2: {version: v2}}
      gateway_name: tcp-echo-gateway
      gateway_port: 31400
      gateway_selector: {istio: ingressgateway}
    gateway_namespace: istio-system
    gateway_service: istio-ingressgateway
    ingress: {host: 127.0.0.1, port: 31400}
    words: {one: v1, two: v2}
    old: v1
    new: v2
    steps: [5, 50]
"""

RETURN = r"""
outcome:
  description:
    - V(completed) if the last step is live and proven. V(taken_back) if something failed and the weights from before
      are live and proven. V(unchanged) if something failed before any weight was changed. V(left) if the rollout
      stopped at a step, because of O(max_sessions_cut), or because another took the route over.
    - V(abandoned) if the playbook was killed and the next run is to resume. V(stuck) if the way back failed too;
      RV(restore) then has the command that sets the weights from before. V(planned) in check mode.
  returned: when it was begun
  type: str
  sample: completed
msg:
  description: The same in one sentence, with the reason.
  returned: always
  type: str
  sample: "default/tcp-echo: v2 100 is live, and every step was proven."
passed:
  description: Whether the outcome is V(completed).
  returned: when it was begun
  type: bool
  sample: true
id:
  description: Names this run in its record on the route.
  returned: when it was begun
  type: str
  sample: 3f2a9c1b
owner:
  description: Who ran it, and where.
  returned: when it was begun
  type: str
  sample: ci@runner-7 (process 4711)
lost:
  description: The rollout that was killed and that this run went on with or took back, null if there was none.
  returned: when it was begun
  type: dict
  sample: null
before:
  description: The weights to which the way back leads.
  returned: when it was begun
  type: dict
  sample: {v1: 100, v2: 0}
live:
  description: The weights at the end.
  returned: when it was begun
  type: dict
  sample: {v1: 0, v2: 100}
steps:
  description: What was done, the verification of what was live before first.
  returned: when it was begun
  type: list
  elements: dict
  contains:
    percent:
      description: Percentage of connections to O(new).
      type: int
      returned: always
    weights:
      description: The weights of the step.
      type: dict
      returned: always
    passed:
      description: Whether the step is proven and passed all gates.
      type: bool
      returned: always
    cut:
      description: The live sessions that the change cuts, by replica and version, and after how many seconds.
      type: dict
      returned: when weights were changed with O(method=route)
    convergence:
      description: What the replicas of the gateway had, as M(trafficshift.istio.gateway_weights) tells it.
      type: dict
      returned: when it was looked at
    probe:
      description: The verification, as C(tcp_verify_result) has it.
      type: dict
      returned: when it was measured
    failures:
      description: Connections made and failed by version, as the gateway counted them during the step.
      type: dict
      returned: when it was measured
    uncounted:
      description: Why the counters do not have all, empty if they do.
      type: str
      returned: when it was measured
    gates:
      description: Each gate with its name, whether it passed, and a sentence.
      type: list
      elements: dict
      returned: when it was measured
  sample: []
switch:
  description: The change of the method, null if there is none. C(cut) is the forecast of sessions that it cuts.
  returned: when it was begun
  type: dict
  sample: {from: route, to: endpoints, cut: {total: 0, replicas: [], msg: no session would be cut}}
back:
  description: The way back, with its reason, null if there was none. C(proven) says whether it is proven to be undone.
  returned: when it was begun
  type: dict
  sample: null
drained:
  description: When the old version's last session ended, or how many remain.
  returned: when it was begun
  type: dict
  sample:
    version: v1
    at: "2026-11-24T10:11:12Z"
    waited: 0.0
    total: 0
    hidden: false
    pods: {tcp-echo-v1-55b9765c96-wbf2b: 0}
    msg: 0 sessions of v1 live on
canary:
  description: The connections that were held open, as M(trafficshift.istio.tcp_probe) returns RV(ignore:sessions).
  returned: when connections were held open
  type: list
  elements: dict
  sample: []
restore:
  description: The command that restores the weights from before, empty unless it is needed.
  returned: when it was begun
  type: str
  sample: ""
unanswered:
  description: Requests that the API server did not answer, and that were made again.
  returned: when it was begun
  type: int
  sample: 0
table:
  description: The steps as lines of text.
  returned: when it was begun
  type: list
  elements: str
  sample: ["step   wanted           seen                       probes  outcome"]
files:
  description: The reports that were written.
  returned: with O(report_dir)
  type: list
  elements: str
  sample: [reports/tcp-echo-rollout.json]
"""
