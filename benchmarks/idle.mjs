// Ten attached volumes that nobody uses: what their engines and disk hosts take side by side.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pssMiB, threadTimes } from './processes.mjs'
import { spread } from './statistics.mjs'
import { Ankole } from './systems/ankole.mjs'

const engines = 10
const settleMs = 5_000

export async function measureIdle({ directory, ioBackend, quick }) {
  const watchMs = quick ? 5_000 : 20_000
  const home = join(directory, 'idle')
  mkdirSync(home)
  const ankole = await Ankole.up(home, { ioBackend })
  try {
    for (let n = 1; n <= engines; n++) await ankole.createVolume(`idle-${n}`, 64 << 20)
    await sleep(settleMs)
    const { processes } = await ankole.status()
    const before = processes.map(({ pid }) => threadTimes(pid))
    await sleep(watchMs)
    const seen = processes.map(({ pid, kind }, n) => {
      const after = threadTimes(pid)
      return {
        kind,
        pssMiB: pssMiB(pid),
        cpuPercent: ((after.cpuUs - before[n].cpuUs) / (watchMs * 1000)) * 100,
        wakeUpsPerSecond: (after.wakeUps - before[n].wakeUps) / (watchMs / 1000),
      }
    })
    const kinds = [...new Set(seen.map(({ kind }) => kind))]
    return Object.fromEntries(kinds.map((kind) => [kind, summary(seen.filter((process) => process.kind === kind))]))
  } finally {
    await ankole.stop()
  }
}

function summary(processes) {
  const of = (key) => spread(processes.map((process) => process[key]))
  return {
    processes: processes.length,
    ...{ pss_mib: of('pssMiB'), cpu_percent: of('cpuPercent'), wake_ups_per_second: of('wakeUpsPerSecond') },
  }
}
