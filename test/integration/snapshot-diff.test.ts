// `ankole snapshot diff` and `ankole volume export --snapshot`, with the real processes: what the one tells is what the
// images of the other differ in, whatever is written, trimmed, deleted, damaged and killed meanwhile.
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { ChangesView, ReadableSnapshotView, SnapshotView } from '../../src/api/index.js'
import { lacksQemuImg, qemuImg } from '../unit/image/builders.js'
import { pattern } from './builders.js'
import { digest, MiB, show } from './images.js'
import { clientOf, until, up, type Status, type Up } from './up.js'

const blockBytes = 4096

interface Diff extends Omit<ChangesView, 'nextOffset'> {
  totals: { extents: number; dataBytes: number; zeroBytes: number }
}

async function diff(node: Up, snapshot: string, from?: string): Promise<Diff> {
  const options = from === undefined ? [] : ['--from', from]
  return (await node.json('snapshot', 'diff', 'data', snapshot, ...options)) as unknown as Diff
}

async function exported(t: Test, node: Up, directory: string, snapshot: string): Promise<Buffer> {
  const path = join(directory, `${snapshot}.raw`)
  const ended = await node.run('volume', 'export', 'data', path, '--snapshot', snapshot, '--force')
  t.match(ended, { exitCode: 0, stderr: '', stdout: `Snapshot ${snapshot} of volume data is exported to ${path}` })
  return readFileSync(path)
}

/** Of each block what the diff says: data, zero, or nothing. */
function kindsOf({ extents }: Diff): Map<number, 'data' | 'zero'> {
  const kinds = new Map<number, 'data' | 'zero'>()
  for (const { offset, length, kind } of extents) {
    for (let at = offset; at < offset + length; at += blockBytes) kinds.set(at / blockBytes, kind)
  }
  return kinds
}

/** What differs is told as it is, and no block but those that were touched. */
function check(t: Test, told: Diff, before: Buffer, after: Buffer, touched: Set<number>): void {
  const kinds = kindsOf(told)
  const wrong: string[] = []
  for (let block = 0; block * blockBytes < after.length; ++block) {
    const at = block * blockBytes
    const is = after.subarray(at, at + blockBytes)
    const was = at < before.length ? before.subarray(at, at + blockBytes) : Buffer.alloc(blockBytes)
    const kind = kinds.get(block)
    if (!is.equals(was) && kind === undefined) wrong.push(`block ${block} differs, and is not told`)
    if (kind === 'zero' && !is.equals(Buffer.alloc(blockBytes))) wrong.push(`block ${block} is told as zeros`)
    if (kind !== undefined && !touched.has(block)) wrong.push(`block ${block} was not touched`)
  }
  t.same(wrong, [], `${told.from ?? 'nothing'} to ${told.snapshot}`)
  const bytesOf = (of: string) => [...kinds.values()].filter((kind) => kind === of).length * blockBytes
  t.match(told.totals, { dataBytes: bytesOf('data'), zeroBytes: bytesOf('zero') })
}

const blocksOf = (offset: number, length: number): number[] =>
  Array.from({ length: length / blockBytes }, (_, n) => offset / blockBytes + n)

t.test('a diff is what the images of two snapshots differ in', async (t) => {
  const directory = t.testdir()
  const node = await up(t, join(directory, 'data'), '--no-demo', '--disks', '2')
  await node.json('volume', 'create', 'data', '--size', '64MiB', '--replicas', '2')
  const client = await clientOf(await node.json('volume', 'attach', 'data'))
  let touched = new Set<number>()
  const sets = new Map<string, Set<number>>()
  const note = (offset: number, length: number): void => {
    for (const block of blocksOf(offset, length)) touched.add(block)
  }
  const write = async (offset: number, length: number, seed: number): Promise<void> => {
    await client.write(offset, pattern(seed, length))
    note(offset, length)
  }
  const trim = async (offset: number, length: number): Promise<void> => {
    await client.trim(offset, length)
    note(offset, length)
  }
  const take = async (name: string): Promise<void> => {
    await node.json('snapshot', 'create', 'data', name)
    sets.set(name, touched)
    touched = new Set()
  }

  await write(0, MiB, 1)
  await write(20 * MiB, 4 * MiB, 2)
  await write(63 * MiB, MiB, 3)
  await take('one')
  await write(8192, 4096, 4)
  await write(20 * MiB, 4096, 2) // What it holds.
  await trim(21 * MiB, 64 * 1024)
  await trim(40 * MiB, MiB) // Where there is nothing.
  await take('two')
  await write(21 * MiB + 4096, 4096, 5)
  await trim(0, 4096)
  await write(30 * MiB, 3 * MiB, 6)
  await take('three')
  await node.json('volume', 'expand', 'data', '--size', '72MiB')
  await write(4 * MiB, 12288, 7)
  await take('four')

  const images = new Map<string, Buffer>()
  for (const name of sets.keys()) {
    await client.write(10 * MiB, pattern(images.size, MiB)) // In none of them.
    images.set(name, await exported(t, node, directory, name))
  }
  t.same(
    [...images.values()].map(({ length }) => length / MiB),
    [64, 64, 64, 72],
    'each is as large as the volume was',
  )
  t.ok(images.get('one')!.subarray(0, MiB).equals(pattern(1, MiB)))
  t.ok(
    images
      .get('two')!
      .subarray(21 * MiB, 21 * MiB + 65536)
      .equals(Buffer.alloc(65536)),
  )
  t.ok(
    images
      .get('four')!
      .subarray(10 * MiB, 11 * MiB)
      .equals(Buffer.alloc(MiB)),
  )

  const names = [...sets.keys()]
  const since = (from: number, to: number) => new Set(names.slice(from + 1, to + 1).flatMap((n) => [...sets.get(n)!]))
  const none = Buffer.alloc(0)
  const checkAll = async (t: Test, of: number[]): Promise<void> => {
    for (const to of of) {
      const after = images.get(names[to]!)!
      check(t, await diff(node, names[to]!), none, after, since(-1, to))
      for (const from of of.filter((from) => from < to)) {
        check(t, await diff(node, names[to]!, names[from]), images.get(names[from]!)!, after, since(from, to))
      }
    }
  }

  await t.test('of each and each', async (t) => {
    await checkAll(t, [0, 1, 2, 3])
    const told = await diff(node, 'two', 'one')
    t.match(told, { superset: true, sizeBytes: 64 * MiB, fromSizeBytes: 64 * MiB })
    t.same(told.extents, [
      { offset: 8192, length: 4096, kind: 'data' },
      { offset: 20 * MiB, length: 4096, kind: 'data' },
      { offset: 21 * MiB, length: 65536, kind: 'zero' },
    ])
    t.match(await diff(node, 'four', 'three'), { sizeBytes: 72 * MiB, fromSizeBytes: 64 * MiB })
    const table = await node.run('snapshot', 'diff', 'data', 'two', '--from', 'one')
    t.match(table.stdout, /^ +OFFSET +LENGTH +WHAT\n +8192 +4096 +data\n/)
    t.match(table.stdout, /\nFrom one to two: 8 KiB of data and 64 KiB of zeros in 3 extents\. Blocks may be/)
  })

  await t.test('part by part over REST', async (t) => {
    const whole = await diff(node, 'four', 'one')
    const extents: ChangesView['extents'] = []
    for (let offset: number | null = 0; offset !== null;) {
      const query = `from=one&limit=1&offset=${offset}`
      const response = await fetch(`${node.url}/v1/volumes/data/snapshots/four/changes?${query}`)
      const page = (await response.json()) as ChangesView
      t.ok(page.extents.length <= 1)
      extents.push(...page.extents)
      offset = page.nextOffset
    }
    t.same(extents, whole.extents)
  })

  await t.test('qcow2', { skip: lacksQemuImg }, async (t) => {
    const qcow2 = join(directory, 'two.qcow2')
    const ended = await node.run('volume', 'export', 'data', qcow2, '--snapshot', 'two', '--json')
    t.equal(ended.exitCode, 0, ended.stderr)
    const done = JSON.parse(ended.stdout.trim().split('\n').at(-1) ?? '') as object
    t.match(done, { event: 'done', volume: 'data', snapshot: 'two', format: 'qcow2', sizeBytes: 64 * MiB, notes: [] })
    qemuImg('compare', '-f', 'qcow2', '-F', 'raw', qcow2, join(directory, 'two.raw'))
    t.ok(statSync(qcow2).size < 10 * MiB)
  })

  await t.test('what cannot be is refused', async (t) => {
    for (const [parameters, said] of [
      [['snapshot', 'diff', 'data', 'five'], /has no snapshot "five"[^]*not-found/],
      [['snapshot', 'diff', 'data', 'two', '--from', 'five'], /has no snapshot "five"/],
      [['volume', 'export', 'data', join(directory, 'no'), '--snapshot', 'five'], /has no snapshot "five"/],
      [['volume', 'export', 'data', join(directory, 'no'), '--snapshot', 'one', '--live'], /does not change/],
    ] as const) {
      const { exitCode, stderr } = await node.run(...parameters)
      t.not(exitCode, 0)
      t.match(stderr, said)
    }
    t.notOk(readdirSync(directory).some((name) => name.startsWith('no') || name.startsWith('.no')))
  })

  await t.test('what is read is not deleted', async (t) => {
    const response = await fetch(`${node.url}/v1/volumes/data/snapshots/two/read`, {
      ...{ method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } },
    })
    const readable = (await response.json()) as ReadableSnapshotView
    t.match(readable, { sizeBytes: 64 * MiB, nbd: { uri: /\/data@two$/ } })
    const reader = await clientOf(readable)
    t.equal(reader.sizeBytes, 64 * MiB)
    t.match(await node.run('snapshot', 'delete', 'data', 'two'), {
      exitCode: 1,
      stderr: /a client reads it[^]*snapshot-in-use/,
    })
    t.ok((await reader.read(8192, 4096)).equals(pattern(4, 4096)))
    await t.rejects(reader.write(8192, pattern(9, 4096)), /NBD error 1/)
    reader.close()
    await until('the deletion', async () => (await node.run('snapshot', 'delete', 'data', 'two')).exitCode === 0)
    await t.rejects(clientOf(readable as Status), /no volume, and no snapshot that can be read, of that name/)
  })

  await t.test('with one between deleted, merged or not', async (t) => {
    await checkAll(t, [0, 2, 3])
    const { layers } = (await node.json('snapshot', 'list', 'data')) as { layers?: unknown[] }
    t.ok(layers !== undefined)
  })

  await t.test('of a detached volume', async (t) => {
    client.close()
    await node.json('volume', 'detach', 'data')
    t.match(await node.run('snapshot', 'diff', 'data', 'one'), { exitCode: 1, stderr: /volume-not-attached/ })
    t.ok((await exported(t, node, directory, 'three')).equals(images.get('three')!))
    t.match(await show(node, 'data'), { state: 'detached' })
  })
})

/** In a layer of one replica, in the middle of its data. */
function damage(path: string, offset: number): void {
  const file = openSync(path, 'r+')
  writeSync(file, pattern(99, 512), 0, 512, offset)
  closeSync(file)
}

t.test('an export goes on where replicas are damaged and killed', async (t) => {
  const directory = t.testdir()
  const node = await up(t, join(directory, 'data'), '--no-demo', '--disks', '2')
  await node.json('volume', 'create', 'data', '--size', '256MiB', '--replicas', '2')
  const client = await clientOf(await node.json('volume', 'attach', 'data'))
  for (let n = 0; n < 128; ++n) await client.write(n * MiB, pattern(n, MiB))
  const { layer } = (await node.json('snapshot', 'create', 'data', 'one')) as unknown as SnapshotView
  for (let n = 0; n < 128; ++n) await client.write(n * MiB, pattern(n + 1, MiB))
  const whole = await exported(t, node, directory, 'one')
  for (let n = 0; n < 128; ++n) {
    if (!whole.subarray(n * MiB, (n + 1) * MiB).equals(pattern(n, MiB))) t.fail(`MiB ${n} is another one`)
  }
  const good = digest(join(directory, 'one.raw'))

  const command = node.start('volume', 'export', 'data', join(directory, 'killed.raw'), '--snapshot', 'one', '--json')
  const ended = once(command, 'exit') as Promise<[number | null]>
  let printed = ''
  command.stdout?.on('data', (chunk: Buffer) => (printed += chunk.toString()))
  const hosts = ((await node.json('status')).processes ?? []).filter(({ kind }) => kind === 'disk-host')
  await until('some of it', () => Promise.resolve(printed.includes('"progress"') || command.exitCode !== null))
  process.kill(hosts[0]!.pid, 'SIGKILL')
  t.same(await ended, [0, null])
  t.equal(digest(join(directory, 'killed.raw')), good)
  await until('all members', async () => (await show(node, 'data')).robustness === 'healthy')

  // One here, another one there.
  const { replicas } = await show(node, 'data')
  replicas.forEach(({ directory }, i) => {
    damage(join(directory, `volume-snap-${layer}.img`), (10 + i) * MiB)
  })
  await exported(t, node, directory, 'one')
  t.equal(digest(join(directory, 'one.raw')), good, 'what one has damaged the other one has')
  client.close()
})
