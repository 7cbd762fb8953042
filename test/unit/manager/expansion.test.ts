import t, { type Test } from 'tap'
import { assessExpansion, servedBytes, shownBytes } from '../../../src/manager/expansion.js'
import { growthObstacle, type ClusterNode } from '../../../src/manager/placement.js'
import type { EngineReport } from '../../../src/agent/index.js'
import type { Volume } from '../../../src/store/index.js'
import { aVolume } from '../store/builders.js'
import { aCluster, aRequest, type Cluster } from './cluster.js'

const GiB = 1024 ** 3

async function attached(t: Test): Promise<Cluster> {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.untilState('demo', 'detached')
  await cluster.manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  return cluster
}

function engineOf({ agent }: Cluster) {
  return agent.plan?.engines[0]
}

void t.test('an attached volume has the new size when its engine says so, and not before', async (t) => {
  const cluster = await attached(t)
  const { manager, agent } = cluster
  agent.expands = 'not yet'
  const { id } = await manager.expand('demo', 2 * GiB)
  await cluster.until('demo', ({ status }) => status.message.includes('waiting for replica b'))
  const pending = manager.volume('demo')
  t.equal(shownBytes(pending), GiB)
  t.equal(pending.spec.sizeBytes, 2 * GiB)
  t.match(engineOf(cluster), { sizeBytes: GiB, expansion: { id, sizeBytes: 2 * GiB } })
  t.equal(manager.checkExpansion(pending, id ?? ''), false)
  await t.rejects(manager.expand('demo', 3 * GiB), { code: 'busy', message: /being expanded to 2 GiB/ })
  agent.expands = 'at once'
  agent.changed()
  const done = await cluster.until('demo', ({ expansion }) => expansion === undefined)
  t.equal(manager.checkExpansion(done, id ?? ''), true)
  t.equal(shownBytes(done), 2 * GiB)
  await cluster.until('demo', () => engineOf(cluster)?.expansion === undefined)
  t.equal(engineOf(cluster)?.sizeBytes, 2 * GiB)
  t.match(await manager.expand('demo', 2 * GiB), { id: null })
  await t.rejects(manager.expand('demo', GiB), {
    code: 'invalid-size',
    message:
      'Volume demo cannot be expanded to 1 GiB (1073741824 bytes): it has 2 GiB (2147483648 bytes), and a volume does not become smaller.',
  })
})

void t.test('an engine that cannot leaves everything as it was, and says why', async (t) => {
  const cluster = await attached(t)
  const { manager, agent } = cluster
  const { spec, membership, status } = manager.volume('demo')
  agent.expands = 'never'
  const { id } = await manager.expand('demo', 2 * GiB)
  const after = await cluster.until('demo', ({ expansion }) => expansion === undefined)
  t.throws(() => manager.checkExpansion(after, id ?? ''), {
    code: 'no-space',
    message: 'Volume demo cannot be expanded to 2 GiB: disk-2 is full. It is as it was.',
  })
  t.match(after, { spec, membership, status })
  // Once more, it is another order.
  agent.expands = 'at once'
  const again = await manager.expand('demo', 2 * GiB)
  t.not(again.id, id)
  const done = await cluster.until('demo', ({ expansion }) => expansion === undefined)
  t.equal(manager.checkExpansion(done, again.id ?? ''), true)
  t.equal(done.spec.sizeBytes, 2 * GiB)
})

void t.test('a detached volume has the new size at once, and its engine before it serves', async (t) => {
  const cluster = await aCluster(t)
  const { manager, agent } = cluster
  await manager.createVolume(aRequest())
  await cluster.untilState('demo', 'detached')
  t.match(await manager.expand('demo', 2 * GiB), { id: null })
  t.match(await manager.expand('demo', 3 * GiB), { id: null })
  t.equal(shownBytes(manager.volume('demo')), 3 * GiB)
  t.equal(servedBytes(manager.volume('demo')), GiB)
  agent.expands = 'never'
  await manager.attach('demo')
  // It serves as it was, and it is tried again: whoever asked was told that it would be.
  const waiting = await cluster.until('demo', ({ status }) => status.message.includes('disk-2 is full'))
  t.equal(shownBytes(waiting), GiB)
  t.match(engineOf(cluster), { sizeBytes: GiB, expansion: { sizeBytes: 3 * GiB } })
  agent.expands = 'at once'
  agent.changed()
  const done = await cluster.until('demo', ({ expansion }) => expansion === undefined)
  t.equal(shownBytes(done), 3 * GiB)
})

void t.test('a volume is not expanded beyond what its disks may promise', async (t) => {
  const cluster = await aCluster(t)
  const { manager } = cluster
  await manager.createVolume(aRequest())
  await cluster.untilState('demo', 'detached')
  // Of 100 GiB, two times.
  await t.rejects(manager.expand('demo', 201 * GiB), { code: 'cannot-place', message: /200% of the disk/ })
  t.equal(manager.volume('demo').spec.sizeBytes, GiB)
  t.match(await manager.expand('demo', 200 * GiB), { id: null })
})

void t.test('placed replicas may grow where there is room, whatever may be placed anew', (t) => {
  const disk = (more: Partial<ClusterNode['disks'][number]>) => ({
    ...{
      id: 'd',
      allowScheduling: false,
      ready: true,
      totalBytes: 10 * GiB,
      freeBytes: 5 * GiB,
      scheduledBytes: 19 * GiB,
    },
    ...more,
  })
  const on = (more: Partial<ClusterNode['disks'][number]>) =>
    growthObstacle([{ name: 'n', allowScheduling: true, disks: [disk(more)] }], [{ node: 'n', disk: 'd' }], GiB)
  t.equal(on({}), null)
  t.equal(on({ ready: false, scheduledBytes: 20 * GiB }), null, 'a disk that is away')
  t.match(on({ scheduledBytes: 20 * GiB }), /more than 200% of the disk would be promised \(n\/d\)/)
  t.match(on({ freeBytes: 0 }), /is free \(n\/d\)/)
  t.end()
})

void t.test('what an engine serves counts, whatever was stored; a volume never becomes smaller', (t) => {
  const creationTimestamp = '2026-01-01T00:00:00.000Z'
  const metadata = { name: 'demo', uid: 'u', resourceVersion: '1', creationTimestamp }
  const volume: Volume = { ...aVolume('demo'), metadata }
  const report = (sizeBytes: number, more: Partial<EngineReport> = {}): EngineReport => ({
    ...{ volume: 'demo', attachment: 1, run: 1, state: 'serving', message: '', waitsFor: '' },
    ...{ members: [], generation: 1, replicas: [], sizeBytes, ...more },
  })
  volume.spec.sizeBytes = 2 * GiB
  t.equal(assessExpansion(volume, report(GiB)).volume, volume)
  t.equal(assessExpansion(volume, undefined).volume, volume)
  t.equal(assessExpansion(volume, report(3 * GiB)).volume.spec.sizeBytes, 3 * GiB)
  // The engine failed at the order, and a later run served it all the same.
  volume.expansion = { id: 'one', fromBytes: GiB, attached: true }
  const failed = { id: 'one', sizeBytes: 2 * GiB, state: 'failed', code: 'no-such-code', message: 'why' } as const
  t.match(assessExpansion(volume, report(2 * GiB, { expansion: failed })), { volume: { expansion: undefined } })
  t.match(assessExpansion(volume, report(GiB, { expansion: { ...failed, id: 'other' } })), { refused: undefined })
  const refused = assessExpansion(volume, report(GiB, { expansion: failed }))
  t.match(refused, { volume: { spec: { sizeBytes: GiB } }, refused: { id: 'one', code: 'internal', message: 'why' } })
  t.end()
})
