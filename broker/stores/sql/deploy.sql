-- accepted_deploy --
SELECT serial, digest, accepted_at, mac, mac_key_id FROM accepted_deploy WHERE tenant = :tenant;

-- set_accepted_deploy --
-- Only forwards; the same once more (at a restart) is sealed with the current key.
INSERT INTO accepted_deploy (tenant, serial, digest, accepted_at, mac, mac_key_id)
VALUES (:tenant, :serial, :digest, :accepted_at, :mac, :mac_key_id)
ON CONFLICT (tenant) DO UPDATE
SET serial = excluded.serial, digest = excluded.digest, accepted_at = excluded.accepted_at,
    mac = excluded.mac, mac_key_id = excluded.mac_key_id
WHERE excluded.serial > accepted_deploy.serial
    OR (excluded.serial = accepted_deploy.serial AND excluded.digest = accepted_deploy.digest);
