"""The first schema: what is asked, what became of it, and what each app has taken notice of."""

from __future__ import annotations

from sqlite_utils import Database

# Deploys, progress, verdicts, promotions and events only ever grow; triggers below see to it.
# `open_deploys` is a projection of progress: without it a pass would read an app's whole history
# to find the one or two deploys that are still under way.
SCHEMA = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE wishes (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    host_id TEXT NOT NULL,
    app TEXT NOT NULL,
    kind TEXT NOT NULL,
    revision TEXT NOT NULL,
    contract_digest TEXT NOT NULL,
    secrets_digest TEXT NOT NULL,
    contract TEXT NOT NULL,
    status TEXT NOT NULL,
    triggered_by TEXT NOT NULL,
    actor TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    retry_at TEXT
) STRICT;
CREATE INDEX wishes_of_app ON wishes (host_id, app, seq);
CREATE INDEX wishes_open ON wishes (host_id, app) WHERE status = 'open';

CREATE TABLE deploys (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    wish_id TEXT NOT NULL REFERENCES wishes (id),
    host_id TEXT NOT NULL,
    app TEXT NOT NULL,
    kind TEXT NOT NULL,
    revision TEXT NOT NULL,
    contract_digest TEXT NOT NULL,
    secrets_digest TEXT NOT NULL,
    contract TEXT NOT NULL,
    actor TEXT NOT NULL,
    triggered_by TEXT NOT NULL,
    requested_at TEXT NOT NULL,
    branch TEXT,
    message TEXT NOT NULL,
    force INTEGER NOT NULL,
    reason TEXT NOT NULL,
    skip_probes TEXT NOT NULL,
    retry_of TEXT,
    attempt INTEGER NOT NULL,
    rolls_back_to TEXT,
    previous_commit TEXT
) STRICT;
CREATE INDEX deploys_of_app ON deploys (host_id, app, seq);
CREATE INDEX deploys_of_wish ON deploys (wish_id, seq);
CREATE INDEX deploys_of_host ON deploys (host_id, seq);

CREATE TABLE open_deploys (
    deploy_id TEXT PRIMARY KEY REFERENCES deploys (id),
    seq INTEGER NOT NULL,
    host_id TEXT NOT NULL,
    app TEXT NOT NULL,
    wish_id TEXT NOT NULL REFERENCES wishes (id),
    phase TEXT NOT NULL
) STRICT;
CREATE INDEX open_deploys_of_app ON open_deploys (host_id, app, seq);
CREATE INDEX open_deploys_of_wish ON open_deploys (wish_id);

CREATE TABLE progress (
    seq INTEGER PRIMARY KEY,
    host_id TEXT NOT NULL,
    deploy_id TEXT NOT NULL REFERENCES deploys (id),
    phase TEXT NOT NULL,
    at TEXT NOT NULL,
    instant TEXT NOT NULL,
    slot TEXT,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    log_tail TEXT NOT NULL
) STRICT;
CREATE INDEX progress_of_deploy ON progress (deploy_id, seq);

CREATE TABLE verdicts (
    seq INTEGER PRIMARY KEY,
    host_id TEXT NOT NULL,
    deploy_id TEXT NOT NULL REFERENCES deploys (id),
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    result TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    at TEXT NOT NULL
) STRICT;
CREATE INDEX verdicts_of_deploy ON verdicts (deploy_id, seq);

CREATE TABLE promotions (
    seq INTEGER PRIMARY KEY,
    host_id TEXT NOT NULL,
    app TEXT NOT NULL,
    deploy_id TEXT NOT NULL UNIQUE REFERENCES deploys (id),
    slot TEXT NOT NULL,
    at TEXT NOT NULL,
    instant TEXT NOT NULL
) STRICT;
CREATE INDEX promotions_of_app ON promotions (host_id, app, seq);

CREATE TABLE quarantine (
    seq INTEGER PRIMARY KEY,
    host_id TEXT NOT NULL,
    app TEXT NOT NULL,
    revision TEXT NOT NULL,
    contract_digest TEXT NOT NULL,
    secrets_digest TEXT NOT NULL,
    reason TEXT NOT NULL,
    by TEXT NOT NULL,
    since TEXT NOT NULL,
    UNIQUE (host_id, app, revision, contract_digest, secrets_digest)
) STRICT;
CREATE INDEX quarantine_of_app ON quarantine (host_id, app, seq);

CREATE TABLE seen_heads (
    host_id TEXT NOT NULL,
    app TEXT NOT NULL,
    branch TEXT NOT NULL,
    revision TEXT NOT NULL,
    PRIMARY KEY (host_id, app)
) STRICT;

CREATE TABLE seen_inputs (
    host_id TEXT NOT NULL,
    app TEXT NOT NULL,
    contract_digest TEXT NOT NULL,
    secrets_digest TEXT NOT NULL,
    PRIMARY KEY (host_id, app)
) STRICT;

CREATE TABLE absences (
    host_id TEXT NOT NULL,
    app TEXT NOT NULL,
    passes INTEGER NOT NULL,
    PRIMARY KEY (host_id, app)
) STRICT;

CREATE TABLE conditions (
    host_id TEXT NOT NULL,
    app TEXT NOT NULL,
    type TEXT NOT NULL,
    status INTEGER NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    since TEXT NOT NULL,
    PRIMARY KEY (host_id, app, type)
) STRICT;

CREATE TABLE idempotency_keys (
    host_id TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    deploy_id TEXT NOT NULL REFERENCES deploys (id),
    at TEXT NOT NULL,
    PRIMARY KEY (host_id, key)
) STRICT;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (at);

CREATE TABLE good_manifests (
    host_id TEXT NOT NULL,
    source TEXT NOT NULL,
    revision TEXT NOT NULL,
    PRIMARY KEY (host_id, source)
) STRICT;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    host_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    occurred_at TEXT NOT NULL,
    received_at TEXT NOT NULL,
    payload TEXT NOT NULL
) STRICT;
"""

APPEND_ONLY = ("deploys", "progress", "verdicts", "promotions", "events")


def first(db: Database) -> None:
    db.executescript(SCHEMA)
    for table in APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            db.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
