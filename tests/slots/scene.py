"""A stage for slots: a data directory, real processes, and the proof that none is left behind."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from reconciler.host.boot import SystemClock
from reconciler.host.processes import all_processes, read_environment
from reconciler.model.desired import AppContract, ProcessSpec, Target, When
from reconciler.model.names import WEB, AppName, DeployId, HostId, ProcessName, Revision, SlotName
from reconciler.model.observed import ObservedSlot
from reconciler.ports import Launch, Preparation, SlotTree
from reconciler.slots import ProcessSlots
from reconciler.slots.listening import WebInstance

APP = AppName("shop")
A, B, C = SlotName("deploy-a"), SlotName("deploy-b"), SlotName("deploy-c")
WORKER = ProcessName("worker")
REVISION = Revision("a" * 40)
# The system's own, which every user may execute.
PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin") or "python3"
NOBODY = "nobody"

# Answers every request with 200; where it listens is told by its arguments.
SERVER = """\
import os, socket, sys
host = sys.argv[1] if len(sys.argv) > 1 else os.environ["HOST"]
port = int(os.environ[sys.argv[2]] if len(sys.argv) > 2 else os.environ["PORT"])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
server = socket.socket(family)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if len(sys.argv) > 3:
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind((host, port))
server.listen(16)
while True:
    connection, _ = server.accept()
    connection.recv(65536)
    head = b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n"
    connection.sendall(head + b"ok")
    connection.close()
"""
SERVE = f"exec {PYTHON} -S -E server.py"
SLEEP = "exec sleep 300"


def contract(command: str = SLEEP, **changes: object) -> AppContract:
    """A contract with one web process; `changes` are fields of AppContract."""
    document = {"name": APP, "start_command": command}
    plain = AppContract(APP, document, (ProcessSpec(WEB, command, When.BEFORE),))
    return replace(plain, **changes)  # type: ignore[arg-type]


def processes(**commands: str) -> tuple[ProcessSpec, ...]:
    return tuple(
        ProcessSpec(ProcessName(name), command, When.BEFORE) for name, command in commands.items()
    )


@dataclass
class Export:
    """A source's export that writes files; it keeps what it was asked for."""

    files: Mapping[str, str] = field(default_factory=dict)
    then: Callable[[SlotTree], Awaitable[None]] | None = None
    trees: list[SlotTree] = field(default_factory=list)

    async def __call__(self, tree: SlotTree) -> None:
        self.trees.append(tree)
        for name, content in {"server.py": SERVER, **self.files}.items():
            path = tree.worktree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            if tree.owner:
                for made in (path, *path.relative_to(tree.worktree).parents):
                    os.chown(tree.worktree / made, *tree.owner)
        if self.then is not None:
            await self.then(tree)


@dataclass
class Scene:
    data: Path
    slots: ProcessSlots
    clock: SystemClock
    deploys: set[DeployId] = field(default_factory=set)
    opened: list[ProcessSlots] = field(default_factory=list)

    def open(self, **changes: object) -> ProcessSlots:
        """Another driver on the same data directory, as the next daemon would be."""
        slots = make_slots(self.data, **changes)
        self.opened.append(slots)
        return slots

    def new_deploy(self) -> DeployId:
        deploy_id = DeployId(self.clock.new_id())
        self.deploys.add(deploy_id)
        return deploy_id

    def job(
        self,
        slot: SlotName = A,
        made: AppContract | None = None,
        *,
        export: Export | None = None,
        deploy_id: DeployId | None = None,
        environment: Mapping[str, str] | None = None,
        intact: bool = False,
    ) -> Preparation:
        deploy_id = deploy_id or self.new_deploy()
        self.deploys.add(deploy_id)
        made = made or contract()
        target = Target(REVISION, made.digest, "")
        chosen = None if intact else (export or Export())
        return Preparation(APP, slot, deploy_id, target, made, environment or {}, chosen)

    async def prepare(self, job: Preparation) -> ObservedSlot:
        await self.slots.prepare(job)
        await self.slots.settle()
        return await self.see(job.slot)

    async def start(self, job: Preparation, *names: ProcessName, restart: bool = False) -> None:
        await self.slots.start(self.launch(job, *names, restart=restart))

    def launch(self, job: Preparation, *names: ProcessName, restart: bool = False) -> Launch:
        chosen = names or tuple(spec.name for spec in job.contract.processes)
        return Launch(
            APP,
            job.slot,
            job.deploy_id,
            job.target.revision,
            job.contract,
            chosen,
            job.environment,
            restart,
        )

    async def run(self, job: Preparation) -> ObservedSlot:
        """Prepares and starts a slot, and waits until every process has recorded itself."""
        prepared = await self.prepare(job)
        assert prepared.record is not None
        assert prepared.record.stage == "prepared", prepared.record
        await self.start(job)
        run = self.app_dir / "slots" / f"{job.slot}.run"
        count = sum(spec.count for spec in job.contract.processes)
        await until(lambda: len(list(run.glob("*.[0-9]"))) >= count)
        return await self.see(job.slot)

    async def see(self, slot: SlotName = A, slots: ProcessSlots | None = None) -> ObservedSlot:
        (seen,) = await (slots or self.slots).observe(APP, (slot,))
        return seen

    async def end(self, slot: SlotName = A) -> None:
        await self.slots.kill(APP, slot)
        await self.slots.retire(APP, slot)

    def instance(self, slot: SlotName = A) -> WebInstance:
        return self.slots.instance(APP, slot)

    @property
    def app_dir(self) -> Path:
        return self.data / "apps" / APP

    def worktree(self, slot: SlotName = A) -> Path:
        return self.app_dir / slot

    def log(self, job: Preparation, process: str = "web") -> Path:
        return self.data / "logs" / APP / f"{job.deploy_id}.{process}.log"


def make_slots(data: Path, **changes: object) -> ProcessSlots:
    settings: dict[str, object] = {
        "data_dir": data,
        "clock": SystemClock(),
        "port_range": ALL_PORTS,
        "default_user": None,
        "host_id": HostId("host-1"),
        "orchestrator_url": "http://127.0.0.1:7778",
        "inherit_path": False,
    }
    return ProcessSlots(**{**settings, **changes})  # type: ignore[arg-type]


ALL_PORTS = range(20000, 30000)


def some_ports(count: int) -> range:
    """A few free ports, for tests that use up a range."""
    first = random.randrange(20000, 29999 - count)
    return range(first, first + count)


@asynccontextmanager
async def staged() -> AsyncIterator[Scene]:
    """Yields a scene; at its end everything is killed, and nothing may have been left alive."""
    data = Path(tempfile.mkdtemp(prefix="autopilot-slots-"))
    data.chmod(0o711)
    slots = make_slots(data)
    scene = Scene(data, slots, SystemClock(), opened=[slots])
    try:
        yield scene
    finally:
        await _clear(scene)
        left = cookies(scene.deploys)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(data, ignore_errors=True)
    assert not left, f"left behind: {left}"


async def _clear(scene: Scene) -> None:
    last = scene.opened[-1]
    for app in await last.apps():
        for slot in (A, B, C):
            with suppress(Exception):
                await last.kill(app, slot)
    for slots in scene.opened:
        await slots.settle()
    for app in await last.apps():
        for slot in (A, B, C):
            with suppress(Exception):
                await last.retire(app, slot)
    for slots in reversed(scene.opened):
        await slots.close()


def cookies(deploys: set[DeployId]) -> list[int]:
    """Returns the live processes that carry one of the cookies, found without the driver."""
    return [
        stat.pid
        for stat in all_processes()
        if stat.alive
        and read_environment(stat.pid).get(b"AUTOPILOT_DEPLOY_ID", b"").decode() in deploys
    ]


async def until(fact: Callable[[], object], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not fact():  # noqa: ASYNC110 (what a test waits for is seldom ours to signal)
            await asyncio.sleep(0.003)


async def until_listening(instance: WebInstance, *, internal: bool = False) -> None:
    async with asyncio.timeout(10):
        while not (await instance.listener(internal=internal)).ours:  # noqa: ASYNC110 (polled)
            await asyncio.sleep(0.003)
