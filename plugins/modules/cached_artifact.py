#!/usr/bin/python
# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cached_artifact
version_added: "0.1.0"
short_description: Build a directory once and use it again
author:
  - The trafficshift.istio maintainers (@trafficshift)
description:
  - Runs a command that fills a directory, and keeps the directory in a cache on the controller under a key made of
    everything that went into it.
  - Before a directory is used again, the checksum of every file in it is verified; a half-written or damaged one is
    built anew. Several runs may share one cache; the second waits for the first.
  - While the command runs, the last line it printed is shown every ten seconds.
  - Used by the role P(trafficshift.istio.kind_lab#role).
options:
  cache_dir:
    description: The cache's directory; created when it is missing.
    type: path
    required: true
  name:
    description: The artifact's name, the first part of its directory's name.
    type: str
    required: true
  inputs:
    description: Values that go into the artifact, such as versions and the keys of other artifacts.
    type: dict
    default: {}
  sources:
    description: Files and directories whose contents go into the artifact.
    type: list
    elements: path
    default: []
  argv:
    description:
      - The command that builds the artifact and its arguments.
      - It finds the directory to fill in the environment variable E(OUT).
      - It is not part of the key; name what it depends on in O(inputs) and O(sources).
    type: list
    elements: str
    required: true
  env:
    description: Environment variables for the command, besides those of the controller.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Can run in check mode and tell whether it would build, without building.
    support: full
  diff_mode:
    description: Shows what changed in diff mode.
    support: none
"""

EXAMPLES = r"""
- name: Keep a file made by a command
  trafficshift.istio.cached_artifact:
    cache_dir: ~/.cache/trafficshift-lab
    name: greeting
    inputs:
      text: hello
    argv: [sh, -c, 'echo hello > "$OUT/greeting"']
"""

RETURN = r"""
path:
  description: The artifact's directory.
  returned: always
  type: str
  sample: /home/me/.cache/trafficshift-lab/artifacts/greeting-0123456789abcdef
key:
  description: What the artifact is filed under, 16 hexadecimal digits of a SHA-256 over all inputs and sources.
  returned: always
  type: str
  sample: 0123456789abcdef
intact:
  description: Whether the artifact is there now, complete and undamaged; can be false in check mode only.
  returned: success
  type: bool
log:
  description: The file with all that the command printed when the artifact was last built.
  returned: always
  type: str
  sample: /home/me/.cache/trafficshift-lab/logs/greeting-0123456789abcdef.log
"""
