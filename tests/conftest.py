"""What every test shares: anyio's event loop, and skips that CI turns into errors."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With AUTOPILOT_CI=1 a skip is an error: a suite that did not run proved nothing."""
    report = yield
    if report.skipped and os.environ.get("AUTOPILOT_CI") == "1" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
