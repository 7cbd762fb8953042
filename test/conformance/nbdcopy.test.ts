// nbdcopy: an image onto a volume and back, over several connections.

import { join } from 'node:path'
import t from 'tap'
import { aDirectory, anAnkole } from './ankole.js'
import { aRawImage } from './images.js'
import { strikes } from './strikes.js'
import { lacks, run, start } from './tools.js'
import { firstDifference } from './volume.js'

const sizeBytes = 384 << 20

t.test('nbdcopy', { skip: lacks('nbdcopy') }, async (t) => {
  const directory = aDirectory(t)
  const image = aRawImage(join(directory, 'image'), sizeBytes)
  const ankole = await anAnkole(t)

  for (const { title, during } of strikes) {
    await t.test(`there and back, ${title}`, async (t) => {
      const volume = await ankole.createVolume('copied', '384MiB')
      const client = () => start('nbdcopy', ['--flush', image, volume.uri])
      await during(t, { volume, client, afterBytes: 16 << 20 })
      const back = join(directory, 'back')
      await run('nbdcopy', [volume.uri, back])
      t.equal(firstDifference(image, back), undefined, 'what was read is what was written')
      await volume.endsEqual(t, image)
    })
  }
})
