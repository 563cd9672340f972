-- readable from: 17
-- Which of several daemons has an attempt in hand: it is issuing it, or has claimed it for a try. So what a daemon had
-- that is known to be dead need not wait until its claims run out. No more is decided by it than how soon something is
-- tried again, under an epoch that rises, so it bears no MAC; and a daemon whose ledger is its own writes none.

ALTER TABLE attempts ADD COLUMN held_by TEXT;
CREATE INDEX attempts_held ON attempts (held_by) WHERE held_by IS NOT NULL;

-- Since when a daemon has told without a pause that it lives: who was away itself knows nobody else for dead.
ALTER TABLE replicas ADD COLUMN heard_since INTEGER;
