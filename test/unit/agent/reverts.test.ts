import t from 'tap'
import type { SnapshotsPlan } from '../../../src/agent/index.js'
import type { EngineEvent } from '../../../src/native/index.js'
import { aNode, aPlan, anEnginePlan, settled } from './builders.js'

const engine = 'engine/demo'
const serves = {
  ...{ event: 'state', state: 'serving', message: '', waitsFor: '' },
  ...{ members: ['aa'], generation: 1 },
} as const satisfies EngineEvent
const revert = { layer: 'revert-1', base: 'monday-1', after: 'before-1', force: false }

t.test('an engine is asked for a revert until it answers', async (t) => {
  const { supervisor, agent } = aNode(t)
  let answers: object[] = [
    { error: { code: 'unavailable', message: 'it starts' } },
    { result: { members: 1, pauseNs: 7 } },
  ]
  supervisor.answers = {
    'list-layers': () => ({ result: { members: 1, layers: [] } }),
    revert: () => answers.shift(),
  }
  const plan = (snapshots?: SnapshotsPlan): void => {
    agent.apply(aPlan({ engines: [anEnginePlan(snapshots === undefined ? {} : { snapshots })] }))
  }
  const report = (): unknown => agent.report().engines[0]?.snapshots?.revert
  plan({ take: [], absent: [], revert })
  supervisor.say(engine, serves)
  await settled()
  t.match(supervisor.posted('revert'), [revert])
  t.equal(report(), undefined, 'what nobody knows is asked for again')
  await new Promise((resolve) => setTimeout(resolve, 1100))
  await settled()
  t.equal(supervisor.posted('revert').length, 2)
  t.same(report(), { layer: 'revert-1', reverted: true, pauseNs: 7 })
  answers = [{ error: { code: 'busy', message: 'the volume is in use' } }]
  plan({ take: [], absent: [], revert: { ...revert, layer: 'revert-2' } })
  await settled()
  t.same(report(), { layer: 'revert-2', reverted: false, code: 'busy', message: 'the volume is in use' })
  await settled()
  t.equal(supervisor.posted('revert').length, 3, 'once')
  plan()
  await settled()
  t.equal(report(), undefined)
})
