// As much of an NBD client as these tests need: fixed newstyle, NBD_OPT_GO, simple replies, one command at a time.

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import type { HostPort } from '../../src/native/index.js'

const optGo = 7
const replyAck = 1
const replyInfo = 3
const infoExport = 0
const command = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4 } as const
const requestMagic = 0x25609513
const simpleReplyMagic = 0x67446698

export class NbdClient {
  readonly #socket: Socket
  #received: Buffer[] = []
  #receivedBytes = 0
  #wake: () => void = () => undefined
  #error: Error | undefined
  #cookie = 0n
  sizeBytes = 0

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => {
      this.#received.push(chunk)
      this.#receivedBytes += chunk.length
      this.#wake()
    })
    const end = (error?: Error): void => {
      this.#error ??= error ?? new Error('the server closed the connection')
      this.#wake()
    }
    socket.on('error', end)
    socket.on('close', () => {
      end()
    })
  }

  static async connect({ host, port }: HostPort, volume: string): Promise<NbdClient> {
    const socket = connect({ host, port, noDelay: true })
    await once(socket, 'connect')
    const client = new NbdClient(socket)
    await client.#negotiate(volume)
    return client
  }

  async read(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    await this.#command(command.read, offsetBytes, lengthBytes)
    return await this.#take(lengthBytes)
  }

  async write(offsetBytes: number, data: Buffer): Promise<void> {
    await this.#command(command.write, offsetBytes, data.length, data)
  }

  async flush(): Promise<void> {
    await this.#command(command.flush, 0, 0)
  }

  async trim(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#command(command.trim, offsetBytes, lengthBytes)
  }

  close(): void {
    this.#socket.end(this.#request(command.disconnect, 0, 0))
    this.#socket.destroySoon()
  }

  async #negotiate(volume: string): Promise<void> {
    const hello = await this.#take(18)
    if (hello.toString('latin1', 0, 16) !== 'NBDMAGICIHAVEOPT') throw new Error('this is no NBD server')
    const name = Buffer.from(volume)
    const option = Buffer.alloc(4 + 16 + 4 + name.length + 2)
    option.writeUInt32BE(3, 0) // fixed newstyle, no zeroes
    option.write('IHAVEOPT', 4, 'latin1')
    option.writeUInt32BE(optGo, 12)
    option.writeUInt32BE(4 + name.length + 2, 16)
    option.writeUInt32BE(name.length, 20)
    name.copy(option, 24)
    this.#socket.write(option)
    for (;;) {
      const header = await this.#take(20)
      const type = header.readUInt32BE(12)
      const data = await this.#take(header.readUInt32BE(16))
      if (type === replyAck) return
      if (type !== replyInfo) throw new Error(`NBD option refused (${type & 0xffff}): ${data.toString()}`)
      if (data.readUInt16BE(0) === infoExport) this.sizeBytes = Number(data.readBigUInt64BE(2))
    }
  }

  async #command(type: number, offsetBytes: number, lengthBytes: number, data?: Buffer): Promise<void> {
    this.#socket.write(this.#request(type, offsetBytes, lengthBytes))
    if (data !== undefined) this.#socket.write(data)
    const reply = await this.#take(16)
    if (reply.readUInt32BE(0) !== simpleReplyMagic) throw new Error('this is no simple reply')
    if (reply.readBigUInt64BE(8) !== this.#cookie) throw new Error('a reply to another command')
    const error = reply.readUInt32BE(4)
    if (error !== 0) throw new Error(`NBD error ${error}`)
  }

  #request(type: number, offsetBytes: number, lengthBytes: number): Buffer {
    const request = Buffer.alloc(28)
    request.writeUInt32BE(requestMagic, 0)
    request.writeUInt16BE(type, 6)
    request.writeBigUInt64BE(++this.#cookie, 8)
    request.writeBigUInt64BE(BigInt(offsetBytes), 16)
    request.writeUInt32BE(lengthBytes, 24)
    return request
  }

  async #take(lengthBytes: number): Promise<Buffer> {
    while (this.#receivedBytes < lengthBytes) {
      if (this.#error !== undefined) throw this.#error
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
    const all = Buffer.concat(this.#received)
    this.#received = [all.subarray(lengthBytes)]
    this.#receivedBytes -= lengthBytes
    return all.subarray(0, lengthBytes)
  }
}
