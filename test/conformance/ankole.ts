// A whole Ankole, as its user has it: `ankole up` in a process group of its own, and the other commands beside it.

import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, openSync, closeSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { VolumeView } from '../../src/api/index.js'
import type { Status } from '../../src/cli/status.js'
import { environment, Running, type Result } from './tools.js'
import { Volume } from './volume.js'

const program = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))

/** What run.mjs was asked for. */
const ioBackend = process.env['ANKOLE_TEST_IO_BACKEND'] ?? 'auto'

const readyWaitMs = 40_000
const stateWaitMs = 60_000

/** Shown where a test fails. */
const linesOfLog = 80

/** Longer than a restart takes on a machine that is busy with other things: nobody leaves for being late. */
const graceDefault = '40s'

export interface AnkoleOptions {
  disks?: number
  grace?: string
}

export class LocalAnkole {
  readonly data: string
  readonly #disks: number
  readonly #grace: string
  #port = 0
  #iscsiPort: number | undefined
  #up: ChildProcess | undefined

  constructor(
    readonly directory: string,
    { disks = 3, grace = graceDefault }: AnkoleOptions,
  ) {
    this.data = join(directory, 'data')
    this.#disks = disks
    this.#grace = grace
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  /** The well-known portal: HOST:PORT. The same after a restart, as initiators come back to where they were. */
  get portal(): string {
    if (this.#iscsiPort === undefined) throw new Error('not started yet')
    return `127.0.0.1:${this.#iscsiPort}`
  }

  get pid(): number {
    return this.#up!.pid!
  }

  get isRunning(): boolean {
    return this.#up !== undefined && this.#up.exitCode === null && this.#up.signalCode === null
  }

  /** Resolves when /healthz answers 200. */
  async start(): Promise<void> {
    this.#port = await aFreePort()
    const log = openSync(this.#logFile, 'a')
    // A group of its own is what a terminal gives: Ctrl-C goes to all processes of it.
    this.#up = spawn(process.execPath, [program, ...(await this.upArguments(this.#port))], {
      ...{ env: environment, detached: true, stdio: ['ignore', log, log] },
    })
    closeSync(log)
    groups.add(this.pid)
    const deadline = performance.now() + readyWaitMs
    while (!(await this.#isHealthy())) {
      if (!this.isRunning || performance.now() > deadline) throw new Error(`ankole up does not serve:\n${this.log()}`)
      await sleep(50)
    }
  }

  async upArguments(port: number): Promise<string[]> {
    this.#iscsiPort ??= await aFreePort()
    return [
      ...['up', '--data', this.data, '--disks', String(this.#disks), '--http', `127.0.0.1:${port}`],
      ...['--iscsi', this.portal, '--no-demo', '--replica-grace', this.#grace, '--io-backend', ioBackend],
    ]
  }

  /** As Ctrl-C in a terminal does, to the whole group; resolves with how it ended. */
  interrupt(): Promise<{ code: number | null; signal: NodeJS.Signals | null; tookMs: number }> {
    return this.#end('SIGINT')
  }

  /** `ankole up` alone: engines and disk hosts notice by themselves. */
  async killManager(): Promise<void> {
    const ended = this.#ended()
    process.kill(this.pid, 'SIGKILL')
    await ended
  }

  /** All processes at once, as when the machine's memory runs out or a container is thrown away. */
  async killAll(): Promise<void> {
    await this.#end('SIGKILL')
  }

  /** A command that succeeds, its JSON. */
  async cli<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.command(...args, '--json').succeeded()) as T
  }

  command(...args: string[]): Running {
    return new Running(process.execPath, [program, ...args], { env: { ANKOLE_URL: this.url } })
  }

  /** Another `ankole up`, which is expected to refuse. */
  anotherUp(args: string[]): Promise<Result> {
    return new Running(process.execPath, [program, ...args], { limitMs: 30_000 }).ended
  }

  async status(): Promise<Status> {
    return await this.cli<Status>('status')
  }

  async createVolume(name: string, size: string, options: readonly string[] = []): Promise<Volume> {
    const replicas = String(Math.min(3, this.#disks))
    await this.cli('volume', 'create', name, '--size', size, '--replicas', replicas, ...options)
    const volume = new Volume(this, name)
    await volume.attach()
    return volume
  }

  async diskHostPid(disk: string): Promise<number> {
    const { processes } = await this.status()
    return processes.find((process) => process.kind === 'disk-host' && process.disk === disk)!.pid
  }

  async enginePid(volume: string): Promise<number | undefined> {
    const { processes } = await this.status()
    return processes.find((process) => process.kind === 'engine' && process.volume === volume)?.pid
  }

  async until(volume: string, what: string, is: (volume: VolumeView) => boolean): Promise<VolumeView> {
    const deadline = performance.now() + stateWaitMs
    for (;;) {
      const view = (await this.status()).volumes.find(({ name }) => name === volume)
      if (view !== undefined && is(view)) return view
      if (performance.now() > deadline) {
        throw new Error(`${volume}: not ${what} in time: ${JSON.stringify(view, undefined, 1)}\n${this.log()}`)
      }
      await sleep(100)
    }
  }

  /** Empty before the first start. */
  log(): string {
    return existsSync(this.#logFile) ? readFileSync(this.#logFile, 'utf8') : ''
  }

  /** What is left of the processes that were started, by process group. */
  processesLeft(): number[] {
    return processesOfGroup(this.pid)
  }

  async #end(signal: NodeJS.Signals): Promise<{ code: number | null; signal: NodeJS.Signals | null; tookMs: number }> {
    const startedAt = performance.now()
    const ended = this.#ended()
    process.kill(-this.pid, signal)
    return { ...(await ended), tookMs: performance.now() - startedAt }
  }

  #ended(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    return new Promise((resolve) => {
      this.#up!.once('exit', (code, signal) => {
        resolve({ code, signal })
      })
    })
  }

  async #isHealthy(): Promise<boolean> {
    try {
      return (await fetch(`${this.url}/healthz`, { signal: AbortSignal.timeout(2_000) })).ok
    } catch {
      return false
    }
  }

  get #logFile(): string {
    return join(this.directory, 'ankole.log')
  }
}

/** Groups that must not outlive this process, however it ends. */
const groups = new Set<number>()
process.once('exit', () => {
  for (const group of groups) killGroup(group)
})

function killGroup(group: number): void {
  try {
    process.kill(-group, 'SIGKILL')
  } catch {
    return // It is gone.
  }
}

function processesOfGroup(group: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
          .replace(/^.*\) /s, '')
          .split(' ')
        return Number(fields[2]) === group && fields[0] !== 'Z'
      } catch {
        return false
      }
    })
}

export function aDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'ankole-'))
  t.teardown(() => {
    rmSync(directory, { recursive: true, force: true })
  })
  return directory
}

/** Not started yet. */
export function aStoppedAnkole(t: Test, options: AnkoleOptions = {}): LocalAnkole {
  const ankole = new LocalAnkole(aDirectory(t), options)
  t.teardown(async () => {
    if (!t.passing()) t.comment(ankole.log().split('\n').slice(-linesOfLog).join('\n'))
    if (ankole.isRunning) await ankole.killAll()
  })
  return ankole
}

export async function anAnkole(t: Test, options: AnkoleOptions = {}): Promise<LocalAnkole> {
  const ankole = aStoppedAnkole(t, options)
  await ankole.start()
  return ankole
}

export async function aFreePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('a TCP server without a port')
  return address.port
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
