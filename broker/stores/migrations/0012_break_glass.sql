-- Break-glass: uses with their reviews, words that pass over what stands in the way, sealed codes. The rules of 0001
-- hold here too.

CREATE TABLE break_glass_uses (
    tenant            TEXT    NOT NULL CHECK (tenant <> ''),
    lease_id          TEXT    NOT NULL CHECK (lease_id <> ''),
    task_id           TEXT    NOT NULL,
    template          TEXT    NOT NULL,
    person            TEXT    NOT NULL CHECK (person <> ''),    -- (issuer, subject)
    person_name       TEXT    NOT NULL,                         -- for display
    for_agent         TEXT    NOT NULL,                         -- empty: for the person
    owner             TEXT    NOT NULL,                         -- of that agent
    groups            TEXT    NOT NULL CHECK (groups <> '[]'),  -- JSON list: that pre-authorised it
    reason            TEXT    NOT NULL CHECK (reason <> ''),
    incident          TEXT    NOT NULL CHECK (incident <> ''),
    how               TEXT    NOT NULL CHECK (how = 'login' OR how = 'code'),
    proof             TEXT    NOT NULL,                         -- digest of the signed token
    code_id           TEXT    NOT NULL,
    request_id        TEXT    NOT NULL CHECK (request_id <> ''),
    told              TEXT    NOT NULL,                         -- JSON list: who would have approved
    overrode          TEXT    NOT NULL,                         -- JSON list of "KIND SUBJECT"
    created_at        INTEGER NOT NULL,
    review_due        INTEGER NOT NULL,
    ended_at          INTEGER,                                  -- when its end was told
    void              INTEGER NOT NULL CHECK (void IN (0, 1)),  -- proved that nothing was issued: no review
    overdue_at        INTEGER,                                  -- when it was told that the review is overdue
    reviewer          TEXT,
    reviewer_name     TEXT,
    review_request_id TEXT,
    findings          TEXT,
    review_proof      TEXT,
    reviewed_at       INTEGER,
    mac               BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id        TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, lease_id),
    FOREIGN KEY (tenant, lease_id) REFERENCES leases (tenant, id),
    CHECK (review_due > created_at),
    CHECK ((how = 'code') = (code_id <> '')),
    CHECK ((reviewer IS NULL) = (reviewed_at IS NULL)),
    CHECK ((reviewer IS NULL) = (findings IS NULL)),
    -- Nobody reviews their own.
    CHECK (reviewer IS NULL OR (reviewer <> person AND reviewer <> owner)),
    CHECK (void = 0 OR ended_at IS NOT NULL)
) STRICT;

-- What is owed: usually it is empty.
CREATE INDEX break_glass_unreviewed ON break_glass_uses (tenant, review_due) WHERE reviewed_at IS NULL AND void = 0;
-- Whose end is not told yet.
CREATE INDEX break_glass_unended ON break_glass_uses (tenant) WHERE ended_at IS NULL;
-- The rate of a group, and pages, newest first.
CREATE INDEX break_glass_by_time ON break_glass_uses (tenant, created_at, lease_id);

CREATE TABLE break_glass_overrides (
    tenant         TEXT    NOT NULL CHECK (tenant <> ''),
    id             TEXT    NOT NULL CHECK (id <> ''),
    kind           TEXT    NOT NULL CHECK (kind = 'SUSPENSION' OR kind = 'REVIEW'),
    subject        TEXT    NOT NULL CHECK (subject <> ''),      -- the suspension, or the blocked group
    person         TEXT    NOT NULL CHECK (person <> ''),       -- who may pass over it
    by             TEXT    NOT NULL CHECK (by <> ''),           -- whose word it is
    by_name        TEXT    NOT NULL,
    reason         TEXT    NOT NULL CHECK (reason <> ''),
    proof          TEXT    NOT NULL,
    request_id     TEXT    NOT NULL CHECK (request_id <> ''),
    request_digest TEXT    NOT NULL CHECK (request_digest <> ''),
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    used_by        TEXT,                                        -- the lease that it let through
    mac            BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id     TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, by, request_id),
    CHECK (expires_at > created_at),
    -- Nobody's word is for themselves.
    CHECK (by <> person)
) STRICT;

CREATE INDEX break_glass_overrides_unused ON break_glass_overrides (tenant, person) WHERE used_by IS NULL;

CREATE TABLE break_glass_batches (
    tenant         TEXT    NOT NULL CHECK (tenant <> ''),
    id             TEXT    NOT NULL CHECK (id <> ''),
    person         TEXT    NOT NULL CHECK (person <> ''),       -- whom the codes name
    person_name    TEXT    NOT NULL,
    count          INTEGER NOT NULL CHECK (count >= 1),
    reason         TEXT    NOT NULL CHECK (reason <> ''),
    requested_by   TEXT    NOT NULL CHECK (requested_by <> ''),
    requested_name TEXT    NOT NULL,
    request_id     TEXT    NOT NULL CHECK (request_id <> ''),
    request_proof  TEXT    NOT NULL,
    requested_at   INTEGER NOT NULL,
    confirmed_by   TEXT,
    confirmed_name TEXT,
    confirm_proof  TEXT,
    confirmed_at   INTEGER,
    revoked_at     INTEGER,
    mac            BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id     TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, requested_by, request_id),
    CHECK ((confirmed_by IS NULL) = (confirmed_at IS NULL)),
    -- Two people make them.
    CHECK (confirmed_by IS NULL OR confirmed_by <> requested_by)
) STRICT;

CREATE TABLE break_glass_codes (
    tenant      TEXT    NOT NULL CHECK (tenant <> ''),
    id          TEXT    NOT NULL CHECK (id <> ''),
    batch       TEXT    NOT NULL CHECK (batch <> ''),
    person      TEXT    NOT NULL CHECK (person <> ''),
    person_name TEXT    NOT NULL,
    salt        TEXT    NOT NULL CHECK (length(salt) = 32),     -- hex
    hash        TEXT    NOT NULL CHECK (length(hash) = 64),     -- scrypt, hex
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    failures    INTEGER NOT NULL CHECK (failures >= 0),
    used_by     TEXT,                                           -- the lease that it got
    used_at     INTEGER,
    revoked_by  TEXT,
    revoked_at  INTEGER,
    mac         BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id  TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, batch) REFERENCES break_glass_batches (tenant, id),
    CHECK (expires_at > created_at),
    CHECK ((used_by IS NULL) = (used_at IS NULL)),
    CHECK ((revoked_by IS NULL) = (revoked_at IS NULL))
) STRICT;

-- A code gets one lease, and a lease takes one code.
CREATE UNIQUE INDEX break_glass_codes_by_lease ON break_glass_codes (tenant, used_by) WHERE used_by IS NOT NULL;
