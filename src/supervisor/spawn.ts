// One child process with its channel.

import { fork, type ChildProcess } from 'node:child_process'
import type { DiskHostEvent, EngineEvent, PortalEvent, Reply } from '../native/index.js'
import type { ChildMessage, ParentMessage } from './child.js'

export interface ChildListeners {
  onEvent: (event: EngineEvent | DiskHostEvent | PortalEvent | Reply) => void
  onOutput: (line: string) => void
  /** Called once, after the process is gone and all it sent was heard; never before `spawnChild` has returned. */
  onGone: (reason: string) => void
}

export interface ChildHandle {
  /** Absent if no process could be made. */
  pid: number | undefined
  send(message: ParentMessage): boolean
  kill(signal: 'SIGTERM' | 'SIGKILL'): void
}

/**
 * What was measured, ten idle children side by side: of the options that promise a smaller heap (--max-semi-space-size,
 * --optimize-for-size, --lite-mode, --jitless, --single-threaded-gc) none changes the memory of a child that hardly
 * runs JavaScript, before or after thousands of messages. Fewer threads do no harm and cost the kernel less: V8 gets one
 * worker, libuv one (the ES module loader starts its pool of four, and nothing else here uses it). 11 threads become 5.
 */
const execArgv = ['--v8-pool-size=1']

function childEnvironment(): NodeJS.ProcessEnv {
  const environment = { ...process.env, UV_THREADPOOL_SIZE: '1' }
  // Meant for the parent: an inspector's port is taken, a preloaded module is memory in every child.
  Reflect.deleteProperty(environment, 'NODE_OPTIONS')
  return environment
}

/** What a broken child can write in one line before it is cut. */
const outputLineBytesMax = 4_096

export function spawnChild(program: string, listeners: ChildListeners): ChildHandle {
  let child: ChildProcess
  try {
    child = fork(program, [], {
      execArgv,
      env: childEnvironment(),
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      serialization: 'json',
    })
  } catch (error) {
    setImmediate(() => {
      listeners.onGone(describe(error))
    })
    return { pid: undefined, send: () => false, kill: () => undefined }
  }

  let ended: string | undefined
  let gone = false
  const settle = (): void => {
    // The channel may still hold messages when the exit is known already.
    if (gone || ended === undefined || child.connected) return
    gone = true
    listeners.onGone(ended)
  }
  child.on('exit', (code, signal) => {
    ended = signal === null ? `exited with code ${code}` : `was ended by ${signal}`
    settle()
  })
  child.on('disconnect', settle)
  child.on('error', (error) => {
    // Also the failure of a kill or of a send: only one without a process is its end.
    if (child.pid !== undefined) return
    ended = describe(error)
    if (child.connected) child.disconnect()
    settle()
  })
  child.on('message', (message) => {
    listeners.onEvent((message as ChildMessage).event as EngineEvent | DiskHostEvent | PortalEvent | Reply)
  })
  if (child.stderr !== null) readLines(child.stderr, listeners.onOutput)

  return {
    pid: child.pid,
    send: (message) => child.connected && child.send(message, () => undefined),
    kill: (signal) => child.kill(signal),
  }
}

function readLines(stream: NodeJS.ReadableStream, onLine: (line: string) => void): void {
  let rest = ''
  stream.setEncoding('utf8')
  stream.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n')
    rest = (lines.pop() ?? '').slice(0, outputLineBytesMax)
    for (const line of lines) if (line !== '') onLine(line.slice(0, outputLineBytesMax))
  })
  stream.on('end', () => {
    if (rest !== '') onLine(rest)
  })
  stream.on('error', () => undefined)
}

function describe(error: unknown): string {
  return `could not be started: ${error instanceof Error ? error.message : String(error)}`
}
