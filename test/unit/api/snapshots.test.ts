import t from 'tap'
import { anApiOfDemo } from './server.js'

const url = '/v1/volumes/demo/snapshots'

void t.test('a snapshot is taken, shown in the tree, and deleted', async (t) => {
  const { call, agent } = await anApiOfDemo(t)
  t.match(await call('GET', url), { status: 200, body: { volume: 'demo', snapshots: [], layers: [{ head: true }] } })
  const monday = await call('POST', url, { name: 'monday', labels: { app: 'db' } })
  const layer = monday.body['layer']
  t.match(monday, {
    status: 201,
    body: {
      ...{ volume: 'demo', name: 'monday', state: 'ready', message: '', labels: { app: 'db' }, userCreated: true },
      ...{ pauseMs: 1.5, layer: /^monday-/, parent: null, children: ['volume-head'], sizeBytes: 1024 ** 3 },
      allocatedBytes: 4096,
    },
  })
  agent.freeze('demo', 'old', { removed: true, allocatedBytes: 512 })
  t.match(await call('POST', url), { status: 201, body: { name: /^snap-/, parent: 'old', children: ['volume-head'] } })
  const { body } = await call('GET', url)
  t.match(body, {
    snapshots: [{ name: 'monday', children: ['old'] }, { name: /^snap-/ }],
    layers: [
      { name: layer, head: false, snapshot: 'monday', parent: null, children: ['old'], removed: false },
      { name: 'old', snapshot: null, parent: layer, children: [/^snap-/], removed: true, allocatedBytes: 512 },
      { name: /^snap-/, snapshot: /^snap-/, parent: 'old', children: ['volume-head'] },
      { name: 'volume-head', head: true, snapshot: null, children: [], allocatedBytes: 8192 },
    ],
  })
  const one = `${url}/monday`
  t.match(await call('GET', one), { status: 200, body: { name: 'monday', children: ['old'] } })
  const deleted = { volume: 'demo', name: 'monday', deleted: true, message: '', allocatedBytes: 4096 }
  t.same(await call('DELETE', one), { status: 200, body: deleted })
  t.match(await call('GET', one), { status: 404, body: { error: { code: 'not-found' } } })
  t.match(await call('DELETE', one), { status: 404, body: { error: { code: 'not-found' } } })
})

void t.test('what cannot be taken is refused with its cause', async (t) => {
  const { call, agent, manager, untilState } = await anApiOfDemo(t)
  await call('POST', url, { name: 'monday' })
  t.match(await call('POST', url, { name: 'monday' }), { status: 409, body: { error: { code: 'already-exists' } } })
  t.match(await call('POST', url, { name: 'a.b' }), { status: 400, body: { error: { code: 'invalid-name' } } })
  const labels = { 'a b': 'c' }
  t.match(await call('POST', url, { labels }), {
    status: 400,
    body: { error: { code: 'invalid-argument', message: /"a b"/ } },
  })
  t.match(await call('POST', url, { nmae: 'x' }), { status: 400 })
  t.match(await call('POST', url, { labels: { a: {} } }), { status: 400 })
  t.match(await call('POST', '/v1/volumes/other/snapshots'), { status: 404 })
  agent.taking = { code: 'no-space', message: 'replica aa cannot prepare it: no-space' }
  t.match(await call('POST', url, { name: 'full' }), {
    status: 503,
    body: {
      error: { code: 'snapshot-failed', message: /^Snapshot full of volume demo was not taken: replica aa cannot/ },
    },
  })
  t.match(await call('GET', `${url}/full`), { body: { state: 'failed', layer: null, allocatedBytes: null } })
  agent.taking = 'taken'
  t.match(await call('POST', url, { name: 'full' }), { status: 201 })
  await manager.detach('demo')
  await untilState('demo', 'detached')
  t.match(await call('POST', url, {}), { status: 409, body: { error: { code: 'volume-not-attached' } } })
})

void t.test('one that takes longer says what it waits for, and stays asked for', async (t) => {
  const { call, agent, untilSnapshot } = await anApiOfDemo(t)
  agent.taking = 'held'
  const body = { name: 'monday', timeoutSeconds: 0.1 }
  t.match(await call('POST', url, body), {
    status: 504,
    body: {
      error: { code: 'timed-out', message: 'Snapshot monday of volume demo is not ready after 0.1 s: it is creating.' },
    },
  })
  agent.taking = 'taken'
  agent.changed()
  await untilSnapshot('monday', 'ready')
  agent.deleting = 'it is being read (busy)'
  t.match(await call('DELETE', `${url}/monday?timeoutSeconds=0.2`), {
    status: 504,
    body: { error: { code: 'timed-out', message: /is not deleted after 0.2 s: it is deleting, it is being read/ } },
  })
})

void t.test('one that is deleted while it is waited for is told so', async (t) => {
  const { call, agent, manager } = await anApiOfDemo(t)
  agent.taking = 'held'
  const taking = call('POST', url, { name: 'monday' })
  await manager.waitFor('question', 5000, () => agent.asked[0])
  await manager.deleteSnapshot('demo', 'monday')
  t.match(await taking, {
    status: 409,
    body: { error: { code: 'cancelled', message: /was deleted while it was taken/ } },
  })
})

void t.test('while the volume is detached a deletion is kept for later', async (t) => {
  const { call, manager, untilState, snapshotGone } = await anApiOfDemo(t)
  await call('POST', url, { name: 'monday' })
  await manager.detach('demo')
  await untilState('demo', 'detached')
  t.match(await call('GET', url), {
    body: { snapshots: [{ name: 'monday', state: 'ready', allocatedBytes: null, children: [] }], layers: null },
  })
  t.match(await call('DELETE', `${url}/monday`), {
    status: 202,
    body: {
      deleted: false,
      message: /^volume demo is detached: it is deleted when that is attached next$/,
      allocatedBytes: null,
    },
  })
  t.match(await call('GET', `${url}/monday`), { body: { state: 'deleting' } })
  await call('POST', '/v1/volumes/demo/attach')
  await snapshotGone('monday')
})

void t.test('what cannot be deleted before the volume serves again is kept, and says why', async (t) => {
  const { call, agent, manager, untilState, until } = await anApiOfDemo(t)
  for (const name of ['monday', 'tuesday']) await call('POST', url, { name })
  const kept = (state: string) => ({
    status: 202,
    body: { deleted: false, message: `volume demo is ${state}: it is deleted when that is attached next` },
  })
  agent.engineState = 'refused'
  agent.deleting = 'nobody serves it'
  agent.changed()
  await untilState('demo', 'faulted')
  t.match(await call('DELETE', `${url}/monday?timeoutSeconds=5`), kept('faulted'))
  agent.engineState = 'serving'
  agent.holdsEngines = true
  await manager.detach('demo')
  await until('demo', ({ status }) => status.state === 'detaching')
  t.match(await call('DELETE', `${url}/tuesday?timeoutSeconds=5`), kept('detaching'))
})

void t.test('why layers are not known is told', async (t) => {
  const { call, agent, manager, untilState } = await anApiOfDemo(t)
  t.match(await call('GET', url), { body: { layers: [{ head: true }], message: '' } })
  agent.lists = false
  t.match(await call('GET', url), { body: { layers: null, message: 'its engine does not answer now' } })
  await manager.detach('demo')
  await untilState('demo', 'detached')
  t.match(await call('GET', url), { body: { layers: null, message: 'it is detached' } })
})

void t.test('what changed between two is told a part at a time', async (t) => {
  const { call, agent, manager } = await anApiOfDemo(t)
  for (const name of ['monday', 'tuesday']) await call('POST', url, { name })
  const [monday, tuesday] = ['monday', 'tuesday'].map((name) => manager.snapshot('demo', name).layer ?? '')
  const size = 1 << 30
  const extents = [
    { offset: 4096, length: 8192, zero: false },
    { offset: 65536, length: 4096, zero: true },
  ]
  agent.changesTo.set(tuesday!, { sizeBytes: size, fromSizeBytes: size / 2, nextOffset: 1 << 20, extents })
  t.same((await call('GET', `${url}/tuesday/changes?from=monday&offset=4096&limit=2`)).body, {
    ...{ volume: 'demo', snapshot: 'tuesday', from: 'monday', sizeBytes: size, fromSizeBytes: size / 2 },
    superset: true,
    extents: [
      { offset: 4096, length: 8192, kind: 'data' },
      { offset: 65536, length: 4096, kind: 'zero' },
    ],
    nextOffset: 1 << 20,
  })
  const asked = { volume: 'demo', op: 'snapshot-changes', layer: tuesday }
  t.same(agent.questions.pop(), { ...asked, from: monday, offset: 4096, limit: 2 })
  agent.changesTo.set(tuesday!, { sizeBytes: size, fromSizeBytes: 0, nextOffset: size, extents: [] })
  t.match(await call('GET', `${url}/tuesday/changes`), {
    status: 200,
    body: { from: null, fromSizeBytes: null, superset: false, extents: [], nextOffset: null },
  })
  t.same(agent.questions.pop(), { ...asked, offset: 0, limit: 1000 })
})

void t.test('what cannot be compared or read says why', async (t) => {
  const { call, agent, manager, untilState } = await anApiOfDemo(t)
  await call('POST', url, { name: 'monday' })
  const refusal = async (method: 'GET' | 'POST', path: string) => {
    const { status, body } = await call(method, path, method === 'POST' ? {} : undefined)
    const { code, message } = (body as { error: { code: string; message: string } }).error
    return `${status} ${code}: ${message}`
  }
  t.match(await refusal('GET', `${url}/sunday/changes`), /^404 not-found: Volume demo has no snapshot "sunday"/)
  t.match(await refusal('GET', `${url}/monday/changes?from=sunday`), /^404 not-found: .* no snapshot "sunday"/)
  for (const wrong of ['offset=512', 'offset=-4096', 'limit=0', 'limit=10001', 'form=monday']) {
    t.match(await refusal('GET', `${url}/monday/changes?${wrong}`), /^400 invalid-argument/)
  }
  t.match(
    await refusal('GET', `${url}/monday/changes`),
    /^404 not-found: Snapshot monday of volume demo cannot be compared: there is no snapshot monday-/,
  )
  agent.isMute = true
  t.match(
    await refusal('POST', `${url}/monday/read`),
    /^503 unavailable: .* cannot be read: no answer to read-snapshot/,
  )
  agent.taking = { code: 'no-space', message: 'replica aa is full' }
  await call('POST', url, { name: 'full' })
  const failed =
    /^409 snapshot-not-ready: Snapshot full of volume demo cannot be (read|compared): it is failed, replica aa/
  t.match(await refusal('POST', `${url}/full/read`), failed)
  t.match(await refusal('GET', `${url}/monday/changes?from=full`), failed)
  await manager.detach('demo')
  await untilState('demo', 'detached')
  const detached = /^409 volume-not-attached: Snapshot monday of volume demo cannot be .*: the volume is detached/
  t.match(await refusal('POST', `${url}/monday/read`), detached)
  t.match(await refusal('GET', `${url}/monday/changes`), detached)
})

void t.test('one that clients read is not deleted', async (t) => {
  const { call, agent, manager, snapshotGone } = await anApiOfDemo(t)
  await call('POST', url, { name: 'monday' })
  t.match(await call('POST', `${url}/monday/read`, {}), {
    status: 200,
    body: { volume: 'demo', snapshot: 'monday', sizeBytes: 1 << 30, nbd: { uri: /^nbd:.*\/demo@monday$/ } },
  })
  const layer = manager.snapshot('demo', 'monday').layer ?? ''
  agent.read.add(layer)
  t.match(await call('DELETE', `${url}/monday`), {
    status: 409,
    body: {
      error: {
        code: 'snapshot-in-use',
        message: 'Snapshot monday of volume demo cannot be deleted: a client reads it.',
      },
    },
  })
  t.match(await call('GET', `${url}/monday`), { body: { state: 'ready' } })
  // An engine that does not say is asked to delete it, and may still refuse.
  agent.isMute = true
  t.match(await call('DELETE', `${url}/monday`), { status: 200 })
  await snapshotGone('monday')
})
