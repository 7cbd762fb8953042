// A trim that somebody asked for: the plan says that the engine is to be at it, and an engine that is started anew goes on
// where the one before was. Pure functions of what is stored, what the engine reports and the clock.
import type { EngineReport } from '../agent/index.js'
import { AnkoleError } from '../api/errors.js'
import type { Trim, TrimCounts, TrimOutcome, TrimState, Volume } from '../store/index.js'

/** A new one, at its beginning. Throws busy: there is one already. */
export function beginTrim({ metadata, membership, trim }: Volume, nowMs: number, bandwidth: number): TrimState {
  if (trim?.current !== undefined) {
    throw new AnkoleError(
      'busy',
      `Volume ${metadata.name} cannot be trimmed: it is being trimmed since ${trim.current.begunAt}. ` +
        `To end that: ankole volume trim ${metadata.name} --stop`,
    )
  }
  const { attachment } = membership
  const current: Trim = {
    ...{ begunAt: new Date(nowMs).toISOString(), bandwidth, attachment },
    ...{ bytesDone: 0, unmappedBytes: 0, failedBytes: 0 },
  }
  return { ...trim, current }
}

/** What was given back stays so, whatever the outcome is. */
export function endTrim(current: Trim, outcome: TrimOutcome, nowMs: number): TrimState {
  const { begunAt } = current
  return { last: { begunAt, endedAt: new Date(nowMs).toISOString(), outcome, ...trimCounts(current) } }
}

/** The engine's report taken in. */
export function assessTrim(volume: Volume, engine: EngineReport | undefined, nowMs: number): TrimState | undefined {
  const { trim, membership, spec } = volume
  const current = trim?.current
  if (current === undefined) return trim
  const reported = engine?.trim?.id === current.begunAt ? engine.trim : undefined
  const newest = reported !== undefined && reported.bytesDone >= current.bytesDone ? trimCounts(reported) : current
  const now = { ...current, ...newest }
  if (reported?.finished) return endTrim(now, 'done', nowMs)
  // Who asked for it did so of the volume as it was attached then.
  const isAttached = membership.node !== null && membership.attachment === current.attachment && spec.nodeID !== null
  if (!isAttached) return endTrim(now, 'interrupted', nowMs)
  return newest === current ? trim : { ...trim, current: now }
}

/** Nothing but these. */
export function trimCounts({ bytesDone, unmappedBytes, failedBytes }: TrimCounts): TrimCounts {
  return { bytesDone, unmappedBytes, failedBytes }
}
