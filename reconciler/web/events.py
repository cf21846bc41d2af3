"""Events over HTTP: a page of them, or a stream that goes on where the client left off."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.responses import JSONResponse, Response, StreamingResponse

from reconciler.model.canonical import Json, canonical
from reconciler.model.events import Event
from reconciler.planning.status import timestamp
from reconciler.web.call import Call, unless_closing
from reconciler.web.fields import Fields, read_query

STREAM = "text/event-stream"
HEARTBEAT_S = 15.0
PAGE = 100
MAX_PAGE = 1000
MAX_SEQ = 1 << 53


async def get_events(call: Call) -> Response:
    query = read_query(call.request)
    after = query.number("after", minimum=0, maximum=MAX_SEQ)
    limit = query.number("limit", minimum=1, maximum=MAX_PAGE) or PAGE
    query.done()
    headers = Fields(dict(call.request.headers))
    seen = headers.number("last-event-id", minimum=0, maximum=MAX_SEQ)
    start = after if seen is None else seen
    if _wants_stream(call):
        if start is None:
            start = await call.commands.last_event()
        return StreamingResponse(_stream(call, start), media_type=STREAM)
    if start is None:
        start = max(0, await call.commands.last_event() - limit)
    found = await call.commands.events(start, limit)
    following = found[-1].seq if found else start
    return JSONResponse({"items": [event_record(event) for event in found], "next": following})


def event_record(event: Event) -> dict[str, Json]:
    return {
        "seq": event.seq,
        "event_id": event.event_id,
        "host_id": event.host_id,
        "kind": event.kind,
        "schema_version": event.schema_version,
        "occurred_at": timestamp(event.occurred_at),
        "received_at": timestamp(event.received_at),
        "payload": event.payload,
    }


def _wants_stream(call: Call) -> bool:
    accepted = call.request.headers.get("accept", "")
    return call.request.method == "GET" and STREAM in accepted.lower()


async def _stream(call: Call, after: int) -> AsyncIterator[str]:
    """Yields events as they come, a comment when none does, and ends when the server stops."""
    yield "retry: 1000\n\n"
    waited = False
    while not call.closing.is_set():
        found = await call.commands.events(after, PAGE)
        for event in found:
            after = event.seq
            yield f"id: {event.seq}\ndata: {canonical(event_record(event))}\n\n"
        if not found:
            if waited:
                yield ": nothing new\n\n"
            await unless_closing(call, call.commands.next_event(after, HEARTBEAT_S))
        waited = not found
