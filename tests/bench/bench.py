#!/usr/bin/env python
# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the probe engine against C clients, asyncio's streams and the written task's shell loop, and its memory.

Usage: bench.py [--quick]

All clients probe the same server (server.c) in turn, for several rounds, each with a process of its own for each run.
Tables show the median and the extremes. CPU time is user and system time of the client's process alone, taken in that
process from before the first connection to after the last: no interpreter's start is in it. The shell loop consists of
such starts, so it is counted as a whole. With two cores, the clients run on one and the server on the other.

It runs in a network namespace of its own where the system permits, and only there with the full number of connections:
elsewhere so many would fill the tables of the machine's firewall. Linux only.
"""

from __future__ import annotations

import _socket
import argparse
import asyncio
import importlib
import itertools
import json
import math
import os
import platform
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

HERE = Path(__file__).absolute().parent
sys.path.insert(0, str(HERE.parents[1]))
importlib.import_module("conftest")  # makes this checkout importable under its collection name

from ansible_collections.trafficshift.istio.plugins.module_utils._tally import Tally
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import WAVE, Question, ask, look
from ansible_collections.trafficshift.istio.plugins.plugin_utils._measure import Prober
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import Address, Engine, Net
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import LineEcho, date_line

EXPECT = {"one": 80, "two": 20}
CONCURRENCY = 20  # the default of tcp_probe
TIMEOUT = 5.0
# A band so narrow that no verdict ends the run: each client makes the same number of probes and pays for every look.
NARROW = 0.0001
PROBES = {0: 20000, 1: 10000, 20: 2000}  # by milliseconds of round trip
CLIENTS = {
    "engine": "engine",
    "c": "C, epoll",
    "eager": "C, epoll, sends at once",
    "bare": "Python, system calls alone",
    "asyncio": "asyncio streams",
}
# name: number of probes, command
SHELL = {
    "(date; sleep 1) | nc": (3, "for i in $(seq {probes}); do (date; sleep 1) | nc -N {address} {port}; done"),
    "date | nc": (20, "for i in $(seq {probes}); do date | nc -N {address} {port}; done"),
}
LEAVE_FROM_ONE = 20000  # probes from one source address, whose ports are some 28,000

Run = dict[str, Any]


# --- What runs in a process of its own: a client makes its probes and prints, as JSON, what they cost.


def measure(question: Question, address: str, port: int, net: Net | None = None) -> Tally:
    """Do what the action tcp_probe does with a question."""
    where, protocol = [Address(socket.AF_INET, (address, port))], LineEcho(EXPECT)

    def make_engine(probes: int) -> Engine:
        return Engine(where, protocol, probes=probes, concurrency=CONCURRENCY, timeout=TIMEOUT, net=net)

    return Prober(make_engine).measure(question).tally


class Roaming(Net):
    """Leaves from one address of 127.0.0.0/8 after the other: the ports of one do not last for a million probes."""

    def __init__(self) -> None:
        self._made = 0

    def new_socket(self, family: int) -> Any:  # type: ignore[override]
        made = super().new_socket(family)
        number = self._made // LEAVE_FROM_ONE
        self._made += 1
        made.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        made.bind((f"127.2.{number // 250}.{number % 250 + 1}", 0))
        return made


def measure_roaming(question: Question, address: str, port: int) -> Tally:
    return measure(question, address, port, Roaming())


def measure_with_asyncio(question: Question, address: str, port: int) -> Tally:
    """Do the same work with asyncio's streams, the way its documentation shows them."""
    tally = Tally(EXPECT)
    numbers = iter(range(question.max_probes))
    done: dict[int, tuple[str, str, float]] = {}

    async def talk() -> str:
        reader, writer = await asyncio.open_connection(address, port)
        try:
            writer.write(date_line())
            words = (await reader.readline()).split(None, 1)
        finally:
            writer.close()
        return words[0].decode() if words else ""

    async def work() -> None:
        for number in numbers:
            began = time.monotonic()
            try:
                word = await asyncio.wait_for(talk(), TIMEOUT)
            except (OSError, asyncio.TimeoutError) as error:
                done[number] = ("other", str(error), 0.0)
            else:
                done[number] = ("" if word in EXPECT else "unexpected", word, time.monotonic() - began)
            while tally.probes in done:
                tally.add(*done.pop(tally.probes))
                if tally.probes % WAVE == 0:
                    look(question, tally.counts, tally.errors)

    async def main() -> None:
        await asyncio.gather(*(work() for _each in range(CONCURRENCY)))

    asyncio.run(main())
    return tally


def measure_bare(question: Question, address: str, port: int) -> Tally:
    """Make the system calls that a probe takes, and nothing else: no deadlines, no errors, no verdict, replies unread.

    Whatever probes in Python takes at least this.
    """
    line, made, held = date_line(), 0, {}
    with select.epoll() as ready:
        while made < question.max_probes or held:
            while made < question.max_probes and len(held) < CONCURRENCY:
                connection = _socket.SocketType(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                connection.connect_ex((address, port))  # over loopback it is there at once
                connection.send(line)
                ready.register(connection, select.EPOLLIN)
                held[connection.fileno()] = connection
                made += 1
            for number, _event in ready.poll():
                connection = held.pop(number)
                connection.recv(256)
                connection.close()
    tally = Tally(EXPECT)
    tally.add_all([("", "one", 0.0)] * made)
    return tally


MEASURES: dict[str, Callable[[Question, str, int], Tally]] = {
    "engine": measure,
    "bare": measure_bare,
    "verdict": measure,
    "memory": measure_roaming,
    "asyncio": measure_with_asyncio,
}


def cpu(who: int = resource.RUSAGE_SELF) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def be_client(what: str, address: str, port: int, probes: int) -> None:
    question = ask(EXPECT, "strict")
    if what != "verdict":
        question = question._replace(tolerance=NARROW, max_probes=probes, max_errors=probes - 1)
    cpu_before, began = cpu(), time.monotonic()
    tally = MEASURES[what](question, address, port)
    costs = {"cpu": cpu() - cpu_before, "wall": time.monotonic() - began}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**costs, "memory": memory, "probes": tally.probes, "errors": sum(tally.errors.values())}))


# --- What starts them and makes the tables.


def move_to_own_namespace() -> None:
    """Start over in a network namespace of its own; return if there can be none."""
    unshare = ["unshare", "--map-root-user", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if shutil.which(unshare[0]) and not subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        os.execvp(unshare[0], [*unshare, sys.executable, *sys.argv, "--alone"])
    print("A network namespace of its own is not permitted, so this is the short run; run it as root for the long one.")


class Bench:
    """The compiled programs and the running server."""

    def __init__(self, directory: Path) -> None:
        for name in ("client", "server"):
            program, source = directory / name, HERE / f"{name}.c"
            subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", program, source, "-lm"], check=True)
        self._client = str(directory / "client")
        # Two machines in small: a core for the server, another for the clients.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-1:])
        delays = [str(1000 * milliseconds) for milliseconds in PROBES]
        self._server = subprocess.Popen(
            [directory / "server", *delays], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        os.sched_setaffinity(0, cores[:1])
        assert self._server.stdout
        self._ports = dict(zip(PROBES, self._server.stdout.readline().split()))
        # Each run has an address to itself, for which no port is held by an earlier run.
        self._addresses = (f"127.1.{number // 250}.{number % 250 + 1}" for number in itertools.count())

    def close(self) -> None:
        self._server.communicate()

    def run(self, what: str, round_trip: int, probes: int) -> Run:
        """Let a client make its probes and return what it says they cost."""
        place = [next(self._addresses), self._ports[round_trip], str(probes)]
        if what in MEASURES:
            argv = [sys.executable, __file__, "--be", what, *place]
        else:
            argv = [self._client, *place, str(CONCURRENCY), str(TIMEOUT), str(NARROW), *["eager"] * (what == "eager")]
        run: Run = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
        if run["errors"]:
            print(f"{what}: {run['errors']} of {run['probes']} probes failed; its figures mean little", file=sys.stderr)
        return run

    def run_shell(self, command: str, round_trip: int, probes: int) -> Run:
        command = command.format(address=next(self._addresses), port=self._ports[round_trip], probes=probes)
        cpu_before, began = cpu(resource.RUSAGE_CHILDREN), time.monotonic()
        answers = subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.PIPE).stdout.count(b"\n")
        wall, used = time.monotonic() - began, cpu(resource.RUSAGE_CHILDREN) - cpu_before
        return {"cpu": used, "wall": wall, "probes": answers}


def spread(values: list[float], digits: int) -> str:
    median, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{median} ({low}-{high})" if len(values) > 1 else median


def speed(bench: Bench, rounds: int, part: float) -> None:
    netcat = shutil.which("nc") and b"-N" in subprocess.run(["nc", "-h"], capture_output=True, check=False).stderr
    print(f"\nSpeed, {CONCURRENCY} probes at a time: median of {rounds} rounds (extremes), ratios within a round")
    print(f"{'round trip':12}{'client':26}{'CPU per probe, µs':>24}{'probes per second':>26}{'CPU, times C':>20}")
    for round_trip, most in PROBES.items():
        runs: dict[str, list[Run]] = {name: [] for name in CLIENTS}
        for number in range(rounds):
            for name in list(CLIENTS)[:: -1 if number % 2 else 1]:
                probes = int(part * most / (4 if name == "asyncio" else 1))
                runs[name].append(bench.run(name, round_trip, probes))
        reference = [run["cpu"] / run["probes"] for run in runs["c"]]
        for name, label in CLIENTS.items():
            row(round_trip, label, runs[name], reference)
        for label, (few, command) in SHELL.items():
            if netcat:
                row(round_trip, label, [bench.run_shell(command, round_trip, few)], [statistics.median(reference)])
    if not netcat:
        print("The shell loop is left out: there is no nc with the option -N; install netcat-openbsd.")


def row(round_trip: int, label: str, runs: list[Run], reference: list[float]) -> None:
    costs = [run["cpu"] / run["probes"] for run in runs]
    rates = spread([run["probes"] / run["wall"] for run in runs], 0)
    ratios = spread([cost / other for cost, other in zip(costs, reference)], 2)
    micros = spread([1e6 * cost for cost in costs], 1)
    print(f"{round_trip:>7} ms  {label:26}{micros:>24}{rates:>26}{ratios:>20}", flush=True)


def time_to_verdict(bench: Bench, rounds: int) -> None:
    print(f"\nTime to a verdict on 80/20 by default: 20 ms round trip, {CONCURRENCY} probes at a time")
    print("The floor is a round trip for every so many probes; to connect over loopback takes none.")
    print(f"{'probes':>8}{'seconds':>10}{'floor':>10}{'times the floor':>18}")
    multiples = []
    for _each in range(rounds):
        run = bench.run("verdict", 20, 0)
        floor = math.ceil(run["probes"] / CONCURRENCY) * 0.020
        multiples.append(run["wall"] / floor)
        print(f"{run['probes']:>8}{run['wall']:>10.3f}{floor:>10.3f}{multiples[-1]:>18.2f}", flush=True)
    print(f"Times the floor: {spread(multiples, 2)}")


def memory(bench: Bench, sizes: list[int]) -> None:
    print("\nPeak resident memory of the engine's process, interpreter and all")
    print(f"{'probes':>10}{'MiB':>8}{'failed':>8}{'seconds':>9}")
    for probes in sizes:
        run = bench.run("memory", 0, probes)
        print(f"{probes:>10,}{run['memory']:>8.1f}{run['errors']:>8}{run['wall']:>9.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds and probes")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--be", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be:
        what, address, port, probes = options.be
        be_client(what, address, int(port), int(probes))
        return
    if not options.alone:
        move_to_own_namespace()
    quick = options.quick or not options.alone
    print(f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        try:
            speed(bench, 3 if quick else 5, 0.25 if quick else 1.0)
            time_to_verdict(bench, 1 if quick else 5)
            memory(bench, [1000, 10000] if quick else [1000, 10000, 100000, 1000000])
        finally:
            bench.close()


if __name__ == "__main__":
    main()
