// A client of the engines' NBD server (docs/reference/nbd.md; the protocol is doc/proto.md of the NetworkBlockDevice
// project): fixed newstyle, structured replies, base:allocation, many requests in flight.
import { connect, type Socket } from 'node:net'
import { AnkoleError, messageOf } from '../api/errors.js'

export interface NbdAddress {
  host: string
  port: number
  /** Of the export. */
  name: string
}

/** A run of blocks of one kind. */
export interface Extent {
  offsetBytes: number
  lengthBytes: number
  /** It reads as zeros. */
  zero: boolean
}

export interface BlockClient {
  readonly sizeBytes: number
  /** Fills all of it. */
  read(offsetBytes: number, into: Uint8Array): Promise<void>
  write(offsetBytes: number, data: Uint8Array): Promise<void>
  flush(): Promise<void>
  /** From `offsetBytes` on, in order, at least one; they may end before `lengthBytes`, and do not go beyond it. */
  extents(offsetBytes: number, lengthBytes: number): Promise<Extent[]>
}

const option = { structuredReply: 8, setMetaContext: 10, go: 7 } as const
const optionReply = { ack: 1, info: 3, metaContext: 4 } as const
const command = { read: 0, write: 1, disconnect: 2, flush: 3, blockStatus: 7 } as const
const chunk = { none: 0, offsetData: 1, offsetHole: 2, blockStatus: 5 } as const
const chunkIsError = 0x8000
const chunkIsDone = 1
const stateZero = 2
const infoExport = 0
const requestMagic = 0x25609513
const simpleReplyMagic = 0x67446698
const structuredReplyMagic = 0x668e33ef

/** Of what a server may say at once: its longest reply is to a read, of 32 MiB. */
const replyBytesMax = 33 * 1024 ** 2
const handshakeMs = 10_000

/** Of Linux, as the protocol names them. */
const errorNames: Record<number, string> = {
  ...{ 1: 'EPERM', 5: 'EIO', 12: 'ENOMEM', 22: 'EINVAL', 28: 'ENOSPC', 75: 'EOVERFLOW', 95: 'ENOTSUP' },
  108: 'ESHUTDOWN',
}

interface Pending {
  what: string
  offsetBytes: number
  /** Where the data of a read goes. */
  into: Uint8Array | undefined
  filledBytes: number
  extents: Extent[]
  error: AnkoleError | undefined
  resolve: () => void
  reject: (error: Error) => void
}

export class NbdClient implements BlockClient {
  readonly #socket: Socket
  readonly #where: string
  readonly #chunks: Buffer[] = []
  readonly #pending = new Map<bigint, Pending>()
  #wake: () => void = () => undefined
  #lost: Error | undefined
  #cookie = 0n
  #contextId: number | undefined
  #sizeBytes = 0

  /** Throws connection-lost and protocol-error. */
  static async connect({ host, port, name }: NbdAddress): Promise<NbdClient> {
    const where = `nbd://${host.includes(':') ? `[${host}]` : host}:${port}/${name}`
    const socket = connect({ host, port, noDelay: true })
    socket.setTimeout(handshakeMs, () => socket.destroy(new Error('no answer in time')))
    const client = new NbdClient(socket, where)
    try {
      await client.#shakeHands(name)
    } catch (error) {
      socket.destroy()
      throw error
    }
    socket.setTimeout(0)
    void client.#receiveReplies()
    return client
  }

  private constructor(socket: Socket, where: string) {
    this.#socket = socket
    this.#where = where
    socket.on('data', (data: Buffer) => {
      this.#chunks.push(data)
      this.#wake()
    })
    socket.on('error', (error) => {
      this.#lose(error)
    })
    socket.on('close', () => {
      this.#lose(new Error('the server closed the connection'))
    })
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  async read(offsetBytes: number, into: Uint8Array): Promise<void> {
    await this.#request('read', command.read, offsetBytes, into.length, { into })
  }

  async write(offsetBytes: number, data: Uint8Array): Promise<void> {
    await this.#request('write', command.write, offsetBytes, data.length, { data })
  }

  async flush(): Promise<void> {
    await this.#request('flush', command.flush, 0, 0)
  }

  async extents(offsetBytes: number, lengthBytes: number): Promise<Extent[]> {
    const asked = Math.min(lengthBytes, 2 ** 32 - 4096)
    const { extents } = await this.#request('block status', command.blockStatus, offsetBytes, asked)
    if (extents.length === 0) throw this.#broken('a block status without extents')
    return extents
  }

  /** What is in flight fails. */
  close(): void {
    const isBusy = this.#pending.size > 0
    this.#lose(new Error('it was closed here'))
    if (isBusy) this.#socket.destroy()
    else this.#socket.end(this.#frame(command.disconnect, 0, 0))
  }

  // ------------------------------------------------------------------------------------------------ handshake

  async #shakeHands(name: string): Promise<void> {
    const hello = await this.#take(18)
    if (hello.toString('latin1', 0, 16) !== 'NBDMAGICIHAVEOPT') throw this.#broken('it is no NBD server')
    const flags = Buffer.alloc(4)
    flags.writeUInt32BE(3) // fixed newstyle, no zeroes
    this.#socket.write(flags)
    const bytes = Buffer.from(name)
    await this.#negotiate(option.structuredReply, Buffer.alloc(0))
    const context = Buffer.from('base:allocation')
    const query = Buffer.concat([lengthOf(bytes), bytes, number32(1), lengthOf(context), context])
    await this.#negotiate(option.setMetaContext, query)
    if (this.#contextId === undefined) throw this.#broken('it does not tell data from holes')
    await this.#negotiate(option.go, Buffer.concat([lengthOf(bytes), bytes, Buffer.alloc(2)]))
    if (this.#sizeBytes === 0) throw this.#broken('it does not say the size of the volume')
  }

  /** Sends an option, and takes its answers in up to the last. */
  async #negotiate(kind: number, data: Buffer): Promise<void> {
    this.#socket.write(Buffer.concat([Buffer.from('IHAVEOPT'), number32(kind), lengthOf(data), data]))
    for (;;) {
      const header = await this.#take(20)
      const type = header.readUInt32BE(12)
      const answer = await this.#take(header.readUInt32BE(16))
      if (header.readUInt32BE(8) !== kind) throw this.#broken('an answer to another option')
      if (type === optionReply.ack) return
      if (type === optionReply.metaContext && answer.length > 4) this.#contextId = answer.readUInt32BE(0)
      else if (type === optionReply.info && answer.length >= 2) this.#takeInfo(answer)
      else throw this.#broken(`option ${kind} was refused with ${type & 0xffff} ${answer.toString()}`.trim())
    }
  }

  #takeInfo(info: Buffer): void {
    if (info.readUInt16BE(0) !== infoExport) return
    if (info.length < 12) throw this.#broken('an export without a size')
    this.#sizeBytes = Number(info.readBigUInt64BE(2))
    if (!Number.isSafeInteger(this.#sizeBytes)) throw this.#broken('an export that is too large')
  }

  // ------------------------------------------------------------------------------------------------ requests

  #request(
    what: string,
    type: number,
    offsetBytes: number,
    lengthBytes: number,
    { into, data }: { into?: Uint8Array; data?: Uint8Array } = {},
  ): Promise<Pending> {
    return new Promise((resolve, reject) => {
      if (this.#lost !== undefined) {
        reject(this.#gone(this.#lost))
        return
      }
      const frame = this.#frame(type, offsetBytes, lengthBytes)
      const pending: Pending = {
        ...{ what, offsetBytes, into, filledBytes: 0, extents: [], error: undefined, reject },
        resolve: () => {
          resolve(pending)
        },
      }
      this.#pending.set(this.#cookie, pending)
      this.#socket.write(frame)
      if (data !== undefined) this.#socket.write(data)
    })
  }

  #frame(type: number, offsetBytes: number, lengthBytes: number): Buffer {
    const frame = Buffer.alloc(28)
    frame.writeUInt32BE(requestMagic, 0)
    frame.writeUInt16BE(type, 6)
    frame.writeBigUInt64BE(++this.#cookie, 8)
    frame.writeBigUInt64BE(BigInt(offsetBytes), 16)
    frame.writeUInt32BE(lengthBytes, 24)
    return frame
  }

  async #receiveReplies(): Promise<void> {
    try {
      for (;;) await this.#receiveReply()
    } catch (error) {
      this.#lose(error instanceof Error ? error : new Error(messageOf(error)))
      this.#socket.destroy()
    }
  }

  async #receiveReply(): Promise<void> {
    const magic = (await this.#take(4)).readUInt32BE(0)
    if (magic === simpleReplyMagic) await this.#receiveSimple()
    else if (magic === structuredReplyMagic) await this.#receiveChunk()
    else throw this.#broken('a reply with another magic')
  }

  /** With structured replies negotiated a read is never answered so. */
  async #receiveSimple(): Promise<void> {
    const header = await this.#take(12)
    const cookie = header.readBigUInt64BE(4)
    const pending = this.#find(cookie)
    const error = header.readUInt32BE(0)
    if (error !== 0) pending.error = this.#refused(pending, error, '')
    else if (pending.into !== undefined) throw this.#broken('a simple reply to a read')
    this.#finish(cookie, pending)
  }

  async #receiveChunk(): Promise<void> {
    const header = await this.#take(16)
    const [flags, type, cookie] = [header.readUInt16BE(0), header.readUInt16BE(2), header.readBigUInt64BE(4)]
    const lengthBytes = header.readUInt32BE(12)
    const pending = this.#find(cookie)
    if (lengthBytes > replyBytesMax) throw this.#broken('a reply that is too long')
    if (type === chunk.offsetData) await this.#receiveData(pending, lengthBytes)
    else this.#takeChunk(pending, type, await this.#take(lengthBytes))
    if (flags & chunkIsDone) this.#finish(cookie, pending)
  }

  #takeChunk(pending: Pending, type: number, payload: Buffer): void {
    if (type & chunkIsError) {
      if (payload.length < 6) throw this.#broken('an error that is too short')
      const text = payload.toString('utf8', 6, 6 + payload.readUInt16BE(4))
      pending.error ??= this.#refused(pending, payload.readUInt32BE(0), text)
    } else if (type === chunk.offsetHole && payload.length === 12) {
      this.#placeOf(pending, payload.readBigUInt64BE(0), payload.readUInt32BE(8)).fill(0)
    } else if (type === chunk.blockStatus && payload.length >= 4) this.#takeExtents(pending, payload)
    else if (type !== chunk.none) throw this.#broken(`a reply of type ${type}`)
  }

  #takeExtents(pending: Pending, payload: Buffer): void {
    if (payload.readUInt32BE(0) !== this.#contextId) return
    let offsetBytes = pending.offsetBytes
    for (let at = 4; at + 8 <= payload.length; at += 8) {
      const lengthBytes = payload.readUInt32BE(at)
      const zero = (payload.readUInt32BE(at + 4) & stateZero) !== 0
      if (lengthBytes === 0) throw this.#broken('an extent of no length')
      pending.extents.push({ offsetBytes, lengthBytes, zero })
      offsetBytes += lengthBytes
    }
    if (offsetBytes > this.#sizeBytes) throw this.#broken('extents beyond the end')
  }

  async #receiveData(pending: Pending, lengthBytes: number): Promise<void> {
    if (lengthBytes < 8) throw this.#broken('data without an offset')
    const offsetBytes = (await this.#take(8)).readBigUInt64BE(0)
    await this.#takeInto(this.#placeOf(pending, offsetBytes, lengthBytes - 8))
  }

  #placeOf(pending: Pending, offsetBytes: bigint, lengthBytes: number): Uint8Array {
    const at = Number(offsetBytes) - pending.offsetBytes
    if (pending.into === undefined || at < 0 || at + lengthBytes > pending.into.length) {
      throw this.#broken('data that was not asked for')
    }
    pending.filledBytes += lengthBytes
    return pending.into.subarray(at, at + lengthBytes)
  }

  #find(cookie: bigint): Pending {
    const pending = this.#pending.get(cookie)
    if (pending) return pending
    throw this.#broken('a reply to no request')
  }

  #finish(cookie: bigint, pending: Pending): void {
    if (pending.error === undefined && pending.into !== undefined && pending.filledBytes !== pending.into.length) {
      throw this.#broken('a read with less data than was asked for')
    }
    this.#pending.delete(cookie)
    if (pending.error === undefined) pending.resolve()
    else pending.reject(pending.error)
  }

  // ------------------------------------------------------------------------------------------------ bytes

  async #take(lengthBytes: number): Promise<Buffer> {
    if (lengthBytes > replyBytesMax) throw this.#broken('an answer that is too long')
    const taken = Buffer.allocUnsafe(lengthBytes)
    await this.#takeInto(taken)
    return taken
  }

  async #takeInto(target: Uint8Array): Promise<void> {
    let filled = 0
    while (filled < target.length) {
      const [first] = this.#chunks
      if (first === undefined) {
        if (this.#lost !== undefined) throw this.#gone(this.#lost)
        await new Promise<void>((resolve) => (this.#wake = resolve))
        continue
      }
      const part = first.subarray(0, target.length - filled)
      target.set(part, filled)
      filled += part.length
      if (part.length === first.length) this.#chunks.shift()
      else this.#chunks[0] = first.subarray(part.length)
    }
  }

  #lose(error: Error): void {
    this.#lost ??= error
    this.#wake()
    for (const [cookie, { reject }] of this.#pending) {
      this.#pending.delete(cookie)
      reject(this.#gone(this.#lost))
    }
  }

  #gone(cause: Error): AnkoleError {
    if (cause instanceof AnkoleError) return cause
    return new AnkoleError('connection-lost', `The connection to ${this.#where} is lost: ${reasonOf(cause)}.`, {
      cause,
    })
  }

  #broken(what: string): AnkoleError {
    return new AnkoleError('protocol-error', `What answers at ${this.#where} does not speak NBD as it should: ${what}.`)
  }

  #refused({ what, offsetBytes }: Pending, error: number, text: string): AnkoleError {
    const name = errorNames[error] ?? `error ${error}`
    const code = name === 'ENOSPC' ? 'no-space' : name === 'ESHUTDOWN' ? 'connection-lost' : 'io-error'
    const why = text === '' ? name : `${name}, ${text}`
    return new AnkoleError(code, `The ${what} at byte ${offsetBytes} of ${this.#where} failed: ${why}.`)
  }
}

function reasonOf(cause: Error): string {
  const code = 'code' in cause ? cause.code : undefined
  if (code === 'ECONNREFUSED') return 'the connection was refused'
  return cause.message
}

function number32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

function lengthOf(bytes: Buffer): Buffer {
  return number32(bytes.length)
}
