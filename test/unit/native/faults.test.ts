import { readFileSync } from 'node:fs'
import t from 'tap'
import { replicaFaults, waitCauses } from '../../../src/native/index.js'

// The names in the native core, in TypeScript and in the documentation are the same.

const root = new URL('../../../../', import.meta.url)
const header = readFileSync(new URL('native/engine/fault.h', root), 'utf8')
const page = readFileSync(new URL('docs/reference/faults.md', root), 'utf8')

function namesIn(text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].flatMap(([, name]) => (name === undefined ? [] : [name])).sort()
}

void t.test('faults and waits have the same names everywhere', (t) => {
  const [faults, waits] = header.split('enum class WaitsFor')
  t.same(namesIn(faults ?? '', /return "([a-z-]+)"/g), [...replicaFaults].sort())
  t.same(namesIn(waits ?? '', /return "([a-z-]+)"/g), [...waitCauses].sort())
  const [faultRows, waitRows] = page.split('## What I/O waits for')
  t.same(namesIn(faultRows ?? '', /^\| `([a-z-]+)` \|/gm), [...replicaFaults].sort())
  t.same(namesIn(waitRows ?? '', /^\| `([a-z-]+)` \|/gm), [...waitCauses].sort())
  t.end()
})
