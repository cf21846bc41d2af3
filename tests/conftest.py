"""What every test shares: the event loop of anyio's plugin, and a skip that CI turns into an error."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # noqa: ANN201
    """With AUTOPILOT_CI=1 a skip is an error: a suite that did not run proved nothing."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("AUTOPILOT_CI") == "1" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
