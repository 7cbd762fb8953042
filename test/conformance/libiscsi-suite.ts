// libiscsi's suite of tests, a process for each: what it has, and what came of one.
//
// CompareAndWrite.InvalidDataOutSize of version 1.19 leaves a hook behind that falsifies the tests after it in its process. And
// CUnit counts a test as passed that has only said that it is skipped, so that is read from what it prints.

import { readFileSync } from 'node:fs'
import { start, type Result } from './tools.js'

/** What needs longest sleeps for three seconds. */
const testLimitMs = 20_000

/** Of a failed test: the first assertions say what is wrong; there may be thousands. */
const linesShown = 24

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

/**
 * What may destroy data and, if the target knew the command, take its time to do so, is allowed: nothing is left out by us. The
 * tests of several paths get the unit twice.
 */
export async function runTest(name: string, url: string): Promise<Outcome> {
  const paths = name.startsWith('MultipathIO.') ? [url, url] : [url]
  const args = ['--dataloss', '--allow-sanitize', '--fail', `--test=ALL.${name}`, ...paths]
  return { name, ...judge(await start('iscsi-test-cu', args, { limitMs: testLimitMs }).ended) }
}

function judge({ code, signal, stdout, stderr, tookMs }: Result): Omit<Outcome, 'name'> {
  const lines = `${stdout}\n${stderr}`.split('\n').filter((line) => line.trim() !== '')
  const ran = lines.some((line) => /^\s*tests +1 +1 +1 +0 /.test(line))
  if (code !== 0 || !ran) {
    const how = signal === null ? `exit code ${code}` : `${signal} after ${Math.round(tookMs / 1000)} s`
    const from = Math.max(
      0,
      lines.findIndex((line) => /^\s*Test: /.test(line)),
    )
    return { result: 'failed', said: [how, ...lines.slice(from, from + linesShown)].join('\n') }
  }
  const skipped = lines.find((line) => line.includes('[SKIPPED]'))
  if (skipped === undefined) return { result: 'passed', said: '' }
  return { result: 'skipped', said: skipped.replace(/^.*\[SKIPPED\]\s*/, '') }
}

const skipList = new URL('../../../test/conformance/iscsi-skipped.txt', import.meta.url)

/** What may be skipped, by name, each with its reason. A line: SUITE.TEST, two blanks or more, the reason. `#`: a comment. */
export function mayBeSkipped(): Map<string, string> {
  const reasons = new Map<string, string>()
  for (const line of readFileSync(skipList, 'utf8').split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const match = /^(\S+\.\S+) {2,}(\S.*)$/.exec(line)
    if (match === null || reasons.has(match[1]!))
      throw new Error(`iscsi-skipped.txt: not a line, or a second one: ${line}`)
    reasons.set(match[1]!, match[2]!)
  }
  return reasons
}
