// Images that qemu-img made, and what becomes of them: whatever is cut off, an image is refused or is the same disk.
import { spawnSync } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import {
  closeSync,
  copyFileSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openImage } from '../../../src/image/index.js'
import { lacksQemuImg, qemuImg } from './builders.js'

const signal = new AbortController().signal
const opened = async (path: string): Promise<void> => {
  const { file } = await openImage(path, undefined, signal)
  await file.close()
}

/** Data at both ends and a hole between; its end is within a cluster. */
function aDisk(t: Test): { raw: string; directory: string } {
  const directory = t.testdir({ raw: randomFillSync(Buffer.alloc(20_480)) })
  truncateSync(join(directory, 'raw'), 200_704)
  const data = randomFillSync(Buffer.alloc(6_144))
  const file = openSync(join(directory, 'raw'), 'r+')
  writeSync(file, data, 0, data.length, 200_704 - data.length)
  closeSync(file)
  return { raw: join(directory, 'raw'), directory }
}

t.test('a truncated qcow2', { skip: lacksQemuImg }, async (t) => {
  const kinds: Record<string, string[]> = {
    plain: [],
    'of 4 KiB clusters': ['-o', 'cluster_size=4k'],
    'of version 2': ['-o', 'compat=0.10,cluster_size=512'],
    compressed: ['-c', '-o', 'cluster_size=8k'],
    'with subclusters': ['-o', 'extended_l2=on,cluster_size=16k'],
  }
  for (const [kind, options] of Object.entries(kinds)) {
    await t.test(`${kind} is refused, or the same disk`, async (t) => {
      const { raw, directory } = aDisk(t)
      const whole = join(directory, 'whole.qcow2')
      qemuImg('convert', '-f', 'raw', '-O', 'qcow2', ...options, raw, whole)
      await t.resolves(opened(whole), 'what is whole is taken')
      const bytes = readFileSync(whole)
      const cut = join(directory, 'cut.qcow2')
      const taken: number[] = []
      // As dense as goes with its size, with odd ends too.
      const step = Math.max(512, Math.ceil(bytes.length / 300 / 512) * 512)
      for (let length = bytes.length - step; length > 0; length -= step) {
        writeFileSync(cut, bytes.subarray(0, length))
        await opened(cut).then(
          () => taken.push(length),
          (error: unknown) => t.match(error, { code: 'invalid-image', message: /truncated|damaged/ }),
        )
      }
      if (kind === 'plain') t.ok(taken.length > 0, 'its last cluster may end where the disk does')
      for (const length of taken) {
        writeFileSync(cut, bytes.subarray(0, length))
        const compared = spawnSync('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', cut, raw])
        t.equal(compared.status, 0, `${length} of ${bytes.length} bytes were taken`)
      }
    })
  }
})

t.test('an image that contradicts itself is refused', { skip: lacksQemuImg }, async (t) => {
  const { raw, directory } = aDisk(t)
  const image = join(directory, 'image.qcow2')
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', raw, image)
  const bytes = readFileSync(image)
  const l2 = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(40))) & 0x00fffffffffffe00n)

  const twice = Buffer.from(bytes)
  bytes.copy(twice, l2 + 3 * 8, l2, l2 + 8) // The last cluster is the first one again.
  writeFileSync(image, twice)
  await t.rejects(opened(image), { code: 'invalid-image', message: /it is damaged \(qemu-img check: .*refcount/i })

  const far = Buffer.from(bytes)
  far.writeBigUInt64BE((1n << 63n) | (1n << 50n), l2)
  writeFileSync(image, far)
  await t.rejects(opened(image), { message: /it is truncated/ })
})

t.test('tables that are used twice are not walked through twice', { skip: lacksQemuImg }, async (t) => {
  const directory = t.testdir()
  const image = join(directory, 'image.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata,cluster_size=512', image, '1M')
  const bytes = readFileSync(image)
  const l1 = Number(bytes.readBigUInt64BE(40))
  bytes.copy(bytes, l1 + 8, l1, l1 + 8)
  writeFileSync(image, bytes)
  await t.rejects(opened(image), { code: 'invalid-image', message: /it is damaged: there are numbers/ })
})

t.test('nothing is opened that an image names', { skip: lacksQemuImg }, async (t) => {
  const { raw, directory } = aDisk(t)
  const image = join(directory, 'image.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', raw, '-F', 'raw', image)
  await t.rejects(opened(image), { code: 'invalid-image', message: /only what differs from its backing file ".*raw"/ })
  const data = join(directory, 'data')
  const outside = join(directory, 'outside.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${data}`, outside, '1M')
  await t.rejects(opened(outside), { code: 'invalid-image', message: /external data file/ })
  t.equal(statSync(raw).size, 200_704)
})

/** In seconds. */
const aTime = 1_000_000_000

t.test('an image that is changed or replaced while it is read is not taken for what it was', async (t) => {
  const changes: Record<string, (path: string) => void> = {
    'longer by then': (path) => {
      truncateSync(path, 8192)
    },
    'written to, and dated back': (path) => {
      writeFileSync(path, Buffer.alloc(4096, 1))
      utimesSync(path, aTime, aTime)
    },
    'another file by then': (path) => {
      copyFileSync(path, `${path}.new`)
      renameSync(`${path}.new`, path)
    },
  }
  for (const [what, change] of Object.entries(changes)) {
    const path = join(t.testdir({ raw: Buffer.alloc(4096) }), 'raw')
    utimesSync(path, aTime, aTime)
    const image = await openImage(path, undefined, signal)
    await image.checkUnchanged()
    change(path)
    await t.rejects(image.checkUnchanged(), { code: 'invalid-image', message: /was changed while it was read/ }, what)
    await image.file.close()
  }
})
