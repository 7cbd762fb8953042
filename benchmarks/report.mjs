// From what was measured to what is kept and shown.
import { mad, median, spread } from './statistics.mjs'
import { systems } from './systems/index.mjs'

/** One entry a cell, a cache state and a system, over all rounds. */
export function summarize(samples) {
  const groups = new Map()
  for (const sample of samples) {
    const key = `${sample.cell}@${sample.cache} ${sample.system}`
    groups.set(key, [...(groups.get(key) ?? []), sample])
  }
  return [...groups.values()].map(summary)
}

function summary(samples) {
  const [{ cell, cache, system }] = samples
  const of = (key) => samples.map((sample) => sample[key])
  const iops = of('iops')
  const { min, max } = spread(iops)
  return {
    ...{ cell, cache, system, rounds: samples.length },
    iops_median: round(median(iops)),
    iops_mad: round(mad(iops)),
    iops_min: round(min),
    iops_max: round(max),
    mib_per_second: round(median(of('mibPerSecond'))),
    p50_us: round(median(of('p50Us'))),
    p99_us: round(median(of('p99Us'))),
    p999_us: round(median(of('p999Us'))),
    p50_us_min: round(Math.min(...of('p50Us'))),
    p50_us_max: round(Math.max(...of('p50Us'))),
    cpu_us_per_io: round(median(of('cpuUsPerIo'))),
    client_cpu_us_per_io: round(median(of('clientCpuUsPerIo'))),
    machine_cpu_us_per_io: round(median(of('machineCpuUsPerIo'))),
    resident_before_percent: of('residentBefore'),
    resident_after_percent: of('residentAfter'),
    pss_mib: medianByName(of('pssMib')),
    ...(samples.some(({ trouble }) => trouble !== null) ? { troubles: of('trouble') } : {}),
  }
}

function medianByName(maps) {
  const names = [...new Set(maps.flatMap((map) => Object.keys(map)))]
  return Object.fromEntries(names.map((name) => [name, round(median(maps.flatMap((map) => map[name] ?? [])))]))
}

function round(value) {
  return Number(value.toPrecision(4))
}

const titles = {
  fill: 'cache state: filled in pieces of 1 MiB',
  warm: 'cache state: dropped, then read in pieces of 4 KiB',
}

/** One table a cache state; the ratios are to the system's peer in the same cell of the same run: nbdkit or tgtd-rdwr. */
export function tables(summaries) {
  const parts = []
  for (const [cache, title] of Object.entries(titles)) {
    const here = summaries.filter((summary) => summary.cache === cache)
    if (here.length === 0) continue
    const rows = here.map((summary) => row(summary, here))
    parts.push(`${title}\n${grid([headings, ...rows])}`)
  }
  parts.push(memoryTable(summaries))
  return parts.filter((part) => part !== '').join('\n\n')
}

const headings = [
  ...['cell', 'system', 'IOPS', '± MAD', 'min..max', 'MiB/s', 'p50 µs', 'p99', 'p99.9', 'CPU µs/IO', 'client'],
  ...['× peer', 'CPU ×'],
]

function row(summary, all) {
  const { cell, system } = summary
  const peer = all.find((other) => other.cell === cell && other.system === systems[system].peer)
  const depthOne = cell.endsWith('-qd1')
  return [
    ...[cell, system, number(summary.iops_median), number(summary.iops_mad)],
    `${number(summary.iops_min)}..${number(summary.iops_max)}`,
    number(summary.mib_per_second),
    // At queue depth 1 the median hides that there are two of them.
    depthOne ? `${summary.p50_us} (${summary.p50_us_min}..${summary.p50_us_max})` : number(summary.p50_us),
    ...[number(summary.p99_us), number(summary.p999_us)],
    system === 'raw' ? '-' : number(summary.cpu_us_per_io),
    number(summary.client_cpu_us_per_io),
    peer ? ratio(summary.iops_median, peer.iops_median) : '-',
    peer && system !== 'raw' ? ratio(summary.cpu_us_per_io, peer.cpu_us_per_io) : '-',
  ]
}

function memoryTable(summaries) {
  const kinds = new Map()
  for (const { system, pss_mib: pss } of summaries) {
    for (const [kind, mib] of Object.entries(pss)) {
      const key = `${system}\0${kind}`
      kinds.set(key, [...(kinds.get(key) ?? []), mib])
    }
  }
  if (kinds.size === 0) return ''
  const rows = [...kinds].map(([key, mib]) => {
    const { median: middle, min, max } = spread(mib)
    return [...key.split('\0'), number(middle), `${number(min)}..${number(max)}`]
  })
  return `memory after each cell, PSS in MiB\n${grid([['system', 'process', 'median', 'min..max'], ...rows])}`
}

export function idleTable(idle) {
  const show = ({ median: middle, min, max }) => `${number(middle)} (${number(min)}..${number(max)})`
  const rows = Object.entries(idle).map(([kind, { processes, pss_mib, cpu_percent, wake_ups_per_second }]) => [
    ...[kind, String(processes), show(pss_mib), show(cpu_percent), show(wake_ups_per_second)],
  ])
  const title = 'ten idle volumes of three replicas'
  return `${title}\n${grid([['process', 'number', 'PSS MiB', 'CPU % of a core', 'wake-ups/s'], ...rows])}`
}

function ratio(value, other) {
  return other === 0 ? '-' : (value / other).toFixed(2)
}

function number(value) {
  if (value >= 100) return String(Math.round(value))
  return String(Number(value.toPrecision(3)))
}

export function grid(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)))
  return rows
    .map((row) => row.map((text, column) => (column < 2 ? text.padEnd(widths[column]) : text.padStart(widths[column]))))
    .map((row) => row.join('  ').trimEnd())
    .join('\n')
}
