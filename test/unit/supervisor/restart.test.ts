import t from 'tap'
import { engineKey } from '../../../src/supervisor/index.js'
import {
  aDiskHost,
  anEngine,
  aSupervisor,
  exited,
  isAlive,
  said,
  saidConfigs,
  spawnFailed,
  started,
} from './harness.js'

const quick = { baseMs: 1, maxMs: 8, resetAfterMs: 60_000 }

t.test('a child that dies is started again, with the next run of its attachment', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'steady')
  supervisor.start(anEngine('demo', 5))
  for (const run of [1, 2, 3]) {
    const from = events.length
    const { process: child } = await eventually(said('started'), run === 1 ? 0 : from - 1)
    t.match(child, { attachment: 5, run })
    t.match(saidConfigs(events).at(-1), { epoch: { attachment: 5, run } })
    const seen = events.length
    process.kill(child.pid, 'SIGKILL')
    const end = await eventually(exited, seen)
    t.equal(end.reason, 'was ended by SIGKILL')
    const next = await eventually(started, seen)
    t.equal(next.restarts, run)
    t.notOk(isAlive(child.pid))
    await eventually(said('started'), events.indexOf(next))
  }
})

t.test('what a dying child said is heard, on the channel and on standard error', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'crashes', {
    restartPace: { ...quick, baseMs: 60_000, maxMs: 60_000 },
  })
  supervisor.start(anEngine('demo'))
  await eventually(started)
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500) // Its words and its end are there together then.
  const first = await eventually(exited)
  const before = events.slice(0, events.indexOf(first))
  t.ok(before.some(said('last words')))
  await eventually((event): event is Extract<typeof event, { type: 'output' }> => event.type === 'output')
  t.match(
    events.find(({ type }) => type === 'output'),
    { line: 'CHECK failed: it is broken' },
  )
})

t.test('one that never gets far is started again ever later', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'exits-at-once', { restartPace: quick })
  supervisor.start(anEngine('demo'))
  await eventually((event): event is typeof event & { type: 'started' } => started(event) && event.restarts === 6)
  t.strictSame(
    events
      .filter(exited)
      .map(({ restartInMs }) => restartInMs)
      .slice(0, 6),
    [0, 1, 2, 4, 8, 8],
  )
  t.match(events.find(exited), { reason: 'exited with code 7' })
  const runs = events.filter(started).map(({ process }) => process.kind === 'engine' && process.run)
  t.strictSame(runs.slice(0, 4), [1, 2, 3, 4], 'no run is given twice')
})

t.test('one that lived long enough starts over', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'exits-at-once', {
    restartPace: { ...quick, resetAfterMs: 0 },
  })
  supervisor.start(anEngine('demo'))
  await eventually((event): event is typeof event & { type: 'started' } => started(event) && event.restarts === 3)
  t.strictSame(
    events
      .filter(exited)
      .map(({ restartInMs }) => restartInMs)
      .slice(0, 3),
    [0, 0, 0],
  )
})

t.test('what was told to stop while it waited for its restart stays away', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'exits-at-once', {
    restartPace: { ...quick, baseMs: 150, maxMs: 150 },
  })
  supervisor.start(anEngine('demo'))
  await eventually((event): event is typeof event & { type: 'exited' } => exited(event) && event.restartInMs === 150)
  await supervisor.stop(engineKey('demo'))
  const starts = events.filter(started).length
  await new Promise((resolve) => setTimeout(resolve, 300))
  t.equal(events.filter(started).length, starts)
})

t.test('a program that is not there is an end like others', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'is-missing', { restartPace: quick })
  supervisor.start(anEngine('demo'))
  t.match((await eventually(exited)).reason, /exited with code 1/)
  await supervisor.stop(engineKey('demo'))
  t.strictSame(events.filter(spawnFailed), [])
})

t.test('no process at all to be had is retried, and said', async (t) => {
  const { supervisor, eventually } = aSupervisor(t, 'steady', { restartPace: quick })
  const { execPath } = process
  process.execPath = '/nowhere/node'
  t.teardown(() => (process.execPath = execPath))
  supervisor.start(anEngine('demo'))
  t.match(await eventually(spawnFailed), { key: 'engine/demo', reason: /ENOENT/, restartInMs: 0 })
  t.strictSame(supervisor.list(), [])
  process.execPath = execPath
  t.match((await eventually(said('started'))).process, { volume: 'demo' })
})

t.test('another attachment replaces the engine, and its runs begin at one', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'steady')
  supervisor.start(anEngine('demo', 5))
  const first = await eventually(said('started'))
  supervisor.start(anEngine('demo', 6))
  const second = await eventually(said('started'), events.indexOf(first) + 1)
  t.match(second.process, { attachment: 6, run: 1 })
  t.notOk(isAlive(first.process.pid))
  t.match(events.find(exited), { reason: 'exited with code 0' }, 'the old one stopped clean')
  t.throws(() => supervisor.start(anEngine('demo', 5)), /attachment 5 is older than 6/)
})

t.test('an attachment that was stopped and wanted again goes on counting its runs', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'steady')
  supervisor.start(anEngine('demo', 5))
  const first = await eventually(said('started'))
  await supervisor.stop(engineKey('demo'))
  supervisor.start(anEngine('demo', 5))
  const second = await eventually(said('started'), events.indexOf(first) + 1)
  t.match(second.process, { attachment: 5, run: 2 })
})

t.test('a new configuration holds from the next start of an engine, and at once for a disk host', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'steady')
  supervisor.start(anEngine('demo'))
  const first = await eventually(said('started'))
  const changed = anEngine('demo')
  changed.config.lateMs = 2_000
  supervisor.start(changed)
  t.equal(events.filter(started).length, 1)
  process.kill(first.process.pid, 'SIGKILL')
  await eventually(said('started'), events.indexOf(first) + 1)
  t.equal(saidConfigs(events).at(-1)?.['lateMs'], 2_000)

  const from = events.length
  supervisor.start(aDiskHost('disk-1', '/one'))
  const host = await eventually(said('started'), from)
  supervisor.start(aDiskHost('disk-1', '/two'))
  await eventually(said('started'), events.indexOf(host) + 1)
  t.equal(saidConfigs(events).at(-1)?.['directory'], '/two')
})
