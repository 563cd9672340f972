-- access_review_by_request --
SELECT request_digest, signed_at, due_at, own_agents FROM access_reviews
WHERE tenant = ?1 AND person = ?2 AND request_id = ?3;

-- insert_access_review --
INSERT INTO access_reviews (
    tenant, person, request_id, request_digest, report_digest, own_agents, signed_at, due_at
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8);

-- last_access_review --
SELECT signed_at FROM access_reviews WHERE tenant = ?1 ORDER BY signed_at DESC LIMIT 1;
