// Builds the simulator and runs it: npm run sim -- --seeds N [--from S], npm run sim -- --seed S.
// native/sim/README.md says what it does.
import { spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { root } from './toolchain.mjs'

const jobs = availableParallelism()
const built = spawnSync('make', ['-s', '-C', join(root, 'native'), `-j${jobs}`, 'sim'], {
  stdio: ['ignore', process.stderr, 'inherit'],
})
if (built.status !== 0) {
  console.error('The simulator could not be built; make said why.')
  process.exit(2)
}
const asked = process.argv.slice(2)
const arguments_ = asked.includes('--seeds') && !asked.includes('--jobs') ? ['--jobs', String(jobs), ...asked] : asked
const ran = spawnSync(join(root, 'native', 'build', 'release', 'simulator'), arguments_, { stdio: 'inherit' })
process.exit(ran.status ?? 2)
