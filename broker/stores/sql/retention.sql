-- tasks_after --
-- In the order in which they were made, so that one that is too young ends the search. rowid keeps that order.
SELECT rowid, tenant, id, created_at, ended_at FROM tasks
WHERE rowid > ?
ORDER BY rowid
LIMIT ?;

-- task_not_over --
-- Whether anything of a task may still be alive, is younger than :before, or is to be erased by other means first.
SELECT EXISTS (
    SELECT 1 FROM tasks WHERE tenant = :tenant AND id = :task_id AND (ended_at IS NULL OR ended_at >= :before)
) OR EXISTS (
    SELECT 1 FROM leases WHERE tenant = :tenant AND task_id = :task_id AND (ended_at IS NULL OR ended_at >= :before)
) OR EXISTS (
    SELECT 1 FROM leases AS l JOIN attempts AS a ON a.tenant = l.tenant AND a.lease_id = l.id
    WHERE l.tenant = :tenant AND l.task_id = :task_id AND a.due_at IS NOT NULL
) OR EXISTS (
    SELECT 1 FROM access_requests WHERE tenant = :tenant AND task_id = :task_id AND (ended_at IS NULL OR ended_at >= :before)
) OR EXISTS (
    -- Broken glass is never forgotten before it is reviewed.
    SELECT 1 FROM leases AS l JOIN break_glass_uses AS b ON b.tenant = l.tenant AND b.lease_id = l.id
    WHERE l.tenant = :tenant AND l.task_id = :task_id AND b.reviewed_at IS NULL AND b.void = 0
) OR EXISTS (
    SELECT 1 FROM task_text_keys WHERE tenant = :tenant AND task_id = :task_id
);

-- attempts_of_task --
SELECT {attempt_columns} FROM leases AS l JOIN attempts AS a ON a.tenant = l.tenant AND a.lease_id = l.id
WHERE l.tenant = :tenant AND l.task_id = :task_id;

-- delete_origins_of_task --
DELETE FROM lease_origins
WHERE tenant = :tenant AND lease_id IN (SELECT id FROM leases WHERE tenant = :tenant AND task_id = :task_id);

-- delete_reviews_of_task --
DELETE FROM policy_reviews
WHERE tenant = :tenant AND lease_id IN (SELECT id FROM leases WHERE tenant = :tenant AND task_id = :task_id);

-- delete_break_glass_uses_of_task --
DELETE FROM break_glass_uses
WHERE tenant = :tenant AND lease_id IN (SELECT id FROM leases WHERE tenant = :tenant AND task_id = :task_id);

-- delete_attempts_of_task --
DELETE FROM attempts
WHERE tenant = :tenant AND lease_id IN (SELECT id FROM leases WHERE tenant = :tenant AND task_id = :task_id);

-- delete_delegations_of_task --
DELETE FROM delegations WHERE tenant = :tenant AND task_id = :task_id;

-- delete_votes_of_task --
DELETE FROM access_votes
WHERE tenant = :tenant AND access_request_id IN (SELECT id FROM access_requests WHERE tenant = :tenant AND task_id = :task_id);

-- delete_access_events_of_task --
-- By holder: the key begins with it, and a holder's stream is as long as what is kept.
DELETE FROM access_events
WHERE tenant = :tenant
    AND holder IN (SELECT holder FROM access_requests WHERE tenant = :tenant AND task_id = :task_id)
    AND access_request_id IN (SELECT id FROM access_requests WHERE tenant = :tenant AND task_id = :task_id);

-- delete_access_requests_of_task --
DELETE FROM access_requests WHERE tenant = :tenant AND task_id = :task_id;

-- delete_plans_of_task --
DELETE FROM plans WHERE tenant = :tenant AND task_id = :task_id;

-- delete_leases_of_task --
DELETE FROM leases WHERE tenant = :tenant AND task_id = :task_id;

-- delete_report_of_task --
DELETE FROM task_reports WHERE tenant = :tenant AND task_id = :task_id;

-- delete_task --
DELETE FROM tasks WHERE tenant = :tenant AND id = :task_id;
