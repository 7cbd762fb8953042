import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import { errorTable, sharedErrors } from '../../../src/api/index.js'

const root = new URL('../../../../', import.meta.url)
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8')

void t.test('the native core knows the shared codes, and no others', (t) => {
  const path = 'native/base/error_codes.h'
  t.ok(existsSync(new URL(path, root)))
  const rows = [...read(path).matchAll(/X\(k\w+,\s*(\d+),\s*"([^"]+)"\)/g)]
  t.ok(rows.length > 10)
  const codes = rows.map(([, , code]) => code).filter((code) => code !== 'ok')
  t.same(codes.sort(), Object.keys(sharedErrors).sort())
  t.equal(new Set(rows.map(([, number]) => number)).size, rows.length, 'each number stands for one code')
  t.end()
})

void t.test('docs/reference/errors.md says the same as the table', (t) => {
  const rows = [...read('docs/reference/errors.md').matchAll(/^\| `([^`]+)` \| (\d+) \| (\w+) \| (.+) \|$/gm)]
  const documented = rows.map(([, code, http, grpc, action]) => [code, { http: Number(http), grpc, action }])
  t.same(Object.fromEntries(documented), errorTable)
  t.end()
})

void t.test('every error says what to do, in a sentence', (t) => {
  for (const [code, { action }] of Object.entries(errorTable)) t.match(action, /^[A-Z`].*\.$/, code)
  t.end()
})
