-- A log of which objects changed, for `changes = { by = "log" }`. For MariaDB 10.6 and later, and tables of InnoDB. Run it once, as
-- somebody with all privileges, and watch each table:
--
--     mariadb < mariadb-log.sql
--     CALL tidewaiter.watch('hr', 'people', 'id');
--     GRANT PROCESS ON *.* TO reader;
--     GRANT SELECT ON tidewaiter.* TO reader;
--     GRANT EXECUTE ON FUNCTION tidewaiter.triggers TO reader;
--
-- and now and then: CALL tidewaiter.trim_log(30), for what is older than so many days. It notes uids only, and no other data of a row.
-- Whoever writes to a watched table needs no right here: triggers run with those of who called `watch`, and end working when
-- that user is dropped.

-- Procedures and triggers keep it for ever.
SET SESSION sql_mode = 'STRICT_TRANS_TABLES';

CREATE DATABASE tidewaiter CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
USE tidewaiter;

-- Each watched table, and up to where its entries were trimmed.
CREATE TABLE watched (
    id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY DEFAULT UUID(),
    table_schema VARCHAR(64) NOT NULL,
    table_name VARCHAR(64) NOT NULL,
    uid VARCHAR(64) NOT NULL,
    trimmed BIGINT,
    -- When its triggers were made, in their order.
    made TEXT,
    UNIQUE (table_schema, table_name)
) ENGINE = InnoDB;

-- Uids are compared byte by byte.
CREATE TABLE log (
    number BIGINT AUTO_INCREMENT PRIMARY KEY,
    watched CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    uid VARBINARY(2000) NOT NULL,
    INDEX (watched, number),
    INDEX (watched, uid, number)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC;

-- How many of the three triggers of a watched table are there; none, if they were made anew, as by who reads a dump back: then rows came
-- that none of them saw. A function, because only who may make triggers may see them.
CREATE FUNCTION triggers (log_id CHAR(36) CHARACTER SET ascii) RETURNS INT READS SQL DATA SQL SECURITY DEFINER RETURN (
    SELECT IF(GROUP_CONCAT(UNIX_TIMESTAMP(t.CREATED) ORDER BY t.EVENT_MANIPULATION) <=> MAX(w.made),
        COUNT(DISTINCT t.EVENT_MANIPULATION), 0) FROM tidewaiter.watched AS w JOIN information_schema.TRIGGERS AS t
        ON t.EVENT_OBJECT_SCHEMA = w.table_schema AND t.EVENT_OBJECT_TABLE = w.table_name
    WHERE w.id = log_id AND t.ACTION_TIMING = 'AFTER' AND LOCATE(w.id, t.ACTION_STATEMENT) > 0
);

DELIMITER //

-- Begins to watch a table, whose objects are told apart by this column; anew, if it was watched before. Then tokens from before are
-- refused.
CREATE PROCEDURE watch (of_schema VARCHAR(64), of_table VARCHAR(64), of_uid VARCHAR(64)) MODIFIES SQL DATA SQL SECURITY INVOKER
BEGIN
    DECLARE kind, is_nullable VARCHAR(64);
    DECLARE length_max BIGINT;
    DECLARE new_id CHAR(36) DEFAULT UUID();
    DECLARE source, name, old_text, new_text, note, statement, problem TEXT;
    DECLARE zone TEXT DEFAULT @@time_zone;
    DECLARE CONTINUE HANDLER FOR NOT FOUND BEGIN END;

    SELECT ENGINE INTO kind FROM information_schema.TABLES
        WHERE TABLE_SCHEMA = of_schema AND TABLE_NAME = of_table AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED');
    IF kind IS NULL OR kind <> 'InnoDB' THEN
        SET problem = CONCAT(of_schema, '.', of_table, ' is no table of InnoDB');
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = problem;
    END IF;

    SET kind = NULL;
    SELECT DATA_TYPE, c.IS_NULLABLE, IFNULL(CHARACTER_MAXIMUM_LENGTH, 0) INTO kind, is_nullable, length_max
        FROM information_schema.COLUMNS AS c
        WHERE TABLE_SCHEMA = of_schema AND TABLE_NAME = of_table AND COLUMN_NAME = of_uid;
    SET name = CONCAT('`', REPLACE(of_uid, '`', '``'), '`');
    SET new_text = CASE
        -- Without the noughts of ZEROFILL.
        WHEN kind IN ('tinyint', 'smallint', 'mediumint', 'int', 'bigint') THEN CONCAT('NEW.', name, ' + 0')
        WHEN kind IN ('decimal', 'char', 'varchar', 'uuid') THEN CONCAT('NEW.', name)
        WHEN kind IN ('binary', 'varbinary') THEN CONCAT('CONCAT(0x5C78, LOWER(HEX(NEW.', name, ')))')
    END;
    SET problem = CASE
        WHEN kind IS NULL THEN 'there is no such column'
        WHEN is_nullable = 'YES' THEN 'it may be null'
        WHEN new_text IS NULL THEN CONCAT('it is of type ', kind, ', which has more than one text form')
        WHEN IF(kind LIKE '%binary', 2 + 2 * length_max, 4 * length_max) > 2000 THEN 'it is too long'
    END;
    IF problem IS NOT NULL THEN
        SET problem = CONCAT('the column ', of_uid, ' of ', of_schema, '.', of_table, ': ', problem);
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = problem;
    END IF;

    SET source = CONCAT('`', REPLACE(of_schema, '`', '``'), '`.`', REPLACE(of_table, '`', '``'), '`');
    SET new_text = CONCAT('CAST(CONVERT(', new_text, ' USING utf8mb4) AS BINARY)');
    SET old_text = REPLACE(new_text, CONCAT('NEW.', name), CONCAT('OLD.', name));
    SET note = CONCAT('INSERT INTO tidewaiter.log (watched, uid) VALUES (''', new_id, ''', ');
    CALL tidewaiter.unwatch(of_schema, of_table);
    INSERT INTO tidewaiter.watched (id, table_schema, table_name, uid) VALUES (new_id, of_schema, of_table, of_uid);
    SET statement = CONCAT('CREATE TRIGGER ', tidewaiter.trigger_name(of_schema, new_id, 'insert'),
        ' AFTER INSERT ON ', source, ' FOR EACH ROW ', note, new_text, ')');
    EXECUTE IMMEDIATE statement;
    SET statement = CONCAT('CREATE TRIGGER ', tidewaiter.trigger_name(of_schema, new_id, 'delete'),
        ' AFTER DELETE ON ', source, ' FOR EACH ROW ', note, old_text, ')');
    EXECUTE IMMEDIATE statement;
    SET statement = CONCAT('CREATE TRIGGER ', tidewaiter.trigger_name(of_schema, new_id, 'update'),
        ' AFTER UPDATE ON ', source, ' FOR EACH ROW BEGIN ', note, old_text, '); IF ', new_text, ' <> ', old_text,
        ' THEN ', note, new_text, '); END IF; END');
    EXECUTE IMMEDIATE statement;
    -- In a zone in which no hour comes twice.
    SET time_zone = '+00:00';
    UPDATE tidewaiter.watched SET made = (
        SELECT GROUP_CONCAT(UNIX_TIMESTAMP(t.CREATED) ORDER BY t.EVENT_MANIPULATION) FROM information_schema.TRIGGERS AS t
            WHERE t.EVENT_OBJECT_SCHEMA = of_schema AND t.EVENT_OBJECT_TABLE = of_table AND t.ACTION_TIMING = 'AFTER'
            AND LOCATE(new_id, t.ACTION_STATEMENT) > 0
    ) WHERE id = new_id;
    SET time_zone = zone;
    COMMIT;
END//

CREATE FUNCTION trigger_name (of_schema VARCHAR(64), log_id CHAR(36), event VARCHAR(6)) RETURNS TEXT DETERMINISTIC NO SQL
    SQL SECURITY INVOKER RETURN CONCAT('`', REPLACE(of_schema, '`', '``'), '`.`tidewaiter ', event, ' ', log_id, '`')//

-- Ends watching a table.
CREATE PROCEDURE unwatch (of_schema VARCHAR(64), of_table VARCHAR(64)) MODIFIES SQL DATA SQL SECURITY INVOKER
BEGIN
    DECLARE statement TEXT;
    FOR one IN (SELECT id FROM tidewaiter.watched AS w WHERE w.table_schema = of_schema AND w.table_name = of_table) DO
        SET statement = CONCAT('DROP TRIGGER IF EXISTS ', tidewaiter.trigger_name(of_schema, one.id, 'insert'));
        EXECUTE IMMEDIATE statement;
        SET statement = CONCAT('DROP TRIGGER IF EXISTS ', tidewaiter.trigger_name(of_schema, one.id, 'delete'));
        EXECUTE IMMEDIATE statement;
        SET statement = CONCAT('DROP TRIGGER IF EXISTS ', tidewaiter.trigger_name(of_schema, one.id, 'update'));
        EXECUTE IMMEDIATE statement;
        DELETE FROM tidewaiter.log WHERE watched = one.id;
        DELETE FROM tidewaiter.watched WHERE id = one.id;
    END FOR;
    COMMIT;
END//

-- Throws old entries away, and remembers up to where. A token that is older is refused from then on.
CREATE PROCEDURE trim_log (days INT) MODIFIES SQL DATA SQL SECURITY INVOKER
BEGIN
    DECLARE up_to BIGINT;
    FOR one IN (SELECT id FROM tidewaiter.watched ORDER BY id) DO
        START TRANSACTION;
        SELECT MAX(number) INTO up_to FROM tidewaiter.log WHERE watched = one.id AND at < NOW(6) - INTERVAL days DAY;
        IF up_to IS NOT NULL THEN
            UPDATE tidewaiter.watched SET trimmed = up_to WHERE id = one.id AND IFNULL(trimmed, 0) < up_to;
        END IF;
        COMMIT;
        -- A few at a time: whoever writes to the table waits for no more than those.
        REPEAT
            DELETE FROM tidewaiter.log WHERE watched = one.id AND number <= up_to ORDER BY number LIMIT 1000;
        UNTIL ROW_COUNT() < 1000 END REPEAT;
    END FOR;
END//

DELIMITER ;
