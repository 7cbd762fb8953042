import t from 'tap'
import type { ListeningEvent } from '../../../src/native/index.js'
import { aDisk, aNode, aPlan, aReplica, eventually, settled } from './builders.js'

const listening: ListeningEvent = { event: 'listening', addresses: ['unix:/run/disk-1.sock'] }

t.test('a disk of the plan gets a disk host, and is ready when that listens', async (t) => {
  const { agent, supervisor, lines } = aNode(t)
  agent.apply(aPlan({ version: 7, disks: [aDisk()] }))
  t.match(supervisor.specs.get('disk-host/disk-1'), {
    config: { disk: 'disk-1', directory: '/disk', listen: ['unix:/run/disk-1.sock'], ioBackend: 'auto' },
  })
  t.match(agent.report(), { version: 7, node: 'node-1', disks: [{ id: 'disk-1', state: 'starting', replicas: [] }] })
  supervisor.say('disk-host/disk-1', { event: 'io-backend', backend: 'uring', reason: 'it works' })
  supervisor.say('disk-host/disk-1', listening)
  await settled()
  t.match(agent.report().disks, [
    { state: 'ready', ioBackend: 'uring', addresses: ['unix:/run/disk-1.sock'], totalBytes: 1000, freeBytes: 400 },
  ])
  t.match(agent.report().processes, [{ kind: 'disk-host', disk: 'disk-1', pid: 100 }])
  t.equal(lines.filter(({ message }) => message.startsWith('io back end')).length, 1)
})

t.test('replicas are created and removed as the plan says, once each', async (t) => {
  const { agent, supervisor, disk } = aNode(t)
  agent.apply(aPlan({ disks: [aDisk([aReplica('aa'), aReplica('bb')])] }))
  t.match(agent.report().disks[0]!.replicas, [{ state: 'creating' }, { state: 'creating' }])
  t.equal(supervisor.posts.length, 0, 'nothing is asked of a disk host that does not listen yet')
  supervisor.say('disk-host/disk-1', listening)
  await settled()
  t.match(agent.report().disks[0]!.replicas, [
    { volume: 'demo', id: 'aa', state: 'ready', directory: '/disk/replicas/demo-aa' },
    { volume: 'demo', id: 'bb', state: 'ready', directory: '/disk/replicas/demo-bb' },
  ])
  t.match(supervisor.posted('create-replica')[0], { volume: 'demo', sizeBytes: 1 << 30, cache: 'buffered' })

  agent.apply(aPlan({ disks: [aDisk([aReplica('aa'), aReplica('bb', 'absent')])] }))
  await settled()
  t.match(agent.report().disks[0]!.replicas, [
    { id: 'aa', state: 'ready' },
    { id: 'bb', state: 'removed' },
  ])
  t.strictSame([...disk.keys()], ['aa'])
  agent.apply(aPlan({ disks: [aDisk([aReplica('aa'), aReplica('bb', 'absent')])] }))
  await settled()
  t.equal(supervisor.posted('create-replica').length, 2)
  t.equal(supervisor.posted('remove-replica').length, 1)
})

t.test('a replica that is in no plan any more is left where it is', async (t) => {
  const { agent, supervisor, disk } = aNode(t)
  agent.apply(aPlan({ disks: [aDisk([aReplica('aa')])] }))
  supervisor.say('disk-host/disk-1', listening)
  await settled()
  agent.apply(aPlan({ disks: [aDisk([])] }))
  await settled()
  t.strictSame(agent.report().disks[0]!.replicas, [])
  t.ok(disk.has('aa'))
})

t.test('what the disk host refuses is reported with its reason, and tried again', async (t) => {
  const { agent, supervisor, lines } = aNode(t)
  const create = supervisor.answers['create-replica']!
  let refusals = 2
  supervisor.answers['create-replica'] = (message, key) =>
    refusals-- > 0 ? { error: { code: 'no-space', message: 'the disk is full' } } : create(message, key)
  agent.apply(aPlan({ disks: [aDisk([aReplica('aa')])] }))
  supervisor.say('disk-host/disk-1', listening)
  await settled()
  t.match(agent.report().disks[0]!.replicas, [
    { state: 'failed', message: 'cannot create it: the disk is full (no-space)' },
  ])
  await eventually(() => agent.report().disks[0]!.replicas[0]!.state === 'ready')
  t.equal(agent.report().disks[0]!.replicas[0]!.message, '')
  t.equal(lines.filter(({ message }) => message.includes('the disk is full')).length, 1, 'one line, not one a try')
})

t.test('after a restart of the disk host it is asked anew what is there', async (t) => {
  const { agent, supervisor, disk } = aNode(t)
  agent.apply(aPlan({ disks: [aDisk([aReplica('aa'), aReplica('bb')])] }))
  supervisor.say('disk-host/disk-1', listening)
  await settled()
  supervisor.end('disk-host/disk-1', 'was ended by SIGKILL', 0)
  t.match(agent.report().disks[0], {
    state: 'starting',
    message: 'the disk host was ended by SIGKILL, starting it again at once',
    addresses: [],
    replicas: [{ state: 'creating' }, { state: 'creating' }],
  })
  disk.delete('bb')
  supervisor.run('disk-host/disk-1')
  supervisor.say('disk-host/disk-1', listening)
  await settled()
  t.match(agent.report().disks[0], {
    state: 'ready',
    replicas: [
      { id: 'aa', state: 'ready' },
      { id: 'bb', state: 'failed', message: 'its directory is gone from the disk' },
    ],
  })
  t.notOk(disk.has('bb'), 'an empty one under its name would pass for it')
})

t.test('a request that dies with its disk host is made again to the next', async (t) => {
  const { agent, supervisor } = aNode(t)
  const create = supervisor.answers['create-replica']!
  supervisor.answers['create-replica'] = () => undefined
  agent.apply(aPlan({ disks: [aDisk([aReplica('aa')])] }))
  supervisor.say('disk-host/disk-1', listening)
  await settled()
  supervisor.end('disk-host/disk-1', 'was ended by SIGKILL', 0)
  await settled()
  supervisor.answers['create-replica'] = create
  supervisor.run('disk-host/disk-1')
  supervisor.say('disk-host/disk-1', listening)
  await settled()
  t.match(agent.report().disks[0]!.replicas, [{ state: 'ready' }])
})

t.test('a replica that is adopted is read-only until the plan says otherwise', async (t) => {
  const { agent, supervisor } = aNode(t)
  const adopt = { directory: '/longhorn/pvc-1', copied: false, accept: [], readOnly: true }
  agent.apply(aPlan({ disks: [aDisk([{ ...aReplica('aa'), adopt }])] }))
  supervisor.say('disk-host/disk-1', listening)
  await settled()
  t.match(supervisor.posted('create-replica'), [{ id: 'aa', adopt }])
  t.match(agent.report().disks[0]!.replicas, [{ state: 'ready', readOnly: true }])
  const confirmed = { ...adopt, readOnly: false }
  agent.apply(aPlan({ version: 2, disks: [aDisk([{ ...aReplica('aa'), adopt: confirmed }])] }))
  await settled()
  t.match(supervisor.posted('create-replica'), [{ adopt }, { adopt: confirmed }])
  t.match(agent.report().disks[0]!.replicas, [{ state: 'ready', readOnly: false }])
  agent.apply(aPlan({ version: 3, disks: [aDisk([aReplica('aa')])] }))
  await settled()
  t.equal(supervisor.posted('create-replica').length, 2, 'and is asked for no more')
})

t.test('a disk that cannot be used says why until it can', (t) => {
  const { agent, supervisor, lines } = aNode(t)
  agent.apply(aPlan({ disks: [aDisk()] }))
  for (let attempt = 0; attempt < 3; attempt++) {
    supervisor.say('disk-host/disk-1', { event: 'failed', code: 'read-only', message: '/disk cannot be written' })
    supervisor.end('disk-host/disk-1', 'exited with code 1', 100)
    t.match(agent.report().disks, [{ state: 'failed', message: '/disk cannot be written' }])
    supervisor.run('disk-host/disk-1')
    t.match(agent.report().disks, [{ state: 'failed', message: '/disk cannot be written' }])
  }
  t.equal(lines.filter(({ level }) => level === 'error').length, 1)
  supervisor.say('disk-host/disk-1', listening)
  t.match(agent.report().disks, [{ state: 'ready', message: '' }])
  t.end()
})

t.test('a replica that the disk host cannot open is reported so', async (t) => {
  const { agent, supervisor, disk } = aNode(t)
  const broken = {
    volume: 'demo',
    id: 'aa',
    directory: '/disk/replicas/demo-aa',
    sizeBytes: 1 << 30,
    allocatedBytes: 0,
    dirtyRegions: 0,
    readOnly: false,
  }
  disk.set('aa', { ...broken, state: 'failed', error: 'volume.meta is not JSON' })
  agent.apply(aPlan({ disks: [aDisk([aReplica('aa')])] }))
  supervisor.say('disk-host/disk-1', listening)
  await settled()
  t.match(agent.report().disks[0]!.replicas, [
    { state: 'failed', message: 'volume.meta is not JSON', directory: '/disk/replicas/demo-aa' },
  ])
  t.equal(supervisor.posted('create-replica').length, 0)
})

t.test('a disk that leaves the plan loses its disk host and its place in the report', async (t) => {
  const { agent, supervisor } = aNode(t)
  agent.apply(aPlan({ disks: [aDisk()] }))
  agent.apply(aPlan({ disks: [] }))
  await settled()
  t.strictSame(agent.report().disks, [])
  t.match(supervisor.stops, [{ key: 'disk-host/disk-1' }])
})
