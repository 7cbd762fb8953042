// Work on directories, done by the native core in the process of the command: extents are not for JavaScript to see.
import { AnkoleError, isErrorCode } from '../api/errors.js'
import {
  loadAddon,
  type LonghornEvent,
  type LonghornExport,
  type LonghornReport,
  type LonghornWork,
} from '../native/index.js'

export interface Doing {
  signal?: AbortSignal
  /** All that was copied so far; about once a second. */
  onBytes?: (bytes: number) => void
}

export async function checkDirectory(
  work: Omit<Extract<LonghornWork, { what: 'check' }>, 'what'>,
): Promise<LonghornReport> {
  return (await run({ what: 'check', ...work }, {})) as LonghornReport
}

/** To a directory that is made, or that an earlier copy left there. */
export async function copyDirectory(
  work: Omit<Extract<LonghornWork, { what: 'copy' }>, 'what'>,
  doing: Doing,
): Promise<void> {
  await run({ what: 'copy', ...work }, doing)
}

/** The directory stays one that Longhorn opens, and holds the same. */
export async function prepareDirectory(
  work: Omit<Extract<LonghornWork, { what: 'prepare' }>, 'what'>,
  doing: Doing,
): Promise<void> {
  await run({ what: 'prepare', ...work }, doing)
}

export async function exportDirectory(
  work: Omit<Extract<LonghornWork, { what: 'export' }>, 'what'>,
  doing: Doing,
): Promise<LonghornExport> {
  return (await run({ what: 'export', ...work }, doing)) as LonghornExport
}

/** Rejects with what the core says, or with the reason of the signal once the core has ended. */
function run(work: LonghornWork, { signal, onBytes }: Doing): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const addon = loadAddon()
    const handle = addon.start('longhorn', JSON.stringify(work), (json) => {
      const event = JSON.parse(json) as LonghornEvent
      switch (event.event) {
        case 'progress':
          onBytes?.(event.bytes)
          break
        case 'done':
          end()
          resolve(event.result)
          break
        case 'failed':
          end()
          reject(signal?.aborted ? asError(signal.reason) : failure(event))
          break
        case 'log':
          break
      }
    })
    const cancel = (): void => {
      handle.post(JSON.stringify({ request: 0, op: 'stop' }))
    }
    const end = (): void => {
      signal?.removeEventListener('abort', cancel)
      handle.close()
    }
    signal?.addEventListener('abort', cancel, { once: true })
    if (signal?.aborted) cancel()
  })
}

function failure({ code, message }: { code: string; message: string }): AnkoleError {
  return new AnkoleError(isErrorCode(code) ? code : 'internal', `${message}.`)
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}
