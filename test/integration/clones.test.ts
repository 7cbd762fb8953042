// `ankole snapshot clone`, with the real processes: linked clones go their own way, outlive their source and are rebuilt.
import { rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { VolumeView } from '../../src/api/index.js'
import { pattern } from './builders.js'
import { aSource, blockBytes, exported, holds, layersIn, written } from './cloned-volumes.js'
import { MiB, show, volumes } from './images.js'
import { until, up, type Up } from './up.js'

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
  t.match((await node.run('snapshot', 'list', 'data')).stdout, /\(zero-\w+\) .* removed .*not merged before: copy/)
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
