"""Following a deploy: its phases as they pass, and what to do when it did not go live."""

from __future__ import annotations

import json
import sys
import time
from typing import TextIO

import click

from reconciler.cli.client import Client, Record, UnreachableError, Wakes
from reconciler.cli.render import Paint, clean, short, span
from reconciler.cli.session import Session

# A daemon that restarts is back within this; the deploy is taken up again then.
PATIENCE_S = 20
TAIL = 50

ADVICE = {
    "setup-exit": "run the setup_command by hand in a fresh clone; it must exit with 0",
    "setup-timeout": "make the setup faster, or raise setup_timeout_ms",
    "exited": "start the start_command by hand with HOST and PORT set; it must keep running",
    "never-bound": "the app must listen on $HOST:$PORT within health_timeout_ms",
    "wrong-address": "the app must listen on $HOST:$PORT, as both are given to it",
    "bad-status": "health_endpoint must answer 2xx; set it to a page that does",
    "probe-timeout": "health_endpoint must answer within 1 s; or raise health_timeout_ms",
    "request-failed": "compare the answer with health_test_payload",
    "missing-secret": "set it with `autopilot secrets set NAME`",
    "disk-pressure": "free some space; nothing was quarantined",
    "quarantined": "bring it back with `autopilot deploy --force --reason WHY`",
    "invalid-manifest": "run `autopilot validate`",
}


def follow(session: Session, path: str, body: Record, *, wait: bool) -> int:
    """Posts a wish and follows its deploy; returns the exit code, 0 only if it went live."""
    client = session.client()
    # The stream opens while the wish is recorded, which saves a connection's time.
    wakes = Wakes(client) if wait else None
    record = client.post(path, body)
    if wakes is None:
        return _accepted(session, record)
    progress = Progress(sys.stderr if session.json else sys.stdout, Paint(session.color))
    try:
        record = _until_decided(client, wakes, record, progress)
    except KeyboardInterrupt:
        progress.close()
        click.echo(_goes_on(record), err=True)
        return 1
    progress.close()
    if session.json:
        click.echo(json.dumps(record, indent=2))
    else:
        click.echo("\n".join(_verdict(client, record, Paint(session.color))))
    return 0 if record["success"] else 1


def _accepted(session: Session, record: Record) -> int:
    if session.json:
        click.echo(json.dumps(record, indent=2))
        return 0
    click.echo(f"{record['app']}: deploying {short(record['commit'])} as {record['deploy_id']}")
    click.echo(f"Watch it with `autopilot status --watch`, or stop it with {_cancel(record)}.")
    return 0


def _goes_on(record: Record) -> str:
    return (
        f"\nThe deploy of {short(record['commit'])} goes on without you. Watch it with "
        f"`autopilot status --watch`; stop it with {_cancel(record)}."
    )


def _cancel(record: Record) -> str:
    return f"`autopilot cancel {record['deploy_id']}`"


def _until_decided(client: Client, wakes: Wakes, record: Record, progress: Progress) -> Record:
    lost_at: float | None = None
    while True:
        progress.show(record)
        if record["finished_at"] is not None:
            return record
        wakes.wait(progress.interval)
        try:
            record = client.get(f"/deploys/{record['deploy_id']}")
            lost_at = None
        except UnreachableError:
            now = time.monotonic()
            lost_at = lost_at or now
            if now - lost_at > PATIENCE_S:
                progress.close()
                raise
            progress.note("the daemon does not answer; the deploy is taken up when it is back")
            wakes = Wakes(client)


def _verdict(client: Client, record: Record, paint: Paint) -> list[str]:
    app, commit, took = record["app"], short(record["commit"]), span(record["duration_ms"])
    if record["success"]:
        return [paint(f"{app}: {commit} is live in {record['slot']} after {took}", "ok")]
    reason = record["reason"]
    why = f" ({reason})" if reason else ""
    lines = [paint(f"{app}: {commit} was not promoted: {record['phase']}{why}", "bad")]
    if record["detail"]:
        lines += [f"  {clean(line)}" for line in record["detail"].splitlines()]
    if tail := client.text(f"/deploys/{record['deploy_id']}/log").splitlines()[-TAIL:]:
        lines += ["the end of its log:", *(f"  | {clean(line)}" for line in tail)]
    live = record["previous_commit"]
    if record["phase"] != "rolled_back":
        lines.append(f"Nothing was touched: {short(live)} is still live." if live else
                     "Nothing was touched: the app has never been live.")  # fmt: skip
    if reason in ADVICE:
        lines.append(f"What to do: {ADVICE[reason]}.")
    lines.append(f"The whole log: `autopilot logs --deploy {record['deploy_id']}`")
    return lines


class Progress:
    """Shows phases: on a terminal one line each, the last with its time; else one line as each
    begins."""

    def __init__(self, out: TextIO, paint: Paint) -> None:
        self._out = out
        self._paint = paint
        self._terminal = out.isatty()
        self._told = 0
        self._open = False
        self._since = time.monotonic()
        self._noted = False

    @property
    def interval(self) -> float:
        """How long to wait for news: a terminal also shows the time that passes."""
        return 0.2 if self._terminal else 1

    def show(self, record: Record) -> None:
        phases = [step for step in record["phases"] if step["phase"] not in ("baking", "draining")]
        for index, step in enumerate(phases[self._told :], start=self._told):
            if self._terminal:
                self._finish(phases[index - 1] if index else None)
                self._since = time.monotonic()
                self._open = True
            else:
                self._out.write(f"{record['app']} {short(record['commit'])}: {step['phase']}\n")
        self._told = len(phases)
        if self._terminal and record["finished_at"] is None:
            reason = f" ({record['reason']})" if record["reason"] else ""
            self._redraw(f"… {phases[-1]['phase']}{reason} {time.monotonic() - self._since:.1f} s")
        self._out.flush()

    def note(self, text: str) -> None:
        """Tells something once."""
        if self._noted:
            return
        self._noted = True
        if self._terminal:
            self._redraw(self._paint(text, "warn"))
        else:
            self._out.write(f"{text}\n")
        self._out.flush()

    def close(self) -> None:
        if self._open:
            self._redraw("")
            self._out.flush()
            self._open = False

    def _finish(self, step: Record | None) -> None:
        if step is not None:
            mark = self._paint("✓", "ok")
            self._redraw(f"{mark} {step['phase']} {span(step['duration_ms'])}\n")

    def _redraw(self, text: str) -> None:
        self._out.write(f"\r\x1b[K{text}")
