"""No-op passes over many apps: how long the loop needs to find that there is nothing to do."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from reconciler.engine.effects import Decisions, Effects, Work
from reconciler.engine.loop import Loop
from reconciler.engine.observe import Surroundings
from reconciler.engine.sync import Sync
from reconciler.engine.wakeups import Wakeups
from reconciler.host.boot import SystemClock
from reconciler.manifests.desired import load_desired
from reconciler.model.deploys import SeenHead, SeenInputs
from reconciler.model.desired import AppContract
from reconciler.model.names import AppName, HostId, Revision, SlotName
from reconciler.model.observed import (
    AppRecords,
    NoPointer,
    ObservedProxy,
    ObservedSlot,
    RoutingTable,
)
from reconciler.planning.routing import route_app, table_of
from reconciler.probes import PROBES
from reconciler.proxies import NoProxy, ProxySettings
from reconciler.secrets.files import FileSecrets
from reconciler.slots.process import ProcessSlots
from reconciler.stores.sqlite import open_sqlite

HEAD = Revision("1" * 40)
HOST = HostId("bench")


@dataclass(frozen=True, slots=True)
class StillSlots:
    """Slots of apps that were never deployed."""

    async def observe(self, app: AppName, names: tuple[SlotName, ...]) -> tuple[ObservedSlot, ...]:
        return tuple(ObservedSlot(name) for name in names)

    def unenforced(self, contract: AppContract) -> tuple[str, ...]:
        return ()


@dataclass(slots=True)
class StillStore:
    """Records that notice everything at once and remember it."""

    kept: dict[AppName, AppRecords]

    async def records(self, app: AppName) -> AppRecords:
        return self.kept.setdefault(app, AppRecords())

    async def note_seen(
        self, app: AppName, head: SeenHead | None, inputs: SeenInputs | None
    ) -> None:
        before = self.kept[app]
        self.kept[app] = replace(
            before, seen_head=head or before.seen_head, seen_inputs=inputs or before.seen_inputs
        )

    async def note_conditions(self, app: AppName, conditions: Any) -> None:
        self.kept[app] = replace(self.kept[app], conditions=tuple(conditions))


@dataclass(frozen=True, slots=True)
class StillProxy:
    table: RoutingTable

    async def pointer(self, app: AppName) -> NoPointer:
        return NoPointer()

    async def observe(self) -> ObservedProxy:
        return ObservedProxy(up=True, table=self.table)


@dataclass(frozen=True, slots=True)
class StillSource:
    name: str = "bench"

    async def subject(self, revision: Revision) -> str:
        return "nothing new"


async def measure(apps: int, *, simulated: bool) -> float:
    """Returns the seconds of the best of five no-op passes over that many apps."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = {
            f".autopilot/apps/app{number}.yaml": (
                "start_command: ./serve\ndeploy_on: request\n"
                f"routes: [{{host: app{number}.test}}]\n"
            ).encode()
            for number in range(apps)
        }
        desired = load_desired(files, HEAD)
        effects = await _effects(directory, desired.apps, stack, simulated=simulated)
        sync = Sync(effects, branch="main")
        sync.desired = desired
        sync.around = Surroundings({"main": HEAD}, "main")
        loop = Loop(effects, sync, Wakeups())
        for name in desired.apps:
            while (await loop.reconcile_once(name)).plan.steps:
                pass
        spans = []
        for _ in range(5):
            begun = time.perf_counter()
            for name in desired.apps:
                assert not (await loop.reconcile_once(name)).plan.steps
            spans.append(time.perf_counter() - begun)
        return min(spans)


async def _effects(
    directory: Path,
    apps: Mapping[AppName, AppContract],
    stack: AsyncExitStack,
    *,
    simulated: bool,
) -> Effects:
    clock = SystemClock()
    common = {
        "host": HOST,
        "clock": clock,
        "source": cast("Any", StillSource()),
        "probes": {name: make() for name, make in PROBES.items()},
        "secrets": FileSecrets(directory / "secrets", None),
        "work": Work(lambda _app: None),
        "decisions": Decisions(),
    }
    if simulated:
        table = table_of(route_app(name, one, live=False) for name, one in apps.items())
        return Effects(
            slots=cast("Any", StillSlots()),
            proxy=cast("Any", StillProxy(table)),
            store=cast("Any", StillStore({})),
            **cast("Any", common),
        )
    store = await open_sqlite(directory / "autopilot.db", HOST, have_slots=False)
    stack.push_async_callback(store.close)
    slots = ProcessSlots(
        data_dir=directory, clock=clock, port_range=range(20000, 20100), default_user=None,
        host_id=HOST, orchestrator_url="http://127.0.0.1:7778", inherit_path=False,
    )  # fmt: skip
    stack.push_async_callback(slots.close)
    proxy = NoProxy(ProxySettings(data_dir=directory, clock=clock, environ={}))
    table = table_of(route_app(name, one, live=False) for name, one in apps.items())
    await proxy.ensure(table)
    return Effects(slots=slots, proxy=proxy, store=store, **cast("Any", common))
