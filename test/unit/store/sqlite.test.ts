import { appendFileSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import t from 'tap'
import { openDatabase } from '../../../src/store/database.js'
import { giveAttachment, SqliteStore, storeIdentity } from '../../../src/store/index.js'
import { applicationId, migrations } from '../../../src/store/schema.js'
import { aSnapshot, aVolume } from './builders.js'
import { storeSuite } from './suite.js'

void t.test('the suite that every store passes', (t) => {
  storeSuite(t, (t) => {
    const path = join(t.testdir(), 'ankole.db')
    const under = {
      store: SqliteStore.open(path),
      reopen: async () => {
        await under.store.close()
        under.store = SqliteStore.open(path)
        return under.store
      },
    }
    return Promise.resolve(under)
  })
  t.end()
})

void t.test('a commit is on stable storage when it returns', (t) => {
  const database = openDatabase(join(t.testdir(), 'ankole.db'))
  t.equal(database.pragma('journal_mode', { simple: true }), 'wal')
  t.equal(database.pragma('synchronous', { simple: true }), 2, 'FULL')
  database.close()
  t.end()
})

void t.test('a second one is refused while the first is open, and let in after', async (t) => {
  const path = join(t.testdir(), 'ankole.db')
  const first = SqliteStore.open(path)
  t.throws(() => SqliteStore.open(path), { code: 'data-directory-in-use', message: path })
  await first.close()
  await SqliteStore.open(path).close()
})

void t.test('a file that is no database is named and left as it is', (t) => {
  const path = join(t.testdir(), 'ankole.db')
  writeFileSync(path, 'these are not the bytes of a database, but they are many enough '.repeat(100))
  const before = readFileSync(path)
  t.throws(() => SqliteStore.open(path), { code: 'store-corrupt', message: path })
  t.ok(readFileSync(path).equals(before))
  t.end()
})

void t.test('a database of another program is refused and left as it is', (t) => {
  const path = join(t.testdir(), 'ankole.db')
  const foreign = new Database(path)
  foreign.exec('CREATE TABLE song (title TEXT)')
  foreign.close()
  t.throws(() => SqliteStore.open(path), { code: 'store-foreign', message: path })
  const again = new Database(path)
  t.same(again.prepare('SELECT name FROM sqlite_master').pluck().all(), ['song'])
  again.close()
  t.end()
})

void t.test('a store of a newer release is refused', async (t) => {
  const path = join(t.testdir(), 'ankole.db')
  await SqliteStore.open(path).close()
  const database = new Database(path)
  database.exec("INSERT INTO migration (version, name, applied) VALUES (999, 'later', '')")
  database.close()
  t.throws(() => SqliteStore.open(path), { code: 'store-newer', message: '999' })
})

void t.test('a store with torn pages is refused', async (t) => {
  const path = join(t.testdir(), 'ankole.db')
  const store = SqliteStore.open(path)
  for (let i = 0; i < 200; ++i) await store.create('Volume', aVolume(`volume-${i}`))
  await store.close()
  const bytes = readFileSync(path)
  bytes.fill(0xa5, 4096, 4096 * 8)
  writeFileSync(path, bytes)
  t.throws(() => SqliteStore.open(path), { code: 'store-corrupt', message: path })
})

void t.test('a document that is not as its schema says is corruption, and told so', async (t) => {
  const path = join(t.testdir(), 'ankole.db')
  const store = SqliteStore.open(path)
  await store.create('Volume', aVolume('demo'))
  await store.close()
  const database = new Database(path)
  database.exec(`UPDATE resource SET document = '{"metadata":{}}'`)
  database.close()
  const again = SqliteStore.open(path)
  await t.rejects(again.get('Volume', 'demo'), { code: 'store-corrupt', message: path })
  await again.close()
})

void t.test('a volume of a release without iSCSI is read as it is', async (t) => {
  const path = join(t.testdir(), 'ankole.db')
  const store = SqliteStore.open(path)
  const { iscsiPort, ...before } = aVolume('demo')
  t.ok(iscsiPort)
  await store.create('Volume', before)
  await store.close()
  const again = SqliteStore.open(path)
  const volume = await again.get('Volume', 'demo')
  t.match(volume, before)
  t.notOk('iscsiPort' in volume! || 'chap' in volume!)
  await again.close()
})

void t.test(
  'a store of a release without snapshots is taken over, and that release does not open it any more',
  async (t) => {
    const path = join(t.testdir(), 'ankole.db')
    const before = new Database(path)
    before.pragma(`application_id = ${applicationId}`)
    before.exec(
      'CREATE TABLE migration (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied TEXT NOT NULL) STRICT',
    )
    before.exec(migrations[0]!.sql)
    before.exec("INSERT INTO migration VALUES (1, 'resources', '2026-01-01'); UPDATE sequence SET value = 41")
    const metadata = { name: 'demo', uid: 'u', resourceVersion: '41', creationTimestamp: '2026-01-01T00:00:00.000Z' }
    const volume = { ...aVolume('demo'), metadata }
    before.prepare("INSERT INTO resource VALUES ('Volume', 'demo', 41, ?)").run(JSON.stringify(volume))
    before.close()
    const store = SqliteStore.open(path)
    t.same(await store.get('Volume', 'demo'), volume)
    t.same(await store.list('Snapshot'), [])
    const snapshot = await store.create('Snapshot', aSnapshot('demo', 'monday'))
    t.equal(snapshot.metadata.resourceVersion, '42')
    await store.close()
    const after = new Database(path)
    t.equal(
      after.prepare('SELECT max(version) FROM migration').pluck().get(),
      2,
      'which is newer than that release knows',
    )
    after.close()
    const again = SqliteStore.open(path)
    t.same(await again.list('Snapshot'), [snapshot])
    await again.close()
  },
)

void t.test('a directory that cannot hold the store is named', (t) => {
  const path = join(t.testdir(), 'missing', 'ankole.db')
  t.throws(() => SqliteStore.open(path), { code: 'data-directory-unusable', message: path })
  mkdirSync(join(path, '..'))
  appendFileSync(path, '')
  t.doesNotThrow(() => void SqliteStore.open(path).close(), 'an empty file is a store not yet written')
  t.end()
})

void t.test('rule 6: one that was put back from a copy gets a new id', async (t) => {
  const directory = t.testdir()
  const path = join(directory, 'ankole.db')
  const copy = join(directory, 'copy.db')
  const identityOf = async (path: string): Promise<{ id: string; wasRestored: boolean }> => {
    const store = SqliteStore.open(path)
    const { wasRestored } = store
    const id = await storeIdentity(store)
    await store.close()
    return { id, wasRestored }
  }
  let store = SqliteStore.open(path)
  const id = await storeIdentity(store)
  const volume = await store.update(
    'Volume',
    giveAttachment(await store.create('Volume', aVolume('demo')), 'a', 'boot'),
  )
  await store.close()
  copyFileSync(path, copy)
  t.same(await identityOf(path), { id, wasRestored: false }, 'nothing was put back')

  // What changes nobody's members may be lost unnoticed: it will be seen again by looking.
  store = SqliteStore.open(path)
  await store.update('Volume', { ...volume, status: { ...volume.status, message: 'it works' } })
  await store.close()
  copyFileSync(copy, path)
  t.same(await identityOf(path), { id, wasRestored: false })

  store = SqliteStore.open(path)
  await store.update('Volume', giveAttachment(volume, 'b', 'boot'))
  await store.close()
  copyFileSync(copy, path)
  const restored = await identityOf(path)
  t.equal(restored.wasRestored, true)
  t.not(restored.id, id)
  t.same(await identityOf(path), { id: restored.id, wasRestored: false }, 'once')

  rmSync(`${path}.seen`)
  t.equal((await identityOf(path)).wasRestored, true, 'it was put where no store was')
})
