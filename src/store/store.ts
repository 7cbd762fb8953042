import type { Kind, Metadata, Resources } from './resources.js'

/** A resource before the store has given it its identity. */
export type Draft<K extends Kind> = Omit<Resources[K], 'metadata'> & { metadata: Pick<Metadata, 'name'> }

export interface WatchEvent<K extends Kind> {
  type: 'added' | 'modified' | 'deleted'
  /** As it is after the change; for `deleted` as it was last. */
  resource: Resources[K]
}

/**
 * Where desired and observed state live. Two implementations, SQLite and Kubernetes, pass one suite of tests.
 * What a call returned is durable. Resources are values: a caller may change what it got and hand it to update().
 */
export interface Store {
  get<K extends Kind>(kind: K, name: string): Promise<Resources[K] | null>
  list<K extends Kind>(kind: K): Promise<Resources[K][]>
  /**
   * Tells what exists as `added`, then each change in its order, until the returned function is called.
   * A listener must do with hearing only the last of several changes of one resource.
   */
  watch<K extends Kind>(kind: K, listener: (event: WatchEvent<K>) => void): () => void
  /** Rejects with already-exists. */
  create<K extends Kind>(kind: K, draft: Draft<K>): Promise<Resources[K]>
  /** Compare and swap: rejects with conflict unless the stored resourceVersion is the one given, or with not-found. */
  update<K extends Kind>(kind: K, resource: Resources[K]): Promise<Resources[K]>
  /** Rejects with not-found, or with conflict where a resourceVersion is given and is not the stored one. */
  delete(kind: Kind, name: string, resourceVersion?: string): Promise<void>
  close(): Promise<void>
}
