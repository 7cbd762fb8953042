// Snapshots by command, of real processes: under I/O, through a restart and a crash, and while the volume is detached.
import { once } from 'node:events'
import t, { type Test } from 'tap'
import type { SnapshotDeletionView, SnapshotList, SnapshotView } from '../../src/api/index.js'
import { pattern } from './builders.js'
import type { NbdClient } from './nbd-client.js'
import { clientOf, until, up, type Up } from './up.js'

const blockBytes = 64 * 1024
const blocks = 256

const json = async <T>(node: Up, ...parameters: string[]): Promise<T> => (await node.json(...parameters)) as T
const list = (node: Up): Promise<SnapshotList> => json<SnapshotList>(node, 'snapshot', 'list', 'data')
const namesOf = ({ snapshots }: SnapshotList): string[] => snapshots.map(({ name, state }) => `${name} ${state}`)

/** Writes all over the volume until it is told to stop; says which pattern each block has. */
function aWriter(client: NbdClient): { stop: () => Promise<Map<number, number>> } {
  const written = new Map<number, number>()
  let stopping = false
  const work = async (): Promise<void> => {
    for (let n = 0; !stopping; n++) {
      const block = (n * 7) % blocks
      await client.write(block * blockBytes, pattern(n, blockBytes))
      written.set(block, n)
    }
    await client.flush()
  }
  const done = work()
  return {
    stop: async () => {
      stopping = true
      await done
      return written
    },
  }
}

async function check(t: Test, client: NbdClient, written: Map<number, number>): Promise<void> {
  const wrong: number[] = []
  for (const [block, n] of written) {
    const data = await client.read(block * blockBytes, blockBytes)
    if (!data.equals(pattern(n, blockBytes))) wrong.push(block)
  }
  t.same(wrong, [], `all of ${written.size} blocks are as written last`)
}

void t.test('snapshots are taken under I/O, listed, deleted, and are there after a restart', async (t) => {
  const data = t.testdir()
  const node = await up(t, data, '--no-demo', '--disks', '2')
  await node.json('volume', 'create', 'data', '--size', '64MiB', '--replicas', '2')
  t.match(await node.run('snapshot', 'create', 'data'), { exitCode: 1, stderr: /volume-not-attached/ })
  const client = await clientOf(await node.json('volume', 'attach', 'data'))
  const writer = aWriter(client)
  for (const name of ['one', 'two', 'three']) {
    const taken = await json<SnapshotView>(node, 'snapshot', 'create', 'data', name, '--label', `is=${name}`)
    t.match(taken, { name, state: 'ready', labels: { is: name }, sizeBytes: 64 << 20 })
    t.ok(taken.pauseMs !== null && taken.pauseMs < 5000, `I/O was held up for ${taken.pauseMs ?? NaN} ms`)
  }
  const written = await writer.stop()
  t.ok(written.size > 10, `${written.size} blocks were written meanwhile`)
  await check(t, client, written)
  const { snapshots, layers } = await list(node)
  const [one, two, three] = snapshots
  t.match(layers, [
    { name: one!.layer, snapshot: 'one', parent: null, children: [two!.layer], removed: false },
    { name: two!.layer, snapshot: 'two', parent: one!.layer, children: [three!.layer] },
    { name: three!.layer, snapshot: 'three', parent: two!.layer, children: ['volume-head'] },
    { head: true, parent: three!.layer, children: [] },
  ])
  t.match((await node.run('snapshot', 'list', 'data')).stdout, /\none .*\ntwo .* ready +is=two\nthree .*\n\* head /)

  const deleted = await json<SnapshotDeletionView>(node, 'snapshot', 'delete', 'data', 'two')
  t.match(deleted, { name: 'two', deleted: true, allocatedBytes: Number })
  t.same(namesOf(await list(node)), ['one ready', 'three ready'])
  await check(t, client, written)
  const metrics = await (await fetch(`${node.url}/metrics`)).text()
  t.match(metrics, /^ankole_volume_snapshots\{volume="data",state="ready"\} 2$/m)
  t.match(metrics, /^ankole_volume_snapshots_taken_total\{volume="data"\} 3$/m)
  t.match(metrics, /^ankole_volume_snapshot_pause_seconds_count\{volume="data"\} [3-9]$/m)
  t.match(metrics, /^ankole_volume_snapshot_allocated_bytes\{volume="data"\} \d+$/m)
  client.close()
  t.equal((await node.stop()).exitCode, 0, 'it stops clean', { stderr: node.stderr() })

  const again = await up(t, data)
  const reader = await clientOf(await again.json('volume', 'attach', 'data'))
  await check(t, reader, written)
  await until('the layers', async () => (await list(again)).layers !== null)
  const after = await list(again)
  const kept = ({ name, state, layer, labels, pauseMs }: SnapshotView) => ({ name, state, layer, labels, pauseMs })
  t.same(after.snapshots.map(kept), [one!, three!].map(kept))
  await json(again, 'snapshot', 'create', 'data', 'four')
  await again.json('volume', 'detach', 'data')
  const later = await json<SnapshotDeletionView>(again, 'snapshot', 'delete', 'data', 'one')
  t.match(later, { deleted: false, message: /deleted when that is attached next/ })
  t.same(namesOf(await list(again)), ['one deleting', 'three ready', 'four ready'])
  const last = await clientOf(await again.json('volume', 'attach', 'data'))
  await until('its end', async () => namesOf(await list(again)).length === 2)
  await check(t, last, written)
  last.close()
  t.match(await again.json('volume', 'delete', 'data', '--force'), { deleted: true })
  t.equal((await again.stop()).exitCode, 0, 'it stops clean', { stderr: again.stderr() })
})

void t.test(
  'what was answered is there after a crash of everything, and what was asked for comes to an end',
  async (t) => {
    const data = t.testdir()
    const node = await up(t, data, '--no-demo', '--disks', '2')
    await node.json('volume', 'create', 'data', '--size', '64MiB', '--replicas', '2')
    const client = await clientOf(await node.json('volume', 'attach', 'data'))
    await client.write(0, pattern(1, blockBytes))
    await json(node, 'snapshot', 'create', 'data', 'kept')
    const asked = node.run('snapshot', 'create', 'data', 'asked')
    await until('the request', async () => namesOf(await list(node)).length === 2)
    node.child.kill('SIGKILL')
    await once(node.child, 'exit')
    await asked
    const again = await up(t, data)
    await again.json('volume', 'attach', 'data')
    await until('both', async () => {
      const names = namesOf(await list(again))
      return names.length === 2 && names.every((name) => name.endsWith(' ready'))
    })
    const { snapshots, layers } = await list(again)
    t.same(
      layers?.flatMap(({ snapshot, removed }) => (removed ? [] : [snapshot])),
      [...snapshots.map(({ name }) => name), null],
      'and no layer is there that nobody has',
    )
    await again.stop()
  },
)

void t.test('an engine that is killed while it takes one does not keep it from being taken', async (t) => {
  const node = await up(t, t.testdir(), '--no-demo', '--disks', '2')
  await node.json('volume', 'create', 'data', '--size', '64MiB', '--replicas', '2')
  const client = await clientOf(await node.json('volume', 'attach', 'data'))
  await client.write(0, pattern(1, blockBytes))
  const engine = (await node.json('status')).processes!.find(({ kind }) => kind === 'engine')!
  process.kill(engine.pid, 'SIGSTOP') // It does not answer, and then it is gone.
  const asked = node.run('snapshot', 'create', 'data', 'monday')
  await until('the request', async () => namesOf(await list(node)).length === 1)
  process.kill(engine.pid, 'SIGKILL')
  const { exitCode, stdout, stderr } = await asked
  t.match(stdout, /^Snapshot monday of volume data is ready/)
  t.equal(exitCode, 0, `it is taken ${stderr}`)
  const reader = await clientOf(await node.json('volume', 'attach', 'data'))
  t.ok((await reader.read(0, blockBytes)).equals(pattern(1, blockBytes)))
  reader.close()
  await node.stop()
})

void t.test('a replica that was away is given the snapshots that were taken meanwhile', async (t) => {
  const node = await up(t, t.testdir(), '--no-demo', '--disks', '2')
  await node.json('volume', 'create', 'data', '--size', '64MiB', '--replicas', '2')
  const client = await clientOf(await node.json('volume', 'attach', 'data'))
  const volume = async () => (await node.json('status')).volumes!.find(({ name }) => name === 'data')!
  const isHealthy = async (): Promise<boolean> => (await volume()).robustness === 'healthy'
  const diskHost = async (disk: string): Promise<number> =>
    (await node.json('status')).processes!.find((process) => process.disk === disk)!.pid
  const writeAll = async (n: number): Promise<void> => {
    for (let block = 0; block < blocks; block += 16) {
      await client.write(block * blockBytes, pattern(n + block, blockBytes))
    }
  }
  await writeAll(1)
  await json(node, 'snapshot', 'create', 'data', 'one')
  const stopped = await diskHost('disk-2')
  process.kill(stopped, 'SIGSTOP')
  await writeAll(2)
  await until('the replica to leave', async () => !(await isHealthy()))
  await json(node, 'snapshot', 'create', 'data', 'two')
  await writeAll(3)
  await json(node, 'snapshot', 'create', 'data', 'three')
  await json(node, 'snapshot', 'delete', 'data', 'one')
  process.kill(stopped, 'SIGCONT')
  await until('the replica to be back', isHealthy)
  // It alone has all that there is.
  const other = await diskHost('disk-1')
  process.kill(other, 'SIGSTOP')
  await writeAll(4)
  await until('the other one to leave', async () => !(await isHealthy()))
  t.same(namesOf(await list(node)), ['two ready', 'three ready'])
  const { layers } = await list(node)
  t.same(
    layers!.filter(({ removed }) => !removed).map(({ snapshot }) => snapshot),
    ['two', 'three', null],
  )
  process.kill(other, 'SIGCONT')
  await until('both', isHealthy)
  client.close()
  t.equal((await node.stop()).exitCode, 0, 'it stops clean', { stderr: node.stderr() })
})
