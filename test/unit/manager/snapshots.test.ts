import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { EngineReport } from '../../../src/agent/index.js'
import { AnkoleError } from '../../../src/api/errors.js'
import { SnapshotKeeper } from '../../../src/manager/snapshot-keeper.js'
import {
  assessSnapshot,
  checkLabels,
  draftSnapshot,
  layersToAdopt,
  nameByTime,
  newLayer,
  snapshotCreatingMsMax,
  snapshotsMax,
  snapshotsPlan,
  snapshotTriesMax,
  type SnapshotSurroundings,
} from '../../../src/manager/snapshots.js'
import { SqliteStore, type Snapshot, type Volume } from '../../../src/store/index.js'
import { aVolume } from '../store/builders.js'
import { aCluster, aRequest, type Cluster } from './cluster.js'

async function anAttachedVolume(t: Test): Promise<Cluster> {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  return cluster
}

const pause = (ms = 30): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
const asked = ({ agent }: Cluster): string[] => agent.asked.map(({ layer }) => layer)
const layers = ({ agent }: Cluster): string[] => (agent.layersOf.get('demo') ?? []).map(({ name }) => name)

void t.test('a snapshot is taken by the engine, kept, and deleted', async (t) => {
  const cluster = await anAttachedVolume(t)
  const { manager, agent } = cluster
  const labels = { app: 'db' }
  t.match(await manager.createSnapshot('demo', { name: 'monday', labels }), { state: 'creating', pauseMs: null })
  const monday = await cluster.untilSnapshot('monday', 'ready')
  t.match(monday, { pauseMs: 1.5, sizeBytes: 1024 ** 3, layer: /^monday-[0-9a-f]{8}$/, spec: { labels } })
  t.match(agent.asked, [{ layer: monday.layer, labels, userCreated: true, createdSeconds: Number }])
  t.same(layers(cluster), [monday.layer])
  await manager.createSnapshot('demo', {})
  const second = await cluster.manager.waitFor('second', 5000, () =>
    manager.snapshots('demo').find(({ spec, state }) => spec.name !== 'monday' && state === 'ready'),
  )
  t.match(second.spec.name, /^snap-\d{8}-\d{6}$/)
  await pause()
  t.same(agent.plan?.engines[0]?.snapshots, undefined, 'what is done is planned no more')
  t.match(await manager.deleteSnapshot('demo', 'monday'), { state: 'deleting' })
  await cluster.snapshotGone('monday')
  t.same(layers(cluster), [second.layer])
  await pause()
  t.equal(manager.snapshots('demo').length, 1)
})

void t.test('names of snapshots are unique within the volume, and of layers for ever', async (t) => {
  const cluster = await anAttachedVolume(t)
  const { manager } = cluster
  const both = await Promise.allSettled(['a', 'b'].map(() => manager.createSnapshot('demo', { name: 'monday' })))
  t.same(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  t.match(
    both.find(({ status }) => status === 'rejected'),
    { reason: { code: 'already-exists', message: 'Volume demo has a snapshot monday already.' } },
  )
  await cluster.untilSnapshot('monday', 'ready')
  t.equal(cluster.agent.asked.length, 1)
  await t.rejects(manager.createSnapshot('demo', { name: 'Monday' }), { code: 'invalid-name', message: /a snapshot/ })
  await manager.createVolume(aRequest({ name: 'other' }))
  await manager.attach('other')
  await cluster.untilState('other', 'attached')
  await manager.createSnapshot('other', { name: 'monday' })
  await manager.deleteSnapshot('demo', 'monday')
  await cluster.snapshotGone('monday')
  await manager.createSnapshot('demo', { name: 'monday' })
  await cluster.untilSnapshot('monday', 'ready')
  t.equal(new Set(asked(cluster)).size, 3)
})

void t.test('only a volume that serves has snapshots taken', async (t) => {
  const cluster = await aCluster(t)
  const { manager } = cluster
  const create = (): Promise<Snapshot> => manager.createSnapshot('demo', { name: 'monday' })
  await t.rejects(create(), { code: 'not-found' })
  await manager.createVolume(aRequest())
  await cluster.untilState('demo', 'detached')
  await t.rejects(create(), { code: 'volume-not-attached', message: /the volume is detached, not attached/ })
  await manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  cluster.agent.holdsEngines = true
  await manager.detach('demo')
  await t.rejects(create(), { code: 'volume-not-attached' })
  await manager.delete('demo', true)
  await t.rejects(create(), { code: 'volume-deleting' })
  t.same(await cluster.store.list('Snapshot'), [])
})

void t.test('what may pass is tried again with another layer, a few times', async (t) => {
  const cluster = await anAttachedVolume(t)
  cluster.agent.taking = { code: 'busy', message: 'the members change' }
  await cluster.manager.createSnapshot('demo', { name: 'monday' })
  const failed = await cluster.untilSnapshot('monday', 'failed')
  t.match(failed, { layer: null, message: `none could be taken in 5 tries, the last time: the members change` })
  t.equal(new Set(asked(cluster)).size, snapshotTriesMax)
  t.same(failed.abandonedLayers, asked(cluster))
  cluster.agent.taking = 'taken'
  await cluster.manager.createSnapshot('demo', { name: 'monday', labels: { a: 'b' } })
  const ready = await cluster.untilSnapshot('monday', 'ready')
  t.match(ready, { layer: asked(cluster)[snapshotTriesMax], tries: 0, spec: { labels: { a: 'b' } } })
  t.same(layers(cluster), [ready.layer])
})

/** «monday» has failed for good, and its layer is there and cannot be deleted. */
async function aFailedSnapshot(t: Test): Promise<Cluster & { failed: Snapshot }> {
  const cluster = await anAttachedVolume(t)
  const { agent, manager } = cluster
  agent.taking = { code: 'io-error', message: 'writes may be lost' }
  agent.deleting = 'it is being read (busy)'
  const { layer } = await manager.createSnapshot('demo', { name: 'monday' })
  agent.freeze('demo', layer!)
  const failed = await cluster.untilSnapshot('monday', 'failed')
  t.match(failed, { layer: null, abandonedLayers: [layer], message: 'writes may be lost' })
  return { ...cluster, failed }
}

void t.test('what one before left behind is none that is asked for under its name', async (t) => {
  const cluster = await aFailedSnapshot(t)
  const { agent, manager, failed } = cluster
  agent.taking = 'held'
  const again = await manager.createSnapshot('demo', { name: 'monday', labels: { a: 'b' } })
  t.match(again, { state: 'creating', abandonedLayers: failed.abandonedLayers, spec: { labels: { a: 'b' } } })
  await manager.waitFor('question', 5000, () => agent.asked[1])
  agent.engineDies('demo') // So that the list is what there is to go by.
  await manager.waitFor('second try', 5000, () => agent.asked[2])
  agent.deleting = 'gone'
  agent.taking = 'taken'
  agent.changed()
  const { layer } = await cluster.untilSnapshot('monday', 'ready')
  t.not(layer, failed.abandonedLayers[0])
  t.same(layers(cluster), [layer])
  await manager.waitFor('end of memory', 5000, () =>
    manager.snapshot('demo', 'monday').abandonedLayers.length === 0 ? true : undefined,
  )
  await pause()
  t.equal(manager.snapshots('demo').length, 1)
})

void t.test('layers that are gone are not kept in mind', async (t) => {
  const cluster = await aFailedSnapshot(t)
  const { agent, manager } = cluster
  await pause()
  t.equal(manager.snapshot('demo', 'monday').abandonedLayers.length, 1)
  agent.deleting = 'gone'
  agent.changed()
  await manager.waitFor('end of memory', 5000, () =>
    manager.snapshot('demo', 'monday').abandonedLayers.length === 0 ? true : undefined,
  )
  await manager.waitFor('plan', 5000, () => (agent.plan?.engines[0]?.snapshots === undefined ? true : undefined))
  t.equal(manager.snapshot('demo', 'monday').state, 'failed')
})

void t.test('one that failed is replaced in one step, and what goes wrong is told as it is', async (t) => {
  const { store, manager, failed } = await aFailedSnapshot(t)
  const stubs = ['create', 'update'] as const
  const good = stubs.map((name) => store[name].bind(store))
  const without = async (error: Error, name: string): Promise<void> => {
    for (const stub of stubs) Object.assign(store, { [stub]: () => Promise.reject(error) })
    await t.rejects(manager.createSnapshot('demo', { name }), error)
    for (const [index, stub] of stubs.entries()) Object.assign(store, { [stub]: good[index] })
  }
  await without(new Error('the process ends here'), 'monday')
  t.match(await store.get('Snapshot', 'demo.monday'), { state: 'failed', abandonedLayers: failed.abandonedLayers })
  await without(new AnkoleError('not-found', 'of something else'), 'tuesday')
  await without(new AnkoleError('conflict', 'of something else'), 'tuesday')
})

void t.test('what will not pass fails at once', async (t) => {
  const cluster = await anAttachedVolume(t)
  cluster.agent.taking = { code: 'unsupported', message: 'replica aa cannot prepare it' }
  await cluster.manager.createSnapshot('demo', { name: 'monday' })
  t.match(await cluster.untilSnapshot('monday', 'failed'), { message: 'replica aa cannot prepare it', tries: 1 })
  await cluster.manager.deleteSnapshot('demo', 'monday')
  await cluster.snapshotGone('monday')
})

void t.test('an engine that died while it took one is asked for another layer', async (t) => {
  const cluster = await anAttachedVolume(t)
  const { agent } = cluster
  agent.taking = 'held'
  await cluster.manager.createSnapshot('demo', { name: 'monday' })
  await cluster.manager.waitFor('question', 5000, () => agent.asked[0])
  agent.taking = 'taken'
  agent.engineDies('demo')
  const ready = await cluster.untilSnapshot('monday', 'ready')
  t.same(asked(cluster), [ready.abandonedLayers[0], ready.layer])
  t.same(layers(cluster), [ready.layer])
})

void t.test('one that was sealed and that nobody answered for is taken', async (t) => {
  const cluster = await anAttachedVolume(t)
  const { agent } = cluster
  agent.taking = 'held'
  const { layer } = await cluster.manager.createSnapshot('demo', { name: 'monday' })
  await cluster.manager.waitFor('question', 5000, () => agent.asked[0])
  agent.freeze('demo', layer!, { sealed: false })
  agent.engineDies('demo')
  await pause()
  t.equal(cluster.manager.snapshot('demo', 'monday').state, 'creating', 'not sealed: not yet')
  t.equal(agent.asked.length, 1)
  agent.layersOf.get('demo')![0]!.sealed = true
  agent.changed()
  t.match(await cluster.untilSnapshot('monday', 'ready'), { layer, pauseMs: null, abandonedLayers: [] })
  t.equal(agent.asked.length, 1)
})

void t.test('a layer of a try before is the snapshot, if it is the one that came about', async (t) => {
  const cluster = await anAttachedVolume(t)
  const { agent } = cluster
  agent.taking = 'held'
  const { layer: first } = await cluster.manager.createSnapshot('demo', { name: 'monday' })
  await cluster.manager.waitFor('first', 5000, () => agent.asked[0])
  agent.engineDies('demo')
  const second = await cluster.manager.waitFor('second', 5000, () => agent.asked[1])
  agent.freeze('demo', second.layer, { sealed: false })
  agent.freeze('demo', first!)
  agent.engineDies('demo')
  t.match(await cluster.untilSnapshot('monday', 'ready'), { layer: first, abandonedLayers: [second.layer] })
  await cluster.manager.waitFor('end of the other', 5000, () => (layers(cluster).length === 1 ? true : undefined))
  t.same(layers(cluster), [first], 'the other one goes')
  t.equal(cluster.manager.snapshots('demo').length, 1)
})

void t.test('one that is deleted while it is taken goes when it is there', async (t) => {
  const cluster = await anAttachedVolume(t)
  const { agent, manager } = cluster
  agent.taking = 'held'
  const { layer } = await manager.createSnapshot('demo', { name: 'monday' })
  await manager.waitFor('question', 5000, () => agent.asked[0])
  agent.lists = false // The engine is at it, whatever the plan says by now.
  await manager.deleteSnapshot('demo', 'monday')
  await manager.waitFor('plan', 5000, () => (agent.plan?.engines[0]?.snapshots?.take.length === 0 ? true : undefined))
  await pause()
  t.equal(manager.snapshot('demo', 'monday').state, 'deleting')
  agent.freeze('demo', layer!)
  agent.lists = true
  agent.changed()
  await cluster.snapshotGone('monday')
  t.same(layers(cluster), [])
  await pause()
  t.same(manager.snapshots('demo'), [], 'and is not taken for a stranger')
})

void t.test('a detached volume: what was asked for fails until it turns up, what is to go waits', async (t) => {
  const cluster = await anAttachedVolume(t)
  const { manager, agent } = cluster
  await manager.createSnapshot('demo', { name: 'sunday' })
  const { layer: sunday } = await cluster.untilSnapshot('sunday', 'ready')
  agent.taking = 'held'
  const { layer: monday } = await manager.createSnapshot('demo', { name: 'monday' })
  await manager.waitFor('question', 5000, () => agent.asked[1])
  await manager.detach('demo')
  const detached = { layer: monday, message: 'the volume was detached' }
  t.match(await cluster.untilSnapshot('monday', 'failed'), detached)
  await manager.deleteSnapshot('demo', 'sunday')
  await pause()
  t.equal(manager.snapshot('demo', 'sunday').state, 'deleting')
  agent.freeze('demo', monday!) // It was sealed as the engine stopped.
  t.same(layers(cluster), [sunday, monday])
  await manager.attach('demo')
  await cluster.snapshotGone('sunday')
  t.match(await cluster.untilSnapshot('monday', 'ready'), { layer: monday, message: '', pauseMs: null })
  t.same(layers(cluster), [monday])
  const { layer: tuesday } = await manager.createSnapshot('demo', { name: 'tuesday' })
  await manager.waitFor('question', 5000, () => agent.asked[2])
  await manager.detach('demo')
  t.match(await cluster.untilSnapshot('tuesday', 'failed'), { layer: tuesday })
  await manager.attach('demo')
  await manager.waitFor('the list', 5000, () => (manager.snapshot('demo', 'tuesday').layer === null ? true : undefined))
  t.match(manager.snapshot('demo', 'tuesday'), { state: 'failed', message: 'the volume was detached' })
  await manager.createSnapshot('demo', { name: 'tuesday' }) // The name is free.
})

void t.test('the snapshots of a volume go with it, and are not those of its successor', async (t) => {
  const cluster = await anAttachedVolume(t)
  const { manager, agent } = cluster
  await manager.createSnapshot('demo', { name: 'monday' })
  await cluster.untilSnapshot('monday', 'ready')
  agent.taking = 'held'
  await manager.createSnapshot('demo', { name: 'tuesday' })
  await manager.delete('demo', true)
  await cluster.gone('demo')
  t.same(await cluster.store.list('Snapshot'), [])
  agent.layersOf.clear()
  await manager.createVolume(aRequest())
  t.same(manager.snapshots('demo'), [])
  t.throws(() => manager.snapshot('demo', 'monday'), { code: 'not-found', message: /has no snapshot "monday"/ })
})

void t.test('snapshots of a volume that is no more are forgotten', async (t) => {
  const cluster = await anAttachedVolume(t)
  const { metadata } = cluster.manager.volume('demo')
  const gone = { ...cluster.manager.volume('demo'), metadata: { ...metadata, uid: 'of the one before' } }
  await cluster.store.create('Snapshot', draftSnapshot(gone, 'monday', {}, [], 0))
  await cluster.manager.waitFor('end', 5000, () => true)
  for (let n = 0; n < 50 && (await cluster.store.list('Snapshot')).length > 0; n++) await pause(10)
  t.same(await cluster.store.list('Snapshot'), [])
  t.same(asked(cluster), [])
})

void t.test('a manager that is started anew goes on with each of them', async (t) => {
  const cluster = await anAttachedVolume(t)
  await cluster.manager.createSnapshot('demo', { name: 'kept' })
  const kept = await cluster.untilSnapshot('kept', 'ready')
  await cluster.manager.createSnapshot('demo', { name: 'going' })
  await cluster.untilSnapshot('going', 'ready')
  cluster.agent.taking = 'held'
  const sealed = await cluster.manager.createSnapshot('demo', { name: 'sealed' })
  const lost = await cluster.manager.createSnapshot('demo', { name: 'lost' })
  await cluster.manager.waitFor('questions', 5000, () => cluster.agent.asked[3])
  cluster.agent.lists = false
  await cluster.manager.deleteSnapshot('demo', 'going')
  cluster.agent.freeze('demo', sealed.layer!)
  await cluster.restart()
  t.match(await cluster.untilSnapshot('sealed', 'ready'), { layer: sealed.layer, pauseMs: null })
  const again = await cluster.untilSnapshot('lost', 'ready')
  t.same(again.abandonedLayers, [lost.layer])
  await cluster.snapshotGone('going')
  t.same(cluster.manager.snapshot('demo', 'kept'), kept)
  t.same(layers(cluster), [kept.layer, sealed.layer, again.layer])
  t.equal(cluster.manager.snapshots('demo').length, 3)
})

void t.test('why one cannot be deleted yet is told', async (t) => {
  const cluster = await anAttachedVolume(t)
  await cluster.manager.createSnapshot('demo', { name: 'monday' })
  await cluster.untilSnapshot('monday', 'ready')
  cluster.agent.deleting = 'it is being read (busy)'
  await cluster.manager.deleteSnapshot('demo', 'monday')
  await cluster.manager.waitFor('message', 5000, () => cluster.manager.snapshot('demo', 'monday').message || undefined)
  t.equal(cluster.manager.snapshot('demo', 'monday').message, 'it is being read (busy)')
  cluster.agent.deleting = 'removed'
  cluster.agent.changed()
  await cluster.snapshotGone('monday')
  await pause()
  t.same(cluster.manager.snapshots('demo'), [], 'what waits to be merged is no snapshot')
})

void t.test('layers that the store does not know are adopted', async (t) => {
  const cluster = await anAttachedVolume(t)
  const { agent, manager } = cluster
  agent.freeze('demo', 'monday-00aa11bb')
  agent.freeze('demo', 'Tuesday_2', { userCreated: false })
  agent.freeze('demo', 'deleted', { removed: true })
  agent.freeze('demo', 'unsealed', { sealed: false })
  agent.changed()
  const monday = await cluster.untilSnapshot('monday-00aa11bb', 'ready')
  t.match(monday, { createdAt: '2026-05-28T20:26:40.000Z', layer: 'monday-00aa11bb', pauseMs: null })
  await manager.waitFor('other', 5000, () => manager.snapshots('demo')[1])
  await pause()
  const [, tuesday, ...more] = manager.snapshots('demo')
  t.match(tuesday, { layer: 'Tuesday_2', spec: { name: /^tuesday-2-[0-9a-f]{8}$/, userCreated: false } })
  t.same(more, [])
  t.ok(cluster.log.some((line) => line.startsWith('warn a snapshot that the store did not know')))
})

void t.test('one whose layer nobody has failed, and is ready when somebody has it', async (t) => {
  const cluster = await anAttachedVolume(t)
  const { agent, manager } = cluster
  await manager.createSnapshot('demo', { name: 'monday' })
  const { layer } = await cluster.untilSnapshot('monday', 'ready')
  agent.layersOf.clear()
  agent.changed()
  t.match(await cluster.untilSnapshot('monday', 'failed'), {
    layer,
    message: /no replica of the volume has its layer mon/,
  })
  await t.rejects(manager.createSnapshot('demo', { name: 'monday' }), { code: 'already-exists' })
  agent.freeze('demo', layer!)
  agent.changed()
  t.match(await cluster.untilSnapshot('monday', 'ready'), { layer, message: '', pauseMs: 1.5 })
})

// ---------------------------------------------------------------- pure functions

function aSnapshot(parts: Partial<Snapshot> = {}): { snapshot: Snapshot; surroundings: SnapshotSurroundings } {
  const creationTimestamp = '2026-01-01T00:00:00.000Z'
  const volume: Volume = {
    ...aVolume('demo'),
    metadata: { name: 'demo', uid: 'u', resourceVersion: '1', creationTimestamp },
  }
  volume.spec.nodeID = volume.membership.node = 'node-1'
  volume.membership.attachment = 1
  const nowMs = Date.parse(creationTimestamp)
  const draft = draftSnapshot(volume, 'monday', {}, [], nowMs)
  const metadata = { name: 'demo.monday', uid: 's', resourceVersion: '2', creationTimestamp }
  const snapshot: Snapshot = { ...draft, metadata, layer: 'monday-1', ...parts }
  return { snapshot, surroundings: { volume, engine: anEngine(), isUnplanned: () => true, nowMs } }
}

function anEngine(parts: Partial<NonNullable<EngineReport['snapshots']>> = {}): EngineReport {
  return {
    ...{ volume: 'demo', attachment: 1, run: 1, state: 'serving', message: '', waitsFor: '' },
    ...{ members: [], generation: 1, replicas: [] },
    snapshots: { answers: [], troubles: [], ...parts },
  }
}

const head = { name: '', parent: '', createdSeconds: 0, allocatedBytes: 0, sizeBytes: 1 }
const headOnly = [{ ...head, removed: false, userCreated: false, sealed: false }]

void t.test('nobody gets a snapshot of another time than they asked for', (t) => {
  const { snapshot, surroundings } = aSnapshot()
  const lateMs = surroundings.nowMs + snapshotCreatingMsMax + 1
  const at = (nowMs: number, parts?: Parameters<typeof anEngine>[0]) =>
    assessSnapshot(snapshot, { ...surroundings, nowMs, engine: parts && anEngine(parts) })
  const message = 'it was not taken within 10 minutes'
  t.equal(at(lateMs - 1), snapshot)
  t.match(at(lateMs), { state: 'failed', layer: 'monday-1', message }, 'nobody knows what became of it')
  t.match(at(lateMs, { layers: headOnly }), { state: 'failed', layer: null, abandonedLayers: ['monday-1'], message })
  t.equal(at(lateMs, { taking: 'monday-1' }), snapshot, 'the engine is at it')
  const answers = [{ layer: 'monday-1', taken: true as const, pauseNs: 1 }]
  t.match(at(lateMs, { answers }), { state: 'ready' }, 'what was taken was taken')
  const again = aSnapshot({ askedAt: new Date(lateMs).toISOString() })
  t.equal(assessSnapshot(again.snapshot, { ...again.surroundings, nowMs: lateMs }), again.snapshot)
  t.end()
})

const sealed = (name: string) => ({ ...headOnly[0]!, name, sealed: true, sizeBytes: 7 })

void t.test('one that was finished is ready, however late it is found', (t) => {
  const { snapshot, surroundings } = aSnapshot({ layer: 'monday-2', tries: 2, abandonedLayers: ['before', 'monday-1'] })
  const nowMs = surroundings.nowMs + snapshotCreatingMsMax + 1
  const volume = structuredClone(surroundings.volume)
  volume.membership.attachment = 2
  const away = { ...surroundings, volume, nowMs, engine: undefined }
  const lost = assessSnapshot(snapshot, away)!
  t.match(lost, { state: 'failed', layer: 'monday-2', abandonedLayers: ['before', 'monday-1'] })
  t.same(snapshotsPlan(volume, [lost]), { take: [], absent: ['before'] }, 'which may be deleted')
  for (const [layer, other] of [
    ['monday-1', 'monday-2'],
    ['monday-2', 'monday-1'],
  ] as const) {
    const engine = anEngine({ layers: [sealed('before'), { ...sealed(other), sealed: false }, sealed(layer)] })
    for (const one of [snapshot, lost]) {
      const next = assessSnapshot(one, { ...away, engine })!
      t.match(next, { state: 'ready', layer, message: '', pauseMs: null, sizeBytes: 7 })
      t.same(new Set(snapshotsPlan(volume, [next])?.absent), new Set(['before', other]))
    }
  }
  const unsealed = anEngine({ layers: [{ ...sealed('monday-1'), sealed: false }, ...headOnly] })
  t.equal(assessSnapshot(snapshot, { ...away, engine: unsealed })?.state, 'creating', 'it is sealed or deleted soon')
  t.equal(assessSnapshot(lost, { ...away, engine: unsealed })?.layer, 'monday-2')
  const none = { ...away, engine: anEngine({ layers: headOnly }), isUnplanned: (layer: string) => layer === 'before' }
  t.match(assessSnapshot(lost, none), { layer: 'monday-2', abandonedLayers: ['monday-1'] }, 'it is planned yet')
  t.match(assessSnapshot(lost, { ...none, isUnplanned: () => true }), { state: 'failed', layer: null })
  t.end()
})

void t.test('what was answered with an error is none, though its layer be sealed', (t) => {
  const { snapshot, surroundings } = aSnapshot()
  const answer = { layer: 'monday-1', taken: false as const, code: 'io-error', message: 'writes may be lost' }
  const engine = anEngine({ answers: [answer], layers: [sealed('monday-1'), ...headOnly] })
  const failed = assessSnapshot(snapshot, { ...surroundings, engine })!
  t.match(failed, { state: 'failed', layer: null, abandonedLayers: ['monday-1'], message: 'writes may be lost' })
  t.same(snapshotsPlan(surroundings.volume, [failed]), { take: [], absent: ['monday-1'] })
  t.same(assessSnapshot(failed, { ...surroundings, engine }), failed, 'and stays so')
  const passing = anEngine({ ...engine.snapshots, answers: [{ ...answer, code: 'timed-out' }] })
  t.match(assessSnapshot(snapshot, { ...surroundings, engine: passing }), { state: 'ready', layer: 'monday-1' })
  t.end()
})

void t.test('nothing is concluded from an engine that has not listed its layers', (t) => {
  const states = ['creating', 'ready', 'deleting', 'failed'] as const
  for (const state of states) {
    const { snapshot, surroundings } = aSnapshot({ state, attachment: 0 })
    t.equal(assessSnapshot(snapshot, surroundings), snapshot, state)
    if (state === 'creating') continue
    const old = { ...surroundings, engine: anEngine({ layers: [] }) }
    t.equal(assessSnapshot(snapshot, old), snapshot, `${state}, of replicas that know of no layers`)
  }
  t.end()
})

void t.test('a deleted one that the engine may still be asked for is not forgotten', (t) => {
  const { snapshot, surroundings } = aSnapshot({ state: 'deleting' })
  const engine = anEngine({ layers: headOnly })
  t.equal(assessSnapshot(snapshot, { ...surroundings, engine, isUnplanned: () => false }), snapshot)
  t.equal(assessSnapshot(snapshot, { ...surroundings, engine }), null)
  const troubles = [{ layer: 'monday-1', message: 'replica bb is away (unavailable)' }]
  const elsewhere = anEngine({ layers: headOnly, troubles })
  t.match(
    assessSnapshot(snapshot, { ...surroundings, engine: elsewhere }),
    { state: 'deleting', message: 'replica bb is away (unavailable)' },
    'nor one that another member may have',
  )
  const removed = anEngine({ layers: [{ ...sealed('monday-1'), removed: true }, ...headOnly] })
  t.equal(assessSnapshot(snapshot, { ...surroundings, engine: removed }), null)
  const never = aSnapshot({ state: 'deleting', layer: null })
  t.equal(assessSnapshot(never.snapshot, never.surroundings), null, 'none was ever asked for')
  t.end()
})

void t.test('the answer of another attachment is none', (t) => {
  const { snapshot, surroundings } = aSnapshot({ attachment: 0 })
  const engine = anEngine({ layers: headOnly, answers: [{ layer: 'monday-1', taken: true, pauseNs: 1 }] })
  const next = assessSnapshot(snapshot, { ...surroundings, engine })
  t.match(next, { state: 'creating', attachment: 1, tries: 2, abandonedLayers: ['monday-1'] })
  t.not(next?.layer, 'monday-1')
  t.end()
})

void t.test('names and labels', (t) => {
  t.equal(nameByTime(Date.parse('2026-11-25T16:32:23.519Z')), 'snap-20261125-163223')
  t.match(newLayer('monday'), /^monday-[0-9a-f]{8}$/)
  t.not(newLayer('monday'), newLayer('monday'))
  const long = newLayer('x'.repeat(63))
  t.equal(long.length, 63)
  t.match(newLayer(`${'x'.repeat(53)}-${'y'.repeat(9)}`), /^x{53}-[0-9a-f]{8}$/)
  t.same(checkLabels({ 'a.b/c-d_e': '☃ = "x"' }), { 'a.b/c-d_e': '☃ = "x"' })
  for (const bad of [
    { '': 'x' },
    { '-a': 'x' },
    { a: 'x\n' },
    { a: 'x\ud800' },
    { a: 'x'.repeat(4090) },
    { ['a'.repeat(254)]: '' },
  ]) {
    t.throws(() => checkLabels(bad), { code: 'invalid-argument' }, JSON.stringify(bad).slice(0, 20))
  }
  t.end()
})

void t.test('adopted layers get names of their own, the same each time', (t) => {
  const { snapshot, surroundings } = aSnapshot({ layer: 'monday-1', abandonedLayers: ['monday-0'] })
  const names = ['monday-0', 'monday-1', 'monday', '___', 'x'.repeat(63), `${'x'.repeat(62)}_`]
  const layers = names.map((name) => ({ ...head, name, removed: false, userCreated: true, sealed: true }))
  const adopt = () => layersToAdopt(surroundings.volume, [snapshot], anEngine({ layers }), 0)
  t.same(
    adopt().map(({ layer }) => layer),
    names.slice(2),
  )
  const given = adopt().map(({ spec }) => spec.name)
  t.match(given, [/^monday-[0-9a-f]{8}$/, /^snap-[0-9a-f]{8}$/, /^x{63}$/, /^x{54}-[0-9a-f]{8}$/])
  t.same(
    adopt().map(({ spec }) => spec.name),
    given,
  )
  t.end()
})

void t.test('layers that do not say when they were made are from now', (t) => {
  const { surroundings } = aSnapshot()
  const times = [1, 8.64e12, 0, 8.64e12 + 1, 1e300, -1]
  const layers = times.map((createdSeconds, n) => ({ ...sealed(`layer-${n}`), createdSeconds }))
  const adopted = layersToAdopt(surroundings.volume, [], anEngine({ layers }), surroundings.nowMs)
  const now = '2026-01-01T00:00:00.000Z'
  t.same(
    adopted.map(({ createdAt }) => createdAt),
    ['1970-01-01T00:00:01.000Z', '+275760-09-13T00:00:00.000Z', now, now, now, now],
  )
  t.end()
})

function aKeeper(t: Test, count: number): { keeper: SnapshotKeeper; volume: Volume; store: SqliteStore } {
  const store = SqliteStore.open(join(t.testdir(), 'ankole.db'))
  t.teardown(() => store.close())
  const keeper = new SnapshotKeeper(store, { info: () => undefined, warn: () => undefined, error: () => undefined })
  const { surroundings, snapshot } = aSnapshot({ state: 'failed', layer: null })
  const { volume } = surroundings
  volume.status.state = 'attached'
  for (let n = 0; n < count; n++) {
    const metadata = { ...snapshot.metadata, name: `demo.s${n}` }
    const resource = { ...snapshot, metadata, askedAt: new Date(n * 1000).toISOString() }
    keeper.onEvent({ type: 'added', resource: { ...resource, spec: { ...snapshot.spec, name: `s${n}` } } })
  }
  return { keeper, volume, store }
}

void t.test('a volume has as many snapshots as it may have', async (t) => {
  const { keeper, volume } = aKeeper(t, snapshotsMax - 1)
  t.match(await keeper.create(volume, { name: 'last' }), { state: 'creating' })
  keeper.onEvent({ type: 'added', resource: aSnapshot().snapshot })
  await t.rejects(keeper.create(volume, { name: 'more' }), {
    code: 'too-many-snapshots',
    message: /^Snapshot more of volume demo cannot be taken: the volume has 1024, .*1024 are the most\. Delete some/,
  })
})

void t.test('snapshots are found by their volume, in their order', (t) => {
  const { keeper, volume } = aKeeper(t, 3)
  const other = { ...volume, metadata: { ...volume.metadata, uid: 'other' } }
  const { snapshot } = aSnapshot({ askedAt: '1969-01-01T00:00:00.000Z' })
  keeper.onEvent({ type: 'added', resource: { ...snapshot, spec: { ...snapshot.spec, volumeUid: 'other' } } })
  const names = (of: Volume): string[] => keeper.of(of).map(({ metadata }) => metadata.name)
  t.same(names(volume), ['demo.s0', 'demo.s1', 'demo.s2'])
  t.same(names(other), ['demo.monday'])
  t.equal(keeper.of(volume), keeper.of(volume), 'without looking at all again')
  keeper.onEvent({ type: 'added', resource: snapshot })
  t.same(names(volume), ['demo.monday', 'demo.s0', 'demo.s1', 'demo.s2'])
  keeper.onEvent({ type: 'deleted', resource: snapshot })
  t.equal(names(volume).length, 3)
  t.end()
})
