import t from 'tap'
import { aNode, pattern } from './builders.js'
import { NbdClient } from './nbd-client.js'

// Rules 2 and 6 on the real processes: what goes on while the store does not answer, and what waits for it.

const data = pattern(3, 256 << 10)

t.test('one of three leaves while the store is away, and the store hears of it later', async (t) => {
  const node = await aNode(t)
  await node.create('demo')
  const { nbd } = await node.attach('demo', { lateMs: 200 })
  const client = await NbdClient.connect(nbd!, 'demo')
  const before = node.records.get('demo')!
  node.storeAway = true
  process.kill(node.pid('disk-3'), 'SIGSTOP')
  await client.write(0, data)
  const degraded = await node.engine('demo', ({ state, members }) => state === 'degraded' && members.length === 2)
  t.match(
    degraded.replicas.filter(({ state }) => state === 'left'),
    [{ fault: 'no-answer' }],
  )
  t.ok((await client.read(0, data.length)).equals(data))
  t.strictSame(node.records.get('demo'), before)
  node.storeAway = false
  await node.until('the store knows it', () => node.records.get('demo')!.members.length === 2)
  client.close()
})

t.test('two of three and the store are away: I/O waits, and goes on when one is back', async (t) => {
  const node = await aNode(t)
  await node.create('demo')
  const { nbd } = await node.attach('demo', { lateMs: 200 })
  const client = await NbdClient.connect(nbd!, 'demo')
  node.storeAway = true
  for (const disk of ['disk-2', 'disk-3']) process.kill(node.pid(disk), 'SIGSTOP')
  let written = false
  const write = client.write(0, data).then(() => (written = true))
  const waiting = await node.engine('demo', ({ state }) => state === 'waiting')
  t.match(waiting, { waitsFor: 'store', message: /which needs the store/ })
  t.notOk(written)
  process.kill(node.pid('disk-2'), 'SIGCONT')
  await write
  await node.engine('demo', ({ state, members }) => state === 'degraded' && members.length === 2)
  t.ok((await client.read(0, data.length)).equals(data))
  client.close()
})

t.test('an engine is killed while the store is away: the next run goes on from what the supervisor kept', async (t) => {
  const node = await aNode(t)
  await node.create('demo')
  const first = await node.attach('demo')
  const client = await NbdClient.connect(first.nbd!, 'demo')
  await client.write(0, data)
  await client.flush()
  node.storeAway = true
  process.kill(node.pid('demo'), 'SIGKILL')
  const second = await node.engine('demo', ({ run, state }) => run === 2 && state === 'serving')
  t.equal(second.generation, first.generation + 1)
  const again = await NbdClient.connect(second.nbd!, 'demo')
  t.ok((await again.read(0, data.length)).equals(data))
  client.close()
  again.close()
})
