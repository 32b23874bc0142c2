-- What an application's store does: rows with texts, indices, joins and groups, changes, deletions.
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, city TEXT, born INTEGER);
CREATE TABLE visit (person INTEGER, day INTEGER, note TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
    INSERT INTO person
    SELECT i, 'name ' || (i * 7919 % 30011), 'city ' || (i % 97), 1900 + i % 100 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150000)
    INSERT INTO visit
    SELECT i * 7919 % 30000 + 1, i % 365, 'note ' || (i * 104729 % 1000003) FROM n;
COMMIT;
CREATE INDEX person_city ON person (city, name);
CREATE INDEX visit_person ON visit (person, day);
SELECT city, count(*), max(length(note)) FROM person JOIN visit ON person = id
    GROUP BY city ORDER BY 2 DESC LIMIT 3;
UPDATE visit SET note = upper(note) || ' seen' WHERE day % 5 = 0;
SELECT count(DISTINCT substr(note, 1, 8)), group_concat(DISTINCT day % 7) FROM visit;
DELETE FROM visit WHERE person IN (SELECT id FROM person WHERE city LIKE 'city 1%');
SELECT name, (SELECT count(*) FROM visit WHERE person = id) AS visits FROM person
    ORDER BY visits DESC, name LIMIT 3;
