// Builds the native tests and runs them in several processes at once: most of them wait most of the time, for timers and disks.
//
//   node scripts/native-tests.mjs [VARIANT [SUBSTRING…]]     release, asan or tsan
//
// The processes take the tests from one list, each the next that no other has (native/base/test_main.cc). What a test says on stdout is
// printed with its name, whole; the last line counts all.
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import process from 'node:process'
import { root } from './toolchain.mjs'

const native = join(root, 'native')
const [variant = 'release', ...words] = process.argv.slice(2)
const processors = availableParallelism()
/** Twice: a test waits most of its time. */
const processes = 2 * processors

const made = spawnSync('make', ['-C', native, `-j${processors}`, `VARIANT=${variant}`, 'tests'], { stdio: 'inherit' })
if (made.status !== 0) process.exit(made.status ?? 1)

const claims = mkdtempSync(join(tmpdir(), 'ankole-claims-'))
process.on('exit', () => rmSync(claims, { recursive: true, force: true }))
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130))

const count = { ok: 0, 'not ok': 0, skip: 0 }
const ended = new Set()

/** Resolves when it has ended, with how that was wrong. */
function runOne() {
  const child = spawn(join(native, 'build', variant, 'tests'), [`--claims=${claims}`, ...words], {
    cwd: native,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let said = []
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (/^native: /.test(line)) return
    said.push(line)
    const [, outcome, name] = /^(ok|not ok|skip) ([^ :]+)/.exec(line) ?? []
    if (outcome === undefined) return
    ++count[outcome]
    ended.add(name)
    console.log(said.join('\n'))
    said = []
  })
  return new Promise((resolve) => {
    child.once('error', ({ message }) => resolve(message))
    child.once('close', (code, signal) => {
      if (said.length > 0) console.log(said.join('\n'))
      // 1: a test has failed. A sanitizer that has something to say at the end has a code of its own.
      resolve(code === 0 || code === 1 ? undefined : `a process of the tests ended with ${signal ?? code}`)
    })
  })
}

const problems = (await Promise.all(Array.from({ length: processes }, runOne))).filter(
  (problem) => problem !== undefined,
)
for (const problem of problems) console.log(problem)
const lost = readdirSync(claims).filter((name) => !ended.has(name))
for (const name of lost) console.log(`not ok ${name} (its process ended)`)
const wrong = problems.length > 0 && lost.length === 0
if (wrong) console.log('not ok native.tests (see above)')
const failed = count['not ok'] + lost.length + (wrong ? 1 : 0)
console.log(`native: ${count.ok} passed, ${failed} failed, ${count.skip} skipped`)
process.exitCode = failed === 0 && count.ok > 0 ? 0 : 1
