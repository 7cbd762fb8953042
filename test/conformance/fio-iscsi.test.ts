// fio with its libiscsi engine: five sessions at once, many sizes, each block read back and checked.
//
// Debian's fio leaves the engine out. benchmarks/build-fio.mjs builds one that has it.

import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { anAnkole } from './ankole.js'
import { strikes } from './strikes.js'
import { Running } from './tools.js'
import type { Volume } from './volume.js'

const fio = fileURLToPath(new URL('../../../build/fio/fio', import.meta.url))
const skip = existsSync(fio) ? false : 'no fio with libiscsi (node benchmarks/build-fio.mjs builds it)'

/** No flush: the engine names more blocks than the unit has. */
const global = [
  ...['--ioengine=libiscsi', '--thread', '--verify=crc32c', '--do_verify=1', '--verify_fatal=1'],
  ...['--randrepeat=0', '--verify_state_save=0', '--output-format=normal'],
]

/** A session each, and a part of the volume each, as they must not write over one another. */
const jobs: readonly (readonly string[])[] = [
  ['--name=mixed', '--offset=0', '--size=96M', '--rw=randwrite', '--bsrange=4k-256k', '--iodepth=32'],
  ['--name=small', '--offset=96M', '--size=24M', '--rw=randwrite', '--bs=4k', '--iodepth=128'],
  ['--name=sectors', '--offset=120M', '--size=8M', '--rw=randwrite', '--bsrange=512-8k', '--iodepth=8'],
  ['--name=backlog', '--offset=128M', '--size=64M', '--rw=randrw', '--bs=16k', '--iodepth=8', '--verify_backlog=64'],
  ['--name=stream', '--offset=192M', '--size=64M', '--rw=write', '--bs=4M', '--iodepth=4'],
]

function start(volume: Volume): Running {
  // fio splits names at colons that are not escaped.
  const name = `--filename=${volume.iscsiUrl.replaceAll(':', '\\:')}`
  return new Running(fio, [...global, ...jobs.flatMap((job) => [...job, name])])
}

t.test('fio over iSCSI', { skip }, async (t) => {
  const ankole = await anAnkole(t)
  for (const { title, during } of strikes) {
    await t.test(`verifies what five sessions wrote at once, ${title}`, async (t) => {
      const volume = await ankole.createVolume('verified', '256MiB')
      const output = await during(t, { volume, client: () => start(volume), afterBytes: 32 << 20 })
      t.equal(output.match(/err= 0/g)?.length, jobs.length, 'no job saw an error')
      await volume.endsEqual(t)
    })
  }
})
