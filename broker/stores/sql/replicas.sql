-- heard_replica --
-- A replica tells that it lives; from now on without a pause, if its last word is longer ago, or is still to come.
INSERT INTO replicas (writer, tenant, started_at, seen_at, digest, heard_since)
VALUES (:writer, :tenant, :now, :now, :digest, :now)
ON CONFLICT (writer) DO UPDATE
SET heard_since = CASE
        WHEN replicas.seen_at BETWEEN :last AND :now THEN coalesce(replicas.heard_since, :now) ELSE :now
    END,
    seen_at = excluded.seen_at, digest = excluded.digest;

-- dead_replicas --
-- Not heard for long, as one knows that was heard all the while.
SELECT d.writer FROM replicas AS d CROSS JOIN replicas AS me
WHERE me.writer = :writer AND me.seen_at BETWEEN :last AND :now AND me.heard_since <= :after
    AND d.writer <> :writer AND d.seen_at <= :after;

-- living_replicas --
-- Beside one. What was seen long ago, or will be seen long from now (a clock was put back), is no sign of life.
SELECT count(*) FROM replicas
WHERE writer <> :writer AND seen_at > :after AND seen_at < :before;

-- living_replicas_with --
-- Beside one: those that have a deploy set.
SELECT count(*) FROM replicas
WHERE writer <> :writer AND tenant = :tenant AND digest = :digest AND seen_at > :after AND seen_at < :before;

-- replicas_heard_after --
-- Beside one: also in what is the future to whoever was stopped since it asked what time it is.
SELECT count(*) FROM replicas WHERE writer <> :writer AND seen_at > :after;

-- forget_replicas --
DELETE FROM replicas WHERE seen_at < :long_ago;

-- forget_replica --
DELETE FROM replicas WHERE writer = :writer;

-- ledger_timeline --
-- Another one after a standby was promoted, or a backup restored, while brokers went on; a file has none.
SELECT '';

-- take_jobs --
-- Those that are the writer's from now on: it had them, nobody has them, or their time is over.
INSERT INTO sole_jobs (tenant, name, writer, until, turn)
SELECT :tenant, value, :writer, :until, 1 FROM json_each(:names) WHERE true
ON CONFLICT (tenant, name) DO UPDATE
SET turn = CASE WHEN sole_jobs.writer = excluded.writer THEN sole_jobs.turn ELSE sole_jobs.turn + 1 END,
    writer = excluded.writer, until = excluded.until
WHERE sole_jobs.writer = excluded.writer OR sole_jobs.until <= :now OR sole_jobs.until > :until
RETURNING name;

-- give_jobs_up --
UPDATE sole_jobs SET until = :now WHERE writer = :writer AND until > :now;

-- fragment deploy_set_columns --
d.tenant, d.digest, d.place, d.since, d.writer, d.mac, d.mac_key_id

-- newest_deploy_set --
SELECT {deploy_set_columns} FROM deploy_sets AS d WHERE d.tenant = :tenant ORDER BY d.place DESC LIMIT 1;

-- deploy_set --
SELECT {deploy_set_columns} FROM deploy_sets AS d WHERE d.tenant = :tenant AND d.digest = :digest;

-- put_deploy_set --
INSERT INTO deploy_sets (tenant, digest, place, since, writer, mac, mac_key_id)
VALUES (:tenant, :digest, :place, :since, :writer, :mac, :mac_key_id)
ON CONFLICT (tenant, digest) DO UPDATE
SET place = excluded.place, since = excluded.since, writer = excluded.writer,
    mac = excluded.mac, mac_key_id = excluded.mac_key_id;

-- forget_deploy_sets --
DELETE FROM deploy_sets WHERE tenant = :tenant AND place <= :upto;

-- every_deploy_set --
SELECT {deploy_set_columns} FROM deploy_sets AS d;
