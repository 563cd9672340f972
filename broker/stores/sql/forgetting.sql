-- lease_forgetting --
SELECT first_by, second_by FROM lease_forgettings WHERE tenant = ? AND lease_id = ?;

-- begin_forgetting --
INSERT INTO lease_forgettings (tenant, lease_id, first_by, first_reason, first_at) VALUES (?, ?, ?, ?, ?);

-- confirm_forgetting --
UPDATE lease_forgettings SET second_by = :by, second_at = :now
WHERE tenant = :tenant AND lease_id = :lease_id AND second_by IS NULL AND first_by <> :by;

-- delete_forgettings_of_task --
DELETE FROM lease_forgettings
WHERE tenant = :tenant AND lease_id IN (SELECT id FROM leases WHERE tenant = :tenant AND task_id = :task_id);
