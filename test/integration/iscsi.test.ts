// iSCSI from end to end: discovery and redirection by the portal's own process, sessions with the engines'.
import { createServer } from 'node:net'
import t from 'tap'
import { aNode, pattern } from './builders.js'
import { blockBytes, discover, logIn, logInThrough, parseAddress } from './iscsi-client.js'
import { NbdClient } from './nbd-client.js'

const iqn = (volume: string): string => `iqn.2026-11.io.ankole:${volume}`

t.test('a volume is discovered, its login is sent on to its engine, and it is the one that NBD serves', async (t) => {
  const node = await aNode(t, { disks: 2 })
  const listen = await node.portal()
  const portal = `127.0.0.1:${listen.port}`
  t.same(await discover(portal), [])
  await node.create('demo', { replicas: 2 })
  const { nbd, iscsi } = await node.attach('demo')
  await node.create('other', { replicas: 2 })
  await node.attach('other', { physicalBlockBytes: 512 })

  const found = await discover(portal)
  t.same(found.map(({ iqn }) => iqn).sort(), [iqn('demo'), iqn('other')])
  for (const { address } of found) t.same(parseAddress(address), listen, 'all go through the portal')
  const sent = await logIn(portal, iqn('demo'))
  t.match(sent, { status: 0x0101, text: { TargetAddress: String } })
  if ('text' in sent) t.same(parseAddress(sent.text['TargetAddress']!), iscsi)

  const session = await logInThrough(portal, iqn('demo'))
  t.match((await session.inquiryPage(0x80)).toString('latin1'), 'demo', 'the serial number that the plan gives')
  const data = pattern(5, 4096)
  await session.write(16, data)
  t.ok((await session.read(16, data.length)).equals(data))
  const client = await NbdClient.connect(nbd!, 'demo')
  t.ok((await client.read(16 * blockBytes, data.length)).equals(data))
  client.close()

  const { engines, portal: counters } = await node.agent.counters()
  t.match(
    engines.find(({ volume }) => volume === 'demo'),
    { iscsiSessions: 1 },
  )
  t.match(counters, { discoveries: 2, redirects: 2, refused: 0 })
  t.equal((await session.capacity())[13], 3, '8 logical blocks are a physical one')
  await session.logOut()
  const other = await logInThrough(portal, iqn('other'))
  t.equal((await other.capacity())[13], 0, 'one logical block is a physical one, where the plan says so')
  await other.logOut()
})

t.test('a target that is attached nowhere, or does not exist, is refused, each in its way', async (t) => {
  const node = await aNode(t, { disks: 1 })
  const portal = `127.0.0.1:${(await node.portal()).port}`
  await node.create('demo', { replicas: 1 })
  await node.attach('demo')
  await (await logInThrough(portal, iqn('demo'))).logOut()
  node.rest('demo')
  await node.until('engine gone', ({ engines }) => engines.length === 0)
  t.match(await logIn(portal, iqn('demo')), { status: 0x0301 }, 'service unavailable: it may come back')
  t.match(await logIn(portal, iqn('stranger')), { status: 0x0203 }, 'not found')
  t.match((await node.agent.counters()).portal, { redirects: 1, refused: 2 })
})

t.test('CHAP is asked for by the engine, and whoever does not know the secret has no session', async (t) => {
  const node = await aNode(t, { disks: 1 })
  const portal = `127.0.0.1:${(await node.portal()).port}`
  await node.create('demo', { replicas: 1 })
  const chap = { user: 'me', secret: 'a secret of mine' }
  const { iscsi } = await node.attach('demo', { chap })
  const engine = `127.0.0.1:${iscsi!.port}`
  t.match(await logIn(engine, iqn('demo')), { status: 0x0201 })
  t.match(await logIn(engine, iqn('demo'), { ...chap, secret: 'another secret' }), { status: 0x0201 })
  t.match(await logIn(engine, iqn('demo'), { ...chap, user: 'you' }), { status: 0x0201 })
  t.match((await node.agent.counters()).engines, [{ iscsiSessions: 0 }])
  const first = await logIn(portal, iqn('demo'), chap)
  t.match(first, { status: 0x0101 }, 'it is sent on before it proves anything')
  const session = await logIn(engine, iqn('demo'), chap)
  t.ok('session' in session)
  if ('session' in session) await session.session.logOut()
  t.notMatch(JSON.stringify([node.report, node.lines]), /a secret of mine/)
})

t.test('the portal is killed: it comes back with its targets, and sessions with engines go on', async (t) => {
  const node = await aNode(t, { disks: 1 })
  const listen = await node.portal()
  const portal = `127.0.0.1:${listen.port}`
  await node.create('demo', { replicas: 1 })
  await node.attach('demo')
  const session = await logInThrough(portal, iqn('demo'))
  const { pid } = node.report.processes.find(({ kind }) => kind === 'portal')!
  process.kill(pid, 'SIGKILL')
  const data = pattern(6, 4096)
  await session.write(0, data)
  await node.until('restart', ({ portal, processes }) => {
    return portal?.state === 'ready' && processes.some((process) => process.kind === 'portal' && process.pid !== pid)
  })
  t.match(
    node.report.processes.find(({ kind }) => kind === 'portal'),
    { restarts: 1 },
  )
  t.match(await discover(portal), [{ iqn: iqn('demo') }])
  await (await logInThrough(portal, iqn('demo'))).logOut()
  t.ok((await session.read(0, data.length)).equals(data), 'the session is the same')
  await session.logOut()
})

t.test('a portal whose address is taken says so, and listens when it is free', async (t) => {
  const node = await aNode(t, { disks: 1 })
  const squatter = createServer()
  await new Promise<void>((resolve) => squatter.listen(0, '127.0.0.1', resolve))
  const { port } = squatter.address() as { port: number }
  node.wantPortal(port)
  await node.until('failure', ({ portal }) => portal?.state === 'failed')
  t.match(node.report.portal, { code: 'address-in-use', message: new RegExp(String(port)) })
  const { pid } = node.report.processes.find(({ kind }) => kind === 'portal')!
  await new Promise((resolve) => squatter.close(resolve))
  await node.until('portal', ({ portal }) => portal?.state === 'ready')
  t.equal(node.report.processes.find(({ kind }) => kind === 'portal')?.pid, pid, 'it tried by itself')
  t.same(await discover(`127.0.0.1:${port}`), [])
})

t.test('an engine is killed: the next run serves by iSCSI at the same port', async (t) => {
  const node = await aNode(t, { disks: 1 })
  const portal = `127.0.0.1:${(await node.portal()).port}`
  await node.create('demo', { replicas: 1 })
  const first = await node.attach('demo')
  const session = await logInThrough(portal, iqn('demo'))
  const data = pattern(7, 8192)
  await session.write(8, data)
  process.kill(node.pid('demo'), 'SIGKILL')
  const second = await node.engine('demo', ({ run, state }) => run === 2 && state === 'serving')
  t.same(second.iscsi, first.iscsi)
  const again = await logInThrough(portal, iqn('demo'))
  t.ok((await again.read(8, data.length)).equals(data))
  await again.logOut()
  session.close()
})
