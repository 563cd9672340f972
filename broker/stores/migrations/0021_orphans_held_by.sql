-- readable from: 17
-- Which of several daemons has claimed what is upstream and unknown, as attempts have it since 0020: it bears no MAC
-- either, and a daemon whose ledger is its own writes none.

ALTER TABLE upstream_orphans ADD COLUMN held_by TEXT;
CREATE INDEX orphans_held ON upstream_orphans (held_by) WHERE held_by IS NOT NULL;
