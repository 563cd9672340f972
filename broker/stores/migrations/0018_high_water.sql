-- The highest time this ledger has seen: broker time begins there at the least, whatever the machine's clock says.
-- Under a MAC, because every expiry is judged by it.

CREATE TABLE high_water (
    only       INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    at_ms      INTEGER NOT NULL CHECK (at_ms > 0),
    mac        BLOB    NOT NULL CHECK (length(mac) = 32),
    mac_key_id TEXT    NOT NULL CHECK (mac_key_id <> '')
) STRICT;
