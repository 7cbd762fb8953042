import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { aDirectory, aNode, pattern } from './builders.js'
import { NbdClient } from './nbd-client.js'

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

t.test('a disk host is killed under load: I/O goes on, and the disk host is started again', async (t) => {
  const node = await aNode(t)
  await node.create('demo')
  const { nbd } = await node.attach('demo')
  const client = await NbdClient.connect(nbd!, 'demo')
  const killed = node.pid('disk-2')
  const blockBytes = 64 << 10
  for (let block = 0; block < 400; block++) {
    if (block === 100) process.kill(killed, 'SIGKILL')
    await client.write(block * blockBytes, pattern(block, blockBytes))
  }
  await client.flush()
  for (let block = 0; block < 400; block++) {
    t.ok((await client.read(block * blockBytes, blockBytes)).equals(pattern(block, blockBytes)), `block ${block}`)
  }
  client.close()
  await node.until('restart', ({ disks }) => disks.every(({ state }) => state === 'ready'))
  t.not(node.pid('disk-2'), killed)
  t.match(
    node.report.processes.find(({ disk }) => disk === 'disk-2'),
    { restarts: 1 },
  )
  await node.until('replica', ({ disks }) => disks.every(({ replicas }) => replicas[0]!.state === 'ready'))
  await node.agent.stop()
  t.strictSame(
    node.ends().filter((end) => !end.endsWith('exited with code 0')),
    ['disk-host/disk-2 was ended by SIGKILL'],
  )
})

t.test(
  'a disk host hangs: its replica leaves, the store knows it, I/O goes on, and the node still stops',
  async (t) => {
    const node = await aNode(t)
    await node.create('demo')
    const { nbd } = await node.attach('demo', { lateMs: 200 })
    const client = await NbdClient.connect(nbd!, 'demo')
    const before = node.records.get('demo')!
    process.kill(node.pid('disk-3'), 'SIGSTOP')
    const data = pattern(3, 256 << 10)
    await client.write(0, data)
    // It is degraded from the moment that the replica is given up; the record follows.
    const degraded = await node.engine('demo', ({ state, members }) => state === 'degraded' && members.length === 2)
    t.ok(degraded.generation > before.generation)
    t.ok((await client.read(0, data.length)).equals(data))
    await client.flush()
    client.close()
    await node.until('the store knows it', () => node.records.get('demo')!.members.length === 2)
    await node.agent.stop()
    t.ok(node.ends().includes('disk-host/disk-3 was ended by SIGKILL'))
    t.ok(node.ends().includes('engine/demo exited with code 0'))
    t.strictSame(node.report.processes, [])
  },
)

t.test('an engine is killed: the next run serves what was acknowledged, at the same port', async (t) => {
  const node = await aNode(t)
  await node.create('demo')
  const first = await node.attach('demo')
  const client = await NbdClient.connect(first.nbd!, 'demo')
  const data = pattern(7, 1 << 20)
  await client.write(0, data)
  await client.flush()
  const killed = node.pid('demo')
  process.kill(killed, 'SIGKILL')
  const second = await node.engine('demo', ({ run, state }) => run === 2 && state === 'serving')
  t.equal(second.attachment, first.attachment)
  t.equal(second.nbd!.port, first.nbd!.port)
  t.ok(second.generation > first.generation)
  const reader = await NbdClient.connect(second.nbd!, 'demo')
  t.ok((await reader.read(0, data.length)).equals(data))
  reader.close()
})

t.test('a node that is killed leaves no process behind', async (t) => {
  const program = fileURLToPath(new URL('./node-that-dies.js', import.meta.url))
  const parent = fork(program, [aDirectory(t)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  t.teardown(() => parent.kill('SIGKILL'))
  const [{ pids }] = (await once(parent, 'message')) as [{ pids: number[] }]
  t.equal(pids.length, 3)
  t.ok(pids.every(isAlive))
  parent.kill('SIGKILL')
  const deadline = Date.now() + 15_000
  while (pids.some(isAlive) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 50))
  t.notOk(pids.some(isAlive))
})
