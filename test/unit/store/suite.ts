// What every implementation of the store must do. Kubernetes runs the same suite with its own `open`.
import type { Test } from 'tap'
import { AnkoleError } from '../../../src/api/errors.js'
import {
  giveAttachment,
  probeStore,
  salvageVolume,
  modify,
  storeIdentity,
  storeRecord,
  type MembershipRecord,
  type Store,
  type Volume,
  type WatchEvent,
} from '../../../src/store/index.js'
import { aSnapshot, aVolume, replicaIds } from './builders.js'

export interface StoreUnderTest {
  store: Store
  /** The same store, as a process started anew sees it. */
  reopen(): Promise<Store>
}

function rejectsWith(t: Test, promise: Promise<unknown>, code: string): Promise<unknown> {
  return t.rejects(promise, { name: 'AnkoleError', code })
}

export function storeSuite(t: Test, open: (t: Test) => Promise<StoreUnderTest>): void {
  const test = (name: string, body: (t: Test, under: StoreUnderTest) => Promise<void>): void => {
    void t.test(name, async (t) => {
      const under = await open(t)
      await body(t, under)
      await under.store.close()
    })
  }

  test('a resource comes back as it was created, with an identity', async (t, { store }) => {
    const created = await store.create('Volume', aVolume('demo'))
    t.match(created, aVolume('demo'))
    t.ok(created.metadata.uid)
    t.ok(created.metadata.resourceVersion)
    t.same(await store.get('Volume', 'demo'), created)
    t.same(await store.list('Volume'), [created])
    t.same(await store.list('Node'), [])
    t.equal(await store.get('Volume', 'other'), null)
  })

  test('snapshots of several volumes may have one name', async (t, under) => {
    const first = await under.store.create('Snapshot', aSnapshot('a', 'monday'))
    const second = await under.store.create('Snapshot', aSnapshot('b', 'monday'))
    await rejectsWith(t, under.store.create('Snapshot', aSnapshot('a', 'monday')), 'already-exists')
    await rejectsWith(t, under.store.create('Snapshot', { ...aSnapshot('a', 'x'), layer: '../x' }), 'store-corrupt')
    const failed = await under.store.update('Snapshot', { ...second, state: 'failed', layer: null, pauseMs: null })
    t.same(await (await under.reopen()).list('Snapshot'), [first, failed])
  })

  test('a name is taken once', async (t, { store }) => {
    await store.create('Volume', aVolume('demo'))
    await rejectsWith(t, store.create('Volume', aVolume('demo')), 'already-exists')
  })

  test('an update of an older version is refused and changes nothing', async (t, { store }) => {
    const first = await store.create('Volume', aVolume('demo'))
    const second = await store.update('Volume', { ...first, nbdPort: 20000 })
    t.not(second.metadata.resourceVersion, first.metadata.resourceVersion)
    await rejectsWith(t, store.update('Volume', { ...first, nbdPort: 30000 }), 'conflict')
    t.equal((await store.get('Volume', 'demo'))?.nbdPort, 20000)
  })

  test('of two that update from one version, one wins', async (t, { store }) => {
    const read = await store.create('Volume', aVolume('demo'))
    const results = await Promise.allSettled([1, 2].map((n) => store.update('Volume', { ...read, nbdPort: 20000 + n })))
    t.same(results.map((result) => result.status).sort(), ['fulfilled', 'rejected'])
  })

  test('modify repeats its change until it is not overtaken', async (t, { store }) => {
    await store.create('Volume', { ...aVolume('demo'), nbdPort: 20000 })
    const add = (volume: Volume): boolean => {
      volume.nbdPort += 1
      return true
    }
    await Promise.all([1, 2, 3, 4].map(() => modify(store, 'Volume', 'demo', add)))
    t.equal((await store.get('Volume', 'demo'))?.nbdPort, 20004)
  })

  test('what does not exist can be neither updated nor deleted', async (t, { store }) => {
    const volume = await store.create('Volume', aVolume('demo'))
    await store.delete('Volume', 'demo')
    await rejectsWith(t, store.update('Volume', volume), 'not-found')
    await rejectsWith(t, store.delete('Volume', 'demo'), 'not-found')
  })

  test('a volume made again under its name is another one', async (t, { store }) => {
    const old = await store.create('Volume', aVolume('demo'))
    await store.delete('Volume', 'demo')
    const anew = await store.create('Volume', aVolume('demo'))
    t.not(anew.metadata.uid, old.metadata.uid)
    t.not(anew.metadata.resourceVersion, old.metadata.resourceVersion)
    await rejectsWith(t, store.update('Volume', old), 'conflict')
  })

  test('a deletion can name the version that it means', async (t, { store }) => {
    const first = await store.create('Volume', aVolume('demo'))
    const second = await store.update('Volume', { ...first, nbdPort: 20000 })
    await rejectsWith(t, store.delete('Volume', 'demo', first.metadata.resourceVersion), 'conflict')
    await store.delete('Volume', 'demo', second.metadata.resourceVersion)
    t.equal(await store.get('Volume', 'demo'), null)
  })

  test('what does not fit the schema is not stored', async (t, { store }) => {
    await t.rejects(store.create('Volume', { ...aVolume('demo'), nbdPort: 0 }))
    t.equal(await store.get('Volume', 'demo'), null)
  })

  test('a watch tells what exists, then every change, until it is ended', async (t, { store }) => {
    await store.create('Volume', aVolume('first'))
    const heard: string[] = []
    const end = store.watch('Volume', (event: WatchEvent<'Volume'>) => {
      heard.push(`${event.type} ${event.resource.metadata.name} ${event.resource.nbdPort}`)
    })
    const second = await store.create('Volume', aVolume('second'))
    await store.update('Volume', { ...second, nbdPort: 20000 })
    await store.delete('Volume', 'second')
    await storeIdentity(store)
    await until(() => heard.length >= 4)
    end()
    await store.delete('Volume', 'first')
    t.same(heard, ['added first 10810', 'added second 10810', 'modified second 20000', 'deleted second 20000'])
  })

  test('what a caller does to a resource it got does not reach the store', async (t, { store }) => {
    const volume = await store.create('Volume', aVolume('demo'))
    volume.spec.numberOfReplicas = 7
    t.equal((await store.get('Volume', 'demo'))?.spec.numberOfReplicas, 3)
  })

  test('everything is there again in a process started anew', async (t, under) => {
    const volume = await under.store.create('Volume', aVolume('demo'))
    const identity = await storeIdentity(under.store)
    const again = await under.reopen()
    t.same(await again.get('Volume', 'demo'), volume)
    t.equal(await storeIdentity(again), identity)
  })

  test('an attachment and its record are given in one step', async (t, { store }) => {
    const volume = await store.create('Volume', aVolume('demo'))
    const given = await store.update('Volume', giveAttachment(volume, 'node-1', 'boot-1'))
    t.match(given.membership, { attachment: 1, node: 'node-1', record: volume.membership.record })
    // Whoever read before the record was written must not give an attachment with the older record.
    await storeRecord(store, 'demo', record({ generation: 1 }))
    await rejectsWith(t, store.update('Volume', giveAttachment(given, 'node-2', 'boot-1')), 'conflict')
  })

  test('a record is stored while its attachment is the last', async (t, { store }) => {
    await store.update('Volume', giveAttachment(await store.create('Volume', aVolume('demo')), 'node-1', 'boot-1'))
    await storeRecord(store, 'demo', record({ generation: 1 }))
    await storeRecord(store, 'demo', record({ generation: 1 }))
    await storeRecord(store, 'demo', record({ generation: 2, members: replicaIds.slice(1) }))
    const stored = await store.get('Volume', 'demo')
    t.same(stored?.membership.record, record({ generation: 2, members: replicaIds.slice(1) }))
    t.equal(stored?.membership.attachment, 1)
  })

  test('rule 3: a record of a lower attachment is refused', async (t, { store }) => {
    const once = await store.update(
      'Volume',
      giveAttachment(await store.create('Volume', aVolume('demo')), 'node-1', 'boot-1'),
    )
    await store.update('Volume', giveAttachment(once, 'node-2', 'boot-1'))
    await rejectsWith(t, storeRecord(store, 'demo', record({ attachment: 1, generation: 9 })), 'stale-attachment')
    t.equal((await store.get('Volume', 'demo'))?.membership.record.generation, 0)
  })

  test('a record never goes back, and never changes under its number', async (t, { store }) => {
    await store.update('Volume', giveAttachment(await store.create('Volume', aVolume('demo')), 'node-1', 'boot-1'))
    await storeRecord(store, 'demo', record({ run: 2, generation: 5 }))
    await rejectsWith(t, storeRecord(store, 'demo', record({ run: 2, generation: 4 })), 'stale-record')
    await rejectsWith(t, storeRecord(store, 'demo', record({ run: 1, generation: 6 })), 'stale-record')
    const others = replicaIds.slice(1)
    await rejectsWith(t, storeRecord(store, 'demo', record({ run: 2, generation: 5, members: others })), 'stale-record')
    t.same((await store.get('Volume', 'demo'))?.membership.record, record({ run: 2, generation: 5 }))
  })

  test('an attachment tells whether its clients start anew', async (t, { store }) => {
    const volume = await store.create('Volume', aVolume('demo'))
    const given = (before: typeof volume, node: string, bootId: string): boolean | undefined =>
      giveAttachment(before, node, bootId).membership.clientsAnew
    t.equal(given(volume, 'node-1', 'boot-1'), true, 'there were none')
    const once = giveAttachment(volume, 'node-1', 'boot-1')
    t.equal(given(once, 'node-1', 'boot-1'), false)
    t.equal(given(once, 'node-1', 'boot-2'), true)
    t.equal(given(once, 'node-2', 'boot-1'), true)
    t.equal(given(once, 'node-2', ''), false, 'where it is not known they may be there still')
    delete once.membership.host
    t.equal(given(once, 'node-2', 'boot-1'), false)
  })

  test('a probe reads the volume, and tells a newer attachment', async (t, { store }) => {
    await store.update('Volume', giveAttachment(await store.create('Volume', aVolume('demo')), 'node-1', 'boot-1'))
    await probeStore(store, 'demo', 1)
    await rejectsWith(t, probeStore(store, 'demo', 2), 'stale-attachment')
    await rejectsWith(t, probeStore(store, 'other', 1), 'not-found')
  })

  test('rule 6: a record is confirmed under the id of the store that took it', async (t, { store }) => {
    await store.update('Volume', giveAttachment(await store.create('Volume', aVolume('demo')), 'node-1', 'boot-1'))
    await storeRecord(store, 'demo', record({ generation: 1 }))
    const storeId = await storeIdentity(store)
    const stored = await store.get('Volume', 'demo')
    t.equal(stored?.membership.storeId, storeId)
    await store.update('Volume', { ...stored!, membership: { ...stored!.membership, storeId: 'another' } })
    // The same record again confirms it.
    await storeRecord(store, 'demo', record({ generation: 1 }))
    t.equal((await store.get('Volume', 'demo'))?.membership.storeId, storeId)
  })

  test('salvage gives an attachment with a record of its own, and is remembered', async (t, { store }) => {
    const volume = await store.create('Volume', aVolume('demo'))
    await store.update('Volume', giveAttachment(volume, 'node-1', 'boot-1'))
    const chosen = { ...record({ attachment: 5, run: 0, generation: 4 }), members: replicaIds.slice(0, 1) }
    const what = { attachment: 5, record: chosen, reason: 'two are gone', mayLose: 'what they held' }
    const salvaged = await salvageVolume(store, 'demo', 1, what)
    t.match(salvaged.membership, { attachment: 5, node: 'node-1', record: chosen })
    t.match(salvaged.salvages, [{ attachment: 5, replicas: chosen.members, reason: 'two are gone' }])
    // The engine that refused to start is fenced off from then on.
    await rejectsWith(t, storeRecord(store, 'demo', record({ attachment: 1, generation: 9 })), 'stale-attachment')
    await rejectsWith(t, salvageVolume(store, 'demo', 1, { ...what, attachment: 6 }), 'conflict')
  })

  test('a record names replicas of its volume, and at least one', async (t, { store }) => {
    await store.update('Volume', giveAttachment(await store.create('Volume', aVolume('demo')), 'node-1', 'boot-1'))
    await rejectsWith(t, storeRecord(store, 'demo', record({ members: [] })), 'invalid-argument')
    await rejectsWith(t, storeRecord(store, 'demo', record({ members: ['f'.repeat(16)] })), 'invalid-argument')
    await rejectsWith(t, storeRecord(store, 'other', record({})), 'not-found')
  })

  test('errors are of the one table', async (t, { store }) => {
    const error = await store.delete('Volume', 'demo').catch((error: unknown) => error)
    t.ok(error instanceof AnkoleError)
  })
}

function record(given: {
  attachment?: number
  run?: number
  generation?: number
  members?: string[]
}): MembershipRecord {
  return {
    epoch: { attachment: given.attachment ?? 1, run: given.run ?? 1 },
    generation: given.generation ?? 1,
    members: given.members ?? replicaIds,
    snapshot: '',
  }
}

async function until(done: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !done(); ++i) await new Promise((resolve) => setTimeout(resolve, 10))
}
