"""Whatever is asked of it and whatever befalls the host, in any order: what must always hold."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reconciler.model.deploys import Phase, WishStatus
from reconciler.model.names import SLOT_NAMES, Revision
from reconciler.model.observed import PointsTo
from tests.planning.simulation import MS, Behaviour, World
from tests.planning.worlds import contract

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
    contract(drain_timeout_ms=1000),
    contract(drain_timeout_ms=1000, env={"COLOUR": "blue"}),
    contract(drain_timeout_ms=0, bake_ms=0, slots=2),
    contract(processes={"web": "./serve", "worker": "./work"}, standby_ms=60_000),
    contract(restart="no", on_unhealthy="alert"),
)


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

    @rule(name=st.sampled_from(sorted(REVISIONS)))
    def push(self, name: str) -> None:
        self.world.push(REVISIONS[name])

    @rule(name=st.sampled_from(sorted(REVISIONS)), force=st.booleans())
    def deploy(self, name: str, *, force: bool) -> None:
        self.world.deploy(REVISIONS[name], force=force)

    @rule()
    def roll_back(self) -> None:
        self.world.rollback()

    @rule(data=st.data())
    def roll_back_to(self, data: st.DataObject) -> None:
        goal = data.draw(st.sampled_from([one.deploy_id for one in self.world.promotions]))
        self.world.rollback(goal)

    @rule()
    def cancel(self) -> None:
        # Once the route has moved, what was asked to stop is live already.
        if all(one.phase is not Phase.SWITCHING for one in self.world.courses):
            self.world.cancel()

    @rule(changed=st.sampled_from(CONTRACTS))
    def change_contract(self, changed: object) -> None:
        self.world.set_contract(next(one for one in CONTRACTS if one is changed))

    @rule(version=st.sampled_from(["", "second", "third"]))
    def change_secrets(self, version: str) -> None:
        self.world.secrets = version

    @rule()
    def crash(self) -> None:
        self.world.crash()

    @rule()
    def end_the_daemon(self) -> None:
        self.world.restart_daemon()

    @rule()
    def reboot(self) -> None:
        self.world.reboot()

    @rule(confirms=st.booleans(), fetches=st.booleans(), routed=st.booleans())
    def disturb(self, *, confirms: bool, fetches: bool, routed: bool) -> None:
        self.world.confirms, self.world.fetches, self.world.routed = confirms, fetches, routed

    @rule(passes=st.integers(1, 8))
    def pass_by(self, passes: int) -> None:
        for _ in range(passes):
            self.world.one_pass()

    @rule(seconds=st.sampled_from([0.02, 0.2, 1, 5, 40]))
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
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True
)
