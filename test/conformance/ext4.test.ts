// An ext4 file system made from a tree, copied onto a volume and read back: clean, and every file as it was.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { aDirectory, anAnkole } from './ankole.js'
import { anExt4Image, aTree, contents } from './images.js'
import { strikes } from './strikes.js'
import { lacks, run, start } from './tools.js'

const sizeBytes = 320 << 20

t.test('ext4', { skip: lacks('mke2fs', 'e2fsck', 'debugfs', 'nbdcopy') }, async (t) => {
  const directory = aDirectory(t)
  const tree = aTree(join(directory, 'tree'), 160 << 20)
  const image = await anExt4Image(join(directory, 'image'), tree, sizeBytes)
  const expected = contents(tree)
  const ankole = await anAnkole(t)

  for (const [n, { title, during }] of strikes.entries()) {
    await t.test(`a file system comes back clean and whole, ${title}`, async (t) => {
      const volume = await ankole.createVolume('ext4', '320MiB')
      const client = () => start('nbdcopy', ['--flush', image, volume.uri])
      await during(t, { volume, client, afterBytes: 16 << 20 })
      const back = join(directory, `back-${n}`)
      await run('nbdcopy', [volume.uri, back])
      await run('e2fsck', ['-f', '-n', back])
      const dumped = join(directory, `dumped-${n}`)
      mkdirSync(dumped)
      await run('debugfs', ['-R', `rdump / ${dumped}`, back])
      t.strictSame(contents(dumped), expected, 'every file is as it was')
      await volume.endsEqual(t, image)
    })
  }
})
