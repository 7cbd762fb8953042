// Volumes that are made of images, and those that images are made of: who may attach, detach and delete them meanwhile.
import t from 'tap'
import { nodePlan } from '../../../src/manager/node-plan.js'
import { aCluster, aRequest, type Cluster } from './cluster.js'

const mine = '00000000000000aa'
const another = '00000000000000bb'

const attached = (cluster: Cluster) => cluster.untilState('demo', 'attached')

/** Where the portal sends logins on to; empty: nowhere. */
async function address({ manager, options }: Cluster): Promise<string | undefined> {
  const [{ node } = {}] = manager.nodes()
  const plan = nodePlan(node!, manager.volumes(), options.plan)
  return Promise.resolve(plan.portal?.targets[0]?.address)
}

void t.test('a volume that is imported is nobody else\u2019s before that has ended', async (t) => {
  const cluster = await aCluster(t)
  const { manager } = cluster
  await manager.createVolume(aRequest({ transfer: mine }))
  await cluster.untilState('demo', 'detached')
  for (const by of [undefined, another]) {
    await t.rejects(manager.attach('demo', undefined, by), { code: 'volume-importing', message: /begun at 2/ })
  }
  await manager.attach('demo', undefined, mine)
  await attached(cluster)
  t.equal(await address(cluster), '', 'initiators do not find it')
  await t.rejects(manager.attach('demo'), { code: 'volume-importing' }, 'while it is attached, too')
  await t.rejects(manager.endImport('demo', mine), { code: 'busy', message: /before the volume is detached/ })
  await manager.detach('demo', another)
  t.equal(manager.volume('demo').spec.nodeID, 'node-1')
  await manager.detach('demo', mine)
  await cluster.untilState('demo', 'detached')
  await manager.endImport('demo', another)
  await t.rejects(manager.attach('demo'), { code: 'volume-importing' })
  await manager.endImport('demo', mine)
  await manager.attach('demo')
  await attached(cluster)
  t.match(await address(cluster), /^127\.0\.0\.1:\d+$/)
})

void t.test('what an import has not ended of stays so through a restart', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest({ transfer: mine }))
  await cluster.untilState('demo', 'detached')
  await cluster.restart()
  await cluster.untilState('demo', 'detached')
  await t.rejects(cluster.manager.attach('demo'), { code: 'volume-importing' })
})

void t.test('an import deletes what was made for it, and nothing else', async (t) => {
  const cluster = await aCluster(t)
  const { manager } = cluster
  await manager.createVolume(aRequest())
  await cluster.untilState('demo', 'detached')
  await t.rejects(manager.delete('demo', true, mine), { code: 'not-found' })
  t.equal(manager.volume('demo').metadata.deletionTimestamp, undefined)
  await manager.delete('demo', false)
  await cluster.gone('demo')
  await manager.createVolume(aRequest({ transfer: mine }))
  await cluster.untilState('demo', 'detached')
  await t.rejects(manager.delete('demo', true, another), { code: 'not-found' })
  await manager.delete('demo', true, mine)
  await cluster.gone('demo')
  await t.rejects(manager.createVolume(aRequest({ transfer: 'me' })), { code: 'invalid-argument' })
})

void t.test('a volume that an export attached is detached after it', async (t) => {
  const cluster = await aCluster(t)
  const { manager } = cluster
  await manager.createVolume(aRequest())
  await cluster.untilState('demo', 'detached')
  await manager.attach('demo', undefined, mine)
  await attached(cluster)
  t.match(manager.volume('demo').transfer, { id: mine, kind: 'export' })
  t.equal(await address(cluster), '', 'initiators do not find it')
  await t.rejects(manager.attach('demo', undefined, another), { code: 'busy', message: /ankole volume detach demo/ })
  await manager.detach('demo', another)
  t.equal(manager.volume('demo').spec.nodeID, 'node-1', 'the end of another one is not its end')
  await manager.detach('demo', mine)
  await cluster.untilState('demo', 'detached')
  t.equal(manager.volume('demo').transfer, undefined)
})

void t.test('a volume that somebody attached meanwhile, or before, stays attached', async (t) => {
  const cluster = await aCluster(t)
  const { manager } = cluster
  await manager.createVolume(aRequest())
  await cluster.untilState('demo', 'detached')
  await manager.attach('demo', undefined, mine)
  await attached(cluster)
  await manager.attach('demo')
  t.match(await address(cluster), /:\d+$/, 'initiators find it now')
  await manager.detach('demo', mine)
  t.equal(manager.volume('demo').spec.nodeID, 'node-1')
  await manager.attach('demo', undefined, another)
  t.equal(manager.volume('demo').transfer, undefined)
  await manager.detach('demo', another)
  t.equal(manager.volume('demo').spec.nodeID, 'node-1')
})

void t.test('who detaches it ends an export that was killed', async (t) => {
  const cluster = await aCluster(t)
  const { manager } = cluster
  await manager.createVolume(aRequest())
  await cluster.untilState('demo', 'detached')
  await manager.attach('demo', undefined, mine)
  await attached(cluster)
  await manager.detach('demo')
  await cluster.untilState('demo', 'detached')
  await manager.attach('demo', undefined, another)
  t.match(manager.volume('demo').transfer, { id: another })
})

void t.test('activity tells whether a volume was written to', async (t) => {
  const cluster = await aCluster(t)
  const { manager, agent } = cluster
  await manager.createVolume(aRequest())
  await cluster.untilState('demo', 'detached')
  await t.rejects(manager.activity('demo'), { code: 'volume-not-attached' })
  await manager.attach('demo')
  await attached(cluster)
  agent.connections = 2
  const epoch = { attachment: 1, run: 1 }
  t.same(await manager.activity('demo'), { nbdConnections: 2, iscsiSessions: 0, changes: 0, epoch })
  agent.writes = 3
  t.match(await manager.activity('demo'), { changes: 3 })
  agent.counters = () => Promise.resolve({ engines: [], disks: [] })
  await t.rejects(manager.activity('demo'), { code: 'unavailable' })
})
