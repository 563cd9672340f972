-- What agents claim in whole texts (prompt, tool call, plan), encrypted under a key of their task, and what they
-- report when a task is complete. Nobody's grant rests on any of it, and the ciphertexts vouch for themselves (AEAD),
-- so there are no MACs. Erasing a task's texts deletes its key; the digests stay in the audit trail.

CREATE TABLE task_text_keys (
    tenant     TEXT    NOT NULL CHECK (tenant <> ''),
    task_id    TEXT    NOT NULL CHECK (task_id <> ''),
    wrapped    BLOB    NOT NULL CHECK (length(wrapped) = 60),  -- nonce, key, tag
    key_id     TEXT    NOT NULL CHECK (key_id <> ''),          -- of the ledger key that wraps it
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, task_id)
) STRICT;

-- Which are due to be erased.
CREATE INDEX task_text_keys_age ON task_text_keys (created_at);

CREATE TABLE claimed_texts (
    tenant  TEXT    NOT NULL CHECK (tenant <> ''),
    task_id TEXT    NOT NULL CHECK (task_id <> ''),
    about   TEXT    NOT NULL CHECK (about <> ''),              -- the attempt, or the access request
    at      INTEGER NOT NULL,
    sealed  BLOB    NOT NULL CHECK (length(sealed) > 28),      -- nonce, ciphertext, tag
    PRIMARY KEY (tenant, task_id, about)
) STRICT;

-- What a task came to, by its agent's word: one report each.
CREATE TABLE task_reports (
    tenant  TEXT    NOT NULL CHECK (tenant <> ''),
    task_id TEXT    NOT NULL CHECK (task_id <> ''),
    digest  TEXT    NOT NULL CHECK (digest <> ''),
    at      INTEGER NOT NULL,
    PRIMARY KEY (tenant, task_id),
    FOREIGN KEY (tenant, task_id) REFERENCES tasks (tenant, id)
) STRICT;
