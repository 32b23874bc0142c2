-- Tables, indices, full-text search, window functions and a vacuum over a few ten thousand rows.
PRAGMA journal_mode = DELETE;
PRAGMA cache_size = 500;
CREATE TABLE item(id INTEGER PRIMARY KEY, grp INT, name TEXT, price REAL);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
INSERT INTO item SELECT i, i * 7919 % 97, printf('item-%05d-%.*c', i * 31 % 30011, i % 40, 'x'), i * 13 % 1009 / 8.0 FROM n;
COMMIT;
CREATE INDEX item_group ON item(grp, price);
CREATE UNIQUE INDEX item_name ON item(name);
SELECT grp, count(*), sum(price), max(name) FROM item GROUP BY grp ORDER BY grp LIMIT 12;
UPDATE item SET name = name || '-' || grp, price = price + 0.5 WHERE grp % 5 = 0;
DELETE FROM item WHERE id % 7 = 3;
SELECT count(*), sum(length(name)), round(avg(price), 6) FROM item;

SELECT a.grp, count(*) FROM item a JOIN item b ON b.grp = a.grp + 1 AND b.price = a.price
GROUP BY a.grp ORDER BY count(*) DESC, a.grp LIMIT 8;
SELECT id, grp, price, rank() OVER (PARTITION BY grp ORDER BY price DESC, id) AS place
FROM item WHERE grp < 4 ORDER BY place, grp LIMIT 10;
SELECT length(group_concat(name, ';')) FROM (SELECT name FROM item ORDER BY price, id);

CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT);
INSERT INTO note SELECT id, json_object('name', name, 'tags', json_array(grp, price, id % 11)) FROM item WHERE id % 8 = 0;
SELECT json_extract(body, '$.tags[2]') AS tag, count(*), max(json_extract(body, '$.name')) FROM note GROUP BY tag ORDER BY tag;

SAVEPOINT attempt;
DELETE FROM item WHERE grp > 10;
SELECT count(*) FROM item;
ROLLBACK TO attempt;
RELEASE attempt;
SELECT count(*) FROM item;
DELETE FROM item WHERE grp BETWEEN 20 AND 40;
VACUUM;
PRAGMA integrity_check;
SELECT 'finished';
