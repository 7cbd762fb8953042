// `ankole up` and the commands against it, as scripts use them: the contract that stays.
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { pattern } from './builders.js'
import { discover, logIn, logInThrough } from './iscsi-client.js'
import { clientOf, until, up } from './up.js'

void t.test('the first volume is there, serves, and comes back with its data', async (t) => {
  const data = join(t.testdir(), 'data')
  const first = await up(t, data)
  await until('the banner', () => Promise.resolve(first.stdout().includes('Ctrl-C')))
  t.match(
    first.stdout(),
    /3 disks under .*\n.*\n.*API .*http:.*\n.*iSCSI .*127.0.0.1:.*\n.*demo: 1 GiB, 3 replicas, attached, healthy\n/,
  )
  for (const command of ['iscsi-ls -s iscsi://', 'nbdinfo nbd://', 'fio --name']) t.match(first.stdout(), command)
  const attachment = await first.json('volume', 'attach', 'demo')
  t.match(attachment, {
    iscsi: { portal: /^127\.0\.0\.1:\d+$/, iqn: 'iqn.2026-11.io.ankole:demo', lun: 0 },
    nbd: { uri: /^nbd:\/\/127\.0\.0\.1:\d+\/demo$/ },
  })
  const bytes = pattern(1, 1 << 16)
  const client = await clientOf(attachment)
  await client.write(1 << 20, bytes)
  await client.flush()

  const status = await first.json('status')
  const kinds = status.processes?.map(({ kind }) => kind).sort()
  t.same(kinds, ['disk-host', 'disk-host', 'disk-host', 'engine', 'manager', 'portal'])
  t.match(
    status.processes?.find(({ kind }) => kind === 'engine'),
    { pid: Number, volume: 'demo' },
  )
  const replicas = status.volumes?.[0]?.replicas ?? []
  t.equal(new Set(replicas.map(({ disk }) => disk)).size, 3)
  for (const { directory, state, node } of replicas) {
    t.equal(state, 'member')
    t.ok(node)
    t.ok(existsSync(join(directory ?? '', 'volume.meta')), `${directory ?? ''} is a replica's directory`)
  }
  const metrics = await (await fetch(`${first.url}/metrics`)).text()
  t.match(metrics, /^ankole_volume_bytes_total\{volume="demo",operation="write"\} 65536$/m)
  t.match(metrics, /^ankole_process_pss_bytes\{node="[^"]+",kind="engine",volume="demo"\} \d+$/m)
  client.close()

  const second = await first.run('up', '--data', data)
  t.match(second, { exitCode: 1, stderr: new RegExp(`in use by another .*process ${first.child.pid ?? 0}`) })
  const other = await first.run('up', '--data', join(data, 'other'), '--http', first.url.slice(7))
  t.match(other, { exitCode: 1, stderr: /cannot listen on .*: another process does/ })

  const { portal } = attachment.iscsi!
  const third = await first.run('up', '--data', join(data, 'other'), '--http', '127.0.0.1:0', '--iscsi', portal)
  t.match(third, {
    exitCode: 1,
    stderr: new RegExp(`portal cannot listen on ${portal}: another process does.*--iscsi`),
  })

  const { exitCode, tookMs } = await first.stop()
  t.equal(exitCode, 0, 'it stops clean', { stderr: first.stderr() })
  t.ok(tookMs < 5000, `stopped in ${Math.round(tookMs)} ms`)

  const again = await up(t, data)
  const reader = await clientOf(await again.json('volume', 'attach', 'demo'))
  t.ok((await reader.read(1 << 20, bytes.length)).equals(bytes))
  reader.close()
  t.equal((await again.stop()).exitCode, 0)
})

void t.test('volumes come, serve and go by command, over TCP too', async (t) => {
  const data = t.testdir()
  const node = await up(t, data, '--no-demo', '--disks', '2', '--replication', 'tcp')
  t.same((await node.json('volume', 'list')).volumes, [])
  await node.json('volume', 'create', 'data', '--size', '64MiB', '--replicas', '2')
  const attached = await node.json('volume', 'attach', 'data')
  t.same(await node.json('volume', 'attach', 'data'), attached)
  const client = await clientOf(attached)
  t.equal(client.sizeBytes, 64 << 20)
  await client.write(0, pattern(2, 4096))
  t.match(await node.run('volume', 'delete', 'data'), { exitCode: 1, stderr: /1 client connection to it is open/ })
  client.close()
  t.match(await node.json('volume', 'detach', 'data'), { name: 'data', state: 'detached' })
  t.match(
    (await node.json('status')).processes?.filter(({ kind }) => kind === 'engine'),
    [],
  )
  t.same(await node.json('volume', 'delete', 'data'), { name: 'data', deleted: true })
  for (const disk of ['disk-1', 'disk-2']) t.same(readdirSync(join(data, 'disks', disk, 'replicas')), [])
  t.equal((await node.stop()).exitCode, 0)
})

void t.test('a volume is expanded by command, attached and not', async (t) => {
  const ankole = await up(t, t.testdir(), '--disks', '2', '--no-demo')
  await ankole.json('volume', 'create', 'grows', '--size', '64MiB', '--replicas', '2')
  t.match(await ankole.json('volume', 'expand', 'grows', '--size', '96MiB'), { sizeBytes: 96 << 20, node: null })
  const attachment = await ankole.json('volume', 'attach', 'grows')
  const client = await clientOf(attachment)
  t.equal(client.sizeBytes, 96 << 20)
  const said = await ankole.run('volume', 'expand', 'grows', '--size', '128MiB')
  t.match(said, { exitCode: 0, stdout: 'Volume grows has 128 MiB.\n' })
  t.match(await ankole.json('volume', 'expand', 'grows', '--size', '128MiB'), { sizeBytes: 128 << 20 })
  await client.write((128 << 20) - 4096, pattern(1, 4096))
  client.close()
  const less = await ankole.run('volume', 'expand', 'grows', '--size', '64MiB')
  t.equal(less.exitCode, 2)
  t.match(less.stderr, /it has 128 MiB .* and a volume does not become smaller/)
  const much = await ankole.run('volume', 'expand', 'grows', '--size', '64TiB')
  t.match(much.stderr, /cannot be expanded to 64 TiB .*: more than 200% of the disk would be promised/)
  t.match(await ankole.json('volume', 'list'), { volumes: [{ sizeBytes: 128 << 20, expandingToBytes: null }] })
  const metrics = await (await fetch(`${ankole.url}/metrics`)).text()
  t.match(metrics, `ankole_volume_size_bytes{volume="grows"} ${128 << 20}`)
})

void t.test('a node that is killed in the middle of an expansion carries it out when it is back', async (t) => {
  const data = t.testdir()
  const first = await up(t, data, '--disks', '2', '--no-demo')
  await first.json('volume', 'create', 'grows', '--size', '64MiB', '--replicas', '2')
  const client = await clientOf(await first.json('volume', 'attach', 'grows'))
  await client.write((64 << 20) - 4096, pattern(1, 4096))
  await client.flush()
  client.close()
  // Disk hosts that do not answer keep it in the middle: were it one, its replica would leave in time.
  const { processes = [] } = await first.json('status')
  const hung = processes.filter(({ kind }) => kind === 'disk-host').map(({ pid }) => pid)
  for (const pid of hung) process.kill(pid, 'SIGSTOP')
  const asked = first.run('volume', 'expand', 'grows', '--size', '128MiB')
  await until('the order', async () => {
    const volume = (await first.json('volume', 'show', 'grows')) as { expandingToBytes?: number | null }
    return volume.expandingToBytes === 128 << 20
  })
  first.child.kill('SIGKILL')
  for (const pid of hung) process.kill(pid, 'SIGKILL')
  t.not((await asked).exitCode, 0)

  const second = await up(t, data, '--disks', '2', '--no-demo')
  await until('its size', async () => {
    const volume = (await second.json('volume', 'show', 'grows')) as {
      sizeBytes?: number
      expandingToBytes?: number | null
    }
    return volume.sizeBytes === 128 << 20 && volume.expandingToBytes === null
  })
  const reader = await clientOf(await second.json('volume', 'attach', 'grows'))
  t.equal(reader.sizeBytes, 128 << 20)
  t.ok((await reader.read((64 << 20) - 4096, 8192)).equals(Buffer.concat([pattern(1, 4096), Buffer.alloc(4096)])))
  await reader.write((128 << 20) - 4096, pattern(2, 4096))
  reader.close()
  t.equal((await second.stop()).exitCode, 0)
})

void t.test('iSCSI by command: CHAP, the portal that every volume is reached by, and its end', async (t) => {
  const data = t.testdir({ secret: 'a secret of mine\n' })
  const node = await up(t, data, '--no-demo', '--disks', '1')
  const chap = { user: 'me', secret: 'a secret of mine' }
  const create = ['volume', 'create', 'data', '--size', '64MiB', '--replicas', '1']
  await node.json(...create, '--chap-user', chap.user, '--chap-secret-file', join(data, 'secret'))
  const attached = await node.json('volume', 'attach', 'data')
  const { portal, iqn } = attached.iscsi!
  t.match(await discover(portal), [{ iqn, address: new RegExp(`^${portal},`) }])
  const sent = await logIn(portal, iqn)
  t.ok('text' in sent)
  if ('text' in sent) t.match(await logIn(sent.text['TargetAddress']!, iqn), { status: 0x0201 })
  const session = await logInThrough(portal, iqn, chap)
  await session.write(0, pattern(5, 4096))
  t.match(await node.run('volume', 'delete', 'data'), { exitCode: 1, stderr: /1 client connection to it is open/ })

  const metrics = await (await fetch(`${node.url}/metrics`)).text()
  t.match(metrics, /^ankole_volume_iscsi_sessions\{volume="data"\} 1$/m)
  t.match(metrics, /^ankole_portal_redirects_total\{node="[^"]+"\} 2$/m)
  t.match(metrics, /^ankole_portal_discoveries_total\{node="[^"]+"\} 1$/m)

  const portalOf = async () => (await node.json('status')).processes?.find(({ kind }) => kind === 'portal')
  const before = await portalOf()
  process.kill(before!.pid, 'SIGKILL')
  await until('another portal', async () => ((await portalOf())?.restarts ?? 0) === 1)
  await until('its targets', async () => (await discover(portal)).length === 1)
  t.same(await node.json('volume', 'attach', 'data'), attached, 'it is where it was')
  t.ok((await session.read(0, 4096)).equals(pattern(5, 4096)), 'the session did not notice')
  await session.logOut()
  await node.json('volume', 'detach', 'data')
  t.match(await logIn(portal, iqn, chap), { status: 0x0301 })
  t.equal((await node.stop()).exitCode, 0)
  t.notMatch(node.stderr(), /a secret of mine/)
})

void t.test('a disk that cannot be used is named, and the others serve', async (t) => {
  const data = t.testdir()
  mkdirSync(join(data, 'disks'))
  writeFileSync(join(data, 'disks', 'disk-2'), 'a file, not a directory')
  const node = await up(t, data, '--no-demo')
  t.match(await node.run('status'), { stdout: /disk-2 +failed .*disk-2 is not a directory/ })
  const refused = await node.run('volume', 'create', 'data', '--size', '64MiB')
  t.match(refused, { exitCode: 1, stderr: /2 of them can be placed .* the disk is not ready \(.*disk-2\)/ })
  await node.json('volume', 'create', 'data', '--size', '64MiB', '--replicas', '2')
  await node.json('volume', 'attach', 'data')
  await node.stop()
})

void t.test('killed with all its processes, it takes its data over when it is started again', async (t) => {
  const data = t.testdir()
  const node = await up(t, data)
  const client = await clientOf(await node.json('volume', 'attach', 'demo'))
  const bytes = pattern(3, 8192)
  await client.write(0, bytes)
  await client.flush()
  node.child.kill('SIGKILL')
  await once(node.child, 'exit')
  const again = await up(t, data)
  const reader = await clientOf(await again.json('volume', 'attach', 'demo'))
  t.ok((await reader.read(0, bytes.length)).equals(bytes))
  reader.close()
  await again.stop()
})

void t.test('a data directory that was moved serves from where it is now', async (t) => {
  const directory = t.testdir()
  const node = await up(t, join(directory, 'before'))
  const client = await clientOf(await node.json('volume', 'attach', 'demo'))
  await client.write(0, pattern(4, 4096))
  client.close()
  await node.stop()
  renameSync(join(directory, 'before'), join(directory, 'after'))
  const again = await up(t, join(directory, 'after'))
  const reader = await clientOf(await again.json('volume', 'attach', 'demo'))
  t.ok((await reader.read(0, 4096)).equals(pattern(4, 4096)))
  reader.close()
  await again.stop()
  rmSync(join(directory, 'after'), { recursive: true })
})
