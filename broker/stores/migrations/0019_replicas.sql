-- readable from: 17
-- Several daemons on one ledger: who of them lives, who does what only one shall do, and whose deploy set is the newest.
-- Nothing is granted on the first two tables: a claim, an intent and every change of a row are safe whoever runs, so
-- they bear no MAC. The third one stops grants, so it does.

CREATE TABLE replicas (
    writer     TEXT    NOT NULL PRIMARY KEY CHECK (writer <> ''),  -- one run of one daemon, as the trail names it
    tenant     TEXT    NOT NULL CHECK (tenant <> ''),
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL,
    digest     TEXT    NOT NULL                                    -- of the deploy set that it has; empty: none yet
) STRICT;

CREATE TABLE sole_jobs (
    tenant TEXT    NOT NULL CHECK (tenant <> ''),
    name   TEXT    NOT NULL CHECK (name <> ''),
    writer TEXT    NOT NULL CHECK (writer <> ''),
    until  INTEGER NOT NULL,                                       -- from then on anybody may take it
    turn   INTEGER NOT NULL CHECK (turn > 0),                      -- how often it has changed hands
    PRIMARY KEY (tenant, name)
) STRICT;

CREATE TABLE deploy_sets (
    tenant     TEXT    NOT NULL CHECK (tenant <> ''),
    digest     TEXT    NOT NULL CHECK (digest <> ''),
    place      INTEGER NOT NULL CHECK (place > 0),                 -- the highest one is in force
    since      INTEGER NOT NULL,
    writer     TEXT    NOT NULL CHECK (writer <> ''),              -- that took it in first
    mac        BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, digest),
    UNIQUE (tenant, place)
) STRICT;
