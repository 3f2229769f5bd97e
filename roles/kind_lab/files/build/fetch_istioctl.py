# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads an istioctl release archive, verifies it against the checksum published beside it, and unpacks istioctl.

Usage: fetch_istioctl.py URL, with the directory to fill in the environment variable OUT. The checksum is read from
URL.sha256, a line that begins with 64 hexadecimal digits, as Istio's releases have it.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import sys
import tarfile
import urllib.request
import zlib
from pathlib import Path


def fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            data: bytes = response.read()
            return data
    except (OSError, http.client.HTTPException, ValueError) as error:
        sys.exit(f"{url} cannot be downloaded: {error}")


def main(url: str) -> None:
    print(f"downloading {url}", flush=True)
    archive = fetch(url)
    expected = fetch(url + ".sha256").decode(errors="replace").split()[:1]
    found = hashlib.sha256(archive).hexdigest()
    if expected != [found]:
        published = " ".join(expected)[:12] or "nothing"
        # Not in full: the message has to stay within what is shown of a builder's last line.
        sys.exit(f"{url} has the wrong SHA-256: it begins with {found[:12]}, the published one with {published}")
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            member = tar.extractfile("istioctl")
            program = member.read() if member else b""
    except KeyError:
        program = b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        sys.exit(f"{url} is no tar archive: {error}")
    if not program:
        sys.exit(f"{url} has no program istioctl in it")
    target = Path(os.environ["OUT"]) / "istioctl"
    target.write_bytes(program)
    target.chmod(0o755)


if __name__ == "__main__":
    main(sys.argv[1])
