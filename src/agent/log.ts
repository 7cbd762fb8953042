// The log lines of the agent and of the processes under it.

import type { LogEvent } from '../native/index.js'

/** The part of pino's logger that is used here. */
export interface Logger {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

const ownFields: readonly string[] = ['event', 'level', 'message']

export function logEvent(log: Logger, subject: object, event: LogEvent): void {
  const fields = Object.entries(event).filter(([name]) => !ownFields.includes(name))
  log[event.level]({ ...Object.fromEntries(fields), ...subject }, event.message)
}

/** What a process's end is followed by, for people. */
export function endMessage(what: string, reason: string, restartInMs: number | undefined): string {
  if (restartInMs === undefined) return `${what} ${reason}`
  return `${what} ${reason}, starting it again ${restartInMs === 0 ? 'at once' : `in ${restartInMs} ms`}`
}
