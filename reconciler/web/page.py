"""The page: how things stand, for a person. Rendered here, so that it reads without scripts too.

Every value passes `escape`; style and script are admitted by their hashes and nothing else is.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import cast
from urllib.parse import quote

from starlette.responses import HTMLResponse, Response

from reconciler.model.canonical import Json
from reconciler.model.errors import RefusedError
from reconciler.planning.status import deploy_record
from reconciler.web.call import Call
from reconciler.web.fields import read_query

# With more apps than this the page shows one at a time, beside the table of all.
DETAILED = 8
RECENT = 15

STYLE = """
:root{color-scheme:light dark;--ok:#137a3a;--bad:#b3261e;--warn:#8a5a00;--dim:#667;--line:#8884}
@media (prefers-color-scheme:dark){:root{--ok:#5bd08a;--bad:#ff8a80;--warn:#f0b95a;--dim:#99a}}
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:64rem;padding:1rem}
h1{font-size:1.25rem;margin:0 0 .25rem}h2{font-size:1.05rem;margin:1.5rem 0 .4rem}
p{margin:.2rem 0}.dim{color:var(--dim)}
.ok{color:var(--ok)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .7rem .3rem 0;
  border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--dim)}code{font:13px ui-monospace,monospace}a{color:inherit}
"""

SCRIPT = """
const note = document.getElementById("connection");
let pending = null;
async function refresh() {
  pending = null;
  try {
    const answer = await fetch(location.href, {headers: {accept: "text/html"}});
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const now = document.querySelector("main");
    const next = fresh.querySelector("main");
    if (next && now.innerHTML !== next.innerHTML) now.replaceWith(next);
    note.textContent = "";
  } catch (error) {
    note.textContent = "the daemon does not answer; trying again";
  }
}
function soon() { if (pending === null) pending = setTimeout(refresh, 150); }
const stream = new EventSource("/events");
stream.onmessage = soon;
stream.onopen = soon;
stream.onerror = soon;
setInterval(soon, 10000);
"""


NO_APP = (
    "<p>No app yet. Run <code>autopilot init</code> in the repository, commit "
    "<code>.autopilot/</code>, and it is deployed.</p>"
)


def _source(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


POLICY = "; ".join((
    "default-src 'none'",
    f"script-src {_source(SCRIPT)}",
    f"style-src {_source(STYLE)}",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
))  # fmt: skip


async def get_page(call: Call) -> Response:
    query = read_query(call.request)
    chosen = query.text("app")
    query.done()
    overview = await call.commands.status(None)
    apps = _mapping(overview["apps"])
    if chosen is not None and chosen not in apps:
        raise RefusedError("unknown-app", f"there is no app {chosen!r}; / lists them all")
    named = [chosen] if chosen else list(apps) if len(apps) <= DETAILED else []
    details = [(name, await call.commands.status(name)) for name in named]
    recent = await call.commands.deploys(chosen, RECENT, None)
    conditions = _mappings(overview["conditions"]) if len(apps) != 1 else ()
    main = _main(apps, conditions, details, [deploy_record(deploy) for deploy in recent])
    return HTMLResponse(_document(main), headers={"Content-Security-Policy": POLICY})


def _document(main: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>autopilot</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style></head><body><h1>autopilot</h1>"
        '<p id="connection" class="bad" role="status"></p>'
        f"{main}<script>{SCRIPT}</script></body></html>"
    )


def _main(
    apps: Mapping[str, Json],
    conditions: Sequence[Mapping[str, Json]],
    details: Sequence[tuple[str, Mapping[str, Json]]],
    recent: Sequence[Mapping[str, Json]],
) -> str:
    parts = [_condition(one) for one in conditions]
    parts.append(_apps(apps) if apps else NO_APP)
    parts += [_app(name, status) for name, status in details]
    parts.append("<h2>Recent deploys</h2>")
    parts.append(_deploys(recent) if recent else '<p class="dim">None yet.</p>')
    return f"<main>{''.join(parts)}</main>"


def _apps(apps: Mapping[str, Json]) -> str:
    rows = []
    for name, each in apps.items():
        app = _mapping(each)
        link = f'<a href="/?app={quote(name, safe="")}">{escape(name)}</a>'
        ready = _mark(app.get("ready"), "ready", "not ready")
        healthy = _mark(app.get("healthy"), "healthy", "unhealthy")
        rows.append((link, _commit(app.get("live_commit")), healthy, ready))
    return _table(("App", "Live", "Health", "State"), rows)


def _app(name: str, status: Mapping[str, Json]) -> str:
    slots = [
        (
            _text(slot.get("name")),
            _text(slot.get("role")),
            _text(slot.get("condition")),
            _commit(slot.get("commit")),
            "<br>".join(_instance(one) for one in _mappings(slot.get("instances"))),
        )
        for slot in _mappings(status.get("slots"))
    ]
    running = status.get("deploy")
    queued = _mappings(status.get("queued"))
    return "".join((
        f"<h2>{escape(name)}</h2>",
        *(_condition(one) for one in _mappings(status.get("conditions")) if _worth_telling(one)),
        _running(_mapping(running)) if running else "",
        *(f'<p class="dim">queued: {_commit(one.get("commit"))}</p>' for one in queued),
        _table(("Slot", "Role", "Condition", "Commit", "Instances"), slots),
    ))  # fmt: skip


def _instance(one: Mapping[str, Json]) -> str:
    up = _mark(one.get("up"), "up", "down")
    return f"{_text(one.get('process'))} <code>{_text(one.get('address'))}</code> {up}"


def _worth_telling(one: Mapping[str, Json]) -> bool:
    """Whether a condition says more than that all is well."""
    return bool(one.get("status")) is not (one.get("type") == "Ready")


def _condition(one: Mapping[str, Json]) -> str:
    told = " ".join(_text(one.get(key)) for key in ("reason", "message"))
    sign = "" if one.get("status") else "not "
    return f'<p><span class="warn">{sign}{_text(one.get("type"))}</span> {told}</p>'


def _running(record: Mapping[str, Json]) -> str:
    commit, phase = _commit(record.get("commit")), _text(record.get("phase"))
    return f"<p>deploying {commit}: <strong>{phase}</strong> {_text(record.get('reason'))}</p>"


def _deploys(records: Sequence[Mapping[str, Json]]) -> str:
    rows = []
    for record in records:
        style = "ok" if record["success"] else "bad" if record["finished_at"] else "warn"
        reason = " ".join(_text(record[key]) for key in ("reason", "detail"))
        log = f"/deploys/{quote(str(record['deploy_id']), safe='')}/log"
        rows.append((
            _text(record["started_at"]),
            _text(record["app"]),
            _commit(record["commit"]),
            f'<span class="{style}">{_text(record["phase"])}</span> {reason}',
            f"{_text(record['actor'])} ({_text(record['trigger'])})",
            _text(record["message"]),
            f'<a href="{escape(log)}">log</a>',
        ))  # fmt: skip
    return _table(("When (UTC)", "App", "Commit", "Outcome", "Who", "Message", ""), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Renders cells that are HTML already."""
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{heads}</tr>{body}</table></div>'


def _mark(value: Json, yes: str, no: str) -> str:
    if value is None:
        return '<span class="dim">unknown</span>'
    return f'<span class="ok">{yes}</span>' if value else f'<span class="bad">{no}</span>'


def _commit(value: Json) -> str:
    return f"<code>{escape(str(value)[:12])}</code>" if value else '<span class="dim">none</span>'


def _text(value: Json) -> str:
    return "" if value is None else escape(str(value))


def _mapping(value: Json) -> Mapping[str, Json]:
    return cast("Mapping[str, Json]", value)


def _mappings(value: Json) -> Sequence[Mapping[str, Json]]:
    return cast("Sequence[Mapping[str, Json]]", value or ())
