-- fragment task_search --
-- What of the statements in the folder above is said otherwise to PostgreSQL; the rest differs by rule (postgres_sql.py).
t.tenant = :tenant AND t.rowid < :before
    AND (:agent = '' OR t.creator = :agent OR EXISTS (
        SELECT 1 FROM json_each(CASE WHEN t.participants IS JSON ARRAY THEN t.participants ELSE '[]' END)
        WHERE value = :agent
    ))
    AND (NOT :open_only OR t.ends_at IS NOT NULL)

-- fragment due_with_leases --
-- By ids, because here no id can be damaged without its row. What another replica is just claiming is passed over.
(
    SELECT tenant, id FROM (
        SELECT tenant, id, due_at, expires_at FROM attempts
        WHERE connector = :connector AND due_at IS NOT NULL AND due_at <= :now
        ORDER BY due_at
        LIMIT :window
    ) AS w
    ORDER BY CASE WHEN due_at <= :patience THEN due_at ELSE expires_at END
    LIMIT :limit
) AS d
CROSS JOIN attempts AS a LEFT JOIN leases AS l ON l.tenant = a.tenant AND l.id = a.lease_id
WHERE a.tenant = d.tenant AND a.id = d.id
FOR UPDATE OF a SKIP LOCKED

-- orphans_due --
SELECT {orphan_columns} FROM upstream_orphans AS o
WHERE o.connector = :connector AND o.due_at IS NOT NULL AND o.due_at <= :now
ORDER BY o.due_at LIMIT :limit
FOR UPDATE OF o SKIP LOCKED;

-- index_living_templates --
-- It is always there, because the broker's role makes no indexes.
SELECT 1 WHERE false;

-- unindex_living_templates --
SELECT 1 WHERE false;

-- make_events --
CREATE TEMP TABLE events AS
SELECT
    seq,
    tenant,
    said ->> 'type' AS type,
    lease_id,
    said ->> 'attempt_id' AS attempt_id,
    said -> 'data' ->> 'suspension' AS suspension,
    said -> 'data' ->> 'kind' AS kind,
    said -> 'data' ->> 'access_request' AS request
FROM (
    SELECT seq, tenant, lease_id, convert_from(body, 'UTF8')::json AS said FROM audit
    WHERE body IS JSON
) AS records;

-- index_events --
CREATE INDEX events_by_attempt ON pg_temp.events (tenant, attempt_id, type, seq);

-- index_suspensions --
CREATE INDEX events_by_suspension ON pg_temp.events (tenant, suspension, type, seq);

-- index_requests --
CREATE INDEX events_by_request ON pg_temp.events (tenant, request, type);
