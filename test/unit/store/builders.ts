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

export function aSnapshot(volume: string, name: string): Draft<'Snapshot'> {
  return {
    metadata: { name: `${volume}.${name}` },
    spec: { volume, volumeUid: `uid of ${volume}`, name, labels: { app: 'db' }, userCreated: true },
    ...{ askedAt: '2026-01-01T00:00:00.000Z', createdAt: '2026-01-01T00:00:00.000Z' },
    ...{ layer: `${name}-00112233`, attachment: 1, tries: 0, abandonedLayers: [], state: 'ready' },
    ...{ message: '', sizeBytes: 1 << 30, pauseMs: 1.5 },
  }
}
