# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the replicas of a gateway about themselves, several at the same time, through pod exec."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from ansible_collections.trafficshift.istio.plugins.module_utils._client import Cluster
from ansible_collections.trafficshift.istio.plugins.module_utils._pods import SIDECAR, Object, selector_text

EXEC_TIMEOUT = 10  # seconds for one question to one replica
PARALLEL = 8  # replicas that are asked at the same time

Answer = TypeVar("Answer")


class Replicas:
    """The pods of one gateway. Every method raises ClusterError."""

    def __init__(self, cluster: Cluster, namespace: str, selector: Mapping[str, str]) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.labels = selector_text(selector)

    def pods(self) -> list[Object]:
        """Return all pods, whatever their state."""
        return list(self.cluster.find("v1", "Pod", self.namespace, self.labels))

    def request(self, pod: str, path: str) -> str:
        """Return a page of the admin interface of a pod's Envoy."""
        command = ["pilot-agent", "request", "GET", path]
        return self.cluster.execute(self.namespace, pod, SIDECAR, command, EXEC_TIMEOUT)


def ask(
    pods: Sequence[Object], question: Callable[[Object], Answer], late: Callable[[Object, str], Answer]
) -> list[Answer]:
    """Return the answers of replicas that are asked at the same time; what a question raises goes through.

    `late` makes the answer of one that did not answer in time, from the pod and the reason.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[int, Answer | Exception]] = queue.SimpleQueue()
    for index in range(len(pods)):
        todo.put(index)

    def work() -> None:
        while True:
            try:
                index = todo.get_nowait()
            except queue.Empty:
                return
            try:
                answers.put((index, question(pods[index])))
            except Exception as error:  # raised again by the thread that waits
                answers.put((index, error))

    for _each in range(min(PARALLEL, len(pods))):
        # Daemons: a replica that never answers must not keep the module from ending.
        threading.Thread(target=work, daemon=True).start()
    found = [late(pod, f"no answer within {EXEC_TIMEOUT} s") for pod in pods]
    deadline = time.monotonic() + EXEC_TIMEOUT * (1 + len(pods) // PARALLEL)
    for _each in range(len(pods)):
        try:
            index, answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if isinstance(answer, Exception):
            raise answer
        found[index] = answer
    return found
