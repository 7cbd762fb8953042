// Breaks the data path on purpose, one rule at a time, and requires that the simulator sees each.
//
//   npm run test:mutants                     all of mutants.json
//   npm run test:mutants boot-id-ignored     these
//   npm run test:mutants -- --search         all, and the seeds that find them go into mutants.json
//
// The seed that mutants.json names is tried first; a change of the code makes another history of it, and then all seeds up to
// 2000 are.
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'

const seedsMax = 2000
const here = dirname(fileURLToPath(import.meta.url))
const native = join(here, '..', '..', 'native')
const list = join(here, 'mutants.json')
const mutants = JSON.parse(readFileSync(list, 'utf8'))

const search = process.argv.includes('--search')
const asked = process.argv.slice(2).filter((argument) => argument !== '--search')
const unknown = asked.filter((name) => !mutants.some((mutant) => mutant.name === name))
if (unknown.length > 0) {
  const names = mutants.map((mutant) => mutant.name).join(', ')
  console.error(`No mutant is named ${unknown.join(', ')}; there are: ${names}`)
  process.exit(2)
}

const jobs = String(availableParallelism())
const built = spawnSync('make', ['-s', '-C', native, `-j${jobs}`, 'mutants'], {
  stdio: ['ignore', process.stderr, 'inherit'],
})
if (built.status !== 0) {
  console.error('The simulator could not be built; make said why.')
  process.exit(2)
}

/** Runs seeds; { status, findings: [{ seed, text }], seeds }. */
function simulate(from, count, ...more) {
  const run = spawnSync(
    join(native, 'build', 'mutants', 'simulator'),
    ['--from', String(from), '--seeds', String(count), '--jobs', jobs, ...more],
    { encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
  )
  if (run.status !== 0 && run.status !== 1) throw new Error(`The simulator ended with ${run.status}: ${run.stderr}`)
  const findings = [...run.stdout.matchAll(/^seed (\d+): (.*)$/gm)]
    .map(([, seed, text]) => ({ seed: Number(seed), text }))
    .sort((a, b) => a.seed - b.seed)
  return { findings, seeds: Number(/^(\d+) seeds, /m.exec(run.stdout)?.[1] ?? 0) }
}

/**
 * What clients were told wrongly, replicas and snapshots that are not the same, and data that the next loss of power would take
 * without a trace. What got stuck, failed or fell over proves nothing of the checkers of data.
 */
function counts({ text }) {
  return (
    /sector \d+ |two epochs acknowledge|differ in block|its region is clean/.test(text) ||
    /has snapshot |does not have (it|snapshot)|members have it|shows it|was made, and is not there/.test(text)
  )
}

/** The first of the findings among the seeds that this mutant is to blame for: as the code is, the same seed has none. */
function blames({ name }, from, count) {
  const { findings, seeds } = simulate(from, count, '--first', '--mutant', name)
  const found = findings.find((one) => counts(one) && simulate(one.seed, 1).findings.length === 0)
  return { found, next: from + seeds }
}

function find(mutant) {
  if (mutant.seed !== undefined) {
    const { found } = blames(mutant, mutant.seed, 1)
    if (found) return found
  }
  for (let from = 1; from <= seedsMax;) {
    const { found, next } = blames(mutant, from, seedsMax + 1 - from)
    if (found) return found
    from = next
  }
  return undefined
}

let missed = 0
const chosen = asked.length > 0 ? mutants.filter((mutant) => asked.includes(mutant.name)) : mutants
for (const mutant of chosen) {
  const { name, rule, breaks } = mutant
  const found = find(mutant)
  if (!found) {
    ++missed
    delete mutant.seed
    console.log(`not ok ${name} (rule ${rule}): ${breaks}; the simulator saw nothing in ${seedsMax} seeds`)
    continue
  }
  const moved = found.seed !== mutant.seed ? `, not ${mutant.seed ?? 'noted'}` : ''
  console.log(`ok ${name} (rule ${rule}): seed ${found.seed}${moved}: ${found.text.slice(0, 160)}`)
  mutant.seed = found.seed
}
console.log(`mutants: ${chosen.length - missed} passed, ${missed} failed`)
if (search) writeFileSync(list, `${JSON.stringify(mutants, null, 2)}\n`)
process.exitCode = missed === 0 ? 0 : 1
