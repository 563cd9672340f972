-- Whoever waits for the trail to grow is woken: told in the transaction that makes it grow, and so not before its COMMIT.
-- That something changed is all that is told; a word that is lost is found by looking (broker/stores/others_commits.py).
CREATE FUNCTION jit_broker_head_moved() RETURNS trigger LANGUAGE plpgsql AS $moved$
BEGIN
    PERFORM pg_notify('jit_broker_head', '');
    RETURN NULL;
END
$moved$;
CREATE TRIGGER audit_head_moved AFTER INSERT OR UPDATE ON audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION jit_broker_head_moved();
