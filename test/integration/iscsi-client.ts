// As much of an iSCSI initiator as these tests need (RFC 7143): discovery, logins with and without CHAP that follow no
// redirection by themselves, and one small command at a time.

import { createHash, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

const opcode = { nopOut: 0x00, loginRequest: 0x03, textRequest: 0x04, command: 0x01, logoutRequest: 0x06 } as const
const reply = {
  nopIn: 0x20,
  asyncMessage: 0x32,
  login: 0x23,
  text: 0x24,
  command: 0x21,
  dataIn: 0x25,
  logout: 0x26,
} as const
const immediate = 0x40
const final = 0x80
const headerBytes = 48
const stage = { security: 0, operational: 1, fullFeature: 3 } as const
const initiator = 'iqn.2026-11.io.ankole.test:initiator'
/** A tag that names no task. */
const noTag = 0xffffffff

export type Text = Record<string, string>

export interface Target {
  iqn: string
  address: string
}

export type LoginResult =
  | { session: IscsiSession }
  /** Class and detail, as in RFC 7143, 11.13.5, and what it said: for 0x0101 the address to go to. */
  | { status: number; text: Text }

export interface ChapAnswer {
  user: string
  secret: string
}

interface Pdu {
  header: Buffer
  data: Buffer
}

/** A command that was answered, with another status than GOOD. */
export class ScsiError extends Error {
  override name = 'ScsiError'
  /** SPC-4, 4.5.6; 0 where no sense data came along. */
  readonly senseKey: number
  /** The additional sense code; 0 where no sense data came along. */
  readonly additionalCode: number
  constructor(command: string, { header, data }: Pdu) {
    const sense = data.subarray(2)
    // Fixed format has it in the third byte, the format with descriptors in the second.
    const hasDescriptors = ((sense[0] ?? 0) & 0x7f) >= 0x72
    const key = hasDescriptors ? sense[1] : sense[2]
    super(`the ${command} failed with status ${header[3]}, sense ${sense.toString('hex')}`)
    this.senseKey = (key ?? 0) & 0xf
    this.additionalCode = (hasDescriptors ? sense[2] : sense[12]) ?? 0
  }
}

/** «127.0.0.1:3260,1» */
export function parseAddress(address: string): { host: string; port: number } {
  const match = /^(.+):(\d+)(?:,\d+)?$/.exec(address)
  if (match === null) throw new Error(`${address} is no address`)
  return { host: match[1]!.replace(/^\[|\]$/g, ''), port: Number(match[2]) }
}

export async function discover(portal: string): Promise<Target[]> {
  const result = await login(portal, { SessionType: 'Discovery' })
  if (!('session' in result)) throw new Error(`the discovery was refused: 0x${result.status.toString(16)}`)
  const targets: Target[] = []
  for (const [key, value] of await result.session.sendTargets()) {
    if (key === 'TargetName') targets.push({ iqn: value, address: '' })
    else if (key === 'TargetAddress') targets.at(-1)!.address = value
  }
  result.session.close()
  return targets
}

/** Through the portal to where the volume is served. */
export async function logInThrough(portal: string, iqn: string, chap?: ChapAnswer): Promise<IscsiSession> {
  const first = await logIn(portal, iqn, chap)
  if ('session' in first || first.status !== 0x0101) throw new Error(`${iqn}: the portal does not send it on`)
  const second = await logIn(first.text['TargetAddress']!, iqn, chap)
  if (!('session' in second)) throw new Error(`${iqn}: refused with 0x${second.status.toString(16)}`)
  await second.session.settled()
  return second.session
}

export function logIn(address: string, iqn: string, chap?: ChapAnswer): Promise<LoginResult> {
  return login(address, { SessionType: 'Normal', TargetName: iqn }, chap)
}

async function login(address: string, names: Text, chap?: ChapAnswer): Promise<LoginResult> {
  const socket = connect({ ...parseAddress(address), noDelay: true })
  await once(socket, 'connect')
  const session = new IscsiSession(socket)
  try {
    const refused = await session.logIn(names, chap)
    if (refused === undefined) return { session }
    session.close()
    return refused
  } catch (error) {
    session.close()
    throw error
  }
}

/** Of this process: others have sessions of the same initiator. */
const random = randomInt(1 << 24)
let sessions = 0

export class IscsiSession {
  #received: Buffer = Buffer.alloc(0)
  #wake: () => void = () => undefined
  #error: Error | undefined
  #tag = 0
  readonly #qualifier = ++sessions
  #commandNumber = 1
  #statusNumber = 0

  constructor(private readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk])
      this.#wake()
    })
    const end = (error?: Error): void => {
      this.#error ??= error ?? new Error('the target closed the connection')
      this.#wake()
    }
    socket.on('error', end)
    socket.on('close', () => {
      end()
    })
  }

  /** Undefined: logged in. */
  async logIn(names: Text, chap?: ChapAnswer): Promise<{ status: number; text: Text } | undefined> {
    const method = chap === undefined ? 'None' : 'CHAP'
    const offer = { InitiatorName: initiator, ...names, AuthMethod: method }
    let answer = await this.#loginStep(stage.security, stage.operational, chap === undefined, offer)
    if (answer.status !== 0) return answer
    if (chap !== undefined) {
      answer = await this.#loginStep(stage.security, stage.operational, false, { CHAP_A: '5' })
      if (answer.status !== 0) return answer
      answer = await this.#loginStep(stage.security, stage.operational, true, chapProof(answer.text, chap))
      if (answer.status !== 0) return answer
    }
    answer = await this.#loginStep(stage.operational, stage.fullFeature, true, {
      ...{ HeaderDigest: 'None', DataDigest: 'None', InitialR2T: 'No', ImmediateData: 'Yes' },
      ...{ MaxRecvDataSegmentLength: '262144', ErrorRecoveryLevel: '0' },
    })
    if (answer.status !== 0) return answer
    if ((answer.flags & 0x83) !== (final | stage.fullFeature)) throw new Error('the login does not end')
    return undefined
  }

  async sendTargets(): Promise<[string, string][]> {
    const request = this.#request(opcode.textRequest | immediate, final)
    request.writeUInt32BE(noTag, 20)
    const { header, data } = await this.#exchange(request, Buffer.from('SendTargets=All\0'))
    if (header[0] !== reply.text || (header[1]! & final) === 0) throw new Error('this is no answer in one piece')
    return pairs(data)
  }

  /** Bytes of an INQUIRY of that vital product data page: SPC-4, 6.6. */
  inquiryPage(page: number): Promise<Buffer> {
    return this.#read(Buffer.from([0x12, 1, page, 0, 255, 0]), 255)
  }

  /** READ CAPACITY (16). */
  capacity(): Promise<Buffer> {
    return this.#read(Buffer.from([0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]), 32)
  }

  /** A new session is told first what happened before it, power on at the least (SAM-5, 5.14): until that is over. */
  async settled(): Promise<void> {
    for (let tries = 0; tries < 5; ++tries) {
      const { header } = await this.#exchange(this.#command(Buffer.alloc(6), 0, 0))
      if (header[0] === reply.command && header[3] === 0) return
    }
    throw new Error('the unit does not become ready')
  }

  read(block: number, lengthBytes: number): Promise<Buffer> {
    const cdb = Buffer.alloc(10)
    cdb[0] = 0x28
    cdb.writeUInt32BE(block, 2)
    cdb.writeUInt16BE(lengthBytes / blockBytes, 7)
    return this.#read(cdb, lengthBytes)
  }

  /** At most 8 KiB, as it goes with the command. */
  async write(block: number, data: Buffer): Promise<void> {
    const cdb = Buffer.alloc(10)
    cdb[0] = 0x2a
    cdb.writeUInt32BE(block, 2)
    cdb.writeUInt16BE(data.length / blockBytes, 7)
    const answer = await this.#exchange(this.#command(cdb, 0x20, data.length), data)
    expectGood('write', answer)
  }

  async flush(): Promise<void> {
    const cdb = Buffer.alloc(10)
    cdb[0] = 0x35
    expectGood('flush', await this.#exchange(this.#command(cdb, 0, 0)))
  }

  async unmap(block: number, blocks: number): Promise<void> {
    const cdb = Buffer.alloc(10)
    cdb[0] = 0x42
    const list = Buffer.alloc(24)
    list.writeUInt16BE(22, 0)
    list.writeUInt16BE(16, 2)
    list.writeUInt32BE(block, 12)
    list.writeUInt32BE(blocks, 16)
    cdb.writeUInt16BE(list.length, 7)
    expectGood('unmap', await this.#exchange(this.#command(cdb, 0x20, list.length), list))
  }

  async logOut(): Promise<void> {
    const { header } = await this.#exchange(this.#request(opcode.logoutRequest | immediate, final))
    if (header[0] !== reply.logout) throw new Error('this is no answer to a logout')
    this.close()
  }

  close(): void {
    this.socket.destroy()
  }

  async #read(cdb: Buffer, lengthBytes: number): Promise<Buffer> {
    let answer = await this.#exchange(this.#command(cdb, 0x40, lengthBytes))
    const parts: Buffer[] = []
    while (answer.header[0] === reply.dataIn) {
      parts.push(answer.data)
      // Its last PDU may bring the status along.
      if ((answer.header[1]! & 1) !== 0) break
      answer = await this.#take()
    }
    if (answer.header[3] !== 0) throw new ScsiError('read', answer)
    return Buffer.concat(parts)
  }

  #command(cdb: Buffer, direction: number, lengthBytes: number): Buffer {
    const request = this.#request(opcode.command, final | direction)
    request.writeUInt32BE(lengthBytes, 20)
    cdb.copy(request, 32)
    this.#commandNumber++
    return request
  }

  async #loginStep(
    current: number,
    next: number,
    transit: boolean,
    text: Text,
  ): Promise<{ status: number; flags: number; text: Text }> {
    const flags = (current << 2) | (transit ? final | next : 0)
    const request = this.#request(opcode.loginRequest | immediate, flags)
    // An ISID of the random kind (RFC 7143, 11.12.5), another one each: the same would take the place of a session.
    request[8] = 0x80
    request.writeUIntBE(random, 9, 3)
    request.writeUInt16BE(this.#qualifier, 12)
    const { header, data } = await this.#exchange(request, encode(text))
    if (header[0] !== reply.login) throw new Error('this is no answer to a login')
    return { status: header.readUInt16BE(36), flags: header[1]!, text: Object.fromEntries(pairs(data)) }
  }

  #request(operation: number, flags: number): Buffer {
    const header = Buffer.alloc(headerBytes)
    header[0] = operation
    header[1] = flags
    header.writeUInt32BE(++this.#tag, 16)
    header.writeUInt32BE(this.#commandNumber, 24)
    header.writeUInt32BE(this.#statusNumber, 28)
    return header
  }

  async #exchange(header: Buffer, data: Buffer = Buffer.alloc(0)): Promise<Pdu> {
    header.writeUIntBE(data.length, 5, 3)
    this.socket.write(Buffer.concat([header, data, Buffer.alloc(-data.length & 3)]))
    return await this.#take()
  }

  async #take(): Promise<Pdu> {
    for (;;) {
      const pdu = await this.#takeAny()
      // A target pings where it has heard nothing for a while: RFC 7143, 11.19. That it will end the connection is seen soon enough.
      if (pdu.header[0] === reply.nopIn && pdu.header.readUInt32BE(16) === noTag) this.#answerPing(pdu.header)
      else if (pdu.header[0] !== reply.asyncMessage) return pdu
    }
  }

  #answerPing(ping: Buffer): void {
    if (ping.readUInt32BE(20) === noTag) return
    const header = this.#request(opcode.nopOut | immediate, final)
    header.writeUInt32BE(noTag, 16)
    ping.copy(header, 20, 20, 24)
    this.socket.write(header)
  }

  async #takeAny(): Promise<Pdu> {
    const header = Buffer.from(await this.#bytes(headerBytes))
    const lengthBytes = header.readUIntBE(5, 3)
    const data = Buffer.from((await this.#bytes(lengthBytes + (-lengthBytes & 3))).subarray(0, lengthBytes))
    const isPing = header[0] === reply.nopIn && header.readUInt32BE(16) === noTag
    const hasStatus = header[0] === reply.dataIn ? (header[1]! & 1) !== 0 : !isPing
    if (hasStatus) this.#statusNumber = header.readUInt32BE(24) + 1
    return { header, data }
  }

  async #bytes(count: number): Promise<Buffer> {
    while (this.#received.length < count) {
      if (this.#error !== undefined) throw this.#error
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
    const bytes = this.#received.subarray(0, count)
    this.#received = this.#received.subarray(count)
    return bytes
  }
}

export const blockBytes = 512

function expectGood(command: string, answer: Pdu): void {
  if (answer.header[0] !== reply.command) throw new Error(`this is no answer to a ${command}`)
  if (answer.header[3] !== 0) throw new ScsiError(command, answer)
}

/** RFC 1994, 4.1: over the identifier, the secret and the challenge. */
function chapProof(asked: Text, { user, secret }: ChapAnswer): Text {
  const challenge = asked['CHAP_C'] ?? ''
  if (!/^0x/i.test(challenge)) throw new Error(`a challenge that is not hexadecimal: ${challenge}`)
  const digest = createHash('md5')
    .update(Buffer.from([Number(asked['CHAP_I'])]))
    .update(secret)
    .update(Buffer.from(challenge.slice(2), 'hex'))
    .digest('hex')
  return { CHAP_N: user, CHAP_R: `0x${digest}` }
}

function encode(text: Text): Buffer {
  return Buffer.from(
    Object.entries(text)
      .map(([key, value]) => `${key}=${value}\0`)
      .join(''),
  )
}

function pairs(data: Buffer): [string, string][] {
  return data
    .toString()
    .split('\0')
    .filter((line) => line !== '')
    .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)])
}
