-- A ledger of the schema's first version, in use.
CREATE TABLE node (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, seq INTEGER NOT NULL, ended TEXT NOT NULL
) STRICT;
CREATE TABLE beat (
    node INTEGER PRIMARY KEY, run TEXT NOT NULL, counter INTEGER NOT NULL
) STRICT;
CREATE TABLE vm (
    uuid TEXT NOT NULL, node INTEGER NOT NULL, name TEXT NOT NULL,
    state TEXT NOT NULL, place INTEGER NOT NULL, balance INTEGER NOT NULL,
    PRIMARY KEY (uuid, node)
) STRICT, WITHOUT ROWID;
CREATE INDEX vm_node ON vm (node);
CREATE TABLE problem (
    key TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE unread (
    node INTEGER NOT NULL, run TEXT NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (node, run, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE call (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, time REAL NOT NULL, func TEXT NOT NULL, fields TEXT NOT NULL
) STRICT;
CREATE INDEX call_key ON call (key, id);
CREATE TABLE parked (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, func TEXT NOT NULL, fields TEXT NOT NULL, reason TEXT NOT NULL
) STRICT;
INSERT INTO node VALUES (3, '00000000000000000000000000000002', 9, '{"00000000000000000000000000000001": 4}');
INSERT INTO beat VALUES (3, '00000000000000000000000000000002', 7);
INSERT INTO vm VALUES ('u', 3, 'web', 'paused', 2, 0);
INSERT INTO problem VALUES ('problem node_silent 3 None'), ('events_lost 3 00000000000000000000000000000002');
INSERT INTO unread VALUES (3, '00000000000000000000000000000001', 2, 2, x'7b7d');
INSERT INTO call VALUES
    (4, 'vm web', 0.5, 'vm.event', '{"value": "1"}'),
    (5, 'statistics 3', 0.5, 'vmwatch.statistics', '{"value": "latest"}'),
    (6, 'vm web', 0.5, 'vm.event', '{"value": "2"}');
INSERT INTO parked VALUES (1, 'vm web', 'vm.event', '{}', 'the panel said no');
PRAGMA user_version = 1;
