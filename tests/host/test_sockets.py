"""TCP sockets: listeners, connections and free ports, on both families."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from reconciler.host import sockets
from reconciler.host.sockets import TcpSocket, connections, ephemeral_range, is_free, listeners

ADDRESSES = [
    (socket.AF_INET, "127.0.0.1", "127.0.0.1", True),
    (socket.AF_INET, "0.0.0.0", "127.0.0.1", False),
    (socket.AF_INET6, "::1", "[::1]", True),
    (socket.AF_INET6, "::", "[::1]", False),
]


@contextmanager
def listening(family: int, address: str, *, dual: bool = False) -> Iterator[tuple[int, int]]:
    with socket.socket(family) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
        server.bind((address, 0))
        server.listen()
        yield server.getsockname()[1], os.fstat(server.fileno()).st_ino


@pytest.mark.parametrize(("family", "address", "dialled", "loopback"), ADDRESSES)
def test_a_listener_is_found_with_its_inode_and_where_to_dial_it(
    family: int, address: str, dialled: str, loopback: bool
) -> None:
    with listening(family, address) as (port, inode):
        (found,) = listeners(port)
        assert (found.port, found.inode, found.uid) == (port, inode, os.geteuid())
        assert found.dial == f"{dialled}:{port}"
        assert found.loopback_only is loopback
        assert found.unspecified is not loopback
        assert found in listeners()
    assert listeners(port) == ()


def test_both_ways_of_reading_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(socket.AF_INET6, "::1") as (port, _), listening(socket.AF_INET, "127.0.0.1"):
        by_netlink = set(listeners(port))

        def refuse(*_: object) -> Iterator[TcpSocket]:
            raise OSError("no sock_diag here")

        monkeypatch.setattr(sockets, "_diag", refuse)
        assert set(listeners(port)) == by_netlink
        assert len(by_netlink) == 1


def test_connections_count_before_they_are_accepted_and_through_a_dual_stack_listener() -> None:
    with listening(socket.AF_INET6, "::", dual=True) as (port, _):
        assert connections(port) == 0
        with (
            socket.create_connection(("127.0.0.1", port)),
            socket.create_connection(("::1", port)),
        ):
            assert connections(port) == 2
        assert connections(port) == 0


def test_many_sockets_need_more_than_one_message() -> None:
    with listening(socket.AF_INET, "127.0.0.1") as (port, _):
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        assert connections(port) == 100
        for client in clients:
            client.close()


@pytest.mark.parametrize(("family", "address", "dialled", "loopback"), ADDRESSES)
def test_a_port_in_use_is_not_free(family: int, address: str, dialled: str, loopback: bool) -> None:
    with listening(family, address) as (port, _):
        assert not is_free(port)
    assert is_free(port)


def test_a_mapped_address_is_the_ipv4_one() -> None:
    mapped = TcpSocket("::ffff:127.0.0.1", 80, 1, 0)
    assert mapped.loopback_only
    assert mapped.dial == "127.0.0.1:80"
    assert not TcpSocket("::ffff:10.0.0.1", 80, 1, 0).loopback_only


def test_the_ephemeral_range_is_that_of_outgoing_connections() -> None:
    with (
        listening(socket.AF_INET, "127.0.0.1") as (port, _),
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        assert client.getsockname()[1] in ephemeral_range()
