-- The kill switch: what operators have stopped.

CREATE TABLE suspensions (
    tenant             TEXT    NOT NULL CHECK (tenant <> ''),
    id                 TEXT    NOT NULL CHECK (id <> ''),
    kind               TEXT    NOT NULL CHECK (kind IN (
        'AGENT', 'ENTRY', 'OWNER', 'TASK', 'TEMPLATE', 'CONNECTOR', 'ACCOUNT', 'TRUST_DOMAIN', 'EVERYTHING'
    )),
    value              TEXT    NOT NULL,
    reason             TEXT    NOT NULL CHECK (reason <> ''),
    author             TEXT    NOT NULL CHECK (author <> ''),   -- (issuer, subject)
    author_name        TEXT    NOT NULL,                        -- for display
    request_id         TEXT    NOT NULL CHECK (request_id <> ''),
    request_digest     TEXT    NOT NULL CHECK (request_digest <> ''),
    created_at         INTEGER NOT NULL,
    until              INTEGER,                                 -- NULL: until it is lifted
    first_by           TEXT,                                    -- where two people are needed: the first
    first_name         TEXT,
    first_reason       TEXT,
    first_request_id   TEXT,
    first_at           INTEGER,
    lifted_by          TEXT,                                    -- (issuer, subject), or 'broker' when time ended it
    lifted_name        TEXT,
    lifted_reason      TEXT,
    lifted_request_id  TEXT,
    lifted_at          INTEGER,
    mac                BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id         TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, author, request_id),
    CHECK ((kind = 'EVERYTHING') = (value = '')),
    CHECK (until IS NULL OR until > created_at),
    CHECK ((first_by IS NULL) = (first_at IS NULL)),
    CHECK ((lifted_by IS NULL) = (lifted_at IS NULL)),
    CHECK (first_by IS NULL OR first_by <> lifted_by)
) STRICT;

-- What every intent asks: is anything suspended? Usually it is empty.
CREATE INDEX suspensions_unlifted ON suspensions (tenant) WHERE lifted_at IS NULL;
