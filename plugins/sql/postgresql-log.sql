-- A log of which objects changed, for `changes = { by = "log" }`. For PostgreSQL 13 and later. Run it once, as a superuser or the owner
-- of the tables, and watch each table:
--
--     psql -f postgresql-log.sql hr
--     SELECT tidewaiter.watch('people', 'id');
--     GRANT SELECT ON tidewaiter.watched, tidewaiter.log TO reader;
--
-- and now and then: SELECT tidewaiter.trim('30 days'). It notes uids only, and no other data of a row. Nothing here runs with other
-- rights than those of who calls it: who writes to a watched table may add entries, which at worst tell of an object again.

BEGIN;

CREATE SCHEMA tidewaiter;

-- Each watched table, and up to where its entries were trimmed.
CREATE TABLE tidewaiter.watched (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    relation regclass NOT NULL UNIQUE,
    uid name NOT NULL,
    trimmed_transaction xid8,
    trimmed_number bigint
);

CREATE TABLE tidewaiter.log (
    watched uuid NOT NULL,
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
    number bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    uid text NOT NULL,
    PRIMARY KEY (watched, transaction, number)
);
CREATE INDEX log_by_object ON tidewaiter.log (watched, uid, transaction, number);

-- Notes what a statement did to a row, or to all of them. Arguments: the column of the uid, and the id in tidewaiter.watched.
CREATE FUNCTION tidewaiter.note() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    before text;
    after text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION '% is watched: truncate it in a transaction that is READ COMMITTED, which sees all rows', TG_RELID::regclass;
        END IF;
        EXECUTE format('INSERT INTO tidewaiter.log (watched, uid) SELECT %L, %I::text FROM ONLY %s WHERE %I IS NOT NULL',
                       TG_ARGV[1], TG_ARGV[0], TG_RELID::regclass, TG_ARGV[0]);
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        EXECUTE format('SELECT ($1).%I::text', TG_ARGV[0]) INTO before USING OLD;
        INSERT INTO tidewaiter.log (watched, uid) SELECT TG_ARGV[1]::uuid, before WHERE before IS NOT NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        EXECUTE format('SELECT ($1).%I::text', TG_ARGV[0]) INTO after USING NEW;
        INSERT INTO tidewaiter.log (watched, uid)
            SELECT TG_ARGV[1]::uuid, after WHERE after IS NOT NULL AND after IS DISTINCT FROM before;
    END IF;
    RETURN NULL;
END
$$;

-- Begins to watch a table, whose objects are told apart by this column; anew, if it was watched before. Then tokens from before are
-- refused.
CREATE FUNCTION tidewaiter.watch(source regclass, uid name) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of_uid record;
    new_id uuid;
    truncated regclass;
BEGIN
    SELECT t.typname, a.attnotnull, c.relkind INTO of_uid
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_class c ON c.oid = a.attrelid
        WHERE a.attrelid = source AND a.attname = uid AND a.attnum > 0 AND NOT a.attisdropped;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% has no column %', source, uid;
    ELSIF of_uid.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is no table', source;
    ELSIF NOT of_uid.attnotnull THEN
        RAISE EXCEPTION 'the column % of % may be null', uid, source;
    ELSIF of_uid.typname NOT IN ('int2', 'int4', 'int8', 'numeric', 'text', 'varchar', 'uuid') THEN
        RAISE EXCEPTION 'the column % of % is of type %, which has more than one text form', uid, source, of_uid.typname;
    ELSIF of_uid.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = source) THEN
        RAISE EXCEPTION '% has tables that inherit from it: watch those', source;
    END IF;
    DELETE FROM tidewaiter.log WHERE watched IN (SELECT id FROM tidewaiter.watched WHERE relation = source);
    DELETE FROM tidewaiter.watched WHERE relation = source;
    INSERT INTO tidewaiter.watched (relation, uid) VALUES (source, uid) RETURNING id INTO new_id;
    EXECUTE format('DROP TRIGGER IF EXISTS tidewaiter ON %s', source);
    EXECUTE format('CREATE TRIGGER tidewaiter AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION tidewaiter.note(%L, %L)',
                   source, uid, new_id);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER tidewaiter', source);
    -- One of a partitioned table is not one of its partitions.
    FOR truncated IN SELECT source UNION SELECT relid FROM pg_partition_tree(source) LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS tidewaiter_truncate ON %s', truncated);
        EXECUTE format('CREATE TRIGGER tidewaiter_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION tidewaiter.note(%L, %L)',
                       truncated, uid, new_id);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER tidewaiter_truncate', truncated);
    END LOOP;
END
$$;

-- Throws old entries away, and remembers up to where. A token that is older is refused from then on.
CREATE FUNCTION tidewaiter.trim(older_than interval) RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one record;
    up_to record;
    gone bigint;
    total bigint := 0;
BEGIN
    FOR one IN SELECT id FROM tidewaiter.watched ORDER BY id FOR UPDATE LOOP
        SELECT transaction, number INTO up_to FROM tidewaiter.log
            WHERE watched = one.id AND at < clock_timestamp() - older_than
            AND transaction < pg_snapshot_xmin(pg_current_snapshot())
            ORDER BY transaction DESC, number DESC LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        UPDATE tidewaiter.watched SET trimmed_transaction = up_to.transaction, trimmed_number = up_to.number
            WHERE id = one.id AND (trimmed_transaction IS NULL
            OR (trimmed_transaction, trimmed_number) < (up_to.transaction, up_to.number));
        DELETE FROM tidewaiter.log
            WHERE watched = one.id AND (transaction, number) <= (up_to.transaction, up_to.number);
        GET DIAGNOSTICS gone = ROW_COUNT;
        total := total + gone;
    END LOOP;
    RETURN total;
END
$$;

REVOKE ALL ON FUNCTION tidewaiter.watch(regclass, name), tidewaiter.trim(interval) FROM PUBLIC;
GRANT USAGE ON SCHEMA tidewaiter TO PUBLIC;
GRANT INSERT (watched, uid) ON tidewaiter.log TO PUBLIC;

COMMIT;
