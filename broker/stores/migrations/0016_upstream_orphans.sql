-- Whose credentials are whose upstream, and what is there that the ledger does not know.

-- What the ids of a tenant's attempts say of this ledger (broker/lease/mark.py). Chosen once; a restored backup has it.
CREATE TABLE marks (
    tenant     TEXT    NOT NULL PRIMARY KEY CHECK (tenant <> ''),
    mark       TEXT    NOT NULL CHECK (length(mark) = 8),
    made_at    INTEGER NOT NULL,
    mac        BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id TEXT    NOT NULL CHECK (mac_key_id <> '')
) STRICT;

-- One thing that an upstream's inventory listed as ours and that the ledger does not hold alive: never a lease, only
-- something to end. Like an attempt it has a due time for exactly as long as it may be alive.
CREATE TABLE upstream_orphans (
    tenant     TEXT    NOT NULL CHECK (tenant <> ''),
    id         TEXT    NOT NULL CHECK (id <> ''),
    connector  TEXT    NOT NULL CHECK (connector <> ''),
    name       TEXT    NOT NULL CHECK (name <> ''),    -- the upstream's own
    attempt_id TEXT    NOT NULL,                       -- as the upstream tells it; empty: it does not
    handle     TEXT    NOT NULL,                       -- JSON object: what ending it will need
    why        TEXT    NOT NULL CHECK (why = 'UNKNOWN' OR why = 'ENDED'),
    created_at INTEGER NOT NULL,                       -- upstream, or when it was seen first
    expires_at INTEGER NOT NULL,                       -- the latest that the connector's contract allows
    found_at   INTEGER NOT NULL,
    due_at     INTEGER,                                -- when the revoker must look at it (again)
    ended_at   INTEGER,
    outcome    TEXT    CHECK (outcome = 'REVOKED' OR outcome = 'EXPIRED'),
    epoch      INTEGER NOT NULL CHECK (epoch >= 1),
    failures   INTEGER NOT NULL CHECK (failures >= 0),
    last_error TEXT    NOT NULL,
    stuck      INTEGER NOT NULL CHECK (stuck IN (0, 1)),
    mac        BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, id),
    CHECK (expires_at > created_at),
    CHECK ((due_at IS NULL) = (ended_at IS NOT NULL)),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
) STRICT;

-- One upstream thing is one row for as long as it may be alive.
CREATE UNIQUE INDEX orphans_living ON upstream_orphans (connector, name) WHERE due_at IS NOT NULL;
-- The queue.
CREATE INDEX orphans_due ON upstream_orphans (connector, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX orphans_by_age ON upstream_orphans (tenant, found_at, id);
