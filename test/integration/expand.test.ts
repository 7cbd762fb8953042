// A volume that becomes larger, with real processes: under I/O, with a replica away, over a crash, and on a full disk.
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, statfsSync, truncateSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { aNode, aDirectory, pattern, TestNode } from './builders.js'
import type { HostPort } from '../../src/native/index.js'
import { blockBytes, logIn, type IscsiSession } from './iscsi-client.js'
import { NbdClient } from './nbd-client.js'

const MiB = 1 << 20
const before = 64 * MiB
const after = 5 * 1024 * MiB + 8192

async function grown(node: TestNode, sizeBytes = after): Promise<void> {
  await node.engine('demo', (engine) => engine.sizeBytes === sizeBytes)
}

async function aSession({ host, port }: HostPort): Promise<IscsiSession> {
  const login = await logIn(`${host}:${port}`, 'iqn.2026-11.io.ankole:demo')
  if (!('session' in login)) throw new Error('the login is refused')
  await login.session.settled()
  return login.session
}

async function capacityBytes(session: IscsiSession): Promise<number> {
  return (Number((await session.capacity()).readBigUInt64BE(0)) + 1) * blockBytes
}

t.test('a volume grows under I/O with a replica away, which grows when it is back; over crashes too', async (t) => {
  const node = await aNode(t)
  await node.create('demo', { sizeBytes: before })
  const { nbd } = await node.attach('demo', { lateMs: 300 })
  const client = await NbdClient.connect(nbd!, 'demo')
  t.equal(client.sizeBytes, before)
  const pieceBytes = 64 << 10
  let hung: number | undefined
  for (let block = 0; block < 600; ++block) {
    if (block === 100) {
      hung = node.pid('disk-3')
      process.kill(hung, 'SIGSTOP')
      await node.engine('demo', ({ members }) => members.length === 2)
    }
    if (block === 200) node.expand('demo', after)
    if (block === 500) await grown(node)
    await client.write((block % 1000) * pieceBytes, pattern(block, pieceBytes))
  }
  await client.flush()
  // The connection that is open may go on to the new end; a new one is told of it.
  const last = pattern(7000, pieceBytes)
  await client.write(after - pieceBytes, last)
  t.ok((await client.read(before, MiB)).equals(Buffer.alloc(MiB)), 'zeros behind the old end')
  process.kill(hung!, 'SIGCONT')
  await node.engine('demo', ({ members }) => members.length === 3)

  // The engine and one disk host die; the store never heard of the new size.
  client.close()
  process.kill(node.pid('demo'), 'SIGKILL')
  process.kill(node.pid('disk-1'), 'SIGKILL')
  await node.until('another run', ({ engines }) => engines.some(({ run, state }) => run === 2 && state !== 'starting'))
  const { nbd: again, sizeBytes } = await node.engine(
    'demo',
    ({ state }) => state === 'serving' || state === 'degraded',
  )
  t.equal(sizeBytes, after)
  const second = await NbdClient.connect(again!, 'demo')
  t.equal(second.sizeBytes, after)
  await node.engine('demo', ({ members }) => members.length === 3)
  t.ok((await second.read(after - pieceBytes, pieceBytes)).equals(last))
  for (let block = 0; block < 600; block += 50) {
    t.ok((await second.read(block * pieceBytes, pieceBytes)).equals(pattern(block, pieceBytes)), `block ${block}`)
  }
  second.close()
})

t.test('a disk host, then the engine, die in the middle of an expansion, and it is carried out', async (t) => {
  const node = await aNode(t)
  await node.create('demo', { sizeBytes: before })
  const { nbd } = await node.attach('demo', { lateMs: 20_000 })
  const client = await NbdClient.connect(nbd!, 'demo')
  const data = pattern(3, MiB)
  await client.write(before - MiB, data)
  await client.flush()
  const underWay = (replica: string) => {
    return node.engine('demo', ({ expansion }) => expansion?.state === 'running' && expansion.message.includes(replica))
  }
  const member = (disk: string) => node.disk(disk).replicas[0]!.id

  // It does not answer, so that the others have grown and the volume has not.
  const hung = node.pid('disk-2')
  process.kill(hung, 'SIGSTOP')
  node.expand('demo', 2 * before)
  t.equal((await underWay(member('disk-2'))).sizeBytes, before)
  process.kill(hung, 'SIGKILL')
  await grown(node, 2 * before)
  t.not(node.pid('disk-2'), hung)
  t.ok((await client.read(before - MiB, 2 * MiB)).equals(Buffer.concat([data, Buffer.alloc(MiB)])))
  await client.write(2 * before - MiB, data)
  await client.flush()
  client.close()

  const again = node.pid('disk-3')
  process.kill(again, 'SIGSTOP')
  node.expand('demo', after, 'two')
  await underWay(member('disk-3'))
  process.kill(node.pid('demo'), 'SIGKILL')
  await node.until('another run', ({ engines }) => engines.some(({ run }) => run === 2))
  process.kill(again, 'SIGCONT')
  await grown(node)
  const { nbd: next } = await node.engine('demo', ({ state, members }) => state === 'serving' && members.length === 3)
  const reader = await NbdClient.connect(next!, 'demo')
  t.equal(reader.sizeBytes, after)
  for (const end of [before, 2 * before]) {
    t.ok((await reader.read(end - MiB, 2 * MiB)).equals(Buffer.concat([data, Buffer.alloc(MiB)])), `the end at ${end}`)
  }
  await reader.write(after - MiB, data)
  t.ok((await reader.read(after - MiB, MiB)).equals(data))
  reader.close()
})

t.test('an initiator is told of the new size once, and reads it', async (t) => {
  const node = await aNode(t)
  await node.create('demo', { sizeBytes: before })
  const { iscsi } = await node.attach('demo')
  const session = await aSession(iscsi!)
  t.equal(await capacityBytes(session), before)
  node.expand('demo', after)
  await grown(node)
  const told: unknown = await session.capacity().catch((error: unknown) => error)
  t.match(told, { senseKey: 6, additionalCode: 0x2a }, 'capacity data has changed')
  t.equal(await capacityBytes(session), after)
  const last = pattern(1, 4096)
  await session.write(after / blockBytes - 8, last)
  t.ok((await session.read(after / blockBytes - 8, last.length)).equals(last))
  await session.logOut()
  // Who logs in later knows no other size.
  const other = await aSession(iscsi!)
  t.equal(await capacityBytes(other), after)
  await other.logOut()
})

t.test('an engine that starts with an order for more serves the new size from the first moment', async (t) => {
  const node = await aNode(t)
  await node.create('demo', { sizeBytes: before })
  const { nbd } = await node.attach('demo')
  const client = await NbdClient.connect(nbd!, 'demo')
  await client.write(before - 4096, pattern(1, 4096))
  client.close()
  node.detach('demo')
  await node.until('its end', ({ engines }) => engines.length === 0)
  await node.plan('demo', { expansion: { id: 'one', sizeBytes: after } })
  const second = await NbdClient.connect((await node.serving('demo')).nbd!, 'demo')
  t.equal(second.sizeBytes, after)
  t.ok((await second.read(before - 4096, 8192)).equals(Buffer.concat([pattern(1, 4096), Buffer.alloc(4096)])))
  second.close()
})

/** A small ext4 on the directory, until the test ends; false where loop devices cannot be had. */
function mountSmall(t: Test, image: string, directory: string): boolean {
  try {
    closeSync(openSync(image, 'w'))
    truncateSync(image, 24 * MiB)
    execFileSync('mkfs.ext4', ['-q', '-m', '0', '-b', '4096', image], { stdio: 'ignore' })
    execFileSync('mount', ['-o', 'loop', image, directory], { stdio: 'ignore' })
  } catch {
    return false
  }
  t.teardown(() => execFileSync('umount', ['-l', directory], { stdio: 'ignore' }))
  return true
}

t.test('where one disk is full nothing changes, until there is room', async (t) => {
  const node = new TestNode(aDirectory(t), 2, 'auto')
  const small = join(node.directory, 'disk-2')
  if (!mountSmall(t, join(node.directory, 'image'), small)) {
    t.comment('a loop mount of ext4 needs root and loop devices')
    await node.agent.stop()
    return
  }
  t.teardown(() => node.agent.stop())
  node.apply()
  await node.until('disks', ({ disks }) => disks.every(({ state }) => state === 'ready'))
  await node.create('demo', { replicas: 2, sizeBytes: before })
  const { nbd } = await node.attach('demo')
  const client = await NbdClient.connect(nbd!, 'demo')
  await client.write(before - MiB, pattern(1, MiB))
  await client.flush()
  mkdirSync(join(small, 'filler'))
  const filler = openSync(join(small, 'filler', 'all'), 'w')
  while (statfsSync(small).bavail > 64) writeSync(filler, Buffer.alloc(64 << 10, 1))
  closeSync(filler)
  const large = 4 * 1024 ** 4 // its maps take 1 MiB
  node.expand('demo', large)
  const failed = await node.engine('demo', ({ expansion }) => expansion?.state === 'failed')
  t.match(failed, {
    sizeBytes: before,
    expansion: { code: 'no-space', message: /disk is full/ },
    members: { length: 2 },
  })
  await client.write(before - MiB, pattern(2, MiB))
  unlinkSync(join(small, 'filler', 'all'))
  node.expand('demo', large, 'two')
  await grown(node, large)
  t.ok((await client.read(before - MiB, MiB)).equals(pattern(2, MiB)))
  await client.write(large - 4096, pattern(3, 4096))
  client.close()
})
