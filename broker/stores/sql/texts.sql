-- text_key --
SELECT wrapped, key_id FROM task_text_keys WHERE tenant = ?1 AND task_id = ?2;

-- insert_text_key --
INSERT INTO task_text_keys (tenant, task_id, wrapped, key_id, created_at) VALUES (?1, ?2, ?3, ?4, ?5);

-- insert_claimed_texts --
INSERT INTO claimed_texts (tenant, task_id, about, at, sealed) VALUES (?1, ?2, ?3, ?4, ?5);

-- claimed_texts --
SELECT about, at, sealed FROM claimed_texts WHERE tenant = ?1 AND task_id = ?2 ORDER BY at, about;

-- text_keys_due --
SELECT tenant, task_id FROM task_text_keys WHERE created_at < ?1 ORDER BY created_at LIMIT ?2;

-- delete_text_key --
DELETE FROM task_text_keys WHERE tenant = ?1 AND task_id = ?2;

-- delete_claimed_texts --
DELETE FROM claimed_texts WHERE tenant = ?1 AND task_id = ?2;

-- task_report --
SELECT digest FROM task_reports WHERE tenant = ?1 AND task_id = ?2;

-- insert_task_report --
INSERT INTO task_reports (tenant, task_id, digest, at) VALUES (?1, ?2, ?3, ?4);
