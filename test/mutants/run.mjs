// Breaks the data path on purpose, one rule at a time, and requires that the simulator sees each.
//
//   npm run test:mutants                  all of mutants.json
//   npm run test:mutants boot-id-ignored  these
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'

const seedsMax = 2000
const here = dirname(fileURLToPath(import.meta.url))
const native = join(here, '..', '..', 'native')
const mutants = JSON.parse(readFileSync(join(here, 'mutants.json'), 'utf8'))

const asked = process.argv.slice(2)
const unknown = asked.filter((name) => !mutants.some((mutant) => mutant.name === name))
if (unknown.length > 0) {
  const names = mutants.map((mutant) => mutant.name).join(', ')
  console.error(`No mutant is named ${unknown.join(', ')}; there are: ${names}`)
  process.exit(2)
}

const jobs = String(availableParallelism())
const built = spawnSync(
  'make',
  ['-s', '-C', native, `-j${jobs}`, 'OUT=build/mutants', 'CXXFLAGS_EXTRA=-DANKOLE_MUTANTS', 'sim'],
  { stdio: ['ignore', process.stderr, 'inherit'] },
)
if (built.status !== 0) {
  console.error('The simulator could not be built; make said why.')
  process.exit(2)
}

let missed = 0
const chosen = asked.length > 0 ? mutants.filter((mutant) => asked.includes(mutant.name)) : mutants
for (const { name, rule, breaks } of chosen) {
  const run = spawnSync(
    join(native, 'build', 'mutants', 'simulator'),
    ['--seeds', String(seedsMax), '--jobs', jobs, '--first', '--mutant', name],
    { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
  )
  const found = /^seed (\d+): (.*)$/m.exec(run.stdout)
  const seeds = /^(\d+) seeds, /m.exec(run.stdout)?.[1]
  if (run.status === 1 && found) {
    console.log(`ok ${name} (rule ${rule}): after ${seeds} seeds, seed ${found[1]}: ${found[2].slice(0, 160)}`)
  } else {
    ++missed
    console.log(`not ok ${name} (rule ${rule}): ${breaks}; the simulator saw nothing in ${seeds ?? 'no'} seeds`)
    if (run.status !== 0) console.log(`    ${run.stderr.trim()}`)
  }
}
console.log(`mutants: ${chosen.length - missed} passed, ${missed} failed`)
process.exitCode = missed === 0 ? 0 : 1
