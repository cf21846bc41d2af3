"""Setup: the command that makes a checked-out tree ready, as the app's user, under a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from reconciler.host.processes import describe_exit, wait_end
from reconciler.model.deploys import Reason
from reconciler.model.errors import ReconcilerError
from reconciler.slots.launcher import Launcher, Order


class SetupFailedError(ReconcilerError):
    """setup_command did not succeed; `reason` says in which way."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


async def run_setup(launcher: Launcher, order: Order, reap: Callable[[], Awaitable[None]]) -> None:
    """Runs setup_command to its end. Raises SetupFailedError, LaunchError, DiskPressureError.

    `reap` kills what belongs to the setup. It is awaited however the setup ends, so that a
    deadline or a cancellation ends everything it started, and a success leaves nothing behind.
    """
    timeout = order.contract.setup_timeout
    launched = launcher.launch(order)
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await wait_end(launched.leader.pid, launched.leader.started)
        status = launched.spawned.poll()
    except TimeoutError:
        raise SetupFailedError(
            Reason.SETUP_TIMEOUT,
            f"setup_command did not end within {timeout.total_seconds():g} s and was killed; "
            "make it faster, or give it more with setup_timeout_ms",
        ) from None
    finally:
        await reap()
        launched.spawned.release()
    if status != 0:
        raise SetupFailedError(
            Reason.SETUP_EXIT, f"setup_command {describe_exit(status)}; its output is in the log"
        )
