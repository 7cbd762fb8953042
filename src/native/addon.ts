// Loads the native addon. Nothing else imports it. The processes under the supervisor load only this file of the
// folder, so it imports nothing that bare Node.js has not loaded already: their memory is their imports.

import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** What runs as a process of its own, under a supervisor. */
export type ProcessKind = 'engine' | 'disk-host' | 'portal'
/** `longhorn`: work on directories that a command does itself. */
export type AddonKind = ProcessKind | 'longhorn'

export interface AddonHandle {
  /** Hands one request or answer (JSON) to the native thread. Throws after close. */
  post(json: string): void
  /** Hard stop: joins the thread. A clean stop is the request `stop`. Idempotent. */
  close(): void
}

export interface Addon {
  /** Throws if the configuration is bad. */
  start(kind: AddonKind, config: string, onEvent: (json: string) => void): AddonHandle
  crc32c(bytes: Uint8Array): number
  version: string
}

const buildCommand = 'npm run build:native'

export class AddonError extends Error {
  override name = 'AddonError'
}

/** The addon belongs to the package, wherever this file was compiled to inside of it. */
function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(directory, 'package.json'))) {
    const parent = dirname(directory)
    if (parent === directory) throw new AddonError(`no package.json above ${import.meta.url}`)
    directory = parent
  }
  return directory
}

export function addonPath(root: string = packageRoot()): string {
  return join(root, 'build', 'Release', 'ankole.node')
}

/** Loads it once a process; Node.js keeps it. */
export function loadAddon(path: string = addonPath()): Addon {
  if (!existsSync(path)) {
    throw new AddonError(`the native addon is not built: ${path} is missing. Build it with: ${buildCommand}`)
  }
  try {
    return createRequire(import.meta.url)(path) as Addon
  } catch (error) {
    const cause = error instanceof Error ? error.message : String(error)
    throw new AddonError(`the native addon ${path} does not load: ${cause}. Build it anew with: ${buildCommand}`, {
      cause: error,
    })
  }
}
