-- fragment canary_columns --
c.tenant, c.id, c.connector, c.kind, c.asked_by, c.outcome, c.began_at, c.told_at, c.bound_ms, c.lease_id, c.since,
c.measured_ms, c.at_least_ms, c.confirmed_at, c.looks, c.why, c.mac, c.mac_key_id

-- put_canary_measurement --
-- The same run again: what became of it later.
INSERT INTO canary_measurements (
    tenant, id, connector, kind, asked_by, outcome, began_at, told_at, bound_ms, lease_id, since, measured_ms,
    at_least_ms, confirmed_at, looks, why, mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, id) DO UPDATE
SET connector = excluded.connector, kind = excluded.kind, asked_by = excluded.asked_by, outcome = excluded.outcome,
    began_at = excluded.began_at, told_at = excluded.told_at, bound_ms = excluded.bound_ms,
    lease_id = excluded.lease_id, since = excluded.since, measured_ms = excluded.measured_ms,
    at_least_ms = excluded.at_least_ms, confirmed_at = excluded.confirmed_at, looks = excluded.looks,
    why = excluded.why, mac = excluded.mac, mac_key_id = excluded.mac_key_id;

-- forget_canary_measurements --
-- All but the newest, of one connector, and of each kind the last that measured something: an alarm rests on it.
DELETE FROM canary_measurements
WHERE tenant = :tenant AND connector = :connector AND id NOT IN (
    SELECT id FROM canary_measurements
    WHERE tenant = :tenant AND connector = :connector
    ORDER BY began_at DESC, id DESC LIMIT :kept
) AND (outcome = 'UNMEASURED' OR EXISTS (
    SELECT 1 FROM canary_measurements AS later
    WHERE later.tenant = :tenant AND later.connector = :connector AND later.kind = canary_measurements.kind
        AND later.outcome <> 'UNMEASURED' AND later.began_at > canary_measurements.began_at
));

-- canary_measurements --
-- Of one connector, the newest first.
SELECT {canary_columns} FROM canary_measurements AS c
WHERE c.tenant = ? AND c.connector = ?
ORDER BY c.began_at DESC, c.id DESC LIMIT ?;

-- every_canary_measurement --
SELECT {canary_columns} FROM canary_measurements AS c;
