import t from 'tap'
import type { ChangesView } from '../../../src/api/index.js'
import { asJson, asTable } from '../../../src/cli/snapshot-diff.js'

const first: ChangesView = {
  ...{ volume: 'data', snapshot: 'two', from: 'one', sizeBytes: 1 << 30, fromSizeBytes: 1 << 29, superset: true },
  extents: [
    { offset: 0, length: 1 << 20, kind: 'data' },
    { offset: 2 << 20, length: 4096, kind: 'zero' },
  ],
  nextOffset: 4 << 20,
}
const last: ChangesView = { ...first, extents: [{ offset: 8 << 20, length: 8192, kind: 'data' }], nextOffset: null }

async function* pages(...all: ChangesView[]) {
  for (const page of all) yield await Promise.resolve(page)
}

async function text(parts: AsyncIterable<string>): Promise<string> {
  let all = ''
  for await (const part of parts) all += part
  return all
}

void t.test('a table for people', async (t) => {
  t.equal(
    await text(asTable(pages(first, last))),
    `        OFFSET          LENGTH  WHAT
             0         1048576  data
       2097152            4096  zero
       8388608            8192  data
From one to two: 1 MiB of data and 4 KiB of zeros in 3 extents. Blocks may be among them that were written with what they held.
`,
  )
  const one = { ...last, from: null, fromSizeBytes: null, superset: false }
  t.match(await text(asTable(pages(one))), /\nSnapshot two has 8 KiB of data and 0 B of zeros in 1 extent\.\n$/)
  t.match(await text(asTable(pages({ ...last, extents: [] }))), /^ +OFFSET +LENGTH +WHAT\nFrom one .* in 0 extents\./)
})

void t.test('one document for programs, however many parts it comes in', async (t) => {
  const { volume, snapshot, from, sizeBytes, fromSizeBytes, superset } = first
  t.same(JSON.parse(await text(asJson(pages(first, last)))), {
    ...{ volume, snapshot, from, sizeBytes, fromSizeBytes, superset },
    extents: [...first.extents, ...last.extents],
    totals: { extents: 3, dataBytes: (1 << 20) + 8192, zeroBytes: 4096 },
  })
  t.match(JSON.parse(await text(asJson(pages({ ...last, extents: [] })))), { extents: [], totals: { extents: 0 } })
})
