// What processes take: processor time and memory, from /proc.
import { spawnSync } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'

const ticksPerSecond = Number(spawnSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }).stdout) || 100

/** Of all its threads, those that ended too. */
export function cpuUs(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ')
  const [userTicks, systemTicks] = [Number(fields[11]), Number(fields[12])]
  return ((userTicks + systemTicks) * 1e6) / ticksPerSecond
}

export function totalCpuUs(processes) {
  return processes.reduce((sum, { pid }) => sum + cpuUs(pid), 0)
}

/** Of the whole machine, kernel threads and everybody else too: what was not idle. */
export function machineBusyUs() {
  const [line] = readFileSync('/proc/stat', 'utf8').split('\n', 1)
  const ticks = line.trim().split(/\s+/).slice(1, 9).map(Number)
  const [user, nice, system, , , irq, softIrq] = ticks
  return ((user + nice + system + irq + softIrq) * 1e6) / ticksPerSecond
}

export function pssMiB(pid) {
  const match = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))
  return Number(match[1]) / 1024
}

/** More exact than ticks, but forgets threads that ended: for idle processes. */
export function threadTimes(pid) {
  const sum = { cpuUs: 0, wakeUps: 0 }
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    const [ranNs] = readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ')
    const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8')
    sum.cpuUs += Number(ranNs) / 1000
    sum.wakeUps += Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)[1])
  }
  return sum
}
