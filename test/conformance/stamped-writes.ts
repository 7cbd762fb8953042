// A client that knows what must be on a volume: each block it writes names itself and how often it was written. What was
// flushed must be there later; what was written after that may be, and nothing else.

import { randomInt } from 'node:crypto'
import type { Test } from 'tap'
import { NbdClient } from '../integration/nbd-client.js'
import { sleep } from './ankole.js'
import type { Volume } from './volume.js'

const blockBytes = 16 << 10
const flushEvery = 24

export class StampedWrites {
  /** By block: how often it was written, counted before the write is sent. */
  readonly #sent: number[]
  /** The version that was answered last. What is not here may or may not be there. */
  readonly #acknowledged: number[]
  /** What was acknowledged when a flush that succeeded was sent. */
  #flushed: number[]
  /** What a check has read. */
  #seen: number[]
  flushes = 0
  writes = 0

  constructor(
    readonly volume: Volume,
    blocks: number,
  ) {
    this.#sent = Array.from({ length: blocks }, () => 0)
    this.#acknowledged = [...this.#sent]
    this.#flushed = [...this.#sent]
    this.#seen = [...this.#sent]
  }

  /** Writes and flushes until the connection breaks, and resolves then with why. */
  async untilBroken(): Promise<Error> {
    const client = await connect(this.volume)
    try {
      for (;;) {
        for (let n = 0; n < flushEvery; n++) await this.#write(client, randomInt(this.#sent.length))
        const acknowledged = [...this.#acknowledged]
        await client.flush()
        this.#flushed = acknowledged
        this.flushes++
      }
    } catch (error) {
      return error as Error
    }
  }

  /**
   * All blocks hold what was flushed or something newer that was sent, and nothing older than what an earlier check read.
   * Reads twice: an answer is the same the next time.
   */
  async check(t: Test): Promise<void> {
    const client = await connect(this.volume)
    const lost: object[] = []
    const takenBack: object[] = []
    const invented: object[] = []
    for (const [block, sent] of this.#sent.entries()) {
      const data = await client.read(block * blockBytes, blockBytes)
      const again = await client.read(block * blockBytes, blockBytes)
      const version = data.readUInt32LE(4)
      const [flushed, seen] = [this.#flushed[block]!, this.#seen[block]!]
      const found = { block, version, again: again.readUInt32LE(4), sent, flushed, seen }
      if (version < flushed) lost.push(found)
      if (version < seen || !data.equals(again)) takenBack.push(found)
      if (version > sent || !data.equals(stamped(block, version))) invented.push(found)
      this.#seen[block] = version
    }
    client.close()
    t.strictSame(lost, [], 'nothing that was flushed is lost')
    t.strictSame(takenBack, [], 'nothing that was read is taken back')
    t.strictSame(invented, [], 'no block holds what was never written')
  }

  async #write(client: NbdClient, block: number): Promise<void> {
    const version = ++this.#sent[block]!
    await client.write(block * blockBytes, stamped(block, version))
    this.#acknowledged[block] = version
    this.writes++
  }
}

/** Version 0 is what nobody wrote: zeroes. */
function stamped(block: number, version: number): Buffer {
  const data = Buffer.alloc(blockBytes)
  if (version === 0) return data
  for (let offset = 0; offset < blockBytes; offset += 512) {
    data.writeUInt32LE(block, offset)
    data.writeUInt32LE(version, offset + 4)
  }
  return data
}

/** A volume that has just come back may have given its address before it listens. */
export async function connect(volume: Volume): Promise<NbdClient> {
  const { hostname, port } = new URL(volume.uri)
  for (let tries = 0; ; tries++) {
    try {
      return await NbdClient.connect({ host: hostname, port: Number(port) }, volume.name)
    } catch (error) {
      if (tries === 100) throw error
      await sleep(100)
    }
  }
}
