import t from 'tap'
import type { EngineEvent, MembershipRecord } from '../../../src/native/index.js'
import { Memberships } from '../../../src/supervisor/memberships.js'

function record(generation: number, members: string[]): MembershipRecord {
  return { epoch: { attachment: 1, run: 1 }, generation, members, snapshot: '' }
}
const proposal = (of: MembershipRecord): EngineEvent => ({ event: 'proposal', record: of })
const complete = (of: MembershipRecord): EngineEvent => ({ event: 'complete', record: of })
const serving: EngineEvent = { event: 'serving', nbd: { host: '127.0.0.1', port: 10810 } }

void t.test('the next run gets the last complete record and what was proposed since', (t) => {
  const kept = new Memberships()
  t.strictSame(kept.start('demo', { attachment: 4, run: 1 }), { alone: false })
  kept.onEvent('demo', proposal(record(1, ['a', 'b'])))
  // Nothing was complete: the next run needs the store.
  t.strictSame(kept.start('demo', { attachment: 4, run: 2 }), { alone: false })
  kept.onEvent('demo', proposal(record(2, ['a', 'b', 'c'])))
  kept.onEvent('demo', complete(record(2, ['a', 'b', 'c'])))
  kept.onEvent('demo', proposal(record(3, ['a', 'b'])))
  kept.onEvent('demo', proposal(record(4, ['a'])))
  const expected = { complete: record(2, ['a', 'b', 'c']), proposals: [record(3, ['a', 'b']), record(4, ['a'])] }
  t.strictSame(kept.start('demo', { attachment: 4, run: 3 }).kept, expected)
  // Also a run that ends before it is told of changes nothing.
  t.strictSame(kept.start('demo', { attachment: 4, run: 4 }).kept, expected)
  kept.onEvent('demo', complete(record(4, ['a'])))
  t.strictSame(kept.start('demo', { attachment: 4, run: 5 }).kept, { complete: record(4, ['a']), proposals: [] })
  t.end()
})

void t.test('another attachment goes on from the record that the store gave with it', (t) => {
  const kept = new Memberships()
  kept.start('demo', { attachment: 4, run: 1 })
  kept.onEvent('demo', complete(record(2, ['a'])))
  t.equal(kept.start('demo', { attachment: 5, run: 1 }).kept, undefined)
  t.equal(kept.start('other', { attachment: 4, run: 2 }).kept, undefined)
  t.end()
})

void t.test('an engine is alone where all before it were seen to end, and the first of them waited', (t) => {
  const kept = new Memberships()
  t.equal(kept.start('new', { attachment: 1, run: 1 }).alone, true, 'there was none before it')
  t.equal(kept.start('demo', { attachment: 4, run: 1 }).alone, false, 'the one before it ran elsewhere')
  t.equal(kept.start('demo', { attachment: 4, run: 2 }).alone, false, 'it ended before it had waited')
  kept.onEvent('demo', serving)
  t.equal(kept.start('demo', { attachment: 4, run: 3 }).alone, true)
  t.equal(kept.start('demo', { attachment: 5, run: 1 }).alone, true)
  t.equal(kept.start('demo', { attachment: 7, run: 1 }).alone, false, 'attachment 6 was elsewhere')
  t.end()
})
