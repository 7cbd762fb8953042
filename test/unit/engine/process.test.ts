// The processes of the data path as they are, over an addon that is a script: what the real one does is the matter of
// test/integration.

import { once } from 'node:events'
import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { fork, type ChildProcess } from 'node:child_process'
import t, { type Test } from 'tap'

type Event = Record<string, unknown>

interface Child {
  process: ChildProcess
  events: Event[]
  eventually: (event: string) => Promise<Event>
  ended: Promise<{ code: number | null; signal: string | null }>
}

/** What the addon does with its handle; it sees `start(kind, config, onEvent)`. */
const obedient = `
exports.start = (kind, config, onEvent) => {
  const say = (event) => onEvent(JSON.stringify(event))
  setImmediate(() => say({ event: 'log', level: 'info', message: 'begun', kind, config: JSON.parse(config) }))
  return {
    post: (json) => {
      const { request, op } = JSON.parse(json)
      if (op === 'stop') setImmediate(() => say({ event: 'stopped', clean: true }))
      else if (op === 'fail') setImmediate(() => say({ event: 'failed', code: 'io', message: 'no disk' }))
      else if (op === 'throw') throw new Error('a bug')
      else setImmediate(() => say({ reply: request, result: { op } }))
    },
    close: () => {},
  }
}`

function aChild(t: Test, kind: 'engine' | 'replica' | 'portal', addon?: string): Child {
  const root = t.testdir({ 'package.json': '{"type":"module"}' })
  const source = fileURLToPath(new URL('../../../src/', import.meta.url))
  for (const part of ['engine', 'replica', 'portal', 'native', 'supervisor']) {
    cpSync(join(source, part), join(root, 'dist', 'src', part), { recursive: true })
  }
  if (addon !== undefined) {
    // What Node.js requires under this name may be a directory with a script, too.
    const directory = join(root, 'build', 'Release', 'ankole.node')
    mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, 'package.json'), '{"type":"commonjs"}')
    writeFileSync(join(directory, 'index.js'), addon)
  }
  const child = fork(join(root, 'dist', 'src', kind, 'main.js'), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  t.teardown(() => child.kill('SIGKILL'))
  const events: Event[] = []
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.on('exit', (code, signal) => {
      resolve({ code, signal })
    })
  })
  child.on('message', (message) => {
    events.push((message as { event: Event }).event)
    child.emit('said')
  })
  return {
    process: child,
    events,
    ended,
    eventually: (name) =>
      new Promise((resolve) => {
        const look = (): void => {
          const found = events.find(({ event }) => event === name)
          if (found !== undefined) resolve(found)
        }
        child.on('said', look)
        look()
      }),
  }
}

for (const [folder, kind] of [
  ['engine', 'engine'],
  ['replica', 'disk-host'],
  ['portal', 'portal'],
] as const) {
  t.test(`${kind}: hands over its configuration, requests and events unchanged`, async (t) => {
    const child = aChild(t, folder, obedient)
    child.process.send({ type: 'start', config: { volume: 'demo', nested: [1, { two: 2 }] } })
    t.match(await child.eventually('log'), {
      message: 'begun',
      kind,
      config: { volume: 'demo', nested: [1, { two: 2 }] },
    })
    child.process.send({ type: 'post', message: { request: 4, op: 'status' } })
    child.process.send({ type: 'post', message: { request: 5, op: 'stop' } })
    await child.eventually('stopped')
    t.match(child.events, [{}, { reply: 4, result: { op: 'status' } }, { event: 'stopped', clean: true }])
    t.strictSame(await child.ended, { code: 0, signal: null })
  })

  t.test(`${kind}: SIGTERM stops it clean, SIGINT and SIGHUP are for the parent`, async (t) => {
    const child = aChild(t, folder, obedient)
    child.process.send({ type: 'start', config: {} })
    await child.eventually('log')
    child.process.kill('SIGINT')
    child.process.kill('SIGHUP')
    child.process.send({ type: 'post', message: { request: 4, op: 'status' } })
    while (!child.events.some(({ reply }) => reply === 4)) await new Promise((resolve) => setTimeout(resolve, 5))
    child.process.kill('SIGTERM')
    t.match(await child.eventually('stopped'), { clean: true })
    t.strictSame(await child.ended, { code: 0, signal: null })
  })

  t.test(`${kind}: a parent that is gone stops it clean`, async (t) => {
    const child = aChild(t, folder, obedient)
    child.process.send({ type: 'start', config: {} })
    await child.eventually('log')
    child.process.disconnect()
    t.strictSame(await child.ended, { code: 0, signal: null })
  })

  t.test(`${kind}: SIGTERM before there is anything to stop ends it`, async (t) => {
    const child = aChild(t, folder, obedient)
    await once(child.process, 'spawn')
    child.process.kill('SIGTERM')
    const { code, signal } = await child.ended
    t.ok(code === 0 || signal === 'SIGTERM', 'whether it listened already or not')
  })

  t.test(`${kind}: a stop that was not clean is told by the exit code`, async (t) => {
    const child = aChild(t, folder, obedient.replace('clean: true', 'clean: false'))
    child.process.send({ type: 'start', config: {} })
    await child.eventually('log')
    child.process.kill('SIGTERM')
    t.match(await child.ended, { code: 1 })
    t.match(child.events.at(-1), { event: 'stopped', clean: false })
  })

  t.test(`${kind}: without the addon it says how to build it, and ends`, async (t) => {
    const child = aChild(t, folder)
    child.process.send({ type: 'start', config: {} })
    t.match(await child.ended, { code: 1 })
    t.match(child.events, [{ event: 'log', level: 'error', message: /process failed: .*npm run build:native/ }])
    t.equal(child.events.length, 1)
  })

  t.test(`${kind}: a configuration that the addon refuses is told, and ends it`, async (t) => {
    const child = aChild(t, folder, `exports.start = () => { throw new Error('sizeBytes must be positive') }`)
    child.process.send({ type: 'start', config: {} })
    t.match(await child.ended, { code: 1 })
    t.match(child.events, [
      { event: 'log', level: 'error', message: `${kind} process failed: sizeBytes must be positive` },
    ])
  })

  t.test(`${kind}: an uncaught error is one log event and an exit code`, async (t) => {
    const child = aChild(t, folder, obedient)
    child.process.send({ type: 'start', config: {} })
    await child.eventually('log')
    child.process.send({ type: 'post', message: { request: 1, op: 'throw' } })
    t.match(await child.ended, { code: 1 })
    t.match(child.events.at(-1), {
      event: 'log',
      level: 'error',
      message: `${kind} process failed: a bug`,
      stack: /Error: a bug/,
    })
    t.equal(child.events.length, 2)
  })
}

t.test('a disk that cannot be used ends its disk host, after it said so', async (t) => {
  const child = aChild(t, 'replica', obedient)
  child.process.send({ type: 'start', config: {} })
  child.process.send({ type: 'post', message: { request: 1, op: 'fail' } })
  t.match(await child.ended, { code: 1 })
  t.match(child.events.at(-1), { event: 'failed', message: 'no disk' })
})

t.test('a portal that cannot listen goes on trying, and so does its process', async (t) => {
  const child = aChild(t, 'portal', obedient)
  child.process.send({ type: 'start', config: {} })
  child.process.send({ type: 'post', message: { request: 1, op: 'fail' } })
  t.match(await child.eventually('failed'), { message: 'no disk' })
  child.process.send({ type: 'post', message: { request: 2, op: 'status' } })
  while (!child.events.some(({ reply }) => reply === 2)) await new Promise((resolve) => setTimeout(resolve, 5))
  t.equal(child.process.exitCode, null)
})
