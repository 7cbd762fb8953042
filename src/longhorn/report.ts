// What was found in a directory of Longhorn's, and what follows from it.
import { AnkoleError } from '../api/errors.js'
import type { LonghornFault, LonghornReport } from '../native/index.js'

/** As the request for the volume has it. */
export interface FoundSnapshot {
  layer: string
  labels: Record<string, string>
  userCreated: boolean
  createdAt: string
  sizeBytes: number
}

/** Keeps what a snapshot was called where that cannot be a layer's name here; the core writes it, too. */
const nameLabel = 'ankole.longhorn-name'

/** Those that nobody had removed. */
export function snapshotsIn({ layers }: LonghornReport): FoundSnapshot[] {
  return layers
    .filter(({ layer, removed }) => layer !== '' && !removed)
    .map(({ layer, file, labels, userCreated, created, sizeBytes }) => {
      const name = file.replace(/^volume-snap-/, '').replace(/\.img$/, '')
      const texts = Object.entries(labels).flatMap(([key, value]) => (typeof value === 'string' ? [[key, value]] : []))
      const all = Object.fromEntries(texts) as Record<string, string>
      return {
        ...{ layer, userCreated, createdAt: created, sizeBytes },
        labels: name === layer ? all : { ...all, [nameLabel]: name },
      }
    })
}

/** Throws invalid-replica for all that is wrong and not accepted. */
export function refuseFaulty({ directory, problems }: LonghornReport, accept: readonly LonghornFault[]): void {
  const wrong = problems.filter(({ kind }) => kind === '' || !accept.includes(kind))
  if (wrong.length === 0) return
  const kinds = wrong.map(({ kind }) => kind).filter((kind) => kind !== '')
  const advice =
    kinds.length === wrong.length ? ` Where it is to be taken as it is: --accept ${kinds.join(' --accept ')}` : ''
  throw new AnkoleError(
    'invalid-replica',
    `${directory} cannot be adopted: ${wrong.map(({ message }) => message).join('; ')}.${advice}`,
  )
}
