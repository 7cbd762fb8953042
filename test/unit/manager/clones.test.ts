// What becomes of linked clones that are being made, by the clock and by what is seen.
import t, { type Test } from 'tap'
import { cloneMakingMsMax, refuseWhileCloned, settleClone } from '../../../src/manager/clones.js'
import type { ObservedReplica } from '../../../src/manager/volume-state.js'
import type { Volume } from '../../../src/store/index.js'
import { aCluster, aRequest } from './cluster.js'

const seen = (...states: ObservedReplica['state'][]): Map<string, ObservedReplica> =>
  new Map(states.map((state, n) => [`${n}`, { state, directory: '', message: '' }]))

async function aClone(t: Test): Promise<{ volume: Volume; bornMs: number }> {
  const { manager } = await aCluster(t)
  const made = await manager.createVolume(aRequest())
  const ids = ['0', '1', '2']
  const volume: Volume = {
    ...made,
    clonedFrom: {
      ...{ volume: 'source', volumeUid: 'uid', snapshot: 'monday', linked: true, layer: 'monday-1' },
      making: ids.map((id) => ({ id, source: `s${id}` })),
    },
    membership: { ...made.membership, record: { ...made.membership.record, generation: 1, members: ids } },
  }
  return { volume, bornMs: Date.parse(made.metadata.creationTimestamp) }
}

const left = ({ clonedFrom }: Volume): string[] | undefined => clonedFrom?.making?.map(({ id }) => id)

t.test('replicas that are made are noted, and the last one ends it', async (t) => {
  const { volume, bornMs } = await aClone(t)
  const now = bornMs + 1000
  t.equal(settleClone(volume, seen('creating', 'failed', 'unknown'), now), volume)
  const next = settleClone(volume, seen('ready', 'failed', 'creating'), now)
  t.same(left(next), ['1', '2'])
  t.same(left(settleClone(next, seen('ready', 'ready', 'ready'), now)), undefined)
  t.same(settleClone(volume, seen('ready', 'ready', 'ready'), now).clonedFrom, {
    ...{ volume: 'source', volumeUid: 'uid', snapshot: 'monday', linked: true, layer: 'monday-1' },
  })
})

t.test('most of them are enough when it is late, and half of them are not', async (t) => {
  const { volume, bornMs } = await aClone(t)
  const late = bornMs + cloneMakingMsMax(volume.spec) + 1
  t.same(left(settleClone(volume, seen('ready', 'ready', 'failed'), late - 2)), ['2'])
  t.same(left(settleClone(volume, seen('ready', 'ready', 'failed'), late)), undefined)
  t.same(left(settleClone(volume, seen('ready', 'failed', 'failed'), late)), ['1', '2'])
  const two = structuredClone(volume)
  two.membership.record.members = ['0', '1']
  two.clonedFrom?.making?.pop()
  t.same(left(settleClone(two, seen('ready', 'failed'), late)), ['1'])
  const large = { ...volume, spec: { ...volume.spec, sizeBytes: 2 ** 41 } }
  t.same(
    left(settleClone(large, seen('ready', 'ready', 'failed'), bornMs + 130_000)),
    ['2'],
    'two minutes more for 2 TiB',
  )
  t.same(left(settleClone(large, seen('ready', 'ready', 'failed'), bornMs + 130_001)), undefined)
})

t.test('a volume is not deleted while it is being cloned', async (t) => {
  const { volume: clone } = await aClone(t)
  const source: Volume = { ...clone, metadata: { ...clone.metadata, name: 'source', uid: 'uid' } }
  delete source.clonedFrom
  const going = { ...clone, metadata: { ...clone.metadata, deletionTimestamp: new Date().toISOString() } }
  refuseWhileCloned(source, [source, going])
  t.throws(() => refuseWhileCloned(source, [source, going, clone]), {
    code: 'busy',
    message: /demo is being cloned from it/,
  })
  refuseWhileCloned(source, [source, settleClone(clone, seen('ready', 'ready', 'ready'), 0)])
  refuseWhileCloned({ ...source, metadata: { ...source.metadata, uid: 'another' } }, [clone])
  t.end()
})
