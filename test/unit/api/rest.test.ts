import t, { type Test } from 'tap'
import { pino } from 'pino'
import { buildServer, type Server } from '../../../src/api/index.js'
import { aCluster, type Cluster } from '../manager/cluster.js'

interface Answer {
  status: number
  body: Record<string, never> & { error?: { code: string; message: string; action: string } }
  text: string
}

interface Api extends Cluster {
  server: Server
  logged: string[]
  call: (method: 'GET' | 'POST' | 'PATCH' | 'DELETE', url: string, body?: object) => Promise<Answer>
}

async function anApi(t: Test, given: { started?: boolean; ready?: boolean; disks?: number } = {}): Promise<Api> {
  const cluster = await aCluster(t, given)
  const logged: string[] = []
  const server = await buildServer({
    manager: () => ((given.started ?? true) ? cluster.manager : null),
    ready: () => given.ready ?? true,
    ...{ node: 'node-1', faces: { nbdHost: '127.0.0.1', portal: '127.0.0.1:3260' }, version: '1.2.3' },
    metrics: { contentType: 'text/plain', text: () => Promise.resolve('ankole_build_info 1\n') },
    log: pino({ level: 'trace' }, { write: (line: string) => void logged.push(line) }),
  })
  t.teardown(() => server.close())
  const call: Api['call'] = async (method, url, body) => {
    const response = await server.inject({ method, url, ...(body === undefined ? {} : { payload: body }) })
    return { status: response.statusCode, body: parse(response.payload), text: response.payload }
  }
  return { ...cluster, server, logged, call }
}

function parse(text: string): Answer['body'] {
  return (text.startsWith('{') ? JSON.parse(text) : {}) as Answer['body']
}

void t.test('/healthz says 200 once it serves, and 503 before', async (t) => {
  const before = await anApi(t, { ready: false })
  t.match(await before.call('GET', '/healthz'), { status: 503, body: { status: 'starting' } })
  const after = await anApi(t)
  t.match(await after.call('GET', '/healthz'), { status: 200, body: { status: 'ok' } })
})

void t.test('before the manager has started the API says so', async (t) => {
  const { call } = await anApi(t, { started: false })
  t.match(await call('GET', '/v1/volumes'), { status: 503, body: { error: { code: 'not-ready' } } })
})

void t.test('a volume from creation to deletion', async (t) => {
  const { call } = await anApi(t)
  const created = await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB' })
  t.equal(created.status, 201)
  t.match(created.body, {
    ...{
      name: 'demo',
      sizeBytes: 1024 ** 3,
      numberOfReplicas: 3,
      cache: 'buffered',
      checksums: true,
      physicalBlockBytes: 4096,
      state: 'detached',
      nbd: null,
      iscsi: null,
    },
    chap: 'none',
    warnings: [/3 replicas on 1 node/],
    replicas: [{ node: 'node-1', disk: 'disk-1', directory: '/data/disks/disk-1/replicas', state: 'ready' }, {}, {}],
  })
  const attached = await call('POST', '/v1/volumes/demo/attach')
  t.match(attached, {
    status: 200,
    body: {
      ...{ volume: 'demo', node: 'node-1', nbd: { uri: /^nbd:..127.0.0.1:\d+.demo$/ } },
      iscsi: { portal: '127.0.0.1:3260', iqn: 'iqn.2026-11.io.ankole:demo', lun: 0 },
    },
  })
  t.equal((await call('POST', '/v1/volumes/demo/attach', {})).text, attached.text, 'again says the same')
  t.match(await call('GET', '/v1/volumes/demo'), {
    status: 200,
    body: {
      state: 'attached',
      robustness: 'healthy',
      iscsi: { portal: '127.0.0.1:3260', lun: 0 },
      replicas: [{ state: 'member' }, {}, {}],
    },
  })
  t.match(await call('GET', '/v1/volumes'), { status: 200, body: { volumes: [{ name: 'demo' }] } })
  t.match(await call('POST', '/v1/volumes/demo/detach'), { status: 200, body: { state: 'detached', node: null } })
  t.match(await call('DELETE', '/v1/volumes/demo'), { status: 200, body: { name: 'demo', deleted: true } })
  t.match(await call('GET', '/v1/volumes/demo'), { status: 404, body: { error: { code: 'not-found' } } })
})

void t.test('attach answers with the reason when the volume is not attached in time', async (t) => {
  const { call, agent } = await anApi(t)
  await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB' })
  agent.engineState = 'starting'
  agent.engineMessage = 'waiting for replicas'
  const answer = await call('POST', '/v1/volumes/demo/attach', { timeoutSeconds: 0.1 })
  t.match(answer, { status: 504, body: { error: { code: 'timed-out', message: /it is attaching, waiting for repl/ } } })
  agent.engineState = 'serving'
  agent.changed()
  t.match(await call('POST', '/v1/volumes/demo/attach'), { status: 200 }, 'what was asked for stays asked for')
})

void t.test('delete answers with the reason when a replica cannot be removed', async (t) => {
  const { call, agent } = await anApi(t)
  await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB' })
  agent.replicaFailures.set('disk-1', 'the disk is stuck')
  const answer = await call('DELETE', '/v1/volumes/demo?timeoutSeconds=0.1')
  t.match(answer, {
    status: 504,
    body: { error: { code: 'timed-out', message: /1 replica still .* the disk is stuck/ } },
  })
  t.match(await call('POST', '/v1/volumes/demo/attach'), { status: 409, body: { error: { code: 'volume-deleting' } } })
  agent.replicaFailures.clear()
  agent.changed()
  t.match(await call('DELETE', '/v1/volumes/demo'), { status: 200 })
})

void t.test('a volume keeps the physical block that it was created with', async (t) => {
  const { call } = await anApi(t)
  const created = await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB', physicalBlockBytes: 512 })
  const expected = { physicalBlockBytes: 512, warnings: [/1 node/, /physical blocks of 512 bytes/] }
  t.match(created, { status: 201, body: expected })
  t.match(await call('GET', '/v1/volumes/demo'), { status: 200, body: expected })
})

void t.test('a volume is expanded: attached when its engine says so, and refused with the cause', async (t) => {
  const { call, agent } = await anApi(t)
  await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB' })
  const expand = (size: string | number, timeoutSeconds = 5) =>
    call('POST', '/v1/volumes/demo/expand', { size, timeoutSeconds })
  const gib = (count: number) => count * 1024 ** 3
  t.match(await expand('2GiB'), { status: 200, body: { sizeBytes: gib(2), expandingToBytes: null } })
  await call('POST', '/v1/volumes/demo/attach', {})
  t.match(await expand('3GiB'), { status: 200, body: { sizeBytes: gib(3), expandingToBytes: null } })
  t.match(await expand('3GiB'), { status: 200, body: { sizeBytes: gib(3) } }, 'again')
  t.match(await expand('2GiB'), {
    status: 400,
    body: { error: { code: 'invalid-size', message: /not become smaller/ } },
  })
  t.match(await expand(gib(3) + 1), { status: 400, body: { error: { code: 'invalid-size' } } })
  agent.expands = 'never'
  const full = { code: 'no-space', message: /cannot be expanded to 4 GiB: disk-2 is full\. It is as it was/ }
  t.match(await expand('4GiB'), { status: 507, body: { error: full } })
  t.match(await call('GET', '/v1/volumes/demo'), { body: { sizeBytes: gib(3), expandingToBytes: null, message: '' } })
  agent.expands = 'not yet'
  const waits = { code: 'timed-out', message: /is not expanded after 1 s: it is attached, .*waiting for replica b/ }
  t.match(await expand('4GiB', 1), { status: 504, body: { error: waits } })
  t.match(await call('GET', '/v1/volumes/demo'), { body: { sizeBytes: gib(3), expandingToBytes: gib(4) } })
  t.match(await expand('5GiB'), { status: 409, body: { error: { code: 'busy' } } })
  t.match(await call('POST', '/v1/volumes/none/expand', { size: '1GiB' }), { status: 404 })
})

void t.test('a scrub is started, watched and stopped', async (t) => {
  const { call, agent, until } = await anApi(t)
  await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB', checksums: false })
  t.match(await call('GET', '/v1/volumes/demo'), { body: { checksums: false } })
  const refused = {
    status: 409,
    body: { error: { code: 'volume-not-attached', message: /demo cannot be scrubbed: it is detached/ } },
  }
  t.match(await call('POST', '/v1/volumes/demo/scrub'), refused)
  t.match(await call('GET', '/v1/volumes/demo/scrub'), refused)
  t.match(await call('DELETE', '/v1/volumes/demo/scrub'), refused)
  await call('POST', '/v1/volumes/demo/attach')
  t.match(await call('GET', '/v1/volumes/demo/scrub'), { status: 200, body: { running: false, blocks: 0, last: null } })
  t.match(await call('POST', '/v1/volumes/demo/scrub', {}), { status: 200, body: { running: true, blocks: 262_144 } })
  const planned = (bandwidth: number) => () => agent.plan?.engines[0]?.scrub?.bytesPerSecond === bandwidth
  await until('demo', planned(64 * 1024 ** 2))
  t.match(await call('POST', '/v1/volumes/demo/scrub', { bandwidth: 0 }), { status: 200, body: { blocksChecked: 0 } })
  await until('demo', planned(0))
  agent.scrubs({ regionsDone: 2, regionsFailed: 1, repairedBlocks: 3, corruptBlocks: 1 })
  const found = { blocksChecked: 2048, blocksNotChecked: 1024, bad: 4, repaired: 3, unrepairable: 1, differing: 0 }
  t.match(await call('GET', '/v1/volumes/demo/scrub'), { status: 200, body: { running: true, ...found } })
  t.match(await call('DELETE', '/v1/volumes/demo/scrub'), { status: 200, body: { running: false, blocks: 0 } })
  await until('demo', () => agent.plan?.engines[0]?.scrub === undefined)
  t.match(await call('POST', '/v1/volumes/demo/scrub', { bandwidth: -1 }), { status: 400 })
  t.match(await call('POST', '/v1/volumes/demo/scrub', { bandwidth: 1000 }), { status: 400 })
})

void t.test('what the last scrub found is kept, and shown with the volume', async (t) => {
  const { call, agent, until } = await anApi(t)
  await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB' })
  await call('POST', '/v1/volumes/demo/attach')
  await call('POST', '/v1/volumes/demo/scrub', {})
  await until('demo', () => agent.plan?.engines[0]?.scrub !== undefined)
  t.match(await call('GET', '/v1/volumes/demo'), { body: { scrub: { running: true, dueAt: null, last: null } } })
  agent.scrubs({ running: false, finished: true, regionsDone: 256, repairedBlocks: 3, differingBlocks: 2 })
  await until('demo', ({ scrub }) => scrub?.last !== undefined)
  const last = { endedAt: /^\d{4}-/, bad: 3, repaired: 3, unrepairable: 0, differing: 2, blocksNotChecked: 0 }
  t.match(await call('GET', '/v1/volumes/demo'), { body: { scrub: { running: false, dueAt: /^\d{4}-/, last } } })
  const ended = { running: false, blocks: 262_144, blocksChecked: 262_144, repaired: 3, last }
  t.match(await call('GET', '/v1/volumes/demo/scrub'), { status: 200, body: ended })
})

void t.test('what disks, volumes, replicas and layers take up is told', async (t) => {
  const { call, agent, until } = await anApi(t)
  await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB', numberOfReplicas: 2 })
  await call('POST', '/v1/volumes/demo/attach')
  const { body } = await call('POST', '/v1/volumes/demo/snapshots', { name: 'monday' })
  const { layer } = body as unknown as { layer: string }
  agent.taken.layers.push({ name: layer, allocatedBytes: 4096 })
  const layers = [{ name: 'volume-head', snapshot: null, allocatedBytes: 8192 }, { snapshot: 'monday' }]
  const replica = { allocatedBytes: 16_384, dataBytes: 12_288, metadataBytes: 4096, layers }
  const volume = { sizeBytes: 2 ** 30, allocatedBytes: 32_768, snapshotBytes: 8192, replicas: [replica, replica] }
  t.match(await call('GET', '/v1/volumes/demo/space'), { status: 200, body: { volume: 'demo', ...volume } })
  const level = { usedPercent: 50, level: 'ok', warningPercent: 80, criticalPercent: 90 }
  const disk = { totalBytes: 100 * 2 ** 30, freeBytes: 50 * 2 ** 30, replicasBytes: 16_384, ...level }
  const disks = [{ ...disk, otherBytes: 50 * 2 ** 30 - 16_384, scheduledBytes: 2 ** 30 }]
  t.match(await call('GET', '/v1/space'), { status: 200, body: { volumes: [volume], disks } })
  t.match(await call('GET', '/v1/volumes/other/space'), { status: 404 })
  agent.usage = () => Promise.reject(new Error('it does not say'))
  const unknown = { allocatedBytes: null, snapshotBytes: null, replicas: [{ allocatedBytes: null, layers: [] }] }
  t.match(await call('GET', '/v1/volumes/demo/space'), { status: 200, body: unknown })
  t.match(await call('GET', '/v1/space'), { body: { disks: [{ replicasBytes: null, otherBytes: null }] } })
  await until('demo', () => true)
})

void t.test('a trim is started, watched and stopped, one at a time', async (t) => {
  const { call, agent, until } = await anApi(t)
  await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB' })
  const detached = { status: 409, body: { error: { code: 'volume-not-attached', message: /demo cannot be trimmed/ } } }
  t.match(await call('POST', '/v1/volumes/demo/trim'), detached)
  t.match(await call('GET', '/v1/volumes/demo'), { body: { trim: { running: false, last: null } } })
  await call('POST', '/v1/volumes/demo/attach')
  for (const bandwidth of [-1, 1000, 'fast']) {
    t.match(await call('POST', '/v1/volumes/demo/trim', { bandwidth }), { status: 400 }, String(bandwidth))
  }
  t.match(await call('POST', '/v1/volumes/other/trim'), { status: 404 })
  t.match(await call('GET', '/v1/volumes/demo/trim'), { status: 200, body: { running: false, last: null } })
  t.match(await call('POST', '/v1/volumes/demo/trim'), { status: 200, body: { running: true, bytes: 2 ** 30 } })
  t.match(await call('POST', '/v1/volumes/demo/trim', {}), { status: 409, body: { error: { code: 'busy' } } })
  await until('demo', () => agent.plan?.engines[0]?.trim?.bytesPerSecond === 64 * 1024 ** 2)
  agent.trims({ bytesDone: 2 ** 29, unmappedBytes: 8192 })
  const half = { running: true, bytesDone: 2 ** 29, unmappedBytes: 8192, failedBytes: 0 }
  t.match(await call('GET', '/v1/volumes/demo/trim'), { status: 200, body: half })
  await until('demo', ({ trim }) => trim?.current?.bytesDone === 2 ** 29)
  const stopped = { running: false, unmappedBytes: 8192, last: { outcome: 'stopped', bytesDone: 2 ** 29 } }
  t.match(await call('DELETE', '/v1/volumes/demo/trim'), { status: 200, body: stopped })
  t.match(await call('DELETE', '/v1/volumes/demo/trim'), { status: 200, body: stopped }, 'there is none')
  await until('demo', () => agent.plan?.engines[0]?.trim === undefined)
  await call('POST', '/v1/volumes/demo/trim', { bandwidth: 0 })
  await until('demo', () => agent.plan?.engines[0]?.trim?.bytesPerSecond === 0)
  agent.trims({ running: false, finished: true, bytesDone: 2 ** 30, unmappedBytes: 4096, failedBytes: 4096 })
  await until('demo', ({ trim }) => trim?.last?.outcome === 'done')
  const last = { outcome: 'done', endedAt: /^\d{4}-/, bytesDone: 2 ** 30, unmappedBytes: 4096, failedBytes: 4096 }
  t.match(await call('GET', '/v1/volumes/demo'), { body: { trim: { running: false, last } } })
})

void t.test('settings change while the volume is attached, and go back to what holds without them', async (t) => {
  const { call, agent, until } = await anApi(t)
  await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB' })
  await call('POST', '/v1/volumes/demo/attach')
  const byDefault = { resyncBandwidth: null, scrub: { periodSeconds: 604_800, bandwidth: 32 * 1024 ** 2 } }
  t.match(await call('GET', '/v1/volumes/demo'), { status: 200, body: byDefault })
  const settings = { resyncBandwidth: 5_000_000, scrubPeriodSeconds: 0, scrubBandwidth: 0 }
  const changed = { resyncBandwidth: 5_000_000, scrub: { periodSeconds: 0, bandwidth: 0, dueAt: null } }
  t.match(await call('PATCH', '/v1/volumes/demo', settings), { status: 200, body: changed })
  await until('demo', () => agent.plan?.engines[0]?.resyncBandwidth === 5_000_000)
  t.match(await call('PATCH', '/v1/volumes/demo', {}), { status: 200, body: changed }, 'what is not named stays')
  const back = { resyncBandwidth: 'default', scrubPeriodSeconds: 'default', scrubBandwidth: 'default' }
  t.match(await call('PATCH', '/v1/volumes/demo', back), { status: 200, body: byDefault })
  await until('demo', () => agent.plan?.engines[0]?.resyncBandwidth === undefined)
  for (const wrong of [
    { resyncBandwidth: 1000 },
    { resyncBandwidth: -1 },
    { scrubPeriodSeconds: 60 },
    { scrubBandwidth: 1 },
    { scrubBandwidth: 'fast' },
    { size: '2GiB' },
  ]) {
    t.match(await call('PATCH', '/v1/volumes/demo', wrong), { status: 400 }, JSON.stringify(wrong))
  }
  t.match(await call('PATCH', '/v1/volumes/other', {}), { status: 404 })
})

void t.test('attach does not wait for what cannot become', async (t) => {
  const { call, agent } = await anApi(t)
  await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB' })
  agent.engineState = 'refused'
  agent.engineMessage = 'two members are missing'
  const answer = await call('POST', '/v1/volumes/demo/attach')
  t.match(answer, { status: 503, body: { error: { code: 'volume-faulted', message: /two members are missing/ } } })
})

void t.test('wrong input is refused with what is wrong', async (t) => {
  const { call } = await anApi(t)
  const create = (body: object): Promise<Answer> => call('POST', '/v1/volumes', body)
  const bad: [object, string, RegExp][] = [
    [{ name: 'Demo', size: '1GiB' }, 'invalid-name', /contains "D"/],
    [{ name: 'demo', size: 'big' }, 'invalid-size', /not a size/],
    [{ name: 'demo', size: 1 }, 'invalid-size', /too small/],
    [{ name: 'demo' }, 'invalid-argument', /size/],
    [{ name: 'demo', size: '1GiB', numberOfReplicas: 99 }, 'invalid-argument', /1 to 16/],
    [{ name: 'demo', size: '1GiB', replicas: 3 }, 'invalid-argument', /additional properties/],
    [{ name: 'demo', size: '1GiB', cache: 'fast' }, 'invalid-argument', /cache/],
    [{ name: 'demo', size: '1GiB', chap: { user: 'me', secret: 'short' } }, 'invalid-chap', /5 bytes/],
    [{ name: 'demo', size: '1GiB', physicalBlockBytes: 1024 }, 'invalid-argument', /512 or 4096 bytes, not 1024/],
    [{ name: 'demo', size: '1GiB', physicalBlockBytes: 'small' }, 'invalid-argument', /physicalBlockBytes/],
    [{ name: 'demo', size: '1GiB', chap: { user: 'me' } }, 'invalid-argument', /secret/],
  ]
  for (const [body, code, message] of bad) {
    t.match(await create(body), { status: 400, body: { error: { code, message, action: /\w/ } } }, JSON.stringify(body))
  }
  t.match(await create({ name: 'demo', size: '1GiB', numberOfReplicas: 4 }), {
    ...{ status: 409, body: { error: { code: 'cannot-place' } } },
  })
  t.match(await call('GET', '/v1/volumes'), { body: { volumes: [] } })
})

void t.test('broken requests are answered, and end nothing', async (t) => {
  const { server, call } = await anApi(t)
  const headers = { 'content-type': 'application/json' }
  const broken = await server.inject({ method: 'POST', url: '/v1/volumes', headers, payload: '{"name":' })
  t.equal(broken.statusCode, 400)
  t.match(parse(broken.payload), { error: { code: 'invalid-argument', message: /not JSON/ } })
  const huge = await server.inject({ method: 'POST', url: '/v1/volumes', headers, payload: `"${'x'.repeat(70_000)}"` })
  t.equal(huge.statusCode, 400)
  t.match(await call('GET', '/v2'), { status: 404, body: { error: { code: 'not-found' } } })
  t.match(await call('GET', `/v1/volumes/${'x'.repeat(200)}`), { status: 404, body: { error: { code: 'not-found' } } })
  t.match(await call('GET', `/v1/volumes/${'x'.repeat(500)}`), {
    status: 400,
    body: { error: { code: 'invalid-argument' } },
  })
  t.match(await call('GET', '/v1/volumes/%zz'), { status: 400, body: { error: { code: 'invalid-argument' } } })
})

void t.test('pages of other sites may not use the API', async (t) => {
  const { server } = await anApi(t)
  const ask = (origin: string) =>
    server.inject({ method: 'POST', url: '/v1/volumes/demo/detach', headers: { host: '127.0.0.1:9500', origin } })
  t.match(await ask('http://evil.example'), { statusCode: 403 })
  t.match(await ask('http://127.0.0.1:9500'), { statusCode: 404 })
})

void t.test('nodes and processes', async (t) => {
  const { call } = await anApi(t)
  await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB' })
  t.match(await call('GET', '/v1/nodes'), {
    status: 200,
    body: {
      nodes: [
        {
          name: 'node-1',
          portal: { address: '127.0.0.1:3260', state: 'ready', message: '', ioBackend: 'epoll' },
          disks: [
            {
              id: 'disk-1',
              state: 'ready',
              ioBackend: 'epoll',
              scheduledBytes: 1024 ** 3,
              directory: '/data/disks/disk-1',
            },
            {},
            {},
          ],
        },
      ],
    },
  })
  t.match(await call('GET', '/v1/processes'), {
    status: 200,
    body: {
      processes: [
        { pid: process.pid, kind: 'manager' },
        { kind: 'disk-host', disk: 'disk-1', restarts: 2 },
        { kind: 'portal', restarts: 1 },
      ],
    },
  })
})

void t.test('a volume is made for an import, and is everybody\u2019s when that has ended', async (t) => {
  const { call } = await anApi(t)
  const transfer = '00000000000000aa'
  const created = await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB', transfer })
  t.match(created.body, { transfer: { kind: 'import', begunAt: /^2/ }, message: 'its import has not ended' })
  t.notMatch(created.text, transfer, 'only who made the id up has it')
  t.match(await call('POST', '/v1/volumes/demo/attach'), { status: 409, body: { error: { code: 'volume-importing' } } })
  t.match(await call('POST', '/v1/volumes/demo/attach', { transfer }), { status: 200 })
  const volume = await call('GET', '/v1/volumes/demo')
  t.match(volume.body, { state: 'attached', message: 'it is being imported', iscsi: null, nbd: { uri: String } })
  const early = await call('POST', '/v1/volumes/demo/end-import', { transfer })
  t.match(early, { status: 409, body: { error: { code: 'busy' } } })
  const stranger = await call('POST', '/v1/volumes/demo/detach', { transfer: '00000000000000bb' })
  t.match(stranger, { status: 200, body: { state: 'attached' } })
  t.match(await call('POST', '/v1/volumes/demo/detach', { transfer }), { status: 200, body: { state: 'detached' } })
  const ended = await call('POST', '/v1/volumes/demo/end-import', { transfer })
  t.match(ended, { status: 200, body: { transfer: null, message: '' } })
  const late = await call('DELETE', `/v1/volumes/demo?force=true&transfer=${transfer}`)
  t.match(late, { status: 404 }, 'an import that has ended deletes nothing')
  t.match(await call('POST', '/v1/volumes/demo/attach'), { status: 200 })
  t.match(await call('POST', '/v1/volumes/demo/attach', { transfer: 'me' }), { status: 400 })
})

void t.test('an export attaches a volume for itself, and activity tells of writes', async (t) => {
  const { call, agent } = await anApi(t)
  await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB' })
  t.match(await call('GET', '/v1/volumes/demo/activity'), {
    status: 409,
    body: { error: { code: 'volume-not-attached' } },
  })
  await call('POST', '/v1/volumes/demo/attach', { transfer: '00000000000000aa' })
  const volume = await call('GET', '/v1/volumes/demo')
  t.match(volume.body, { transfer: { kind: 'export' }, message: 'attached for an export alone', iscsi: null })
  agent.writes = 5
  t.match(await call('GET', '/v1/volumes/demo/activity'), {
    status: 200,
    body: { volume: 'demo', changes: 5, nbdConnections: 0, iscsiSessions: 0, epoch: { attachment: 1, run: 1 } },
  })
})

void t.test('the document describes every route', async (t) => {
  const { call } = await anApi(t)
  const { body } = await call('GET', '/v1/openapi.json')
  t.match(body, { openapi: '3.1.0', info: { title: 'Ankole', version: '1.2.3' } })
  t.same(Object.keys((body as unknown as { paths: object }).paths).sort(), [
    '/healthz',
    '/v1/nodes',
    '/v1/processes',
    '/v1/space',
    '/v1/volumes',
    '/v1/volumes/{name}',
    '/v1/volumes/{name}/activity',
    '/v1/volumes/{name}/attach',
    '/v1/volumes/{name}/detach',
    '/v1/volumes/{name}/end-import',
    '/v1/volumes/{name}/expand',
    '/v1/volumes/{name}/salvage',
    '/v1/volumes/{name}/scrub',
    '/v1/volumes/{name}/snapshots',
    '/v1/volumes/{name}/snapshots/{snapshot}',
    '/v1/volumes/{name}/snapshots/{snapshot}/changes',
    '/v1/volumes/{name}/snapshots/{snapshot}/clone',
    '/v1/volumes/{name}/snapshots/{snapshot}/read',
    '/v1/volumes/{name}/snapshots/{snapshot}/revert',
    '/v1/volumes/{name}/space',
    '/v1/volumes/{name}/trim',
  ])
})

void t.test('secrets leave neither by the API nor by the log', async (t) => {
  const { call, manager, logged } = await anApi(t)
  const chap = { user: 'me', secret: 'a secret of mine', mutualUser: 'you', mutualSecret: 'a secret of yours' }
  const created = await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB', chap })
  t.match(created, { status: 201, body: { chap: 'mutual' } })
  const { secret, chap: stored } = manager.volume('demo')
  t.same(stored, chap)
  const refused = [
    await call('POST', '/v1/volumes', { name: 'two', size: '1GiB', chap: { ...chap, mutualSecret: chap.secret } }),
    await call('POST', '/v1/volumes', { name: 'two', size: '1GiB', chap: { ...chap, secret: 'a secret of ☃' } }),
    await call('POST', '/v1/volumes', { name: 'two', size: '1GiB', chap: { ...chap, more: 'a secret of more' } }),
    await call('POST', '/v1/volumes', { name: 'two', size: '1GiB', chap: 'a secret of nobody' }),
  ]
  for (const { status, text } of refused) {
    t.equal(status, 400)
    t.notMatch(text, /secret of (mine|yours|more|nobody|☃)/)
  }
  const answers = [
    await call('POST', '/v1/volumes/demo/attach'),
    ...(await Promise.all(
      ['/v1/volumes', '/v1/volumes/demo', '/v1/nodes', '/v1/processes'].map((url) => call('GET', url)),
    )),
    await call('DELETE', '/v1/volumes/demo'),
  ]
  for (const { text, status } of answers) {
    t.equal(status, 200)
    t.notOk(text.includes(secret))
    t.notMatch(text, /secret of (mine|yours|more|nobody|☃)/)
  }
  t.notMatch(created.text, /secret of (mine|yours|more|nobody|☃)/)
  t.notOk(logged.join('').includes(secret))
  t.notMatch(logged.join(''), /secret of (mine|yours|more|nobody|☃)/)
})

void t.test('salvage says what it would do, and does it only when told to', async (t) => {
  const api = await anApi(t)
  const { call, manager, agent } = api
  agent.engineState = 'starting'
  t.equal((await call('POST', '/v1/volumes', { name: 'demo', size: '1GiB' })).status, 201)
  await manager.attach('demo')
  const { replicas } = await api.untilState('demo', 'attaching')
  await manager.waitFor('the engine', 5000, () => manager.engine(manager.volume('demo')))
  const url = '/v1/volumes/demo/salvage'
  t.match(await call('POST', url, {}), { status: 409, body: { error: { code: 'salvage-not-needed' } } })
  const [first, second] = replicas.map(({ id }) => id) as [string, string]
  const newest = { epoch: { attachment: 1, run: 1 }, generation: 5, members: [first, second], snapshot: '' }
  agent.cannotStart = {
    ...{ newest, lacking: 'the second does not answer' },
    replicas: [{ id: first, answered: true, record: newest, welcomed: { attachment: 1, run: 1 } }],
  }
  const plan = { volume: 'demo', attachment: 2, replicas: [first], reason: 'the second does not answer' }
  t.match(await call('POST', url, {}), { status: 200, body: { ...plan, done: false } })
  t.match(await call('POST', url, { confirm: true }), { status: 200, body: { ...plan, done: true } })
  const { body } = await call('GET', '/v1/volumes/demo')
  t.match(body, { attachment: 2, salvages: [{ attachment: 2, replicas: [first] }] })
  t.match(await call('POST', url, { replicas: ['x'] }), { status: 400 })
})
