import t from 'tap'
import type { LayerView, SnapshotView } from '../../../src/api/index.js'
import { ageText, drawTree, snapshotText } from '../../../src/cli/snapshot-tree.js'

/** Of «name under parent»; the head is «*». */
function layersOf(...lines: string[]): LayerView[] {
  return lines.map((line) => {
    const [name = '', parent = null] = line.split(' under ')
    const head = name === '*'
    return {
      ...{ name: head ? 'volume-head' : name, head, snapshot: head || name.startsWith('-') ? null : name, parent },
      ...{
        children: [],
        allocatedBytes: 1024,
        removed: name.startsWith('-'),
        base: name.startsWith('-base'),
        clones: [],
      },
    }
  })
}

const drawn = (...lines: string[]): string[] =>
  drawTree(layersOf(...lines)).map(({ prefix, layer }) => prefix + layer.name)

t.test('a chain goes down in one column', (t) => {
  t.same(drawn('a', 'b under a', 'c under b', '* under c'), ['a', 'b', 'c', 'volume-head'])
  t.same(drawn('*'), ['volume-head'])
  t.same(drawn(), [])
  const long = Array.from({ length: 20_000 }, (_, n) => (n === 0 ? 's0' : `s${n} under s${n - 1}`))
  t.equal(drawn(...long).length, 20_000)
  t.end()
})

t.test('branches go to the right, and their chains stay in their columns', (t) => {
  const tree = drawn(
    ...['a', 'b under a', 'c under b', 'd under c', 'e under d', 'f under c', 'g under b', '* under g', 'z'],
  )
  t.same(tree, ['a', 'b', '├─ c', '│  ├─ d', '│  │  e', '│  └─ f', '└─ g', '   volume-head', 'z'])
  t.end()
})

const now = Date.parse('2026-01-08T00:00:00.000Z')

function aView(name: string, parts: Partial<SnapshotView> = {}): SnapshotView {
  return {
    ...{ volume: 'data', name, state: 'ready', message: '', labels: {}, userCreated: true, sizeBytes: 1 },
    ...{ createdAt: '2026-01-01T00:00:00.000Z', pauseMs: 1, layer: name, parent: null, children: [] },
    ...{ allocatedBytes: 3 * 1024 ** 2, clones: [] },
    ...parts,
  }
}

t.test('what people read', (t) => {
  const layers = layersOf('monday', '-old under monday', 'tuesday under -old', '* under tuesday')
  const snapshots = [
    aView('monday', { labels: { app: 'db', by: 'me' } }),
    aView('tuesday', { createdAt: '2026-01-07T22:00:00.000Z' }),
    aView('late', { state: 'creating', layer: 'late-1', allocatedBytes: null, message: 'the members change' }),
  ]
  t.same(snapshotText({ volume: 'data', snapshots, layers, message: '' }, now).split('\n'), [
    'SNAPSHOT  SIZE   AGE  STATE       LABELS        MESSAGE',
    'monday    3 MiB  7 d  ready       app=db,by=me',
    '(-old)    1 KiB  -    removed',
    'tuesday   3 MiB  2 h  ready',
    '* head    1 KiB  -    written to',
    'late      -      7 d  creating                  the members change',
  ])
  const shared = layersOf('-base', 'one under -base', '-old under one', '* under -old').map((layer) => {
    return layer.name === '-old' ? { ...layer, clones: ['copy', 'other'] } : layer
  })
  const cloned = [aView('one', { clones: ['copy'] })]
  t.same(snapshotText({ volume: 'data', snapshots: cloned, layers: shared, message: '' }, now).split('\n'), [
    'SNAPSHOT  SIZE   AGE  STATE       LABELS  MESSAGE',
    '(-base)   1 KiB  -    base',
    'one       3 MiB  7 d  ready               cloned: copy',
    '(-old)    1 KiB  -    removed             not merged before: copy, other',
    '* head    1 KiB  -    written to',
  ])
  const message = 'its engine does not answer now'
  const unknown = snapshotText({ volume: 'data', snapshots: snapshots.slice(0, 1), layers: null, message }, now)
  t.match(unknown, /monday +3 MiB.*\nOf volume data sizes, and what builds on what, are not known: its engine does not/)
  for (const layers of [null, layersOf('*')]) {
    t.match(
      snapshotText({ volume: 'data', snapshots: [], layers, message: '' }, now),
      /^Volume data has no snapshots\. Take one with/,
    )
  }
  t.match(
    snapshotText({ volume: 'data', snapshots: [], layers: layersOf('-x', '* under -x'), message: '' }, now),
    /\(-x\).*removed/,
  )
  t.end()
})

t.test('ages', (t) => {
  const hour = 3_600_000
  t.same([-5, 59_999, 60_000, hour, 47 * hour, 48 * hour].map(ageText), ['0 s', '59 s', '1 min', '1 h', '1 d', '2 d'])
  t.end()
})
