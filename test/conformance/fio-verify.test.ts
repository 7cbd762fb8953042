// fio with its nbd engine: many sizes at many places, several jobs at once, each block read back and checked.

import t from 'tap'
import { anAnkole } from './ankole.js'
import { strikes } from './strikes.js'
import { lacks, start, type Running } from './tools.js'
import type { Volume } from './volume.js'

const global = [
  '--ioengine=nbd',
  '--thread',
  '--verify=crc32c',
  '--do_verify=1',
  '--verify_fatal=1',
  '--randrepeat=0',
  '--verify_state_save=0',
]

/** A part of the volume each, as they must not write over one another. */
const jobs: readonly (readonly string[])[] = [
  ['--name=mixed', '--offset=0', '--size=96M', '--rw=randwrite', '--bsrange=4k-256k', '--iodepth=32', '--fsync=64'],
  ['--name=small', '--offset=96M', '--size=24M', '--rw=randwrite', '--bs=4k', '--iodepth=16'],
  ['--name=sectors', '--offset=120M', '--size=8M', '--rw=randwrite', '--bsrange=512-8k', '--iodepth=8'],
  ['--name=backlog', '--offset=128M', '--size=64M', '--rw=randrw', '--bs=16k', '--iodepth=8', '--verify_backlog=64'],
  ['--name=stream', '--offset=192M', '--size=64M', '--rw=write', '--bs=1M', '--iodepth=4'],
]

function fio(volume: Volume): Running {
  const each = jobs.flatMap((job) => [...job, `--uri=${volume.uri}`])
  return start('fio', [...global, ...each, '--output-format=normal'])
}

t.test('fio', { skip: lacks('fio') }, async (t) => {
  const ankole = await anAnkole(t)
  for (const { title, during } of strikes) {
    await t.test(`verifies what five jobs wrote at once, ${title}`, async (t) => {
      const volume = await ankole.createVolume('verified', '256MiB')
      const output = await during(t, { volume, client: () => fio(volume), afterBytes: 32 << 20 })
      t.equal(output.match(/err= 0/g)?.length, jobs.length, 'no job saw an error')
      await volume.endsEqual(t)
    })
  }

  await t.test('discards and writes again at the same places', async (t) => {
    const volume = await ankole.createVolume('trimmed', '128MiB')
    const job = ['--name=trim', '--rw=randtrimwrite', '--bs=64k', '--size=64M', '--iodepth=8', '--ioengine=nbd']
    const output = await start('fio', [...job, `--uri=${volume.uri}`]).succeeded()
    t.match(output, /err= 0/)
    await volume.endsEqual(t)
  })
})
