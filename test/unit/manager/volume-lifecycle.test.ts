import { createServer } from 'node:net'
import t from 'tap'
import { storeRecord, type Volume } from '../../../src/store/index.js'
import { aVolume } from '../store/builders.js'
import { aCluster, aRequest } from './cluster.js'

const idsOf = (volume: Volume): string[] => volume.replicas.map(({ id }) => id)

void t.test('a volume goes from created to attached to detached to gone', async (t) => {
  const cluster = await aCluster(t)
  const { manager } = cluster
  await manager.createVolume(aRequest())
  const detached = await cluster.untilState('demo', 'detached')
  t.equal(new Set(detached.replicas.map(({ disk }) => disk)).size, 3)
  t.match(detached.status.replicas[0], { state: 'ready', directory: /disks\/disk-\d\/replicas\/demo-/ })

  await manager.attach('demo')
  const attached = await cluster.untilState('demo', 'attached')
  t.match(attached.status, { robustness: 'healthy', replicas: [{ state: 'member' }, { state: 'member' }, {}] })
  t.equal(attached.membership.attachment, 1)
  t.match(cluster.agent.plan?.engines, [
    {
      ...{ volume: 'demo', attachment: 1, lateMs: 1000 },
      nbd: { host: '127.0.0.1', port: attached.nbdPort },
      replicas: [{ address: 'unix:/run/disk-1.sock' }, {}, {}],
    },
  ])

  await manager.detach('demo')
  await cluster.untilState('demo', 'detached')
  t.same(cluster.agent.plan?.engines, [])

  await manager.delete('demo', false)
  await cluster.gone('demo')
  t.equal(await cluster.store.get('Volume', 'demo'), null)
})

void t.test('attaching again changes nothing', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  const first = await cluster.untilState('demo', 'attached')
  const plans = cluster.agent.plans
  await cluster.manager.attach('demo')
  await new Promise((resolve) => setTimeout(resolve, 30))
  t.same(cluster.manager.volume('demo'), first)
  t.equal(cluster.agent.plans, plans)
})

void t.test('the engine is started only when every replica of a new volume is made', async (t) => {
  const cluster = await aCluster(t)
  cluster.agent.replicaFailures.set('disk-2', 'no space left')
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  const faulted = await cluster.untilState('demo', 'faulted')
  t.match(faulted.status.message, /disk-2: no space left/)
  t.equal(faulted.membership.attachment, 0)
  t.same(cluster.agent.plan?.engines, [])
  cluster.agent.replicaFailures.clear()
  cluster.agent.changed()
  await cluster.untilState('demo', 'attached')
})

void t.test('a replica that left is shown, not replaced, and its engine goes on', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  const before = await cluster.untilState('demo', 'attached')
  const [left = '', ...members] = idsOf(before)
  const record = { epoch: { attachment: 1, run: 1 }, generation: 2, members, snapshot: '' }
  await storeRecord(cluster.store, 'demo', record)
  cluster.agent.leftReplicas.add(left)
  cluster.agent.engineState = 'degraded'
  cluster.agent.changed()
  const degraded = await cluster.until('demo', ({ status }) => status.robustness === 'degraded')
  t.equal(degraded.status.state, 'attached')
  t.match(degraded.status.replicas, [{ state: 'left', message: 'it was late' }, { state: 'member' }, {}])
  t.same(idsOf(degraded), idsOf(before))
  t.ok(cluster.agent.plan?.disks.every((disk) => disk.replicas.every(({ desired }) => desired === 'present')))

  await cluster.manager.detach('demo')
  const detached = await cluster.untilState('demo', 'detached')
  t.equal(detached.status.replicas[0]?.state, 'left', 'it stays left, by the record')
  t.same(detached.membership.record.members, members)
})

void t.test('detaching waits for the engine to end', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  cluster.agent.holdsEngines = true
  await cluster.manager.detach('demo')
  const detaching = await cluster.untilState('demo', 'detaching')
  t.equal(detaching.membership.node, 'node-1')
  cluster.agent.holdsEngines = false
  cluster.agent.changed()
  t.equal((await cluster.untilState('demo', 'detached')).membership.node, null)
})

void t.test('no replica is removed while an engine may write to it', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  cluster.agent.holdsEngines = true
  await cluster.manager.delete('demo', false)
  await cluster.untilState('demo', 'deleting')
  await new Promise((resolve) => setTimeout(resolve, 30))
  const desired = cluster.agent.plan?.disks.flatMap((disk) => disk.replicas.map(({ desired }) => desired))
  t.same(desired, ['present', 'present', 'present'])
  cluster.agent.holdsEngines = false
  cluster.agent.changed()
  await cluster.gone('demo')
})

void t.test('a volume with connected clients is deleted only by force', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  cluster.agent.connections = 1
  await t.rejects(cluster.manager.delete('demo', false), { code: 'volume-in-use', message: '1 client connection' })
  cluster.agent.connections = 0
  cluster.agent.iscsiSessions = 2
  await t.rejects(cluster.manager.delete('demo', false), { code: 'volume-in-use', message: '2 client connections' })
  t.equal(cluster.manager.volume('demo').status.state, 'attached')
  await cluster.manager.delete('demo', true)
  await cluster.gone('demo')
})

void t.test('a deletion goes on after a restart', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.untilState('demo', 'detached')
  cluster.agent.replicaFailures.set('disk-1', 'it is stuck')
  await cluster.manager.delete('demo', false)
  const stuck = await cluster.until('demo', ({ status }) => status.message.includes('stuck'))
  t.equal(stuck.status.state, 'deleting')
  await cluster.restart()
  await cluster.gone('demo')
})

void t.test('after a restart an attached volume is attached again, with a new attachment', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  const before = await cluster.untilState('demo', 'attached')
  await cluster.restart()
  const after = await cluster.until('demo', ({ membership, status }) => {
    return status.state === 'attached' && membership.attachment > before.membership.attachment
  })
  t.equal(after.membership.attachment, 2)
  t.equal(after.nbdPort, before.nbdPort)
  t.equal(after.iscsiPort, before.iscsiPort)
  t.equal(cluster.agent.plan?.engines[0]?.attachment, 2)
})

void t.test('a volume that ran before waits for its disks, and starts without one that failed', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  const { replicas } = await cluster.untilState('demo', 'attached')
  const members = replicas.map(({ id }) => id)
  const record = { epoch: { attachment: 1, run: 1 }, generation: 1, members, snapshot: '' }
  await storeRecord(cluster.store, 'demo', record)
  await cluster.manager.detach('demo')
  await cluster.untilState('demo', 'detached')
  cluster.agent.diskStates.set('disk-3', 'starting')
  cluster.agent.changed()
  await cluster.manager.attach('demo')
  const waiting = await cluster.until('demo', ({ status }) => status.message === 'waiting for disk-3')
  t.equal(waiting.membership.attachment, 1)
  cluster.agent.diskStates.set('disk-3', 'failed')
  cluster.agent.changed()
  const attached = await cluster.untilState('demo', 'attached')
  t.same(cluster.agent.plan?.engines[0]?.record, record)
  t.equal(attached.membership.attachment, 2)
})

void t.test('an engine that refuses to start faults the volume, with its reason', async (t) => {
  const cluster = await aCluster(t)
  cluster.agent.engineState = 'refused'
  cluster.agent.engineMessage = 'two of three members are missing: disk-1, disk-2'
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  const faulted = await cluster.untilState('demo', 'faulted')
  t.equal(faulted.status.message, cluster.agent.engineMessage)
  await new Promise((resolve) => setTimeout(resolve, 10))
  t.ok(cluster.log.some((line) => line.startsWith('warn volume faulted: two of three members')))
  cluster.agent.engineState = 'serving'
  cluster.agent.engineMessage = ''
  cluster.agent.changed()
  await cluster.untilState('demo', 'attached')
})

void t.test('a volume whose port is in use is not said to be attached', async (t) => {
  const cluster = await aCluster(t)
  cluster.agent.listens = 'none'
  cluster.agent.engineState = 'waiting'
  cluster.agent.engineMessage = 'NBD cannot listen: address already in use'
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  const waiting = await cluster.until('demo', ({ status }) => status.message.startsWith('NBD'))
  t.equal(waiting.status.state, 'attaching')
  cluster.agent.listens = 'nbd'
  cluster.agent.engineMessage = 'iSCSI cannot listen: address already in use'
  cluster.agent.changed()
  const half = await cluster.until('demo', ({ status }) => status.message.startsWith('iSCSI'))
  t.equal(half.status.state, 'attaching')
  cluster.agent.listens = 'both'
  cluster.agent.engineState = 'serving'
  cluster.agent.changed()
  await cluster.untilState('demo', 'attached')
})

void t.test('volumes that are created at once get ports of their own, none that is in use', async (t) => {
  const cluster = await aCluster(t)
  const other = createServer()
  const taken = await new Promise<number>((resolve) => {
    other.listen(10810, '127.0.0.1', () => {
      resolve(10810)
    })
    other.once('error', () => {
      resolve(10810) // someone else has it: as good
    })
  })
  const names = ['a', 'b', 'c', 'd']
  const volumes = await Promise.all(names.map((name) => cluster.manager.createVolume(aRequest({ name }))))
  const ports = volumes.flatMap(({ nbdPort, iscsiPort }) => [nbdPort, iscsiPort])
  t.equal(new Set(ports).size, 2 * names.length)
  t.notOk(ports.includes(taken))
  other.close()
})

void t.test('a volume of a release without iSCSI gets a port of its own at the next look, and keeps it', async (t) => {
  const cluster = await aCluster(t)
  const other = await cluster.manager.createVolume(aRequest({ name: 'other' }))
  for (const name of ['old-1', 'old-2']) {
    const { iscsiPort, ...before } = aVolume(name)
    t.ok(iscsiPort)
    await cluster.store.create('Volume', before)
  }
  await cluster.manager.attach('old-1')
  const given = await cluster.untilState('old-1', 'attached')
  const { iscsiPort: second } = await cluster.until('old-2', (volume) => volume.iscsiPort !== undefined)
  t.equal(new Set([other.nbdPort, other.iscsiPort, given.iscsiPort, second]).size, 4)
  t.equal(cluster.agent.plan?.engines[0]?.iscsi.port, given.iscsiPort)
  await cluster.restart()
  t.equal(cluster.manager.volume('old-1').iscsiPort, given.iscsiPort)
})

void t.test('a volume that cannot be placed is not made, and why is said', async (t) => {
  const cluster = await aCluster(t, { disks: 2 })
  const creation = cluster.manager.createVolume(aRequest())
  await t.rejects(creation, { code: 'cannot-place', message: /3 replicas of 1 GiB need a disk of its own each, and 2/ })
  t.same(cluster.manager.volumes(), [])
})

void t.test('wrong names, numbers and doubles are refused', async (t) => {
  const { manager } = await aCluster(t)
  await t.rejects(manager.createVolume(aRequest({ name: 'Demo' })), { code: 'invalid-name' })
  await t.rejects(manager.createVolume(aRequest({ numberOfReplicas: 0 })), { code: 'invalid-argument' })
  await manager.createVolume(aRequest())
  await t.rejects(manager.createVolume(aRequest()), { code: 'already-exists' })
  await t.rejects(manager.attach('other'), { code: 'not-found' })
  await t.rejects(manager.attach('demo', 'moon'), { code: 'not-found', message: 'moon' })
})

void t.test('nothing that the manager logs holds a secret of a volume', async (t) => {
  const cluster = await aCluster(t)
  const chap = { user: 'me', secret: 'a secret of mine', mutualUser: 'you', mutualSecret: 'a secret of yours' }
  const { secret } = await cluster.manager.createVolume(aRequest({ chap }))
  await cluster.manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  t.match(secret, /^[0-9a-f]{64}$/)
  t.notOk(cluster.log.join('\n').includes(secret))
  t.notMatch(cluster.log.join('\n'), /a secret of/)
  t.match(cluster.agent.plan?.engines[0]?.iscsi.chap, chap, 'the engine has it')
})

void t.test('an idle cluster writes nothing and sends no plan', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  const before = await cluster.untilState('demo', 'attached')
  const plans = cluster.agent.plans
  for (let i = 0; i < 5; ++i) {
    cluster.agent.changed()
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  t.equal(cluster.manager.volume('demo').metadata.resourceVersion, before.metadata.resourceVersion)
  t.equal(cluster.agent.plans, plans)
})

void t.test('a volume is scrubbed when it is due, by its own settings, and again after a restart', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  await cluster.manager.update('demo', { scrubBandwidth: 5 * 1024 ** 2 })
  const before = await cluster.store.get('Volume', 'demo')
  const old = '2020-01-01T00:00:00.000Z'
  await cluster.store.update('Volume', { ...before!, scrub: { begunAt: old } })
  await cluster.until('demo', () => cluster.agent.plan?.engines[0]?.scrub !== undefined)
  t.match(cluster.agent.plan?.engines[0]?.scrub, { bytesPerSecond: 5 * 1024 ** 2, regionsDone: 0 })
  cluster.agent.scrubs({ regionsDone: 40 })
  await cluster.until('demo', ({ scrub }) => scrub?.current?.regionsDone === 40)
  const { id } = cluster.agent.plan!.engines[0]!.scrub!
  await cluster.restart()
  await cluster.until('demo', () => cluster.agent.plan?.engines[0]?.scrub !== undefined)
  t.match(cluster.agent.plan?.engines[0]?.scrub, { id, regionsDone: 40 })
  cluster.agent.scrubs({ running: false, finished: true, regionsDone: 256, differingBlocks: 1 })
  await cluster.until('demo', ({ scrub }) => scrub?.last !== undefined)
  await cluster.until('demo', () => cluster.agent.plan?.engines[0]?.scrub === undefined)
  t.ok(cluster.log.some((line) => line.startsWith('warn scrub has ended') && line.includes('1 not the same at all')))
})
