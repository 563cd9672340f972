-- The ledger: tasks, leases, attempts, the audit chain.
--
-- Rules that hold in every table: tenant first in every key; times are INTEGER milliseconds since the
-- epoch, UTC; no life without a finite end; a MAC (keyed BLAKE2b, 32 bytes) and the id of its key beside every row
-- that a grant may rest on. Ids are random texts; JSON columns hold canonical JSON. States in CHECKs are compared one
-- by one: for IN with three values or more SQLite builds a temporary index, anew for every row that is written.
-- The audit chain belongs to the broker that writes it and not to a tenant, so its key is its sequence.

CREATE TABLE tasks (
    tenant         TEXT    NOT NULL CHECK (tenant <> ''),
    id             TEXT    NOT NULL CHECK (id <> ''),
    creator        TEXT    NOT NULL CHECK (creator <> ''),
    request_id     TEXT    NOT NULL CHECK (request_id <> ''),
    request_digest TEXT    NOT NULL CHECK (request_digest <> ''),
    participants   TEXT    NOT NULL,               -- JSON list of SPIFFE IDs, sorted, the creator included
    purpose        TEXT    NOT NULL,
    ticket         TEXT    NOT NULL,
    sponsor        TEXT    NOT NULL,
    created_at     INTEGER NOT NULL,
    deadline       INTEGER NOT NULL,
    hold_grace     INTEGER NOT NULL CHECK (hold_grace >= 0),
    hold_until     INTEGER,                        -- while held: the task ends when this passes
    state          TEXT    NOT NULL CHECK (state = 'OPEN' OR state = 'COMPLETED' OR state = 'ENDED'),
    cause          TEXT,
    ended_at       INTEGER,
    ends_at        INTEGER,                        -- the earlier of deadline and hold_until; NULL once closed
    mac            BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id     TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, creator, request_id),
    CHECK (deadline > created_at),
    CHECK ((state = 'OPEN') = (ends_at IS NOT NULL)),
    CHECK ((state = 'OPEN') = (ended_at IS NULL)),
    CHECK ((state = 'OPEN') = (cause IS NULL))
) STRICT;

-- Which open tasks must end next.
CREATE INDEX tasks_ending ON tasks (ends_at) WHERE ends_at IS NOT NULL;
-- How many tasks a creator has open (its quota).
CREATE INDEX tasks_open ON tasks (tenant, creator) WHERE ends_at IS NOT NULL;

CREATE TABLE leases (
    tenant          TEXT    NOT NULL CHECK (tenant <> ''),
    id              TEXT    NOT NULL CHECK (id <> ''),
    task_id         TEXT    NOT NULL,
    holder          TEXT    NOT NULL CHECK (holder <> ''),
    request_id      TEXT    NOT NULL CHECK (request_id <> ''),
    request_digest  TEXT    NOT NULL CHECK (request_digest <> ''),
    template        TEXT    NOT NULL,
    template_digest TEXT    NOT NULL,
    connector       TEXT    NOT NULL,
    account         TEXT    NOT NULL,
    environment     TEXT    NOT NULL,
    resource        TEXT    NOT NULL,
    access          TEXT    NOT NULL,
    actions         TEXT    NOT NULL,              -- JSON list
    parameters      TEXT    NOT NULL,              -- JSON object
    step            TEXT    NOT NULL,
    contract_class  TEXT    NOT NULL,
    policies        TEXT    NOT NULL,              -- JSON list
    policy_digest   TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    state           TEXT    NOT NULL CHECK (state = 'ISSUING' OR state = 'ACTIVE' OR state = 'REVOKING'
                                                  OR state = 'REVOKED' OR state = 'EXPIRED' OR state = 'VOID'),
    cause           TEXT,
    expires_at      INTEGER NOT NULL,
    confirm_by      INTEGER,
    confirmed_at    INTEGER,
    ended_at        INTEGER,
    attempt_id      TEXT    NOT NULL,              -- the latest attempt
    attempts        INTEGER NOT NULL CHECK (attempts >= 1),
    failures        INTEGER NOT NULL CHECK (failures >= 0),
    next_due        INTEGER,                       -- the earliest due time of its living attempts
    svid_serial     TEXT    NOT NULL,              -- of the certificate that asked for the latest attempt, hex
    mac             BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id      TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, task_id) REFERENCES tasks (tenant, id),
    CHECK (expires_at > created_at),
    CHECK ((state = 'REVOKED' OR state = 'EXPIRED' OR state = 'VOID') = (ended_at IS NOT NULL)),
    CHECK ((state = 'REVOKED' OR state = 'EXPIRED' OR state = 'VOID') = (next_due IS NULL)),
    CHECK ((state IN ('ISSUING', 'ACTIVE')) = (cause IS NULL)),
    CHECK (confirm_by IS NULL OR state = 'ACTIVE')
) STRICT;

-- A holder's leases, newest first.
CREATE INDEX leases_by_holder ON leases (tenant, holder, created_at);
CREATE INDEX leases_by_task ON leases (tenant, task_id);
-- All leases of a request id: a retry after an undelivered end opens a further one.
CREATE INDEX leases_by_request ON leases (tenant, holder, request_id);
-- A request id names at most one living lease: a retry adds an attempt to it. Also counts what a holder has
-- alive (its quota), and finds the holders of living leases.
CREATE UNIQUE INDEX leases_living ON leases (tenant, holder, request_id) WHERE ended_at IS NULL;

CREATE TABLE attempts (
    tenant         TEXT    NOT NULL CHECK (tenant <> ''),
    id             TEXT    NOT NULL CHECK (id <> ''),
    lease_id       TEXT    NOT NULL,
    number         INTEGER NOT NULL CHECK (number >= 1),
    connector      TEXT    NOT NULL CHECK (connector <> ''),
    created_at     INTEGER NOT NULL,
    issue_deadline INTEGER NOT NULL,
    handle         TEXT    NOT NULL,               -- JSON object: what ending it will need, nothing that opens a door
    upstream       TEXT,                           -- the upstream's own name of what was made
    state          TEXT    NOT NULL CHECK (state = 'ISSUING' OR state = 'ACTIVE' OR state = 'REVOKING'
                                                  OR state = 'REVOKED' OR state = 'EXPIRED' OR state = 'VOID'),
    cause          TEXT,
    activated_at   INTEGER,
    expires_at     INTEGER NOT NULL,
    due_at         INTEGER,                        -- when the revoker must look at it (again)
    owed_since     INTEGER,                        -- REVOKING: since when its end has been owed
    epoch          INTEGER NOT NULL CHECK (epoch >= 1),
    failures       INTEGER NOT NULL CHECK (failures >= 0),
    last_error     TEXT    NOT NULL,
    stuck          INTEGER NOT NULL CHECK (stuck IN (0, 1)),
    mac            BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id     TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, lease_id, number),
    FOREIGN KEY (tenant, lease_id) REFERENCES leases (tenant, id),
    CHECK (expires_at > created_at),
    CHECK (issue_deadline > created_at),
    -- The central property: what may be alive has a due time, and nothing else has one.
    CHECK ((state = 'REVOKED' OR state = 'EXPIRED' OR state = 'VOID') = (due_at IS NULL)),
    CHECK ((state = 'REVOKING') = (owed_since IS NOT NULL)),
    CHECK ((state IN ('ISSUING', 'ACTIVE')) = (cause IS NULL)),
    CHECK (state <> 'ACTIVE' OR activated_at IS NOT NULL)
) STRICT;

-- Never two live credentials of one lease.
CREATE UNIQUE INDEX attempts_one_active ON attempts (tenant, lease_id) WHERE state = 'ACTIVE';
-- The due index is the queue of the revoker.
CREATE INDEX attempts_due ON attempts (connector, due_at, owed_since) WHERE due_at IS NOT NULL;
-- Alarms.
CREATE INDEX attempts_stuck ON attempts (stuck) WHERE stuck = 1 AND due_at IS NOT NULL;
-- A sweep asks which of the upstream's names are ours and known.
CREATE INDEX attempts_by_upstream ON attempts (connector, upstream) WHERE upstream IS NOT NULL;

CREATE TABLE audit (
    seq        INTEGER PRIMARY KEY CHECK (seq >= 1),
    tenant     TEXT    NOT NULL,                   -- tenant, holder and lease_id repeat the body, to search by
    holder     TEXT    NOT NULL,
    lease_id   TEXT    NOT NULL,
    body       BLOB    NOT NULL,                   -- the canonical bytes of the record
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    mac        BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id TEXT    NOT NULL CHECK (mac_key_id <> '')
) STRICT;

-- A holder's stream of lease events.
CREATE INDEX audit_by_holder ON audit (tenant, holder, seq) WHERE lease_id <> '';

-- Where the chain ends: one row, so that a cut tail is seen.
CREATE TABLE audit_head (
    "only"     INTEGER PRIMARY KEY CHECK ("only" = 1),
    seq        INTEGER NOT NULL CHECK (seq >= 0),
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    mac        BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id TEXT    NOT NULL CHECK (mac_key_id <> '')
) STRICT;

-- The outbox's mark: what the sink has durably taken.
CREATE TABLE audit_export (
    "only" INTEGER PRIMARY KEY CHECK ("only" = 1),
    upto INTEGER NOT NULL CHECK (upto >= 0)
) STRICT;
INSERT INTO audit_export ("only", upto) VALUES (1, 0);
