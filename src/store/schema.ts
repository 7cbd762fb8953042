// The tables of the SQLite store. A released step is never changed: what must differ is a new step.

export interface Migration {
  version: number
  name: string
  sql: string
}

export const migrations: readonly Migration[] = [
  {
    version: 1,
    name: 'resources',
    sql: `
      CREATE TABLE resource (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        resource_version INTEGER NOT NULL,
        document TEXT NOT NULL CHECK (json_valid(document)),
        PRIMARY KEY (kind, name)
      ) STRICT, WITHOUT ROWID;
      -- One counter for all resources: a version is never given twice, not even after a deletion.
      CREATE TABLE sequence (one INTEGER PRIMARY KEY CHECK (one = 1), value INTEGER NOT NULL) STRICT;
      INSERT INTO sequence (one, value) VALUES (1, 0);
    `,
  },
  {
    version: 2,
    name: 'snapshots',
    // Snapshots are documents as all else is. A release that knows none would take a volume's layers for nobody's: so it
    // must not open this store any more.
    sql: '',
  },
]

export const schemaVersion = migrations.at(-1)?.version ?? 0

/** "Ankl" in SQLite's header: tells our database from everyone else's. */
export const applicationId = 0x416e6b6c
