// What commands, REST and metrics say of the space that is taken, against the files themselves.
import { readdirSync, statfsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { SnapshotList, SpaceView, VolumeSpaceView } from '../../src/api/index.js'
import { pattern } from './builders.js'
import { clientOf, until, up, type Up } from './up.js'

const MiB = 1024 * 1024

interface Shown {
  replicas: { id: string; directory: string }[]
  space: VolumeSpaceView
}

const allocatedOf = (path: string): number => statSync(path).blocks * 512

/** «du» of a directory, and of its layers by their names. */
function looked(directory: string): { total: number; layers: Map<string, number> } {
  const files = readdirSync(directory).map((name) => ({ name, bytes: allocatedOf(join(directory, name)) }))
  const layers = files.flatMap(({ name, bytes }): [string, number][] => {
    const snapshot = /^volume-snap-(.*)\.img$/.exec(name)?.[1]
    if (snapshot !== undefined) return [[snapshot, bytes]]
    return /^volume-head-.*\.img$/.test(name) ? [['volume-head', bytes]] : []
  })
  return { total: files.reduce((sum, { bytes }) => sum + bytes, allocatedOf(directory)), layers: new Map(layers) }
}

async function shown(node: Up): Promise<Shown> {
  return (await node.json('volume', 'show', 'data')) as unknown as Shown
}

/** True where all that is said of the replicas is what their files take up, within a block of their file system for each. */
function agrees({ replicas, space }: Shown): boolean {
  return replicas.every(({ id, directory }) => {
    const said = space.replicas.find((replica) => replica.id === id)!
    const { total, layers } = looked(directory)
    const blockBytes = statfsSync(directory).bsize
    const near = (a: number | null, b: number): boolean => a !== null && Math.abs(a - b) <= blockBytes
    return (
      said.layers.length === layers.size &&
      said.layers.every(({ name, allocatedBytes }) => near(allocatedBytes, layers.get(name) ?? -1)) &&
      near(said.allocatedBytes, total)
    )
  })
}

void t.test('what is said of layers, snapshots, volumes and disks is what their files take up', async (t) => {
  const node = await up(t, t.testdir(), '--no-demo', '--disks', '2')
  await node.json('volume', 'create', 'data', '--size', '64MiB', '--replicas', '2')
  t.ok(agrees(await shown(node)), 'detached and empty')
  await node.json('volume', 'attach', 'data')
  const client = await clientOf(await node.json('volume', 'show', 'data'))
  // Blocks apart from each other, so that the file system keeps extents of its own.
  for (let at = 0; at < 300; at++) await client.write(at * 65536, pattern(at, 4096))
  await client.flush()
  await node.json('snapshot', 'create', 'data', 'one')
  for (let at = 0; at < 8; at++) await client.write(at * MiB, pattern(at, MiB))
  await node.json('snapshot', 'create', 'data', 'two')
  await client.write(40 * MiB, pattern(1, MiB))
  await client.trim(0, 4 * MiB)
  await client.flush()

  await until('what is said to be so', async () => agrees(await shown(node)))
  const { space, replicas } = await shown(node)
  const [first] = space.replicas
  t.equal(
    space.allocatedBytes,
    space.replicas.reduce((sum, { allocatedBytes }) => sum + allocatedBytes!, 0),
  )
  t.same(first!.layers.map(({ snapshot }) => snapshot).sort(), [null, 'one', 'two'])
  t.ok(first!.layers.every(({ allocatedBytes }) => allocatedBytes >= MiB))
  t.equal(first!.allocatedBytes, first!.dataBytes! + first!.metadataBytes!)

  // The engine says the same of the layers.
  const list = (await node.json('snapshot', 'list', 'data')) as unknown as SnapshotList
  for (const { name, allocatedBytes } of list.layers!) {
    const said = first!.layers.find((layer) => layer.name === name)!
    t.ok(Math.abs(said.allocatedBytes - allocatedBytes) <= 4096, name)
  }

  const total = (): number => replicas.reduce((sum, { directory }) => sum + looked(directory).total, 0)
  const read = async (): Promise<SpaceView> => (await (await fetch(`${node.url}/v1/space`)).json()) as SpaceView
  // Checksums are still being written in the background.
  let all = await read()
  await until('all of it to be so', async () => {
    all = await read()
    return Math.abs(all.volumes[0]!.allocatedBytes! - total()) <= 2 * 4096
  })
  t.match(all.volumes, [{ volume: 'data', sizeBytes: 64 * MiB }])
  for (const { id, totalBytes, freeBytes, replicasBytes, otherBytes } of all.disks) {
    const directory = replicas.find((replica) => replica.directory.includes(`/${id}/`))!.directory
    t.ok(Math.abs(replicasBytes! - looked(directory).total) <= 3 * 4096, id)
    t.equal(otherBytes, totalBytes - freeBytes - replicasBytes!)
  }
  const metrics = await (await fetch(`${node.url}/metrics`)).text()
  const head = first!.layers.find(({ name }) => name === 'volume-head')!.allocatedBytes
  t.match(
    metrics,
    new RegExp(`ankole_replica_allocated_bytes\\{[^}]*replica="${first!.id}"[^}]*part="head"\\} ${head}\n`),
  )
  t.match((await node.run('status')).stdout, /REPLICAS +OTHERS +SCHEDULED/)
  client.close()
})
