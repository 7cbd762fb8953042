// The promise: an idle engine process takes at most 16 MiB beside nine of its kind. What it takes of the processor is
// printed and not asserted, as this machine may be busy with other things.

import { readFileSync, readdirSync } from 'node:fs'
import t from 'tap'
import { aNode } from './builders.js'

// Coverage is taken in every process that sees this, and takes memory there.
delete process.env['NODE_V8_COVERAGE']

const engines = 10
const pssMiBMax = 16
const watchMs = 5_000

t.test('ten idle engines', { timeout: 120_000 }, async (t) => {
  const node = await aNode(t, { disks: 2 })
  for (let n = 0; n < engines; n++) {
    await node.create(`idle-${n}`, { replicas: 2 })
    await node.attach(`idle-${n}`)
  }
  await new Promise((resolve) => setTimeout(resolve, 2_000)) // What the start needed is given back.
  const processes = node.report.processes
  const before = processes.map(({ pid }) => usage(pid))
  await new Promise((resolve) => setTimeout(resolve, watchMs))
  for (const kind of ['engine', 'disk-host'] as const) {
    const mine = processes.flatMap((process, n) => (process.kind === kind ? [{ process, was: before[n]! }] : []))
    const pss = mine.map(({ process }) => pssMiB(process.pid))
    const cpu = mine.map(({ process, was }) => ((usage(process.pid).cpuMs - was.cpuMs) / watchMs) * 100)
    const wakeUps = mine.map(({ process, was }) => (usage(process.pid).switches - was.switches) / (watchMs / 1000))
    t.comment(
      `${mine.length} ${kind}: PSS ${spread(pss)} MiB, CPU ${spread(cpu)} % of a core, ${spread(wakeUps)} wake-ups/s, ` +
        `${threads(mine[0]!.process.pid)} threads`,
    )
    if (kind === 'engine') {
      t.equal(mine.length, engines)
      t.ok(Math.max(...pss) <= pssMiBMax, `an idle engine takes at most ${pssMiBMax} MiB, the largest ${spread(pss)}`)
    }
  }
})

function pssMiB(pid: number): number {
  return Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))![1]) / 1024
}

function threads(pid: number): string {
  return /^Threads:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]!
}

/** Of all threads. */
function usage(pid: number): { cpuMs: number; switches: number } {
  const sum = { cpuMs: 0, switches: 0 }
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    const [ranNs] = readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ')
    const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8')
    sum.cpuMs += Number(ranNs) / 1e6
    sum.switches += Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)![1])
  }
  return sum
}

function spread(values: number[]): string {
  const sorted = [...values].sort((one, other) => one - other)
  const median = sorted[Math.floor(sorted.length / 2)]!
  return `${median.toPrecision(3)} (${sorted[0]!.toPrecision(3)} to ${sorted.at(-1)!.toPrecision(3)})`
}
