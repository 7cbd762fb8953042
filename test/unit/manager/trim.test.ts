import t from 'tap'
import type { EngineReport } from '../../../src/agent/index.js'
import { assessTrim, beginTrim } from '../../../src/manager/trim.js'
import type { TrimProgress } from '../../../src/native/index.js'
import type { Volume } from '../../../src/store/index.js'
import { aVolume } from '../store/builders.js'

const nowMs = Date.parse('2026-03-01T00:00:00.000Z')
const id = new Date(nowMs).toISOString()

function aTrimmedVolume(): Volume {
  const metadata = { name: 'demo', uid: 'uid', resourceVersion: '1', creationTimestamp: id }
  const volume: Volume = { ...aVolume('demo'), metadata }
  volume.spec.nodeID = volume.membership.node = 'node-1'
  volume.trim = beginTrim(volume, nowMs, 0)
  return volume
}

function aReport(trim: Partial<TrimProgress>): EngineReport {
  return {
    ...{ volume: 'demo', attachment: 1, run: 1, state: 'serving', message: '', waitsFor: '' },
    ...{ members: [], generation: 1, replicas: [] },
    trim: {
      ...{ id, running: true, finished: false, bytes: 100, bytesDone: 0, unmappedBytes: 0, failedBytes: 0 },
      ...trim,
    },
  }
}

void t.test('a trim goes on, and ends with what came of it', (t) => {
  const volume = aTrimmedVolume()
  t.equal(assessTrim(volume, undefined, nowMs), volume.trim, 'no news')
  t.equal(assessTrim(volume, aReport({ id: 'another', finished: true }), nowMs), volume.trim, 'news of another one')
  volume.trim = assessTrim(volume, aReport({ bytesDone: 50, unmappedBytes: 20 }), nowMs)!
  t.match(volume.trim, { current: { bytesDone: 50, unmappedBytes: 20 } })
  t.match(assessTrim(volume, aReport({ bytesDone: 40 }), nowMs), { current: { bytesDone: 50 } }, 'it never goes back')
  volume.trim = assessTrim(volume, aReport({ bytesDone: 100, unmappedBytes: 30, finished: true }), nowMs + 5)!
  const endedAt = new Date(nowMs + 5).toISOString()
  t.match(volume.trim, { last: { begunAt: id, endedAt, outcome: 'done', unmappedBytes: 30 } })
  t.notOk('current' in volume.trim)
  volume.trim = beginTrim(volume, nowMs + 9, 7)
  t.match(volume.trim, { current: { bytesDone: 0, bandwidth: 7 }, last: { endedAt } }, 'the next one keeps it')
  t.end()
})

void t.test('there is one at a time', (t) => {
  t.throws(() => beginTrim(aTrimmedVolume(), nowMs, 0), { code: 'busy', message: /trim demo --stop/ })
  t.end()
})

void t.test('it is interrupted where the volume is detached, and by another attachment', (t) => {
  const detached = aTrimmedVolume()
  detached.trim = assessTrim(detached, aReport({ bytesDone: 50, unmappedBytes: 20 }), nowMs)!
  detached.spec.nodeID = null
  const last = { outcome: 'interrupted', bytesDone: 50, unmappedBytes: 20 }
  t.match(assessTrim(detached, undefined, nowMs), { last })
  const again = aTrimmedVolume()
  again.membership.attachment += 1
  t.match(assessTrim(again, undefined, nowMs), { last: { outcome: 'interrupted', bytesDone: 0 } })
  t.end()
})
