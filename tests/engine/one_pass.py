"""Passes, each in a process of its own: `one_pass.py SETTINGS`, settings as JSON.

For each line of standard input, `pass` or `rollback`, a copy of this process is made that has done
nothing yet. It runs one pass, or records the wish, waits for the work it began, answers on a line
of its own with what the pass had to do, and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from contextlib import AsyncExitStack
from pathlib import Path

from reconciler.config import Settings
from reconciler.daemon import open_effects
from reconciler.engine.commands import Commands, RollbackAsk
from reconciler.engine.loop import Loop
from reconciler.engine.sync import Sync
from reconciler.host.boot import SystemClock
from reconciler.model.actions import CheckHealth, Plan
from reconciler.model.names import AppName
from reconciler.model.principals import ADMIN

APP = AppName("web")


async def run(settings: Settings, verb: str) -> list[str]:
    async with AsyncExitStack() as stack:
        effects, wakeups = await open_effects(settings, SystemClock(), stack)
        sync = Sync(effects)
        await sync.refresh()
        loop = Loop(effects, sync, wakeups)
        if verb == "rollback":
            await Commands(effects, loop).rollback(ADMIN, RollbackAsk())
            return ["a rollback was asked for"]
        done = await loop.reconcile_once(APP)
        await loop.serve_once()
        await effects.slots.settle()
        await effects.work.settle()
        return left_to_do(done.plan)


def left_to_do(plan: Plan) -> list[str]:
    """What is planned and awaited, but for the watch over live, which never ends."""
    watch = {step.why for step in plan.steps if isinstance(step.action, CheckHealth)}
    return [why for why in plan.pending if why not in watch]


def answer(settings: Settings, verb: str) -> None:
    # What the pass logs belongs elsewhere than its answer.
    own, sys.stdout = sys.stdout, sys.stderr
    status = 1
    try:
        found = asyncio.run(run(settings, verb))
        own.write(json.dumps(found) + "\n")
        own.flush()
        status = 0
    except BaseException:  # noqa: BLE001 (a copy must not go on with the original's work)
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    given = json.loads(sys.argv[1])
    settings = Settings(
        repo=Path(given["repo"]),
        data_dir=Path(given["data_dir"]),
        proxy=given["proxy"],
        http_port=given["http_port"],
        port_range=range(*given["port_range"]),
    )
    while verb := sys.stdin.readline().strip():
        child = os.fork()
        if child == 0:
            answer(settings, verb)
        _, status = os.waitpid(child, 0)
        if status != 0:
            sys.exit(f"{verb} ended with status {status}")


if __name__ == "__main__":
    main()
