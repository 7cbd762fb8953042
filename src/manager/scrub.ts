// When a volume is scrubbed, and what is kept of it. Pure functions of what is stored, what its engine reports and the
// clock: the plan says which scrub an engine is to be at, and whoever is started anew goes on with it.
import { createHash } from 'node:crypto'
import type { EngineReport } from '../agent/index.js'
import type { Scrub, ScrubFindings, ScrubState, Volume } from '../store/index.js'
import { scrubBandwidthDefault, scrubPeriodSecondsDefault } from './volume-spec.js'

/** Of one node: when it was down for long, many volumes are due at once. */
export const scrubsAtOnceMax = 2

export interface ScrubSettings {
  /** 0: none is begun. */
  periodSeconds: number
  /** Bytes of the volume a second; 0: no bound. */
  bandwidth: number
}

export function scrubSettings({ spec }: Volume): ScrubSettings {
  const { scrubPeriodSeconds = scrubPeriodSecondsDefault, scrubBandwidth = scrubBandwidthDefault } = spec
  return { periodSeconds: scrubPeriodSeconds, bandwidth: scrubBandwidth }
}

/** When the next one is to begin, as Date.now() tells the time; null: none is. */
export function scrubDueMs(volume: Volume): number | null {
  const periodMs = scrubSettings(volume).periodSeconds * 1000
  if (periodMs === 0) return null
  const { begunAt } = volume.scrub ?? {}
  if (begunAt !== undefined) return Date.parse(begunAt) + periodMs
  // Each volume at a time of its own: those that were made together do not begin together.
  return Date.parse(volume.metadata.creationTimestamp) + periodMs * shareOf(volume.metadata.uid)
}

/** From 0 to 1, the same for the same text. */
function shareOf(text: string): number {
  return createHash('sha256').update(text).digest().readUInt32BE(0) / 2 ** 32
}

/** Names of the volumes whose turn it is: those that wait longest, as many as their nodes may scrub at once. */
export function scrubsToBegin(volumes: readonly Volume[], nowMs: number): Set<string> {
  const waiting: { name: string; node: string; dueMs: number }[] = []
  const running = new Map<string, number>()
  for (const volume of volumes) {
    const { node } = volume.membership
    if (node === null || volume.status.state !== 'attached') continue
    const dueMs = scrubDueMs(volume)
    if (volume.scrub?.current !== undefined) running.set(node, (running.get(node) ?? 0) + 1)
    else if (dueMs !== null && dueMs <= nowMs) waiting.push({ name: volume.metadata.name, node, dueMs })
  }
  const begin = new Set<string>()
  for (const { name, node } of waiting.sort((a, b) => a.dueMs - b.dueMs)) {
    const count = running.get(node) ?? 0
    if (count >= scrubsAtOnceMax) continue
    running.set(node, count + 1)
    begin.add(name)
  }
  return begin
}

/** A new one at its beginning; `bandwidth` where somebody asked for it and said so. */
export function beginScrub(before: ScrubState | undefined, nowMs: number, bandwidth?: number): ScrubState {
  const begunAt = new Date(nowMs).toISOString()
  const current: Scrub = {
    begunAt,
    ...(bandwidth === undefined ? {} : { bandwidth }),
    ...{ regionsDone: 0, regionsFailed: 0, repairedBlocks: 0, corruptBlocks: 0, differingBlocks: 0 },
  }
  return { ...(before?.last === undefined ? {} : { last: before.last }), begunAt, current }
}

/** Without the one that is under way; the next one is begun a period after that was. */
export function endScrub({ last, begunAt }: ScrubState): ScrubState {
  return { ...(last === undefined ? {} : { last }), ...(begunAt === undefined ? {} : { begunAt }) }
}

/** The engine's report taken in, and a new scrub where it is the volume's turn. */
export function assessScrub(
  volume: Volume,
  engine: EngineReport | undefined,
  nowMs: number,
  mayBegin: boolean,
): ScrubState | undefined {
  const { scrub } = volume
  if (scrub?.current === undefined) return mayBegin ? beginScrub(scrub, nowMs) : scrub
  const { current } = scrub
  const reported = engine?.scrub?.id === current.begunAt ? engine.scrub : undefined
  if (reported?.finished) {
    const last = { begunAt: current.begunAt, endedAt: new Date(nowMs).toISOString(), ...findings(reported) }
    return { ...endScrub(scrub), last }
  }
  // One that somebody asked for is carried out, whatever the schedule is.
  if (current.bandwidth === undefined && scrubSettings(volume).periodSeconds === 0) return endScrub(scrub)
  if (reported === undefined || reported.regionsDone <= current.regionsDone) return scrub
  return { ...scrub, current: { ...current, ...findings(reported) } }
}

function findings(from: ScrubFindings): ScrubFindings {
  const { regionsDone, regionsFailed, repairedBlocks, corruptBlocks, differingBlocks } = from
  return { regionsDone, regionsFailed, repairedBlocks, corruptBlocks, differingBlocks }
}
