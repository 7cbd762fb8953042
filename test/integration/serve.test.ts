import { createServer } from 'node:net'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { aFreePort, aNode, pattern } from './builders.js'
import { NbdClient } from './nbd-client.js'

const cleanEnds = ['disk-host/disk-1', 'disk-host/disk-2', 'disk-host/disk-3', 'engine/demo'].map(
  (key) => `${key} exited with code 0`,
)

for (const ioBackend of ['auto', 'epoll'] as const) {
  t.test(`${ioBackend}: a volume is created, served, written, stopped clean, and is back with its data`, async (t) => {
    const node = await aNode(t, { ioBackend })
    await node.create('demo')
    const engine = await node.attach('demo')
    t.equal(engine.members.length, 3)
    t.ok(node.records.get('demo')!.generation > 0, 'the store holds who the members are')
    t.ok(engine.nbd)
    if (ioBackend !== 'auto') t.equal(engine.ioBackend, ioBackend)

    const client = await NbdClient.connect(engine.nbd!, 'demo')
    t.equal(client.sizeBytes, 64 << 20)
    const data = pattern(1, 1 << 20)
    await client.write(4096, data)
    await client.flush()
    t.ok((await client.read(4096, data.length)).equals(data))
    t.ok((await client.read(0, 4096)).equals(Buffer.alloc(4096)), 'what was not written reads as zero')

    const { engines, disks } = await node.agent.counters()
    t.match(engines, [{ volume: 'demo', connections: 1, operations: { write: { bytes: data.length, errors: 0 } } }])
    t.equal(engines[0]!.replicas.length, 3)
    for (const replica of engines[0]!.replicas)
      t.match(replica, { state: 'member', operations: { write: { bytes: data.length } } })
    const { latency } = engines[0]!.operations.write
    t.equal(latency.buckets.length, engines[0]!.bucketBoundsSeconds.length + 1)
    t.equal(
      latency.buckets.reduce((sum, count) => sum + count, 0),
      engines[0]!.operations.write.count,
    )
    t.equal(disks.length, 3)
    for (const disk of disks)
      t.match(disk.replicas, [{ volume: 'demo', operations: { write: { bytes: data.length } } }])
    client.close()

    t.strictSame((await node.restart()).sort(), cleanEnds)
    await node.until('disks', (report) => report.disks.every(({ state }) => state === 'ready'))
    const again = await node.attach('demo')
    const reader = await NbdClient.connect(again.nbd!, 'demo')
    t.ok((await reader.read(4096, data.length)).equals(data))
    reader.close()
    await node.agent.stop()
    t.strictSame(node.ends().sort(), cleanEnds)
  })
}

t.test('a detached volume is gone from the report, and can be attached again at its port', async (t) => {
  const node = await aNode(t, { disks: 1 })
  await node.create('demo', { replicas: 1 })
  const first = await node.attach('demo')
  node.detach('demo')
  await node.until('engine gone', ({ engines }) => engines.length === 0)
  const second = await node.attach('demo', { port: first.nbd!.port })
  t.equal(second.nbd!.port, first.nbd!.port)
  t.equal(second.attachment, first.attachment + 1)
})

t.test('a port that is in use is said, and the volume serves when it is free', async (t) => {
  const node = await aNode(t, { disks: 1 })
  await node.create('demo', { replicas: 1 })
  const port = await aFreePort()
  const squatter = createServer()
  await new Promise<void>((resolve) => squatter.listen(port, '127.0.0.1', resolve))
  await node.plan('demo', { port })
  const engine = await node.engine('demo', ({ message }) => message.includes(String(port)))
  t.match(engine.message, /in use/i)
  await new Promise((resolve) => squatter.close(resolve))
  t.equal((await node.serving('demo')).nbd!.port, port)
})

t.test('a disk that is no directory fails with its reason, and is used when it can be', async (t) => {
  const node = await aNode(t, { disks: 1 })
  const file = join(node.directory, 'a-file')
  writeFileSync(file, '')
  const disk = node.disk('disk-1')
  const { directory } = disk
  disk.directory = file
  node.apply()
  await node.until('failure', ({ disks }) => disks[0]!.state === 'failed')
  t.match(node.report.disks[0]!.message, file)
  disk.directory = directory
  node.apply()
  await node.until('disk', ({ disks }) => disks[0]!.state === 'ready')
})

t.test('a replica that leaves the plan as absent leaves the disk', async (t) => {
  const node = await aNode(t, { disks: 1 })
  await node.create('demo', { replicas: 1 })
  const disk = node.disk('disk-1')
  disk.replicas[0]!.desired = 'absent'
  node.apply()
  await node.until('removal', ({ disks }) => disks[0]!.replicas[0]!.state === 'removed')
  disk.replicas[0]!.desired = 'present'
  node.apply()
  await node.until('a new one', ({ disks }) => disks[0]!.replicas[0]!.state === 'ready')
})
