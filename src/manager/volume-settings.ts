// What of a volume may be changed at any time.
import type { Volume } from '../store/index.js'
import { checkBandwidth, checkScrubPeriod } from './volume-spec.js'

/** What may change while a volume is; `default`: as if it had never been set. */
export interface VolumeSettings {
  resyncBandwidth?: number | 'default'
  scrubPeriodSeconds?: number | 'default'
  scrubBandwidth?: number | 'default'
}

/** Throws invalid-argument. */
export function checkSettings({ resyncBandwidth, scrubPeriodSeconds, scrubBandwidth }: VolumeSettings): void {
  if (typeof resyncBandwidth === 'number') checkBandwidth(resyncBandwidth, 'copying')
  if (typeof scrubPeriodSeconds === 'number') checkScrubPeriod(scrubPeriodSeconds)
  if (typeof scrubBandwidth === 'number') checkBandwidth(scrubBandwidth, 'a scrub')
}

export function withSettings(spec: Volume['spec'], settings: VolumeSettings): Volume['spec'] {
  const { resyncBandwidth, scrubPeriodSeconds, scrubBandwidth, ...others } = { ...spec, ...settings }
  return {
    ...others,
    ...(typeof resyncBandwidth === 'number' ? { resyncBandwidth } : {}),
    ...(typeof scrubPeriodSeconds === 'number' ? { scrubPeriodSeconds } : {}),
    ...(typeof scrubBandwidth === 'number' ? { scrubBandwidth } : {}),
  }
}
