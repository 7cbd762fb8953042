// Reverts by command, of real processes: there and back again, with a client connected, and with a replica that was away.
import t from 'tap'
import type { RevertView, SnapshotList } from '../../src/api/index.js'
import { pattern } from './builders.js'
import type { NbdClient } from './nbd-client.js'
import { clientOf, until, up, type Up } from './up.js'

const blockBytes = 64 * 1024

async function written(node: Up, n: number, blocks: number): Promise<void> {
  const client = await clientOf(await node.json('volume', 'show', 'data'))
  for (let block = 0; block < blocks; block++) await client.write(block * blockBytes, pattern(n + block, blockBytes))
  await client.flush()
  client.close()
}

async function holds(node: Up, n: number, blocks: number): Promise<boolean> {
  const client: NbdClient = await clientOf(await node.json('volume', 'show', 'data'))
  let good = true
  for (let block = 0; block < blocks; block++) {
    const data = await client.read(block * blockBytes, blockBytes)
    good &&= data.equals(pattern(n + block, blockBytes))
  }
  client.close()
  return good
}

/** A connection that was closed may count for a moment still. */
async function reverted(node: Up, name: string, ...options: string[]): Promise<RevertView> {
  let view: RevertView | undefined
  await until('no client', async () => {
    const { exitCode, stdout } = await node.run('snapshot', 'revert', 'data', name, ...options, '--json')
    if (exitCode === 0) view = JSON.parse(stdout) as RevertView
    return exitCode === 0
  })
  return view!
}

void t.test('a volume is taken back to a snapshot, and to what it was before that', async (t) => {
  const data = t.testdir()
  const node = await up(t, data, '--no-demo', '--disks', '2')
  await node.json('volume', 'create', 'data', '--size', '64MiB', '--replicas', '2')
  await node.json('volume', 'attach', 'data')
  await written(node, 1000, 64)
  await node.json('snapshot', 'create', 'data', 'one')
  await written(node, 2000, 32)
  await node.json('snapshot', 'create', 'data', 'two')
  await written(node, 3000, 16)

  const client = await clientOf(await node.json('volume', 'show', 'data'))
  t.match(await node.run('snapshot', 'revert', 'data', 'one'), {
    exitCode: 1,
    stderr: /in use: 0 iSCSI sessions and 1 NBD connections.*revert-failed/s,
  })
  client.close()
  t.ok(await holds(node, 3000, 16), 'nothing changed')

  const view = await reverted(node, 'one', '--keep', 'latest')
  t.match(view, { volume: 'data', snapshot: 'one', kept: 'latest' })
  t.ok(await holds(node, 1000, 64))
  await written(node, 4000, 8)
  await node.json('snapshot', 'create', 'data', 'three')
  const list = (await node.json('snapshot', 'list', 'data')) as SnapshotList
  const one = list.snapshots.find(({ name }) => name === 'one')
  t.equal(one?.children.length, 2, 'a branch')
  t.match((await node.run('snapshot', 'list', 'data')).stdout, /├─ .*\n(.*\n)*.*└─ /)

  await reverted(node, 'latest')
  t.ok(await holds(node, 3000, 16))
  t.match(await node.run('snapshot', 'revert', 'data', 'nowhere'), { exitCode: 1, stderr: /not-found/ })

  // And it stays so.
  await node.stop()
  const again = await up(t, data, '--no-demo', '--disks', '2')
  await again.run('volume', 'attach', 'data')
  t.ok(await holds(again, 3000, 16))
  await reverted(again, 'three')
  t.ok(await holds(again, 4000, 8))
})
