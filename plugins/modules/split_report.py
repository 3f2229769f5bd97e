#!/usr/bin/python
# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: split_report
version_added: "0.1.0"
short_description: Report on a verified traffic split as JSON, JUnit XML and HTML
author:
  - The trafficshift.istio maintainers (@trafficshift)
description:
  - Writes three files on the controller from one result, such as the fact C(tcp_verify_result) of the role
    P(trafficshift.istio.tcp_verify#role) or what M(trafficshift.istio.tcp_probe) returned. Their names are stable.
  - C(<name>.json) has everything for programs. Its key C(schema) is V(1), and rises when a key goes or changes its
    meaning; new keys may come at any time. What was not measured has no key.
  - C(<name>.xml) is JUnit XML, as GitLab, Jenkins and Tekton take it, with a test case for the verdict, for each
    destination, for errors, for the gateway's convergence and for its counters. An inconclusive verdict is a failure
    of the type V(inconclusive), a verification that came to no measurement an error.
  - C(<name>.html) is a page to look at, to print or to attach to a change request, with a plot of each destination's
    share closing in on its band. It is one file that loads nothing, and needs neither a network nor JavaScript.
  - Each file is written under another name and then renamed, so that whoever reads along never sees half of it.
  - Only what a verification is known to return gets into a report, so that other variables combined with the result do
    not leak. What looks like a password or a token in an error's text is masked.
  - A report tells of a run and is not what the run is about, so the task is never C(changed).
options:
  directory:
    description: Directory on the controller. It is made if it is missing.
    type: path
    required: true
  name:
    description: Name of the files without suffix, without slashes and control characters and with no dot in front.
    type: str
    required: true
  result:
    description:
      - What was returned by the verification. Everything in it is optional; what is missing is missing in the reports.
    type: dict
    required: true
attributes:
  check_mode:
    description: Can run in check mode and return where the files would be, without writing them.
    support: full
  diff_mode:
    description: Shows what changed in diff mode.
    support: none
"""

EXAMPLES = r"""
- name: Probe a split
  trafficshift.istio.tcp_probe:
    host: 127.0.0.1
    port: 31400
    expect: {one: 80, two: 20}
  register: probe
  ignore_errors: true

- name: Report on it
  trafficshift.istio.split_report:
    directory: reports
    name: tcp-echo
    result: "{{ probe }}"
"""

RETURN = r"""
files:
  description: The files' paths.
  returned: success
  type: dict
  contains:
    json:
      description: Everything, for programs.
      returned: success
      type: str
      sample: reports/tcp-echo.json
    junit:
      description: Test cases, for build servers.
      returned: success
      type: str
      sample: reports/tcp-echo.xml
    html:
      description: A page, for people.
      returned: success
      type: str
      sample: reports/tcp-echo.html
"""
