-- The accounts of upstreams' pools: ready to be lent, lent to one attempt, or resting. The account is the key, across
-- tenants and connectors: upstream there is only one of it. A row refers to no attempt's row, because an account rests
-- for longer than that one may be kept. What it says is under a MAC, because a grant rests on it.

CREATE TABLE account_allocations (
    account    TEXT    NOT NULL PRIMARY KEY CHECK (account <> ''),
    tenant     TEXT    NOT NULL CHECK (tenant <> ''),
    connector  TEXT    NOT NULL CHECK (connector <> ''),
    state      TEXT    NOT NULL CHECK (state = 'READY' OR state = 'LENT' OR state = 'RESTING'),
    attempt_id TEXT    CHECK (attempt_id <> ''),   -- that has it, or had it last, if the broker knows
    since      INTEGER NOT NULL,                   -- when it got into this state
    ends_at    INTEGER,                            -- while lent: the native end of what is made with it, at the latest
    free_at    INTEGER,                            -- while it rests: until when
    mac        BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id TEXT    NOT NULL CHECK (mac_key_id <> ''),
    CHECK ((state = 'LENT') = (ends_at IS NOT NULL)),
    CHECK ((state = 'RESTING') = (free_at IS NOT NULL)),
    CHECK (state <> 'LENT' OR attempt_id IS NOT NULL),
    CHECK (state <> 'READY' OR attempt_id IS NULL)
) STRICT;

-- An attempt is lent one account at most.
CREATE UNIQUE INDEX allocations_lent ON account_allocations (tenant, attempt_id) WHERE state = 'LENT';
CREATE INDEX allocations_by_connector ON account_allocations (tenant, connector);
