// `ankole snapshot clone --full`, with the real processes: it is what an export of the snapshot is, or nothing.
import { once } from 'node:events'
import { join } from 'node:path'
import t from 'tap'
import type { VolumeView } from '../../src/api/index.js'
import { aSource, exported, layersIn } from './cloned-volumes.js'
import { aLongImage, allocatedByVolume, MiB, show, volumes } from './images.js'
import { until, up } from './up.js'

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
    exitCode: 2,
    stderr: /does not hold it[^]*invalid-size/,
  })
  await node.json('volume', 'attach', 'data')
  await node.json('snapshot', 'delete', 'data', 'one')
  t.same(await volumes(node), ['copy detached', 'data attached', 'large detached'])
})

void t.test('a full clone that is interrupted leaves nothing', async (t) => {
  const data = t.testdir()
  const node = await up(t, join(data, 'data'), '--no-demo', '--disks', '1')
  const long = aLongImage(join(data, 'long.raw'))
  t.match(await node.run('volume', 'import', long, 'data', '--replicas', '1'), { exitCode: 0 })
  await node.json('volume', 'attach', 'data')
  await node.json('snapshot', 'create', 'data', 'one')
  await node.json('volume', 'detach', 'data')
  const command = node.start('snapshot', 'clone', 'data', 'one', 'copy', '--full', '--json')
  let printed = ''
  command.stdout?.on('data', (chunk: Buffer) => (printed += chunk.toString()))
  const ended = once(command, 'exit') as Promise<[number | null]>
  await until('it copies', () => Promise.resolve(printed.includes('"progress"')))
  command.kill('SIGINT')
  const [exitCode] = await ended
  t.equal(exitCode, 1)
  t.notOk(printed.includes('"done"'), 'it was under way')
  t.same(await volumes(node), ['data detached'])
})
