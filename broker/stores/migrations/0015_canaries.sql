-- What canaries measured: how long credentials that the broker issued to itself worked after their end. Nothing of a
-- credential is here, and no grant rests on these rows; they have MACs because people believe a bound that they show.
-- Of each connector only the newest are kept. They do not refer to leases, which may be deleted before them.

CREATE TABLE canary_measurements (
    tenant       TEXT    NOT NULL CHECK (tenant <> ''),
    id           TEXT    NOT NULL CHECK (id <> ''),
    connector    TEXT    NOT NULL CHECK (connector <> ''),
    kind         TEXT    NOT NULL CHECK (kind IN ('ON_REVOKE', 'ON_EXPIRY')),
    asked_by     TEXT    NOT NULL CHECK (asked_by <> ''),
    outcome      TEXT    NOT NULL CHECK (outcome IN ('WITHIN', 'ALIVE', 'LATE', 'UNMEASURED')),
    began_at     INTEGER NOT NULL,
    told_at      INTEGER NOT NULL,
    bound_ms     INTEGER NOT NULL,
    lease_id     TEXT    NOT NULL,
    since        INTEGER,
    measured_ms  INTEGER,                        -- may be negative: it died before its deadline
    at_least_ms  INTEGER,
    confirmed_at INTEGER,
    looks        INTEGER NOT NULL CHECK (looks >= 0),
    why          TEXT    NOT NULL,
    mac          BLOB    NOT NULL,
    mac_key_id   TEXT    NOT NULL,
    PRIMARY KEY (tenant, id),
    CHECK (outcome = 'UNMEASURED' OR (since IS NOT NULL AND lease_id <> '')),
    CHECK ((outcome IN ('WITHIN', 'LATE')) <= (measured_ms IS NOT NULL))
) STRICT;

-- The newest of one connector.
CREATE INDEX canary_measurements_newest ON canary_measurements (tenant, connector, began_at);
