-- Fresh logins: of each act that takes one, the ID token that its provider signed for exactly this act.

CREATE TABLE fresh_logins (
    tenant     TEXT    NOT NULL CHECK (tenant <> ''),
    digest     TEXT    NOT NULL CHECK (length(digest) = 64), -- of what is signed of the token
    issuer     TEXT    NOT NULL CHECK (issuer <> ''),
    subject    TEXT    NOT NULL CHECK (subject <> ''),
    action     TEXT    NOT NULL CHECK (action <> ''),
    about      TEXT    NOT NULL,                             -- the id of what was agreed to
    nonce      TEXT    NOT NULL CHECK (nonce <> ''),         -- the digest of what was agreed to
    auth_time  INTEGER,
    at         INTEGER NOT NULL,
    token      TEXT    NOT NULL CHECK (token <> ''),         -- concealed
    mac        BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id TEXT    NOT NULL CHECK (mac_key_id <> ''),
    -- Single use.
    PRIMARY KEY (tenant, digest)
) STRICT;

-- What one act rests on.
CREATE INDEX fresh_logins_about ON fresh_logins (tenant, about);
