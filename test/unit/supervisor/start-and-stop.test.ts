import t from 'tap'
import {
  diskHostKey,
  engineKey,
  portalKey,
  type PortalSpec,
  type SupervisorEvent,
} from '../../../src/supervisor/index.js'
import { aDiskHost, anEngine, aSupervisor, exited, isAlive, said, saidConfigs, started } from './harness.js'

function saidBy(key: string): (event: SupervisorEvent) => event is Extract<SupervisorEvent, { type: 'event' }> {
  return (event): event is Extract<SupervisorEvent, { type: 'event' }> =>
    said('started')(event) && event.process.key === key
}

t.test('a child gets its configuration, is listed, hears what is posted and stops clean', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'steady')
  supervisor.start(anEngine('demo', 3))
  supervisor.start(aDiskHost('disk-1'))
  await eventually(saidBy('engine/demo'))
  await eventually(saidBy('disk-host/disk-1'))
  const list = supervisor.list()
  t.match(list, [
    { key: 'engine/demo', kind: 'engine', volume: 'demo', restarts: 0, state: 'running' },
    { key: 'disk-host/disk-1', kind: 'disk-host', disk: 'disk-1', restarts: 0, state: 'running' },
  ])
  t.ok(supervisor.post(engineKey('demo'), { request: 1, op: 'status' }))
  const posted = await eventually(said('posted'))
  t.match(posted.event, { posted: { request: 1, op: 'status' } })
  t.match(posted.process, { kind: 'engine', volume: 'demo', attachment: 3, run: 1, pid: list[0]!.pid })
  t.match(
    saidConfigs(events).find((config) => config['volume'] === 'demo'),
    { volume: 'demo', epoch: { attachment: 3, run: 1 } },
  )

  await Promise.all([supervisor.stop(engineKey('demo')), supervisor.stop(diskHostKey('disk-1'))])
  t.strictSame(supervisor.list(), [])
  t.notOk(isAlive(list[0]!.pid))
  t.notOk(supervisor.post(engineKey('demo'), { request: 2, op: 'status' }), 'nobody is there to hear it')
  for (const end of events.filter(exited)) {
    t.equal(end.reason, 'exited with code 0')
    t.equal(end.restartInMs, undefined)
  }
  const types = events
    .filter((event) => 'process' in event && event.process.key === 'engine/demo')
    .map(({ type }) => type)
  t.equal(types.at(-1), 'exited', 'what it said last is heard before its end')
})

t.test('wanting what runs already changes nothing', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'steady')
  supervisor.start(anEngine('demo'))
  await eventually(said('started'))
  supervisor.start(anEngine('demo'))
  supervisor.start(anEngine('demo'))
  t.equal(events.filter(started).length, 1)
  await supervisor.stop(engineKey('demo'))
  t.equal(events.filter(started).length, 1)
})

t.test('a portal hears of other targets by a message, and is replaced for another address', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'steady')
  const aPortal = (port: number, ...addresses: string[]): PortalSpec => {
    const targets = addresses.map((address) => ({ iqn: 'iqn.2026-11.io.ankole:demo', address }))
    const listen = { host: '127.0.0.1', port }
    return { kind: 'portal', config: { listen, advertisedHost: '127.0.0.1', targets, ioBackend: 'auto' } }
  }
  supervisor.start(aPortal(3260))
  await eventually(said('started'))
  t.match(supervisor.list(), [{ key: 'portal', kind: 'portal', state: 'running' }])
  supervisor.start(aPortal(3260, 'a:1'))
  t.match(supervisor.list(), [{ state: 'running' }], 'the same process goes on')
  const before = events.length
  supervisor.start(aPortal(3261, 'a:2'))
  await eventually(said('started'), before)
  t.equal(events.filter(started).length, 2)
  t.match(saidConfigs(events)[1], { listen: { port: 3261 }, targets: [{ address: 'a:2' }] })
  await supervisor.stop(portalKey)
  t.strictSame(supervisor.list(), [])
})

t.test('stopping what is not there, or twice, is done', async (t) => {
  const { supervisor, eventually } = aSupervisor(t, 'steady')
  await supervisor.stop(engineKey('nobody'))
  supervisor.start(anEngine('demo'))
  await eventually(said('started'))
  await Promise.all([supervisor.stop(engineKey('demo')), supervisor.stop(engineKey('demo'))])
  await supervisor.stop(engineKey('demo'))
  t.strictSame(supervisor.list(), [])
})

for (const behaviour of ['ignores-sigterm', 'hangs'] as const) {
  t.test(`a child that ${behaviour} is killed when its time is over`, async (t) => {
    const { supervisor, events, eventually } = aSupervisor(t, behaviour)
    supervisor.start(anEngine('demo'))
    await eventually(said('started'))
    const { pid } = supervisor.list()[0]!
    await supervisor.stop(engineKey('demo'), 200)
    t.notOk(isAlive(pid))
    t.match(events.find(exited), { reason: 'was ended by SIGKILL' })
    t.strictSame(supervisor.list(), [])
  })
}

t.test('a later stop with less time cuts the first one short', async (t) => {
  const { supervisor, eventually } = aSupervisor(t, 'ignores-sigterm', { stopLimitMs: 3_600_000 })
  supervisor.start(anEngine('demo'))
  await eventually(said('started'))
  const patient = supervisor.stop(engineKey('demo'))
  await supervisor.stop(engineKey('demo'), 50)
  await patient
  t.strictSame(supervisor.list(), [])
})

t.test('a child that is told to stop before it listens ends too', async (t) => {
  const { supervisor, events } = aSupervisor(t, 'steady')
  supervisor.start(anEngine('demo'))
  await supervisor.stop(engineKey('demo'), 2_000)
  t.equal(events.filter(started).length, 1)
  t.strictSame(supervisor.list(), [])
})

t.test('a start while the old one is dying waits for its end', async (t) => {
  const { supervisor, events, eventually } = aSupervisor(t, 'ignores-sigterm')
  let overlaps = 0
  let last: SupervisorEvent | undefined
  supervisor.onEvent((event) => {
    if (started(event) && last !== undefined && started(last) && isAlive(last.process.pid)) overlaps++
    if (started(event)) last = event
  })
  supervisor.start(anEngine('demo'))
  const first = await eventually(said('started'))
  const stop = supervisor.stop(engineKey('demo'), 100)
  supervisor.start(anEngine('demo'))
  await stop
  const second = await eventually(said('started'), events.indexOf(first) + 1)
  t.not(second.process.pid, first.process.pid)
  t.notOk(isAlive(first.process.pid))
  t.equal(overlaps, 0)
  t.match(saidConfigs(events), [], 'this one does not tell')
  t.match(second.process, { attachment: 1, run: 2 }, 'it is another run')
})
