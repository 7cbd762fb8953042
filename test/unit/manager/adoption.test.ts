// Volumes that are made of a directory of Longhorn's: read-only until somebody confirms that they may be written to.
import t from 'tap'
import type { AdoptionRequest } from '../../../src/manager/index.js'
import { aCluster, aRequest, type Cluster } from './cluster.js'

function anAdoption(given: Partial<AdoptionRequest> = {}): AdoptionRequest {
  return {
    ...{ directory: '/longhorn/pvc-1', disk: 'disk-2', copied: false, accept: [] },
    snapshots: [
      {
        ...{ layer: 'daily-1', labels: { job: 'daily', 'no label!': 'x' }, userCreated: false },
        ...{ createdAt: '2024-05-06T07:08:09Z', sizeBytes: 4096 },
      },
      { layer: 'Before_X', labels: {}, userCreated: true, createdAt: 'some day', sizeBytes: 4096 },
    ],
    ...given,
  }
}

const adopted = async (cluster: Cluster, given: Partial<AdoptionRequest> = {}): Promise<void> => {
  await cluster.manager.createVolume(aRequest({ numberOfReplicas: 1, adopt: anAdoption(given) }))
  await cluster.untilState('demo', 'detached')
}

void t.test('the replica is made of the directory, on the disk that was named', async (t) => {
  const cluster = await aCluster(t)
  await adopted(cluster, { accept: ['dirty'] })
  const replicas = cluster.agent.plan?.disks.find(({ id }) => id === 'disk-2')?.replicas
  const adopt = { directory: '/longhorn/pvc-1', copied: false, accept: ['dirty'], readOnly: true }
  t.match(replicas, [{ volume: 'demo', adopt, desired: 'present' }])
  t.equal(cluster.manager.volume('demo').replicas.length, 1)
})

void t.test('its snapshots are there at once, with names and labels that can be some here', async (t) => {
  const cluster = await aCluster(t)
  await adopted(cluster)
  const daily = await cluster.untilSnapshot('daily-1', 'ready')
  t.match(daily, { layer: 'daily-1', createdAt: '2024-05-06T07:08:09.000Z', tries: 0, attachment: 0 })
  t.same(daily.spec.labels, { job: 'daily' })
  t.equal(daily.spec.userCreated, false)
  const other = cluster.manager.snapshots('demo').find(({ layer }) => layer === 'Before_X')
  t.match(other?.spec.name, /^before-x-[0-9a-f]{8}$/)
  t.notOk(Number.isNaN(Date.parse(other?.createdAt ?? '')))
})

void t.test('it is served read-only, and nothing changes it', async (t) => {
  const cluster = await aCluster(t)
  const { manager } = cluster
  await adopted(cluster)
  await manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  t.match(cluster.agent.plan?.engines, [{ volume: 'demo', readOnly: true }])
  const refused = { code: 'volume-read-only', message: /adopted from Longhorn, and nobody has confirmed/ }
  await t.rejects(manager.createSnapshot('demo', { name: 'one' }), refused)
  await t.rejects(manager.deleteSnapshot('demo', 'daily-1'), refused)
  await t.rejects(manager.expand('demo', 2 * 1024 ** 3), refused)
  await t.rejects(manager.makeWritable('demo'), { code: 'busy', message: /while it is attached/ })
})

void t.test('once that is confirmed it is attached as any other, and not before its replica is writable', async (t) => {
  const cluster = await aCluster(t)
  const { manager, agent } = cluster
  await adopted(cluster)
  agent.confirms = false
  await manager.makeWritable('demo')
  await cluster.until('demo', ({ adoption }) => adoption?.readOnly === false)
  await t.rejects(manager.attach('demo'), { code: 'busy', message: /is being made writable/ })
  const planned = () => agent.plan?.disks.find(({ id }) => id === 'disk-2')?.replicas[0]?.adopt?.readOnly
  await manager.waitFor('plan', 5000, () => (planned() === false ? true : undefined))
  agent.confirms = true
  agent.changed()
  await cluster.until('demo', ({ adoption }) => adoption === undefined)
  await manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  t.equal(planned(), undefined)
  t.equal(agent.plan?.engines[0]?.readOnly, undefined)
  await manager.makeWritable('demo') // It is, and that is no error.
})

void t.test('what is not confirmed stays so through a restart', async (t) => {
  const cluster = await aCluster(t)
  await adopted(cluster)
  await cluster.restart()
  await cluster.untilState('demo', 'detached')
  await cluster.manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  t.equal(cluster.agent.plan?.engines[0]?.readOnly, true)
})

void t.test('disks that are not there, or not ready, and paths that are none are refused', async (t) => {
  const cluster = await aCluster(t)
  const create = (given: Partial<AdoptionRequest>, numberOfReplicas = 1) =>
    cluster.manager.createVolume(aRequest({ numberOfReplicas, adopt: anAdoption(given) }))
  await t.rejects(create({ disk: 'disk-9' }), { code: 'cannot-place', message: /no node has that disk/ })
  await t.rejects(create({ directory: 'pvc-1' }), { code: 'invalid-argument', message: /no absolute|not an absolute/ })
  await t.rejects(create({}, 3), { code: 'invalid-argument', message: /becomes one replica/ })
  cluster.agent.diskStates.set('disk-2', 'failed')
  await t.rejects(create({}), { code: 'cannot-place', message: /the disk is not ready/ })
  t.same(cluster.manager.volumes(), [])
})
