"""The pages a user reads say what the code does: every name is looked up on both sides."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from reconciler.cli.main import autopilot
from reconciler.manifests.contract import UNENFORCED
from reconciler.manifests.schema import app_schema
from reconciler.model.conditions import ConditionType
from reconciler.model.deploys import TRANSIENT, Phase, Reason, Trigger
from reconciler.model.desired import RESTART_KEYS
from reconciler.web.app import ENDPOINTS
from reconciler.web.problems import KINDS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])

GLOBAL_OPTIONS = {"--url", "--token", "--json", "--no-color", "--data-dir", "--help"}
ABSENT = "none"


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def sections(text: str) -> Mapping[str, str]:
    """The parts of a page by the text of their headings, with what stands below them."""
    parts = re.split(r"^(#{1,6} .+)$", prose(text), flags=re.MULTILINE)
    titles = [title.lstrip("#").strip() for title in parts[1::2]]
    return dict(zip(titles, parts[2::2], strict=True))


def prose(text: str) -> str:
    """The page without its code blocks, in which a `#` begins no heading."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row, heads and rules left out."""
    for line in text.splitlines():
        if line.startswith("| `"):
            # A bar in a cell is written with a backslash.
            yield [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def code(cell: str) -> str:
    found = re.match(r"`([^`]+)`", cell)
    assert found, cell
    return found[1]


# The app contract


def contract_rows() -> dict[str, list[str]]:
    """The rows of the app contract's own keys: those with four columns."""
    found = [cells for cells in rows(page("manifest.md")) if len(cells) == 4]
    keys = [code(cells[0]) for cells in found]
    assert len(keys) == len(set(keys))
    return dict(zip(keys, found, strict=True))


def written(default: object) -> str:
    return default if isinstance(default, str) else json.dumps(default)


def test_every_key_of_the_contract_is_described_and_no_other() -> None:
    assert contract_rows().keys() == app_schema()["properties"].keys()


@pytest.mark.parametrize("key", app_schema()["properties"])
def test_key_has_its_default_and_what_a_change_of_it_does(key: str) -> None:
    rule: Mapping[str, Any] = app_schema()["properties"][key]
    _, default, rolls, meaning = contract_rows()[key]
    resolved = {**app_schema()["$defs"].get(rule.get("$ref", "").rpartition("/")[2], {}), **rule}
    if "default" in resolved:
        assert default == written(resolved["default"])
    elif key != "name":
        assert default == ABSENT
    assert rolls == ("yes" if key in RESTART_KEYS else "no")
    assert meaning.startswith("Not built yet") == (key in UNENFORCED)


@pytest.mark.parametrize(
    ("heading", "definition"),
    [
        ("processes", "process"),
        ("routes", "route"),
        ("health_test_payload", "health_test"),
        ("limits", "limits"),
    ],
)
def test_inner_keys_are_described(heading: str, definition: str) -> None:
    table = {code(cells[0]) for cells in rows(sections(page("manifest.md"))[heading])}
    assert table == app_schema()["$defs"][definition]["properties"].keys()


# Reasons and conditions


def condition_reasons() -> set[str]:
    """Every CamelCase word that planning or the engine can give as a condition's reason."""
    package = ROOT / "reconciler"
    found = {
        node.value
        for path in [*package.glob("planning/*.py"), *package.glob("engine/*.py")]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    types = {kind.value for kind in ConditionType} - {"NotEnforced"}
    return {text for text in found if re.fullmatch(r"(?:[A-Z][a-z]+)+", text)} - types


def test_every_reason_of_a_deploy_is_explained_and_no_other() -> None:
    table = list(rows(sections(page("reasons.md"))["Reasons of a deploy"]))
    assert [code(cells[0]) for cells in table] == [reason.value for reason in Reason]
    assert all(len(cells) == 4 for cells in table)


@pytest.mark.parametrize("reason", Reason)
def test_reason_says_whether_it_is_tried_again(reason: Reason) -> None:
    table = {code(cells[0]): cells for cells in rows(page("reasons.md"))}
    assert ("tried again" in table[reason][2]) == (reason in TRANSIENT)


def test_every_reason_of_a_condition_is_explained_and_no_other() -> None:
    text = sections(page("reasons.md"))["Conditions"]
    listed = re.findall(r"^\| \w+(?: \(false\))? \| `(\w+)` \|", text, re.MULTILINE)
    assert set(listed) == condition_reasons()


# The command line


def commands(group: click.Group = autopilot, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        full = f"{path} {name}".strip()
        if isinstance(command, click.Group):
            yield from commands(command, full)
        else:
            yield full, command


VERBS = dict(commands())


def verb_sections() -> dict[str, str]:
    """The sections of cli.md by verb: `## autopilot deploy [REF]` is that of `deploy`."""
    return {
        match[1]: text
        for title, text in sections(page("cli.md")).items()
        if (match := re.match(r"autopilot ([a-z]+(?: [a-z]+)*)", title))
    }


def section_of(verb: str) -> str:
    found = verb_sections()
    return found.get(verb) or found[verb.partition(" ")[0]]


def flags(command: click.Command) -> dict[str, click.Option]:
    context = click.Context(command)
    options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    named = {flag: one for one in options for flag in one.opts if flag.startswith("--")}
    return {flag: one for flag, one in named.items() if flag not in GLOBAL_OPTIONS}


def test_every_verb_has_a_section_and_every_section_a_verb() -> None:
    tops = {verb.partition(" ")[0] for verb in VERBS}
    assert {title.partition(" ")[0] for title in verb_sections()} == tops
    assert all(title in VERBS or title == "secrets" for title in verb_sections())
    for verb in VERBS:
        assert f"autopilot {verb}" in page("cli.md"), verb


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_of_a_verb_is_described_and_no_other(verb: str) -> None:
    table = {code(cells[0]): cells for cells in rows(section_of(verb))}
    if " " in verb and verb not in verb_sections():
        siblings = [one for one in VERBS if one.startswith(f"{verb.partition(' ')[0]} ")]
        assert table.keys() == {flag for one in siblings for flag in flags(VERBS[one])}
    else:
        assert table.keys() == flags(VERBS[verb]).keys()
    for flag, option in flags(VERBS[verb]).items():
        if len(table[flag]) == 3 and isinstance(option.default, int | str) and option.default:
            assert str(option.default) in table[flag][1], (verb, flag)


@pytest.mark.parametrize("verb", VERBS)
def test_short_flags_are_described(verb: str) -> None:
    options = [one for one in VERBS[verb].params if isinstance(one, click.Option)]
    for short in (flag for one in options for flag in one.opts if not flag.startswith("--")):
        assert f"`{short}`" in section_of(verb), (verb, short)


def test_global_options_are_described() -> None:
    table = {code(cells[0]) for cells in rows(sections(page("cli.md"))["Options of every verb"])}
    assert table == GLOBAL_OPTIONS


# The API


def test_every_route_is_described_and_no_other() -> None:
    table = {code(cells[0]) for cells in rows(sections(page("http.md"))["Routes"])}
    assert table == {f"{one.method} {one.path}" for one in ENDPOINTS}


def test_every_problem_is_described_with_its_status() -> None:
    table = {code(cells[0]): cells[1] for cells in rows(sections(page("http.md"))["Problems"])}
    assert table == {slug: str(kind.status) for slug, kind in KINDS.items()}


@pytest.mark.parametrize("word", [*Phase, *Trigger])
def test_every_word_of_a_record_is_named(word: str) -> None:
    assert f"`{word}`" in page("http.md")


# The pages themselves


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in sections(path.read_text("utf-8"))
    }


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_path_of_this_repository_that_is_named_exists(path: Path) -> None:
    tops = "docs|fixtures|reconciler|systemd|tests"
    for named in re.findall(rf"`((?:{tops})/[\w./-]*)`", path.read_text("utf-8")):
        assert (ROOT / named).exists(), named


def test_readme_names_the_two_commands_and_they_exist() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"\bmake ([a-z]+)", readme))
    assert {"start", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_readme_draws_the_floors_as_they_are_enforced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (floors,) = (one for one in contracts if one["type"] == "layers")
    readme = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    drawn = [[line.split("  ")[0] for line in block.splitlines()] for block in blocks]
    assert floors["layers"] in drawn


def decisions() -> Sequence[Path]:
    return sorted((DOCS / "decisions").glob("*.md"))


def test_decisions_are_numbered_and_have_their_parts() -> None:
    numbers = [int(path.name[:4]) for path in decisions()]
    assert numbers == list(range(1, len(numbers) + 1))
    for path in decisions():
        found = list(sections(path.read_text("utf-8")))
        assert found[1:] == ["Context", "Decision", "Looked at", "Consequences"], path.name
        assert found[0].startswith(f"{int(path.name[:4])}. "), path.name


def test_every_dependency_has_a_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    wanted += [one for extra in extras for one in extra]
    text = page("decisions/0007-dependencies.md")
    for requirement in wanted:
        assert re.split(r"[<>=!~\[; ]", requirement)[0] in text, requirement


def test_no_page_names_a_machine_or_a_registry() -> None:
    homes = re.compile(r"/(?:work|root|home|Users|tmp)/|\.\./shared|pythonhosted|pypi\.org")
    for path in [*PAGES, ROOT / "Makefile", ROOT / "pyproject.toml", *(ROOT / "systemd").iterdir()]:
        assert not homes.findall(path.read_text("utf-8")), path


def test_changelog_has_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## [Unreleased]" in changelog
    assert f"## [{project['project']['version']}]" in changelog
