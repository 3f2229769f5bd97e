# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that look into the replicas of a gateway are told of the gateway and of the Service behind it."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  namespace:
    description: Namespace of the gateway's pods and Service.
    type: str
    default: istio-system
  selector:
    description: Labels of the gateway's pods.
    type: dict
    default:
      istio: ingressgateway
  destination:
    description:
      - The Service that the connections go to, as C(name.namespace).
      - The cluster's domain may follow and is not compared.
    type: str
    required: true
  destination_port:
    description: Port of that Service.
    type: int
    required: true
  method:
    description:
      - What tells the versions apart, and where their weights stand. With V(route) each version is a destination of
        the route, a subset, and has a cluster of its own.
      - With V(endpoints) the route names the Service as a whole, and the versions are the localities of its endpoints,
        which are called like them.
    type: str
    choices: [route, endpoints]
    default: route
"""
