// qemu-img: a qcow2 with a file system in it, converted onto a volume and compared with it.

import { join } from 'node:path'
import t from 'tap'
import { aDirectory, anAnkole } from './ankole.js'
import { anExt4Image, aTree } from './images.js'
import { strikes } from './strikes.js'
import { lacks, run, start } from './tools.js'

const sizeBytes = 384 << 20

t.test('qemu-img', { skip: lacks('qemu-img', 'mke2fs') }, async (t) => {
  const directory = aDirectory(t)
  const tree = aTree(join(directory, 'tree'), 224 << 20)
  const raw = await anExt4Image(join(directory, 'raw'), tree, sizeBytes)
  const qcow2 = join(directory, 'image.qcow2')
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2])
  const ankole = await anAnkole(t)

  for (const { title, during } of strikes) {
    await t.test(`converts a qcow2 onto a volume and compares, ${title}`, async (t) => {
      const volume = await ankole.createVolume('converted', '384MiB')
      const client = () => start('qemu-img', ['convert', '-n', '-f', 'qcow2', '-O', 'raw', qcow2, volume.uri])
      await during(t, { volume, client, afterBytes: 16 << 20 })
      t.match(await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', qcow2, volume.uri]), /identical/)
      await volume.endsEqual(t, raw)
    })
  }

  await t.test('info knows the size', async (t) => {
    const volume = await ankole.createVolume('info', '384MiB')
    const info = JSON.parse(await run('qemu-img', ['info', '--output=json', volume.uri])) as object
    t.match(info, { 'virtual-size': sizeBytes, format: 'raw' })
    await volume.delete()
  })
})
