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
    O(protocol) has other ways to tell destinations apart.
  - Judges each destination's share of all probes by a sequential test. It looks after every 50 probes, in the order in
    which they were launched, and stops as soon as the evidence suffices. A split within the tolerance is failed with a
    chance of at most O(alpha), one out of tolerance is passed with a chance of at most O(beta), however often it looks.
  - The verdict is V(pass), V(fail) or V(inconclusive). The last is no pass either; RV(more) then says about how many
    more probes would settle it.
  - Destinations of 0 and of 100 percent have no tolerance, one stray reply fails. To be passed they take so many
    clean replies that a share of 2 percent of strays would be missed with a chance of at most O(beta).
  - The task fails with one sentence unless the verdict is V(pass); the result holds everything either way. The verdict
    is V(fail) also when more held sessions were lost than O(session_canary.max_sessions_lost) allows.
  - Errors are counted by kind, and more than O(max_errors) fail. V(refused), V(unreachable), V(timeout), V(reset) are
    what they say, V(empty) is a connection closed without a byte, V(truncated) one closed in the middle of the reply,
    V(oversize) a reply without an end in its first 8192 bytes, V(unexpected) a reply that names none of O(expect),
    V(tls) a handshake that failed, for example over the certificate, V(no_local_port) a controller that has no free
    local port left, V(other) anything else.
  - When none of the first 10 probes gets an answer, the run ends there.
  - A run on a terminal that takes longer than two seconds shows a line with the number of probes, the shares and how
    uncertain these still are.
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
      - Expected percentage by reply word, in sum 100. Required, except with O(protocol=connect).
      - A destination that should get nothing may be named with V(0).
    type: dict
  protocol:
    description:
      - V(line) sends a line and takes the first word of the line that comes back.
      - V(banner) sends nothing, because the server speaks first, and takes the first word of its first line, or what
        O(match) finds.
      - V(exchange) sends O(payload) or O(payload_base64) and takes what O(match) finds in the reply.
      - V(connect) connects, closes, and waits, for a second at most, until the other side has closed too. It learns of
        no destination; M(trafficshift.istio.gateway_sessions) does, from the gateway's counters. Without O(expect), the
        verdict is about errors alone.
    type: str
    choices: [line, connect, banner, exchange]
    default: line
  payload:
    description:
      - What to send, at most 4096 bytes. With O(protocol=line) a newline is added if it does not end in one.
      - With O(protocol=line) the current date as C(date) prints it, unless something is given.
    type: str
  payload_base64:
    description: What to send, as bytes in base64.
    type: str
  match:
    description:
      - Regular expression as Python's C(re) has it, searched in the bytes of the reply. Its group called
        C(destination), else its first one, is what O(expect) names.
      - End it with what follows the name, as in C(version=([0-9]+);), where one name is the beginning of another.
      - Expressions that some replies would keep busy for ever are refused, such as one that repeats a repetition. The
        first 4096 bytes of a reply are searched, the first 512 if the expression has a repeat such as C(.*) in it.
    type: str
  profile:
    description:
      - V(strict) judges with a tolerance of 5 points, O(alpha) and O(beta) of 0.001, and at most 5000 probes. A correct
        80/20 takes it about 1400.
      - V(quick) judges with a tolerance of 10 points, O(alpha) and O(beta) of 0.01, and at most 1000 probes. A correct
        80/20 takes it about 300.
      - V(fixed) makes exactly O(probes) probes and compares plainly, the written task's way. RV(error_rates) then says
        how likely a wrong verdict is, which ten probes make very likely.
      - The default is V(strict), or V(fixed) if O(probes) is given.
    type: str
    choices: [strict, quick, fixed]
  tolerance:
    description:
      - How far a share may be off, as a fraction. V(0.05) takes 75 to 85 percent for 80.
      - The default is the profile's.
    type: float
  alpha:
    description: Chance that a split within the tolerance is failed. The default is the profile's.
    type: float
  beta:
    description: Chance that a split out of tolerance is passed. The default is the profile's.
    type: float
  max_probes:
    description:
      - Probes after which the verdict is V(inconclusive) if the evidence did not suffice before. The default is the
        profile's.
      - The filter P(trafficshift.istio.probe_plan#filter) tells beforehand how many a question needs.
    type: int
  max_errors:
    description: How many probes may get no valid answer. They count against every share.
    type: int
    default: 0
  probes:
    description: Makes exactly this number of probes, V(2500) unless given. It goes with O(profile=fixed) only.
    type: int
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
      - Seconds that one probe may take, from connecting to the end of the reply.
      - The default leaves room for two lost connection requests, which are repeated after 1 and 3 seconds.
    type: float
    default: 5.0
  ready_timeout:
    description:
      - Seconds to wait for a first answer before measuring. Errors until then are thrown away, those after it count.
    type: float
    default: 0.0
  settle_timeout:
    description:
      - Seconds within which a measurement that does not pass is thrown away and begun afresh, for a change that may
        still be on its way to gateways that cannot be looked at.
      - Each new run has half the O(beta) of the one before, the first half of what was asked for, so that all runs
        together keep to it.
    type: float
    default: 0.0
  source:
    description: IP address of the controller to connect from.
    type: str
  tls:
    description:
      - Whether to speak TLS, 1.2 or later. The server's certificate is always verified.
    type: bool
    default: false
  tls_server_name:
    description: Name for SNI and the one that the certificate has to have. The default is O(host).
    type: str
  tls_ca_file:
    description: File on the controller with the certificates to trust, in place of the system's.
    type: path
  session_canary:
    description:
      - Holds connections open while it probes, and tells what became of each in RV(sessions). It is how a change of the
        route, made meanwhile by another play or an asynchronous task, is seen to cut sessions or not.
      - They are opened before the first probe, after O(ready_timeout)'s wait, and each makes an exchange as a probe
        does, which tells the destination that holds it. With O(protocol=connect) there is none, with
        O(protocol=banner) no further one.
      - That a connection is ended or broken off is noticed at once. In the end each makes a last exchange to prove that
        it lives, and is closed in the ordinary way.
      - RV(connections) and RV(unanswered) count these connections too, RV(probes) and all that is judged do not.
    type: dict
    suboptions:
      idle:
        description: How many say nothing between their first exchange and their last.
        type: int
        default: 5
      chatting:
        description:
          - How many make an exchange every O(session_canary.interval) seconds. One that gets no reply within
            O(timeout), or one that is another destination's or rubbish, is lost.
          - It has to be V(0) with a protocol that sends nothing.
        type: int
        default: 5
      interval:
        description: Seconds between two exchanges of a chatting session.
        type: float
        default: 1.0
      hold:
        description:
          - Seconds to hold them at least, at most V(86400). The task waits for the rest of that time once it has its
            verdict.
        type: float
        default: 0.0
      max_sessions_lost:
        description: How many may be lost; more fail the task. Unless it is given, lost sessions are told and no more.
        type: int
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
      - The task is skipped in check mode, with the question as it would be asked in its result. The route that it would
        judge has not been applied then.
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
  - What is sent is never part of the result. What comes from the wire is cut to a few printable characters.
  - Connections are closed in the ordinary way, as real clients do. Each closed connection keeps a local port for a
    minute on Linux, so that about 28000 probes a minute can be made to one address.
  - O(session_canary) holds at most 200 sessions. An exchange of theirs takes at most 30 seconds, however long
    O(timeout) is.
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

- name: One connection in five goes to v2
  trafficshift.istio.tcp_probe:
    host: 127.0.0.1
    port: 31400
    expect: {one: 80, two: 20}

- name: The same with a tolerance of two points, which takes more probes
  trafficshift.istio.tcp_probe:
    host: 127.0.0.1
    port: 31400
    expect: {one: 80, two: 20}
    tolerance: 0.02
    max_probes: 30000

- name: The pace of Istio's written task, with a tolerance that suits its ten probes
  trafficshift.istio.tcp_probe:
    host: ingress.example.com
    port: 31400
    expect: {one: 80, two: 20}
    probes: 10
    interval: 1
    tolerance: 0.5

- name: A mail server over TLS, which speaks first and says which version it is
  trafficshift.istio.tcp_probe:
    host: mail.example.com
    port: 465
    protocol: banner
    match: "^220 \\S+ ESMTP (?P<destination>v[0-9])"
    tls: true
    expect: {v1: 95, v2: 5}

- name: Redis, which says in reply to INFO which version it is
  trafficshift.istio.tcp_probe:
    host: redis.example.com
    port: 6379
    protocol: exchange
    payload: "INFO server\r\n"
    match: "redis_version:([0-9]+)"
    expect: {"6": 90, "7": 10}

- name: Sessions held for two minutes, while the weights are changed elsewhere; none may be lost
  trafficshift.istio.tcp_probe:
    host: 127.0.0.1
    port: 31400
    expect: {one: 100, two: 0}
    session_canary:
      idle: 10
      chatting: 10
      hold: 120
      max_sessions_lost: 0
"""

RETURN = r"""
msg:
  description: One sentence with the judgement and the reasons for it.
  returned: when probed
  type: str
  sample: "127.0.0.1:31400: the split is as expected, one 80 %, two 20 % (seen in 1300 probes: one 1039, two 261)"
verdict:
  description: The judgement, V(pass), V(fail) or V(inconclusive).
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
  sample: {one: 1039, two: 261}
shares:
  description: Each destination's share of all probes, errors included, as a fraction.
  returned: when probed
  type: dict
  sample: {one: 0.799231, two: 0.200769}
intervals:
  description:
    - The lowest and the highest share of each destination that the evidence allows, as fractions. A destination passes
      when all of its interval is within the tolerance.
  returned: when probed
  type: dict
  sample: {one: [0.758014, 0.836087], two: [0.163913, 0.241986]}
more:
  description:
    - About how many more probes would settle it, null if it is settled or if a share sits on the edge of its band.
  returned: when probed
  type: int
  sample: null
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
  description: Number of probes that were judged.
  returned: when probed
  type: int
  sample: 1300
connections:
  description:
    - Answers by destination of all connections that the task made, those before the measurement and those under way
      when the verdict was reached included.
  returned: when probed
  type: dict
  sample: {one: 1053, two: 267}
unanswered:
  description: Number of connections among all that got no valid answer.
  returned: when probed
  type: int
  sample: 0
runs:
  description: Number of measurements made, all but the last thrown away. See O(settle_timeout).
  returned: when probed
  type: int
  sample: 1
duration:
  description: Seconds that the run took.
  returned: when probed
  type: float
  sample: 1.871
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
protocol:
  description: The protocol that was spoken.
  returned: when probed
  type: str
  sample: line
expect:
  description: The expectation that was judged.
  returned: when probed
  type: dict
  sample: {one: 80, two: 20}
profile:
  description: The profile that was judged with.
  returned: when probed
  type: str
  sample: strict
tolerance:
  description: The tolerance that was judged with.
  returned: when probed
  type: float
  sample: 0.05
alpha:
  description: Bound of the chance that a split within the tolerance is failed, null with O(profile=fixed).
  returned: when probed
  type: float
  sample: 0.001
beta:
  description: Bound of the chance that a split out of tolerance is passed, null with O(profile=fixed).
  returned: when probed
  type: float
  sample: 0.001
max_probes:
  description: The number of probes after which it would have ended.
  returned: when probed
  type: int
  sample: 5000
max_errors:
  description: The number of errors that was allowed.
  returned: when probed
  type: int
  sample: 0
error_rates:
  description:
    - The chance of a wrong verdict by bad luck. C(false_fail) and C(false_pass) are O(alpha) and O(beta).
    - With O(profile=fixed), C(false_fail) is the chance to fail a split exactly as declared, C(edge) the chance to pass
      one that is on the edge of the tolerance, and C(off_by_twice) the chance to pass one that is off by twice the
      tolerance.
  returned: when probed
  type: dict
  sample: {false_fail: 0.001, false_pass: 0.001}
sessions:
  description: What became of each held session.
  returned: when O(session_canary) is given
  type: list
  elements: dict
  contains:
    kind:
      description: V(idle) or V(chatting).
      type: str
      returned: always
    destination:
      description: The reply word of its first exchange, null if there was none.
      type: str
      returned: always
    opened:
      description: When it was begun, in UTC by ISO 8601.
      type: str
      returned: always
    fate:
      description:
        - V(alive) lived to the end. V(closed) was ended by the other side, if only its own half of it. V(reset) was
          broken off. V(timeout) got no reply in time. V(garbled) got rubbish, or another destination's reply.
          V(refused) never came about.
      type: str
      returned: always
    died:
      description: When that was, in UTC by ISO 8601; null for V(alive).
      type: str
      returned: always
    lived:
      description: Seconds from the one to the other, or to the end.
      type: float
      returned: always
    exchanges:
      description: How many replies it got.
      type: int
      returned: always
    detail:
      description: What more there is to say about its end, in a few words.
      type: str
      returned: always
  sample:
    - kind: idle
      destination: one
      opened: "2026-07-09T14:03:11.204Z"
      fate: closed
      died: "2026-07-09T14:03:59.871Z"
      lived: 48.667
      exchanges: 1
      detail: ""
    - kind: chatting
      destination: two
      opened: "2026-07-09T14:03:11.204Z"
      fate: alive
      died: null
      lived: 120.018
      exchanges: 121
      detail: ""
sessions_lost:
  description: Number of held sessions whose fate is not V(alive).
  returned: when O(session_canary) is given
  type: int
  sample: 1
trajectory:
  description: How the counts came about, packed into one line for M(trafficshift.istio.split_report).
  returned: when probed
  type: str
  sample: eNqLVsrPS1XSUSopz1eK1TE00DHWMQAiIAIAMhEEFA==
"""
