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
  /** Those that failed: FILE:LINE. None where it ended in another way than by itself. */
  assertions: string[]
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
  const ran = /^\s*tests +1 +1 +(1 +0|0 +1) /m.exec(stdout)
  if (code !== 0 || ran === null || ran[1]!.startsWith('0')) {
    const how = signal === null ? `exit code ${code}` : `${signal} after ${Math.round(tookMs / 1000)} s`
    const from = Math.max(
      0,
      lines.findIndex((line) => /^\s*Test: /.test(line)),
    )
    const failed = [...stdout.matchAll(/^\s+\d+\. (\S+\.c:\d+) /gm)].map(([, where]) => where!)
    return {
      result: 'failed',
      said: [how, ...lines.slice(from, from + linesShown)].join('\n'),
      assertions: ran === null ? [] : failed,
    }
  }
  const skipped = lines.find((line) => line.includes('[SKIPPED]'))
  if (skipped === undefined) return { result: 'passed', said: '', assertions: [] }
  return { result: 'skipped', said: skipped.replace(/^.*\[SKIPPED\]\s*/, ''), assertions: [] }
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

/** What no target can pass: the one assertion that fails in each. */
export function listedAsFlawed(): Map<string, string> {
  return new Map([...readList('iscsi-flawed.txt', 2)].map(([name, [assertion]]) => [name, assertion!]))
}
