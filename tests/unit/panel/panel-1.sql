-- A panel's database of the schema's first version, in use.
BEGIN TRANSACTION;
CREATE TABLE account (
    name TEXT PRIMARY KEY,
    password TEXT NOT NULL -- access.hash_password
) WITHOUT ROWID;
INSERT INTO "account" VALUES('admin','scrypt$16384$dd63015e9e267e5ab2fa27e4411474ee$5b360eb7075a360dfc424f8bc99d9147be6be220e701e031cc1db7a9c86161f4');
CREATE TABLE applied ( -- the last event taken of a node's run and VM: what is not newer is a repetition
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    vm INTEGER NOT NULL REFERENCES vm ON DELETE CASCADE,
    hostnode INTEGER NOT NULL,
    run TEXT NOT NULL,
    seq INTEGER NOT NULL,
    UNIQUE (vm, hostnode, run)
);
INSERT INTO "applied" VALUES(1,1,1,'r1',5);
INSERT INTO "applied" VALUES(2,2,1,'r1',3);
INSERT INTO "applied" VALUES(3,1,2,'r1',1);
CREATE TABLE history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    vm INTEGER NOT NULL REFERENCES vm ON DELETE CASCADE,
    reporter INTEGER NOT NULL REFERENCES hostnode, -- the node that told
    type TEXT NOT NULL,
    subtype TEXT NOT NULL,
    cause TEXT,
    source TEXT NOT NULL,
    earliest INTEGER, -- of a snapshot's finding: it happened after this
    time INTEGER NOT NULL, -- of the event, by the node's clock
    registered INTEGER NOT NULL, -- of the commit, by the panel's clock
    status TEXT NOT NULL, -- after it
    hostnode INTEGER, -- where the VM is after it
    event_id TEXT
);
INSERT INTO "history" VALUES(1,1,1,'started','booted',NULL,'event',NULL,1764000000500,1764000001000,'running',1,'1.r1.1');
INSERT INTO "history" VALUES(2,2,1,'started','booted',NULL,'event',NULL,1764000001500,1764000002000,'running',1,'1.r1.2');
INSERT INTO "history" VALUES(3,2,1,'stopped','shutdown','guest-shutdown','event',NULL,1764000002500,1764000003000,'stopped',1,'1.r1.3');
INSERT INTO "history" VALUES(4,1,1,'suspended','migrated',NULL,'event',NULL,1764000003500,1764000004000,'migrating',1,'1.r1.4');
INSERT INTO "history" VALUES(5,1,2,'resumed','migrated',NULL,'event',NULL,1764000004500,1764000005000,'running',2,'2.r1.1');
INSERT INTO "history" VALUES(6,1,1,'stopped','migrated',NULL,'event',NULL,1764000005500,1764000006000,'running',2,'1.r1.5');
CREATE TABLE hostnode (
    id INTEGER PRIMARY KEY, -- the node_id of vmwatch-node.conf
    name TEXT NOT NULL UNIQUE
);
INSERT INTO "hostnode" VALUES(1,'node-1');
INSERT INTO "hostnode" VALUES(2,'node-2');
CREATE TABLE problem (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    problem TEXT NOT NULL,
    hostnode INTEGER, -- neither this nor the name need be known to the panel: that may be the problem
    name TEXT NOT NULL,
    text TEXT NOT NULL,
    raised INTEGER NOT NULL,
    solved INTEGER
);
INSERT INTO "problem" VALUES(1,'node_silent',2,'','no heartbeat for 30 s',1764000007000,1764000008000);
INSERT INTO "problem" VALUES(2,'events_lost',1,'','3 events',1764000009000,NULL);
INSERT INTO "problem" VALUES(3,'node_silent',1,'','no heartbeat for 30 s',1764000010000,NULL);
INSERT INTO "problem" VALUES(4,'vm_unknown',NULL,'ghost','unknown',1764000011000,NULL);
CREATE TABLE statistics ( -- the latest of each domain
    hostnode INTEGER NOT NULL,
    name TEXT NOT NULL,
    time INTEGER NOT NULL,
    domain TEXT NOT NULL, -- JSON, as the node counted it
    PRIMARY KEY (hostnode, name)
) WITHOUT ROWID;
INSERT INTO "statistics" VALUES(2,'web',1764000012000,'{"name": "web", "uuid": "x", "run": "b-1", "packets_sent": 5}');
CREATE TABLE vm (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    uuid TEXT,
    hostnode INTEGER REFERENCES hostnode, -- where it is; NULL: on none that is known
    status TEXT NOT NULL, -- the last known: an unreachable node does not change it
    since INTEGER, -- of the status; NULL: nothing has been heard of this VM
    copies TEXT NOT NULL DEFAULT '{}', -- the VM as each node has it: register._encode
    last INTEGER REFERENCES history -- its last event
);
INSERT INTO "vm" VALUES(1,'web',NULL,2,'running',1764000004500,'{"2": {"state": "running", "order": 2, "balance": 0}}',6);
INSERT INTO "vm" VALUES(2,'db',NULL,1,'stopped',1764000002500,'{"1": {"state": "stopped", "order": 2, "balance": 0}}',3);
CREATE INDEX history_of_vm ON history (vm, id);
CREATE UNIQUE INDEX problem_open ON problem (problem, ifnull(hostnode, 0), name) WHERE solved IS NULL;
CREATE INDEX problem_of_vm ON problem (name) WHERE solved IS NULL;
CREATE VIEW unreachable AS -- nodes that nothing is known of now
    SELECT hostnode, min(raised) AS since FROM problem
    WHERE solved IS NULL AND problem IN ('node_silent', 'libvirt_lost') AND hostnode IS NOT NULL
    GROUP BY hostnode;
CREATE VIEW vm_shown AS -- unreachable is not off: the status is unknown, the last one known stands beside it
    SELECT vm.id, vm.name, vm.uuid, vm.hostnode, vm.last, hostnode.name AS node,
        iif(unreachable.since IS NULL, vm.status, 'unknown') AS status,
        vm.status AS last_status,
        ifnull(unreachable.since, vm.since) AS since
    FROM vm LEFT JOIN hostnode ON hostnode.id = vm.hostnode
    LEFT JOIN unreachable ON unreachable.hostnode = vm.hostnode;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('vm',2);
INSERT INTO "sqlite_sequence" VALUES('applied',3);
INSERT INTO "sqlite_sequence" VALUES('history',6);
INSERT INTO "sqlite_sequence" VALUES('problem',4);
COMMIT;
PRAGMA user_version = 1;
