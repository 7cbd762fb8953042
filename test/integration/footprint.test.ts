// The promise: an idle engine process takes at most 16 MiB beside nine of its kind. What it takes of the processor is
// printed and not asserted, as this machine may be busy with other things.

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { aDirectory } from './builders.js'
import type { Footprint } from './idle-engines.js'

const pssMiBMax = 16

/** Through these a test runner follows the processes under it. */
const unset = ['-u', 'NODE_OPTIONS', '-u', 'NODE_V8_COVERAGE']

t.test('ten idle engines', async (t) => {
  const program = fileURLToPath(new URL('./idle-engines.js', import.meta.url))
  const { stdout } = await promisify(execFile)('env', [...unset, process.execPath, program, aDirectory(t)])
  const footprints = JSON.parse(stdout) as Footprint[]
  for (const kind of ['engine', 'disk-host'] as const) {
    const mine = footprints.filter((footprint) => footprint.kind === kind)
    const column = (name: Exclude<keyof Footprint, 'kind'>): string => spread(mine.map((footprint) => footprint[name]))
    t.comment(
      `${mine.length} ${kind}: PSS ${column('pssMiB')} MiB, CPU ${column('cpuPercent')} % of a core, ` +
        `${column('wakeUpsPerSecond')} wake-ups/s, ${column('threads')} threads`,
    )
  }
  const engines = footprints.filter(({ kind }) => kind === 'engine').map(({ pssMiB }) => pssMiB)
  t.equal(engines.length, 10)
  t.ok(Math.max(...engines) <= pssMiBMax, `at most ${pssMiBMax} MiB each: ${spread(engines)}`)
})

function spread(values: number[]): string {
  const [least = 0, ...more] = [...values].sort((one, other) => one - other)
  const most = more.at(-1) ?? least
  return `${least.toPrecision(3)}${most === least ? '' : ` to ${most.toPrecision(3)}`}`
}
