// A machine with a Debian kernel, emulated (it needs no KVM), that carries out shell commands.

import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import { aDirectory } from '../conformance/ankole.js'
import { environment } from '../conformance/tools.js'
import type { GuestImage } from './guest-image.js'

/** For what hangs: several times what it takes on two busy cores. */
const bootLimitMs = 180_000
const commandLimitMs = 240_000
const powerOffLimitMs = 15_000

/** Shown where something fails. */
const linesOfConsole = 40

const complaint =
  /I\/O error|critical \w+ error|EXT4-fs.*(error|warning)|JBD2.*(error|abort)|XFS.*(error|corrupt|shut)|nbd\d: .*(failed|stuck)/i

export interface Ended {
  code: number
  /** Standard output and error, as they came. */
  output: string
}

/** One that was started in the guest. */
export class Command {
  readonly ended: Promise<Ended>
  #isRunning = true

  constructor(
    readonly script: string,
    ended: Promise<Ended>,
  ) {
    this.ended = ended.finally(() => (this.#isRunning = false))
    // It may fail before anybody waits for it.
    this.ended.catch(() => undefined)
  }

  get isRunning(): boolean {
    return this.#isRunning
  }

  /** Resolves with what it printed; rejects unless it ended with code 0. */
  async succeeded(): Promise<string> {
    const { code, output } = await this.ended
    if (code !== 0) throw new Error(`in the guest: exited with ${code}: ${this.script}\n${output}`)
    return output
  }
}

/** What is answered when it has booted. */
const boot = 0

interface Waiting {
  resolve: (ended: Ended) => void
  reject: (error: Error) => void
}

export class Guest {
  readonly #qemu: ChildProcessWithoutNullStreams
  readonly #console: string
  readonly #exited: Promise<string>
  readonly #waiting = new Map<number, Waiting>()
  #lastId = boot
  /** Once it has. */
  #howEnded: string | undefined

  constructor(image: GuestImage, directory: string) {
    this.#console = join(directory, 'console.log')
    // Nothing ends QEMU when this process is killed, unless the kernel is asked to.
    this.#qemu = spawn(
      'setpriv',
      ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...qemuArguments(image, this.#console)],
      { env: environment },
    )
    let errors = ''
    this.#qemu.stderr.on('data', (data: Buffer) => (errors += data.toString()))
    this.#qemu.stdin.on('error', () => undefined) // That it has ended is told below.
    createInterface({ input: this.#qemu.stdout }).on('line', (line) => this.#answered(line))
    this.#exited = new Promise((resolve) => {
      this.#qemu.once('error', (error) => resolve(error.message))
      this.#qemu.once('close', (code, signal) => resolve(`QEMU ended with ${code ?? String(signal)} ${errors}`))
    })
    void this.#exited.then((how) => {
      this.#howEnded = how
      for (const { reject } of this.#waiting.values()) reject(this.#error(how))
      this.#waiting.clear()
    })
    process.once('exit', () => this.#qemu.kill('SIGKILL'))
  }

  /** Resolves when it takes commands. */
  async booted(): Promise<void> {
    await this.#within(bootLimitMs, 'it has not booted', boot)
  }

  start(script: string, { limitMs = commandLimitMs } = {}): Command {
    const id = ++this.#lastId
    const ended = this.#within(limitMs, `not done: ${script}`, id)
    this.#qemu.stdin.write(`${id} ${Buffer.from(script).toString('base64')}\n`)
    return new Command(script, ended)
  }

  run(script: string): Promise<Ended> {
    return this.start(script).ended
  }

  /** A command that succeeds; resolves with what it printed. */
  do(script: string, options: { limitMs?: number } = {}): Promise<string> {
    return this.start(script, options).succeeded()
  }

  /** What the kernel said that tells of an error of a device or of a file system. */
  async complaints(): Promise<string[]> {
    const said = await this.do('dmesg')
    return said.split('\n').filter((line) => complaint.test(line))
  }

  /** As a user does it; and what is left of it after a while is ended. */
  async powerOff(): Promise<void> {
    if (this.#howEnded !== undefined) return
    void this.start('poweroff -f')
    const overdue = setTimeout(() => this.#qemu.kill('SIGKILL'), powerOffLimitMs)
    await this.#exited
    clearTimeout(overdue)
  }

  consoleText(): string {
    const text = existsSync(this.#console) ? readFileSync(this.#console, 'utf8') : ''
    return text.split('\n').slice(-linesOfConsole).join('\n')
  }

  #answered(line: string): void {
    const [id, code, output = ''] = line.split(' ')
    const waiting = this.#waiting.get(Number(id))
    this.#waiting.delete(Number(id))
    waiting?.resolve({ code: Number(code), output: Buffer.from(output, 'base64').toString() })
  }

  /** A guest that does not answer in time is of no use any more. */
  #within(limitMs: number, what: string, id: number): Promise<Ended> {
    if (this.#howEnded !== undefined) return Promise.reject(this.#error(this.#howEnded))
    return new Promise<Ended>((resolve, reject) => {
      const overdue = setTimeout(() => {
        reject(this.#error(`${what}, after ${limitMs} ms`))
        this.#qemu.kill('SIGKILL')
      }, limitMs)
      const done =
        <T>(settle: (value: T) => void) =>
        (value: T): void => {
          clearTimeout(overdue)
          settle(value)
        }
      this.#waiting.set(id, { resolve: done(resolve), reject: done(reject) })
    })
  }

  #error(what: string): Error {
    return new Error(`the guest: ${what}\n${this.consoleText()}`)
  }
}

function qemuArguments({ kernel, initramfs }: GuestImage, consoleLog: string): string[] {
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-machine', 'pc', '-accel', 'tcg,thread=multi', '-cpu', 'max,la57=off', '-smp', '2', '-m', '1024'],
    ...['-kernel', kernel, '-initrd', initramfs, '-append', 'console=ttyS0 panic=-1 loglevel=7'],
    ...['-chardev', `file,id=console,path=${consoleLog}`, '-serial', 'chardev:console'],
    ...['-chardev', 'stdio,id=commands,signal=off', '-device', 'virtio-serial-pci'],
    ...['-device', 'virtserialport,chardev=commands'],
    ...['-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net,romfile='],
  ]
}

/** Booted, and powered off when the test is over. */
export async function aGuest(t: Test, image: GuestImage): Promise<Guest> {
  const guest = new Guest(image, aDirectory(t))
  t.teardown(async () => {
    if (!t.passing()) t.comment(guest.consoleText())
    await guest.powerOff()
  })
  await guest.booted()
  return guest
}
