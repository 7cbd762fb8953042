// libiscsi's suite of tests, a process for each: what it has, and what came of one.
//
// CompareAndWrite.InvalidDataOutSize of version 1.19 leaves a hook behind that falsifies the tests after it in its process. And
// CUnit counts a test as passed that has only said that it is skipped, so that is read from what it prints.
//
// iSCSITMF.AbortTaskSimpleAsync leaves its process without a session: a test of iSCSI after it passes in no time, and has sent
// nothing. So what needs an earlier run for its own variables gets one of itself.

import { readFileSync } from 'node:fs'
import { start, type Result } from './tools.js'

/** What needs longest sleeps for three seconds. */
const testLimitMs = 20_000

/** Of a failed test: the first assertions say what is wrong; there may be thousands. */
const linesShown = 24

/** A test of iSCSI is in two families, ALL and iSCSI: with a pattern for both it runs twice in one process. */
const familiesOfTwice = '*'

export interface Outcome {
  /** SUITE.TEST */
  name: string
  result: 'passed' | 'skipped' | 'failed'
  /** Why it was skipped, or what it said when it failed. */
  said: string
}

/** In the order of the suite: SUITE.TEST. */
export async function testNames(): Promise<string[]> {
  const list = await start('iscsi-test-cu', ['--list']).succeeded()
  return [...list.matchAll(/^ALL\.([^.\s]+\.[^.\s]+)$/gm)].map(([, name]) => name!)
}

/** How a test is run that is not run as all are: see iscsi-apart.txt. */
export type Apart = { kind: 'small-blocks' } | { kind: 'second-run'; firstFailsAt: string }

export async function runTest(name: string, url: string): Promise<Outcome> {
  const result = await startTest('ALL', name, url)
  const [run] = runsIn(result.stdout)
  const isGood = run !== undefined && result.code === 0 && hasCounted(result, { passed: 1, failed: 0 })
  return { name, ...(isGood ? outcomeOf(run) : failure(result)) }
}

/**
 * The outcome is that of the second run. In the first one that assertion fails, and nothing else. A second one that only seems to
 * run, as there is no session any more, does not say what it sends.
 */
export async function runTestTwice(name: string, url: string, firstFailsAt: string): Promise<Outcome> {
  const result = await startTest(familiesOfTwice, name, url, ['--Verbose-scsi'])
  const [first, second] = runsIn(result.stdout)
  const isGood =
    first?.assertions.join() === firstFailsAt &&
    second?.assertions.length === 0 &&
    second.isTalkative &&
    hasCounted(result, { passed: 1, failed: 1 })
  return { name, ...(isGood ? outcomeOf(second) : failure(result)) }
}

/**
 * What may destroy data and, if the target knew the command, take its time to do so, is allowed: nothing is left out by us. The
 * tests of several paths get the unit twice.
 */
function startTest(family: string, name: string, url: string, options: readonly string[] = []): Promise<Result> {
  const paths = name.startsWith('MultipathIO.') ? [url, url] : [url]
  const args = ['--dataloss', '--allow-sanitize', '--fail', `--test=${family}.${name}`, ...options, ...paths]
  return start('iscsi-test-cu', args, { limitMs: testLimitMs }).ended
}

interface Run {
  /** Those that failed: FILE:LINE. */
  assertions: string[]
  /** Why, where it has said that it is skipped. */
  skipped: string | undefined
  /** It says something before how it ended. */
  isTalkative: boolean
}

/** Of each test CUnit prints «Test: NAME ...», then what the test says itself, «passed» or «FAILED», and the assertions. */
function runsIn(stdout: string): Run[] {
  const [, ...sections] = stdout.split(/^\s*Test: \S+ \.\.\./m)
  return sections.map((section) => ({
    assertions: [...section.matchAll(/^\s+\d+\. (\S+\.c:\d+) /gm)].map(([, where]) => where!),
    skipped: /\[SKIPPED\]\s*(.*)$/m.exec(section)?.[1],
    isTalkative: !/^(passed|FAILED)/.test(section),
  }))
}

/** Of one that did not fail. */
function outcomeOf({ skipped }: Run): Omit<Outcome, 'name'> {
  return skipped === undefined ? { result: 'passed', said: '' } : { result: 'skipped', said: skipped }
}

/** CUnit's own count, which it prints at the end. */
function hasCounted({ stdout }: Result, { passed, failed }: { passed: number; failed: number }): boolean {
  const total = passed + failed
  return new RegExp(`^\\s*tests +${total} +${total} +${passed} +${failed} `, 'm').test(stdout)
}

function failure({ code, signal, stdout, stderr, tookMs }: Result): Omit<Outcome, 'name'> {
  const lines = `${stdout}\n${stderr}`.split('\n').filter((line) => line.trim() !== '')
  const how = signal === null ? `exit code ${code}` : `${signal} after ${Math.round(tookMs / 1000)} s`
  const from = Math.max(
    0,
    lines.findIndex((line) => /^\s*Test: /.test(line)),
  )
  return { result: 'failed', said: [how, ...lines.slice(from, from + linesShown)].join('\n') }
}

/** The tests that a list beside this file names, with what else a line has. Columns are two blanks or more apart; `#`: a comment. */
function readList(file: string, columns: number): Map<string, string[]> {
  const rows = new Map<string, string[]>()
  for (const line of readFileSync(new URL(`../../../test/conformance/${file}`, import.meta.url), 'utf8').split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const [name, ...rest] = line.split(/ {2,}/)
    if (rest.length !== columns || rows.has(name!)) throw new Error(`${file}: not a line, or a second one: ${line}`)
    rows.set(name!, rest)
  }
  return rows
}

/** What is to be skipped: the reason of each. */
export function listedAsSkipped(): Map<string, string> {
  return new Map([...readList('iscsi-skipped.txt', 1)].map(([name, [reason]]) => [name, reason!]))
}

/** What is run in another way than all others. */
export function listedAsApart(): Map<string, Apart> {
  return new Map([...readList('iscsi-apart.txt', 2)].map(([name, [way]]) => [name, parseWay(way!)]))
}

function parseWay(way: string): Apart {
  if (way === 'physical blocks of 512') return { kind: 'small-blocks' }
  const [, firstFailsAt] = /^second run, the first fails at (\S+)$/.exec(way) ?? []
  if (firstFailsAt !== undefined) return { kind: 'second-run', firstFailsAt }
  throw new Error(`iscsi-apart.txt: no way to run a test: ${way}`)
}
