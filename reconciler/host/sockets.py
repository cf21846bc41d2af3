"""TCP sockets of this host: who listens, who is connected, and which ports are free."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_INET_DIAG_REQ_BYTECODE = 1
_BC_S_GE = 2
_BC_S_LE = 3


class TcpStatus(IntEnum):
    """States of the kernel's TCP machine that matter here (include/net/tcp_states.h)."""

    ESTABLISHED = 1
    SYN_RECV = 3
    LISTEN = 10


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """One socket; `inode` is 0 while a connection has not been accepted yet."""

    local: str
    port: int
    inode: int
    uid: int

    @property
    def dial(self) -> str:
        """Where to reach this listener from this host, as host:port."""
        address = ipaddress.ip_address(self.local)
        mapped = getattr(address, "ipv4_mapped", None) or address
        if mapped.is_unspecified:
            # `::` may be bound to IPv6 alone, so it is dialled there.
            return f"[::1]:{self.port}" if mapped.version == 6 else f"127.0.0.1:{self.port}"
        return f"[{mapped}]:{self.port}" if mapped.version == 6 else f"{mapped}:{self.port}"

    @property
    def unspecified(self) -> bool:
        """Whether it listens on all addresses."""
        address = ipaddress.ip_address(self.local)
        return (getattr(address, "ipv4_mapped", None) or address).is_unspecified

    @property
    def loopback_only(self) -> bool:
        address = ipaddress.ip_address(self.local)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def listeners(port: int | None = None) -> tuple[TcpSocket, ...]:
    """Returns the listening sockets of both families, of one port or of all."""
    return _dump((TcpStatus.LISTEN,), port)


def connections(port: int) -> int:
    """Counts inbound connections on a local port, both families, also those not accepted yet."""
    return len(_dump((TcpStatus.ESTABLISHED, TcpStatus.SYN_RECV), port))


def _dump(states: tuple[TcpStatus, ...], port: int | None) -> tuple[TcpSocket, ...]:
    found: list[TcpSocket] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            found.extend(_diag(family, states, port))
        except OSError:
            # No sock_diag here (some containers): the text files say the same, only slower.
            found.extend(_proc_net(family, states, port))
    return tuple(found)


def _diag(
    family: socket.AddressFamily, states: tuple[TcpStatus, ...], port: int | None
) -> Iterator[TcpSocket]:
    mask = sum(1 << status for status in states)
    request = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, mask) + bytes(48)
    if port is not None:
        # sport >= port and sport <= port, else fall off the end (inet_diag(7), bytecode).
        code = struct.pack("=BBHHHBBHHH", _BC_S_GE, 8, 20, 0, port, _BC_S_LE, 8, 12, 0, port)
        request += struct.pack("=HH", 4 + len(code), _INET_DIAG_REQ_BYTECODE) + code
    header = struct.pack(
        "=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(1)
        netlink.send(header + request)
        while True:
            data = netlink.recv(1 << 18)
            offset = 0
            while offset < len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", data, offset + 16)[0]
                    raise OSError(code or errno.EPROTO, os.strerror(code or errno.EPROTO))
                yield _parse_message(data, offset + 16)
                offset += (length + 3) & ~3


def _parse_message(data: bytes, offset: int) -> TcpSocket:
    family = data[offset]
    (port,) = struct.unpack_from("!H", data, offset + 4)
    size = 4 if family == socket.AF_INET else 16
    raw = data[offset + 8 : offset + 8 + size]
    uid, inode = struct.unpack_from("=II", data, offset + 64)
    return TcpSocket(str(ipaddress.ip_address(raw)), port, inode, uid)


def _proc_net(
    family: socket.AddressFamily, states: tuple[TcpStatus, ...], port: int | None
) -> Iterator[TcpSocket]:
    path = Path("/proc/net/tcp" if family == socket.AF_INET else "/proc/net/tcp6")
    with suppress(FileNotFoundError):
        for line in path.read_text(encoding="ascii").splitlines()[1:]:
            words = line.split()
            host, _, local_port = words[1].partition(":")
            if int(words[3], 16) not in states or port not in (None, int(local_port, 16)):
                continue
            # Each 32-bit word is in host byte order.
            raw = b"".join(
                struct.pack("=I", int(host[index : index + 8], 16))
                for index in range(0, len(host), 8)
            )
            address = str(ipaddress.ip_address(raw))
            yield TcpSocket(address, int(local_port, 16), int(words[9]), int(words[7]))


def is_free(port: int) -> bool:
    """Whether the port can be bound on loopback and on all addresses, in both families."""
    return all(
        _can_bind(family, address, port)
        for family, address in (
            (socket.AF_INET, "0.0.0.0"),  # noqa: S104 (tested, not served)
            (socket.AF_INET6, "::"),
        )
    )


def _can_bind(family: socket.AddressFamily, address: str, port: int) -> bool:
    try:
        candidate = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return True
    with candidate:
        # As servers do: the closed connections of the one before are no obstacle.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            candidate.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            candidate.bind((address, port))
        except OSError as error:
            return error.errno == errno.EADDRNOTAVAIL
    return True


def ephemeral_range() -> range:
    """Returns the ports that outgoing connections take, which no listener should count on."""
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    except OSError:
        return range(32768, 61000)
    first, last = text.split()
    return range(int(first), int(last) + 1)
