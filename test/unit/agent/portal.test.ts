import t from 'tap'
import type { PortalPlan } from '../../../src/agent/index.js'
import type { PortalSpec } from '../../../src/supervisor/index.js'
import { aDisk, aNode, anEnginePlan, aPlan, eventually, settled, type Node } from './builders.js'

const listen = { host: '127.0.0.1', port: 3260 }

function aPortal(...addresses: string[]): PortalPlan {
  const targets = addresses.map((address, index) => ({ iqn: `iqn.2026-11.io.ankole:v${index}`, address }))
  return { listen, advertisedHost: '10.0.0.7', targets }
}

function obeys({ supervisor }: Node): void {
  supervisor.answers['targets'] = () => ({ result: {} })
}

function config({ supervisor }: Node): PortalSpec['config'] {
  return (supervisor.specs.get('portal') as PortalSpec).config
}

t.test('the portal of the plan is started with its targets, and is in the report', (t) => {
  const node = aNode(t)
  const { agent, supervisor, lines } = node
  t.notOk('portal' in agent.report())
  agent.apply(aPlan({ portal: aPortal('127.0.0.1:20810') }))
  t.match(config(node), {
    listen,
    advertisedHost: '10.0.0.7',
    targets: [{ iqn: 'iqn.2026-11.io.ankole:v0' }],
    ioBackend: 'auto',
  })
  t.match(agent.report(), { portal: { state: 'starting' }, processes: [{ kind: 'portal' }] })
  supervisor.say('portal', { event: 'io-backend', backend: 'epoll', reason: 'sockets only' })
  supervisor.say('portal', { event: 'listening', addresses: ['tcp:127.0.0.1:3260'] })
  supervisor.say('portal', { event: 'log', level: 'warn', message: 'a bad login', peer: '127.0.0.1' })
  t.match(agent.report().portal, { state: 'ready', addresses: ['tcp:127.0.0.1:3260'], ioBackend: 'epoll' })
  t.match(
    lines.find(({ message }) => message === 'a bad login'),
    { level: 'warn', fields: { peer: '127.0.0.1', portalPid: Number } },
  )
  t.strictSame(supervisor.posted('targets'), [], 'it knows them from its start')
  t.end()
})

t.test('other targets are told to the process that runs, and only they', async (t) => {
  const node = aNode(t)
  obeys(node)
  const { agent, supervisor } = node
  agent.apply(aPlan({ portal: aPortal('') }))
  const before = supervisor.processes.get('portal')
  const wanted = aPortal('127.0.0.1:20810')
  agent.apply(aPlan({ version: 2, portal: wanted }))
  agent.apply(aPlan({ version: 3, portal: wanted }))
  await settled()
  t.match(supervisor.posted('targets'), [{ targets: wanted.targets }])
  t.equal(supervisor.posted('targets').length, 1)
  t.equal(supervisor.processes.get('portal'), before)
  t.same(config(node).targets, wanted.targets, 'a later start has them too')
})

t.test('of targets that change while the portal is told, it hears the last', async (t) => {
  const node = aNode(t)
  const { agent, supervisor } = node
  agent.apply(aPlan({ portal: aPortal() }))
  agent.apply(aPlan({ portal: aPortal('a:1') }))
  agent.apply(aPlan({ portal: aPortal('a:2') }))
  agent.apply(aPlan({ portal: aPortal('a:3') }))
  t.equal(supervisor.posted('targets').length, 1, 'one question at a time')
  obeys(node)
  const [first] = supervisor.posted('targets')
  const process = supervisor.processes.get('portal')!
  supervisor.emit({ type: 'event', process, event: { reply: first!.request, result: {} } })
  await settled()
  t.match(supervisor.posted('targets'), [{}, { targets: [{ address: 'a:3' }] }])
  t.equal(supervisor.posted('targets').length, 2)
})

t.test('targets that the portal does not take are said once, and told again', async (t) => {
  const node = aNode(t)
  const { agent, supervisor, lines } = node
  supervisor.answers['targets'] = () => ({ error: { code: 'busy', message: 'not now' } })
  agent.apply(aPlan({ portal: aPortal() }))
  agent.apply(aPlan({ portal: aPortal('a:1') }))
  await eventually(() => supervisor.posted('targets').length === 2)
  obeys(node)
  await eventually(() => supervisor.posted('targets').length === 3)
  await settled()
  t.match(supervisor.posted('targets')[2], { targets: [{ address: 'a:1' }] })
  t.equal(lines.filter(({ message }) => message.includes('not now')).length, 1)
})

t.test('a portal that died is started with the newest targets, and is told nothing twice', async (t) => {
  const node = aNode(t)
  const { agent, supervisor } = node
  agent.apply(aPlan({ portal: aPortal() }))
  supervisor.say('portal', { event: 'listening', addresses: ['tcp:127.0.0.1:3260'] })
  agent.apply(aPlan({ portal: aPortal('a:1') }))
  supervisor.end('portal', 'was ended by SIGKILL', 100)
  t.match(agent.report().portal, { state: 'starting', message: /was ended by SIGKILL, starting it again in 100 ms/ })
  t.same(agent.report().portal?.addresses, [])
  agent.apply(aPlan({ portal: aPortal('a:2') }))
  await settled()
  t.match(config(node).targets, [{ address: 'a:2' }])
  const posted = supervisor.posted('targets').length
  if (!supervisor.processes.has('portal')) supervisor.run('portal')
  await settled()
  t.equal(supervisor.posted('targets').length, posted)
})

t.test('an address that is taken is a failure with its code, said once, until it is free', (t) => {
  const { agent, supervisor, lines } = aNode(t)
  agent.apply(aPlan({ portal: aPortal() }))
  const failed = { event: 'failed', code: 'address-in-use', message: '127.0.0.1:3260 is in use' } as const
  supervisor.say('portal', failed)
  supervisor.say('portal', failed)
  t.match(agent.report().portal, { state: 'failed', code: 'address-in-use', message: failed.message })
  t.equal(lines.filter(({ level }) => level === 'error').length, 1)
  supervisor.say('portal', { event: 'listening', addresses: ['tcp:127.0.0.1:3260'] })
  t.match(agent.report().portal, { state: 'ready', code: '', message: '' })
  t.end()
})

t.test('a portal that leaves the plan is stopped, and one that is wanted again stays', async (t) => {
  const { agent, supervisor } = aNode(t)
  let gone: () => void = () => undefined
  supervisor.stopping = () => new Promise((resolve) => (gone = resolve))
  agent.apply(aPlan({ portal: aPortal() }))
  agent.apply(aPlan({ version: 2 }))
  agent.apply(aPlan({ version: 3 }))
  t.equal(supervisor.stops.length, 1)
  t.ok(agent.report().portal)
  agent.apply(aPlan({ version: 4, portal: aPortal('a:1') }))
  gone()
  await settled()
  t.ok(agent.report().portal, 'wanted again')
  supervisor.stopping = () => Promise.resolve()
  agent.apply(aPlan({ version: 5 }))
  await settled()
  t.notOk('portal' in agent.report())
})

t.test('its counters are among those of the node, unless it is silent', async (t) => {
  const { agent, supervisor } = aNode(t)
  const counters = { connections: 1, logins: 5, redirects: 4, discoveries: 2, refused: 1 }
  supervisor.answers['counters'] = (_, key) => (key === 'portal' ? { result: counters } : undefined)
  agent.apply(aPlan({ portal: aPortal(), engines: [anEnginePlan()] }))
  t.same(await agent.counters(), { engines: [], disks: [], portal: counters })
  supervisor.answers = {}
  t.same(await agent.counters(), { engines: [], disks: [] })
})

t.test('a node that stops takes no more logins while its engines stop', async (t) => {
  const { agent, supervisor } = aNode(t)
  agent.apply(aPlan({ disks: [aDisk()], engines: [anEnginePlan()], portal: aPortal() }))
  await agent.stop()
  t.same(
    supervisor.stops.map(({ key }) => key),
    ['portal', 'engine/demo', 'disk-host/disk-1'],
  )
  t.notOk('portal' in agent.report())
})
