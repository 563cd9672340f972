-- fresh_login_used --
SELECT EXISTS (SELECT 1 FROM fresh_logins WHERE tenant = :tenant AND digest = :digest);

-- insert_fresh_login --
INSERT INTO fresh_logins (
    tenant, digest, issuer, subject, action, about, nonce, auth_time, at, token, mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);
