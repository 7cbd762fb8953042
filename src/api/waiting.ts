// Waiting for what was asked for, and saying how far it is where the time runs out.
import type { Manager } from '../manager/index.js'
import { AnkoleError } from './errors.js'
import { timeoutSecondsDefault } from './schema-parts.js'

export interface Waited {
  /** «volume demo» */
  subject: string
  /** «attached» */
  what: string
  /** As it is when the time runs out; it may throw. */
  now: () => { state: string; message: string }
}

/** As Manager.waitFor, but that what is waited for says itself what it waits for. */
export async function explained<T>(
  manager: Manager,
  { subject, what, now }: Waited,
  timeoutMs: number,
  check: () => T | undefined,
): Promise<T> {
  try {
    return await manager.waitFor(`${what} ${subject}`, timeoutMs, check)
  } catch (error) {
    if (!(error instanceof AnkoleError) || error.code !== 'timed-out') throw error
    const { state, message } = now()
    const sentence = `${subject.slice(0, 1).toUpperCase()}${subject.slice(1)} is not ${what} after ${timeoutMs / 1000} s`
    throw new AnkoleError('timed-out', `${sentence}: it is ${state}${message === '' ? '' : `, ${message}`}.`)
  }
}

export function milliseconds(seconds: number | undefined): number {
  return (seconds ?? timeoutSecondsDefault) * 1000
}
