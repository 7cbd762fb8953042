// Who has a replica open, by the descriptors of all processes.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { findOpener } from '../../../src/longhorn/index.js'

t.test('a process that has an image open is found, under whatever name', async (t) => {
  const directory = t.testdir({ 'volume-head-000.img': '', 'volume-head-000.img.meta': '{}' })
  t.equal(await findOpener(directory), undefined)
  const own = openSync(join(directory, 'volume-head-000.img'), 'r')
  t.equal(await findOpener(directory), undefined, 'the own process is none')
  const child = spawn('sleep', ['60'], { stdio: [own, 'ignore', 'ignore'] })
  closeSync(own)
  t.teardown(() => child.kill('SIGKILL'))
  await once(child, 'spawn')
  t.match(await findOpener(directory), { pid: child.pid, file: 'volume-head-000.img' })
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.equal(await findOpener(directory), undefined)
})

t.test('other files of the directory do not count', async (t) => {
  const directory = t.testdir()
  writeFileSync(join(directory, 'revision.counter'), '')
  const file = openSync(join(directory, 'revision.counter'), 'r')
  const child = spawn('sleep', ['60'], { stdio: [file, 'ignore', 'ignore'] })
  closeSync(file)
  t.teardown(() => child.kill('SIGKILL'))
  await once(child, 'spawn')
  t.equal(await findOpener(directory), undefined)
  t.equal(await findOpener(directory, join(directory, 'no-proc')), undefined)
})
