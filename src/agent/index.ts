import type { MembershipRecord } from './plan.js'

export type * from './plan.js'

/** Where complete records are kept: the manager's store. */
export interface RecordStore {
  /** Resolves once the record is durable; rejects if the attachment is stale. */
  store(volume: string, record: MembershipRecord): Promise<void>
}

/** The part of pino's logger that is used here. */
export interface Logger {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}
