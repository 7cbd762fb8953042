// Opens the file of the SQLite store: whose it is, whether it is whole, and its tables.
import Database from 'better-sqlite3'
import { AnkoleError, messageOf } from '../api/errors.js'
import { applicationId, migrations, schemaVersion } from './schema.js'

/** Throws data-directory-in-use, store-corrupt, store-foreign or store-newer. */
export function openDatabase(path: string): Database.Database {
  let database: Database.Database | undefined
  try {
    database = new Database(path, { timeout: 0 })
    prepare(path, database)
    return database
  } catch (error) {
    database?.close()
    throw translate(path, error)
  }
}

function prepare(path: string, database: Database.Database): void {
  // The lock is held until close, or until the kernel takes it back from a process that died.
  database.pragma('locking_mode = EXCLUSIVE')
  database.exec('BEGIN IMMEDIATE; COMMIT')
  const tables =
    database.prepare<[], { count: number }>('SELECT count(*) AS count FROM sqlite_master').get()?.count ?? 0
  if (tables > 0 && database.pragma('application_id', { simple: true }) !== applicationId) {
    throw new AnkoleError('store-foreign', `${path} is a database of another program.`)
  }
  const problem = database.pragma('quick_check(1)', { simple: true })
  if (problem !== 'ok') throw new AnkoleError('store-corrupt', `The store ${path} is damaged: ${String(problem)}.`)
  database.pragma('journal_mode = WAL')
  database.pragma('synchronous = FULL')
  migrate(path, database)
}

function migrate(path: string, database: Database.Database): void {
  const step = database.transaction(() => {
    database.pragma(`application_id = ${applicationId}`)
    database.exec(
      'CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied TEXT NOT NULL) STRICT',
    )
    const current =
      database.prepare<[], { version: number | null }>('SELECT max(version) AS version FROM migration').get()
        ?.version ?? 0
    if (current > schemaVersion) {
      throw new AnkoleError(
        'store-newer',
        `The store ${path} has schema ${current}; this release knows schemas up to ${schemaVersion}.`,
      )
    }
    for (const { version, name, sql } of migrations) {
      if (version <= current) continue
      database.exec(sql)
      database
        .prepare('INSERT INTO migration (version, name, applied) VALUES (?, ?, ?)')
        .run(version, name, new Date().toISOString())
    }
  })
  step.immediate()
}

/** What SQLite's own errors mean to the reader. */
export function translate(path: string, error: unknown): AnkoleError {
  if (error instanceof AnkoleError) return error
  const code = error instanceof Database.SqliteError ? error.code : ''
  const cause = messageOf(error)
  if (error instanceof TypeError) {
    return new AnkoleError('data-directory-unusable', `The store ${path} cannot be opened: ${cause}.`, { cause: error })
  }
  if (code.startsWith('SQLITE_BUSY') || code.startsWith('SQLITE_LOCKED')) {
    return new AnkoleError('data-directory-in-use', `The store ${path} is in use by another process.`, { cause: error })
  }
  if (code.startsWith('SQLITE_NOTADB') || code.startsWith('SQLITE_CORRUPT')) {
    return new AnkoleError('store-corrupt', `The store ${path} is damaged or not a database: ${cause}.`, {
      cause: error,
    })
  }
  if (code.startsWith('SQLITE_FULL')) {
    return new AnkoleError('no-space', `The store ${path} could not be written: its file system is full.`, {
      cause: error,
    })
  }
  if (code.startsWith('SQLITE_CANTOPEN') || code.startsWith('SQLITE_READONLY') || code.startsWith('SQLITE_PERM')) {
    return new AnkoleError('data-directory-unusable', `The store ${path} cannot be opened for writing: ${cause}.`, {
      cause: error,
    })
  }
  if (code.startsWith('SQLITE_IOERR')) {
    return new AnkoleError('io-error', `The store ${path} could not be read or written: ${cause}.`, { cause: error })
  }
  return new AnkoleError('internal', `The store ${path}: ${cause}.`, { cause: error })
}
