// qemu's iSCSI initiator and its NBD client on one volume: what one writes is what the other reads.

import { writeFileSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { aDirectory, anAnkole } from './ankole.js'
import { aRawImage } from './images.js'
import { strikes } from './strikes.js'
import { lacks, qemuLacksIscsi, run, start } from './tools.js'

const imageBytes = 256 << 20
const sizeBytes = 64 << 20

function qemuIo(url: string, commands: readonly string[]): Promise<string> {
  return run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), url])
}

t.test('qemu over iSCSI', { skip: lacks('qemu-img', 'qemu-io') || qemuLacksIscsi() }, async (t) => {
  const directory = aDirectory(t)
  const image = aRawImage(join(directory, 'image'), imageBytes)
  const ankole = await anAnkole(t)

  for (const { title, during } of strikes) {
    await t.test(`an image written over iSCSI is read over both, ${title}`, async (t) => {
      const volume = await ankole.createVolume('converted', '256MiB')
      const client = () => start('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', image, volume.iscsiUrl])
      await during(t, { volume, client, afterBytes: 16 << 20 })
      for (const url of [volume.iscsiUrl, volume.uri]) {
        t.match(await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, url]), /identical/)
      }
      await volume.endsEqual(t, image)
    })
  }

  await t.test(
    'the engine killed in the middle: the initiator comes back to it, and all that it wrote is there',
    async (t) => {
      const volume = await ankole.createVolume('reborn', '256MiB')
      const pid = (await ankole.enginePid('reborn'))!
      const written = await volume.watchWritten()
      const args = ['convert', '-n', '-f', 'raw', '-O', 'raw', image, volume.iscsiUrl]
      const client = start('qemu-img', args)
      await written(16 << 20)
      process.kill(pid, 'SIGKILL')
      t.ok(client.isRunning, 'the client is at work')
      await client.succeeded()
      t.not(await ankole.enginePid('reborn'), pid, 'another engine serves')
      for (const url of [volume.iscsiUrl, volume.uri]) {
        t.match(await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, url]), /identical/)
      }
      await volume.delete()
    },
  )

  await t.test('each reads what the other wrote, zeroed and unmapped', async (t) => {
    const volume = await ankole.createVolume('shared', '64MiB')
    const writes: [string, string[]][] = [
      [volume.uri, ['write -P 0x11 0 4M', 'write -P 0x12 8M 1M', 'flush']],
      [
        volume.iscsiUrl,
        ['write -P 0x21 1M 64k', 'write -f -P 0x22 2M 4k', 'write -z 3M 64k', 'discard 8M 512k', 'flush'],
      ],
      [volume.uri, ['write -P 0x13 1064960 512', 'write -z -u 2M 512', 'flush']],
      [
        volume.iscsiUrl,
        ['write -P 0x23 1065472 512', 'write -P 0x24 67108352 512', 'aio_write -P 0x25 16M 2M', 'aio_flush'],
      ],
    ]
    const reads = [
      ...['read -P 0x11 0 1M', 'read -P 0x21 1M 16k', 'read -P 0x13 1064960 512', 'read -P 0x23 1065472 512'],
      ...['read -P 0x21 1065984 48128', 'read -P 0x11 1114112 960k', 'read -P 0 2M 512', 'read -P 0x22 2097664 3584'],
      ...['read -P 0x11 2101248 1020k', 'read -P 0 3M 64k', 'read -P 0x11 3211264 960k', 'read -P 0 8M 512k'],
      ...['read -P 0x12 8704k 512k', 'read -P 0x25 16M 2M', 'read -P 0x24 67108352 512'],
    ]
    for (const [url, commands] of writes) t.notMatch(await qemuIo(url, commands), /failed|error/i)
    for (const url of [volume.iscsiUrl, volume.uri]) {
      const answers = await qemuIo(url, reads)
      t.notMatch(answers, /failed|error/i, url)
      t.equal(answers.match(/^read \d+\/\d+ bytes/gm)?.length, reads.length, 'all was read')
    }

    const reference = join(directory, 'reference')
    writeFileSync(reference, '')
    truncateSync(reference, sizeBytes)
    await qemuIo(
      reference,
      writes.flatMap(([, commands]) => commands),
    )
    await volume.endsEqual(t, reference)
  })
})
