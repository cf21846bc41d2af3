"""Ports: never one that another uses, used lately, or could take by chance."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.host import sockets
from reconciler.host.locks import FileLock
from reconciler.model.errors import PortsExhaustedError
from reconciler.model.instants import Instant
from reconciler.slots.ports import REST, Ports, lock_path
from tests.slots.scene import A, B, Scene, some_ports

pytestmark = pytest.mark.anyio


@dataclass
class Hands:
    """A clock that is moved by hand."""

    at: Instant = field(default_factory=lambda: Instant("boot", 10**12))

    def now(self) -> Instant:
        return self.at

    def wall(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def new_id(self) -> str:
        return "id"

    async def sleep(self, span: timedelta) -> None:
        self.at += span


def make(allowed: range, clock: Hands | None = None, owner: str = "one") -> Ports:
    return Ports(allowed, clock or Hands(), owner)


def test_two_daemons_never_get_the_same_port() -> None:
    allowed = some_ports(6)
    first, second = make(allowed, owner="one"), make(allowed, owner="two")
    taken = [first.take(), second.take(), first.take(), second.take(), first.take(), second.take()]
    assert sorted(taken) == list(allowed)
    with pytest.raises(PortsExhaustedError, match=f"{allowed.start}-{allowed.stop - 1}"):
        first.take()
    assert "two" in FileLock(lock_path(taken[1])).holder()
    first.close()
    second.close()


def test_a_used_port_rests_ten_minutes_for_every_daemon() -> None:
    allowed, clock = some_ports(1), Hands()
    first, second = make(allowed, clock), make(allowed, clock)
    (port,) = allowed
    assert first.take() == port
    first.rest((port,))
    for ports in (first, second):
        with pytest.raises(PortsExhaustedError):
            ports.take()
    clock.at += REST
    assert second.take() == port
    second.close()


def test_a_port_rests_in_one_boot_only() -> None:
    allowed, clock = some_ports(1), Hands()
    ports = make(allowed, clock)
    ports.rest((ports.take(),))
    clock.at = Instant("next boot", 0)
    assert ports.take() == allowed[0]
    ports.close()


def test_the_same_slot_gets_its_port_again_at_once() -> None:
    allowed = some_ports(1)
    ports = make(allowed)
    port = ports.take()
    assert ports.retake(port)
    ports.rest((port,))
    assert ports.retake(port)
    ports.close()


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_port_in_use_is_not_taken_whatever_the_family(family: int, address: str) -> None:
    allowed = some_ports(1)
    ports = make(allowed)
    with socket.socket(family) as stranger:
        stranger.bind((address, allowed[0]))
        stranger.listen()
        with pytest.raises(PortsExhaustedError):
            ports.take()
        assert not ports.retake(allowed[0])
    assert ports.take() == allowed[0]
    ports.close()


def test_the_ephemeral_range_is_left_to_outgoing_connections() -> None:
    ephemeral = sockets.ephemeral_range()
    ports = make(range(ephemeral.start, ephemeral.start + 50))
    with pytest.raises(PortsExhaustedError):
        ports.take()


def test_ports_that_were_never_used_do_not_rest() -> None:
    allowed = some_ports(1)
    ports = make(allowed)
    ports.release((ports.take(),))
    assert ports.take() == allowed[0]
    ports.close()


async def test_a_restart_whose_port_was_taken_moves_to_another(scene: Scene) -> None:
    job = scene.job()
    before = (await scene.run(job)).instances[0]
    await scene.slots.kill(job.app, A, ("web",))  # type: ignore[arg-type]
    port = int(before.address.rpartition(":")[2])
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        await scene.start(job, restart=True)
    after = (await scene.see()).instances[0]
    assert after.up
    assert after.address != before.address


async def test_the_next_slot_does_not_get_the_port_of_the_last(scene: Scene) -> None:
    first = (await scene.run(scene.job(A))).instances[0].address
    await scene.end(A)
    second = (await scene.run(scene.job(B))).instances[0].address
    third = (await scene.run(scene.job(A))).instances[0].address
    assert len({first, second, third}) == 3


def test_locks_are_the_users_own() -> None:
    assert lock_path(20000).parent.stat().st_uid == os.geteuid()
