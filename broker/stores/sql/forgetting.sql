-- lease_forgetting --
SELECT first_by, second_by FROM lease_forgettings WHERE tenant = ?1 AND lease_id = ?2;

-- begin_forgetting --
INSERT INTO lease_forgettings (tenant, lease_id, first_by, first_reason, first_at) VALUES (?1, ?2, ?3, ?4, ?5);

-- confirm_forgetting --
UPDATE lease_forgettings SET second_by = ?3, second_at = ?4
WHERE tenant = ?1 AND lease_id = ?2 AND second_by IS NULL AND first_by <> ?3;

-- delete_forgettings_of_task --
DELETE FROM lease_forgettings
WHERE tenant = ?1 AND lease_id IN (SELECT id FROM leases WHERE tenant = ?1 AND task_id = ?2);
