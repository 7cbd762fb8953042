// Runs suites of tests and says what passed, failed and was left out, and for want of what.
//
//   node scripts/test.mjs                     what needs nothing but Node.js, g++, make and python3
//   node scripts/test.mjs native asan fuzz    these
//   node scripts/test.mjs all
//
// What a suite prints goes to build/test-<suite>.log, and what failed to the terminal as well. One suite runs after the other, but the
// fuzzers, the model and the mutants: they have what the suites leave idle that wait most of the time, and are shown last.
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createWriteStream, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, constants, setPriority } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import process from 'node:process'
import { clearTimeout, setTimeout } from 'node:timers'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from './toolchain.mjs'

const tap = join(root, 'node_modules', '.bin', 'tap')
const minutes = 60_000

/**
 * `limitMs` is for what hangs: several times what it takes on two cores. `isBeside`: begins with the first of `leavesIdle`,
 * takes what they leave of the processors, and is the last to be waited for.
 */
const suites = {
  native: {
    what: 'the native core',
    command: [process.execPath, 'scripts/native-tests.mjs'],
    reader: readNative,
    limitMs: 20 * minutes,
  },
  model: {
    what: 'the rules of membership, every state of them',
    command: ['make', '-s', '-C', 'test/model', 'test'],
    reader: readNative,
    limitMs: 35 * minutes,
    isBeside: true,
  },
  asan: {
    what: 'the native core under AddressSanitizer and UndefinedBehaviorSanitizer',
    command: [process.execPath, 'scripts/native-tests.mjs', 'asan'],
    reader: readNative,
    limitMs: 20 * minutes,
  },
  tsan: {
    what: 'the native core under ThreadSanitizer',
    command: [process.execPath, 'scripts/native-tests.mjs', 'tsan'],
    reader: readNative,
    limitMs: 25 * minutes,
  },
  sim: {
    what: 'the data path in 200 simulated worlds',
    command: [process.execPath, 'scripts/sim.mjs', '--seeds', '200'],
    reader: readSimulator,
    limitMs: 10 * minutes,
  },
  mutants: {
    what: 'the data path is broken on purpose, one rule at a time, and the simulator sees each',
    command: [process.execPath, 'test/mutants/run.mjs'],
    reader: readNative,
    limitMs: 35 * minutes,
    isBeside: true,
  },
  typescript: {
    what: 'TypeScript, and the real processes',
    command: [tap, 'run', '--disable-coverage'],
    reader: readTap,
    limitMs: 25 * minutes,
  },
  conformance: {
    what: "other people's clients against the whole",
    command: [process.execPath, 'test/conformance/run.mjs'],
    reader: readTap,
    limitMs: 15 * minutes,
  },
  faults: {
    what: 'the real processes are killed, stopped, cut off and run out of power and space under load',
    command: [process.execPath, 'test/faults/run.mjs'],
    reader: readTap,
    limitMs: 15 * minutes,
  },
  kernel: {
    what: 'a Linux kernel mounts volumes',
    command: [process.execPath, 'test/kernel/run.mjs'],
    reader: readTap,
    limitMs: 20 * minutes,
  },
  fuzz: {
    what: 'a minute for each fuzzer',
    command: [process.execPath, 'scripts/fuzz.mjs'],
    reader: readNative,
    limitMs: 35 * minutes,
    isBeside: true,
  },
}
const suitesDefault = ['native', 'typescript']
/** These wait for programs, disks and timers most of the time; the suites before use all processors. */
const leavesIdle = ['typescript', 'conformance', 'faults', 'kernel']
/** What these compile at first. It is begun with the first suite, and has what those before leave idle. */
const compiles = { asan: ['VARIANT=asan', 'tests'], tsan: ['VARIANT=tsan', 'tests'], fuzz: ['fuzz'] }

/** Lines «ok NAME», «not ok NAME», «skip NAME: REASON», and at the end a line that counts them. */
function readNative(print) {
  const result = { passed: 0, failed: 0, skips: [], done: false }
  // What a failed test has to say comes before its name.
  let said = []
  result.line = (line) => {
    const skip = /^skip ([^ :]+): (.*)$/.exec(line)
    if (skip) result.skips.push(`${skip[1]}: ${skip[2]}`)
    else if (/^ok /.test(line)) ++result.passed
    else if (/^not ok /.test(line)) {
      ++result.failed
      for (const text of [...said, line]) print(`    ${text}`)
    } else {
      result.done ||= /^[a-z]+: \d+ passed, \d+ failed/.test(line)
      said.push(line)
      if (said.length > 40) said.shift()
      return
    }
    said = []
  }
  result.rest = () => said
  return result
}

/** Lines «seed N: FINDING», and at the end «N seeds, M findings, …». */
function readSimulator(print) {
  const result = { passed: 0, failed: 0, skips: [], done: false }
  const said = []
  result.line = (line) => {
    said.push(line)
    if (said.length > 40) said.shift()
    const sum = /^(\d+) seeds, (\d+) findings/.exec(line)
    if (sum) {
      result.done = true
      result.failed = Number(sum[2])
      result.passed = Number(sum[1]) - result.failed
    } else print(`    ${line}`)
  }
  result.rest = () => said
  return result
}

/** TAP: a test is what a file has at its first level. */
function readTap(print) {
  const result = { passed: 0, failed: 0, skips: [], done: false }
  let file = ''
  let reporting = false
  let inFile = 0
  const said = []
  result.line = (line) => {
    said.push(line)
    if (said.length > 40) said.shift()
    const started = /^# Subtest: (.*)$/.exec(line)
    if (started) {
      file = started[1].replace(/^dist\//, '').replace(/\.js$/, '.ts')
      inFile = 0
    }
    const point = /^( *)(not )?ok \d+(?: - (.*?))?(?: # (SKIP|TODO|time=\S+)\s*(.*?))?(?: \{)?$/i.exec(line)
    const depth = point ? point[1].length / 4 : -1
    if (depth === 1) {
      ++inFile
      const name = point[3] ?? ''
      if (/^skip$/i.test(point[4] ?? '')) result.skips.push(`${file}: ${name}: ${point[5]}`)
      else if (point[2]) ++result.failed
      else ++result.passed
    }
    // A file that fails without a failed test in it, as it was ended, or fell over after them.
    if (depth === 0) {
      if (point[2] && (inFile === 0 || !result.failed)) ++result.failed
      // One that was left out whole.
      if (/^skip$/i.test(point[4] ?? '') && inFile === 0) result.skips.push(`${file}: ${point[5]}`)
    }
    if (point?.[2]) {
      print(`    ${depth === 1 ? `${file}: ` : ''}${line.trim()}`)
      reporting = true
    } else if (point || started) reporting = false
    else if (reporting && line.trim() !== '') print(`    ${line.trimEnd()}`)
    if (/^1\.\.\d+/.test(line)) result.done = true
  }
  result.rest = () => said
  return result
}

/** What was started for this run and its children, and is still there. */
function leftovers(marker) {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`ANKOLE_TEST_RUN=${marker}`)
      } catch {
        return false // ended meanwhile, or somebody else's
      }
    })
    .map(Number)
}

function describe(pid) {
  try {
    return `${pid} (${readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim()})`
  } catch {
    return String(pid)
  }
}

/** Whoever lost its parent stops by itself, within these. */
const leftoversLimitMs = 15_000

async function endLeftovers(marker, print) {
  const limit = Date.now() + leftoversLimitMs
  while (leftovers(marker).length > 0 && Date.now() < limit) await sleep(200)
  const left = leftovers(marker)
  for (const pid of left) {
    print(`    left behind: process ${describe(pid)}`)
    kill(pid)
  }
  return left.length
}

/** To everybody else. Where Linux groups processes by session, which a suite is, the nicety of one counts only within it. */
function giveWay(pid) {
  if (pid === undefined) return
  try {
    setPriority(pid, constants.priority.PRIORITY_LOW)
    writeFileSync(`/proc/${pid}/autogroup`, String(constants.priority.PRIORITY_LOW))
  } catch {
    // It has ended, or there are no such groups.
  }
}

function kill(pid) {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}

const running = new Set()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    for (const child of running) kill(-child.pid)
    process.exit(130)
  })
}

/** By suite: resolves when it is compiled, or does not compile, which is said when the suite is run. */
const compiled = new Map()

function compileAhead() {
  let before = Promise.resolve()
  for (const name of Object.keys(compiles).filter((name) => names.includes(name))) {
    before = before.then(() => compile(compiles[name]))
    compiled.set(name, before)
  }
}

async function compile(what) {
  const args = ['-s', '-C', join(root, 'native'), `-j${availableParallelism()}`, ...what]
  const child = spawn('make', args, { detached: true, stdio: 'ignore' })
  running.add(child)
  giveWay(child.pid)
  await new Promise((resolve) => {
    child.once('error', resolve)
    child.once('close', resolve)
  })
  running.delete(child)
}

async function runSuite(name, print = console.log) {
  const { what, command, reader, limitMs } = suites[name]
  print(`${name}: ${what}`)
  await compiled.get(name)
  const started = Date.now()
  const marker = randomBytes(8).toString('hex')
  const result = reader(print)
  const log = createWriteStream(join(root, 'build', `test-${name}.log`))
  const child = spawn(command[0], command.slice(1), {
    cwd: root,
    detached: true,
    env: { ...process.env, TAP_REPORTER: 'tap', ANKOLE_TEST_RUN: marker },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  if (isBeside(name)) giveWay(child.pid)
  const errors = []
  const lines = createInterface({ input: child.stdout })
  lines.on('line', (line) => {
    log.write(`${line}\n`)
    result.line(line)
  })
  createInterface({ input: child.stderr }).on('line', (line) => {
    log.write(`${line}\n`)
    errors.push(line)
    if (errors.length > 60) errors.shift()
  })
  let overdue = false
  const timer = setTimeout(() => {
    overdue = true
    for (const pid of leftovers(marker)) kill(pid)
    kill(-child.pid)
  }, limitMs)
  const code = await new Promise((resolve) => {
    child.once('error', () => resolve(127))
    child.once('close', (code) => resolve(code ?? 1))
  })
  clearTimeout(timer)
  running.delete(child)
  log.end()
  // It fell over, or failed without saying which test it was.
  if (!result.done || (code !== 0 && result.failed === 0)) {
    ++result.failed
    for (const line of [...result.rest(), ...errors]) print(`    ${line}`)
    print(`    ${overdue ? `not done after ${limitMs / minutes} minutes` : `${command[0]} ended with ${code}`}`)
  } else if (result.failed > 0) {
    for (const line of errors) print(`    ${line}`)
  }
  result.failed += await endLeftovers(marker, print)
  const seconds = Math.round((Date.now() - started) / 1000)
  print(`  ${counts(result.passed, result.failed, result.skips.length)} in ${seconds} s`)
  return result
}

function counts(passed, failed, skipped) {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
}

const asked = process.argv.slice(2)
const wanted = asked.includes('all') ? Object.keys(suites) : asked.length > 0 ? asked : suitesDefault
const isBeside = (name) => suites[name]?.isBeside === true
const names = [...wanted.filter((name) => !isBeside(name)), ...wanted.filter(isBeside)]
const unknown = names.filter((name) => !(name in suites))
if (unknown.length > 0) {
  console.error(`No suite is named ${unknown.join(', ')}; there are: ${Object.keys(suites).join(', ')}, all`)
  process.exit(2)
}

mkdirSync(join(root, 'build'), { recursive: true })
const results = []
/** The suites that have begun beside others: what they print comes when it is their turn. */
const beside = new Map()
compileAhead()
for (const name of names) {
  if (leavesIdle.includes(name)) beginBeside()
  const begun = beside.get(name)
  if (begun === undefined) results.push([name, await runSuite(name)])
  else {
    const waitedFrom = Date.now()
    const result = await begun.result
    for (const line of begun.lines) console.log(line)
    console.log(`  beside the suites before, and ${Math.round((Date.now() - waitedFrom) / 1000)} s after them`)
    results.push([name, result])
  }
}

function beginBeside() {
  for (const name of names.filter((name) => isBeside(name) && !beside.has(name))) {
    const lines = []
    beside.set(name, { lines, result: runSuite(name, (line) => lines.push(line)) })
  }
}

const skips = results.flatMap(([name, { skips }]) => skips.map((skip) => `${name}: ${skip}`))
if (skips.length > 0) console.log(`\nLeft out:\n${skips.map((skip) => `  ${skip}`).join('\n')}`)
if (asked.length === 0) {
  const others = Object.keys(suites).filter((name) => !names.includes(name))
  console.log(`\nOther suites, which need more than this one (CONTRIBUTING.md): ${others.join(', ')}`)
}
const sum = (pick) => results.reduce((total, [, result]) => total + pick(result), 0)
const failed = sum((result) => result.failed)
console.log(
  `\n${counts(
    sum((result) => result.passed),
    failed,
    skips.length,
  )}`,
)
process.exitCode = failed === 0 ? 0 : 1
