// The programs that these tests drive: where they come from, and how they are run, bounded in time.

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'

/** By the Debian package that has them. */
const packages = {
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  fio: 'fio',
  mke2fs: 'e2fsprogs',
  e2fsck: 'e2fsprogs',
  debugfs: 'e2fsprogs',
  mount: 'mount',
  'iscsi-test-cu': 'libiscsi-bin',
  'iscsi-ls': 'libiscsi-bin',
  'iscsi-inq': 'libiscsi-bin',
  'iscsi-readcapacity16': 'libiscsi-bin',
} as const

export type Tool = keyof typeof packages

const limitMsDefault = 90_000

/** mke2fs and its kind are not on everybody's path. */
const path = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin']

/** Without what tap puts there for the coverage of its own processes. */
export const environment: NodeJS.ProcessEnv = { ...process.env, PATH: path.join(':'), LC_ALL: 'C' }
delete environment['NODE_V8_COVERAGE']
delete environment['NODE_OPTIONS']

function isInstalled(tool: Tool): boolean {
  return path.some((directory) => {
    try {
      accessSync(join(directory, tool), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** For tap's `skip`: false, or what has to be installed. */
export function lacks(...tools: readonly Tool[]): string | false {
  const missing = tools.filter((tool) => !isInstalled(tool))
  if (missing.length === 0) return false
  const from = [...new Set(missing.map((tool) => packages[tool]))].join(', ')
  return `${missing.join(' and ')} not installed (Debian: apt-get install ${from})`
}

/** qemu's initiator is a module in a package of its own: without it the protocol is not known. */
export function qemuLacksIscsi(): string | false {
  const nobody = 'iscsi://127.0.0.1:1/iqn.2000-01.example:nobody/0'
  const { stderr } = spawnSync('qemu-img', ['info', nobody], { env: environment, encoding: 'utf8', timeout: 20_000 })
  if (!/unknown (protocol|driver)/i.test(stderr)) return false
  return "qemu's iSCSI driver not installed (Debian: apt-get install qemu-block-extra)"
}

export interface Result {
  /** Null where a signal ended it. */
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
  tookMs: number
}

export interface RunOptions {
  limitMs?: number
  env?: Record<string, string>
}

export class Running {
  readonly child: ChildProcess
  readonly ended: Promise<Result>
  #isRunning = true

  constructor(command: string, args: readonly string[], { limitMs = limitMsDefault, env = {} }: RunOptions = {}) {
    const startedAt = performance.now()
    const child = spawn(command, args, { env: { ...environment, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    const out: Buffer[] = []
    const err: Buffer[] = []
    child.stdout.on('data', (data: Buffer) => out.push(data))
    child.stderr.on('data', (data: Buffer) => err.push(data))
    const overdue = setTimeout(() => child.kill('SIGKILL'), limitMs)
    this.child = child
    this.ended = new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code, signal) => {
        clearTimeout(overdue)
        this.#isRunning = false
        const [stdout, stderr] = [Buffer.concat(out).toString(), Buffer.concat(err).toString()]
        resolve({ code, signal, stdout, stderr, tookMs: performance.now() - startedAt })
      })
    })
  }

  get isRunning(): boolean {
    return this.#isRunning
  }

  /** Resolves with what it printed; rejects unless it ended with code 0. */
  async succeeded(): Promise<string> {
    const { code, signal, stdout, stderr } = await this.ended
    if (code === 0) return stdout
    const how = signal === null ? `exited with ${code}` : `was ended by ${signal}`
    throw new Error(`${this.child.spawnargs.join(' ')} ${how}\n${stdout}\n${stderr}`)
  }
}

export function start(tool: Tool, args: readonly string[], options: RunOptions = {}): Running {
  return new Running(tool, args, options)
}

export function run(tool: Tool, args: readonly string[]): Promise<string> {
  return start(tool, args).succeeded()
}

/** For what undoes a test, which has to be done before anything else goes on. */
export function runNow(tool: 'umount', args: readonly string[]): boolean {
  return spawnSync(tool, args, { env: environment, timeout: 20_000 }).status === 0
}
