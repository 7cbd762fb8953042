// Ten idle engines and what they take, said as one line of JSON. A program of its own: whatever a test runner loads into
// the processes under it would count as theirs.

import { readFileSync, readdirSync } from 'node:fs'
import type { ProcessReport } from '../../src/agent/index.js'
import { TestNode } from './builders.js'

export interface Footprint {
  kind: ProcessReport['kind']
  pssMiB: number
  cpuPercent: number
  wakeUpsPerSecond: number
  threads: number
}

const engines = 10
const settleMs = 2_000
const watchMs = 5_000

function pssMiB(pid: number): number {
  return Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))![1]) / 1024
}

/** Of all threads. */
function usage(pid: number): { cpuMs: number; switches: number; threads: number } {
  const sum = { cpuMs: 0, switches: 0, threads: 0 }
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    const [ranNs] = readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ')
    const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8')
    sum.threads++
    sum.cpuMs += Number(ranNs) / 1e6
    sum.switches += Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)![1])
  }
  return sum
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

const node = new TestNode(process.argv[2]!, 2, 'auto')
node.apply()
for (let n = 0; n < engines; n++) {
  await node.create(`idle-${n}`, { replicas: 2 })
  await node.attach(`idle-${n}`)
}
await sleep(settleMs) // What the start needed is given back.
const before = node.report.processes.map(({ kind, pid }) => ({ kind, pid, was: usage(pid) }))
await sleep(watchMs)
const footprints = before.map(({ kind, pid, was }): Footprint => {
  const is = usage(pid)
  return {
    kind,
    pssMiB: pssMiB(pid),
    cpuPercent: ((is.cpuMs - was.cpuMs) / watchMs) * 100,
    wakeUpsPerSecond: (is.switches - was.switches) / (watchMs / 1000),
    threads: is.threads,
  }
})
process.stdout.write(`${JSON.stringify(footprints)}\n`)
await node.agent.stop()
