-- insert_checkpoint --
INSERT INTO audit_checkpoints (seq, count, at_ms, digest, note) VALUES (:seq, :count, :at_ms, :digest, :note);

-- last_checkpoint --
SELECT seq, count, at_ms, digest FROM audit_checkpoints ORDER BY seq DESC LIMIT 1;

-- checkpoints_since --
SELECT seq, count, at_ms, note FROM audit_checkpoints WHERE seq > :after ORDER BY seq LIMIT :limit;

-- audit_hash --
SELECT hash FROM audit WHERE seq = :seq;

-- witness_position --
SELECT upto FROM witness_positions WHERE tenant = :tenant AND witness = :witness;

-- witnessed --
-- Only ever forward.
INSERT INTO witness_positions (tenant, witness, upto) VALUES (:tenant, :witness, :upto)
ON CONFLICT (tenant, witness) DO UPDATE SET upto = excluded.upto WHERE excluded.upto > witness_positions.upto;

-- witness_backlog --
-- How many records the checkpoint in record :upto is about.
SELECT coalesce((SELECT count FROM audit_checkpoints WHERE seq = :upto), 0);

-- fragment recovery_columns --
y.tenant, y.id, y.entered_at, y.witness, y.why, y.evidence, y.evidence_at, y.evidence_count, y.ledger_count,
y.first_by, y.first_name, y.first_reason, y.first_request_id, y.first_at,
y.released_by, y.released_name, y.released_reason, y.released_request_id, y.released_at,
y.mac, y.mac_key_id

-- latest_recovery --
SELECT {recovery_columns} FROM recoveries AS y
WHERE y.tenant = :tenant
ORDER BY y.released_at IS NULL DESC, y.entered_at DESC
LIMIT 1;

-- insert_recovery --
INSERT INTO recoveries (
    tenant, id, entered_at, witness, why, evidence, evidence_at, evidence_count, ledger_count,
    first_by, first_name, first_reason, first_request_id, first_at,
    released_by, released_name, released_reason, released_request_id, released_at, mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- update_recovery --
UPDATE recoveries
SET witness = ?, why = ?, evidence = ?, evidence_at = ?, evidence_count = ?, ledger_count = ?,
    first_by = ?, first_name = ?, first_reason = ?, first_request_id = ?, first_at = ?,
    released_by = ?, released_name = ?, released_reason = ?, released_request_id = ?, released_at = ?,
    mac = ?, mac_key_id = ?
WHERE tenant = ? AND id = ?;
