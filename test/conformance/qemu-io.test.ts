// qemu-io: patterns, zeroes, discard, FUA, flush and ranges that end anywhere. A plain file is given the same commands, and
// must hold the same in the end.

import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { aDirectory, anAnkole } from './ankole.js'
import { strikes } from './strikes.js'
import { lacks, run, start } from './tools.js'

const sizeBytes = 256 << 20

const writes = [
  'write -P 0xa1 0 2M',
  'write -P 0xb2 1M 64k',
  'write -z 64k 128k', // may leave a hole
  'write -z -u 512k 64k', // may unmap
  'write -z 700001 5001',
  'discard 256k 128k',
  'write -f -P 0xc3 2M 4k', // FUA
  'write -f -z 1500k 8k',
  'write -P 0xd4 3145728 512', // one sector
  'write -P 0xd5 3146751 1025', // across sectors, aligned nowhere
  'write -P 0xd6 4095 2',
  'write -P 0xe7 268435455 1', // the last byte
  'aio_write -P 0x11 8M 1M', // one after another at the same place
  'aio_write -P 0x12 9M 1M',
  'aio_flush',
  'flush',
]

const reads = [
  ...['read -P 0xa1 0 4095', 'read -P 0xd6 4095 2', 'read -P 0xa1 4097 61439'],
  ...['read -P 0 64k 128k', 'read -P 0xa1 192k 64k', 'read -P 0 256k 128k', 'read -P 0 512k 64k'],
  ...['read -P 0 700001 5001', 'read -P 0xa1 705002 1000'],
  ...['read -P 0xb2 1M 64k', 'read -P 0 1500k 8k', 'read -P 0xc3 2M 4k', 'read -P 0 2101248 4096'],
  ...['read -P 0xd4 3145728 512', 'read -P 0 3146240 511', 'read -P 0xd5 3146751 1025', 'read -P 0 3147776 512'],
  ...['read -P 0x11 8M 1M', 'read -P 0x12 9M 1M', 'read -P 0xe7 268435455 1', 'read -P 0 268435000 455'],
]

const bulk = Array.from({ length: 96 }, (_, n) => `write -P ${1 + (n % 250)} ${(16 + 2 * n) << 20} 2M`)

function commands(list: readonly string[]): string[] {
  return list.flatMap((command) => ['-c', command])
}

t.test('qemu-io', { skip: lacks('qemu-io') }, async (t) => {
  const directory = aDirectory(t)
  const reference = join(directory, 'reference')
  const ankole = await anAnkole(t)

  for (const { title, during } of strikes) {
    await t.test(`patterns, zeroes, discard, FUA and flush, ${title}`, async (t) => {
      const volume = await ankole.createVolume('patterns', '256MiB')
      const client = () => start('qemu-io', ['-f', 'raw', ...commands([...writes, ...bulk, 'flush']), volume.uri])
      const output = await during(t, { volume, client, afterBytes: 32 << 20 })
      t.notMatch(output, /failed|error/i)
      const answers = await run('qemu-io', ['-f', 'raw', '-r', ...commands(reads), volume.uri])
      t.notMatch(answers, /failed|error/i)
      t.equal(answers.match(/^read \d+\/\d+ bytes/gm)?.length, reads.length, 'all was read')

      writeFileSync(reference, '')
      truncateSync(reference, sizeBytes)
      await run('qemu-io', ['-f', 'raw', ...commands([...writes, ...bulk, 'flush']), reference])
      await volume.endsEqual(t, reference)
    })
  }

  await t.test('what reaches past the end is refused, and nothing else suffers', async (t) => {
    const volume = await ankole.createVolume('edge', '64MiB')
    const { code, stdout, stderr } = await start('qemu-io', [
      ...['-f', 'raw', ...commands(['write -P 1 67108352 1024']), volume.uri],
    ]).ended
    t.not(code, 0)
    t.not(stdout + stderr, '')
    const answers = await run('qemu-io', ['-f', 'raw', ...commands(['read -P 0 67108352 512']), volume.uri])
    t.notMatch(answers, /failed|error/i)
    await volume.delete()
  })
})
