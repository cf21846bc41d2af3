"""Whatever is asked of it and whatever befalls the host, in any order: what must always hold."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reconciler.model.deploys import WishStatus
from reconciler.model.names import SLOT_NAMES, WEB, ProcessName, Revision
from reconciler.model.observed import PointsTo
from tests.planning.simulation import MS, Behaviour, World
from tests.planning.worlds import WORKER, contract

BEHAVIOURS = {
    "a": Behaviour(),
    "b": Behaviour(lingers=timedelta(seconds=2)),
    "c": Behaviour(ignores_term=True),
    "d": Behaviour(healthy=False),
    "e": Behaviour(lives=5 * MS),
    "f": Behaviour(boots_in=10 * MS, lives=200 * MS, crashes=9),
    "g": Behaviour(setup_fails=True),
    "h": Behaviour(ends_in=timedelta(seconds=3), setup=timedelta(seconds=2)),
}
REVISIONS = {name: Revision(name * 40) for name in BEHAVIOURS}
CONTRACTS = (
    contract(drain_timeout_ms=1000, health_interval_ms=1000),
    contract(drain_timeout_ms=1000, env={"COLOUR": "blue"}),
    contract(drain_timeout_ms=0, bake_ms=0, slots=2),
    contract(processes={"web": "./serve", "worker": "./work"}, standby_ms=60_000),
    contract(restart="no", on_unhealthy="alert"),
)
NAMES = st.sampled_from(sorted(REVISIONS))
PASSES = st.integers(0, 12)


class Host(RuleBasedStateMachine):
    """One app on one host, on a bad day."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(CONTRACTS[0])
        for name, behaviour in BEHAVIOURS.items():
            self.world.behaviours[REVISIONS[name]] = behaviour

    @initialize()
    def first(self) -> None:
        self.world.push(REVISIONS["a"])
        self.world.settle()

    def _go_on(self, passes: int) -> None:
        """Some passes, so that the next thing happens in the middle of this one."""
        for _ in range(passes):
            if not self.world.one_pass().steps:
                self.world.wait(20 * MS)

    @rule(name=NAMES, passes=PASSES)
    def push(self, name: str, passes: int) -> None:
        self.world.push(REVISIONS[name])
        self._go_on(passes)

    @rule(name=NAMES, passes=PASSES, force=st.booleans())
    def deploy(self, name: str, passes: int, *, force: bool) -> None:
        self.world.deploy(REVISIONS[name], force=force)
        self._go_on(passes)

    @rule(passes=PASSES)
    def roll_back(self, passes: int) -> None:
        self.world.rollback()
        self._go_on(passes)

    @rule(data=st.data(), passes=PASSES)
    def roll_back_to(self, data: st.DataObject, passes: int) -> None:
        known = [one.deploy_id for one in self.world.promotions]
        if known:
            self.world.rollback(data.draw(st.sampled_from(known)))
        self._go_on(passes)

    @rule()
    def cancel(self) -> None:
        self.world.cancel()

    @rule(number=st.integers(0, len(CONTRACTS) - 1), passes=PASSES)
    def change_contract(self, number: int, passes: int) -> None:
        self.world.set_contract(CONTRACTS[number])
        self._go_on(passes)

    @rule(version=st.sampled_from(["", "second", "third"]), passes=PASSES)
    def change_secrets(self, version: str, passes: int) -> None:
        self.world.secrets = version
        self._go_on(passes)

    @rule(process=st.sampled_from([WEB, WORKER]), passes=PASSES)
    def crash(self, process: ProcessName, passes: int) -> None:
        self.world.crash(process)
        self._go_on(passes)

    @rule(ignores=st.booleans())
    def sicken(self, *, ignores: bool) -> None:
        self.world.sicken(Behaviour(healthy=False, ignores_term=ignores))

    @rule(passes=PASSES)
    def end_the_daemon(self, passes: int) -> None:
        self.world.restart_daemon()
        self._go_on(passes)

    @rule(passes=PASSES)
    def reboot(self, passes: int) -> None:
        self.world.reboot()
        self._go_on(passes)

    @rule()
    def lose_the_store(self) -> None:
        self.world.forget()
        self.world.restart_daemon()
        # The first pass adopts what serves; whoever asks for something comes after it.
        self.world.one_pass()

    @rule(confirms=st.booleans(), fetches=st.booleans(), routed=st.booleans())
    def disturb(self, *, confirms: bool, fetches: bool, routed: bool) -> None:
        self.world.confirms, self.world.fetches, self.world.routed = confirms, fetches, routed

    @rule(seconds=st.sampled_from([0.2, 1, 5, 40]))
    def let_time_go_by(self, seconds: float) -> None:
        self.world.wait(timedelta(seconds=seconds))

    @rule()
    def come_to_rest(self) -> None:
        self.world.confirms = self.world.fetches = self.world.routed = True
        plan = self.world.settle()
        assert self.world.quiet(plan), f"it does not come to rest: {plan}"
        assert all(not one.phase.open for one in self.world.courses)
        assert all(one.status is not WishStatus.OPEN for one in self.world.wishes)
        self._nothing_is_left_running()

    def _nothing_is_left_running(self) -> None:
        assert isinstance(self.world.pointer, PointsTo)
        spared = {self.world.pointer.slot, self.world.previous_slot()}
        left = {name for name in SLOT_NAMES if self.world.up_in(name)} - spared
        assert not left, f"processes are left in {left}"

    @precondition(lambda self: self.world.promotions)
    @invariant()
    def exactly_one_slot_is_live(self) -> None:
        assert isinstance(self.world.pointer, PointsTo)
        assert self.world.slots[self.world.pointer.slot].record is not None

    @invariant()
    def no_port_ever_refused_a_step(self) -> None:
        refused = [each for each in self.world.failures if not each[1].reason]
        assert refused == []


TestHost = Host.TestCase
TestHost.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, derandomize=True
)
