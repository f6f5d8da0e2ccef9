"""The run's SQLite file: its tables, and views for people who open it with ``sqlite3``, pandas, DuckDB or Datasette.

The comments inside the statements are kept by SQLite: ``.schema`` shows them. Times ending in ``_at`` are seconds since
the Unix epoch, durations end in ``_seconds``, and NULL means not measured or not there.
"""

APPLICATION_ID = 0x64766373
"""``dvcs``, in the file's header: what this file is, for ``file(1)`` and for us."""
SCHEMA_VERSION = 2
"""Raised whenever a reader of the former version would misread the file."""

TABLES = """
CREATE TABLE run (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    fleet TEXT NOT NULL,
    fleet_file TEXT NOT NULL,        -- the fleet file as read
    devicesim_version TEXT NOT NULL,
    target TEXT NOT NULL,            -- emulator, aws, or the URL of a control plane
    arrival TEXT NOT NULL,           -- workload model: open, closed
    schedule TEXT NOT NULL,          -- when devices start, in words
    rate_per_second REAL,            -- starts a second that the schedule asks for, where that is one number
    late_after_seconds REAL NOT NULL, -- a start so far behind its schedule is late
    late_tolerance REAL NOT NULL,    -- share of starts that may be late or dropped
    started_at REAL NOT NULL,
    ended_at REAL,
    status TEXT NOT NULL             -- running, finished, interrupted, aborted; a killed run stays at running
) STRICT;

CREATE TABLE accounts (
    name TEXT PRIMARY KEY,           -- in the fleet file
    position INTEGER NOT NULL,       -- place in the fleet file
    account_id TEXT NOT NULL,
    region TEXT NOT NULL,
    endpoint TEXT,
    ca_mode TEXT,                    -- DEFAULT, SNI_ONLY; NULL: the shared CA is not registered here
    provisioning TEXT NOT NULL       -- JITP, JITR, none
) STRICT;

CREATE TABLE expectations (          -- what IoT Core should do, by the oracle
    id INTEGER PRIMARY KEY,
    outcome TEXT NOT NULL,
    account TEXT,
    mode TEXT,
    thing INTEGER,                   -- 1 with a thing, 0 without, NULL either
    first_try TEXT NOT NULL,
    registered_in TEXT,              -- account in which connecting makes a new record of the certificate
    row_id TEXT NOT NULL,            -- the row of the oracle that decides
    row_says TEXT NOT NULL,
    row_mark TEXT NOT NULL,          -- evidence: D documented, M measured, S works in practice, I inferred
    row_source TEXT NOT NULL,
    rests_on TEXT NOT NULL           -- further rows, JSON: [[id, says, mark, source], ...]
) STRICT;

CREATE TABLE groups (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL,       -- place in the fleet file
    device_count INTEGER NOT NULL,
    dials TEXT NOT NULL REFERENCES accounts (name),
    sni_setting TEXT NOT NULL,       -- as in the file: endpoint, none, other:<account>, literal:<name>
    sni_sent TEXT,                   -- the server name sent; NULL: no SNI extension
    chain_sent INTEGER NOT NULL,
    expectation_id INTEGER NOT NULL REFERENCES expectations (id),
    user_expects INTEGER NOT NULL,   -- 1 when the file has an expect of its own, in the next four columns
    user_outcome TEXT,
    user_account TEXT,
    user_mode TEXT,
    user_thing INTEGER
) STRICT;

CREATE TABLE devices (
    number INTEGER PRIMARY KEY,      -- place in the schedule, from 0
    identity_index INTEGER NOT NULL,
    group_name TEXT NOT NULL REFERENCES groups (name),
    client_id TEXT NOT NULL,
    certificate_id TEXT NOT NULL,    -- SHA-256 of the certificate's DER, as AWS has it
    expectation_id INTEGER REFERENCES expectations (id)  -- NULL: the group's
) STRICT;

CREATE TABLE attempts (              -- one row a connection try
    device INTEGER NOT NULL REFERENCES devices (number),
    attempt INTEGER NOT NULL,        -- 1 for the device's first try
    account_expected TEXT,
    sni_sent TEXT,                   -- NULL: no SNI extension
    intended_at REAL NOT NULL,       -- when the schedule or the back-off meant it to start
    started_at REAL NOT NULL,
    ended_at REAL NOT NULL,
    tcp_seconds REAL,                -- from started_at until the TCP connection stood
    tls_seconds REAL,                -- from started_at until the handshake was done and the server verified
    connect_seconds REAL,            -- from started_at until CONNECT was written
    connack_seconds REAL,            -- from started_at until CONNACK was there, whatever its code
    failure_kind TEXT,               -- what was seen; NULL: no failure
    failure_stage TEXT,              -- the stage that was under way
    failure_detail TEXT,
    tls_version TEXT,
    cipher TEXT,
    alert_name TEXT,                 -- the first fatal TLS alert, as RFC 8446 names it
    alert_code INTEGER,
    alert_level TEXT,
    alert_direction TEXT,            -- received, sent
    connack_code INTEGER,
    published INTEGER,               -- messages; NULL: the device publishes nothing
    acknowledged INTEGER,            -- of them by the server; NULL: none are asked to be (QoS 0)
    PRIMARY KEY (device, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE drops (                 -- starts that were due and not made, for too many devices were under way
    device INTEGER PRIMARY KEY,      -- place in the schedule
    group_name TEXT NOT NULL REFERENCES groups (name),
    due_at REAL NOT NULL
) STRICT;

CREATE TABLE thresholds (
    id INTEGER PRIMARY KEY,          -- place in the fleet file
    metric TEXT NOT NULL,            -- with its tags, as in the file
    expression TEXT NOT NULL,
    abort_on_fail INTEGER NOT NULL,
    delay_seconds REAL NOT NULL,     -- before which it does not end the run
    aborted_at REAL                  -- when it ended the run; NULL: it did not
) STRICT;

CREATE TABLE generator (             -- what making the load cost, sample by sample
    process TEXT NOT NULL,
    at REAL NOT NULL,                -- end of the sample
    wall_seconds REAL NOT NULL,      -- its length
    cpu_seconds REAL NOT NULL,       -- of the whole process, in that time
    starts INTEGER NOT NULL,         -- of devices, in that time
    lag TEXT NOT NULL,               -- how late the event loop woke up: a histogram of seconds, JSON
    rss_bytes INTEGER NOT NULL,      -- at its end
    PRIMARY KEY (process, at)
) STRICT, WITHOUT ROWID;

CREATE TABLE inventories (           -- an account's control plane was asked what it holds, and answered
    phase TEXT NOT NULL,             -- before, after
    account TEXT NOT NULL REFERENCES accounts (name),
    observed_at REAL NOT NULL,
    PRIMARY KEY (phase, account)
) STRICT, WITHOUT ROWID;

CREATE TABLE holdings (              -- the certificates of the run's devices that it held then
    phase TEXT NOT NULL,
    certificate_id TEXT NOT NULL,
    account TEXT NOT NULL,
    status TEXT NOT NULL,            -- as AWS spells it
    mode TEXT,
    things TEXT NOT NULL,            -- JSON array of names; null: not asked
    PRIMARY KEY (phase, certificate_id, account),
    FOREIGN KEY (phase, account) REFERENCES inventories (phase, account)
) STRICT, WITHOUT ROWID;

CREATE TABLE verdicts (
    device INTEGER PRIMARY KEY REFERENCES devices (number),
    outcome TEXT NOT NULL,           -- provisioned, pending, refused, unreachable, failed, not_started
    account TEXT,                    -- confirmed by the control plane; NULL: in none, or not confirmed
    mode TEXT,
    thing TEXT,
    expected_outcome TEXT NOT NULL,
    expected_account TEXT,
    agrees INTEGER NOT NULL,
    reason TEXT NOT NULL,            -- why it does not agree
    attempts INTEGER NOT NULL,
    time_to_provision_seconds REAL   -- from the first try's intended start to CONNACK 0
) STRICT;

CREATE TABLE notes (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    kind TEXT NOT NULL,              -- setup, activator, error, ...
    account TEXT,
    device INTEGER,
    text TEXT NOT NULL
) STRICT;
"""

VIEWS = """
CREATE VIEW device_summary AS        -- one row a device: who it is, what it saw, where it ended
SELECT
    devices.number AS device, devices.group_name, devices.client_id, devices.certificate_id,
    groups.dials, groups.sni_sent,
    coalesce(verdicts.outcome, iif(last.attempt IS NULL, 'not_started', 'undecided')) AS outcome,
    verdicts.account, verdicts.mode, verdicts.thing,
    verdicts.expected_outcome, verdicts.expected_account, verdicts.agrees, verdicts.reason,
    coalesce(last.attempt, 0) AS attempts,
    first.failure_kind AS first_failure, last.failure_kind AS last_failure, last.failure_detail AS last_detail,
    verdicts.time_to_provision_seconds
FROM devices
JOIN groups ON groups.name = devices.group_name
LEFT JOIN attempts AS first ON first.device = devices.number AND first.attempt = 1
LEFT JOIN attempts AS last ON last.device = devices.number
    AND last.attempt = (SELECT max(attempt) FROM attempts WHERE attempts.device = devices.number)
LEFT JOIN verdicts ON verdicts.device = devices.number;

CREATE VIEW stage_durations AS       -- seconds that each stage took by itself
SELECT
    device, attempt, tcp_seconds AS tcp_took, tls_seconds - tcp_seconds AS tls_took,
    connect_seconds - tls_seconds AS connect_took, connack_seconds - connect_seconds AS connack_took
FROM attempts;

CREATE VIEW failures AS              -- failed tries by what was seen
SELECT failure_kind, failure_stage, failure_detail, count(*) AS tries, count(DISTINCT device) AS devices
FROM attempts WHERE failure_kind IS NOT NULL
GROUP BY failure_kind, failure_stage, failure_detail ORDER BY tries DESC;

CREATE VIEW disagreements AS         -- devices that did not end as expected
SELECT * FROM device_summary WHERE agrees = 0;
"""
