// What volumes take up, for people.
import type { VolumeSpaceView } from '../api/index.js'
import { formatBytes } from '../manager/volume-spec.js'

/** A size that may not be known. */
export function sizeOrDash(bytes: number | null | undefined): string {
  return bytes === null || bytes === undefined ? '-' : formatBytes(bytes)
}

/** Rows of `ankole volume show`: what all replicas take up, and each layer by layer. */
export function spaceRows({ allocatedBytes, snapshotBytes, replicas }: VolumeSpaceView): [string, string][] {
  const all = `${sizeOrDash(allocatedBytes)} at all replicas together, ${sizeOrDash(snapshotBytes)} of it for snapshots`
  return [
    ['taken', all],
    ...replicas.map(({ id, allocatedBytes, metadataBytes, layers }): [string, string] => {
      if (allocatedBytes === null) return ['', `${id}: its disk host does not say`]
      const parts = layers.map((layer) => {
        const name = layer.snapshot ?? (layer.name === 'volume-head' ? 'head' : `(${layer.name})`)
        return `${name} ${formatBytes(layer.allocatedBytes)}`
      })
      return [
        '',
        `${id}: ${formatBytes(allocatedBytes)}: ${[...parts, `metadata ${sizeOrDash(metadataBytes)}`].join(', ')}`,
      ]
    }),
  ]
}
