import t from 'tap'
import type { EngineReport, RevertAnswer } from '../../../src/agent/index.js'
import {
  assessSnapshot,
  draftRevert,
  draftSnapshot,
  revertMsMax,
  snapshotsPlan,
  type SnapshotSurroundings,
} from '../../../src/manager/snapshots.js'
import type { Snapshot, Volume } from '../../../src/store/index.js'
import { aVolume } from '../store/builders.js'

const nowMs = Date.parse('2026-01-01T00:00:00Z')
const metadata = { uid: 'u', resourceVersion: '1', creationTimestamp: '2026-01-01T00:00:00.000Z' }

function served(): Volume {
  const draft = aVolume('demo')
  const volume = { ...draft, metadata: { ...draft.metadata, ...metadata } } as Volume
  volume.membership = { ...volume.membership, attachment: 3, node: 'node-1' }
  return volume
}

function asked(volume: Volume): Snapshot {
  const draft = draftSnapshot(volume, 'monday', {}, [], nowMs)
  const snapshot = {
    ...draft,
    metadata: { ...draft.metadata, ...metadata },
    layer: 'monday-1',
    state: 'ready',
    tries: 0,
  }
  const ready = snapshot as Snapshot
  return { ...ready, revert: draftRevert(ready, volume, 'before-1', false, nowMs) }
}

function assessed(snapshot: Snapshot, volume: Volume, answer?: RevertAnswer, atMs = nowMs): Snapshot['revert'] {
  const report = { snapshots: { answers: [], troubles: [], ...(answer === undefined ? {} : { revert: answer }) } }
  const engine = report as unknown as EngineReport
  const surroundings: SnapshotSurroundings = { volume, engine, isUnplanned: () => true, nowMs: atMs }
  return assessSnapshot(snapshot, surroundings)?.revert
}

t.test('a revert is planned until it is answered', (t) => {
  const volume = served()
  const snapshot = asked(volume)
  const layer = snapshot.revert!.layer
  t.same(snapshotsPlan(volume, [snapshot]), {
    take: [],
    absent: [],
    revert: { layer, base: 'monday-1', after: 'before-1', force: false },
  })
  t.match(assessed(snapshot, volume), { state: 'asked' })
  t.match(assessed(snapshot, volume, { layer: 'another', reverted: true, pauseNs: 1 }), { state: 'asked' })
  const done = assessed(snapshot, volume, { layer, reverted: true, pauseNs: 3_000_000 })
  t.match(done, { state: 'done', pauseMs: 3, message: '' })
  t.equal(snapshotsPlan(volume, [{ ...snapshot, revert: done! }]), undefined)
  const failed = assessed(snapshot, volume, { layer, reverted: false, code: 'busy', message: 'it is in use' })
  t.match(failed, { state: 'failed', code: 'busy', message: 'it is in use' })
  t.end()
})

t.test('what nobody answered for is told by the record, or not known', (t) => {
  const volume = served()
  const snapshot = asked(volume)
  const detached = { ...volume, membership: { ...volume.membership, node: null } }
  t.match(assessed(snapshot, detached), { state: 'unknown', message: /detached/ })
  t.equal(snapshotsPlan({ ...detached, membership: { ...detached.membership, attachment: 4 } }, [snapshot]), undefined)
  const record = { ...volume.membership.record, snapshot: snapshot.revert!.layer }
  t.match(assessed(snapshot, { ...detached, membership: { ...detached.membership, record } }), { state: 'done' })
  t.match(assessed(snapshot, volume, undefined, nowMs + revertMsMax), { state: 'asked' })
  t.match(assessed(snapshot, volume, undefined, nowMs + revertMsMax + 1), { state: 'unknown', message: /2 minutes/ })
  t.end()
})
