// What follows from what was found in a directory of Longhorn's.
import t from 'tap'
import { refuseFaulty, snapshotsIn } from '../../../src/longhorn/index.js'
import type { LonghornLayer, LonghornReport } from '../../../src/native/index.js'

function aLayer(parts: Partial<LonghornLayer> = {}): LonghornLayer {
  return {
    ...{ file: 'volume-snap-a.img', layer: 'a', parent: '', sizeBytes: 4096, allocatedBytes: 0, unwrittenBytes: 0 },
    ...{ removed: false, userCreated: true, created: '2024-05-06T07:08:09Z', labels: {}, ...parts },
  }
}

function aReport(parts: Partial<LonghornReport> = {}): LonghornReport {
  return {
    ...{ directory: '/r', sizeBytes: 4096, volumeBytes: 4096, chain: 1, revision: null, backingFile: '' },
    ...{ layers: [], notes: [], problems: [], ...parts },
  }
}

t.test('snapshots are the layers that nobody removed', (t) => {
  const found = snapshotsIn(
    aReport({
      layers: [
        aLayer({ file: 'volume-head-001.img', layer: '' }),
        aLayer({ labels: { k: 'v', n: 1 } }),
        aLayer({ file: 'volume-snap-b.img', layer: 'b', removed: true }),
        aLayer({ file: 'volume-snap-C d.img', layer: 'C-d-0a1b2c3d', userCreated: false }),
      ],
    }),
  )
  const createdAt = '2024-05-06T07:08:09Z'
  t.same(found, [
    { layer: 'a', labels: { k: 'v' }, userCreated: true, createdAt, sizeBytes: 4096 },
    {
      ...{ layer: 'C-d-0a1b2c3d', userCreated: false, createdAt, sizeBytes: 4096 },
      labels: { 'ankole.longhorn-name': 'C d' },
    },
  ])
  t.end()
})

t.test('what is wrong is told at once, and how to take it all the same only where that may be', (t) => {
  refuseFaulty(aReport(), [])
  const problems = [
    { kind: 'dirty' as const, message: 'it was not closed' },
    { kind: 'error' as const, message: 'it is on fire' },
  ]
  t.throws(() => refuseFaulty(aReport({ problems }), []), {
    code: 'invalid-replica',
    message:
      '/r cannot be adopted: it was not closed; it is on fire. Where it is to be taken as it is: --accept dirty --accept error',
  })
  t.throws(() => refuseFaulty(aReport({ problems }), ['dirty']), { message: /: it is on fire\..*--accept error$/ })
  refuseFaulty(aReport({ problems }), ['dirty', 'error'])
  const never = [...problems, { kind: '' as const, message: 'a layer is not there' }]
  t.throws(() => refuseFaulty(aReport({ problems: never }), ['dirty', 'error']), {
    message: '/r cannot be adopted: a layer is not there.',
  })
  t.throws(() => refuseFaulty(aReport({ problems: never }), []), { message: /a layer is not there\.$/ })
  t.end()
})
