import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ensureNode, openDataDirectory } from '../../../src/cli/data-directory.js'

const aWish = (path: string) => ({ path, address: '127.0.0.1', disks: undefined, replication: 'unix' as const })

void t.test('a second one on the same directory is refused, with the process that has it', async (t) => {
  const path = join(t.testdir(), 'data')
  const first = openDataDirectory(path)
  const message = `is in use by another \`ankole up\`, process ${process.pid}`
  t.throws(() => openDataDirectory(path), { code: 'data-directory-in-use', message })
  await first.close()
  t.notOk(existsSync(join(path, 'ankole.pid')))
  await openDataDirectory(path).close()
})

void t.test('what a killed process left behind keeps nobody out', async (t) => {
  const path = t.testdir({ 'ankole.pid': '1\n' })
  await openDataDirectory(path).close()
})

void t.test('a path that cannot be a directory is named', (t) => {
  const path = t.testdir({ file: '' })
  t.throws(() => openDataDirectory(join(path, 'file')), { code: 'data-directory-unusable', message: 'file' })
  t.throws(() => openDataDirectory(join(path, 'file', 'data')), { code: 'data-directory-unusable', message: 'file' })
  t.end()
})

void t.test('a store that is damaged is named', (t) => {
  const path = t.testdir()
  writeFileSync(join(path, 'ankole.db'), 'x'.repeat(8192))
  t.throws(() => openDataDirectory(path), { code: 'store-corrupt', message: 'ankole.db' })
  t.end()
})

void t.test('disks are added when more are asked for, and none is ever dropped', async (t) => {
  const { store, path, close } = openDataDirectory(t.testdir())
  const ids = async (disks?: number): Promise<string[]> =>
    (await ensureNode(store, { ...aWish(path), disks })).spec.disks.map(({ id }) => id)
  t.same(await ids(), ['disk-1', 'disk-2', 'disk-3'], 'three if nothing is said')
  t.same(await ids(4), ['disk-1', 'disk-2', 'disk-3', 'disk-4'])
  t.same(await ids(2), ['disk-1', 'disk-2', 'disk-3', 'disk-4'])
  t.same(await ids(), ['disk-1', 'disk-2', 'disk-3', 'disk-4'])
  t.ok(existsSync(join(path, 'disks', 'disk-4')))
  t.equal((await store.list('Node')).length, 1)
  await close()
})

void t.test('with TCP each disk keeps a port of its own', async (t) => {
  const { store, path, close } = openDataDirectory(t.testdir())
  const ports = async (): Promise<(number | undefined)[]> =>
    (await ensureNode(store, { ...aWish(path), replication: 'tcp' })).spec.disks.map((disk) => disk.replicationPort)
  const first = await ports()
  t.equal(new Set(first).size, 3)
  t.same(await ports(), first)
  await close()
})

void t.test('a directory that was moved is found where it is now', async (t) => {
  const { store, path, close } = openDataDirectory(t.testdir())
  await ensureNode(store, aWish(join(path, 'before')))
  const node = await ensureNode(store, aWish(path))
  t.equal(node.spec.disks[0]?.path, join(path, 'disks', 'disk-1'))
  await close()
})
