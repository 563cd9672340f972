-- The newest signed deploy set that ever came into force: no older one does after it.

CREATE TABLE accepted_deploy (
    tenant      TEXT    NOT NULL PRIMARY KEY CHECK (tenant <> ''),
    serial      INTEGER NOT NULL CHECK (serial >= 1),
    digest      TEXT    NOT NULL CHECK (length(digest) = 64),
    accepted_at INTEGER NOT NULL,
    mac         BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id  TEXT    NOT NULL CHECK (mac_key_id <> '')
) STRICT;
