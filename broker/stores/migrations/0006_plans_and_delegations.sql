-- Plans, delegations, and what a lease was granted by. The rules of 0001 hold here too.

CREATE TABLE plans (
    tenant              TEXT    NOT NULL CHECK (tenant <> ''),
    id                  TEXT    NOT NULL CHECK (id <> ''),
    task_id             TEXT    NOT NULL,
    planner             TEXT    NOT NULL CHECK (planner <> ''),
    planner_principal   TEXT    NOT NULL CHECK (planner_principal <> ''),
    request_id          TEXT    NOT NULL CHECK (request_id <> ''),
    request_digest      TEXT    NOT NULL CHECK (request_digest <> ''),
    text                TEXT    NOT NULL,
    actions             TEXT    NOT NULL,          -- JSON list, in the order of the plan
    digest              TEXT    NOT NULL CHECK (length(digest) = 64),
    created_at          INTEGER NOT NULL,
    deadline            INTEGER NOT NULL,
    state               TEXT    NOT NULL CHECK (state IN ('REGISTERED', 'CONFIRMED', 'REJECTED')),
    validator           TEXT,
    validator_principal TEXT,
    reason              TEXT    NOT NULL,          -- the validator's
    decided_at          INTEGER,
    mac                 BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id          TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, planner, request_id),
    FOREIGN KEY (tenant, task_id) REFERENCES tasks (tenant, id),
    CHECK (deadline > created_at),
    CHECK ((state = 'REGISTERED') = (decided_at IS NULL)),
    CHECK ((state = 'REGISTERED') = (validator IS NULL)),
    -- The three of a pipeline are three entries of the registry: two of them are in this row.
    CHECK (validator IS NULL OR (validator <> planner AND validator_principal <> planner_principal))
) STRICT;

CREATE INDEX plans_by_task ON plans (tenant, task_id);

CREATE TABLE delegations (
    tenant         TEXT    NOT NULL CHECK (tenant <> ''),
    id             TEXT    NOT NULL CHECK (id <> ''),
    task_id        TEXT    NOT NULL,
    lease_id       TEXT    NOT NULL,               -- what it is a part of
    delegator      TEXT    NOT NULL CHECK (delegator <> ''),
    request_id     TEXT    NOT NULL CHECK (request_id <> ''),
    request_digest TEXT    NOT NULL CHECK (request_digest <> ''),
    chain          TEXT    NOT NULL,               -- JSON list of [SPIFFE ID, registry entry], the delegator last
    delegate       TEXT    NOT NULL CHECK (delegate <> ''),
    delegate_principal TEXT NOT NULL CHECK (delegate_principal <> ''),
    resource       TEXT    NOT NULL,
    parameters     TEXT    NOT NULL,               -- JSON object
    further        INTEGER NOT NULL CHECK (further >= 0),
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    revoked_at     INTEGER,
    mac            BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id     TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, delegator, request_id),
    FOREIGN KEY (tenant, task_id) REFERENCES tasks (tenant, id),
    FOREIGN KEY (tenant, lease_id) REFERENCES leases (tenant, id),
    CHECK (delegate <> delegator),
    CHECK (expires_at > created_at)
) STRICT;

CREATE INDEX delegations_by_task ON delegations (tenant, task_id);
CREATE INDEX delegations_by_lease ON delegations (tenant, lease_id);

-- What a lease was granted by besides its own request. A table of its own, because most leases have no such row, and a
-- row of leases that was sealed before there were plans stays as it is.
CREATE TABLE lease_origins (
    tenant          TEXT    NOT NULL CHECK (tenant <> ''),
    lease_id        TEXT    NOT NULL CHECK (lease_id <> ''),
    plan_id         TEXT    NOT NULL,              -- cited, or that of the lease it is a part of
    step            TEXT    NOT NULL,
    delegation_id   TEXT    NOT NULL,
    parent_lease_id TEXT    NOT NULL,
    chain           TEXT    NOT NULL,              -- as in delegations
    further         INTEGER NOT NULL CHECK (further >= 0),
    mac             BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id      TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, lease_id),
    FOREIGN KEY (tenant, lease_id) REFERENCES leases (tenant, id),
    CHECK (plan_id <> '' OR delegation_id <> ''),
    CHECK ((delegation_id = '') = (parent_lease_id = '')),
    CHECK (parent_lease_id <> lease_id)
) STRICT;

-- What hangs under a lease ends with it.
CREATE INDEX lease_origins_by_parent ON lease_origins (tenant, parent_lease_id) WHERE parent_lease_id <> '';
-- A step, and a delegation, is used once.
CREATE INDEX lease_origins_by_step ON lease_origins (tenant, plan_id, step) WHERE delegation_id = '';
CREATE INDEX lease_origins_by_delegation ON lease_origins (tenant, delegation_id) WHERE delegation_id <> '';
