-- text_key --
SELECT wrapped, key_id FROM task_text_keys WHERE tenant = ? AND task_id = ?;

-- insert_text_key --
INSERT INTO task_text_keys (tenant, task_id, wrapped, key_id, created_at) VALUES (?, ?, ?, ?, ?);

-- insert_claimed_texts --
INSERT INTO claimed_texts (tenant, task_id, about, at, sealed) VALUES (?, ?, ?, ?, ?);

-- claimed_texts --
SELECT about, at, sealed FROM claimed_texts WHERE tenant = ? AND task_id = ? ORDER BY at, about;

-- text_keys_due --
SELECT tenant, task_id FROM task_text_keys WHERE created_at < ? ORDER BY created_at LIMIT ?;

-- delete_text_key --
DELETE FROM task_text_keys WHERE tenant = ? AND task_id = ?;

-- delete_claimed_texts --
DELETE FROM claimed_texts WHERE tenant = :tenant AND task_id = :task_id;

-- task_report --
SELECT digest FROM task_reports WHERE tenant = ? AND task_id = ?;

-- insert_task_report --
INSERT INTO task_reports (tenant, task_id, digest, at) VALUES (?, ?, ?, ?);
