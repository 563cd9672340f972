-- fresh_login_used --
SELECT EXISTS (SELECT 1 FROM fresh_logins WHERE tenant = :tenant AND digest = :digest);

-- insert_fresh_login --
INSERT INTO fresh_logins (
    tenant, digest, issuer, subject, action, about, nonce, auth_time, at, token, mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- fresh_logins_about --
SELECT tenant, digest, issuer, subject, action, about, nonce, auth_time, at, token, mac, mac_key_id FROM fresh_logins
WHERE tenant = :tenant AND about = :about
ORDER BY at, digest;
