# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pod says of itself, and label selectors. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SIDECAR = "istio-proxy"  # the container's name in gateways and in injected pods alike
LOCALITY_LABEL = "istio-locality"  # Istio's, it goes before the places in the labels of nodes

Object = Mapping[str, Any]


def is_alive(pod: Object) -> bool:
    """Whether the pod runs or is going to."""
    phase = (pod.get("status") or {}).get("phase")
    return not pod["metadata"].get("deletionTimestamp") and phase not in ("Succeeded", "Failed")


def is_ready(pod: Object) -> bool:
    """Whether the pod gets connections from its Service."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return is_alive(pod) and any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def labels_of(pod: Object) -> Mapping[str, str]:
    """Return the pod's labels."""
    return pod["metadata"].get("labels") or {}


def has_labels(pod: Object, labels: Mapping[str, str]) -> bool:
    """Whether the pod carries all of the labels."""
    return labels.items() <= labels_of(pod).items()


def selector_text(labels: Mapping[str, str]) -> str:
    """Return labels as the API server and kubectl take them, for example app=tcp-echo,version=v1."""
    return ",".join(f"{key}={value}" for key, value in labels.items())


def sidecar(pod: Object) -> tuple[bool, bool]:
    """Return whether the pod has a sidecar, and whether that is ready."""
    spec = pod.get("spec") or {}
    status = pod.get("status") or {}
    native = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    if not any(container.get("name") == SIDECAR for container in [*(spec.get("containers") or []), *native]):
        return False, False
    states = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    return True, any(state.get("name") == SIDECAR and state.get("ready") for state in states)


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (matchLabels, matchExpressions) takes the labels; an empty one takes all."""
    selector = selector or {}
    if not (selector.get("matchLabels") or {}).items() <= labels.items():
        return False
    for expression in selector.get("matchExpressions") or []:
        value = labels.get(expression.get("key"))
        operator, values = expression.get("operator"), expression.get("values") or []
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds.get(operator, False):
            return False
    return True
