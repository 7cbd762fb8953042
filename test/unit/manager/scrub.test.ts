import t from 'tap'
import type { EngineReport } from '../../../src/agent/index.js'
import { assessScrub, beginScrub, scrubDueMs, scrubsToBegin } from '../../../src/manager/scrub.js'
import type { ScrubProgress } from '../../../src/native/index.js'
import type { Volume } from '../../../src/store/index.js'
import { aVolume } from '../store/builders.js'

const dayMs = 86_400_000
const madeMs = Date.parse('2026-01-01T00:00:00.000Z')

function anAttachedVolume(name: string, parts: Partial<Volume> = {}): Volume {
  const creationTimestamp = new Date(madeMs).toISOString()
  const volume: Volume = {
    ...aVolume(name),
    metadata: { name, uid: `uid of ${name}`, resourceVersion: '1', creationTimestamp },
    ...parts,
  }
  volume.membership.node = 'node-1'
  volume.status.state = 'attached'
  return volume
}

function aReport(scrub: Partial<ScrubProgress>): EngineReport {
  return {
    ...{ volume: 'demo', attachment: 1, run: 1, state: 'serving', message: '', waitsFor: '' },
    ...{ members: [], generation: 1, replicas: [] },
    scrub: {
      ...{ id: '', running: true, finished: false, regions: 256, regionsDone: 0, regionsFailed: 0 },
      ...{ repairedBlocks: 0, corruptBlocks: 0, differingBlocks: 0, ...scrub },
    },
  }
}

void t.test('volumes that were made together are due within a period, at times of their own', (t) => {
  const volumes = Array.from({ length: 50 }, (_, index) => anAttachedVolume(`v${index}`))
  const dues = volumes.map((volume) => scrubDueMs(volume) ?? 0)
  t.ok(dues.every((due) => due >= madeMs && due < madeMs + 7 * dayMs))
  t.equal(new Set(dues.map((due) => Math.floor(due / dayMs))).size, 7, 'on each of the days')
  t.same(
    dues,
    volumes.map((volume) => scrubDueMs(volume)),
  )
  t.end()
})

void t.test('the next one is due a period after the one before began', (t) => {
  const volume = anAttachedVolume('demo')
  volume.scrub = { begunAt: '2026-03-01T00:00:00.000Z' }
  t.equal(scrubDueMs(volume), Date.parse('2026-03-08T00:00:00.000Z'))
  volume.spec.scrubPeriodSeconds = 2 * 86_400
  t.equal(scrubDueMs(volume), Date.parse('2026-03-03T00:00:00.000Z'))
  volume.spec.scrubPeriodSeconds = 0
  t.equal(scrubDueMs(volume), null)
  t.end()
})

void t.test('a node begins two at a time, those that wait longest; what is detached waits', (t) => {
  const begun = (day: number) => ({ begunAt: new Date(madeMs + day * dayMs).toISOString() })
  const volumes = [
    anAttachedVolume('a', { scrub: begun(3) }),
    anAttachedVolume('b', { scrub: begun(1) }),
    anAttachedVolume('c', { scrub: begun(2) }),
    anAttachedVolume('d', { scrub: begun(0) }),
    anAttachedVolume('e', { scrub: begun(90) }),
  ]
  volumes[3]!.status.state = 'detached'
  const now = madeMs + 91 * dayMs
  t.same([...scrubsToBegin(volumes, now)], ['b', 'c'])
  volumes[1]!.scrub = beginScrub(volumes[1]!.scrub, now)
  t.same([...scrubsToBegin(volumes, now)], ['c'])
  volumes[2]!.scrub = beginScrub(volumes[2]!.scrub, now)
  t.same([...scrubsToBegin(volumes, now)], [])
  volumes[1]!.membership.node = 'node-2'
  t.same([...scrubsToBegin(volumes, now)], ['a'], 'each node for itself')
  t.end()
})

void t.test('a scrub begins, goes on, and ends with what it found', (t) => {
  const volume = anAttachedVolume('demo')
  const now = madeMs + 10 * dayMs
  t.equal(assessScrub(volume, undefined, now, false), undefined)
  volume.scrub = assessScrub(volume, undefined, now, true)!
  const id = new Date(now).toISOString()
  t.match(volume.scrub, { begunAt: id, current: { begunAt: id, regionsDone: 0 } })
  t.equal(assessScrub(volume, undefined, now, false), volume.scrub, 'no news')
  const other = aReport({ id: 'another', finished: true })
  t.equal(assessScrub(volume, other, now, false), volume.scrub, 'news of another one')
  volume.scrub = assessScrub(volume, aReport({ id, regionsDone: 9, repairedBlocks: 2 }), now, false)!
  t.match(volume.scrub, { current: { regionsDone: 9, repairedBlocks: 2 } })
  const older = aReport({ id, regionsDone: 8 })
  t.equal(assessScrub(volume, older, now, false), volume.scrub, 'it never goes back')
  volume.scrub = assessScrub(
    volume,
    aReport({ id, finished: true, regionsDone: 256, corruptBlocks: 1 }),
    now + 5,
    false,
  )!
  t.match(volume.scrub, {
    begunAt: id,
    last: { begunAt: id, endedAt: new Date(now + 5).toISOString(), corruptBlocks: 1 },
  })
  t.notOk('current' in volume.scrub)
  volume.scrub = assessScrub(volume, aReport({ id, finished: true }), now + 8 * dayMs, true)!
  t.match(
    volume.scrub,
    { current: { regionsDone: 0 }, last: { corruptBlocks: 1 } },
    'the next one keeps what was found',
  )
  t.end()
})

void t.test('turned off ends one of the schedule, and none that somebody asked for', (t) => {
  const volume = anAttachedVolume('demo')
  volume.spec.scrubPeriodSeconds = 0
  volume.scrub = beginScrub(undefined, madeMs, 0)
  t.equal(assessScrub(volume, undefined, madeMs, false), volume.scrub)
  volume.scrub = beginScrub(undefined, madeMs)
  t.same(assessScrub(volume, undefined, madeMs, false), { begunAt: new Date(madeMs).toISOString() })
  t.end()
})
