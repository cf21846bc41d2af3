"""The daemon: picks the implementations, starts and stops the whole, tells how it goes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from reconciler import __version__
from reconciler.config import Settings, repo_name
from reconciler.engine.commands import Commands
from reconciler.engine.effects import Decisions, Effects, Work
from reconciler.engine.loop import Loop
from reconciler.engine.shutdown import interrupt, stop_everything
from reconciler.engine.sync import DETACHED, Sync
from reconciler.engine.wakeups import Wakeups
from reconciler.host.boot import SystemClock
from reconciler.host.files import ensure_directory, write_atomic
from reconciler.host.locks import FileLock
from reconciler.model.conditions import ConditionType
from reconciler.model.deploys import Phase
from reconciler.model.errors import ConfigError, ReconcilerError
from reconciler.model.events import Event
from reconciler.model.names import AppName, DeployId, HostId
from reconciler.planning.narration import narrate_condition, narrate_deploy
from reconciler.probes import PROBES
from reconciler.proxies import PROXIES, ProxySettings
from reconciler.secrets.files import FileSecrets
from reconciler.slots.process import ProcessSlots
from reconciler.sources.git import GitSource
from reconciler.stores.sqlite import open_sqlite
from reconciler.web.principal import Access, admin_token
from reconciler.web.server import ApiServer

log = structlog.get_logger()

FAILED = 1
TELL_TOGETHER = timedelta(milliseconds=100)


def run(settings: Settings) -> int:
    """Runs a daemon until it is told to stop; returns the exit status."""
    _configure_log(settings)
    try:
        settings.check()
        with_lock = _take_data_dir(settings)
    except ReconcilerError as error:
        _say(f"autopilot: {error}", to_error=True)
        return FAILED
    if with_lock is None:
        return FAILED
    try:
        return asyncio.run(Daemon(settings, with_lock).main())
    except ReconcilerError as error:
        _say(f"autopilot: {error}", to_error=True)
        return FAILED
    finally:
        with_lock.release()


def _take_data_dir(settings: Settings) -> FileLock | None:
    """Locks the data directory; None after telling who holds it."""
    try:
        ensure_directory(settings.data_dir, 0o711)
        lock = FileLock(settings.data_dir / "lock")
        taken = lock.acquire(_holder_text(settings))
    except OSError as error:
        raise ConfigError(
            f"cannot use {settings.data_dir}: {error.strerror}; choose another --data-dir"
        ) from error
    if taken:
        return lock
    try:
        holder = json.loads(lock.holder() or "{}")
    except ValueError:
        holder = {}
    _say(
        f"autopilot: already running on {settings.data_dir} as pid {holder.get('pid', 'unknown')}\n"
        f"  apps  {holder.get('apps', 'unknown')}\n"
        f"  API   {holder.get('api', 'unknown')}",
        to_error=True,
    )
    return None


def _holder_text(settings: Settings) -> str:
    return json.dumps(
        {
            "pid": os.getpid(),
            "apps": settings.public_url if settings.proxy != "none" else "no proxy",
            "api": settings.api_url,
            "version": __version__,
        }
    )


@dataclass(slots=True)
class Daemon:
    """One daemon on one data directory, from start to stop."""

    settings: Settings
    lock: FileLock

    async def main(self) -> int:
        stopping, hurry = asyncio.Event(), asyncio.Event()
        _install_signals(stopping, hurry)
        async with AsyncExitStack() as stack:
            clock = SystemClock()
            effects, wakeups = await open_effects(self.settings, clock, stack)
            sync = await self._sync(effects)
            loop = Loop(effects, sync, wakeups)
            commands = Commands(effects, loop)
            await loop.recover()
            access = Access(admin_token(self.settings.data_dir), os.geteuid())
            server = ApiServer(commands, self.settings, access)
            status = await self._serve(server, loop, effects, stopping)
            notify("STOPPING=1")
            await self._leave(effects, hurry)
            return status

    async def _serve(
        self, server: ApiServer, loop: Loop, effects: Effects, stopping: asyncio.Event
    ) -> int:
        """Runs until it is told to stop or cannot go on; everything it started has ended then."""
        async with server:
            reconciling = asyncio.create_task(loop.run(), name="reconcile")
            telling = asyncio.create_task(self._narrate(effects), name="narrate")
            watchdog = asyncio.create_task(_pet_watchdog(), name="watchdog")
            greeting = asyncio.create_task(self._greet(loop), name="greet")
            told = asyncio.create_task(stopping.wait())
            try:
                waiting = {reconciling, greeting, told}
                while waiting:
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    if greeting in done and not greeting.result():
                        return FAILED
                    if reconciling in done:
                        await reconciling
                    if told in done:
                        return 0
                return 0
            finally:
                for task in (reconciling, telling, watchdog, greeting, told):
                    task.cancel()
                await asyncio.gather(
                    reconciling, telling, watchdog, greeting, told, return_exceptions=True
                )
                await effects.work.close()

    async def _leave(self, effects: Effects, hurry: asyncio.Event) -> None:
        await interrupt(effects)
        if self.settings.on_exit == "stop":
            if self.settings.development:
                _say("stopping: requests in flight end first (Ctrl-C again to skip that)")
            await stop_everything(effects, hurry=hurry)
            if self.settings.development:
                _say(f"stopped; the data is kept in {self.settings.data_dir}")

    async def _sync(self, effects: Effects) -> Sync:
        settings = self.settings
        contracts = {str(path): _read_contract(path) for path in settings.contracts}
        sync = Sync(
            effects,
            branch=settings.branch,
            development=settings.development,
            contracts=contracts,
        )
        if settings.development and settings.branch is None:
            await self._follow_checkout(effects, sync)
        return sync

    async def _follow_checkout(self, effects: Effects, sync: Sync) -> None:
        """Development follows what is checked out now, whatever is checked out later."""
        with suppress(ReconcilerError):
            await effects.source.refresh()
        sync.branch = await effects.source.checked_out()
        human = await effects.source.default_branch()
        if sync.branch is None:
            heads = await effects.source.heads()
            sync.pinned = heads.get(DETACHED)
            if sync.pinned is not None:
                _say(f"HEAD is detached: following commit {sync.pinned[:10]} and nothing newer")
        elif human is not None and sync.branch != human:
            _say(f"on {sync.branch}: following {sync.branch}; use --branch {human}")

    async def _greet(self, loop: Loop) -> bool:
        """Tells that it runs, once every app was looked at; False when it cannot serve."""
        await loop.ready.wait()
        if self.settings.development and self.settings.proxy != "none":
            while loop.views and not await self._proxy_settled(loop):
                await loop.effects.clock.sleep(timedelta(milliseconds=10))
            if loop.proxy_refused:
                _say(f"autopilot: {loop.proxy_refused}", to_error=True)
                return False
        notify(f"READY=1\nSTATUS=serving {len(loop.views)} apps")
        if self.settings.development:
            _say(self._welcome(loop))
            self._introduce_later(loop)
        else:
            log.info("ready", api=self.settings.api_url, apps=sorted(loop.views))
            if not loop.views:
                log.warning("nothing to run", problem=self._nothing_here(loop).strip())
        return True

    async def _proxy_settled(self, loop: Loop) -> bool:
        seen = await loop.effects.proxy.observe()
        return bool(seen.up or loop.proxy_refused or loop.sync.around.proxy_problem)

    def _welcome(self, loop: Loop) -> str:
        settings = self.settings
        lines = [self._introduction(name, loop) for name in sorted(loop.views)]
        if not lines:
            lines.append(self._nothing_here(loop))
        return "\n".join(
            [
                f"autopilot {__version__} on {settings.repo}",
                *lines,
                f"  {'API':<12} {settings.api_url}/",
                "commits deploy, uncommitted edits do not; Ctrl-C stops everything",
            ]
        )

    def _introduction(self, name: AppName, loop: Loop) -> str:
        """Returns where the app is found, how it is deployed when it waits to be asked, and what
        stands in its way since before."""
        url = app_url(self.settings, name, loop)
        line = f"  {name:<12} {url or 'no routes and no port: no request reaches it'}"
        contract = loop.views[name].desired.contract
        if contract is not None and contract.deploy_on == "request":
            line += f"\n  {'':<12} deploy it with: autopilot deploy --app {name}"
        for one in loop.views[name].plan.conditions:
            if one.type is ConditionType.STALLED and one.status:
                line += f"\n  {'':<12} STALLED {one.reason}: {one.message}"
        return line

    def _introduce_later(self, loop: Loop) -> None:
        """Tells of each app that is added from now on."""
        known = set(loop.views)

        def passed(app: AppName) -> None:
            if app not in known:
                known.add(app)
                _say(self._introduction(app, loop))

        loop.on_pass(passed)

    def _nothing_here(self, loop: Loop) -> str:
        if loop.sync.problems:
            listing = "\n".join(f"    {problem}" for problem in loop.sync.problems)
            return f"  the manifests are not valid:\n{listing}\n  mend and commit them"
        around = loop.sync.around
        if told := loop.problem or around.source_problem or around.disk_problem:
            return f"  {told}"
        return f"  {loop.sync.nothing_to_run()}"

    async def _narrate(self, effects: Effects) -> None:
        """Tells the terminal, or the journal, what happens."""
        moved = asyncio.Event()
        effects.store.on_event(moved.set)
        seq = await effects.store.last_event()
        stalled: set[str] = set()
        while True:
            for event in await effects.store.events(seq, 200):
                seq = event.seq
                with suppress(ReconcilerError):
                    await self._tell(event, effects, stalled)
            await moved.wait()
            # What comes together is read together: telling must not slow what it tells of.
            await effects.clock.sleep(TELL_TOGETHER)
            moved.clear()

    async def _tell(self, event: Event, effects: Effects, stalled: set[str]) -> None:
        payload = event.payload
        if not self.settings.development:
            log.info(event.kind, **{key: value for key, value in payload.items() if value})
            return
        if event.kind == "condition.changed":
            text = narrate_condition(payload, stalled)
        elif event.kind.startswith("deploy.") and "phase" in payload:
            deploy = await effects.store.deploy(DeployId(str(payload["deploy_id"])))
            if deploy is None:
                return
            records = await effects.store.records(deploy.request.app)
            url = self._url_of(deploy.request.contract)
            text = narrate_deploy(
                deploy, Phase(str(payload["phase"])), url, serving=bool(records.promotions)
            )
        else:
            text = ""
        if text:
            _say(text)

    def _url_of(self, contract: str) -> str:
        document = json.loads(contract)
        routes = document.get("routes") or []
        if routes and self.settings.proxy != "none":
            return _route_url(self.settings, routes[0].get("host"), routes[0].get("path", "/"))
        port = document.get("port")
        return f"http://{document.get('bind', '127.0.0.1')}:{port}/" if port else ""


async def open_effects(
    settings: Settings, clock: SystemClock, stack: AsyncExitStack
) -> tuple[Effects, Wakeups]:
    """Returns the implementations that the settings pick; the stack lets go of them."""
    data = settings.data_dir
    _lay_out(data)
    host = _host_id(data, clock)
    slots = ProcessSlots(
        data_dir=data,
        clock=clock,
        port_range=settings.port_range,
        default_user=settings.app_user,
        host_id=host,
        orchestrator_url=settings.api_url,
        inherit_path=settings.development,
    )
    stack.push_async_callback(slots.close)
    have_slots = bool(await slots.apps())
    store = await open_sqlite(
        data / "autopilot.db", host, have_slots=have_slots, adopt=settings.adopt
    )
    stack.push_async_callback(store.close)
    proxy = PROXIES[settings.proxy](
        ProxySettings(
            data_dir=data,
            clock=clock,
            environ=os.environ,
            http_host=settings.http_host,
            http_port=settings.http_port,
        )
    )
    stack.push_async_callback(proxy.close)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    wakeups = Wakeups()
    effects = Effects(
        host=host,
        clock=clock,
        source=GitSource(
            name=repo_name(settings.repo),
            path=settings.repo,
            mirror=data / "repos" / repo_name(settings.repo) / "git",
        ),
        slots=slots,
        proxy=proxy,
        probes={name: make() for name, make in PROBES.items()},
        store=store,
        secrets=FileSecrets(data / "secrets", Path(credentials) if credentials else None),
        work=Work(wakeups.wake),
        decisions=Decisions(),
    )
    return effects, wakeups


def app_url(settings: Settings, name: AppName, loop: Loop) -> str:
    """Returns where a person finds an app, empty when nothing leads to it."""
    contract = loop.views[name].desired.contract
    if contract is None or settings.proxy == "none":
        return ""
    if contract.routes:
        return _route_url(settings, contract.routes[0].host, contract.routes[0].path)
    return f"http://{contract.bind}:{contract.port}/" if contract.port else ""


def _route_url(settings: Settings, host: str | None, path: str) -> str:
    base = settings.public_url if host is None else f"http://{host}:{settings.http_port}"
    return base + (path if path.endswith("/") else f"{path}/")


def _lay_out(data: Path) -> None:
    """The data directory's rooms with their modes (who may look into what)."""
    for name, mode in (("routes", 0o755), ("apps", 0o711), ("repos", 0o711), ("logs", 0o700)):
        ensure_directory(data / name, mode)
    ensure_directory(data / "secrets", 0o700)


def _host_id(data: Path, clock: SystemClock) -> HostId:
    """This host's name in every record: made once, kept with the data."""
    path = data / "host.id"
    with suppress(FileNotFoundError):
        if known := path.read_text(encoding="ascii").strip():
            return HostId(known)
    made = clock.new_id()
    write_atomic(path, made.encode())
    return HostId(made)


def _read_contract(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--contract {path}: {error.strerror}") from error


def _install_signals(stopping: asyncio.Event, hurry: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def told() -> None:
        if stopping.is_set():
            hurry.set()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, told)


def notify(message: str) -> None:
    """Tells systemd (sd_notify(3)); nothing without it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(message.encode(), address)


async def _pet_watchdog() -> None:
    micros = int(os.environ.get("WATCHDOG_USEC") or 0)
    while micros:
        notify("WATCHDOG=1")
        await asyncio.sleep(micros / 2_000_000)


def _say(text: str, *, to_error: bool = False) -> None:
    stream = sys.stderr if to_error else sys.stdout
    # The terminal may be gone (SIGHUP): that is no reason to end otherwise than told.
    with suppress(OSError, ValueError):
        stream.write(text + "\n")
        stream.flush()


def _configure_log(settings: Settings) -> None:
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    level = logging.ERROR if settings.development else logging.INFO
    if os.environ.get("AUTOPILOT_DEBUG"):
        level = logging.DEBUG
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
