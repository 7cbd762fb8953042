// A network of the test's own: each machine is a network namespace with one interface, and switch.py is between them. Nothing
// of it is visible outside, and all of it is gone with this process, however that ends.

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { environment } from '../conformance/tools.js'

const switchProgram = fileURLToPath(new URL('../../../test/faults/switch.py', import.meta.url))

/** Of TEST-NET-1 (RFC 5737), which no network has. */
const prefix = '192.0.2.'

const programs = ['ip', 'unshare', 'nsenter', 'python3'] as const

/** For tap's `skip`: false, or what is missing. */
export function networkLacks(): string | false {
  if (process.getuid?.() !== 0) return 'not root: network namespaces and loop mounts need it'
  const missing = programs.filter((name) => spawnSync('which', [name], { env: environment }).status !== 0)
  if (missing.length > 0)
    return `${missing.join(', ')} not installed (Debian: apt-get install iproute2 util-linux python3)`
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK)
  } catch {
    return '/dev/net/tun cannot be opened: the kernel has no TUN devices, or this container may not use them'
  }
  const { status, stderr } = spawnSync('unshare', ['--net', 'true'], { env: environment, encoding: 'utf8' })
  return status === 0 ? false : `no network namespace can be made: ${stderr.trim()}`
}

export interface Host {
  name: string
  address: string
  /** What lives in the namespace is started by this: program and arguments come after it. */
  enter: readonly string[]
}

export class Network {
  readonly #switch: ChildProcess
  readonly #holders: ChildProcess[] = []
  readonly hosts: Host[] = []
  readonly #answers: AsyncIterator<string, undefined>
  #last: Promise<unknown> = Promise.resolve()

  constructor(seed: number) {
    this.#switch = spawn('python3', [switchProgram, String(seed)], {
      ...{ env: environment, stdio: ['pipe', 'pipe', 'inherit'] },
    })
    this.#answers = createInterface({ input: this.#switch.stdout! })[Symbol.asyncIterator]() as AsyncIterator<
      string,
      undefined
    >
  }

  async host(name: string): Promise<Host> {
    const n = this.hosts.length + 1
    const address = `${prefix}${n}`
    // The namespace lasts as long as somebody is in it: this one, until its input ends with us.
    const holder = spawn('unshare', ['--net', 'cat'], { env: environment, stdio: ['pipe', 'ignore', 'inherit'] })
    this.#holders.push(holder)
    await once(holder, 'spawn')
    const enter = ['nsenter', `--net=/proc/${holder.pid}/ns/net`, '--']
    const device = `ank${process.pid}-${n}`.slice(0, 15)
    await this.#command(`port ${address} ${device}`)
    await ownNamespace(holder.pid!)
    run('ip', ['link', 'set', device, 'netns', String(holder.pid)])
    run(enter[0]!, [...enter.slice(1), 'ip', 'link', 'set', 'lo', 'up'])
    run(enter[0]!, [...enter.slice(1), 'ip', 'address', 'add', `${address}/24`, 'dev', device])
    run(enter[0]!, [...enter.slice(1), 'ip', 'link', 'set', device, 'up'])
    const host = { name, address, enter }
    this.hosts.push(host)
    return host
  }

  /** One way: what `from` sends does not arrive, and nobody is told. */
  async cut(from: Host, to: Host): Promise<void> {
    await this.#command(`drop ${from.address} ${to.address}`)
  }

  async join(from: Host, to: Host): Promise<void> {
    await this.#command(`pass ${from.address} ${to.address}`)
  }

  /** Both ways, from everybody: as when the cable is pulled, or the machine is dead. */
  async isolate(host: Host): Promise<void> {
    for (const other of this.#others(host)) {
      await this.cut(host, other)
      await this.cut(other, host)
    }
  }

  async reconnect(host: Host): Promise<void> {
    for (const other of this.#others(host)) {
      await this.join(host, other)
      await this.join(other, host)
    }
  }

  /** Of each packet, in each direction. */
  async shape(delayMs: number, lossPercent: number): Promise<void> {
    await this.#command(`shape ${delayMs} ${lossPercent}`)
  }

  close(): void {
    this.#switch.stdin!.end()
    for (const holder of this.#holders) holder.stdin!.end()
  }

  #others(host: Host): Host[] {
    return this.hosts.filter((other) => other !== host)
  }

  /** One after another: answers carry no name. */
  #command(line: string): Promise<void> {
    const command = this.#last.then(async () => {
      this.#switch.stdin!.write(`${line}\n`)
      const { value, done } = await this.#answers.next()
      if (done === true || value !== 'done') throw new Error(`the test's switch: ${line}: ${value ?? 'it has ended'}`)
    })
    this.#last = command.catch(() => undefined)
    return command
  }
}

/** Between its start and the change it is still in ours. */
async function ownNamespace(pid: number): Promise<void> {
  const here = namespaceOf('self')
  for (let tries = 0; namespaceOf(pid) === here; tries++) {
    if (tries === 500) throw new Error('unshare --net does not come to an end')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

function namespaceOf(pid: number | 'self'): string {
  return spawnSync('readlink', [`/proc/${pid}/ns/net`], { encoding: 'utf8' }).stdout.trim()
}

export function run(program: string, args: readonly string[], timeoutMs = 60_000): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    env: environment,
    encoding: 'utf8',
    timeout: timeoutMs,
  })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${error?.message ?? stderr.trim()}`)
  return stdout
}
