"""Sync: keeps the heads and the desired state in step with the repository. Wishes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import structlog

from reconciler.engine.effects import Effects
from reconciler.engine.observe import Surroundings
from reconciler.manifests.desired import load_desired
from reconciler.model.desired import Desired, DesiredApp, Problem
from reconciler.model.errors import (
    DiskPressureError,
    ReconcilerError,
    SourceError,
    UnknownHistoryError,
    UnknownRevisionError,
)
from reconciler.model.names import AppKey, AppName, Revision

log = structlog.get_logger()

DETACHED = "HEAD"


@dataclass(slots=True)
class Sync:
    """What the repository says now. `desired` is the last good one; `problems` are the newest's.

    `contracts` are files given with --contract: read at the start, valid beside the repository's.
    `pinned` is the commit of a detached HEAD that development follows.
    """

    effects: Effects
    branch: str | None = None
    development: bool = False
    contracts: Mapping[str, bytes] = field(default_factory=dict)
    pinned: Revision | None = None
    around: Surroundings = field(default_factory=Surroundings)
    desired: Desired | None = None
    problems: tuple[Problem, ...] = ()
    # A rewritten head that a person has deployed: its manifests hold from then on.
    accepted: Revision | None = None
    _read: Revision | None = None
    _refreshing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def refresh(self) -> bool:
        """Fetches and reads what moved; True when heads or desired state are other than before.

        An unreachable repository, an empty one, an invalid manifest or a full disk changes nothing
        of what is in force.
        """
        async with self._refreshing:
            return await self._refresh()

    async def _refresh(self) -> bool:
        before = (self.around, self.desired, self.problems)
        problem, full = "", ""
        try:
            await self.effects.source.refresh()
        except SourceError as error:
            problem = str(error)
        except DiskPressureError as error:
            full = str(error)
        try:
            await self._read_mirror()
            await self._load()
        except SourceError as error:
            problem = problem or str(error)
        except DiskPressureError as error:
            full = full or str(error)
        self.around = replace(self.around, source_problem=problem, disk_problem=full)
        return before != (self.around, self.desired, self.problems)

    async def _read_mirror(self) -> None:
        """Takes the heads as last fetched: what the mirror has holds while nothing can be."""
        heads = await self.effects.source.heads()
        human = self.branch or await self.effects.source.default_branch()
        if self.pinned is not None:
            heads = {**heads, DETACHED: self.pinned}
            human = self.branch or DETACHED
        self.around = replace(self.around, heads=heads, human=human)

    async def _load(self) -> None:
        head = self.around.heads.get(self.around.human or "")
        if head is None:
            if self.desired is None:
                await self._take_last_good()
            if self.desired is None and self.contracts:
                alone = load_desired({}, Revision(""), self.contracts)
                self.problems = alone.problems
                self.desired = alone if alone.valid else None
            return
        if head == self._read:
            return
        if await self._rewritten(head):
            if self.desired is None:
                await self._take_last_good()
            return
        newest = await self._parse(head)
        self._read = head
        if newest.valid:
            await self._accept(newest)
        else:
            self.problems = newest.problems
            await self._fall_back(newest)

    async def _rewritten(self, head: Revision) -> bool:
        """Whether a service's branch was rewritten: nobody has agreed to what it says now."""
        if self.development:
            return False
        store, source = self.effects.store, self.effects.source
        good = self.desired.revision if self.desired else await store.good_manifests(source.name)
        if not good:
            return False
        try:
            if self.accepted and await source.descends(head, self.accepted):
                return False
            return not await source.descends(head, good)
        except (UnknownHistoryError, UnknownRevisionError):
            return False

    async def _parse(self, revision: Revision) -> Desired:
        files = await self.effects.source.manifests(revision)
        return load_desired(files, revision, self.contracts)

    async def _accept(self, newest: Desired) -> None:
        for warning in newest.warnings:
            log.warning("manifest", problem=str(warning))
        if not self._own(newest) and self.desired is not None and self._own(self.desired):
            self.problems = (
                Problem(
                    ".autopilot", 1, "no app is named any more; the last manifests stay in force"
                ),
            )
            return
        self.problems = ()
        self.desired = newest
        await self.effects.store.note_good_manifests(self.effects.source.name, newest.revision)

    async def _fall_back(self, newest: Desired) -> None:
        """After a restart with invalid manifests at the head: the last good ones stay in force."""
        # Where there is an app, its condition tells.
        tell = log.warning if self.desired is not None and self.desired.apps else log.error
        for problem in newest.problems:
            tell("manifest", problem=str(problem))
        if self.desired is None:
            await self._take_last_good()

    def _own(self, desired: Desired) -> frozenset[AppName]:
        """Returns the apps that the repository names, those of --contract left out."""
        given = load_desired({}, Revision(""), self.contracts).apps if self.contracts else {}
        return frozenset(desired.apps) - frozenset(given)

    async def _take_last_good(self) -> None:
        good = await self.effects.store.good_manifests(self.effects.source.name)
        if good is None:
            return
        try:
            former = await self._parse(good)
        except ReconcilerError as error:
            log.error("last good manifests", revision=good, problem=str(error))
            return
        if former.valid:
            self.desired = former

    def nothing_to_run(self) -> str:
        """Returns why there is no app, and how to make one."""
        human = self.around.human
        if human is None or human not in self.around.heads:
            what = f"branch {human} has no commit" if human else "the repository has no commit yet"
        else:
            what = f"there is no app in .autopilot/apps/ on {human}"
        return f"{what}: `autopilot init` writes .autopilot/apps/NAME.yaml; commit it to deploy it"

    def apps(self) -> frozenset[AppName]:
        return frozenset(self.desired.apps) if self.desired else frozenset()

    async def wanted(self, app: AppName) -> DesiredApp:
        """Returns what is desired of one app now, secrets included."""
        key = AppKey(self.effects.host, app)
        contract = self.desired.apps.get(app) if self.desired else None
        if contract is None:
            removed = self.desired is not None and bool(self.desired.apps) and not self.problems
            return DesiredApp(key, None, problems=self.problems, removed=removed)
        granted = await self.effects.secrets.resolve(app, contract)
        return DesiredApp(
            key,
            contract,
            secrets_digest=granted.digest,
            missing_secrets=granted.missing,
            problems=self.problems,
            follows_rewrites=self.development,
        )
