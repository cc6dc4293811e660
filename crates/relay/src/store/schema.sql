-- The store of one relay. Payloads are sealed; nothing here can be read without a peer's keys.
-- Peers, streams, letters and blobs are named by their bytes. Times are milliseconds since 1970.

-- One row: names this database's life, so that hosts notice when its data was lost.
CREATE TABLE store (
    id BLOB NOT NULL
);

-- Streams by a short key, so that the rows and the index of envelopes stay small.
CREATE TABLE streams (
    key    INTEGER PRIMARY KEY,
    host   BLOB NOT NULL,
    stream BLOB NOT NULL,
    UNIQUE (host, stream)
);

-- Envelopes of one stream, several to a row: the events first..=last without a gap.
CREATE TABLE envelopes (
    key    INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL REFERENCES streams (key),
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL,
    frames BLOB NOT NULL, -- see chunk.rs
    UNIQUE (stream, first)
);

-- Who may read a host, as the host said last.
CREATE TABLE members (
    host    BLOB PRIMARY KEY,
    version INTEGER NOT NULL,
    devices BLOB NOT NULL -- ids of 16 bytes, one after the other
);

-- Letters that wait, and marks of those taken.
CREATE TABLE letters (
    key       INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of delivery
    addressee BLOB NOT NULL,
    sender    BLOB NOT NULL,
    id        BLOB NOT NULL,
    until     INTEGER NOT NULL, -- waiting: not to be delivered after this, 0 is never; taken: end of the mark
    size      INTEGER NOT NULL, -- 0 when taken
    frame     BLOB,             -- none when taken
    UNIQUE (addressee, sender, id)
);
CREATE INDEX mailboxes ON letters (addressee, key, until, size) WHERE frame IS NOT NULL;

-- Sealed blobs; the oldest of a host go first.
CREATE TABLE blobs (
    key   INTEGER PRIMARY KEY AUTOINCREMENT,
    host  BLOB NOT NULL,
    name  BLOB NOT NULL,
    size  INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    UNIQUE (host, name)
);
CREATE INDEX blob_sizes ON blobs (host, key, size);
