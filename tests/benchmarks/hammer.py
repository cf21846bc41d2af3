"""A load client in a process of its own: prints answers a second over kept connections."""

from __future__ import annotations

import asyncio
import sys
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def client(port: int, deadline: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = 0
    while time.monotonic() < deadline:
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        at = lower.index(b"content-length:") + 15
        await reader.readexactly(int(lower[at : lower.index(b"\r\n", at)]))
        answers += 1
    writer.close()
    return answers


async def main(port: int, seconds: float, connections: int) -> None:
    deadline = time.monotonic() + seconds
    done = await asyncio.gather(*(client(port, deadline) for _ in range(connections)))
    print(sum(done) / seconds)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
