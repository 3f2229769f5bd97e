# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small servers on loopback, and a port that refuses connections.

Line echo servers answer `one ...`, `two ...`, `three ...`; the others come in two versions, v1 and v2: a banner server
speaks first, a store says which version it is when it is asked for INFO, in the middle of binary data.

Writes their ports as JSON to the file named as the only argument, and serves until it is told to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def echo(word: str) -> Client:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(word.encode() + b" " + line)
            await writer.drain()

    return talk


def banner(version: str) -> Client:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"220 mail ESMTP {version} ready\r\n".encode())
        await reader.readline()

    return talk


def store(version: str) -> Client:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readuntil(b"INFO\x00") == b"INFO\x00":
            writer.write(b"\xff\x00\x10version=" + version.encode() + b"\x00\x00")
            await reader.read(1)  # until the client goes: it must know without an end

    return talk


SERVERS = {
    **{word: echo(word) for word in ("one", "two", "three")},
    **{f"banner_{version}": banner(version) for version in ("v1", "v2")},
    **{f"store_{version}": store(version) for version in ("v1", "v2")},
}


async def serve(talk: Client) -> asyncio.Server:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Clients may go at any time.
        with contextlib.suppress(OSError, ValueError, EOFError):
            await talk(reader, writer)
        writer.close()

    return await asyncio.start_server(served, "127.0.0.1", 0, backlog=1024)


async def main(ports_file: Path) -> None:
    servers = {name: await serve(talk) for name, talk in SERVERS.items()}
    ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # taken, but nobody listens
        ports["dead"] = dead.getsockname()[1]
        unfinished = ports_file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(ports))
        unfinished.rename(ports_file)
        await asyncio.gather(*(server.serve_forever() for server in servers.values()))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
