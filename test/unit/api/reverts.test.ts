import t, { type Test } from 'tap'
import { anApiOfDemo, type Api } from './server.js'

const url = '/v1/volumes/demo/snapshots'

/** With its snapshot «monday». */
async function anApi(t: Test): Promise<Api> {
  const api = await anApiOfDemo(t)
  await api.call('POST', url, { name: 'monday' })
  return api
}

void t.test('what the volume holds is kept, and then it is reverted', async (t) => {
  const { call, manager, agent } = await anApi(t)
  agent.reverting = 'held'
  const reverting = call('POST', `${url}/monday/revert`, { keepName: 'before', force: true })
  const plan = await manager.waitFor('order', 5000, () => agent.plan?.engines[0]?.snapshots?.revert)
  const layerOf = (name: string): string | null => manager.snapshot('demo', name).layer
  t.match(plan, {
    layer: /^revert-monday-[0-9a-f]{8}$/,
    base: layerOf('monday'),
    after: layerOf('before'),
    force: true,
  })
  t.match(await call('DELETE', `${url}/monday`), { status: 409, body: { error: { code: 'snapshot-in-use' } } })
  t.match(await call('POST', `${url}/before/revert`, {}), { status: 409, body: { error: { code: 'snapshot-in-use' } } })
  agent.reverting = 'done'
  agent.changed()
  t.same(await reverting, {
    status: 200,
    body: { volume: 'demo', snapshot: 'monday', kept: 'before', pauseMs: 2.5 },
  })
  await manager.waitFor('end', 5000, () => (agent.plan?.engines[0]?.snapshots === undefined ? true : undefined))
  t.match(await call('GET', `${url}/before`), { body: { state: 'ready', labels: { 'reverted-to': 'monday' } } })
  t.match(await call('POST', `${url}/monday/revert`, {}), { status: 200, body: { kept: /^before-snap-\d{8}-\d{6}$/ } })
})

void t.test('a revert that is refused changes nothing, and leaves no snapshot', async (t) => {
  const { call, agent, manager, untilState } = await anApi(t)
  agent.reverting = { code: 'busy', message: 'the volume is in use: 1 iSCSI sessions and 0 NBD connections' }
  t.match(await call('POST', `${url}/monday/revert`, { keepName: 'before' }), {
    status: 409,
    body: { error: { code: 'revert-failed', message: /^Volume demo was not reverted to snapshot monday: .*in use/ } },
  })
  await manager.waitFor('deletion', 5000, () => (manager.snapshots('demo').length === 1 ? true : undefined))
  t.match(await call('POST', `${url}/tuesday/revert`, {}), { status: 404 })
  t.match(await call('POST', `${url}/monday/revert`, { keep: 'x' }), { status: 400 })
  t.match(await call('POST', `${url}/monday/revert`, { keepName: 'monday' }), {
    status: 409,
    body: { error: { code: 'already-exists' } },
  })
  agent.taking = { code: 'no-space', message: 'replica aa cannot prepare it: no-space' }
  t.match(await call('POST', `${url}/monday/revert`, {}), { status: 503, body: { error: { code: 'snapshot-failed' } } })
  agent.taking = 'held'
  void call('POST', url, { name: 'slow' })
  await manager.waitFor('asked', 5000, () => agent.asked.find(({ layer }) => layer.startsWith('slow')))
  t.match(await call('POST', `${url}/slow/revert`, {}), {
    status: 409,
    body: { error: { code: 'snapshot-not-ready' } },
  })
  await manager.detach('demo')
  await untilState('demo', 'detached')
  t.match(await call('POST', `${url}/monday/revert`, {}), {
    status: 409,
    body: { error: { code: 'volume-not-attached' } },
  })
})

void t.test('where nobody knows what became of it that is said, and what is kept', async (t) => {
  const { call, agent, manager } = await anApi(t)
  agent.reverting = 'held'
  const reverting = call('POST', `${url}/monday/revert`, { keepName: 'before' })
  await manager.waitFor('order', 5000, () => agent.plan?.engines[0]?.snapshots?.revert)
  await manager.detach('demo')
  t.match(await reverting, {
    status: 503,
    body: {
      error: { code: 'revert-unknown', message: /^It is not known whether volume demo .* is snapshot before\.$/ },
    },
  })
  t.match(await call('GET', `${url}/before`), { body: { state: 'ready' } })
})

void t.test('a revert that takes longer says where what the volume held is', async (t) => {
  const { call, agent } = await anApi(t)
  agent.reverting = 'held'
  t.match(await call('POST', `${url}/monday/revert`, { keepName: 'before', timeoutSeconds: 0.5 }), {
    status: 504,
    body: { error: { code: 'timed-out', message: /not reverted to snapshot monday after .*it is asked, .*before\.$/ } },
  })
})
