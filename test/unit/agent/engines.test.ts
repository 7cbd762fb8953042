import t from 'tap'
import { newerRecord } from '../../../src/agent/index.js'
import type { EngineSpec } from '../../../src/supervisor/index.js'
import { aDisk, aNode, aPlan, aRecord, anEnginePlan, settled } from './builders.js'

const engine = 'engine/demo'

const nbd = { host: '127.0.0.1', port: 10810 }
const iscsi = { host: '127.0.0.1', port: 20810 }
const serving = { event: 'serving', nbd, iscsi } as const

t.test('an engine of the plan is started with what the plan says', (t) => {
  const { agent, supervisor } = aNode(t)
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  t.match(supervisor.specs.get(engine), {
    volume: 'demo',
    attachment: 3,
    config: { volume: 'demo', record: { generation: 0 }, nbd, iscsi, lateMs: 1000, ioBackend: 'auto' },
  })
  t.match(agent.report().engines, [
    { volume: 'demo', attachment: 3, run: 1, state: 'starting', replicas: [{ id: 'aa', state: 'connecting' }] },
  ])
  t.end()
})

t.test('what the engine says of itself is in the report', (t) => {
  const { agent, supervisor, lines } = aNode(t)
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  supervisor.say(engine, { event: 'io-backend', backend: 'epoll', reason: 'io_uring is forbidden' })
  supervisor.say(engine, { event: 'replica', id: 'aa', state: 'member', fault: '', reason: '' })
  supervisor.say(engine, serving)
  supervisor.say(engine, {
    event: 'state',
    state: 'serving',
    message: '',
    waitsFor: '',
    members: ['aa'],
    generation: 1,
  })
  supervisor.say(engine, { event: 'log', level: 'warn', message: 'a bad frame', peer: '127.0.0.1' })
  t.match(agent.report().engines, [
    {
      ...{ state: 'serving', members: ['aa'], generation: 1, ioBackend: 'epoll', nbd, iscsi },
      replicas: [{ id: 'aa', state: 'member' }],
    },
  ])
  const line = lines.find(({ message }) => message === 'a bad frame')
  t.match(line, { level: 'warn', fields: { peer: '127.0.0.1', volume: 'demo' } })
  t.end()
})

t.test('an engine serves when its front ends listen, not before', (t) => {
  const { agent, supervisor } = aNode(t)
  const state = (): string => agent.report().engines[0]!.state
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  supervisor.say(engine, {
    event: 'state',
    state: 'degraded',
    message: 'bb left',
    waitsFor: '',
    members: ['aa'],
    generation: 1,
  })
  t.equal(state(), 'starting')
  supervisor.say(engine, { event: 'serving', nbd })
  t.equal(state(), 'starting', 'one of two front ends is not yet all')
  supervisor.say(engine, serving)
  t.equal(state(), 'degraded')
  supervisor.end(engine, 'was ended by SIGSEGV', 0)
  supervisor.run(engine)
  supervisor.say(engine, {
    event: 'state',
    state: 'serving',
    message: '',
    waitsFor: '',
    members: ['aa'],
    generation: 2,
  })
  t.equal(state(), 'starting')
  t.end()
})

t.test('a record is answered for only when the store holds it', async (t) => {
  const { agent, supervisor, stored, storing } = aNode(t)
  let finish: () => void = () => undefined
  storing.take = () => new Promise((resolve) => (finish = resolve))
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  supervisor.say(engine, { event: 'record', question: 7, record: aRecord(1) })
  await settled()
  t.strictSame(supervisor.posts, [])
  finish()
  await settled()
  t.strictSame(supervisor.posts, [{ key: engine, message: { answer: 7, ok: true } }])
  t.match(stored, [{ volume: 'demo', record: { generation: 1 } }])
})

t.test('a record that the store refuses is answered with the reason', async (t) => {
  const { agent, supervisor, stored, storing } = aNode(t)
  storing.take = () => Promise.reject(new Error('attachment 3 is stale'))
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  supervisor.say(engine, { event: 'record', question: 7, record: aRecord(1) })
  await settled()
  t.strictSame(supervisor.posts, [{ key: engine, message: { answer: 7, ok: false, message: 'attachment 3 is stale' } }])
  t.strictSame(stored, [])
  t.equal((supervisor.specs.get(engine) as EngineSpec).config.record.generation, 0)
})

t.test('a record of a stale attachment fences its engine off', async (t) => {
  const { agent, supervisor, storing } = aNode(t)
  storing.take = () => Promise.reject(Object.assign(new Error('at attachment 4'), { code: 'stale-attachment' }))
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  supervisor.say(engine, { event: 'record', question: 7, record: aRecord(1) })
  await settled()
  t.strictSame(supervisor.posts[0]!.message, { answer: 7, ok: false, code: 'fenced', message: 'at attachment 4' })
})

t.test('records reach the store in the order of the questions', async (t) => {
  const { agent, supervisor, stored, storing } = aNode(t)
  const finish: (() => void)[] = []
  storing.take = () => new Promise((resolve) => finish.push(resolve))
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  supervisor.say(engine, { event: 'record', question: 1, record: aRecord(1) })
  supervisor.say(engine, { event: 'record', question: 2, record: aRecord(2) })
  await settled()
  t.equal(finish.length, 1, 'the second waits for the first')
  finish[0]!()
  await settled()
  finish[1]!()
  await settled()
  t.match(stored, [{ record: { generation: 1 } }, { record: { generation: 2 } }])
})

t.test('an answer is not given to a later engine than the one that asked', async (t) => {
  const { agent, supervisor, storing } = aNode(t)
  let finish: () => void = () => undefined
  storing.take = () => new Promise((resolve) => (finish = resolve))
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  supervisor.say(engine, { event: 'record', question: 1, record: aRecord(1) })
  await settled()
  supervisor.end(engine, 'was ended by SIGKILL', 0)
  supervisor.run(engine)
  finish()
  await settled()
  t.strictSame(supervisor.posts, [])
})

t.test('the next run goes on from the newest record that the store holds', async (t) => {
  const { agent, supervisor } = aNode(t)
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  supervisor.say(engine, { event: 'record', question: 1, record: aRecord(4) })
  await settled()
  const config = (): EngineSpec['config'] => (supervisor.specs.get(engine) as EngineSpec).config
  t.equal(config().record.generation, 4)
  agent.apply(aPlan({ engines: [anEnginePlan({ record: aRecord(2) })] }))
  t.equal(config().record.generation, 4, 'an older plan does not take it back')
  agent.apply(aPlan({ engines: [anEnginePlan({ record: aRecord(5) })] }))
  t.equal(config().record.generation, 5)
})

const said = { message: '', waitsFor: '' as const, members: ['aa'], generation: 1 }
const serves = { event: 'state' as const, state: 'serving' as const, ...said }
const nothing = { regionsFailed: 0, repairedBlocks: 0, corruptBlocks: 0, differingBlocks: 0 }

t.test('a running engine is told of another bandwidth, once, and each process anew', async (t) => {
  const { agent, supervisor } = aNode(t)
  supervisor.answers = { set: () => ({ result: {} }) }
  const sent = (): unknown[] => supervisor.posted('set').map(({ resyncBandwidth }) => resyncBandwidth)
  agent.apply(aPlan({ engines: [anEnginePlan({ resyncBandwidth: 10 })] }))
  await settled()
  t.same(sent(), [], 'not before it serves')
  supervisor.say(engine, serves)
  await settled()
  agent.apply(aPlan({ engines: [anEnginePlan({ resyncBandwidth: 20 })] }))
  agent.apply(aPlan({ engines: [anEnginePlan({ resyncBandwidth: 30 })] }))
  await settled()
  agent.apply(aPlan({ engines: [anEnginePlan({ resyncBandwidth: 30 })] }))
  supervisor.say(engine, serves)
  await settled()
  t.equal(sent().at(0), 10)
  t.equal(sent().at(-1), 30)
  const before = sent().length
  t.ok(before <= 3)
  supervisor.end(engine, 'was ended by SIGKILL', 0)
  supervisor.run(engine)
  supervisor.say(engine, serves)
  await settled()
  t.same(sent().slice(before), [30])
  t.same((supervisor.specs.get(engine) as EngineSpec).config.resyncBandwidth, 30)
})

t.test('an engine is told to become larger once, and a run after it starts with the order', async (t) => {
  const { agent, supervisor } = aNode(t)
  const order = { id: 'one', sizeBytes: 2 ** 31 }
  let known: unknown
  supervisor.answers = {
    expand: () => {
      known = (supervisor.specs.get(engine) as EngineSpec).config.expansion
      return { result: {} }
    },
  }
  const sent = (): unknown[] => supervisor.posted('expand').map(({ id, sizeBytes }) => ({ id, sizeBytes }))
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  supervisor.say(engine, serves)
  await settled()
  t.same(sent(), [])
  agent.apply(aPlan({ engines: [anEnginePlan({ expansion: order })] }))
  await settled()
  t.same(sent(), [order])
  t.same(known, order, 'the next run would know what clients may have seen of this one')
  const said = (state: 'running' | 'done' | 'failed', sizeBytes: number): void =>
    supervisor.say(engine, { event: 'size', sizeBytes, expansion: { ...order, state, code: '', message: '' } })
  said('running', 2 ** 30)
  agent.apply(aPlan({ engines: [anEnginePlan({ expansion: order })] }))
  await settled()
  said('failed', 2 ** 30)
  await settled()
  t.equal(sent().length, 1)
  t.match(agent.report().engines, [{ sizeBytes: 2 ** 30, expansion: { id: 'one', state: 'failed' } }])
  supervisor.end(engine, 'was ended by SIGKILL', 0)
  supervisor.run(engine)
  t.equal(agent.report().engines[0]?.sizeBytes, undefined, 'what the one before said does not count')
  said('done', 2 ** 31)
  supervisor.say(engine, serves)
  await settled()
  t.equal(sent().length, 1, 'it started with the order')
})

t.test('the scrub of the plan is begun, goes on after the engine died, and ends once', async (t) => {
  const { agent, supervisor } = aNode(t)
  supervisor.answers = { scrub: () => ({ result: {} }), 'stop-scrub': () => ({ result: {} }) }
  const sent = (): object[] =>
    supervisor.posted('scrub').map(({ id, bytesPerSecond, regionsDone }) => ({ id, bytesPerSecond, regionsDone }))
  const planned = (bytesPerSecond = 7): void =>
    agent.apply(
      aPlan({ engines: [anEnginePlan({ scrub: { id: 'one', bytesPerSecond, regionsDone: 3, ...nothing } })] }),
    )
  planned()
  supervisor.say(engine, serves)
  await settled()
  t.same(sent(), [{ id: 'one', bytesPerSecond: 7, regionsDone: 3 }])
  planned(8)
  await settled()
  t.same(sent().slice(1), [{ id: 'one', bytesPerSecond: 8, regionsDone: 3 }], 'another rate')
  const progress = { id: 'one', running: true, finished: false, regions: 256, regionsDone: 9, ...nothing }
  supervisor.say(engine, { event: 'scrub', progress })
  t.match(agent.report().engines, [{ scrub: { id: 'one', regionsDone: 9 } }])
  supervisor.end(engine, 'was ended by SIGKILL', 0)
  supervisor.run(engine)
  supervisor.say(engine, serves)
  await settled()
  t.same(sent().slice(2), [{ id: 'one', bytesPerSecond: 8, regionsDone: 9 }], 'behind what the dead one said')
  supervisor.say(engine, { event: 'scrub', progress: { ...progress, running: false, finished: true } })
  supervisor.end(engine, 'was ended by SIGKILL', 0)
  supervisor.run(engine)
  supervisor.say(engine, serves)
  planned(8)
  await settled()
  t.equal(sent().length, 3, 'what ended is not begun again before the plan says so')
  t.match(agent.report().engines, [{ scrub: { id: 'one', finished: true } }])
})

t.test('a scrub that the plan has no more is stopped', async (t) => {
  const { agent, supervisor } = aNode(t)
  supervisor.answers = { scrub: () => ({ result: {} }), 'stop-scrub': () => ({ result: {} }) }
  const scrub = { id: 'one', bytesPerSecond: 7, regionsDone: 0, ...nothing }
  agent.apply(aPlan({ engines: [anEnginePlan({ scrub })] }))
  supervisor.say(engine, serves)
  await settled()
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  await settled()
  t.equal(supervisor.posted('stop-scrub').length, 1)
})

t.test(
  'an engine is told of the space that there is, and again when that changed or it was started anew',
  async (t) => {
    const { agent, supervisor } = aNode(t)
    supervisor.answers = { set: () => ({ result: {} }) }
    const space = { totalBytes: 100, freeBytes: 50, softBytes: 20, low: false }
    const sent = (): unknown[] => supervisor.posted('set').map((request) => request['space'])
    const planned = (change: object = {}): void =>
      agent.apply(aPlan({ engines: [anEnginePlan({ space: { ...space, ...change } })] }))
    planned()
    supervisor.say(engine, serves)
    await settled()
    planned()
    await settled()
    t.same(sent(), [space])
    planned({ freeBytes: 10, low: true })
    await settled()
    t.same(sent().slice(1), [{ ...space, freeBytes: 10, low: true }])
    supervisor.end(engine, 'was ended by SIGKILL', 0)
    supervisor.run(engine)
    supervisor.say(engine, serves)
    await settled()
    t.equal(sent().length, 3)
  },
)

t.test('the trim of the plan is begun, goes on after the engine died, and is stopped with the plan', async (t) => {
  const { agent, supervisor } = aNode(t)
  supervisor.answers = { trim: () => ({ result: {} }), 'stop-trim': () => ({ result: {} }) }
  const trim = { id: 'one', bytesPerSecond: 7, bytesDone: 10, unmappedBytes: 2, failedBytes: 1 }
  const sent = (): object[] =>
    supervisor.posted('trim').map(({ id, bytesDone, unmappedBytes }) => ({ id, bytesDone, unmappedBytes }))
  const planned = (): void => agent.apply(aPlan({ engines: [anEnginePlan({ trim })] }))
  planned()
  supervisor.say(engine, serves)
  await settled()
  t.same(sent(), [{ id: 'one', bytesDone: 10, unmappedBytes: 2 }])
  const progress = { ...trim, running: true, finished: false, bytes: 100, bytesDone: 50, unmappedBytes: 20 }
  supervisor.say(engine, { event: 'trim', progress })
  t.match(agent.report().engines, [{ trim: { id: 'one', bytesDone: 50 } }])
  supervisor.end(engine, 'was ended by SIGKILL', 0)
  supervisor.run(engine)
  supervisor.say(engine, serves)
  await settled()
  t.same(sent().slice(1), [{ id: 'one', bytesDone: 50, unmappedBytes: 20 }], 'behind what the dead one said')
  supervisor.say(engine, { event: 'trim', progress: { ...progress, running: false, finished: true } })
  supervisor.end(engine, 'was ended by SIGKILL', 0)
  supervisor.run(engine)
  supervisor.say(engine, serves)
  planned()
  await settled()
  t.equal(sent().length, 2, 'what ended is not begun again')
  agent.apply(aPlan({ engines: [anEnginePlan({ trim: { ...trim, id: 'two' } })] }))
  await settled()
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  await settled()
  t.equal(supervisor.posted('stop-trim').length, 1)
})

t.test('an engine that died is reported as starting, with what happened, and serves nowhere', (t) => {
  const { agent, supervisor } = aNode(t)
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  supervisor.say(engine, serving)
  supervisor.say(engine, {
    event: 'state',
    state: 'serving',
    message: '',
    waitsFor: '',
    members: ['aa'],
    generation: 1,
  })
  supervisor.end(engine, 'was ended by SIGSEGV', 200)
  const [report] = agent.report().engines
  t.match(report, {
    state: 'starting',
    message: 'the engine process was ended by SIGSEGV, starting it again in 200 ms',
  })
  t.notOk('nbd' in report!)
  t.notOk('iscsi' in report!)
  supervisor.run(engine)
  t.match(agent.report().engines, [{ run: 2, state: 'starting' }])
  t.end()
})

t.test('why an engine refused to start outlives its process', (t) => {
  const { agent, supervisor } = aNode(t)
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  const message = 'port 10810 is in use'
  supervisor.say(engine, { event: 'state', state: 'refused', message, waitsFor: '', members: [], generation: 0 })
  supervisor.end(engine, 'exited with code 1', 200)
  t.match(agent.report().engines, [{ state: 'refused', message }])
  supervisor.run(engine)
  t.match(agent.report().engines, [{ state: 'starting', message }])
  t.end()
})

t.test('another attachment makes another engine, and the old one is not heard any more', async (t) => {
  const { agent, supervisor, lines } = aNode(t)
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  const old = supervisor.processes.get(engine)!
  supervisor.say(engine, {
    event: 'state',
    state: 'serving',
    message: '',
    waitsFor: '',
    members: ['aa'],
    generation: 9,
  })
  const record = aRecord(1, { attachment: 4, run: 1 })
  agent.apply(aPlan({ engines: [anEnginePlan({ attachment: 4, record })] }))
  t.match(agent.report().engines, [{ attachment: 4, run: 1, state: 'starting', generation: 1 }])
  supervisor.say(
    engine,
    { event: 'state', state: 'stopped', message: '', waitsFor: '', members: [], generation: 9 },
    old,
  )
  t.match(agent.report().engines, [{ attachment: 4, state: 'starting', generation: 1 }])
  t.strictSame(
    lines.filter(({ message }) => message.includes('starting it again')),
    [],
  )
  t.match(supervisor.specs.get(engine), { attachment: 4, config: { record } })
  await settled()
})

t.test('an engine that leaves the plan is stopped clean, and reported until it is gone', async (t) => {
  const { agent, supervisor } = aNode(t)
  let gone: () => void = () => undefined
  supervisor.stopping = () => new Promise((resolve) => (gone = resolve))
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  agent.apply(aPlan({ version: 2 }))
  agent.apply(aPlan({ version: 3 }))
  t.match(agent.report().engines, [{ volume: 'demo', state: 'stopping' }])
  t.equal(supervisor.stops.length, 1)
  gone()
  await settled()
  t.strictSame(agent.report().engines, [])
})

t.test('an engine that is wanted again while it stops stays in the report', async (t) => {
  const { agent, supervisor } = aNode(t)
  let gone: () => void = () => undefined
  supervisor.stopping = () => new Promise((resolve) => (gone = resolve))
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  agent.apply(aPlan({ version: 2 }))
  agent.apply(aPlan({ version: 3, engines: [anEnginePlan({ attachment: 4 })] }))
  gone()
  supervisor.stopping = () => Promise.resolve()
  await settled()
  t.match(agent.report().engines, [{ volume: 'demo', attachment: 4 }])
})

t.test('counters come from who answers, and who is silent is left out', async (t) => {
  const { agent, supervisor } = aNode(t)
  supervisor.answers['counters'] = (_, key) => (key === engine ? { result: { volume: 'demo' } } : undefined)
  agent.apply(aPlan({ disks: [aDisk()], engines: [anEnginePlan(), anEnginePlan({ volume: 'silent' })] }))
  t.match(await agent.counters(), { engines: [{ volume: 'demo' }], disks: [] })
})

t.test('what clients log in with goes to the engine, and nowhere else', (t) => {
  const { agent, supervisor, lines } = aNode(t)
  const chap = { user: 'me', secret: 'a secret of mine', mutualUser: 'you', mutualSecret: 'a secret of yours' }
  const plan = anEnginePlan()
  agent.apply(aPlan({ engines: [{ ...plan, iscsi: { ...plan.iscsi, chap } }] }))
  t.match(supervisor.specs.get(engine), { config: { iscsi: { chap } } })
  supervisor.say(engine, {
    event: 'state',
    state: 'serving',
    message: '',
    waitsFor: '',
    members: ['aa'],
    generation: 1,
  })
  supervisor.end(engine, 'was ended by SIGSEGV', 0)
  t.notMatch(JSON.stringify([agent.report(), lines]), /a secret of/)
  t.end()
})

t.test('a node stops its engines before the disk hosts that they need', async (t) => {
  const { agent, supervisor } = aNode(t)
  agent.apply(aPlan({ disks: [aDisk()], engines: [anEnginePlan()] }))
  await agent.stop()
  t.match(supervisor.stops, [{ key: engine }, { key: 'disk-host/disk-1' }])
  t.ok(supervisor.stops.reduce((sum, { limitMs }) => sum + limitMs!, 0) < 5000)
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  t.strictSame(agent.report().engines, [], 'no plan is followed after that')
})

t.test('several changes at once are told once', async (t) => {
  const { agent, supervisor } = aNode(t)
  let calls = 0
  const forget = agent.onChange(() => calls++)
  agent.apply(aPlan({ disks: [aDisk()], engines: [anEnginePlan()] }))
  supervisor.say(engine, {
    event: 'state',
    state: 'waiting',
    message: 'for aa',
    waitsFor: '',
    members: [],
    generation: 0,
  })
  await settled()
  t.equal(calls, 1)
  supervisor.say(engine, {
    event: 'state',
    state: 'waiting',
    message: 'for aa',
    waitsFor: '',
    members: [],
    generation: 0,
  })
  await settled()
  t.equal(calls, 1, 'nothing is new')
  forget()
  supervisor.say(engine, {
    event: 'state',
    state: 'serving',
    message: '',
    waitsFor: '',
    members: ['aa'],
    generation: 1,
  })
  await settled()
  t.equal(calls, 1)
})

t.test('the plan of another node is not followed', (t) => {
  const { agent, supervisor, lines } = aNode(t)
  agent.apply({ ...aPlan({ engines: [anEnginePlan()] }), node: 'node-2' })
  t.equal(supervisor.specs.size, 0)
  t.match(lines, [{ level: 'error' }])
  t.end()
})

t.test('records are ordered by attachment, run, generation', (t) => {
  const order = [
    aRecord(9, { attachment: 1, run: 9 }),
    aRecord(1, { attachment: 2, run: 1 }),
    aRecord(2, { attachment: 2, run: 1 }),
    aRecord(1, { attachment: 2, run: 2 }),
  ]
  for (const [i, one] of order.entries()) {
    for (const [j, other] of order.entries()) t.equal(newerRecord(one, other), i >= j ? one : other)
  }
  t.end()
})

t.test('a probe is answered by really asking the store', async (t) => {
  const { agent, supervisor, storing } = aNode(t)
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  const asked: unknown[] = []
  storing.probe = (volume, attachment) => {
    asked.push({ volume, attachment })
    return Promise.resolve()
  }
  supervisor.say(engine, { event: 'probe', question: 4 })
  await settled()
  t.strictSame(asked, [{ volume: 'demo', attachment: 3 }])
  t.strictSame(supervisor.posts, [{ key: engine, message: { answer: 4, ok: true } }])
  storing.probe = () => Promise.reject(new Error('the store is away'))
  supervisor.say(engine, { event: 'probe', question: 5 })
  await settled()
  t.match(supervisor.posts[1], { message: { answer: 5, ok: false, message: 'the store is away' } })
  storing.probe = () => Promise.reject(Object.assign(new Error('attachment 4'), { code: 'stale-attachment' }))
  supervisor.say(engine, { event: 'probe', question: 6 })
  await settled()
  t.match(supervisor.posts[2], { message: { answer: 6, ok: false, code: 'fenced' } })
})

t.test('a complete record is a hint: nobody waits, and it is given again until the store takes it', async (t) => {
  const { agent, supervisor, stored, storing } = aNode(t)
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  let tries = 0
  storing.take = () => (++tries < 2 ? Promise.reject(new Error('the store is away')) : Promise.resolve())
  supervisor.say(engine, { event: 'complete', record: aRecord(1) })
  await settled()
  supervisor.say(engine, { event: 'complete', record: aRecord(2) })
  t.strictSame(supervisor.posts, [])
  for (let waits = 0; stored.length === 0 && waits < 100; ++waits) await new Promise((done) => setTimeout(done, 100))
  t.match(stored, [{ record: { generation: 2 } }], 'the newest takes the place of those before it')
})

t.test('why an engine cannot start is in the report until it serves', (t) => {
  const { agent, supervisor } = aNode(t)
  agent.apply(aPlan({ engines: [anEnginePlan()] }))
  const found = {
    newest: aRecord(4),
    lacking: 'bb does not answer',
    replicas: [{ id: 'aa', answered: false, reason: 'gone' }],
  }
  supervisor.say(engine, { event: 'cannot-start', ...found })
  t.strictSame(agent.report().engines[0]?.cannotStart, found)
  supervisor.say(engine, serving)
  t.equal(agent.report().engines[0]?.cannotStart, undefined)
  t.end()
})
