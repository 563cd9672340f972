SET LOCAL search_path = pg_catalog;
SET LOCAL lock_timeout = '200ms';
DO $$
BEGIN
  FOR attempt IN REVERSE 9..0 LOOP
    IF to_regrole('"{{name}}"') IS NULL THEN RETURN; END IF;
    BEGIN
      ALTER ROLE "{{name}}" NOLOGIN PASSWORD NULL CONNECTION LIMIT 0;
      RETURN;
    EXCEPTION WHEN lock_not_available OR deadlock_detected OR internal_error THEN
      PERFORM pg_stat_clear_snapshot();
      PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';
      IF EXISTS (SELECT FROM pg_prepared_xacts WHERE owner = '{{name}}') THEN
        RAISE object_in_use USING MESSAGE = 'a prepared transaction of the login holds it';
      END IF;
      IF attempt = 0 THEN RAISE; END IF;
    END;
  END LOOP;
END $$;
COMMIT;
BEGIN;
SET LOCAL search_path = pg_catalog;
SET LOCAL lock_timeout = '200ms';
DO $$
DECLARE
  login oid := to_regrole('"{{name}}"');
  entering text[] := ARRAY(
    SELECT l.virtualxid FROM pg_locks l WHERE l.locktype = 'virtualxid' AND l.pid <> pg_backend_pid() AND NOT EXISTS
      (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND (a.usesysid IS NOT NULL OR a.datid IS NOT NULL)));
BEGIN
  IF login IS NULL THEN RETURN; END IF;
  FOR look IN 1..50 LOOP
    EXIT WHEN NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'virtualxid' AND virtualxid = ANY (entering));
    PERFORM pg_sleep(0.02);
  END LOOP;
  FOR attempt IN REVERSE 4..0 LOOP
    PERFORM pg_stat_clear_snapshot();
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = login;
    PERFORM pg_terminate_backend(pid, 500) FROM pg_stat_activity WHERE usesysid = login;
    IF EXISTS (SELECT FROM pg_prepared_xacts WHERE owner = '{{name}}') THEN
      RAISE object_in_use USING MESSAGE = 'a prepared transaction of the login outlives it';
    END IF;
    BEGIN
      DROP OWNED BY "{{name}}" CASCADE;
      DROP ROLE "{{name}}";
      PERFORM pg_stat_clear_snapshot();
      IF EXISTS (SELECT FROM pg_stat_activity WHERE usesysid = login) THEN
        RAISE object_in_use USING MESSAGE = 'a session of the login is still there';
      END IF;
      RETURN;
    EXCEPTION WHEN lock_not_available OR deadlock_detected OR internal_error OR object_in_use THEN
      IF attempt = 0 THEN RAISE; END IF;
    END;
  END LOOP;
END $$;
