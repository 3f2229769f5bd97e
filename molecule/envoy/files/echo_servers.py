# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two line echo servers on loopback, which answer `one ...` and `two ...`, and a port that refuses connections.

Writes their ports as JSON to the file named as the only argument, and serves until it is told to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from pathlib import Path


async def serve(word: bytes) -> asyncio.Server:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Clients may go at any time.
        with contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                writer.write(word + b" " + line)
                await writer.drain()
        writer.close()

    return await asyncio.start_server(echo, "127.0.0.1", 0, backlog=1024)


async def main(ports_file: Path) -> None:
    servers = {word: await serve(word.encode()) for word in ("one", "two")}
    ports = {word: server.sockets[0].getsockname()[1] for word, server in servers.items()}
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # taken, but nobody listens
        ports["dead"] = dead.getsockname()[1]
        unfinished = ports_file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(ports))
        unfinished.rename(ports_file)
        await asyncio.gather(*(server.serve_forever() for server in servers.values()))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
