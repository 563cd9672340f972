-- Access reports that people have signed off: when, and which, so that an overdue review is noticed without reading the
-- trail. The trail is the proof of it; no grant rests on these rows, so they have no MACs.

CREATE TABLE access_reviews (
    tenant         TEXT    NOT NULL CHECK (tenant <> ''),
    person         TEXT    NOT NULL CHECK (person <> ''),
    request_id     TEXT    NOT NULL CHECK (request_id <> ''),
    request_digest TEXT    NOT NULL CHECK (request_digest <> ''),
    report_digest  TEXT    NOT NULL CHECK (length(report_digest) = 64),
    own_agents     INTEGER NOT NULL CHECK (own_agents >= 0),
    signed_at      INTEGER NOT NULL,
    due_at         INTEGER,                        -- NULL: there was no schedule
    PRIMARY KEY (tenant, person, request_id)
) STRICT;

-- The last one.
CREATE INDEX access_reviews_newest ON access_reviews (tenant, signed_at);
