// What `ankole up` is given that cannot work: it says what is wrong and loses nothing.

import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { aDirectory, aFreePort, aStoppedAnkole, anAnkole } from './ankole.js'

function listenOn(port: number): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy())
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => {
      resolve(server)
    })
  })
}

t.test('a second one on the same directory is refused, and the first goes on', async (t) => {
  const ankole = await anAnkole(t)
  const volume = await ankole.createVolume('first', '32MiB')
  const { code, stderr } = await ankole.anotherUp(await ankole.upArguments(await aFreePort()))
  t.equal(code, 1)
  t.match(stderr, new RegExp(`in use by another .*process ${ankole.pid}`))
  t.notMatch(stderr, /\n\s+at /, 'no stack trace')
  await volume.healthy()
})

t.test('the port of the API is in use', async (t) => {
  const ankole = aStoppedAnkole(t)
  const port = await aFreePort()
  const server = await listenOn(port)
  t.teardown(() => server.close())
  const { code, stderr } = await ankole.anotherUp(await ankole.upArguments(port))
  t.equal(code, 1)
  t.match(stderr, new RegExp(`127\\.0\\.0\\.1:${port}[^]*address-in-use`))
  t.notMatch(stderr, /\n\s+at /, 'no stack trace')
})

t.test("a volume's port is in use: it says so, and is served when the port is free", async (t) => {
  const ankole = await anAnkole(t)
  const volume = await ankole.createVolume('squatted', '32MiB')
  const port = Number(new URL(volume.uri).port)
  await ankole.interrupt()
  const server = await listenOn(port)
  const starting = ankole.start()
  await starting
  const { message } = await ankole.until('squatted', 'told', (view) => view.message.includes('in use'))
  t.match(message, new RegExp(String(port)))
  await new Promise((resolve) => server.close(resolve))
  await volume.healthy()
  await volume.attach()
  t.equal(Number(new URL(volume.uri).port), port)
})

t.test('a data directory that cannot be one', async (t) => {
  const directory = aDirectory(t)
  const file = join(directory, 'file')
  writeFileSync(file, '')
  const ankole = aStoppedAnkole(t)
  const wrong = [file, join(file, 'under')]
  if (process.getuid?.() !== 0) {
    const closed = join(directory, 'closed')
    mkdirSync(closed)
    chmodSync(closed, 0o500)
    wrong.push(closed)
  }
  for (const data of wrong) {
    const args = ['up', '--data', data, '--http', `127.0.0.1:${await aFreePort()}`, '--no-demo']
    const { code, stderr } = await ankole.anotherUp(args)
    t.equal(code, 1, data)
    t.match(stderr, data)
    t.match(stderr, 'data-directory-unusable')
    t.notMatch(stderr, /\n\s+at /, 'no stack trace')
  }
})

t.test(
  'a disk directory that cannot be one: the disk says why, the others serve, and it serves when it can',
  async (t) => {
    const ankole = aStoppedAnkole(t, { disks: 4 })
    const disk = join(ankole.data, 'disks', 'disk-2')
    mkdirSync(join(ankole.data, 'disks'), { recursive: true })
    writeFileSync(disk, 'in the way')
    await ankole.start()
    const find = async () => (await ankole.status()).nodes[0]!.disks.find(({ id }) => id === 'disk-2')!
    const failed = await find()
    t.equal(failed.state, 'failed')
    t.match(failed.message, disk)
    const volume = await ankole.createVolume('elsewhere', '32MiB')
    const { replicas } = await volume.healthy()
    t.strictSame(replicas.map(({ disk }) => disk).sort(), ['disk-1', 'disk-3', 'disk-4'])
    rmSync(disk)
    mkdirSync(disk)
    for (let waits = 0; waits < 100 && (await find()).state !== 'ready'; waits++)
      await new Promise((resolve) => setTimeout(resolve, 100))
    t.equal((await find()).state, 'ready')
  },
)

t.test('sizes, names and numbers that are wrong', async (t) => {
  const ankole = await anAnkole(t)
  const wrong: [string[], number, RegExp][] = [
    [['volume', 'create', 'a', '--size', '1x'], 2, /size/i],
    [['volume', 'create', 'a', '--size', '0'], 2, /size/i],
    [['volume', 'create', 'a', '--size', '-1GiB'], 2, /size/i],
    [['volume', 'create', 'a', '--size', '1000EiB'], 2, /size|range/i],
    [['volume', 'create', '../a', '--size', '1GiB'], 2, /name/i],
    [['volume', 'create', 'Ä', '--size', '1GiB'], 2, /name/i],
    [['volume', 'create', 'a'.repeat(64), '--size', '1GiB'], 2, /name/i],
    [['volume', 'create', 'a', '--size', '1GiB', '--replicas', '0'], 2, /replicas/],
    [['volume', 'create', 'a', '--size', '1GiB', '--replicas', '9'], 1, /disk/],
    [['volume', 'attach', 'nobody'], 1, /nobody/],
    [['volume', 'delete', 'nobody'], 1, /nobody/],
    [['up', '--http', 'nowhere'], 2, /HOST:PORT/],
    [['up', '--disks', '0'], 2, /disks/],
    [['up', '--io-backend', 'magic'], 2, /io-backend/],
  ]
  for (const [args, expected, message] of wrong) {
    const { code, stderr } = await ankole.command(...args).ended
    t.equal(code, expected, args.join(' ').slice(0, 60))
    t.match(stderr, message)
    t.notMatch(stderr, /\n\s+at /, 'no stack trace')
  }
  t.strictSame((await ankole.status()).volumes, [], 'nothing came of it')
})
