import t from 'tap'
import { checkThresholds, diskThresholdsDefault, levelOf, type DiskLevel } from '../../../src/manager/thresholds.js'
import { aCluster, aRequest } from './cluster.js'

const at = (used: number, before: DiskLevel): DiskLevel =>
  levelOf({ totalBytes: 1000, freeBytes: 1000 - 10 * used }, before, diskThresholdsDefault)

void t.test('a level begins at its threshold, and ends 2 % below it', (t) => {
  t.equal(at(79.9, 'ok'), 'ok')
  t.equal(at(80, 'ok'), 'warning')
  t.equal(at(78.1, 'warning'), 'warning')
  t.equal(at(77.9, 'warning'), 'ok')
  t.equal(at(90, 'warning'), 'critical')
  t.equal(at(88.1, 'critical'), 'critical')
  t.equal(at(87.9, 'critical'), 'warning')
  t.equal(at(79, 'critical'), 'warning', 'it was one, too')
  t.equal(at(95, 'ok'), 'critical')
  t.equal(levelOf({ totalBytes: 0, freeBytes: 0 }, 'warning', diskThresholdsDefault), 'warning', 'nothing is known')
  t.end()
})

void t.test('thresholds that make no sense are refused', (t) => {
  for (const [warningPercent, criticalPercent] of [
    [90, 80],
    [0, 90],
    [80, 101],
  ] as const) {
    t.throws(() => checkThresholds({ warningPercent, criticalPercent }), { code: 'invalid-argument' })
  }
  t.same(checkThresholds({ warningPercent: 70, criticalPercent: 70 }), { warningPercent: 70, criticalPercent: 70 })
  t.end()
})

void t.test('a disk that becomes full is said so once, and so is the engine of each volume on it', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  await cluster.untilState('demo', 'attached')
  const space = () => cluster.agent.plan?.engines[0]?.space
  const GiB = 1024 ** 3
  await cluster.until('demo', () => space() !== undefined)
  t.match(space(), { totalBytes: 100 * GiB, freeBytes: 50 * GiB, softBytes: 20 * GiB, low: false })
  const lines = (): string[] => cluster.log.filter((line) => line.includes('its file system'))
  const free = async (bytes: number, low: boolean): Promise<void> => {
    cluster.agent.freeBytes.set('disk-2', bytes)
    cluster.agent.changed()
    await cluster.until('demo', () => space()?.freeBytes === bytes && space()?.low === low)
  }
  await free(15 * GiB, true)
  await free(14 * GiB, true)
  t.equal(cluster.manager.diskLevel('node-1', 'disk-2'), 'warning')
  t.equal(cluster.manager.diskLevel('node-1', 'disk-1'), 'ok')
  await free(5 * GiB, true)
  await free(40 * GiB, false)
  t.same(
    lines().map((line) => line.replace(/ \{.*/, '')),
    [
      'warn disk disk-2 is low on space: 85 % of its file system is taken, the threshold is 80 %',
      'error disk disk-2 is nearly full: 95 % of its file system is taken, the threshold is 90 %',
      'info disk disk-2 is full no more: 60 % of its file system is taken, the threshold is 80 %',
    ],
  )
})
