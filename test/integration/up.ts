// `ankole up` as a process of its own, and the commands against it.
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { aFreePort } from './builders.js'
import { NbdClient } from './nbd-client.js'

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url))

export interface Up {
  url: string
  stdout: () => string
  stderr: () => string
  /** Runs a command against it; fails unless it exits with 0. */
  json: (...parameters: string[]) => Promise<Status>
  run: (...parameters: string[]) => Promise<{ exitCode: number; stdout: string; stderr: string }>
  /** Begins a command against it. */
  start: (...parameters: string[]) => ChildProcess
  child: ChildProcess
  /** Ctrl-C: the exit code, and how long it took. */
  stop: () => Promise<{ exitCode: number | null; tookMs: number }>
}

export interface Status {
  iscsi?: { portal: string; iqn: string; lun: number }
  nbd?: { uri: string }
  processes?: { pid: number; kind: string; restarts: number; volume?: string; disk?: string }[]
  volumes?: { name: string; state: string; robustness: string; message: string; replicas: Record<string, string>[] }[]
}

export async function up(t: Test, data: string, ...options: string[]): Promise<Up> {
  const url = `http://127.0.0.1:${await aFreePort()}`
  // Tests run side by side: two that look for a port at one moment would find the same one.
  const portFirst = 11_000 + (process.pid % 400) * 20
  const faces = ['--http', url.slice(7), '--iscsi', '127.0.0.1:0', '--volume-ports', String(portFirst)]
  const child = spawn(process.execPath, [main, 'up', '--data', data, ...faces, ...options])
  const printed = { stdout: '', stderr: '' }
  child.stdout.on('data', (chunk: Buffer) => (printed.stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (printed.stderr += chunk.toString()))
  const ended = once(child, 'exit') as Promise<[number | null]>
  t.teardown(() => child.kill('SIGKILL'))
  const run: Up['run'] = (...parameters) =>
    new Promise((resolve, reject) => {
      const env = { ...process.env, ANKOLE_URL: url }
      execFile(process.execPath, [main, ...parameters], { env }, (error, stdout, stderr) => {
        if (error === null) resolve({ exitCode: 0, stdout, stderr })
        else if (typeof error.code === 'number') resolve({ exitCode: error.code, stdout, stderr })
        // It was not begun, or was ended from outside.
        else reject(new Error(`${parameters.join(' ')}: ${error.signal ?? ''} ${error.message}\n${stdout}`))
      })
    })
  const start: Up['start'] = (...parameters) => {
    const command = spawn(process.execPath, [main, ...parameters], { env: { ...process.env, ANKOLE_URL: url } })
    t.teardown(() => command.kill('SIGKILL'))
    return command
  }
  const json: Up['json'] = async (...parameters) => {
    const { exitCode, stdout, stderr } = await run(...parameters, '--json')
    t.equal(exitCode, 0, `${parameters.join(' ')} ${stderr}`)
    return JSON.parse(stdout) as Status
  }
  const stop: Up['stop'] = async () => {
    const started = performance.now()
    child.kill('SIGINT')
    const [exitCode] = await ended
    return { exitCode, tookMs: performance.now() - started }
  }
  await until(`the API at ${url}\n${printed.stderr}`, async () => (await fetch(`${url}/healthz`)).status === 200)
  return { url, child, run, start, json, stop, stdout: () => printed.stdout, stderr: () => printed.stderr }
}

export async function until(what: string, done: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 300; ++i) {
    if (await done().catch(() => false)) return
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error(`waited in vain for ${what}`)
}

export function clientOf({ nbd }: Status): Promise<NbdClient> {
  const { hostname, port, pathname } = new URL(nbd?.uri ?? '')
  return NbdClient.connect({ host: hostname, port: Number(port) }, pathname.slice(1))
}
