-- fragment task_columns --
t.tenant, t.id, t.creator, t.request_id, t.request_digest, t.participants, t.purpose, t.ticket, t.sponsor,
t.created_at, t.deadline,
t.hold_grace, t.hold_until, t.state, t.cause, t.ended_at, t.ends_at, t.task_type,
t.mac, t.mac_key_id

-- insert_task --
INSERT INTO tasks (
    tenant, id, creator, request_id, request_digest, participants, purpose, ticket, sponsor, created_at, deadline,
    hold_grace, hold_until, state, cause, ended_at, ends_at, task_type,
    mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- task_by_id --
SELECT {task_columns} FROM tasks AS t
WHERE t.tenant = :tenant AND t.id = :task_id;

-- task_by_request --
-- Idempotency (AIP-155): the task that this creator started under this request id.
SELECT {task_columns} FROM tasks AS t
WHERE t.tenant = :tenant AND t.creator = :creator AND t.request_id = :request_id;

-- count_open_tasks --
-- Never counts beyond the quota, so that its cost is bounded by it; and when the first of them ends by itself.
SELECT count(*), min(ends_at) FROM (
    SELECT ends_at FROM tasks
    WHERE tenant = :tenant AND creator = :creator AND ends_at IS NOT NULL
    LIMIT :quota
);

-- update_task --
-- Compare and swap on the state: one row or nothing.
UPDATE tasks
SET hold_grace = ?, hold_until = ?, state = ?, cause = ?, ended_at = ?, ends_at = ?, mac = ?, mac_key_id = ?
WHERE tenant = ? AND id = ? AND state = 'OPEN';

-- any_task_due --
SELECT EXISTS (SELECT 1 FROM tasks WHERE ends_at IS NOT NULL AND ends_at <= :now);

-- tasks_due --
SELECT {task_columns} FROM tasks AS t
WHERE t.ends_at IS NOT NULL AND t.ends_at <= :now
ORDER BY t.ends_at
LIMIT :limit;

-- open_task_figure --
SELECT count(*) FROM tasks WHERE ends_at IS NOT NULL;

-- open_tasks --
SELECT {task_columns} FROM tasks AS t
WHERE t.tenant = :tenant AND t.ends_at IS NOT NULL
LIMIT :limit;
