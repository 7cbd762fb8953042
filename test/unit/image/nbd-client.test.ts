// The NBD client against servers that do not do as they should; the real one is that of the integration tests.
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { NbdClient } from '../../../src/image/nbd-client.js'

const sizeBytes = 1 << 20

/** Speaks until the handshake is done, unless `hello` is another one, and then as `serve` does. */
async function aServer(t: Test, serve: (socket: Socket, request: Buffer) => void, hello = 'NBDMAGICIHAVEOPT') {
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.write(Buffer.concat([Buffer.from(hello, 'latin1'), Buffer.from([0, 3])]))
    let received: Buffer = Buffer.alloc(0)
    let greeted = false
    let options = 0
    socket.on('data', (data) => {
      received = Buffer.concat([received, data])
      if (!greeted && received.length >= 4) {
        greeted = true
        received = received.subarray(4)
      }
      while (options < 3 && received.length >= 16 && received.length >= 16 + received.readUInt32BE(12)) {
        const option = received.readUInt32BE(8)
        received = received.subarray(16 + received.readUInt32BE(12))
        if (option === 10) socket.write(optionReply(option, 4, Buffer.from('\0\0\0\u0001base:allocation', 'latin1')))
        if (option === 7) socket.write(optionReply(option, 3, exportInfo()))
        socket.write(optionReply(option, 1))
        options += 1
      }
      if (options < 3) return
      for (; received.length >= 28; received = received.subarray(28)) serve(socket, received.subarray(0, 28))
    })
    t.teardown(() => socket.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('a server without a port')
  return { host: '127.0.0.1', port: address.port, name: 'data' }
}

function optionReply(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(20)
  header.writeBigUInt64BE(0x3e889045565a9n, 0)
  header.writeUInt32BE(option, 8)
  header.writeUInt32BE(type, 12)
  header.writeUInt32BE(data.length, 16)
  return Buffer.concat([header, data])
}

function exportInfo(): Buffer {
  const info = Buffer.alloc(12)
  info.writeBigUInt64BE(BigInt(sizeBytes), 2)
  return info
}

/** A structured reply to the request. */
function chunk(request: Buffer, type: number, data: Buffer, flags = 1): Buffer {
  const header = Buffer.alloc(20)
  header.writeUInt32BE(0x668e33ef, 0)
  header.writeUInt16BE(flags, 4)
  header.writeUInt16BE(type, 6)
  request.copy(header, 8, 8, 16)
  header.writeUInt32BE(data.length, 16)
  return Buffer.concat([header, data])
}

function at(offsetBytes: number, ...parts: (number | Buffer)[]): Buffer {
  const offset = Buffer.alloc(8)
  offset.writeBigUInt64BE(BigInt(offsetBytes))
  return Buffer.concat([offset, ...parts.map((part) => (typeof part === 'number' ? word(part) : part))])
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

t.test('data, holes and extents', async (t) => {
  const address = await aServer(t, (socket, request) => {
    if (request.readUInt16BE(6) === 0) {
      socket.write(chunk(request, 2, at(4096, 4096), 0))
      socket.write(chunk(request, 1, at(0, Buffer.alloc(4096, 7))))
    } else socket.write(chunk(request, 5, Buffer.concat([1, 8192, 0, 4096, 3].map(word))))
  })
  const client = await NbdClient.connect(address)
  t.equal(client.sizeBytes, sizeBytes)
  const into = Buffer.alloc(8192, 1)
  await client.read(0, into)
  t.ok(into.equals(Buffer.concat([Buffer.alloc(4096, 7), Buffer.alloc(4096)])))
  t.same(await client.extents(0, sizeBytes), [
    { offsetBytes: 0, lengthBytes: 8192, zero: false },
    { offsetBytes: 8192, lengthBytes: 4096, zero: true },
  ])
  client.close()
})

t.test('an error fails the request that it is for, and no other', async (t) => {
  const address = await aServer(t, (socket, request) => {
    const failure = Buffer.concat([word(28), Buffer.from([0, 4]), Buffer.from('full')])
    if (request.readUInt16BE(6) === 3) socket.write(chunk(request, 0, Buffer.alloc(0)))
    else socket.write(chunk(request, 0x8001, failure))
  })
  const client = await NbdClient.connect(address)
  await t.rejects(client.read(4096, Buffer.alloc(512)), {
    code: 'no-space',
    message: /read at byte 4096 .*ENOSPC, full/,
  })
  await client.flush()
  client.close()
  await t.rejects(client.flush(), { code: 'connection-lost', message: /closed here/ })
})

t.test('what a server says that cannot be ends the connection', async (t) => {
  const replies: Record<string, [RegExp, (request: Buffer) => Buffer]> = {
    'less data than was asked for': [/less data/, (r) => chunk(r, 1, at(0, Buffer.alloc(512)))],
    'data beside the place': [/not asked for/, (r) => chunk(r, 1, at(sizeBytes, Buffer.alloc(4096)))],
    'data before the place': [/not asked for/, (r) => chunk(r, 1, at(0, Buffer.alloc(8192)))],
    'a hole that is too long': [/not asked for/, (r) => chunk(r, 2, at(0, 1 << 30))],
    'another reply': [/reply to no request/, () => chunk(Buffer.alloc(28, 9), 0, Buffer.alloc(0))],
    'another magic': [/another magic/, () => Buffer.alloc(20)],
    'a type that nobody knows': [/reply of type 77/, (r) => chunk(r, 77, Buffer.alloc(4))],
    'an error that is cut off': [/too short/, (r) => chunk(r, 0x8001, Buffer.alloc(2))],
    'a simple reply to a read': [/simple reply/, (r) => Buffer.concat([word(0x67446698), word(0), r.subarray(8, 16)])],
  }
  for (const [what, [message, reply]] of Object.entries(replies)) {
    const client = await NbdClient.connect(await aServer(t, (socket, request) => socket.write(reply(request))))
    await t.rejects(client.read(0, Buffer.alloc(4096)), { code: 'protocol-error', message }, what)
    await t.rejects(client.flush(), { code: 'protocol-error' }, 'it is over')
  }
  const long = await NbdClient.connect(
    await aServer(t, (socket, request) => socket.write(chunk(request, 1, Buffer.alloc(0)).fill(0xff, 16))),
  )
  await t.rejects(long.read(0, Buffer.alloc(4096)), { message: /too long/ })
  const endless = await NbdClient.connect(
    await aServer(t, (socket, request) => socket.write(chunk(request, 5, Buffer.concat([1, 0, 0].map(word))))),
  )
  await t.rejects(endless.extents(0, sizeBytes), { message: /extent of no length/ })
  const beyond = await NbdClient.connect(
    await aServer(t, (socket, request) =>
      socket.write(chunk(request, 5, Buffer.concat([1, sizeBytes, 0, 1, 0].map(word)))),
    ),
  )
  await t.rejects(beyond.extents(0, sizeBytes), { message: /beyond the end/ })
})

t.test('a connection that ends, or never was', async (t) => {
  const client = await NbdClient.connect(await aServer(t, (socket) => socket.destroy()))
  const both = [client.read(0, Buffer.alloc(512)), client.write(0, Buffer.alloc(512))]
  for (const one of both) await t.rejects(one, { code: 'connection-lost' })
  await t.rejects(NbdClient.connect(await aServer(t, () => undefined, 'SSH-2.0-OpenSSH_9')), { code: 'protocol-error' })
  await t.rejects(NbdClient.connect({ host: '127.0.0.1', port: 1, name: 'data' }), {
    code: 'connection-lost',
    message: /nbd:\/\/127\.0\.0\.1:1\/data is lost: the connection was refused/,
  })
})
