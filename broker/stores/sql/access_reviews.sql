-- access_review_by_request --
SELECT request_digest, signed_at, due_at, own_agents FROM access_reviews
WHERE tenant = ? AND person = ? AND request_id = ?;

-- insert_access_review --
INSERT INTO access_reviews (
    tenant, person, request_id, request_digest, report_digest, own_agents, signed_at, due_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- last_access_review --
SELECT signed_at FROM access_reviews WHERE tenant = ? ORDER BY signed_at DESC LIMIT 1;
