// Where the processor's time goes: perf on the processes of a system while a cell is measured.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { run } from './programs.mjs'

const home = join(dirname(dirname(fileURLToPath(import.meta.url))), 'build', 'profiles')
const samplesPerSecond = 999
const linesShown = 25

/** perf says nothing when it has attached to its processes. */
const attachMs = 500

/** Does the work with perf beside it. Resolves with what the work gives; prints what took most. */
export async function profiled(name, processes, work) {
  if (processes.length === 0) return work()
  mkdirSync(home, { recursive: true })
  const file = join(home, `${name}.perf`)
  const pids = processes.map(({ pid }) => pid).join(',')
  const record = ['record', '--quiet', '-g', `--freq=${samplesPerSecond}`, `--pid=${pids}`, `--output=${file}`]
  const perf = spawn('perf', record, { stdio: ['ignore', 'ignore', 'inherit'], detached: true })
  const ended = once(perf, 'exit')
  await sleep(attachMs)
  try {
    return await work()
  } finally {
    perf.kill('SIGINT')
    await ended
    const report = ['report', `--input=${file}`, '--stdio', '--no-children', '--call-graph=none', '--percent-limit=0.5']
    const lines = (await run('perf', [...report, '--sort=comm,dso,symbol'])).split('\n')
    // It ends lines with two columns that have nothing in them.
    const shown = lines.filter((line) => /^\s+\d/.test(line)).map((line) => line.replace(/(\s+-)*\s*$/, ''))
    console.log(`${file}\n${shown.slice(0, linesShown).join('\n')}`)
  }
}
