// Ankole as its user has it: `ankole up` with three disks, and a volume of three replicas.
import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { run } from '../programs.mjs'
import { iscsiTarget } from './iscsi.mjs'
import { freePort } from './ports.mjs'

const program = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'dist', 'src', 'cli', 'main.js')
const readyWaitMs = 40_000

export class Ankole {
  #child
  #env
  #log

  /** @param directory where `data` is made in it */
  static async up(directory, { ioBackend }) {
    const ankole = new Ankole()
    const [http, iscsi] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`]
    ankole.#env = { ANKOLE_URL: `http://${http}` }
    ankole.#log = join(directory, 'ankole.log')
    const log = openSync(ankole.#log, 'a')
    const args = ['up', '--data', join(directory, 'data'), '--disks', '3', '--http', http, '--iscsi', iscsi]
    ankole.#child = spawn(process.execPath, [program, ...args, '--no-demo', '--io-backend', ioBackend], {
      ...{ stdio: ['ignore', log, log], detached: true },
    })
    closeSync(log)
    try {
      await ankole.#ready()
    } catch (error) {
      await ankole.stop()
      throw error
    }
    return ankole
  }

  /** Resolves with where it is reached. */
  async createVolume(name, sizeBytes, ...more) {
    await this.#cli('volume', 'create', name, '--size', `${sizeBytes / 2 ** 20}MiB`, '--replicas', '3', ...more)
    // Nothing but the load is to be measured.
    await this.#cli('volume', 'update', name, '--scrub-period', 'off')
    return await this.attach(name)
  }

  get url() {
    return this.#env.ANKOLE_URL
  }

  attach(name) {
    return this.#cli('volume', 'attach', name)
  }

  status() {
    return this.#cli('status')
  }

  async stop() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGINT')
    await ended
  }

  async #ready() {
    const deadline = Date.now() + readyWaitMs
    for (;;) {
      try {
        const { nodes } = await this.status()
        if (nodes.some(({ disks }) => disks.length === 3 && disks.every(({ state }) => state === 'ready'))) return
      } catch (error) {
        if (this.#child.exitCode !== null || Date.now() > deadline) {
          throw new Error(`ankole up does not serve: ${readFileSync(this.#log, 'utf8')}`, { cause: error })
        }
      }
      await sleep(100)
    }
  }

  async #cli(...args) {
    return JSON.parse(await run(process.execPath, [program, ...args, '--json'], { env: this.#env }))
  }
}

/** Over NBD. */
export function ankole(options) {
  return start('ankole', options, nbdTarget)
}

/** The same without checksums at rest: what they cost is the ratio of the two. */
export function ankoleNoChecksums(options) {
  return start('ankole-no-checksums', options, nbdTarget, '--no-checksums')
}

function nbdTarget({ nbd }) {
  return ['--ioengine=nbd', `--uri=${nbd.uri}`]
}

/** The login goes to the well-known portal, which sends fio on to the engine. */
export function ankoleIscsi(options) {
  return start('ankole-iscsi', options, ({ iscsi }) => iscsiTarget(iscsi))
}

async function start(name, { directory, sizeBytes, ioBackend }, targetOf, ...more) {
  const home = join(directory, name)
  mkdirSync(home)
  const up = await Ankole.up(home, { ioBackend })
  const { attachment, nodes, volumes, processes } = await volumeOf(up, sizeBytes, more)
  const backend = nodes[0].disks[0].ioBackend
  const files = volumes[0].replicas.map(({ directory }) => headFile(directory))
  return {
    name,
    about: `3 replicas on one machine, I/O back end ${backend}`,
    ioBackend: backend,
    target: () => targetOf(attachment),
    files: () => files,
    processes: () =>
      processes.map(({ pid, kind, disk }) => ({ pid, kind: disk === undefined ? kind : `${kind} ${disk}` })),
    /** All members took part: a figure of a degraded volume is none. */
    check: async () => {
      const [{ robustness, message }] = (await up.status()).volumes
      if (robustness !== 'healthy') throw new Error(`the volume is ${robustness}: ${message}`)
    },
    stop: () => up.stop(),
  }
}

async function volumeOf(up, sizeBytes, more) {
  try {
    return { attachment: await up.createVolume('bench', sizeBytes, ...more), ...(await up.status()) }
  } catch (error) {
    await up.stop()
    throw error
  }
}

function headFile(directory) {
  const name = readdirSync(directory).find((file) => /^volume-head-\d+\.img$/.test(file))
  return join(directory, name)
}
