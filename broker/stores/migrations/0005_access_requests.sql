-- Access requests that people decide on, their votes, and each holder's stream of what became of them.

CREATE TABLE access_requests (
    tenant          TEXT    NOT NULL CHECK (tenant <> ''),
    id              TEXT    NOT NULL CHECK (id <> ''),
    task_id         TEXT    NOT NULL,
    holder          TEXT    NOT NULL CHECK (holder <> ''),
    principal       TEXT    NOT NULL CHECK (principal <> ''),
    request_id      TEXT    NOT NULL CHECK (request_id <> ''),
    request_digest  TEXT    NOT NULL CHECK (request_digest <> ''),
    digest          TEXT    NOT NULL CHECK (length(digest) = 64),     -- what a yes is bound to
    ask_digest      TEXT    NOT NULL CHECK (length(ask_digest) = 64), -- the same, asked again in other words
    request         TEXT    NOT NULL,              -- JSON: what was asked, prompt, tool call and plan by digest
    template        TEXT    NOT NULL,
    template_digest TEXT    NOT NULL,
    scope           TEXT    NOT NULL,              -- JSON: what it was bound to
    contract_class  TEXT    NOT NULL,
    policies        TEXT    NOT NULL,              -- JSON list
    policy_digest   TEXT    NOT NULL,
    approvals       TEXT    NOT NULL CHECK (approvals <> '[]'), -- JSON list: needed, by name
    interests       TEXT    NOT NULL,              -- JSON list: who may not approve, as known when it was asked
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,              -- nobody can approve from then on
    redeem_within   INTEGER NOT NULL CHECK (redeem_within > 0),
    state           TEXT    NOT NULL CHECK (state IN
                        ('AWAITING_APPROVAL', 'APPROVED', 'DENIED', 'WITHDRAWN', 'LAPSED', 'REDEEMED')),
    approved_at     INTEGER,
    redeem_by       INTEGER,                       -- nobody can redeem from then on
    due_at          INTEGER,                       -- when it lapses
    ended_at        INTEGER,
    ended_by        TEXT    NOT NULL,
    note            TEXT    NOT NULL,
    lease_id        TEXT    NOT NULL,
    redemption_id   TEXT    NOT NULL,
    tool_call       TEXT    NOT NULL,              -- text, until it is over
    plan            TEXT    NOT NULL,              -- text, until it is over; of the last approved one, until the next
    epoch           INTEGER NOT NULL CHECK (epoch >= 1),
    mac             BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id      TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, holder, request_id),
    FOREIGN KEY (tenant, task_id) REFERENCES tasks (tenant, id),
    CHECK (expires_at > created_at),
    -- What is open has a time at which it lapses, and nothing else has one.
    CHECK ((state IN ('AWAITING_APPROVAL', 'APPROVED')) = (due_at IS NOT NULL)),
    CHECK ((state IN ('AWAITING_APPROVAL', 'APPROVED')) = (ended_at IS NULL)),
    CHECK ((approved_at IS NULL) = (redeem_by IS NULL)),
    CHECK (state NOT IN ('APPROVED', 'REDEEMED') OR approved_at IS NOT NULL),
    CHECK (state <> 'AWAITING_APPROVAL' OR approved_at IS NULL),
    CHECK ((state = 'REDEEMED') = (lease_id <> '')),
    CHECK ((state = 'REDEEMED') = (redemption_id <> ''))
) STRICT;

-- One approval funds one lease.
CREATE UNIQUE INDEX access_requests_by_lease ON access_requests (tenant, lease_id) WHERE lease_id <> '';
-- Which open requests lapse next.
CREATE INDEX access_requests_due ON access_requests (due_at) WHERE due_at IS NOT NULL;
-- How many a holder has waiting (its quota).
CREATE INDEX access_requests_waiting ON access_requests (tenant, holder) WHERE state = 'AWAITING_APPROVAL';
-- What ends with a task.
CREATE INDEX access_requests_of_task ON access_requests (tenant, task_id) WHERE due_at IS NOT NULL;
-- What was denied lately.
CREATE INDEX access_requests_denied ON access_requests (tenant, ask_digest, ended_at) WHERE state = 'DENIED';
-- Pages, newest first: of a holder, and of everybody.
CREATE INDEX access_requests_by_holder ON access_requests (tenant, holder, created_at, id);
CREATE INDEX access_requests_by_time ON access_requests (tenant, created_at, id);
-- The plans that people approved, as far as they are kept.
CREATE INDEX access_requests_plans ON access_requests (tenant, principal, template, approved_at)
    WHERE plan <> '' AND approved_at IS NOT NULL;

CREATE TABLE access_votes (
    tenant            TEXT    NOT NULL CHECK (tenant <> ''),
    access_request_id TEXT    NOT NULL,
    issuer            TEXT    NOT NULL CHECK (issuer <> ''),
    subject           TEXT    NOT NULL CHECK (subject <> ''),
    yes               INTEGER NOT NULL CHECK (yes IN (0, 1)),
    rule              TEXT    NOT NULL,            -- the approval it counts for; empty for a no
    digest            TEXT    NOT NULL CHECK (length(digest) = 64), -- what the person saw
    how               TEXT    NOT NULL CHECK (how <> ''),
    note              TEXT    NOT NULL,
    groups            TEXT    NOT NULL,            -- JSON list, as listed then
    at                INTEGER NOT NULL,
    mac               BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id        TEXT    NOT NULL CHECK (mac_key_id <> ''),
    -- One vote per person and request.
    PRIMARY KEY (tenant, access_request_id, issuer, subject),
    FOREIGN KEY (tenant, access_request_id) REFERENCES access_requests (tenant, id),
    CHECK ((yes = 1) = (rule <> ''))
) STRICT;

-- A holder's stream: which audit records are about its requests. What they say stands in the trail.
CREATE TABLE access_events (
    tenant            TEXT    NOT NULL CHECK (tenant <> ''),
    holder            TEXT    NOT NULL CHECK (holder <> ''),
    seq               INTEGER NOT NULL CHECK (seq >= 1),
    access_request_id TEXT    NOT NULL,
    PRIMARY KEY (tenant, holder, seq)
) STRICT, WITHOUT ROWID;
