-- Leases whose end nobody can prove any more, and the two people who said so. The lease's own rows say what they are
-- since, under their MACs; these say who stands for it, as the audit trail does.

CREATE TABLE lease_forgettings (
    tenant       TEXT    NOT NULL CHECK (tenant <> ''),
    lease_id     TEXT    NOT NULL CHECK (lease_id <> ''),
    first_by     TEXT    NOT NULL CHECK (first_by <> ''),
    first_reason TEXT    NOT NULL,
    first_at     INTEGER NOT NULL,
    second_by    TEXT,
    second_at    INTEGER,
    PRIMARY KEY (tenant, lease_id),
    FOREIGN KEY (tenant, lease_id) REFERENCES leases (tenant, id),
    CHECK (second_by IS NULL OR second_by <> first_by),
    CHECK ((second_by IS NULL) = (second_at IS NULL))
) STRICT;
