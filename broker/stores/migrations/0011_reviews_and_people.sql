-- Living leases that the deploy set in force would not grant any more: one row for each, of the latest review.
CREATE TABLE policy_reviews (
    tenant        TEXT    NOT NULL CHECK (tenant <> ''),
    lease_id      TEXT    NOT NULL CHECK (lease_id <> ''),
    attempt_id    TEXT    NOT NULL,
    outcome       TEXT    NOT NULL CHECK (outcome IN ('DENY', 'NEEDS_APPROVAL', 'UNKNOWN')),
    reason        TEXT    NOT NULL,
    policies      TEXT    NOT NULL,                -- JSON list: those that decide now
    why           TEXT    NOT NULL,
    deploy_digest TEXT    NOT NULL CHECK (deploy_digest <> ''),
    policy_digest TEXT    NOT NULL,
    reviewed_at   INTEGER NOT NULL,
    mac           BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id    TEXT    NOT NULL CHECK (mac_key_id <> ''),
    PRIMARY KEY (tenant, lease_id),
    FOREIGN KEY (tenant, lease_id) REFERENCES leases (tenant, id)
) STRICT;

-- Which request of its giver a vote was: the same again is answered, and changes nothing. NULL in older rows, whose
-- MAC does not cover it.
ALTER TABLE access_votes ADD COLUMN request_id TEXT;

-- The human a task acts for, proven by that person's own ID token: a JSON list (issuer, subject, name as listed then).
-- NULL where it acts for nobody, and in older rows, whose MAC does not cover it.
ALTER TABLE tasks ADD COLUMN on_behalf_of TEXT;
-- SHA-256 of the token: one token proves one task.
ALTER TABLE tasks ADD COLUMN id_token TEXT;
CREATE UNIQUE INDEX tasks_by_id_token ON tasks (tenant, id_token) WHERE id_token IS NOT NULL;
-- For whom open tasks act.
CREATE INDEX tasks_on_behalf_of ON tasks (tenant, on_behalf_of) WHERE on_behalf_of IS NOT NULL AND ends_at IS NOT NULL;
