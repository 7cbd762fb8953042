// `ankole snapshot clone`, with the real processes: linked clones that go their own way, outlive their source and are
// rebuilt, and full ones that are what an export of the snapshot is.
import { once } from 'node:events'
import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { VolumeView } from '../../src/api/index.js'
import { pattern } from './builders.js'
import { allocatedByVolume, MiB, show, volumes } from './images.js'
import { clientOf, until, up, type Up } from './up.js'

const blockBytes = 64 * 1024

async function written(node: Up, volume: string, n: number, blocks: number): Promise<void> {
  const client = await clientOf(await node.json('volume', 'show', volume))
  for (let block = 0; block < blocks; block++) await client.write(block * blockBytes, pattern(n + block, blockBytes))
  await client.flush()
  client.close()
}

/** The first blocks, and others behind them. */
async function holds(t: Test, node: Up, volume: string, ...runs: [n: number, blocks: number][]): Promise<void> {
  const client = await clientOf(await node.json('volume', 'show', volume))
  let block = 0
  const wrong: number[] = []
  for (const [n, until] of runs) {
    for (; block < until; block++) {
      const data = await client.read(block * blockBytes, blockBytes)
      if (!data.equals(n < 0 ? Buffer.alloc(blockBytes) : pattern(n + block, blockBytes))) wrong.push(block)
    }
  }
  client.close()
  t.same(wrong, [], `${volume} holds what it should`)
}

/** «one» of 32 blocks of 1000, of which the first eight are others by now. */
async function aSource(node: Up): Promise<void> {
  await node.json('volume', 'create', 'data', '--size', '64MiB', '--replicas', '2')
  await node.json('volume', 'attach', 'data')
  await written(node, 'data', 900, 4)
  await node.json('snapshot', 'create', 'data', 'zero')
  await written(node, 'data', 1000, 32)
  await node.json('snapshot', 'create', 'data', 'one')
  await written(node, 'data', 2000, 8)
}

const layersIn = ({ replicas }: VolumeView): string[] =>
  replicas.flatMap(({ directory }) =>
    readdirSync(directory)
      .filter((name) => /^volume-snap-.*\.img$/.test(name))
      .map((name) => join(directory, name)),
  )

async function exported(t: Test, node: Up, path: string, volume: string, ...options: string[]): Promise<Buffer> {
  t.match(await node.run('volume', 'export', volume, path, '--force', ...options), { exitCode: 0, stderr: '' })
  return readFileSync(path)
}

void t.test('a linked clone is there at once, and goes its own way', async (t) => {
  const data = t.testdir()
  const node = await up(t, data, '--no-demo', '--disks', '3')
  await aSource(node)
  const made = (await node.json('snapshot', 'clone', 'data', 'one', 'copy')) as unknown as VolumeView
  t.match(made, {
    ...{ name: 'copy', state: 'detached', sizeBytes: 64 * MiB, numberOfReplicas: 2 },
    clonedFrom: { volume: 'data', snapshot: 'one', linked: true },
  })
  const places = ({ replicas }: VolumeView): string[] => replicas.map(({ disk }) => disk).sort()
  t.same(places(made), places(await show(node, 'data')), 'on the same disks')
  const links = layersIn(await show(node, 'copy')).map((path) => statSync(path).nlink)
  t.same(links, [2, 2, 2, 2], 'with the same files')

  // Both are written to.
  await node.json('volume', 'attach', 'copy')
  await holds(t, node, 'copy', [1000, 32], [-1, 40])
  await written(node, 'copy', 3000, 4)
  await written(node, 'data', 4000, 6)
  await holds(t, node, 'copy', [3000, 4], [1000, 32], [-1, 40])
  await holds(t, node, 'data', [4000, 6], [2000, 8], [1000, 32], [-1, 40])
  const one = await exported(t, node, join(data, 'one.raw'), 'data', '--snapshot', 'one')
  t.ok(one.subarray(5 * blockBytes, 6 * blockBytes).equals(pattern(1005, blockBytes)))
  await until('the clone is healthy', async () => (await show(node, 'copy')).robustness === 'healthy')

  // What is refused changes nothing.
  t.match(await node.run('snapshot', 'delete', 'data', 'one'), {
    exitCode: 1,
    stderr: /volume copy is a linked clone of it[^]*snapshot-has-clones/,
  })
  t.match(await node.run('snapshot', 'clone', 'data', 'one', 'copy'), { exitCode: 1, stderr: /already-exists/ })
  t.match(await node.run('snapshot', 'clone', 'data', 'none', 'other'), { exitCode: 1, stderr: /not-found/ })
  t.match(await node.run('snapshot', 'clone', 'data', 'one', 'other', '--replicas', '1'), {
    exitCode: 2,
    stderr: /--replicas needs --full/,
  })
  t.same(await volumes(node), ['copy attached', 'data attached'])
  t.match((await node.run('snapshot', 'list', 'data')).stdout, /one .* ready .*cloned: copy/)
  t.match((await node.run('snapshot', 'list', 'copy')).stdout, /\(zero-\w+\) .* base\n\(one-\w+\) .* base\n\* head/)
  t.match((await node.run('volume', 'show', 'copy')).stdout, /cloned from *snapshot one of data, linked/)

  // An older snapshot goes, and its layer stays for now.
  await node.json('snapshot', 'delete', 'data', 'zero')
  // A clone of the clone, which is detached; that one grows and goes back.
  await node.json('snapshot', 'create', 'copy', 'own')
  await written(node, 'copy', 5000, 2)
  await node.json('volume', 'detach', 'copy')
  await node.json('snapshot', 'clone', 'copy', 'own', 'second')
  await node.json('volume', 'attach', 'copy')
  await node.json('volume', 'expand', 'copy', '--size', '80MiB')
  await holds(t, node, 'copy', [5000, 2], [3000, 4], [1000, 32], [-1, 1200])
  await until('it is reverted', async () => (await node.run('snapshot', 'revert', 'copy', 'own')).exitCode === 0)
  await holds(t, node, 'copy', [3000, 4], [1000, 32], [-1, 40])

  // The source goes, and a clone of it.
  await node.json('volume', 'detach', 'data')
  await node.json('volume', 'delete', 'data')
  await holds(t, node, 'copy', [3000, 4], [1000, 32], [-1, 40])
  await node.json('volume', 'detach', 'copy')
  await node.json('volume', 'delete', 'copy')
  await node.stop()
  const again = await up(t, data, '--no-demo', '--disks', '3')
  await again.json('volume', 'attach', 'second')
  await holds(t, again, 'second', [3000, 4], [1000, 32], [-1, 40])
  t.match((await show(again, 'second')).clonedFrom, { volume: 'copy', snapshot: 'own', linked: true })
  // Its layers are its own by now, and are merged.
  await again.json('snapshot', 'create', 'second', 'kept')
  await until('the base is merged', async () => layersIn(await show(again, 'second')).length === 2)
  await holds(t, again, 'second', [3000, 4], [1000, 32], [-1, 40])
})

void t.test('a replica of a linked clone that is lost is made anew from the others', async (t) => {
  const data = t.testdir()
  const lost = async (node: Up, which: number): Promise<Up> => {
    const { replicas } = await show(node, 'copy')
    await node.stop()
    rmSync(replicas[which]?.directory ?? '', { recursive: true })
    return await up(t, data, '--no-demo', '--disks', '2')
  }
  const node = await up(t, data, '--no-demo', '--disks', '2')
  await aSource(node)
  await node.json('snapshot', 'clone', 'data', 'one', 'copy')
  await node.json('volume', 'attach', 'copy')
  await written(node, 'copy', 3000, 4)
  const without = await lost(node, 0)
  await without.json('volume', 'attach', 'copy')
  await holds(t, without, 'copy', [3000, 4], [1000, 32], [-1, 40])
  await until('it is made anew', async () => (await show(without, 'copy')).robustness === 'healthy')
  await without.json('snapshot', 'create', 'copy', 'own')
  await without.json('volume', 'detach', 'copy')
  // It has everything that the other one had.
  const alone = await lost(without, 1)
  await alone.json('volume', 'attach', 'copy')
  await holds(t, alone, 'copy', [3000, 4], [1000, 32], [-1, 40])
  const own = await exported(t, alone, join(data, 'own.raw'), 'copy', '--snapshot', 'own')
  t.ok(own.subarray(20 * blockBytes, 21 * blockBytes).equals(pattern(1020, blockBytes)))
  await alone.json('volume', 'attach', 'data')
  await holds(t, alone, 'data', [2000, 8], [1000, 32], [-1, 40])
})

void t.test('a full clone is what an export of the snapshot is', async (t) => {
  const data = t.testdir()
  const node = await up(t, data, '--no-demo', '--disks', '2')
  await aSource(node)
  const image = await exported(t, node, join(data, 'one.raw'), 'data', '--snapshot', 'one')
  const { stdout, exitCode } = await node.run('snapshot', 'clone', 'data', 'one', 'copy', '--full', '--json')
  t.equal(exitCode, 0)
  const done = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as { event: string; volume: VolumeView }
  t.match(done, {
    ...{ event: 'done', of: 'data', snapshot: 'one' },
    volume: { name: 'copy', numberOfReplicas: 2, transfer: null, clonedFrom: { volume: 'data', linked: false } },
  })
  t.same(layersIn(await show(node, 'copy')), [], 'nothing in common')
  t.ok(
    allocatedByVolume(await show(node, 'copy')).every((bytes) => bytes < 8 * MiB),
    'holes are holes',
  )
  t.ok((await exported(t, node, join(data, 'copy.raw'), 'copy')).equals(image))
  // So the snapshot may go. Of a volume that is detached it stays so.
  await node.json('volume', 'detach', 'data')
  const options = ['--full', '--size', '80MiB', '--replicas', '1']
  t.match(await node.run('snapshot', 'clone', 'data', 'one', 'large', ...options), {
    exitCode: 0,
    stdout: /Volume large is a full clone of snapshot one of volume data, copied in .*: 80 MiB/,
  })
  t.equal((await show(node, 'data')).state, 'detached')
  const large = await exported(t, node, join(data, 'large.raw'), 'large')
  t.ok(large.subarray(0, image.length).equals(image) && large.length === 80 * MiB)
  t.match(await node.run('snapshot', 'clone', 'data', 'one', 'small', '--full', '--size', '32MiB'), {
    exitCode: 1,
    stderr: /does not hold it[^]*invalid-size/,
  })
  await node.json('volume', 'attach', 'data')
  await node.json('snapshot', 'delete', 'data', 'one')
  t.same(await volumes(node), ['copy detached', 'data attached', 'large detached'])
})

void t.test('a full clone that is interrupted leaves nothing', async (t) => {
  const data = t.testdir()
  const node = await up(t, data, '--no-demo', '--disks', '2')
  await node.json('volume', 'create', 'data', '--size', '2GiB', '--replicas', '1')
  const client = await clientOf(await node.json('volume', 'attach', 'data'))
  for (let at = 0; at < 512; at += 8) await client.write(at * MiB, pattern(at, 8 * MiB))
  client.close()
  await node.json('snapshot', 'create', 'data', 'one')
  await node.json('volume', 'detach', 'data')
  const command = node.start('snapshot', 'clone', 'data', 'one', 'copy', '--full', '--json')
  let printed = ''
  command.stdout?.on('data', (chunk: Buffer) => (printed += chunk.toString()))
  await until('it copies', () => Promise.resolve(printed.includes('"progress"')))
  command.kill('SIGINT')
  const [exitCode] = (await once(command, 'exit')) as [number | null]
  t.notOk(printed.includes('"done"'), 'it was under way')
  t.equal(exitCode, 1)
  t.same(await volumes(node), ['data detached'])
})
