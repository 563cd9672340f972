-- insert_audit --
INSERT INTO audit (seq, tenant, holder, lease_id, body, hash, mac, mac_key_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- set_audit_head --
INSERT INTO audit_head ("only", seq, hash, mac, mac_key_id) VALUES (1, ?, ?, ?, ?)
ON CONFLICT ("only") DO UPDATE
SET seq = excluded.seq, hash = excluded.hash, mac = excluded.mac, mac_key_id = excluded.mac_key_id;

-- audit_head --
SELECT seq, hash, mac, mac_key_id FROM audit_head WHERE "only" = 1;

-- chain_end --
-- The head, the last record, and the hash of a record that is known.
SELECT h.seq, h.hash, h.mac, h.mac_key_id, l.seq, l.hash, k.hash
FROM (SELECT 1) AS one
LEFT JOIN audit_head AS h ON h."only" = 1
LEFT JOIN audit AS l ON l.seq = (SELECT max(seq) FROM audit)
LEFT JOIN audit AS k ON k.seq = ?;

-- audit_rows --
SELECT seq, tenant, holder, lease_id, body, hash, mac, mac_key_id FROM audit
WHERE seq > :after
ORDER BY seq
LIMIT :limit;

-- audit_bodies --
SELECT body FROM audit
WHERE seq > :after
ORDER BY seq
LIMIT :limit;

-- last_audit_row --
SELECT seq, tenant, holder, lease_id, body, hash, mac, mac_key_id FROM audit
ORDER BY seq DESC
LIMIT 1;

-- holder_events --
-- A holder's lease events after a sequence number, each with its lease as it is now.
SELECT u.seq, u.body, {lease_columns}
FROM audit AS u
LEFT JOIN leases AS l ON l.tenant = u.tenant AND l.id = u.lease_id
WHERE u.tenant = :tenant AND u.holder = :holder AND u.lease_id <> '' AND u.seq > :after
ORDER BY u.seq
LIMIT :limit;

-- holder_event_before --
-- The last event of the holder's stream up to a sequence number; 0 if there is none.
SELECT coalesce(max(seq), 0) FROM audit
WHERE tenant = :tenant AND holder = :holder AND lease_id <> '' AND seq <= :upto;

-- set_exported --
-- The mark only moves forwards: a late report changes nothing.
UPDATE audit_export SET upto = :upto WHERE "only" = 1 AND upto < :upto;

-- exported --
SELECT upto FROM audit_export WHERE "only" = 1;

-- first_unexported --
SELECT a.body FROM audit AS a, audit_export AS e
WHERE e."only" = 1 AND a.seq > e.upto
ORDER BY a.seq
LIMIT 1;
