-- A log of which objects changed, for `changes = { by = "log" }`. Run it once, as the owner of the tables or a superuser:
--
--     psql -f postgresql-log.sql hr
--     SELECT tidewaiter.watch('people', 'id');
--     GRANT USAGE ON SCHEMA tidewaiter TO reader;
--     GRANT SELECT ON tidewaiter.log, tidewaiter.log_state TO reader;
--
-- and now and then: SELECT tidewaiter.trim('30 days'). It notes uids only, and no other data of a row. For PostgreSQL 13 and later.

BEGIN;

CREATE SCHEMA tidewaiter;

-- Which log it is, and up to where it was trimmed. One row.
CREATE TABLE tidewaiter.log_state (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    trimmed_transaction xid8,
    trimmed_number bigint
);
INSERT INTO tidewaiter.log_state DEFAULT VALUES;

CREATE TABLE tidewaiter.log (
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
    number bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    source text NOT NULL,
    uid text NOT NULL,
    PRIMARY KEY (source, transaction, number)
);
CREATE INDEX log_by_object ON tidewaiter.log (source, uid, transaction, number);

-- Fills it, with the rights of its owner: who writes to a watched table needs none here.
CREATE FUNCTION tidewaiter.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before text;
    after text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('INSERT INTO tidewaiter.log (source, uid) SELECT %L, %I::text FROM %s',
                       TG_ARGV[1], TG_ARGV[0], TG_RELID::regclass);
        RETURN NULL;
    END IF;
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        before := to_jsonb(OLD) ->> TG_ARGV[0];
        INSERT INTO tidewaiter.log (source, uid) VALUES (TG_ARGV[1], before);
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        after := to_jsonb(NEW) ->> TG_ARGV[0];
        IF after IS DISTINCT FROM before THEN
            INSERT INTO tidewaiter.log (source, uid) VALUES (TG_ARGV[1], after);
        END IF;
    END IF;
    RETURN NULL;
END
$$;

-- Begins to watch a table, whose objects are told apart by this column.
CREATE FUNCTION tidewaiter.watch(source regclass, uid name) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    full_name text := (SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = source);
BEGIN
    EXECUTE format('CREATE TRIGGER tidewaiter AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION tidewaiter.note(%L, %L)',
                   source, uid, full_name);
    EXECUTE format('CREATE TRIGGER tidewaiter_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION tidewaiter.note(%L, %L)',
                   source, uid, full_name);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER tidewaiter', source);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER tidewaiter_truncate', source);
END
$$;

-- Throws old entries away, and remembers up to where. A token that is older is refused from then on.
CREATE FUNCTION tidewaiter.trim(older_than interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    up_to record;
    gone bigint;
BEGIN
    SELECT transaction, number INTO up_to FROM tidewaiter.log
        WHERE at < clock_timestamp() - older_than AND transaction < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY transaction DESC, number DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM tidewaiter.log WHERE (transaction, number) <= (up_to.transaction, up_to.number);
    GET DIAGNOSTICS gone = ROW_COUNT;
    UPDATE tidewaiter.log_state SET trimmed_transaction = up_to.transaction, trimmed_number = up_to.number;
    RETURN gone;
END
$$;

REVOKE ALL ON FUNCTION tidewaiter.note(), tidewaiter.watch(regclass, name), tidewaiter.trim(interval) FROM PUBLIC;

COMMIT;
