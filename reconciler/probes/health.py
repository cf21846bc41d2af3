"""The health probe: the candidate answers 2xx twice in a row, on a listener that is its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import httpx

from reconciler.host.processes import describe_exit
from reconciler.model.deploys import Reason, Verdict, VerdictKind, VerdictResult
from reconciler.model.desired import AppContract
from reconciler.ports import Instance, Listener
from reconciler.probes.asking import Answer, ask, host_and_port, make_client

NAME = "health"
NEEDED = 2
APART_SECONDS = 0.010
ATTEMPT_SECONDS = 1.0
# A pause is a twentieth of the time waited so far: it never adds more than that to a boot.
FIRST_PAUSE_SECONDS = 0.003
LONGEST_PAUSE_SECONDS = 0.2
PAUSE_SHARE = 0.05


@dataclass(slots=True)
class _Seen:
    """What was seen last: it becomes the reason when the deadline passes."""

    where: str = ""
    listener: Listener = field(default_factory=Listener)
    answer: Answer | None = None
    failure: str = ""
    streak: int = 0
    exposed: bool = False


class HealthProbe:
    """Implements the Probe port; one client serves every app."""

    def __init__(self) -> None:
        self._client = make_client()

    async def run(self, instance: Instance, contract: AppContract, deadline: timedelta) -> Verdict:
        seen = _Seen()
        proving = asyncio.create_task(self._prove(instance, contract, seen))
        ending = asyncio.create_task(instance.wait_exit())
        try:
            await asyncio.wait(
                (proving, ending),
                timeout=deadline.total_seconds(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if ending.done():
                ending.result()
            if await instance.exited():
                return await _after_exit(instance)
            if proving.done():
                return proving.result()
            return _at_deadline(seen, contract, deadline)
        finally:
            proving.cancel()
            ending.cancel()
            await asyncio.wait((proving, ending))

    async def _prove(self, instance: Instance, contract: AppContract, seen: _Seen) -> Verdict:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            asked = loop.time()
            verdict = await self._attempt(instance, contract, seen)
            if verdict is not None:
                return verdict
            if seen.streak:
                await asyncio.sleep(APART_SECONDS - (loop.time() - asked))
                continue
            share = (loop.time() - began) * PAUSE_SHARE
            await asyncio.sleep(min(max(share, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS))

    async def _attempt(
        self, instance: Instance, contract: AppContract, seen: _Seen
    ) -> Verdict | None:
        """Looks and asks once; a verdict when that decides it."""
        target = await _find_target(instance, seen)
        if isinstance(target, Verdict) or target is None:
            seen.streak = 0
            return target
        if not await self._healthy(target, contract.health_endpoint, seen):
            seen.streak = 0
            return None
        seen.streak += 1
        if seen.streak < NEEDED or await instance.exited():
            return None
        return _passed(contract, seen)

    async def _healthy(self, address: str, endpoint: str | None, seen: _Seen) -> bool:
        # Noted only once the attempt is over: at the deadline the one before it is what counts.
        answer, failure = None, ""
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                if endpoint is None:
                    await _connect(address)
                    return True
                answer = await ask(self._client, f"http://{address}{endpoint}")
        except TimeoutError:
            failure = f"no answer within {ATTEMPT_SECONDS:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            failure = f"no answer: {type(error).__name__} {error}".rstrip()
        seen.answer, seen.failure = answer, failure
        return answer is not None and answer.successful


async def _find_target(instance: Instance, seen: _Seen) -> Verdict | str | None:
    """Returns where to ask once every listener that must be there is the candidate's own."""
    target = ""
    for internal in (False, True) if instance.internal_address else (False,):
        seen.where = instance.internal_address if internal else instance.address
        seen.listener = listener = await instance.listener(internal=internal)
        if listener.stranger:
            return _failed(Reason.PORT_TAKEN, listener.detail)
        if not listener.ours:
            return None
        if internal and listener.exposed:
            return _failed(
                Reason.WRONG_ADDRESS,
                f"$INTERNAL_PORT is reachable from other hosts (bound to {listener.detail}); "
                "bind it to $HOST",
            )
        seen.exposed = seen.exposed or listener.exposed
        target = listener.address
    return target


async def _after_exit(instance: Instance) -> Verdict:
    """An app that finds its port taken mostly ends by itself, and the revision is not to blame."""
    # Asked twice: a listener is a stranger only when it is seen to stay.
    for _ in range(2):
        listener = await instance.listener()
        if listener.stranger:
            return _failed(Reason.PORT_TAKEN, listener.detail)
    return _failed(Reason.EXITED, describe_exit(instance.exit_status))


async def _connect(address: str) -> None:
    _, writer = await asyncio.open_connection(*host_and_port(address))
    writer.close()
    await writer.wait_closed()


def _passed(contract: AppContract, seen: _Seen) -> Verdict:
    what = "accepted" if contract.health_endpoint is None else f"{contract.health_endpoint} passed"
    detail = f"{what} twice on {seen.listener.address}"
    if seen.exposed:
        detail += "; $PORT is reachable from other hosts, past the proxy: bind it to $HOST instead"
    return Verdict(NAME, VerdictKind.PROBE, VerdictResult.PASSED, detail=detail)


def _failed(reason: Reason, detail: str) -> Verdict:
    return Verdict(NAME, VerdictKind.PROBE, VerdictResult.FAILED, reason, detail)


def _at_deadline(seen: _Seen, contract: AppContract, deadline: timedelta) -> Verdict:
    """Says what was missing when the time was up."""
    within = f"within {deadline.total_seconds():g} s"
    if seen.listener.elsewhere:
        return _failed(
            Reason.WRONG_ADDRESS,
            f"listens on {seen.listener.detail} and not on {seen.where}; "
            "the app must listen on $HOST:$PORT",
        )
    if not seen.listener.ours:
        return _failed(Reason.NEVER_BOUND, f"did not listen on {seen.where} {within}")
    if seen.answer is not None and not seen.answer.successful:
        return _failed(
            Reason.BAD_STATUS,
            f"{contract.health_endpoint} on {seen.listener.address} answers "
            f"{seen.answer.describe()}",
        )
    healthy_once = "healthy only once before the time was up"
    told = seen.failure or (healthy_once if seen.streak else "no answer before the time was up")
    return _failed(Reason.PROBE_TIMEOUT, f"{seen.listener.address}: {told} ({within})")
