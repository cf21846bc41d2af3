"""`autopilot status`: slots, revisions, health and conditions, once or kept up to date."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TextIO

import click

from reconciler.cli.client import Client, Record, UnreachableError, Wakes
from reconciler.cli.render import Cell, Paint, age, clean, short
from reconciler.cli.session import Session, pass_session, with_session

# With more apps than this one line each is what a person can read.
DETAILED = 8
HEAD = ("SLOT", "ROLE", "COMMIT", "CONDITION", "ADDRESS", "SINCE")
STYLES = {
    "healthy": "ok", "unhealthy": "bad", "failed": "bad", "dirty": "warn", "preparing": "warn",
    "starting": "warn", "draining": "warn",
}  # fmt: skip


@click.command("status")
@click.option("--app", metavar="APP", help="Only this app.")
@click.option("--watch", is_flag=True, help="Keep it up to date until Ctrl-C.")
@with_session
@pass_session
def command(session: Session, app: str | None, *, watch: bool) -> int:
    """Show slots, revisions, health and conditions."""
    client = session.client()
    if watch and not session.json:
        return _watch(client, app, Paint(session.color))
    if session.json:
        click.echo(json.dumps(client.get("/status", {"app": app}), indent=2))
    else:
        click.echo("\n".join(_lines(client, app, Paint(session.color))))
    return 0


def _lines(client: Client, app: str | None, paint: Paint) -> list[str]:
    status = client.get("/status", {"app": app})
    names = list(status["apps"])
    if app is not None or len(names) == 1:
        return app_lines(app or names[0], status, paint)
    lines = [_condition(one, paint) for one in status["conditions"] or ()]
    if not names:
        return [*lines, "no app yet; run `autopilot init`, commit .autopilot/, and it is deployed"]
    if len(names) > DETAILED:
        return lines + _overview(status["apps"], paint)
    for name in names:
        lines += [*app_lines(name, client.get("/status", {"app": name}), paint), ""]
    return lines[:-1]


def _overview(apps: Record, paint: Paint) -> list[str]:
    rows: list[list[Cell]] = [
        [name, short(app["live_commit"]), _health(app["healthy"]), _readiness(app["ready"])]
        for name, app in apps.items()
    ]
    return paint.table(("APP", "LIVE", "HEALTH", "STATE"), rows)


def app_lines(name: str, status: Record, paint: Paint) -> list[str]:
    """Renders the status of one app."""
    live = f"live {short(status['live_commit'])}" if status["live_commit"] else "never been live"
    words = [paint(name, "bold"), live]
    if status["previous_commit"]:
        words.append(f"previous {short(status['previous_commit'])}")
    words.append(paint(*_health(status["healthy"])))
    lines = ["  ".join(words)]
    slots = [row for slot in status["slots"] for row in _slot_rows(slot)]
    lines += [f"  {line}" for line in paint.table(HEAD, slots)]
    lines += [f"  {_condition(one, paint)}" for one in told_conditions(status["conditions"])]
    if status["deploy"]:
        lines.append(f"  deploying {_deploy(status['deploy'])}")
    lines += [f"  queued {_deploy(one)}" for one in status["queued"]]
    return lines


def _slot_rows(slot: Record) -> list[list[Cell]]:
    condition = slot["condition"]
    first: list[Cell] = [
        slot["name"],
        "" if slot["role"] == "none" else slot["role"],
        short(slot["commit"]),
        (condition, STYLES.get(condition, "dim")),
    ]
    instances = [_instance(one) for one in slot["instances"]] or [["", ""]]
    rest: list[list[Cell]] = [["", "", "", "", *one] for one in instances[1:]]
    return [[*first, *instances[0]], *rest]


def _instance(one: Record) -> list[Cell]:
    name = "" if one["process"] == "web" else f"{one['process']} "
    address: Cell = f"{name}{one['address'] or ''}" if one["up"] else (f"{name}down", "bad")
    return [address, age(one["since"])]


def _health(healthy: bool | None) -> tuple[str, str]:
    if healthy is None:
        return "health unknown", "dim"
    return ("healthy", "ok") if healthy else ("unhealthy", "bad")


def _readiness(ready: bool) -> tuple[str, str]:
    return ("ready", "ok") if ready else ("not ready", "warn")


def told_conditions(conditions: list[Record]) -> list[Record]:
    """Returns those worth a line: not that all is well, nor what is not the case."""
    return [one for one in conditions if one["status"] is not (one["type"] == "Ready")]


def _condition(one: Record, paint: Paint) -> str:
    name = one["type"] if one["status"] else f"not {one['type']}"
    told = f"{one['reason']}: {one['message']}" if one["message"] else one["reason"]
    return f"{paint(name, 'warn')}  {clean(told)}"


def _deploy(record: Record) -> str:
    text = f"{short(record['commit'])}: {record['phase']}"
    text += f" ({record['reason']})" if record["reason"] else ""
    return f"{text}, {age(record['started_at'])}  [{record['deploy_id']}]"


def _watch(client: Client, app: str | None, paint: Paint) -> int:
    wakes = Wakes(client)
    screen = Screen(sys.stdout)
    try:
        while True:
            try:
                lines = _lines(client, app, paint)
            except UnreachableError as error:
                lines = [paint(f"{error}; trying again", "warn")]
                wakes = Wakes(client)
            screen.show(lines)
            wakes.wait(2)
    except KeyboardInterrupt:
        return 0
    finally:
        screen.close()


class Screen:
    """Draws over what it drew before, line by line, so that nothing flickers.

    In a pipe it prints a frame only when it differs from the one before.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._shown: list[str] = []
        if self._terminal:
            out.write("\x1b[?1049h\x1b[?25l")

    def show(self, lines: list[str]) -> None:
        if self._terminal:
            height = shutil.get_terminal_size().lines
            # Without wrapping, a line of text is a line of the screen.
            frame = "\x1b[K\r\n".join(lines[: height - 1])
            self._out.write(f"\x1b[?7l\x1b[H{frame}\x1b[K\x1b[J\x1b[?7h")
        elif lines != self._shown:
            self._out.write("\n".join(lines) + "\n\n")
        self._shown = lines
        self._out.flush()

    def close(self) -> None:
        if self._terminal:
            self._out.write("\x1b[?25h\x1b[?1049l")
            self._out.flush()
