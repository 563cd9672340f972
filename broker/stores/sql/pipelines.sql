-- fragment plan_columns --
p.tenant, p.id, p.task_id, p.planner, p.planner_principal, p.request_id, p.request_digest, p.text, p.actions, p.digest,
p.created_at, p.deadline,
p.state, p.validator, p.validator_principal, p.reason, p.decided_at,
p.mac, p.mac_key_id

-- fragment delegation_columns --
d.tenant, d.id, d.task_id, d.lease_id, d.delegator, d.request_id, d.request_digest, d.chain, d.delegate,
d.delegate_principal, d.resource, d.parameters, d.further, d.created_at, d.expires_at,
d.revoked_at,
d.mac, d.mac_key_id

-- fragment origin_columns --
o.tenant, o.lease_id, o.plan_id, o.step, o.delegation_id, o.parent_lease_id, o.chain, o.further,
o.mac, o.mac_key_id

-- insert_plan --
INSERT INTO plans (
    tenant, id, task_id, planner, planner_principal, request_id, request_digest, text, actions, digest, created_at,
    deadline, state, validator, validator_principal, reason, decided_at,
    mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- decide_plan --
-- Compare and swap on the state: exactly one decision.
UPDATE plans
SET state = ?, validator = ?, validator_principal = ?, reason = ?, decided_at = ?, mac = ?, mac_key_id = ?
WHERE tenant = ? AND id = ? AND state = 'REGISTERED';

-- erase_plan_text --
UPDATE plans SET text = ?, mac = ?, mac_key_id = ? WHERE tenant = ? AND id = ?;

-- plan_by_id --
SELECT {plan_columns} FROM plans AS p
WHERE p.tenant = :tenant AND p.id = :plan_id;

-- plan_by_request --
SELECT {plan_columns} FROM plans AS p
WHERE p.tenant = :tenant AND p.planner = :planner AND p.request_id = :request_id;

-- plans_of_task --
SELECT {plan_columns} FROM plans AS p
WHERE p.tenant = :tenant AND p.task_id = :task_id
ORDER BY p.created_at, p.id;

-- count_plans --
SELECT count(*) FROM (SELECT 1 FROM plans WHERE tenant = :tenant AND task_id = :task_id LIMIT :most);

-- insert_delegation --
INSERT INTO delegations (
    tenant, id, task_id, lease_id, delegator, request_id, request_digest, chain, delegate, delegate_principal, resource,
    parameters, further, created_at, expires_at, revoked_at,
    mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- revoke_delegation --
UPDATE delegations
SET revoked_at = ?, mac = ?, mac_key_id = ?
WHERE tenant = ? AND id = ? AND revoked_at IS NULL;

-- delegation_by_id --
SELECT {delegation_columns} FROM delegations AS d
WHERE d.tenant = :tenant AND d.id = :delegation_id;

-- delegation_by_request --
SELECT {delegation_columns} FROM delegations AS d
WHERE d.tenant = :tenant AND d.delegator = :delegator AND d.request_id = :request_id;

-- delegations_of_task --
SELECT {delegation_columns} FROM delegations AS d
WHERE d.tenant = :tenant AND d.task_id = :task_id AND :agent IN (d.delegator, d.delegate)
ORDER BY d.created_at, d.id;

-- count_delegations_of_task --
SELECT count(*) FROM (SELECT 1 FROM delegations WHERE tenant = :tenant AND task_id = :task_id LIMIT :most);

-- count_delegations_of_lease --
SELECT count(*) FROM (SELECT 1 FROM delegations WHERE tenant = :tenant AND lease_id = :lease_id LIMIT :most);

-- count_leases_of_task --
SELECT count(*) FROM (
    SELECT 1 FROM leases INDEXED BY leases_by_task WHERE tenant = ? AND task_id = ? LIMIT ?
);

-- insert_origin --
INSERT INTO lease_origins (
    tenant, lease_id, plan_id, step, delegation_id, parent_lease_id, chain, further, mac, mac_key_id
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- origin_of_lease --
SELECT {origin_columns} FROM lease_origins AS o
WHERE o.tenant = ? AND o.lease_id = ?;

-- lease_by_step --
-- The latest lease that used a step of a plan: a further one is only opened when the ones before ended undelivered.
SELECT {lease_columns}
FROM lease_origins AS o CROSS JOIN leases AS l
WHERE l.tenant = o.tenant AND l.id = o.lease_id
    AND o.tenant = :tenant AND o.plan_id = :plan_id AND o.step = :step AND o.delegation_id = ''
ORDER BY o.rowid DESC LIMIT 1;

-- lease_by_delegation --
SELECT {lease_columns}
FROM lease_origins AS o CROSS JOIN leases AS l
WHERE l.tenant = o.tenant AND l.id = o.lease_id
    AND o.tenant = :tenant AND o.delegation_id = :delegation_id AND o.delegation_id <> ''
ORDER BY o.rowid DESC LIMIT 1;

-- unended_by_delegation --
SELECT {attempt_columns}, {lease_columns}
FROM lease_origins AS o CROSS JOIN leases AS l CROSS JOIN attempts AS a
WHERE l.tenant = o.tenant AND l.id = o.lease_id AND a.tenant = l.tenant AND a.lease_id = l.id
    AND o.tenant = :tenant AND o.delegation_id = :delegation_id AND o.delegation_id <> ''
    AND a.state IN ('ISSUING', 'ACTIVE')
LIMIT :limit;

-- unended_below --
-- What nobody has ended yet of the leases that are parts of one of :parents (a JSON list of ids).
SELECT {attempt_columns}, {lease_columns}
FROM json_each(:parents) AS parent CROSS JOIN lease_origins AS o CROSS JOIN leases AS l CROSS JOIN attempts AS a
WHERE l.tenant = o.tenant AND l.id = o.lease_id AND a.tenant = l.tenant AND a.lease_id = l.id
    AND o.tenant = :tenant AND o.parent_lease_id = parent.value AND o.parent_lease_id <> ''
    AND a.state IN ('ISSUING', 'ACTIVE')
LIMIT :limit;
