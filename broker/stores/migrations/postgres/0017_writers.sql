-- Who wrote last: one row, so that every writer knows at its BEGIN whether somebody else has committed since.
CREATE TABLE last_batch (
    "only" BIGINT PRIMARY KEY CHECK ("only" = 1),
    number BIGINT NOT NULL CHECK (number >= 0),
    writer TEXT COLLATE "C" NOT NULL
);
INSERT INTO last_batch ("only", number, writer) VALUES (1, 0, '');

-- The last batch of each writer: what is read back where the answer to a COMMIT was lost.
CREATE TABLE writer_batches (
    writer TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (writer <> ''),
    number BIGINT NOT NULL,
    at     BIGINT NOT NULL                         -- by the server's clock
);

-- For quotas of templates. On SQLite the broker makes it when a quota needs it; here it may make nothing.
CREATE INDEX leases_living_template ON leases (tenant, template) WHERE ended_at IS NULL;
