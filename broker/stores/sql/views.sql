-- lease_position --
-- What people see of everybody's. The newest first is the highest rowid first: a new row gets a number above all there
-- are, and an index by time would cost every grant. A page starts below the row :before; whoever asks chooses the query
-- with the narrowest key.
SELECT rowid FROM leases WHERE tenant = :tenant AND id = :after;

-- task_position --
SELECT rowid FROM tasks WHERE tenant = :tenant AND id = :after;

-- fragment lease_search --
l.tenant = :tenant AND l.rowid < :before
    AND :holder IN ('', l.holder) AND :task_id IN ('', l.task_id) AND :template IN ('', l.template)
    AND (NOT :living_only OR l.ended_at IS NULL)

-- search_leases --
SELECT l.rowid, {lease_columns} FROM leases AS l NOT INDEXED
WHERE {lease_search}
ORDER BY l.rowid DESC
LIMIT :limit;

-- search_leases_of_task --
SELECT l.rowid, {lease_columns} FROM leases AS l INDEXED BY leases_by_task
WHERE l.task_id = :task_id AND {lease_search}
ORDER BY l.rowid DESC
LIMIT :limit;

-- search_leases_of_holder --
SELECT l.rowid, {lease_columns} FROM leases AS l INDEXED BY leases_by_holder
WHERE l.holder = :holder AND {lease_search}
ORDER BY l.rowid DESC
LIMIT :limit;

-- search_leases_living --
SELECT l.rowid, {lease_columns} FROM leases AS l INDEXED BY leases_living
WHERE l.ended_at IS NULL AND {lease_search}
ORDER BY l.rowid DESC
LIMIT :limit;

-- fragment task_search --
t.tenant = :tenant AND t.rowid < :before
    AND (:agent = '' OR t.creator = :agent OR EXISTS (
        SELECT 1 FROM json_each(CASE WHEN json_valid(t.participants) THEN t.participants ELSE '[]' END)
        WHERE value = :agent
    ))
    AND (NOT :open_only OR t.ends_at IS NOT NULL)

-- search_tasks --
SELECT t.rowid, {task_columns} FROM tasks AS t NOT INDEXED
WHERE {task_search}
ORDER BY t.rowid DESC
LIMIT :limit;

-- search_tasks_open --
SELECT t.rowid, {task_columns} FROM tasks AS t INDEXED BY tasks_open
WHERE t.ends_at IS NOT NULL AND {task_search}
ORDER BY t.rowid DESC
LIMIT :limit;

-- living_counts --
SELECT holder, count(*) FROM leases INDEXED BY leases_living
WHERE tenant = :tenant AND ended_at IS NULL
GROUP BY holder;

-- open_counts --
SELECT creator, count(*) FROM tasks INDEXED BY tasks_open
WHERE tenant = :tenant AND ends_at IS NOT NULL
GROUP BY creator;
