# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action tcp_probe, which lies in plugins/action/tcp_probe.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tcp_probe
short_description: Probe a TCP service and judge how its connections are split
version_added: "0.1.0"
description:
  - Makes many short TCP connections from the controller. On each it sends one line, reads the reply up to its newline
    and closes. The reply's first word names the destination, as Istio's C(tcp-echo) sample does with V(one) and V(two).
  - Compares each destination's share of all probes with the expected percentage. Every deviation is reported at once.
  - Destinations of 0 and of 100 percent have no tolerance, one stray reply fails. Any error fails too.
  - The task fails with one sentence when the split is not as expected; the result holds everything either way.
  - Errors are counted by kind. V(refused), V(unreachable), V(timeout), V(reset) are what they say, V(empty) is a
    connection closed without a byte, V(truncated) one closed in the middle of the reply, V(oversize) a reply without a
    newline in its first 8192 bytes, V(unexpected) a first word that O(expect) does not name, V(no_local_port) a
    controller that has no free local port left, V(other) anything else.
  - When none of the first 10 probes gets an answer, the run ends there.
options:
  host:
    description: Name, IPv4 or IPv6 address to connect to.
    type: str
    required: true
  port:
    description: TCP port to connect to.
    type: int
    required: true
  expect:
    description:
      - Expected percentage by reply word, in sum 100.
      - A destination that should get nothing may be named with V(0).
    type: dict
    required: true
  tolerance:
    description: How far a share may be off, as a fraction. V(0.05) takes 75 to 85 percent for 80.
    type: float
    default: 0.05
  probes:
    description:
      - How many connections to make.
      - Envoy draws lots for each connection, so that a correct split is hardly ever exact. At O(tolerance=0.05) the
        default number fails a correct 80/20 with a chance of 6e-10, and a correct 50/50, the worst case, with 5e-7.
        1000 probes fail them in 0.007 and 0.14 percent of all runs, 10 probes in 70 and 75 percent.
    type: int
    default: 2500
  concurrency:
    description: How many connections may be open at the same time.
    type: int
    default: 20
  interval:
    description: Seconds between the starts of two probes. V(1) with 10 O(probes) is the pace of Istio's written task.
    type: float
    default: 0.0
  timeout:
    description:
      - Seconds that one probe may take, from connecting to the reply's newline.
      - The default leaves room for two lost connection requests, which are repeated after 1 and 3 seconds.
    type: float
    default: 5.0
  payload:
    description:
      - What to send, at most 4096 bytes. A newline is added if it does not end in one.
      - By default the current date as C(date) prints it.
    type: str
attributes:
  action:
    description: The task has an action plugin and runs on the controller.
    support: full
  async:
    description: The task can be run with C(async).
    support: none
  check_mode:
    description: Can run in check mode and say what it would do without changing anything.
    support: none
    details:
      - The task is skipped in check mode. The route that it would judge has not been applied then.
  delegation:
    description: Can be delegated to another host.
    support: none
    details:
      - Connections are always made from the controller.
  diff_mode:
    description: Says what it changed.
    support: none
    details:
      - The task changes nothing.
notes:
  - Connections are closed in the ordinary way, as real clients do. Each closed connection keeps a local port for a
    minute on Linux, so that about 28000 probes a minute can be made to one address.
  - The addresses of a name are tried in the system's order. The first that lets a connection in gets all further
    probes.
author:
  - The trafficshift.istio maintainers (@trafficshift)
"""

EXAMPLES = r"""
- name: All connections go to v1
  trafficshift.istio.tcp_probe:
    host: 127.0.0.1
    port: 31400
    expect: {one: 100, two: 0}
    probes: 100

- name: One connection in five goes to v2
  trafficshift.istio.tcp_probe:
    host: 127.0.0.1
    port: 31400
    expect: {one: 80, two: 20}

- name: The pace of Istio's written task, with a tolerance that suits its ten probes
  trafficshift.istio.tcp_probe:
    host: ingress.example.com
    port: 31400
    expect: {one: 80, two: 20}
    probes: 10
    interval: 1
    tolerance: 0.5
"""

RETURN = r"""
msg:
  description: One sentence with the judgement and the reasons for it.
  returned: when probed
  type: str
  sample: "127.0.0.1:31400: one got 79.9 % where 70 % ± 5 points was expected (seen in 2500 probes: one 1998, two 502)"
verdict:
  description: The judgement, V(pass) or V(fail).
  returned: when probed
  type: str
  sample: pass
passed:
  description: Whether the verdict is V(pass).
  returned: when probed
  type: bool
  sample: true
counts:
  description: Number of replies from each destination.
  returned: when probed
  type: dict
  sample: {one: 1998, two: 502}
shares:
  description: Each destination's share of all probes, errors included, as a fraction.
  returned: when probed
  type: dict
  sample: {one: 0.7992, two: 0.2008}
errors:
  description: Number of probes without a valid answer, by kind of error. Empty if there was none.
  returned: when probed
  type: dict
  sample: {}
error_details:
  description: What the first error of each kind said.
  returned: when probed
  type: dict
  sample: {refused: Connection refused}
unexpected:
  description: Number of replies with a first word that O(expect) does not name, by that word. At most 11 entries.
  returned: when probed
  type: dict
  sample: {three: 7}
probes:
  description: Number of probes made.
  returned: when probed
  type: int
  sample: 2500
duration:
  description: Seconds that the run took.
  returned: when probed
  type: float
  sample: 3.871
latency:
  description: Seconds from connecting to the reply's newline, of valid answers. Values are null if there was none.
  returned: when probed
  type: dict
  contains:
    min:
      description: The shortest.
      type: float
      returned: always
    median:
      description: Half of the answers took no longer.
      type: float
      returned: always
    p95:
      description: 95 percent of the answers took no longer.
      type: float
      returned: always
    p99:
      description: 99 percent of the answers took no longer.
      type: float
      returned: always
    max:
      description: The longest.
      type: float
      returned: always
  sample: {min: 0.002, median: 0.029, p95: 0.041, p99: 0.052, max: 0.066}
deviations:
  description: The destinations whose share is out of tolerance, the largest deviation first.
  returned: when probed
  type: list
  elements: dict
  contains:
    destination:
      description: The reply word.
      type: str
      returned: always
    expected:
      description: The share that was expected, as a fraction.
      type: float
      returned: always
    observed:
      description: The share that was seen, as a fraction.
      type: float
      returned: always
  sample: [{destination: one, expected: 0.7, observed: 0.7992}]
address:
  description: The IP address that the probes went to, null if no connection came about.
  returned: when probed
  type: str
  sample: 127.0.0.1
expect:
  description: The expectation that was judged.
  returned: when probed
  type: dict
  sample: {one: 80, two: 20}
tolerance:
  description: The tolerance that was judged with.
  returned: when probed
  type: float
  sample: 0.05
"""
