// How fast Ankole over iSCSI, with three replicas, is to be: ratios to tgtd with one plain file by its backing store rdwr. And
// what checksums at rest may cost: ratios to the same Ankole without them.
import { grid } from './report.mjs'
import { median } from './statistics.mjs'

const ofIscsi = ['ankole-iscsi', 'tgtd-rdwr']
const ofChecksums = ['ankole', 'ankole-no-checksums']

const targets = [
  { cell: 'randread-4k-qd1', of: 'iops', atLeast: 0.7, aim: 0.9 },
  { cell: 'randread-4k-qd32', of: 'iops', atLeast: 1.8, aim: 2.5 },
  { cell: 'randwrite-4k-qd1', of: 'iops', atLeast: 0.5, aim: 0.7 },
  { cell: 'randwrite-4k-qd32', of: 'iops', atLeast: 1.0, aim: 1.5 },
  { cell: 'read-1m-qd4', of: 'iops', atLeast: 0.9, aim: 1.5 },
  { cell: 'write-1m-qd4', of: 'iops', atLeast: 0.45, aim: 0.65 },
  { cell: 'randwrite-4k-qd32', of: 'cpuUsPerIo', atMost: 1.3 },
]

/** For each target and cache state that both systems were measured at. Empty where there is none. */
export function compareToTargets(samples) {
  return comparedAll(ofIscsi, targets, samples)
}

/** Of each cell: at most 15 % of the IOPS, at most 15 % more processor time. */
export function costOfChecksums(samples) {
  const cells = [...new Set(samples.map(({ cell }) => cell))]
  const bounds = cells.flatMap((cell) => [
    { cell, of: 'iops', atLeast: 0.85 },
    { cell, of: 'cpuUsPerIo', atMost: 1.15 },
  ])
  return comparedAll(ofChecksums, bounds, samples)
}

function comparedAll(pair, wanted, samples) {
  const states = [...new Set(samples.map(({ cache }) => cache))]
  return wanted.flatMap((target) => states.flatMap((cache) => compared(pair, target, cache, samples)))
}

function compared(pair, { cell, of, ...bounds }, cache, samples) {
  const here = samples.filter((sample) => sample.cell === cell && sample.cache === cache)
  const [mine, theirs] = pair.map((system) => here.filter((sample) => sample.system === system))
  if (mine.length === 0 || theirs.length === 0) return []
  const [ratio, ...byRound] = [
    median(mine.map((sample) => sample[of])) / median(theirs.map((sample) => sample[of])),
    // The two of a round were measured one after the other: what disturbed one is likely to have disturbed the other.
    ...mine.map((sample) => sample[of] / theirs.find(({ round }) => round === sample.round)[of]),
  ].map((value) => Number(value.toPrecision(3)))
  const holds = bounds.atMost === undefined ? ratio >= bounds.atLeast : ratio <= bounds.atMost
  return [
    { cell, cache, of, ratio, ratio_min: Math.min(...byRound), ratio_max: Math.max(...byRound), ...bounds, holds },
  ]
}

export function targetsTable(results) {
  return `Ankole over iSCSI with three replicas : tgtd rdwr, unreplicated\n${table(results)}`
}

export function costTable(results) {
  return `Ankole over NBD with checksums at rest : the same without\n${table(results)}`
}

function table(results) {
  const rows = results.map(
    ({ cell, cache, of, ratio, ratio_min: min, ratio_max: max, atLeast, atMost, aim, holds }) => [
      ...[`${cell}@${cache}`, of === 'iops' ? 'IOPS' : 'CPU per I/O', ratio.toFixed(2)],
      `${min.toFixed(2)}..${max.toFixed(2)}`,
      atLeast === undefined ? `at most ${atMost}` : `at least ${atLeast}`,
      aim === undefined ? '-' : String(aim),
      holds ? (aim !== undefined && ratio >= aim ? 'aim reached' : 'holds') : 'MISSED',
    ],
  )
  const headings = ['cell', 'ratio of', 'median', 'rounds', 'wanted', 'aim', '']
  return grid([headings, ...rows])
}
