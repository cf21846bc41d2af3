"""Slot records: `slots/<slot>.json`, written whole, read again at each look, never kept in memory.

Also the health note beside it, which is of one boot and may be lost.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reconciler.host.files import write_atomic
from reconciler.model.desired import Target
from reconciler.model.errors import ReconcilerError
from reconciler.model.instants import Instant
from reconciler.model.names import AppName, DeployId, ProcessName, Revision, SlotName
from reconciler.model.observed import (
    UNKNOWN_HEALTH,
    Health,
    Intent,
    SlotRecord,
    Stage,
    Start,
)
from reconciler.slots.layout import Layout, SlotPaths

# A crash loop is told by the newest few; without a bound the record grows with each restart.
STARTS_KEPT = 32


class Records:
    """The only reader and writer of slot records. `change` may be called from any thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._decoded: dict[Path, tuple[bytes, SlotRecord]] = {}
        self._locks: dict[Path, threading.Lock] = {}

    def read(self, app: AppName, slot: SlotName) -> SlotRecord | None:
        """Returns the record, None when there is none.

        Raises ReconcilerError for one that cannot be understood: guessing would end live.
        """
        path = self._layout.slot(app, slot).record
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            self._decoded.pop(path, None)
            return None
        known = self._decoded.get(path)
        if known is None or known[0] != content:
            known = (content, _decode(path, content))
            self._decoded[path] = known
        return known[1]

    def write(self, app: AppName, slot: SlotName, record: SlotRecord) -> None:
        """Replaces the record, durably. Raises DiskPressureError."""
        path = self._layout.slot(app, slot).record
        with self._lock(path):
            write_atomic(path, encode(record), mode=0o600)

    def change(
        self,
        app: AppName,
        slot: SlotName,
        change: Callable[[SlotRecord], SlotRecord],
        *,
        durable: bool = True,
    ) -> SlotRecord | None:
        """Reads, changes and writes in one go; None when there is no record. An unchanged one is
        not written again."""
        path = self._layout.slot(app, slot).record
        with self._lock(path):
            old = self.read(app, slot)
            if old is None:
                return None
            new = change(old)
            if new != old:
                write_atomic(path, encode(new), mode=0o600, durable=durable)
            return new

    def _lock(self, path: Path) -> threading.Lock:
        return self._locks.setdefault(path, threading.Lock())


def encode(record: SlotRecord) -> bytes:
    document = {
        "deploy_id": record.deploy_id,
        "revision": record.target.revision,
        "contract_digest": record.target.contract_digest,
        "secrets_digest": record.target.secrets_digest,
        "contract": record.contract,
        "boot_id": record.boot_id,
        "stage": record.stage.value,
        "reason": record.reason,
        "detail": record.detail,
        "intents": [
            {
                "process": intent.process,
                "index": intent.index,
                "port": intent.port,
                "internal_port": intent.internal_port,
                "at": intent.at.text(),
            }
            for intent in record.intents
        ],
        "starts": [
            {"process": start.process, "at": start.at.text()}
            for start in record.starts[-STARTS_KEPT:]
        ],
        "drain_since": _instant_text(record.drain_since),
        "quiet_since": _instant_text(record.quiet_since),
        "drained": record.drained,
        "term_at": _instant_text(record.term_at),
        "kill_at": _instant_text(record.kill_at),
        "vacated": record.vacated,
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _decode(path: Path, content: bytes) -> SlotRecord:
    try:
        return decode(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReconcilerError(
            f"the slot record {path} cannot be understood ({error!r}); nothing of this app is "
            "touched until it is mended, or removed after its processes were stopped"
        ) from error


def decode(content: bytes) -> SlotRecord:
    """Reads what `encode` wrote; raises ValueError, KeyError or TypeError on anything else."""
    raw: dict[str, Any] = json.loads(content)
    return SlotRecord(
        deploy_id=DeployId(raw["deploy_id"]),
        target=Target(
            Revision(raw["revision"]), str(raw["contract_digest"]), str(raw["secrets_digest"])
        ),
        contract=str(raw["contract"]),
        boot_id=str(raw["boot_id"]),
        stage=Stage(raw["stage"]),
        reason=str(raw["reason"]),
        detail=str(raw["detail"]),
        intents=tuple(
            Intent(
                process=ProcessName(one["process"]),
                index=int(one["index"]),
                port=int(one["port"]),
                internal_port=int(one["internal_port"]),
                at=Instant.parse(one["at"]),
            )
            for one in raw["intents"]
        ),
        starts=tuple(
            Start(ProcessName(one["process"]), Instant.parse(one["at"])) for one in raw["starts"]
        ),
        drain_since=_instant(raw["drain_since"]),
        quiet_since=_instant(raw["quiet_since"]),
        drained=bool(raw["drained"]),
        term_at=_instant(raw["term_at"]),
        kill_at=_instant(raw["kill_at"]),
        vacated=bool(raw["vacated"]),
    )


def _instant(text: str | None) -> Instant | None:
    return Instant.parse(text) if text else None


def _instant_text(instant: Instant | None) -> str | None:
    return instant.text() if instant else None


def read_health(paths: SlotPaths, record: SlotRecord, boot_id: str) -> Health:
    """Returns what the watch last noted; unknown for a note of another deploy or another boot."""
    try:
        raw: dict[str, Any] = json.loads((paths.run / "health.json").read_bytes())
        checked_at = _instant(raw["checked_at"])
        if raw["deploy_id"] != record.deploy_id or raw["boot_id"] != boot_id:
            return UNKNOWN_HEALTH
        return Health(raw["ok"], int(raw["failures"]), checked_at, str(raw["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return UNKNOWN_HEALTH


def write_health(paths: SlotPaths, record: SlotRecord, boot_id: str, health: Health) -> None:
    document = {
        "deploy_id": record.deploy_id,
        "boot_id": boot_id,
        "ok": health.ok,
        "failures": health.failures,
        "checked_at": _instant_text(health.checked_at),
        "reason": health.reason,
    }
    write_atomic(
        paths.run / "health.json", json.dumps(document).encode(), mode=0o600, durable=False
    )


def forget_health(paths: SlotPaths) -> None:
    (paths.run / "health.json").unlink(missing_ok=True)
