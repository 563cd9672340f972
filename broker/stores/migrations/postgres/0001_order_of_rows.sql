-- SQLite numbers rows by itself, in the order in which they are made; some queries go by that order.
ALTER TABLE tasks ADD COLUMN rowid BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE;
ALTER TABLE leases ADD COLUMN rowid BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE;
