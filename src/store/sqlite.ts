import { randomUUID } from 'node:crypto'
import Database from 'better-sqlite3'
import { Compile, type Validator } from 'typebox/compile'
import { AnkoleError } from '../api/errors.js'
import { openDatabase, translate } from './database.js'
import { HighWater } from './high-water.js'
import { resourceSchemas, type Kind, type Metadata, type Resources } from './resources.js'
import type { Draft, Store, WatchEvent } from './store.js'

interface Row {
  resource_version: number
  document: string
}

interface Watcher {
  kind: Kind
  notify: (type: WatchEvent<Kind>['type'], document: string) => void
}

/** An embedded database with one writer: this process, for as long as the store is open. */
export class SqliteStore implements Store {
  readonly #database: Database.Database
  readonly #path: string
  readonly #highWater: HighWater
  /** It was put back from a copy since it was last used, and has a new id since. */
  readonly wasRestored: boolean
  readonly #watchers = new Set<Watcher>()
  readonly #validators = new Map<Kind, Validator>()
  readonly #statements

  /** Throws data-directory-in-use, store-corrupt, store-foreign or store-newer. */
  static open(path: string): SqliteStore {
    return new SqliteStore(path, openDatabase(path))
  }

  private constructor(path: string, database: Database.Database) {
    this.#path = path
    this.#database = database
    this.#statements = {
      get: database.prepare<[string, string], Row>(
        'SELECT resource_version, document FROM resource WHERE kind = ? AND name = ?',
      ),
      list: database.prepare<[string], Row>(
        'SELECT resource_version, document FROM resource WHERE kind = ? ORDER BY name',
      ),
      put: database.prepare<[string, string, number, string]>(
        'INSERT OR REPLACE INTO resource (kind, name, resource_version, document) VALUES (?, ?, ?, ?)',
      ),
      remove: database.prepare<[string, string]>('DELETE FROM resource WHERE kind = ? AND name = ?'),
      next: database.prepare<[], { value: number }>('UPDATE sequence SET value = value + 1 RETURNING value'),
      last: database.prepare<[], { value: number }>('SELECT value FROM sequence'),
    }
    const hasVolumes = this.#statements.list.get('Volume') !== undefined
    const { highWater, isBehind } = HighWater.open(`${path}.seen`, this.#sequence(), hasVolumes)
    this.#highWater = highWater
    this.wasRestored = isBehind
    if (isBehind) this.#takeNewIdentity()
  }

  get<K extends Kind>(kind: K, name: string): Promise<Resources[K] | null> {
    return this.#run(() => {
      const row = this.#statements.get.get(kind, name)
      return row ? this.#parse(kind, row.document) : null
    })
  }

  list<K extends Kind>(kind: K): Promise<Resources[K][]> {
    return this.#run(() => this.#statements.list.all(kind).map((row) => this.#parse(kind, row.document)))
  }

  watch<K extends Kind>(kind: K, listener: (event: WatchEvent<K>) => void): () => void {
    const watcher: Watcher = {
      kind,
      notify: (type, document) => {
        listener({ type, resource: this.#parse(kind, document) })
      },
    }
    for (const row of this.#statements.list.all(kind)) watcher.notify('added', row.document)
    this.#watchers.add(watcher)
    return () => {
      this.#watchers.delete(watcher)
    }
  }

  create<K extends Kind>(kind: K, draft: Draft<K>): Promise<Resources[K]> {
    const { name } = draft.metadata
    return this.#change(kind, 'added', () => {
      if (this.#statements.get.get(kind, name)) {
        throw new AnkoleError('already-exists', `${kind} ${name} exists already.`)
      }
      const creationTimestamp = new Date().toISOString()
      return this.#put(kind, {
        ...draft,
        metadata: { name, uid: randomUUID(), resourceVersion: '', creationTimestamp },
      })
    })
  }

  async update<K extends Kind>(kind: K, resource: Resources[K]): Promise<Resources[K]> {
    const changes = { members: false }
    const updated = await this.#change(kind, 'modified', () => {
      const stored = this.#expect(kind, resource.metadata.name, resource.metadata.resourceVersion)
      if (stored.metadata.uid !== resource.metadata.uid) throw conflict(kind, resource.metadata.name)
      changes.members = membersOf(stored) !== membersOf(resource)
      return this.#put(kind, resource)
    })
    // Before whoever asked goes on: an engine counts on it only then.
    if (changes.members) this.#highWater.raise(Number(updated.metadata.resourceVersion))
    return updated
  }

  async delete(kind: Kind, name: string, resourceVersion?: string): Promise<void> {
    await this.#change(kind, 'deleted', () => {
      const stored = this.#expect(kind, name, resourceVersion)
      this.#statements.remove.run(kind, name)
      return JSON.stringify(stored)
    })
  }

  close(): Promise<void> {
    this.#watchers.clear()
    return this.#run(() => {
      this.#database.close()
    })
  }

  #sequence(): number {
    return this.#statements.last.get()?.value ?? 0
  }

  #takeNewIdentity(): void {
    const row = this.#statements.get.get('StoreIdentity', 'store')
    if (row === undefined) return // It gets its first one at its first use.
    const identity = { ...this.#parse('StoreIdentity', row.document), storeId: randomUUID() }
    this.#database.transaction(() => this.#put('StoreIdentity', identity)).immediate()
  }

  #expect<K extends Kind>(kind: K, name: string, resourceVersion: string | undefined): Resources[K] {
    const row = this.#statements.get.get(kind, name)
    if (!row) throw new AnkoleError('not-found', `${kind} ${name} does not exist.`)
    if (resourceVersion !== undefined && resourceVersion !== String(row.resource_version)) throw conflict(kind, name)
    return this.#parse(kind, row.document)
  }

  #put(kind: Kind, resource: { metadata: Metadata }): string {
    const value = this.#statements.next.get()?.value
    if (value === undefined) throw this.#corrupt('its version counter is missing')
    const metadata = { ...resource.metadata, resourceVersion: String(value) }
    const document = JSON.stringify({ ...resource, metadata })
    this.#parse(kind, document) // never store what could not be read back
    this.#statements.put.run(kind, metadata.name, value, document)
    return document
  }

  /** One transaction; watchers hear of it once it is durable. */
  #change<K extends Kind>(kind: K, type: WatchEvent<K>['type'], work: () => string): Promise<Resources[K]> {
    return this.#run(() => {
      const document = this.#database.transaction(work).immediate()
      for (const watcher of this.#watchers) if (watcher.kind === kind) this.#notify(watcher, type, document)
      return this.#parse(kind, document)
    })
  }

  /** The change is made: what a listener throws is our own fault, and not the caller's to hear. */
  #notify(watcher: Watcher, type: WatchEvent<Kind>['type'], document: string): void {
    try {
      watcher.notify(type, document)
    } catch (error) {
      queueMicrotask(() => {
        throw error
      })
    }
  }

  #run<T>(work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      try {
        resolve(work())
      } catch (error) {
        reject(this.#translate(error))
      }
    })
  }

  #translate(error: unknown): Error {
    if (error instanceof Database.SqliteError) return translate(this.#path, error)
    return error instanceof Error ? error : new Error(String(error))
  }

  #parse<K extends Kind>(kind: K, document: string): Resources[K] {
    const resource = parseJson(document)
    if (!this.#isResource(kind, resource)) throw this.#corrupt(`a ${kind} in it is not as its schema says`)
    return resource
  }

  #isResource<K extends Kind>(kind: K, value: unknown): value is Resources[K] {
    let validator = this.#validators.get(kind)
    if (!validator) {
      validator = Compile(resourceSchemas[kind])
      this.#validators.set(kind, validator)
    }
    return validator.Check(value)
  }

  #corrupt(why: string): AnkoleError {
    return new AnkoleError('store-corrupt', `The store ${this.#path} is damaged: ${why}.`)
  }
}

function membersOf(resource: object): string {
  return 'membership' in resource ? JSON.stringify(resource.membership) : ''
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function conflict(kind: Kind, name: string): AnkoleError {
  return new AnkoleError('conflict', `${kind} ${name} was changed by someone else in the meantime.`)
}
