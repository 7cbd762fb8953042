// How full disks are: levels, with hysteresis, and what the engines of volumes on them are told. Pure functions.
import type { NodeReport } from '../agent/index.js'
import { AnkoleError } from '../api/errors.js'
import type { EngineSpace } from '../native/index.js'
import type { Volume } from '../store/index.js'

/** Of what a disk's file system has, how much is taken, in percent. */
export interface DiskThresholds {
  warningPercent: number
  criticalPercent: number
}

export const diskThresholdsDefault: DiskThresholds = { warningPercent: 80, criticalPercent: 90 }

export const diskLevels = ['ok', 'warning', 'critical'] as const
export type DiskLevel = (typeof diskLevels)[number]

/** So far below a threshold a level ends: what comes and goes does not say so each time. */
const hysteresisPercent = 2

/** Throws invalid-argument. */
export function checkThresholds(thresholds: DiskThresholds): DiskThresholds {
  const { warningPercent, criticalPercent } = thresholds
  if (warningPercent >= 1 && warningPercent <= criticalPercent && criticalPercent <= 100) return thresholds
  throw new AnkoleError(
    'invalid-argument',
    `A disk cannot be low at ${warningPercent} % and critical at ${criticalPercent} %: use 1 to 100, and no less for critical.`,
  )
}

export interface DiskSize {
  totalBytes: number
  freeBytes: number
}

/** In percent; 0 where nothing is known. */
export function usedPercent({ totalBytes, freeBytes }: DiskSize): number {
  return totalBytes === 0 ? 0 : (100 * (totalBytes - freeBytes)) / totalBytes
}

/** The level now; `before` stays until it is clearly over, and where nothing is known. */
export function levelOf(size: DiskSize, before: DiskLevel, thresholds: DiskThresholds): DiskLevel {
  if (size.totalBytes === 0) return before
  const used = usedPercent(size)
  const reached = (percent: number, was: boolean): boolean => used >= percent - (was ? hysteresisPercent : 0)
  if (reached(thresholds.criticalPercent, before === 'critical')) return 'critical'
  return reached(thresholds.warningPercent, before !== 'ok') ? 'warning' : 'ok'
}

/**
 * What initiators of the volume are told: of the fullest disk that a replica of it lies on. Rounded to a percent, so that
 * not every write makes another plan; undefined: nothing is known.
 */
export function engineSpace(
  { replicas }: Volume,
  reports: ReadonlyMap<string, NodeReport>,
  level: (node: string, disk: string) => DiskLevel,
  { warningPercent }: DiskThresholds,
): EngineSpace | undefined {
  const disks = replicas.flatMap(({ node, disk: id }) => {
    const disk = reports.get(node)?.disks.find((disk) => disk.id === id)
    return disk === undefined || disk.totalBytes === 0 ? [] : [{ ...disk, isLow: level(node, id) !== 'ok' }]
  })
  const [fullest] = disks.sort((a, b) => usedPercent(b) - usedPercent(a))
  if (fullest === undefined) return undefined
  const { totalBytes, freeBytes } = fullest
  return {
    totalBytes,
    freeBytes: Math.floor((Math.floor((100 * freeBytes) / totalBytes) * totalBytes) / 100),
    softBytes: Math.floor(((100 - warningPercent) * totalBytes) / 100),
    low: disks.some(({ isLow }) => isLow),
  }
}
