# SPDX-License-Identifier: Apache-2.0
"""The tables of the panel's database, and how an older database comes to have them.

Times are integers: milliseconds since 1970, UTC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION: Final = 2

# An intent is what the panel is to do at a node's libvirt, committed with what made it necessary.
_INSTALLATION: Final = """
CREATE TABLE osmgr ( -- the templates of operating systems
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    rebootcount INTEGER NOT NULL, -- how often the guest reboots until it is installed
    timelimit INTEGER NOT NULL, -- seconds for the whole installation
    medium TEXT NOT NULL, -- an image of a CD on the node that the guest boots from; '': none
    kernel TEXT NOT NULL, -- a kernel on the node that the guest boots, instead; '': none
    initrd TEXT NOT NULL,
    cmdline TEXT NOT NULL
);
CREATE TABLE installation ( -- its row is the installation mark
    vm INTEGER PRIMARY KEY REFERENCES vm ON DELETE CASCADE,
    osmgr INTEGER NOT NULL REFERENCES osmgr,
    steps INTEGER NOT NULL, -- reboots in all
    remaining INTEGER NOT NULL, -- reboots to come: the counter
    heard INTEGER NOT NULL DEFAULT 0, -- that the VM runs, since the panel was last to start it
    started INTEGER, -- when the panel had started it for this step; NULL: that is to be done
    began INTEGER NOT NULL,
    since INTEGER NOT NULL, -- of this step
    deadline INTEGER NOT NULL,
    waits TEXT, -- for a person, and why: a word of installation.REASONS; NULL: it goes on
    guessed INTEGER NOT NULL DEFAULT 0 -- reboots that were counted though their cause is unknown
);
CREATE INDEX installation_deadline ON installation (deadline) WHERE waits IS NULL;
CREATE TABLE intent (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    vm INTEGER NOT NULL UNIQUE REFERENCES vm ON DELETE CASCADE, -- the later one says it all
    action TEXT NOT NULL, -- installation.Action
    created INTEGER NOT NULL,
    error TEXT -- of the last try; NULL: not tried, or being tried
);
"""

_PROBLEMS: Final = """
CREATE TABLE problem (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    problem TEXT NOT NULL,
    hostnode INTEGER, -- neither this nor the name need be known to the panel: that may be the problem
    name TEXT NOT NULL,
    level TEXT NOT NULL DEFAULT 'error', -- warning, error
    text TEXT NOT NULL,
    raised INTEGER NOT NULL,
    last INTEGER NOT NULL, -- when it was told the last time
    count INTEGER NOT NULL DEFAULT 1, -- how often it was told
    solved INTEGER,
    solver TEXT -- who solved it by hand; NULL: it ended by itself
);
CREATE UNIQUE INDEX problem_open ON problem (problem, ifnull(hostnode, 0), name) WHERE solved IS NULL;
CREATE INDEX problem_of_vm ON problem (name) WHERE solved IS NULL;
CREATE INDEX problem_solved ON problem (solved) WHERE solved IS NOT NULL;
"""

_STATISTICS: Final = """
CREATE TABLE sample ( -- what a domain did between two collections: the plots
    vm INTEGER NOT NULL REFERENCES vm ON DELETE CASCADE,
    time INTEGER NOT NULL, -- the interval's end
    seconds REAL NOT NULL, -- its length
    bytes_received INTEGER NOT NULL, bytes_sent INTEGER NOT NULL, packets_sent INTEGER NOT NULL,
    read_bytes INTEGER NOT NULL, write_bytes INTEGER NOT NULL, write_requests INTEGER NOT NULL,
    PRIMARY KEY (vm, time)
) WITHOUT ROWID;
CREATE TABLE idle ( -- the status check's warning: one of the two is 0, or NULL where it is not judged
    vm INTEGER PRIMARY KEY REFERENCES vm ON DELETE CASCADE,
    packets_sent INTEGER,
    write_requests INTEGER,
    seconds REAL NOT NULL, -- of the last interval
    since INTEGER NOT NULL -- the first interval of this warning began then
);
"""

_SETTINGS: Final = """
CREATE TABLE setting ( -- what people set on pages, and what the panel made: policy, the services' secret
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE service ( -- vmwatch-node of a node that the panel manages, or vmwatch-master (hostnode 0)
    hostnode INTEGER PRIMARY KEY, -- that of a removed node stays until the master has forgotten the node
    state TEXT NOT NULL DEFAULT 'unknown', -- as it was found: running, stopped, disabled, unreachable, unknown
    checked INTEGER, -- when; NULL: not yet
    asked INTEGER NOT NULL DEFAULT 1, -- how often its configuration was asked for
    done INTEGER NOT NULL DEFAULT 0, -- which asking it was configured for; below asked, it is to be configured
    stale INTEGER NOT NULL DEFAULT 0, -- its file was to change, and it has not been started since
    configured INTEGER, -- when it last was; NULL: not yet
    error TEXT, -- why the last try failed; NULL: it did not
    report TEXT NOT NULL DEFAULT '{}' -- what it says of itself: shown_services.Report
);
INSERT INTO service (hostnode, asked) VALUES (0, 0);
"""

_LAST: Final = """
CREATE INDEX vm_last ON vm (last); -- a history row that goes is looked for here
CREATE INDEX vm_of_node ON vm (hostnode); -- how many there are of each node, on every look of an open page
"""

_VIEWS: Final = """
CREATE VIEW unreachable AS -- nodes that nothing is known of now
    SELECT hostnode, min(raised) AS since FROM problem
    WHERE solved IS NULL AND problem IN ('node_silent', 'libvirt_lost') AND hostnode IS NOT NULL
    GROUP BY hostnode;
CREATE VIEW node_cause AS -- of an ailing node the one problem that tells most
    SELECT hostnode, id, min(rank) AS rank FROM (
        SELECT hostnode, id, CASE problem WHEN 'libvirt_lost' THEN 1 WHEN 'service_stopped' THEN 2
            WHEN 'node_silent' THEN 3 ELSE 4 END AS rank
        FROM problem WHERE solved IS NULL AND name = '' AND hostnode IS NOT NULL
            AND problem IN ('libvirt_lost', 'service_stopped', 'node_silent', 'node_unreachable'))
    GROUP BY hostnode;
CREATE VIEW problem_shown AS -- one cause, one problem: what follows from a node's is covered by that
    SELECT problem.*, hostnode.name AS node, nullif(node_cause.id, problem.id) AS covered_by
    FROM problem LEFT JOIN hostnode ON hostnode.id = problem.hostnode
    LEFT JOIN vm ON vm.name = problem.name
    LEFT JOIN node_cause ON node_cause.hostnode = ifnull(problem.hostnode, vm.hostnode) AND problem.solved IS NULL
        -- A duplicate wants a hand whatever else there is: the VM's other copy is on a node that is heard.
        AND iif(problem.name = '',
            problem.problem IN ('libvirt_lost', 'service_stopped', 'node_silent', 'node_unreachable'),
            problem.problem <> 'duplicate' AND node_cause.rank < 4);
CREATE VIEW vm_shown AS -- unreachable is not off: the status is unknown, the last one known stands beside it
    SELECT vm.id, vm.name, vm.uuid, vm.hostnode, vm.last, hostnode.name AS node,
        iif(unreachable.since IS NULL, vm.status, 'unknown') AS status,
        vm.status AS last_status,
        ifnull(unreachable.since, vm.since) AS since
    FROM vm LEFT JOIN hostnode ON hostnode.id = vm.hostnode
    LEFT JOIN unreachable ON unreachable.hostnode = vm.hostnode;
"""

SCHEMA: Final = f"""
CREATE TABLE account (
    name TEXT PRIMARY KEY,
    password TEXT NOT NULL -- access.hash_password
) WITHOUT ROWID;
CREATE TABLE hostnode (
    id INTEGER PRIMARY KEY, -- the node_id of vmwatch-node.conf
    name TEXT NOT NULL UNIQUE,
    address TEXT NOT NULL DEFAULT '', -- where SSH reaches it: [USER@]HOST; '': it is the panel's own host
    uri TEXT NOT NULL DEFAULT '', -- its libvirt, as the panel reaches it; '': follows from the address
    removed INTEGER -- when it was; its row stays, for the history names it
);
CREATE TABLE vm (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    uuid TEXT,
    hostnode INTEGER REFERENCES hostnode, -- where it is; NULL: on none that is known
    status TEXT NOT NULL, -- the last known: an unreachable node does not change it
    since INTEGER, -- of the status; NULL: nothing has been heard of this VM
    copies TEXT NOT NULL DEFAULT '{{}}', -- the VM as each node has it: register._encode
    last INTEGER REFERENCES history -- its last event
);
CREATE TABLE applied ( -- the last event taken of a node's run and VM: what is not newer is a repetition
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    vm INTEGER NOT NULL REFERENCES vm ON DELETE CASCADE,
    hostnode INTEGER NOT NULL,
    run TEXT NOT NULL,
    seq INTEGER NOT NULL,
    UNIQUE (vm, hostnode, run)
);
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
CREATE INDEX history_of_vm ON history (vm, id);
CREATE TABLE statistics ( -- the latest of each domain
    hostnode INTEGER NOT NULL,
    name TEXT NOT NULL,
    time INTEGER NOT NULL,
    domain TEXT NOT NULL, -- JSON, as the node counted it
    PRIMARY KEY (hostnode, name)
) WITHOUT ROWID;
{_LAST}{_PROBLEMS}{_INSTALLATION}{_STATISTICS}{_SETTINGS}{_VIEWS}"""

_FROM_1: Final = f"""
ALTER TABLE hostnode ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE hostnode ADD COLUMN uri TEXT NOT NULL DEFAULT '';
ALTER TABLE hostnode ADD COLUMN removed INTEGER;
DROP VIEW vm_shown;
DROP VIEW unreachable;
DROP INDEX problem_open;
DROP INDEX problem_of_vm;
ALTER TABLE problem RENAME TO problem_1;
{_PROBLEMS}
INSERT INTO problem (id, problem, hostnode, name, text, raised, last, solved)
    SELECT id, problem, hostnode, name, text, raised, raised, solved FROM problem_1;
UPDATE problem SET level = 'warning' WHERE problem IN ('events_lost', 'outbox_replaced');
DROP TABLE problem_1;
{_LAST}{_INSTALLATION}{_STATISTICS}{_SETTINGS}{_VIEWS}"""  # noqa: S608 (no value in it)

MIGRATIONS: Final[Mapping[int, str]] = {1: _FROM_1}
"""Version -> the statements that lead from it to the next."""
