// Memory and CPU time of a process, from /proc.
import { readFile } from 'node:fs/promises'

export interface ProcessUsage {
  pssBytes: number
  cpuSeconds: number
}

/** USER_HZ: what /proc counts CPU time in. The kernel fixes it at 100 on every architecture that Node.js runs on. */
const ticksPerSecond = 100

/** Undefined where the process has ended. */
export async function processUsage(pid: number, proc = '/proc'): Promise<ProcessUsage | undefined> {
  try {
    const [rollup, stat] = await Promise.all([
      readFile(`${proc}/${pid}/smaps_rollup`, 'utf8'),
      readFile(`${proc}/${pid}/stat`, 'utf8'),
    ])
    const pss = /^Pss:\s+(\d+) kB$/m.exec(rollup)?.[1]
    // The name of the process stands in parentheses, and may hold spaces and parentheses of its own.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const ticks = Number(fields[11]) + Number(fields[12])
    if (pss === undefined || !Number.isFinite(ticks)) return undefined
    return { pssBytes: Number(pss) * 1024, cpuSeconds: ticks / ticksPerSecond }
  } catch {
    return undefined
  }
}
