import t, { type Test } from 'tap'
import type { CannotStart } from '../../../src/agent/index.js'
import type { MembershipRecord, Volume } from '../../../src/store/index.js'
import { aCluster, aRequest, type Cluster } from './cluster.js'

interface Refused extends Cluster {
  volume: Volume
  ids: [string, string, string]
  record: (generation: number, members: string[]) => MembershipRecord
  /** The engine says that it cannot start, and why. */
  refuse: (found: CannotStart) => void
}

async function aRefusedVolume(t: Test): Promise<Refused> {
  const cluster = await aCluster(t)
  cluster.agent.engineState = 'starting'
  await cluster.manager.createVolume(aRequest())
  await cluster.untilState('demo', 'detached')
  await cluster.manager.attach('demo')
  const volume = await cluster.untilState('demo', 'attaching')
  await cluster.manager.waitFor('the engine', 5000, () => cluster.manager.engine(cluster.manager.volume('demo')))
  const ids = volume.replicas.map(({ id }) => id) as Refused['ids']
  const record: Refused['record'] = (generation, members) => ({
    ...{ epoch: { attachment: 1, run: 1 }, generation, members, snapshot: '' },
  })
  const refuse: Refused['refuse'] = (found) => {
    cluster.agent.cannotStart = found
  }
  return { ...cluster, volume, ids, record, refuse }
}

void t.test('it goes on with those that hold the newest record, and remembers it', async (t) => {
  const { manager, volume, ids, record, refuse, agent } = await aRefusedVolume(t)
  const [a, b, c] = ids
  const newest = record(5, [a, b])
  const welcomed = { attachment: 3, run: 2 }
  const older = record(4, ids)
  refuse({
    ...{ newest, lacking: 'replica b does not answer' },
    replicas: [
      { id: a, answered: true, record: newest, welcomed, suspect: true, unclean: true },
      { id: b, answered: false, reason: 'connection refused' },
      { id: c, answered: true, record: older, welcomed, suspect: false, unclean: false },
    ],
  })
  const plan = await manager.salvage('demo', [], false)
  t.match(plan, { attachment: 4, record: { epoch: { attachment: 4, run: 0 }, generation: 6, members: [a] } })
  t.match(plan.mayLose, /not flushed/)
  t.equal(manager.volume('demo').membership.attachment, volume.membership.attachment, 'nothing is done without a yes')

  await manager.salvage('demo', [], true)
  const salvaged = await manager.waitFor('plan', 5000, () => {
    const engine = agent.plan?.engines.find(({ attachment }) => attachment === 4)
    return engine && manager.volume('demo')
  })
  t.match(salvaged.membership, { attachment: 4, record: { members: [a], epoch: { run: 0 } } })
  t.match(salvaged.salvages, [{ attachment: 4, replicas: [a], reason: 'replica b does not answer' }])
  t.match(agent.plan?.engines, [{ attachment: 4, record: { generation: 6, members: [a] } }])
})

void t.test('an older replica may be chosen, and what that costs is said', async (t) => {
  const { manager, ids, record, refuse } = await aRefusedVolume(t)
  const [a, b, c] = ids
  const welcomed = { attachment: 1, run: 1 }
  refuse({
    ...{ newest: record(5, [a, b]), lacking: 'a and b do not answer' },
    replicas: [
      { id: a, answered: false, reason: 'gone' },
      { id: b, answered: false, reason: 'gone' },
      { id: c, answered: true, record: record(4, ids), welcomed, suspect: false, unclean: false },
    ],
  })
  const plan = await manager.salvage('demo', [c], false)
  t.same(plan.record.members, [c])
  t.match(plan.mayLose, /since generation 4 .* members of generation 5/)
})

void t.test('it refuses what makes no sense', async (t) => {
  const { manager, ids, record, refuse } = await aRefusedVolume(t)
  const [a] = ids
  await t.rejects(manager.salvage('demo', [], true), { code: 'salvage-not-needed' })
  await t.rejects(manager.salvage('other', [], true), { code: 'not-found' })
  refuse({
    ...{ newest: record(5, ids), lacking: 'nobody answers' },
    replicas: ids.map((id) => ({ id, answered: false, reason: 'gone' })),
  })
  await t.rejects(manager.salvage('demo', [], true), { code: 'not-enough-replicas' })
  await t.rejects(manager.salvage('demo', [a], true), {
    code: 'not-enough-replicas',
    message: /does not answer \(gone\)/,
  })
  await t.rejects(manager.salvage('demo', ['f'.repeat(16)], true), { code: 'invalid-argument' })
  t.same(manager.volume('demo').salvages ?? [], [])
})
