"""Questions to the store: each one SQL text that an index answers. Nothing here writes."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from reconciler.model.conditions import Condition, ConditionType
from reconciler.model.deploys import (
    Deploy,
    Phase,
    Progress,
    Promotion,
    Quarantined,
    SeenHead,
    SeenInputs,
    Verdict,
    Wish,
)
from reconciler.model.errors import StoreError
from reconciler.model.events import Event
from reconciler.model.names import AppName, DeployId, HostId, Revision, WishId
from reconciler.model.observed import AppRecords
from reconciler.stores.rows import (
    Value,
    condition_of,
    deploy_of,
    event_of,
    progress_of,
    promotion_of,
    quarantined_of,
    time_of,
    verdict_of,
    wish_of,
)

T = TypeVar("T")

NEWEST_WISH = """
    SELECT * FROM wishes WHERE host_id = :host AND app = :app ORDER BY seq DESC LIMIT 1"""
LAST_DEPLOY_OF_WISH = """
    SELECT id FROM deploys WHERE wish_id = :wish ORDER BY seq DESC LIMIT 1"""
WISH = "SELECT * FROM wishes WHERE id = :id"
OPEN_WISHES = """
    SELECT * FROM wishes WHERE host_id = :host AND app = :app AND status = 'open'"""
NEWER_WISH = """
    SELECT 1 FROM wishes WHERE host_id = :host AND app = :app AND seq > :seq LIMIT 1"""
OPEN_DEPLOYS_OF_APP = """
    SELECT * FROM open_deploys WHERE host_id = :host AND app = :app ORDER BY seq"""
OPEN_DEPLOYS_OF_HOST = "SELECT * FROM open_deploys WHERE host_id = :host"
OPEN_DEPLOY_OF_WISH = "SELECT * FROM open_deploys WHERE wish_id = :wish"
OPEN_DEPLOY = "SELECT * FROM open_deploys WHERE deploy_id = :deploy"
DEPLOYS = """
    SELECT * FROM deploys WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY seq DESC"""
DEPLOYS_OF_APP = """
    SELECT * FROM deploys WHERE host_id = :host AND app = :app AND seq < :before
    ORDER BY seq DESC LIMIT :limit"""
DEPLOYS_OF_HOST = """
    SELECT * FROM deploys WHERE host_id = :host AND seq < :before ORDER BY seq DESC LIMIT :limit"""
PROGRESS = """
    SELECT * FROM progress WHERE deploy_id IN (SELECT value FROM json_each(:ids))
    ORDER BY deploy_id, seq"""
LAST_STEP = "SELECT * FROM progress WHERE deploy_id = :deploy ORDER BY seq DESC LIMIT 1"
STANDING = """
    SELECT phase FROM progress WHERE deploy_id = :deploy AND phase NOT IN ('baking', 'draining')
    ORDER BY seq DESC LIMIT 1"""
VERDICTS = """
    SELECT * FROM verdicts WHERE deploy_id IN (SELECT value FROM json_each(:ids))
    ORDER BY deploy_id, seq"""
PROMOTIONS = """
    SELECT promotions.seq, promotions.deploy_id, promotions.slot, promotions.instant,
           deploys.revision, deploys.contract_digest, deploys.secrets_digest, deploys.contract,
           deploys.kind, deploys.rolls_back_to
    FROM promotions JOIN deploys ON deploys.id = promotions.deploy_id
    WHERE promotions.host_id = :host AND promotions.app = :app
    ORDER BY promotions.seq DESC LIMIT :limit"""
PROMOTION_OF_DEPLOY = "SELECT 1 FROM promotions WHERE deploy_id = :deploy"
LAST_PROMOTED = """
    SELECT deploy_id FROM promotions WHERE host_id = :host AND app = :app
    ORDER BY seq DESC LIMIT 1"""
QUARANTINE = "SELECT * FROM quarantine WHERE host_id = :host AND app = :app ORDER BY seq"
SEEN_HEAD = "SELECT * FROM seen_heads WHERE host_id = :host AND app = :app"
SEEN_INPUTS = "SELECT * FROM seen_inputs WHERE host_id = :host AND app = :app"
ABSENCES = "SELECT passes FROM absences WHERE host_id = :host AND app = :app"
CONDITIONS = "SELECT * FROM conditions WHERE host_id = :host AND app = :app"
KEY = "SELECT * FROM idempotency_keys WHERE host_id = :host AND key = :key"
GOOD_MANIFESTS = "SELECT revision FROM good_manifests WHERE host_id = :host AND source = :source"
EVENTS = "SELECT * FROM events WHERE seq > :after ORDER BY seq LIMIT :limit"
LAST_EVENT = "SELECT seq FROM events ORDER BY seq DESC LIMIT 1"
KNOWN = """
    SELECT id FROM deploys WHERE id IN (SELECT value FROM json_each(:ids)) AND host_id = :host"""

MAX_PROMOTIONS = 50
_BEYOND_EVERY_SEQ = 2**63 - 1


class Reading:
    """A transaction in which the store of one host is read."""

    def __init__(self, connection: sqlite3.Connection, host: HostId) -> None:
        self._connection = connection
        self.host = host

    def rows(self, sql: str, **parameters: Value) -> list[sqlite3.Row]:
        return self._connection.execute(sql, {"host": self.host, **parameters}).fetchall()

    def row(self, sql: str, **parameters: Value) -> sqlite3.Row | None:
        return next(iter(self.rows(sql, **parameters)), None)


def records(reading: Reading, app: AppName) -> AppRecords:
    wish = reading.row(NEWEST_WISH, app=app)
    running, queued = _holding(reading, app)
    promotions = _promotions(reading, app)
    live = promotions[-1].deploy_id if promotions else None
    last = _last_deploy(reading, wish["id"]) if wish else None
    found = {one.id: one for one in deploys_by_id(reading, (running, queued, live, last))}
    return AppRecords(
        wish=wish_of(wish) if wish else None,
        running=found.get(running) if running else None,
        queued=found.get(queued) if queued else None,
        live_deploy=found.get(live) if live else None,
        last_deploy=found.get(last) if last else None,
        promotions=promotions,
        quarantine=quarantine(reading, app),
        seen_head=seen_head(reading, app),
        seen_inputs=seen_inputs(reading, app),
        conditions=tuple(condition for condition, _ in conditions(reading, app)),
        absent_passes=absent_passes(reading, app),
    )


def _last_deploy(reading: Reading, wish: str) -> DeployId | None:
    row = reading.row(LAST_DEPLOY_OF_WISH, wish=wish)
    return DeployId(row["id"]) if row else None


def _holding(reading: Reading, app: AppName) -> tuple[DeployId | None, DeployId | None]:
    """Returns the deploy that holds the app, and the newest that waits for it."""
    opened = [
        (DeployId(row["deploy_id"]), Phase(row["phase"]))
        for row in reading.rows(OPEN_DEPLOYS_OF_APP, app=app)
    ]
    begun = [deploy_id for deploy_id, phase in opened if phase is not Phase.QUEUED]
    running = next(iter(begun or [deploy_id for deploy_id, _ in opened]), None)
    waiting = [deploy_id for deploy_id, _ in opened if deploy_id != running]
    return running, waiting[-1] if waiting else None


def _promotions(reading: Reading, app: AppName) -> tuple[Promotion, ...]:
    newest_first = reading.rows(PROMOTIONS, app=app, limit=MAX_PROMOTIONS)
    return tuple(promotion_of(row) for row in reversed(newest_first))


def deploy_by_id(reading: Reading, deploy_id: DeployId) -> Deploy | None:
    return next(iter(deploys_by_id(reading, [deploy_id])), None)


def known_deploy(reading: Reading, deploy_id: DeployId) -> Deploy:
    deploy = deploy_by_id(reading, deploy_id)
    if deploy is None:
        raise StoreError(f"the store has no deploy {deploy_id}")
    return deploy


def deploys_by_id(reading: Reading, ids: Iterable[DeployId | None]) -> tuple[Deploy, ...]:
    wanted = [deploy_id for deploy_id in ids if deploy_id]
    return _told(reading, reading.rows(DEPLOYS, ids=json.dumps(wanted))) if wanted else ()


def deploys(
    reading: Reading, app: AppName | None, limit: int, before: int | None
) -> tuple[Deploy, ...]:
    """Returns the newest first, beginning below the seq `before`."""
    newest = _BEYOND_EVERY_SEQ if before is None else before
    if app is None:
        rows = reading.rows(DEPLOYS_OF_HOST, before=newest, limit=limit)
    else:
        rows = reading.rows(DEPLOYS_OF_APP, app=app, before=newest, limit=limit)
    return _told(reading, rows)


def _told(reading: Reading, rows: Sequence[sqlite3.Row]) -> tuple[Deploy, ...]:
    """Joins deploys with their progress and verdicts, two queries for all of them."""
    ids = json.dumps([row["id"] for row in rows])
    progress: defaultdict[str, list[Progress]] = defaultdict(list)
    verdicts: defaultdict[str, list[Verdict]] = defaultdict(list)
    for step in reading.rows(PROGRESS, ids=ids):
        progress[step["deploy_id"]].append(progress_of(step))
    for verdict in reading.rows(VERDICTS, ids=ids):
        verdicts[verdict["deploy_id"]].append(verdict_of(verdict))
    return tuple(
        deploy_of(row, tuple(progress[row["id"]]), tuple(verdicts[row["id"]])) for row in rows
    )


def wish_by_id(reading: Reading, wish_id: WishId) -> Wish | None:
    row = reading.row(WISH, id=wish_id)
    return wish_of(row) if row else None


def standing(reading: Reading, deploy_id: DeployId) -> Phase | None:
    """Returns how a deploy stands, as `Deploy.phase` does; None for an unknown one."""
    row = reading.row(STANDING, deploy=deploy_id)
    return Phase(row["phase"]) if row else None


def last_step(reading: Reading, deploy_id: DeployId) -> Progress | None:
    row = reading.row(LAST_STEP, deploy=deploy_id)
    return progress_of(row) if row else None


def quarantine(reading: Reading, app: AppName) -> tuple[Quarantined, ...]:
    return tuple(quarantined_of(row) for row in reading.rows(QUARANTINE, app=app))


def seen_head(reading: Reading, app: AppName) -> SeenHead | None:
    row = reading.row(SEEN_HEAD, app=app)
    return SeenHead(row["branch"], Revision(row["revision"])) if row else None


def seen_inputs(reading: Reading, app: AppName) -> SeenInputs | None:
    row = reading.row(SEEN_INPUTS, app=app)
    return SeenInputs(row["contract_digest"], row["secrets_digest"]) if row else None


def absent_passes(reading: Reading, app: AppName) -> int:
    row = reading.row(ABSENCES, app=app)
    return int(row["passes"]) if row else 0


def conditions(reading: Reading, app: AppName) -> tuple[tuple[Condition, datetime], ...]:
    """Returns the conditions with the time each came to its status, in the order of the types."""
    order = list(ConditionType)
    found = [
        (condition_of(row), time_of(row["since"])) for row in reading.rows(CONDITIONS, app=app)
    ]
    return tuple(sorted(found, key=lambda one: order.index(one[0].type)))


def known_deploys(reading: Reading, ids: Sequence[str]) -> frozenset[str]:
    return frozenset(row["id"] for row in reading.rows(KNOWN, ids=json.dumps(list(ids))))


def events(reading: Reading, after: int, limit: int) -> tuple[Event, ...]:
    return tuple(event_of(row) for row in reading.rows(EVENTS, after=after, limit=limit))


def last_event(reading: Reading) -> int:
    row = reading.row(LAST_EVENT)
    return int(row["seq"]) if row else 0


def good_manifests(reading: Reading, source: str) -> Revision | None:
    row = reading.row(GOOD_MANIFESTS, source=source)
    return Revision(row["revision"]) if row else None
