import type { Draft } from '../../../src/store/index.js'

export const replicaIds = ['1', '2', '3'].map((digit) => digit.repeat(16))

export function aVolume(name: string): Draft<'Volume'> {
  return {
    metadata: { name },
    spec: { sizeBytes: 1 << 30, numberOfReplicas: 3, cache: 'buffered', nodeID: null },
    secret: 'ab'.repeat(32),
    nbdPort: 10810,
    iscsiPort: 20810,
    replicas: replicaIds.map((id, index) => ({ id, node: 'node-1', disk: `disk-${index + 1}` })),
    membership: {
      attachment: 0,
      node: null,
      record: { epoch: { attachment: 0, run: 0 }, generation: 0, members: [], snapshot: '' },
    },
    status: { state: 'creating', robustness: 'unknown', message: '', replicas: [] },
  }
}
