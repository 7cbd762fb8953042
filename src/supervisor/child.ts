// What the processes under a supervisor run: the addon's thread, and a channel to the parent. Blocks never come
// through here.
//
// An idle child does not wake up: no timer runs until it is told to stop. Its memory is its imports (bare Node.js takes
// 9.6 MiB of its own beside nine of its kind, an ES module 10.4), so it loads the addon's file and nothing else: not
// the door of src/native, not a logger. What it has to say goes to the parent.

import { loadAddon, type AddonHandle, type ProcessKind } from '../native/addon.js'

/** Parent → child. `start` comes first, and once. */
export type ParentMessage = { type: 'start'; config: object } | { type: 'post'; message: object }

/** Child → parent: the addon's events and replies, unchanged. */
export interface ChildMessage {
  type: 'event'
  event: object
}

/** When the parent is gone nobody else ends a child that hangs in its stop. */
const orphanStopLimitMs = 10_000

/**
 * A parent that was killed takes the channels of all its children at once. The engines stop first, so that they can
 * flush and part from their replicas; a disk host leaves them this long. The portal's port is free at once.
 */
const orphanDelayMs = { engine: 0, 'disk-host': 2_000, portal: 0 } as const

export function runChild(kind: ProcessKind): void {
  let handle: AddonHandle | undefined
  let stopping = false
  let ending = false

  /** Leaves once the last event, and so all before it, is on its way. */
  function end(code: number, lastEvent: object): void {
    if (ending) return
    ending = true
    send(lastEvent, () => {
      handle?.close()
      process.exit(code)
    })
  }

  function fail(error: unknown): void {
    const { message, stack } = error instanceof Error ? error : new Error(String(error))
    end(1, { event: 'log', level: 'error', message: `${kind} process failed: ${message}`, stack })
  }

  function stop(): void {
    if (stopping) return
    stopping = true
    if (handle === undefined) end(0, { event: 'stopped', clean: true })
    else post({ request: 0, op: 'stop' }) // Ends with the event `stopped`.
  }

  function post(message: object): void {
    if (ending || handle === undefined) return
    try {
      handle.post(JSON.stringify(message))
    } catch (error) {
      // Its thread has ended: the event `stopped` is on its way, and nobody waits for a reply after that.
      if (!(error instanceof Error && 'code' in error && error.code === 'unavailable')) throw error
    }
  }

  function onEvent(json: string): void {
    const event = JSON.parse(json) as { event?: string; clean?: boolean }
    if (event.event === 'stopped') end(event.clean === true ? 0 : 1, event)
    // A disk that cannot be used is tried anew by a new process, which the supervisor paces. A portal tries by itself.
    else if (event.event === 'failed' && kind === 'disk-host') end(1, event)
    else send(event)
  }

  function onMessage(message: ParentMessage): void {
    switch (message.type) {
      case 'start':
        if (stopping) return
        handle = loadAddon().start(kind, JSON.stringify(message.config), (json) => {
          guard(() => {
            onEvent(json)
          })
        })
        break
      case 'post':
        post(message.message)
        break
    }
  }

  function guard(action: () => void): void {
    try {
      action()
    } catch (error) {
      fail(error)
    }
  }

  // The terminal sends Ctrl-C and its own end to the whole group. The parent decides what follows from it.
  process.on('SIGINT', () => undefined)
  process.on('SIGHUP', () => undefined)
  process.on('SIGTERM', () => {
    guard(stop)
  })
  process.on('disconnect', () => {
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), orphanStopLimitMs)
    setTimeout(() => {
      guard(stop)
    }, orphanDelayMs[kind])
  })
  process.on('uncaughtException', fail) // Rejected promises come here too.
  process.on('message', (message) => {
    guard(() => {
      onMessage(message as ParentMessage)
    })
  })
}

/** A parent that is gone hears nothing, and that is no error: `disconnect` says it. */
function send(event: object, then?: () => void): void {
  if (process.send === undefined || !process.connected) {
    then?.()
    return
  }
  process.send({ type: 'event', event } satisfies ChildMessage, undefined, undefined, () => then?.())
}
