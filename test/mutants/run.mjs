// Breaks the data path on purpose, one rule at a time, and requires that the simulator sees each.
//
//   npm run test:mutants                     all of mutants.json
//   npm run test:mutants boot-id-ignored     these
//   npm run test:mutants -- --search         the first seed that finds each, for mutants.json
//
// The seed that mutants.json names is tried first; a change of the code makes another history of it, and then all seeds up to
// 2000 are.
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

const search = process.argv.includes('--search')
const asked = process.argv.slice(2).filter((argument) => argument !== '--search')
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
 * What clients were told wrongly, or replicas that are not the same. What got stuck, failed or fell over proves nothing of the
 * checkers of data; `sign` is for a mutant that another clause keeps from losing any.
 */
function counts({ text }, sign) {
  return /sector \d+ |two epochs acknowledge|differ in block/.test(text) || (sign !== undefined && text.includes(sign))
}

/** The first of the findings among the seeds that this mutant is to blame for: as the code is, the same seed has none. */
function blames({ name, sign }, from, count) {
  const { findings, seeds } = simulate(from, count, '--first', '--mutant', name)
  const found = findings.find((one) => counts(one, sign) && simulate(one.seed, 1).findings.length === 0)
  return { found, next: from + seeds }
}

function find(mutant) {
  if (mutant.seed !== undefined && !search) {
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
  if (found) {
    console.log(`ok ${name} (rule ${rule}): seed ${found.seed}: ${found.text.slice(0, 160)}`)
  } else {
    ++missed
    console.log(`not ok ${name} (rule ${rule}): ${breaks}; the simulator saw nothing in ${seedsMax} seeds`)
  }
}
console.log(`mutants: ${chosen.length - missed} passed, ${missed} failed`)
process.exitCode = missed === 0 ? 0 : 1
