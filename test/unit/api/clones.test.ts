import t, { type Test } from 'tap'
import { anApiOfDemo, type Api } from './server.js'

const url = '/v1/volumes/demo/snapshots'

/** With its snapshot «monday». */
async function anApi(t: Test): Promise<Api> {
  const api = await anApiOfDemo(t)
  await api.call('POST', url, { name: 'monday' })
  return api
}

void t.test('a linked clone is made on the disks of the members, of their files', async (t) => {
  const { call, manager, agent } = await anApi(t)
  const plans: unknown[] = []
  const original = agent.apply.bind(agent)
  agent.apply = (plan) => {
    plans.push(...plan.disks.flatMap(({ replicas }) => replicas.flatMap(({ clone }) => clone ?? [])))
    original(plan)
  }
  const { status, body } = await call('POST', `${url}/monday/clone`, { name: 'copy' })
  t.match({ status, body }, { status: 201, body: { name: 'copy', state: 'detached' } })
  t.same(body['clonedFrom'], { volume: 'demo', snapshot: 'monday', linked: true })
  const [demo, copy] = [manager.volume('demo'), manager.volume('copy')]
  t.same(
    copy.replicas.map(({ disk }) => disk),
    demo.replicas.map(({ disk }) => disk),
  )
  const ids = copy.replicas.map(({ id }) => id).sort()
  t.match(copy.membership, { attachment: 0, record: { epoch: { attachment: 0, run: 1 }, generation: 1, members: ids } })
  const of = { volume: 'demo', layer: manager.snapshot('demo', 'monday').layer, members: ids }
  t.same(
    plans.slice(0, 3),
    demo.replicas.map(({ id }) => ({ ...of, replica: id })),
  )
  t.equal(copy.clonedFrom?.making, undefined, 'they are made')
  t.notOk(agent.plan?.disks.some(({ replicas }) => replicas.some(({ clone }) => clone !== undefined)))
  t.match(copy.spec, { sizeBytes: demo.spec.sizeBytes, cache: demo.spec.cache, numberOfReplicas: 3 })

  await manager.attach('copy')
  await manager.waitFor('attached', 5000, () => (manager.volume('copy').status.state === 'attached' ? true : undefined))
})

void t.test('a snapshot with linked clones stays, and its volume may go', async (t) => {
  const { call, manager, untilState } = await anApi(t)
  await call('POST', `${url}/monday/clone`, { name: 'one' })
  await call('POST', `${url}/monday/clone`, { name: 'two' })
  t.match(await call('GET', `${url}/monday`), { body: { clones: ['one', 'two'] } })
  t.match(await call('GET', url), { body: { snapshots: [{ name: 'monday', clones: ['one', 'two'] }] } })
  t.match(await call('DELETE', `${url}/monday`), {
    status: 409,
    body: { error: { code: 'snapshot-has-clones', message: /there are linked clones of it, volumes one, two/ } },
  })
  t.match(await call('DELETE', '/v1/volumes/two'), { status: 200 })
  t.match(await call('DELETE', `${url}/monday`), {
    body: { error: { message: /volume one is a linked clone of it\.$/ } },
  })
  t.equal(manager.snapshot('demo', 'monday').state, 'ready')
  await manager.detach('demo')
  await untilState('demo', 'detached')
  t.match(await call('DELETE', '/v1/volumes/demo'), { status: 200 })
  t.match(await call('GET', '/v1/volumes/one'), { status: 200, body: { clonedFrom: { volume: 'demo' } } })
})

void t.test('what cannot be cloned is refused, and nothing is left', async (t) => {
  const { call, manager, agent } = await anApi(t)
  const clone = (name: string, snapshot = 'monday', more = {}) =>
    call('POST', `${url}/${snapshot}/clone`, { name, ...more })
  t.match(await clone('demo'), { status: 409, body: { error: { code: 'already-exists' } } })
  t.match(await clone('No'), { status: 400, body: { error: { code: 'invalid-name' } } })
  t.match(await clone('copy', 'tuesday'), { status: 404, body: { error: { code: 'not-found' } } })
  t.match(await clone('copy', 'monday', { replicas: 2 }), { status: 400 })
  agent.taking = 'held'
  void call('POST', url, { name: 'slow' })
  await manager.waitFor('asked', 5000, () => agent.asked.find(({ layer }) => layer.startsWith('slow')))
  t.match(await clone('copy', 'slow'), { status: 409, body: { error: { code: 'snapshot-not-ready' } } })
  for (const { disk } of manager.volume('demo').replicas) agent.diskStates.set(disk, 'failed')
  t.match(await clone('copy'), {
    body: { error: { code: 'cannot-place', message: /none of its up-to-date replicas/ } },
  })
  agent.diskStates.clear()
  for (const { disk } of manager.volume('demo').replicas) agent.replicaFailures.set(disk, 'it has no such snapshot')
  t.match(await clone('copy', 'monday', { timeoutSeconds: 0.2 }), {
    body: { error: { code: 'timed-out', message: /it has no such snapshot/ } },
  })
  agent.replicaFailures.clear()
  agent.changed()
  await manager.waitFor('end', 5000, () => (manager.volumes().length === 1 ? true : undefined))
})

void t.test('a copy of a snapshot is of who imports it, and has the login of the volume', async (t) => {
  const { call, manager } = await anApi(t)
  const transfer = '0123456789abcdef'
  const wanted = { name: 'copy', size: '1GiB', copyOf: { volume: 'demo', snapshot: 'monday' } }
  t.match(await call('POST', '/v1/volumes', wanted), { status: 400, body: { error: { code: 'invalid-argument' } } })
  t.match(await call('POST', '/v1/volumes', { ...wanted, size: '1MiB', transfer }), {
    body: { error: { code: 'invalid-size', message: /does not hold it/ } },
  })
  t.match(await call('POST', '/v1/volumes', { ...wanted, transfer }), {
    status: 201,
    body: { transfer: { kind: 'import' }, clonedFrom: { volume: 'demo', snapshot: 'monday', linked: false } },
  })
  t.match(await call('GET', `${url}/monday`), { body: { clones: [] } })
  t.match(await call('DELETE', `${url}/monday`), { status: 200 })
  t.equal(manager.volume('copy').clonedFrom?.snapshot, 'monday')
})

void t.test('a clone has the login of its volume, or its own', async (t) => {
  const { call, manager } = await anApi(t)
  const chap = { user: 'me', secret: 'twelve-or-more' }
  t.match(await call('POST', `${url}/monday/clone`, { name: 'own', chap }), { status: 201, body: { chap: 'one-way' } })
  await manager.attach('own')
  await manager.waitFor('attached', 5000, () => (manager.volume('own').status.state === 'attached' ? true : undefined))
  await call('POST', '/v1/volumes/own/snapshots', { name: 'first' })
  t.match(await call('POST', '/v1/volumes/own/snapshots/first/clone', { name: 'of-it' }), {
    status: 201,
    body: { chap: 'one-way' },
  })
  t.same(manager.volume('of-it').chap, chap)
})

void t.test('the tree of layers tells what is shared, and what came with a clone', async (t) => {
  const { call, manager, agent } = await anApiOfDemo(t)
  agent.freeze('demo', 'old', { removed: true })
  const { body } = await call('POST', url, { name: 'monday' })
  const layer = String(body['layer'])
  await call('POST', url, { name: 'tuesday' })
  await call('POST', `${url}/monday/clone`, { name: 'copy' })
  t.match(await call('GET', url), {
    body: {
      layers: [
        { name: 'old', removed: true, clones: ['copy'], base: false },
        { name: layer, clones: ['copy'], base: false },
        { name: /^tuesday-/, clones: [] },
        { head: true, clones: [] },
      ],
    },
  })
  await manager.attach('copy')
  await manager.waitFor('attached', 5000, () => (manager.volume('copy').status.state === 'attached' ? true : undefined))
  for (const name of ['old', layer]) agent.freeze('copy', name, { removed: true })
  await call('POST', '/v1/volumes/copy/snapshots', { name: 'own' })
  agent.freeze('copy', 'gone', { removed: true })
  t.match(await call('GET', '/v1/volumes/copy/snapshots'), {
    body: {
      snapshots: [{ name: 'own' }],
      layers: [
        { name: 'old', base: true },
        { name: layer, base: true, snapshot: null },
        { name: /^own-/, base: false },
        { name: 'gone', base: false },
        { head: true, base: false },
      ],
    },
  })
})
