import t, { type Test } from 'tap'
import type { SnapshotsPlan, SnapshotsReport } from '../../../src/agent/index.js'
import type { EngineEvent, Layer } from '../../../src/native/index.js'
import { aNode, aPlan, anEnginePlan, eventually, settled, type Node } from './builders.js'

const engine = 'engine/demo'
const serves = {
  ...{ event: 'state', state: 'serving', message: '', waitsFor: '' },
  ...{ members: ['aa'], generation: 1 },
} as const satisfies EngineEvent

interface Volume extends Node {
  /** Under the head, as the engine lists them. */
  layers: Layer[]
  plan: (snapshots?: Partial<SnapshotsPlan>) => void
  report: () => SnapshotsReport
  /** What the engine was asked, in its order. */
  asked: () => string[]
}

function aLayer(name: string, parts: Partial<Layer> = {}): Layer {
  const numbers = { createdSeconds: 1, allocatedBytes: 4096, sizeBytes: 1 << 30 }
  return { name, parent: '', ...numbers, removed: false, userCreated: true, sealed: true, ...parts }
}

/** An engine that serves, and does what it is asked. */
function aVolume(t: Test): Volume {
  const node = aNode(t)
  const { supervisor, agent } = node
  const layers: Layer[] = []
  supervisor.answers = {
    'list-layers': () => ({
      result: { members: 1, layers: structuredClone([...layers, aLayer('', { sealed: false })]) },
    }),
    'take-snapshot': ({ layer }) => {
      layers.push(aLayer(String(layer)))
      return { result: { members: 1, pauseNs: 2000 } }
    },
    'delete-snapshot': ({ layer }) => {
      for (const one of layers) if (one.name === layer) one.removed = true
      return { result: { members: 1 } }
    },
  }
  const plan: Volume['plan'] = (snapshots) => {
    const wanted = snapshots === undefined ? {} : { snapshots: { take: [], absent: [], ...snapshots } }
    agent.apply(aPlan({ engines: [anEnginePlan(wanted)] }))
  }
  return {
    ...node,
    layers,
    plan,
    report: () => agent.report().engines[0]!.snapshots!,
    asked: () =>
      supervisor.posts.flatMap(({ message: { op, layer } }) => {
        const name = typeof layer === 'string' ? ` ${layer}` : ''
        return ['list-layers', 'take-snapshot', 'delete-snapshot'].includes(op) ? [`${op}${name}`] : []
      }),
  }
}

const take = (layer: string): SnapshotsPlan['take'][number] => {
  return { layer, labels: { a: 'b' }, userCreated: true, createdSeconds: 7 }
}

t.test('an engine that serves is asked for its layers, and then for what the plan says', async (t) => {
  const volume = aVolume(t)
  volume.plan({ take: [take('monday'), take('tuesday')] })
  await settled()
  t.same(volume.asked(), [], 'it does not serve yet')
  volume.supervisor.say(engine, serves)
  await settled()
  t.same(volume.asked(), [
    ...['list-layers', 'take-snapshot monday', 'list-layers', 'take-snapshot tuesday', 'list-layers'],
  ])
  t.match(volume.supervisor.posted('take-snapshot')[0], { labels: { a: 'b' }, userCreated: true, createdSeconds: 7 })
  t.same(volume.report().answers, [
    { layer: 'monday', taken: true, pauseNs: 2000 },
    { layer: 'tuesday', taken: true, pauseNs: 2000 },
  ])
  t.match(volume.report().layers, [{ name: 'monday' }, { name: 'tuesday' }, { name: '' }])
  volume.plan({ take: [take('monday'), take('tuesday')] })
  await settled()
  t.equal(volume.asked().length, 5, 'once')
  volume.plan()
  await settled()
  t.same(volume.report().answers, [], 'what nobody plans any more is forgotten')
})

t.test('while one is taken nothing is said of the layers, and what is planned no more is not asked for', async (t) => {
  const volume = aVolume(t)
  volume.supervisor.answers['take-snapshot'] = () => undefined
  volume.plan()
  volume.supervisor.say(engine, serves)
  await settled()
  t.match(volume.report(), { answers: [], layers: [{ name: '' }] })
  volume.plan({ take: [take('monday'), take('tuesday')] })
  t.notOk('layers' in volume.report(), 'from the moment on in which it is asked')
  volume.plan({ absent: ['monday'] })
  await settled()
  t.notOk('layers' in volume.report())
  volume.layers.push(aLayer('monday'))
  const { request } = volume.supervisor.posted('take-snapshot')[0]!
  const event = { reply: request, result: { members: 1, pauseNs: 1 } } as unknown as EngineEvent
  volume.supervisor.say(engine, event)
  await settled()
  t.same(volume.asked(), [
    ...['list-layers', 'take-snapshot monday', 'list-layers', 'delete-snapshot monday', 'list-layers'],
  ])
  t.match(volume.report(), { answers: [], layers: [{ name: 'monday', removed: true }, { name: '' }] })
})

t.test('what an engine that ended has not answered it never will', async (t) => {
  const volume = aVolume(t)
  volume.supervisor.answers['take-snapshot'] = () => undefined
  volume.plan({ take: [take('monday')] })
  volume.supervisor.say(engine, serves)
  await settled()
  volume.supervisor.end(engine, 'was ended by SIGKILL', 0)
  await settled()
  t.match(volume.report().answers, [{ layer: 'monday', taken: false, code: 'gone' }])
  t.notOk('layers' in volume.report())
  volume.supervisor.run(engine)
  volume.supervisor.say(engine, serves)
  await settled()
  t.same(volume.asked(), ['list-layers', 'take-snapshot monday', 'list-layers'], 'the next one is not asked for it')
  t.match(volume.report(), { answers: [{ taken: false }], layers: [{ name: '' }] })
})

t.test('a layer that cannot be deleted yet is told, and asked for again', async (t) => {
  const volume = aVolume(t)
  const { supervisor } = volume
  volume.layers.push(aLayer('monday'), aLayer('tuesday'), aLayer('merging', { removed: true }))
  const gone = supervisor.answers['delete-snapshot']!
  supervisor.answers['delete-snapshot'] = () => ({ error: { code: 'busy', message: 'it is being read' } })
  volume.plan({ absent: ['monday', 'merging', 'never'] })
  supervisor.say(engine, serves)
  await settled()
  t.same(volume.asked(), ['list-layers', 'delete-snapshot monday', 'list-layers'])
  t.match(volume.report().layers, [{ name: 'monday' }, {}, {}, {}], 'what is there is told meanwhile')
  t.same(volume.report().troubles, [{ layer: 'monday', message: 'it is being read (busy)' }])
  supervisor.answers['delete-snapshot'] = gone
  await eventually(() => volume.report().layers?.find(({ name }) => name === 'monday')?.removed ?? false)
  t.same(volume.report().troubles, [])
  t.equal(volume.layers.filter(({ removed }) => !removed).length, 1, 'what the plan does not name stays')
})

t.test('a layer that cannot be deleted does not keep others from it', async (t) => {
  const volume = aVolume(t)
  const { supervisor } = volume
  volume.layers.push(aLayer('monday'), aLayer('tuesday'))
  const gone = supervisor.answers['delete-snapshot']!
  supervisor.answers['delete-snapshot'] = (message, key) =>
    message['layer'] === 'monday' ? { error: { code: 'busy', message: 'it is being read' } } : gone(message, key)
  volume.plan({ absent: ['monday', 'tuesday'] })
  supervisor.say(engine, serves)
  await eventually(() => volume.report().layers?.find(({ name }) => name === 'tuesday')?.removed ?? false)
  await eventually(() => supervisor.posted('delete-snapshot').length >= 3)
  t.same(
    supervisor
      .posted('delete-snapshot')
      .map(({ layer }) => layer)
      .slice(0, 3),
    ['monday', 'tuesday', 'monday'],
  )
  t.same(volume.report().troubles, [{ layer: 'monday', message: 'it is being read (busy)' }])
})

t.test('a layer that failed to be deleted at another member than lists them is asked for until it is', async (t) => {
  const volume = aVolume(t)
  const { supervisor } = volume
  volume.layers.push(aLayer('monday'))
  const gone = supervisor.answers['delete-snapshot']!
  supervisor.answers['delete-snapshot'] = (message, key) => {
    gone(message, key)
    return { error: { code: 'unavailable', message: 'replica bb is away' } }
  }
  volume.plan({ absent: ['monday'] })
  supervisor.say(engine, serves)
  const troubles = [{ layer: 'monday', message: 'replica bb is away (unavailable)' }]
  await eventually(() => volume.report().layers?.[0]?.removed ?? false)
  t.same(volume.report().troubles, troubles, 'though the list shows none')
  supervisor.answers['delete-snapshot'] = () => undefined
  await eventually(() => supervisor.posted('delete-snapshot').length === 2)
  supervisor.end(engine, 'was ended by SIGKILL', 0)
  await settled()
  t.match(volume.report().troubles, [{ layer: 'monday', message: /was ended by SIGKILL \(gone\)$/ }])
  supervisor.answers['delete-snapshot'] = gone
  supervisor.run(engine)
  supervisor.say(engine, serves)
  await eventually(() => volume.report().troubles.length === 0)
  t.equal(supervisor.posted('delete-snapshot').length, 3, 'and the next engine is asked for it')
  await settled()
  t.match(volume.report().layers, [{ name: 'monday', removed: true }, {}])
})

t.test('a layer that is listed although it was deleted is not asked for again and again', async (t) => {
  const volume = aVolume(t)
  volume.layers.push(aLayer('monday'))
  volume.supervisor.answers['delete-snapshot'] = () => ({ result: { members: 1 } })
  volume.plan({ absent: ['monday'] })
  volume.supervisor.say(engine, serves)
  for (let n = 0; n < 10; n++) await settled()
  t.equal(volume.supervisor.posted('delete-snapshot').length, 2)
})

t.test('an engine that does not list its layers is asked for nothing else', async (t) => {
  const volume = aVolume(t)
  const list = volume.supervisor.answers['list-layers']!
  volume.supervisor.answers['list-layers'] = () => ({ error: { code: 'unavailable', message: 'no member' } })
  volume.plan({ take: [take('monday')] })
  volume.supervisor.say(engine, serves)
  await settled()
  t.same(volume.asked(), ['list-layers'])
  volume.supervisor.answers['list-layers'] = list
  await eventually(() => volume.report().answers.length === 1)
  t.same(volume.asked().slice(1, 3), ['list-layers', 'take-snapshot monday'])
})

t.test('what is not sealed yet is looked at again', async (t) => {
  const volume = aVolume(t)
  volume.layers.push(aLayer('monday', { sealed: false }))
  volume.plan()
  volume.supervisor.say(engine, serves)
  await settled()
  t.match(volume.report().layers, [{ name: 'monday', sealed: false }, {}])
  volume.layers[0]!.sealed = true
  await eventually(() => volume.report().layers?.[0]?.sealed ?? false)
  t.equal(volume.asked().length, 2)
})

t.test('layers are told as they are now, or as they were last', async (t) => {
  const volume = aVolume(t)
  t.equal(await volume.agent.layers('demo'), undefined)
  volume.plan()
  t.equal(await volume.agent.layers('demo'), undefined, 'it does not serve')
  volume.supervisor.say(engine, serves)
  await settled()
  volume.layers.push(aLayer('monday'))
  t.match(await volume.agent.layers('demo'), [{ name: 'monday' }, { name: '' }])
  volume.layers.push(aLayer('tuesday'))
  volume.supervisor.answers['list-layers'] = () => ({ error: { code: 'busy', message: '' } })
  t.match(await volume.agent.layers('demo'), [{ name: 'monday' }, { name: '' }])
})

t.test('while the engine is at something else layers are told as they were last', async (t) => {
  const volume = aVolume(t)
  const { supervisor } = volume
  volume.layers.push(aLayer('monday'))
  volume.plan()
  supervisor.say(engine, serves)
  await settled()
  const list = supervisor.answers['list-layers']!
  supervisor.answers['take-snapshot'] = supervisor.answers['list-layers'] = () => undefined
  volume.plan({ take: [take('tuesday')] })
  await settled()
  t.match(volume.report(), { layers: undefined, taking: 'tuesday' })
  const asked = supervisor.posted('list-layers').length
  const looks = await Promise.all([1, 2, 3].map(() => volume.agent.layers('demo')))
  for (const look of looks) t.match(look, [{ name: 'monday' }, { name: '' }])
  t.match(await volume.agent.layers('demo'), [{ name: 'monday' }, { name: '' }])
  t.equal(supervisor.posted('list-layers').length, asked + 1, 'all who wait share one request')
  supervisor.answers['list-layers'] = list
  supervisor.end(engine, 'was ended by SIGKILL', 0)
  supervisor.run(engine)
  t.equal(await volume.agent.layers('demo'), undefined, 'the next one has not said anything yet')
})

void t.test('what is asked about what snapshots hold goes to the engine', async (t) => {
  const { agent, supervisor, plan } = aVolume(t)
  plan()
  const changes = { sizeBytes: 8192, fromSizeBytes: 0, nextOffset: 8192, extents: [] }
  supervisor.answers['snapshot-changes'] = () => ({ result: changes })
  supervisor.answers['check-unread'] = () => ({ error: { code: 'busy', message: 'it is being read' } })
  t.same(await agent.askEngine('demo', 'snapshot-changes', { layer: 'monday', offset: 0, limit: 10 }), changes)
  await t.rejects(agent.askEngine('demo', 'check-unread', { layer: 'monday' }), { code: 'busy' })
  await t.rejects(agent.askEngine('other', 'check-unread', { layer: 'monday' }), {
    code: 'gone',
    message: 'no engine of volume other is here',
  })
})
