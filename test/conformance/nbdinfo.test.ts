// nbdinfo: what is exported, what it can do, where data is.

import t from 'tap'
import { anAnkole } from './ankole.js'
import { lacks, run, start } from './tools.js'

interface Export {
  'export-name': string
  'export-size': number
  [capability: string]: unknown
}

t.test('exports as nbdinfo sees them', { skip: lacks('nbdinfo') }, async (t) => {
  const ankole = await anAnkole(t)
  const volume = await ankole.createVolume('data', '256MiB')
  const server = volume.uri.slice(0, volume.uri.lastIndexOf('/'))

  await t.test('size and capabilities', async (t) => {
    const { exports } = JSON.parse(await run('nbdinfo', ['--json', volume.uri])) as { exports: Export[] }
    t.match(exports, [
      {
        ...{ 'export-name': 'data', 'export-size': 256 << 20, is_read_only: false },
        ...{ can_flush: true, can_fua: true, can_trim: true, can_zero: true, can_multi_conn: true },
        ...{ block_size_minimum: 512, block_size_preferred: 4096 },
      },
    ])
    t.equal((await run('nbdinfo', ['--size', volume.uri])).trim(), String(256 << 20))
  })

  await t.test('the list names the volume and nothing else', async (t) => {
    const { exports } = JSON.parse(await run('nbdinfo', ['--list', '--json', server])) as { exports: Export[] }
    t.strictSame(
      exports.map((each) => each['export-name']),
      ['data'],
    )
  })

  await t.test('an unknown export is refused, and the known one goes on', async (t) => {
    for (const name of ['nothing', 'dat', 'data2', 'DATA', 'a'.repeat(4000)]) {
      const { code, stderr } = await start('nbdinfo', [`${server}/${name}`]).ended
      t.not(code, 0, name.slice(0, 10))
      t.not(stderr, '')
    }
    await run('nbdinfo', ['--can', 'connect', volume.uri])
  })

  await t.test('the map shows where data is', { skip: lacks('qemu-io') }, async (t) => {
    const write = ['-c', 'write -P 7 64M 8M', '-c', 'write -P 7 128M 64k', '-c', 'discard 66M 2M', '-c', 'flush']
    await run('qemu-io', ['-f', 'raw', ...write, volume.uri])
    const map = JSON.parse(await run('nbdinfo', ['--map', '--json', volume.uri])) as {
      offset: number
      length: number
      type: number
    }[]
    const mebibyte = 1 << 20
    const holeAndZero = 3
    t.strictSame(
      map.map(({ offset, length, type }) => ({ offset, length, type })),
      [
        { offset: 0, length: 64 * mebibyte, type: holeAndZero },
        { offset: 64 * mebibyte, length: 2 * mebibyte, type: 0 },
        { offset: 66 * mebibyte, length: 2 * mebibyte, type: holeAndZero },
        { offset: 68 * mebibyte, length: 4 * mebibyte, type: 0 },
        { offset: 72 * mebibyte, length: 56 * mebibyte, type: holeAndZero },
        { offset: 128 * mebibyte, length: 65536, type: 0 },
        { offset: 128 * mebibyte + 65536, length: 128 * mebibyte - 65536, type: holeAndZero },
      ],
    )
  })
})
