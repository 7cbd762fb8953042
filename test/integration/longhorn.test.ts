// Longhorn's replica directories, in and out, with the real processes: what comes in is what Longhorn reads from it, is
// read-only until that is confirmed, and can go back; what goes out is what the volume held.
import { existsSync, mkdirSync, openSync, closeSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { SnapshotList } from '../../src/api/index.js'
import { composeLonghorn, makeLonghornDirectory, type DirectorySpec } from './longhorn-directory.js'
import { show } from './images.js'
import type { NbdClient } from './nbd-client.js'
import { clientOf, up, type Up } from './up.js'

const MiB = 1024 ** 2
const KiB = 1024
const sizeBytes = 8 * MiB - 512
const volumeBytes = 8 * MiB

function aDirectory(path: string): DirectorySpec {
  const [a, odd, head] = ['volume-snap-a.img', 'volume-snap-Before Upgrade.img', 'volume-head-007.img']
  return {
    path,
    size: sizeBytes,
    revision: 42,
    layers: [
      // Before an expansion.
      { file: a, size: 4 * MiB, data: [[0, 256 * KiB, 'a']], unwritten: [[512 * KiB, 8192]], labels: { from: 'job' } },
      { file: odd, parent: a, data: [[8192, 8192, 'b']], unwritten: [[64 * KiB, 16 * KiB]] },
      {
        file: 'volume-snap-gone.img',
        parent: odd,
        data: [[128 * KiB, 4096, 'g']],
        meta: { Removed: true, Name: 'volume-snap-other.img' },
      },
      {
        file: head,
        parent: 'volume-snap-gone.img',
        data: [
          [16 * KiB, 4096, 'h'],
          [5 * MiB, 8192, 'e'],
        ],
        unwritten: [[0, 4096]],
      },
    ],
  }
}

async function readAll(client: NbdClient): Promise<Buffer> {
  const parts: Buffer[] = []
  for (let at = 0; at < volumeBytes; at += MiB) parts.push(await client.read(at, MiB))
  return Buffer.concat(parts)
}

/** What Longhorn reads, and what is new in a volume of whole blocks. */
function longhornReads(directory: string, out: string, head = ''): Buffer {
  composeLonghorn(directory, out, head)
  const content = readFileSync(out)
  return Buffer.concat([content, Buffer.alloc(volumeBytes - content.length)])
}

async function attached<T>(ankole: Up, work: (client: NbdClient) => Promise<T>): Promise<T> {
  const client = await clientOf(await ankole.json('volume', 'attach', 'data'))
  try {
    return await work(client)
  } finally {
    client.close()
    await ankole.json('volume', 'detach', 'data')
  }
}

const snapshots = async (ankole: Up): Promise<SnapshotList> =>
  (await ankole.json('snapshot', 'list', 'data')) as SnapshotList

void t.test('a directory of Longhorn comes in, is looked at, written to, and goes out', async (t) => {
  const root = t.testdir()
  const ankole = await up(t, join(root, 'data'), '--no-demo')
  const [from, out] = [join(root, 'pvc-1-r-0a1b2c3d'), join(root, 'read')]
  makeLonghornDirectory(aDirectory(from))
  const expected = longhornReads(from, out)
  t.equal(expected[0], 0, 'the head hides it, and has written nothing')
  t.equal(expected[64 * KiB], 0)
  t.equal(String.fromCharCode(expected[100 * KiB]!), 'a')

  await t.test('a check changes nothing', async (t) => {
    const before = readdirSync(from).map((name) => [name, readFileSync(join(from, name))])
    const checked = await ankole.run('replica', 'adopt', from, '--check')
    t.match(checked, { exitCode: 0, stderr: '' })
    t.match(checked.stdout, /a volume of 8 MiB, 4 layers deep, revision 42/)
    t.match(checked.stdout, /Note: 20480 bytes are allocated and were never written/)
    t.match(checked.stdout, /Note: the volume's 8388096 bytes are no multiple of 4096/)
    t.match(checked.stdout, /says Name 'volume-snap-other.img': the file's name counts/)
    t.match(checked.stdout, /It can be adopted\.\n$/)
    t.same(
      readdirSync(from).map((name) => [name, readFileSync(join(from, name))]),
      before,
    )
  })

  await t.test('what is in use, or was not closed, is refused', async (t) => {
    const busy = openSync(join(from, 'volume-head-007.img'), 'r')
    const refused = await ankole.run('replica', 'adopt', from, 'data')
    closeSync(busy)
    t.match(refused, { exitCode: 1, stderr: /process \d+ has volume-head-007.img open.*\(invalid-replica\)/s })
    const dirty = join(root, 'pvc-2-r-00000000')
    makeLonghornDirectory({ ...aDirectory(dirty), volume: { Dirty: true } })
    const unclean = await ankole.run('replica', 'adopt', dirty, 'data')
    t.match(unclean, { exitCode: 1, stderr: /was not closed \(Dirty\).*--accept dirty/s })
    const standing = join(root, 'pvc-3-r-00000000')
    makeLonghornDirectory({ ...aDirectory(standing), volume: { BackingFilePath: '/none/backing' } })
    const lacking = await ankole.run('replica', 'adopt', standing, 'data')
    t.match(lacking, { exitCode: 1, stderr: /stands on the backing file '\/none\/backing'/ })
    t.same(await ankole.json('volume', 'list'), { volumes: [] })
    t.ok(existsSync(from) && existsSync(dirty) && existsSync(standing))
  })

  await t.test('it comes in read-only, with its snapshots', async (t) => {
    const adopted = await ankole.run('replica', 'adopt', from, 'data')
    t.match(adopted, { exitCode: 0, stderr: '' })
    t.match(adopted.stdout, /^Volume data is adopted, read-only: 8 MiB, with 2 snapshots\./)
    t.notOk(existsSync(from))
    const again = await ankole.run('replica', 'adopt', from, 'data')
    t.match(again, { exitCode: 0, stdout: /^Look at it: / }, 'what was killed may be given again')
    const volume = await show(ankole, 'data')
    t.match(volume, { state: 'detached', readOnly: true, sizeBytes: volumeBytes, numberOfReplicas: 1 })
    const { snapshots: found } = await snapshots(ankole)
    t.match(found.map(({ name }) => name).sort(), [/^a$/, /^before-upgrade-[0-9a-f]{8}/])
    t.match(
      found.find(({ name }) => name === 'a'),
      { labels: { from: 'job' }, createdAt: '2024-05-06T07:08:09.000Z' },
    )
    t.match(found.find(({ name }) => name !== 'a')?.labels, { 'ankole.longhorn-name': 'Before Upgrade' })
    t.ok(found.every(({ state }) => state === 'ready'))
    await attached(ankole, async (client) => {
      t.ok((await readAll(client)).equals(expected), 'it is what Longhorn reads')
      await t.rejects(client.write(0, Buffer.alloc(4096)))
    })
    await attached(ankole, async () => {
      t.match(await ankole.run('snapshot', 'create', 'data'), { exitCode: 1, stderr: /\(volume-read-only\)/ })
      t.match(await ankole.run('snapshot', 'delete', 'data', 'a'), { exitCode: 1, stderr: /\(volume-read-only\)/ })
      t.match(await ankole.run('volume', 'expand', 'data', '--size', '16MiB'), { stderr: /\(volume-read-only\)/ })
      t.match(await ankole.run('volume', 'update', 'data', '--read-write'), { exitCode: 1, stderr: /\(busy\)/ })
      t.ok((await snapshots(ankole)).snapshots.every(({ state }) => state === 'ready'))
    })
  })

  await t.test('it goes back as it came', async (t) => {
    t.match(await ankole.run('volume', 'delete', 'data'), { exitCode: 0 })
    t.ok(longhornReads(from, out).equals(expected))
    t.notOk(readdirSync(from).some((name) => /mask|crc|ankole|record|regions|adopted/.test(name)))
    t.match(composeLonghorn(from, out).volume, { Size: sizeBytes, Dirty: false })
  })

  const copied = join(root, 'data', 'disks', 'disk-2', 'adopting')
  await t.test('a copy comes in, and goes without a trace', async (t) => {
    const adopted = await ankole.run('replica', 'adopt', from, 'data', '--copy', '--disk', 'disk-2', '--json')
    t.equal(adopted.exitCode, 0, adopted.stderr)
    const lines = adopted.stdout.trim().split('\n')
    t.match(JSON.parse(lines.at(-1)!), { event: 'done', volume: { name: 'data', replicas: [{ disk: 'disk-2' }] } })
    t.same(readdirSync(copied), [])
    await attached(ankole, async (client) => {
      t.ok((await readAll(client)).equals(expected))
    })
    t.match(await ankole.run('volume', 'delete', 'data'), { exitCode: 0 })
    t.ok(longhornReads(from, out).equals(expected))
    t.same(readdirSync(join(root, 'data', 'disks', 'disk-2', 'replicas')), [])
  })

  await t.test('once confirmed it is written to, and goes out as it is', async (t) => {
    t.equal((await ankole.run('replica', 'adopt', from, 'data')).exitCode, 0)
    const written = await ankole.run('volume', 'update', 'data', '--read-write')
    t.equal(written.exitCode, 0, written.stderr)
    t.match(await show(ankole, 'data'), { readOnly: false, adopted: null, state: 'detached' })
    const now = Buffer.from(expected)
    await attached(ankole, async (client) => {
      t.ok((await readAll(client)).equals(expected))
      const data = Buffer.alloc(8192, 'w')
      await client.write(4096, data)
      data.copy(now, 4096)
      await ankole.json('snapshot', 'create', 'data', 'new')
      await client.trim(0, 32 * KiB)
      now.fill(0, 0, 32 * KiB)
      await client.flush()
      t.ok((await readAll(client)).equals(now))
    })
    const target = join(root, 'pvc-9-r-11111111')
    const exported = await ankole.run('replica', 'export', 'data', target, '--longhorn')
    t.match(exported, {
      exitCode: 0,
      stderr: '',
      stdout: /^Volume data is exported to .*: \d layers, .*zeros for masks/,
    })
    t.ok(longhornReads(target, out).equals(now), 'Longhorn reads what the volume holds')
    t.match(composeLonghorn(target, out), {
      volume: { Size: volumeBytes, Head: 'volume-head-000.img', Dirty: false, BackingFilePath: '' },
      chain: ['volume-head-000.img', 'volume-snap-new.img'],
    })
    t.notOk(readdirSync(target).some((name) => !/^volume(-head-000|-snap-.*)?\.(img|img\.meta|meta)$/.test(name)))
    const again = await ankole.run('replica', 'export', 'data', target, '--longhorn')
    t.match(again, { exitCode: 1, stderr: /\(already-exists\)/ })
    const snapshot = join(root, 'pvc-9-r-22222222')
    t.match(await ankole.run('replica', 'export', 'data', snapshot, '--longhorn', '--snapshot', 'new'), { exitCode: 0 })
    t.equal(String.fromCharCode(longhornReads(snapshot, out)[4096]!), 'w')
    await attached(ankole, async () => {
      const busy = await ankole.run('replica', 'export', 'data', join(root, 'other'), '--longhorn')
      t.match(busy, { exitCode: 1, stderr: /it is attached\. Detach it.*\(busy\)/s })
    })
  })
  t.equal((await ankole.stop()).exitCode, 0)
})

void t.test('a backing file comes in as the lowest layer, and a start anew keeps what is read-only', async (t) => {
  const root = t.testdir()
  const data = join(root, 'data')
  let ankole = await up(t, data, '--no-demo')
  const [from, out, image] = [join(root, 'pvc-1-r-0a1b2c3d'), join(root, 'read'), join(root, 'image.raw')]
  mkdirSync(join(root, 'elsewhere'))
  writeFileSync(image, Buffer.alloc(3 * MiB + 100, 'i'))
  makeLonghornDirectory({ ...aDirectory(from), volume: { BackingFilePath: '/none/backing' } })
  const above = longhornReads(from, out)
  const made = await ankole.run('replica', 'adopt', from, 'data', '--backing-file', image)
  t.equal(made.exitCode, 0, made.stderr)
  await ankole.stop()
  ankole = await up(t, data, '--no-demo')
  t.match(await show(ankole, 'data'), { readOnly: true })
  await attached(ankole, async (client) => {
    const content = await readAll(client)
    t.equal(String.fromCharCode(content[2 * MiB]!), 'i')
    t.equal(content[64 * KiB], 0, 'what is allocated hides the backing file, too')
    t.equal(content[512 * KiB], 0)
    t.equal(content[3 * MiB + 100], 0)
    t.ok(content.subarray(8192, 16 * KiB).equals(above.subarray(8192, 16 * KiB)))
    await t.rejects(client.write(0, Buffer.alloc(4096)))
  })
  t.match(await ankole.run('volume', 'update', 'data', '--read-write'), { exitCode: 0 })
  await attached(ankole, async (client) => {
    await client.write(0, Buffer.alloc(4096, 'w'))
    await client.flush()
  })
  t.equal((await ankole.stop()).exitCode, 0)
})
