"""A daemon that starts a prepared slot and is killed the moment start() returns."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from reconciler.model.names import WEB, DeployId
from reconciler.ports import Launch
from tests.slots.scene import APP, REVISION, SERVE, A, contract, make_slots


async def main() -> None:
    data, deploy = Path(sys.argv[1]), DeployId(sys.argv[2])
    slots = make_slots(data)
    made = contract(SERVE)
    await slots.start(Launch(APP, A, deploy, REVISION, made, (WEB,), {}))
    os.kill(os.getpid(), signal.SIGKILL)


asyncio.run(main())
