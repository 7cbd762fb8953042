// The client, in the namespace of the engine's machine as a host's own initiator is: several sessions over iSCSI and NBD at once that write, read,
// flush and unmap. When a connection breaks, they log in again and do anew what was not answered. What they saw is checked at the end.
//
// A process of its own: what the test does meanwhile delays nobody's answer.

import { writeFileSync } from 'node:fs'
import { blockBytes as sectorBytes, logIn, ScsiError, type IscsiSession } from '../integration/iscsi-client.js'
import { NbdClient } from '../integration/nbd-client.js'
import type { HostPort } from '../../src/native/index.js'
import { History, zero, type Violation, type Write } from './history.js'
import { Random } from './random.js'

export interface LoadConfig {
  seed: number
  volume: string
  sizeBytes: number
  nbd: HostPort
  iscsi: { address: string; iqn: string }
  sessions: { nbd: number; iscsi: number }
  /** How many blocks are used. Few of them make sessions meet. */
  blocks: number
  /** Shares of what is done; the rest are writes. */
  percent: { read: number; flush: number; unmap: number }
  /** A session rests for up to so long between two requests. */
  restMs: number
  /** It begins with `fill`, and goes on by itself. */
  filled: boolean
  /** Where the history of a block goes that is wrong. */
  report: string
}

export type ToLoad =
  | { type: 'start'; config: LoadConfig }
  | { type: 'power-lost' }
  | { type: 'narrow'; blocks: number }
  | { type: 'fill' }
  | { type: 'mark' }
  | { type: 'stop' }
  | { type: 'finish' }

export interface Progress {
  answered: number
  unmaps: number
  /** The longest time from a request to its answer, over all new logins, and of which kind it was. */
  longestMs: number
  longest: string
  /** The longest time for which this process itself did not get to run: no answer is seen meanwhile. */
  ownMs: number
  /** Regions that were written or unmapped. This and the two longest times count from the last mark. */
  regions: number
  logins: number
  /** Answers that say that something failed. */
  errors: string[]
}

export interface Verdict extends Progress {
  acknowledgedWrites: number
  reads: number
  flushes: number
  violations: Violation[]
}

export type FromLoad =
  | ({ type: 'progress' } & Progress)
  | { type: 'done' }
  | ({ type: 'verdict' } & Verdict)
  | { type: 'failed'; message: string }

/** What each request is aligned to, and one register each. */
const blockBytes = 4096
/** Blocks in a row, so that there are requests of several; the rows lie far apart. */
const rowBlocks = 8
const regionBytes = 4 << 20
/** At a time, by how many sessions. */
const fillBytes = 1 << 20
const fillers = 4
/** With the command itself: see IscsiSession.write. */
const requestBlocksMax = 2

const readersAtTheEnd = 4

const progressIntervalMs = 20
const loginRetryMs = 20
const errorsKeptMax = 20
const violationsReportedMax = 10
const senseUnitAttention = 6

type Kind = 'write' | 'read' | 'flush' | 'unmap'

/** The same four for both protocols. */
interface Client {
  read(offsetBytes: number, lengthBytes: number): Promise<Buffer>
  write(offsetBytes: number, data: Buffer): Promise<void>
  flush(): Promise<void>
  unmap(offsetBytes: number, lengthBytes: number): Promise<void>
  close(): void
}

class Load {
  readonly #history = new History()
  readonly #random: Random
  /** Nothing else is done meanwhile with a block that is unmapped. */
  readonly #inUse = new Map<number, number>()
  readonly #unmapping = new Set<number>()
  readonly #progress: Progress = {
    ...{ answered: 0, unmaps: 0, longestMs: 0, longest: '', ownMs: 0, regions: 0, logins: 0, errors: [] },
  }
  readonly #changed = new Set<number>()
  readonly #torn: Violation[] = []
  #stopping = false
  /** From the first on. */
  #blocks: number
  #sessions: Promise<void>[] = []

  constructor(readonly config: LoadConfig) {
    this.#random = new Random(config.seed)
    this.#blocks = config.blocks
  }

  start(): void {
    const { nbd, iscsi } = this.config.sessions
    const session = (connect: () => Promise<Client>): void => void this.#sessions.push(new Session(this, connect).run())
    for (let n = 0; n < nbd; n++) session(() => overNbd(this.config))
    for (let n = 0; n < iscsi; n++) session(() => overIscsi(this.config))
    let ranAt = performance.now()
    setInterval(() => {
      const now = performance.now()
      this.#progress.ownMs = Math.max(this.#progress.ownMs, now - ranAt - progressIntervalMs)
      ranAt = now
      send({ type: 'progress', ...this.#progress, regions: this.#changed.size })
    }, progressIntervalMs)
  }

  mark(): void {
    this.#changed.clear()
    Object.assign(this.#progress, { longestMs: 0, longest: '', ownMs: 0 })
  }

  /** All of the volume gets data, the blocks that are checked with their stamps. Before anything else is done with it. */
  async fill(): Promise<void> {
    const filler = Buffer.alloc(fillBytes)
    for (let at = 0; at < fillBytes; at += 4) filler.writeUInt32LE(Math.imul(at + 1, 2_654_435_761) >>> 0, at)
    const places = new Map<number, number[]>()
    for (let block = 0; block < this.config.blocks; block++) {
      const chunk = Math.floor(this.offset(block) / fillBytes)
      const known = places.get(chunk)
      if (known === undefined) places.set(chunk, [block])
      else known.push(block)
    }
    let next = 0
    const fillOne = async (): Promise<void> => {
      const client = await overNbd(this.config)
      while (next < this.config.sizeBytes / fillBytes) {
        const chunk = next++
        const data = Buffer.from(filler)
        data.writeUInt32LE(chunk, 0)
        const blocks = places.get(chunk) ?? []
        const writes = blocks.map((block) => this.#history.beginWrite(block))
        for (const [n, block] of blocks.entries()) {
          stamped(block, writes[n]!.value).copy(data, this.offset(block) - chunk * fillBytes)
        }
        await client.write(chunk * fillBytes, data)
        for (const write of writes) this.#history.endWrite(write)
      }
      await client.flush()
      client.close()
    }
    await Promise.all(Array.from({ length: fillers }, fillOne))
  }

  get history(): History {
    return this.#history
  }

  narrow(blocks: number): void {
    this.#blocks = blocks
  }

  get stopping(): boolean {
    return this.#stopping
  }

  /** All is answered then. */
  async stop(): Promise<void> {
    this.#stopping = true
    await Promise.all(this.#sessions)
  }

  async flush(): Promise<void> {
    await new Session(this, () => overNbd(this.config)).flush()
  }

  async finish(): Promise<Verdict> {
    await this.stop()
    await Promise.all(
      Array.from({ length: readersAtTheEnd }, (_, n) => new Session(this, () => overNbd(this.config)).readAll(n)),
    )
    const violations = [...this.#torn, ...this.#history.check()]
    if (violations.length > 0) this.#writeReport(violations)
    const { acknowledgedWrites, reads, flushes } = this.#history
    return {
      ...{ ...this.#progress, acknowledgedWrites, reads, flushes },
      violations: violations.slice(0, violationsReportedMax),
    }
  }

  next(): { kind: Kind; blocks: number[] } {
    const { percent } = this.config
    const dice = this.#random.below(100)
    if (dice < percent.flush) return { kind: 'flush', blocks: [] }
    const blocks = this.#someBlocks()
    if (dice < percent.flush + percent.unmap && blocks.every((block) => !this.#inUse.has(block))) {
      return { kind: 'unmap', blocks }
    }
    return { kind: dice >= 100 - percent.read ? 'read' : 'write', blocks }
  }

  #someBlocks(): number[] {
    for (;;) {
      const first = this.#random.below(this.#blocks)
      const count = Math.min(
        this.#random.between(1, requestBlocksMax),
        rowBlocks - (first % rowBlocks),
        this.#blocks - first,
      )
      const blocks = Array.from({ length: count }, (_, n) => first + n)
      if (blocks.every((block) => !this.#unmapping.has(block))) return blocks
    }
  }

  async rest(): Promise<void> {
    const ms = this.#random.below(this.config.restMs + 1)
    if (ms > 0) await sleep(ms)
  }

  reserve(kind: Kind, blocks: readonly number[]): void {
    for (const block of blocks) {
      this.#inUse.set(block, (this.#inUse.get(block) ?? 0) + 1)
      if (kind === 'unmap') this.#unmapping.add(block)
    }
  }

  release(kind: Kind, blocks: readonly number[]): void {
    for (const block of blocks) {
      const left = this.#inUse.get(block)! - 1
      if (left === 0) this.#inUse.delete(block)
      else this.#inUse.set(block, left)
      if (kind === 'unmap') this.#unmapping.delete(block)
    }
  }

  answered(kind: Kind, blocks: readonly number[], what: string, tookMs: number): void {
    this.#progress.answered++
    if (kind === 'write' || kind === 'unmap') {
      for (const block of blocks) this.#changed.add(Math.floor(this.offset(block) / regionBytes))
    }
    this.#progress.unmaps = this.#history.unmaps
    if (tookMs <= this.#progress.longestMs) return
    this.#progress.longestMs = tookMs
    this.#progress.longest = what
  }

  loggedIn(): void {
    this.#progress.logins++
  }

  failed(what: string, error: Error): void {
    if (this.#progress.errors.length < errorsKeptMax) this.#progress.errors.push(`${what}: ${error.message}`)
  }

  torn(violation: Violation): void {
    this.#torn.push(violation)
  }

  offset(block: number): number {
    const rows = Math.ceil(this.config.blocks / rowBlocks)
    const rowStride = Math.floor(this.config.sizeBytes / blockBytes / rows)
    return (Math.floor(block / rowBlocks) * rowStride + (block % rowBlocks)) * blockBytes
  }

  #writeReport(violations: readonly Violation[]): void {
    const blocks = [...new Set(violations.map(({ block }) => block))].slice(0, violationsReportedMax)
    const lines = [
      ...violations.map(({ block, what }) => `block ${block}: ${what}`),
      ...blocks.flatMap((block) => ['', `block ${block}, at ${this.offset(block)}`, ...this.#history.describe(block)]),
    ]
    writeFileSync(this.config.report, `${lines.join('\n')}\n`)
  }
}

class Session {
  #client: Client | undefined
  /** Of the connection that broke: what became of them is decided once there is a new one. */
  #lost: Write[] = []

  constructor(
    private readonly load: Load,
    private readonly connect: () => Promise<Client>,
  ) {}

  async run(): Promise<void> {
    while (!this.load.stopping) {
      const { kind, blocks } = this.load.next()
      await this.#do(kind, blocks)
      await this.load.rest()
    }
    this.#client?.close()
  }

  async flush(): Promise<void> {
    await this.#do('flush', [])
    this.#client?.close()
  }

  async readAll(first: number): Promise<void> {
    // Twice: an answer is the same the next time.
    for (let round = 0; round < 2; round++) {
      const { blocks } = this.load.config
      for (let row = first * rowBlocks; row < blocks; row += readersAtTheEnd * rowBlocks) {
        const count = Math.min(rowBlocks, blocks - row)
        await this.#do(
          'read',
          Array.from({ length: count }, (_, n) => row + n),
        )
      }
    }
    this.#client?.close()
  }

  async #do(kind: Kind, blocks: readonly number[]): Promise<void> {
    const what = `${kind} of ${blocks.length === 0 ? 'everything' : `block ${blocks.join(' and ')}`}`
    const startedAt = performance.now()
    this.load.reserve(kind, blocks)
    while (!(await this.#try(kind, blocks, what))) {
      // Once more, with a new connection where the old one broke.
    }
    this.load.release(kind, blocks)
    this.load.answered(kind, blocks, what, performance.now() - startedAt)
  }

  /** True once it is answered. */
  async #try(kind: Kind, blocks: readonly number[], what: string): Promise<boolean> {
    const client = await this.#connected()
    const writes = kind === 'write' ? blocks.map((block) => this.load.history.beginWrite(block)) : []
    try {
      await this.#send(client, kind, blocks, writes)
      return true
    } catch (error) {
      if (!(error instanceof Error)) throw error
      if (isAnswer(error)) {
        for (const write of writes) this.load.history.settle(write)
        // A unit attention tells of something else, and the command was not begun: SPC-4, 5.14.
        if (error instanceof ScsiError && error.senseKey === senseUnitAttention) return false
        this.load.failed(what, error)
        return true
      }
      client.close()
      this.#client = undefined
      this.#lost.push(...writes)
      return false
    }
  }

  async #send(client: Client, kind: Kind, blocks: readonly number[], writes: readonly Write[]): Promise<void> {
    const { history } = this.load
    const offset = this.load.offset(blocks[0] ?? 0)
    const length = blocks.length * blockBytes
    switch (kind) {
      case 'write':
        await client.write(offset, Buffer.concat(blocks.map((block, n) => stamped(block, writes[n]!.value))))
        for (const write of writes) history.endWrite(write)
        return
      case 'read': {
        const begin = history.begin()
        const data = await client.read(offset, length)
        for (const [n, block] of blocks.entries()) {
          this.#seen(block, begin, data.subarray(n * blockBytes, (n + 1) * blockBytes))
        }
        return
      }
      case 'flush': {
        const begin = history.begin()
        await client.flush()
        history.endFlush(begin)
        return
      }
      case 'unmap':
        await client.unmap(offset, length)
        for (const block of blocks) history.endUnmap(block)
        return
    }
  }

  #seen(block: number, begin: number, data: Buffer): void {
    const value = stampOf(data)
    if (data.equals(stamped(block, value))) this.load.history.endRead(block, begin, value)
    else this.load.torn({ block, what: `it is no block that was ever written: ${data.toString('hex', 0, 32)}…` })
  }

  async #connected(): Promise<Client> {
    while (this.#client === undefined) {
      try {
        this.#client = await this.connect()
      } catch {
        await sleep(loginRetryMs)
      }
    }
    if (this.#lost.length > 0) for (const write of this.#lost.splice(0)) this.load.history.settle(write)
    return this.#client
  }
}

/** Told from a connection that broke. */
function isAnswer(error: Error): boolean {
  return error instanceof ScsiError || error.message.startsWith('NBD error')
}

async function overNbd({ nbd, volume }: LoadConfig): Promise<Client> {
  const client = await NbdClient.connect(nbd, volume)
  load!.loggedIn()
  return {
    read: (offset, length) => client.read(offset, length),
    write: (offset, data) => client.write(offset, data),
    flush: () => client.flush(),
    unmap: (offset, length) => client.trim(offset, length),
    close: () => {
      client.close()
    },
  }
}

async function overIscsi({ iscsi }: LoadConfig): Promise<Client> {
  const result = await logIn(iscsi.address, iscsi.iqn)
  if (!('session' in result)) throw new Error(`the login was refused with 0x${result.status.toString(16)}`)
  const session: IscsiSession = result.session
  await session.settled()
  load!.loggedIn()
  return {
    read: (offset, length) => session.read(offset / sectorBytes, length),
    write: (offset, data) => session.write(offset / sectorBytes, data),
    flush: () => session.flush(),
    unmap: (offset, length) => session.unmap(offset / sectorBytes, length / sectorBytes),
    close: () => {
      session.close()
    },
  }
}

const magic = 0x616e6b31

/** It names itself in every sector, and no two writes have the same bytes. */
function stamped(block: number, value: number): Buffer {
  const data = Buffer.alloc(blockBytes)
  if (value === zero) return data
  for (let sector = 0; sector < blockBytes / sectorBytes; sector++) {
    const at = sector * sectorBytes
    const filler = Buffer.alloc(4)
    filler.writeUInt32LE(Math.imul(value ^ (block << 12) ^ sector, 2_654_435_761) >>> 0)
    data.fill(filler, at, at + sectorBytes)
    data.writeUInt32LE(magic, at)
    data.writeUInt32LE(block, at + 4)
    data.writeUIntLE(value, at + 8, 6)
    data.writeUInt16LE(sector, at + 14)
  }
  return data
}

function stampOf(data: Buffer): number {
  return data.readUInt32LE(0) === magic ? data.readUIntLE(8, 6) : zero
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

function send(message: FromLoad): void {
  // The test may be gone, or have heard enough.
  process.send?.(message, undefined, undefined, () => undefined)
}

async function stopAndFlush(running: Load): Promise<void> {
  await running.stop()
  await running.flush()
}

function sayFailed(error: unknown): void {
  send({ type: 'failed', message: error instanceof Error ? error.stack! : String(error) })
}

let load: Load | undefined

process.on('disconnect', () => process.exit(0))
process.on('message', (message: ToLoad) => {
  switch (message.type) {
    case 'start':
      load = new Load(message.config)
      if (!message.config.filled) load.start()
      break
    case 'power-lost':
      load!.history.powerLost()
      send({ type: 'done' })
      break
    case 'narrow':
      load!.narrow(message.blocks)
      send({ type: 'done' })
      break
    case 'fill':
      load!.fill().then(() => {
        load!.start()
        send({ type: 'done' })
      }, sayFailed)
      break
    case 'mark':
      load!.mark()
      send({ type: 'done' })
      break
    case 'stop':
      stopAndFlush(load!).then(() => {
        send({ type: 'done' })
      }, sayFailed)
      break
    case 'finish':
      load!.finish().then((verdict) => {
        send({ type: 'verdict', ...verdict })
      }, sayFailed)
      break
  }
})
