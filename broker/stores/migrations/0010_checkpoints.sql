-- Signed checkpoints of the audit trail: the outbox to the witnesses. Each row repeats what one audit record says;
-- its signature is its proof, so it needs no MAC.
CREATE TABLE audit_checkpoints (
    seq    INTEGER PRIMARY KEY CHECK (seq >= 1),  -- of the record that carries it
    count  INTEGER NOT NULL CHECK (count >= 1),   -- how many records it is about
    at_ms  INTEGER NOT NULL,                      -- the time in it
    digest BLOB    NOT NULL CHECK (length(digest) = 32),
    note   TEXT    NOT NULL CHECK (note <> '')
) STRICT;

-- Up to which of them (seq) each witness has been sent.
CREATE TABLE witness_positions (
    tenant  TEXT    NOT NULL CHECK (tenant <> ''),
    witness TEXT    NOT NULL CHECK (witness <> ''),
    upto    INTEGER NOT NULL CHECK (upto >= 0),
    PRIMARY KEY (tenant, witness)
) STRICT;

-- The ledger was found behind a witness: no grants until two people have released it. One row each time.
CREATE TABLE recoveries (
    tenant           TEXT    NOT NULL CHECK (tenant <> ''),
    id               TEXT    NOT NULL CHECK (id <> ''),
    entered_at       INTEGER NOT NULL,
    witness          TEXT    NOT NULL CHECK (witness <> ''),
    why              TEXT    NOT NULL,
    evidence         TEXT    NOT NULL,             -- the witness's note
    evidence_at      INTEGER NOT NULL,             -- the time in it (ms)
    evidence_count   INTEGER NOT NULL,
    ledger_count     INTEGER NOT NULL,
    first_by         TEXT,
    first_name       TEXT,
    first_reason     TEXT,
    first_request_id TEXT,
    first_at         INTEGER,
    released_by      TEXT,
    released_name    TEXT,
    released_reason  TEXT,
    released_request_id TEXT,
    released_at      INTEGER,
    mac              BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id       TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, id),
    CHECK (released_at IS NULL OR first_at IS NOT NULL),
    CHECK (released_by IS NULL OR released_by <> first_by)
) STRICT;

CREATE UNIQUE INDEX recoveries_open ON recoveries (tenant) WHERE released_at IS NULL;
