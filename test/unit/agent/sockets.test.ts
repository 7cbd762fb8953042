import { mkdirSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { socketDirectory, socketPath } from '../../../src/agent/index.js'

t.test('sockets are kept with the data where their path fits', (t) => {
  const data = join(tmpdir(), `ankole-test-${process.pid}`)
  t.teardown(() => {
    rmSync(data, { recursive: true })
  })
  mkdirSync(data)
  const directory = socketDirectory(data)
  t.equal(directory, join(data, 'run'))
  t.equal(statSync(directory).mode & 0o777, 0o700)
  t.equal(socketPath(directory, 'disk-1'), join(directory, 'disk-1.sock'))
  t.equal(socketDirectory(data), directory, 'and again')
  t.end()
})

t.test('a long way to the data is got around, to a place of its own that stays the same', async (t) => {
  const data = join(t.testdir(), 'd'.repeat(100))
  mkdirSync(data)
  const directory = socketDirectory(data)
  t.teardown(() => {
    rmSync(directory, { recursive: true })
  })
  t.equal(socketDirectory(data), directory)
  t.not(socketDirectory(join(data, 'other')), directory)
  t.equal(statSync(directory).mode & 0o777, 0o700)
  rmSync(socketDirectory(join(data, 'other')), { recursive: true })

  for (const name of ['disk-1', 'x'.repeat(250), 'a name/with a slash', '..']) {
    const path = socketPath(directory, name)
    t.ok(Buffer.byteLength(path) <= 107, path)
    t.equal(join(path, '..'), directory)
    const server = createServer()
    await new Promise<void>((resolve, reject) => server.on('error', reject).listen(path, resolve))
    await new Promise((resolve) => server.close(resolve))
  }
})

t.test('a place that others prepared is refused', (t) => {
  const data = join(t.testdir(), 'd'.repeat(100))
  const directory = socketDirectory(data)
  rmSync(directory, { recursive: true })
  symlinkSync('/tmp', directory)
  t.teardown(() => {
    rmSync(directory)
  })
  t.throws(() => socketDirectory(data), /must be a directory that only user/)
  t.end()
})
