// The test's end of a client: see load.ts.

import { fork, type ChildProcess } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { environment } from '../conformance/tools.js'
import type { FromLoad, LoadConfig, Progress, ToLoad, Verdict } from './load.js'
import type { Host } from './network.js'
import { seed } from './options.js'

export type LoadOptions = Omit<LoadConfig, 'seed' | 'report'>

const defaults = {
  sessions: { nbd: 3, iscsi: 3 },
  blocks: 640,
  percent: { read: 40, flush: 2, unmap: 4 },
  restMs: 4,
  filled: false,
} as const

const program = fileURLToPath(new URL('./load.js', import.meta.url))
const reports = fileURLToPath(new URL('../../../build/faults', import.meta.url))

/** How long a client that should make progress may make none, before the test fails. */
const progressWaitMs = 90_000

export class LoadProcess {
  readonly report: string
  progress: Progress = {
    answered: 0,
    unmaps: 0,
    longestMs: 0,
    longest: '',
    ownMs: 0,
    regions: 0,
    logins: 0,
    errors: [],
  }
  readonly #child: ChildProcess
  #verdict: ((verdict: Verdict) => void) | undefined
  #failed: ((error: Error) => void) | undefined
  #done: (() => void) | undefined

  constructor(
    host: Host,
    name: string,
    options: Pick<LoadOptions, 'volume' | 'sizeBytes' | 'nbd' | 'iscsi'> & Partial<LoadOptions>,
  ) {
    mkdirSync(reports, { recursive: true })
    this.report = join(reports, `${name.replaceAll(/[^a-z0-9]+/gi, '-').slice(0, 80)}-seed-${seed}.txt`)
    const [execPath, ...execArgv] = [...host.enter, process.execPath]
    this.#child = fork(program, [], {
      ...{ execPath: execPath, execArgv, env: environment, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
    })
    this.#child.on('message', (message: FromLoad) => {
      this.#onMessage(message)
    })
    this.#child.once('exit', (code, signal) => {
      this.#failed?.(new Error(`the client ended with ${signal ?? code}`))
    })
    this.#send({ type: 'start', config: { ...defaults, ...options, seed, report: this.report } })
  }

  /** Resolves when so many more requests were answered than at the call. */
  async more(requests: number): Promise<void> {
    const { answered } = this.progress
    const deadline = performance.now() + progressWaitMs
    while (this.progress.answered < answered + requests) {
      if (performance.now() > deadline) throw new Error(`the client gets no answers: ${JSON.stringify(this.progress)}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }

  /** A while in which nothing is answered, but for what others could still answer at the call. Rejects if something is. */
  async rests(ms: number): Promise<Progress> {
    const wait = (time: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, time))
    let before = this.progress.answered
    for (let quiet = 0; quiet < 25;) {
      await wait(100)
      quiet = this.progress.answered === before ? quiet + 1 : 0
      before = this.progress.answered
    }
    await wait(ms)
    if (this.progress.answered !== before) throw new Error(`something was answered: ${JSON.stringify(this.progress)}`)
    return this.progress
  }

  /** Between the death of everything and its coming back. */
  powerLost(): Promise<void> {
    return this.#ask({ type: 'power-lost' })
  }

  /** From now on it uses only so many of its blocks, the first ones. */
  narrow(blocks: number): Promise<void> {
    return this.#ask({ type: 'narrow', blocks })
  }

  /** See LoadConfig: all of the volume has data then, and the sessions are at work. */
  fill(): Promise<void> {
    return this.#ask({ type: 'fill' })
  }

  /** What counts from a mark begins anew. */
  mark(): Promise<void> {
    return this.#ask({ type: 'mark' })
  }

  /** What it began is answered then, and flushed by a flush that is the last thing of all. */
  stopAndFlush(): Promise<void> {
    return this.#ask({ type: 'stop' })
  }

  finish(): Promise<Verdict> {
    return new Promise((resolve, reject) => {
      this.#verdict = (verdict) => {
        this.#failed = undefined
        resolve(verdict)
        this.#child.disconnect()
      }
      this.#failed = reject
      this.#send({ type: 'finish' })
    })
  }

  /** What it has sent is carried out; it asks for nothing more until it is resumed. */
  pause(): void {
    this.#child.kill('SIGSTOP')
  }

  resume(): void {
    this.#child.kill('SIGCONT')
  }

  kill(): void {
    this.#failed = undefined
    this.#child.kill('SIGKILL')
  }

  #ask(message: ToLoad): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#done = () => {
        this.#failed = undefined
        resolve()
      }
      this.#failed = reject
      this.#send(message)
    })
  }

  #send(message: ToLoad): void {
    if (this.#child.connected) this.#child.send(message)
    else this.#failed?.(new Error('the client is gone'))
  }

  #onMessage(message: FromLoad): void {
    switch (message.type) {
      case 'progress':
        this.progress = message
        break
      case 'done':
        this.#done?.()
        break
      case 'verdict':
        this.#verdict?.(message)
        break
      case 'failed':
        this.#failed?.(new Error(`the client failed: ${message.message}`))
        break
    }
  }
}
