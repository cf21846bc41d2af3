"""Where the files of slots lie below the data directory, and their modes. Opens none of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reconciler.model.names import APP_NAME, AppName, DeployId, ProcessName, SlotName

# Walked through by every app's user on the way to its own slot, listed by nobody but the daemon.
PASSAGE = 0o711
DAEMON_ONLY = 0o700
# The proxy reads it, under a user of its own.
PUBLISHED = 0o755
# Of the app's user and group.
SLOT = 0o750
PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class SlotPaths:
    """The files of one slot. `run` holds what we note about its processes, `addr` its addresses."""

    app_dir: Path
    worktree: Path
    record: Path
    addr: Path
    git_dir: Path
    run: Path
    tmp: Path
    shared: Path
    trash: Path

    def note(self, process: ProcessName, index: int) -> Path:
        """The record that the launcher writes of one instance."""
        return self.run / f"{process}.{index}"

    def exit_note(self, process: ProcessName, index: int) -> Path:
        return self.run / f"{process}.{index}.exit"


class Layout:
    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.apps_dir = data_dir / "apps"
        self.logs_dir = data_dir / "logs"
        # A pass over a thousand apps asks for thousands; joining paths is most of what it costs.
        self._known: dict[tuple[AppName, SlotName], SlotPaths] = {}

    def app_dir(self, app: AppName) -> Path:
        return self.apps_dir / app

    def slot(self, app: AppName, slot: SlotName) -> SlotPaths:
        known = self._known.get((app, slot))
        if known is None:
            known = self._known[app, slot] = self._paths(app, slot)
        return known

    def _paths(self, app: AppName, slot: SlotName) -> SlotPaths:
        app_dir = self.apps_dir / app
        slots = app_dir / "slots"
        return SlotPaths(
            app_dir=app_dir,
            worktree=app_dir / slot,
            record=slots / f"{slot}.json",
            addr=slots / f"{slot}.addr",
            git_dir=slots / f"{slot}.git",
            run=slots / f"{slot}.run",
            tmp=app_dir / "tmp" / slot,
            shared=app_dir / "shared",
            trash=app_dir / "trash",
        )

    def logs(self, app: AppName) -> Path:
        return self.logs_dir / app

    def log(self, app: AppName, deploy_id: DeployId, process: ProcessName) -> Path:
        return self.logs_dir / app / f"{deploy_id}.{process}.log"

    def apps(self) -> tuple[AppName, ...]:
        """Returns the apps that have a slot record."""
        return tuple(sorted({app for app, _ in self.recorded()}))

    def recorded(self) -> Iterator[tuple[AppName, SlotName]]:
        for path in self.apps_dir.glob("*/slots/*.json"):
            app = path.parent.parent.name
            if APP_NAME.fullmatch(app):
                yield AppName(app), SlotName(path.stem)
