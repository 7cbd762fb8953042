import { createServer, type AddressInfo } from 'node:net'
import { isIP } from 'node:net'
import t, { type Test } from 'tap'
import { isLoopback, portalAddresses } from '../../../src/cli/portal-address.js'

async function aTakenPort(t: Test): Promise<{ port: number; free: () => void }> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  return { port: (server.address() as AddressInfo).port, free: () => server.close() }
}

void t.test('port 0 is a free one, known before anything is started', async (t) => {
  const { listen, host } = await portalAddresses({ host: '127.0.0.1', port: 0 })
  t.ok(listen.port > 1023)
  t.same({ listen, host }, { listen: { host: '127.0.0.1', port: listen.port }, host: '127.0.0.1' })
})

void t.test('a name becomes the address that it stands for', async (t) => {
  const { listen } = await portalAddresses({ host: 'localhost', port: 0 })
  t.ok(isIP(listen.host) > 0 && isLoopback(listen.host), listen.host)
})

void t.test('where it listens on every address it is reached by one of them', async (t) => {
  const { listen, host } = await portalAddresses({ host: '0.0.0.0', port: 0 })
  t.equal(listen.host, '0.0.0.0')
  t.equal(isIP(host), 4)
  t.not(host, '0.0.0.0')
})

void t.test('a port that is taken is named, and what to do', async (t) => {
  const { port } = await aTakenPort(t)
  await t.rejects(portalAddresses({ host: '127.0.0.1', port }), {
    code: 'address-in-use',
    message: `The iSCSI portal cannot listen on 127.0.0.1:${port}: another process does. Name another address with --iscsi HOST:PORT.`,
  })
})

void t.test('a portal that is about to end is waited for', async (t) => {
  const { port, free } = await aTakenPort(t)
  setTimeout(free, 200)
  t.equal((await portalAddresses({ host: '127.0.0.1', port })).listen.port, port)
})

void t.test('an address that this machine does not have is named', async (t) => {
  const message = /cannot listen on .*: this machine has no such address. .*--iscsi/
  await t.rejects(portalAddresses({ host: '192.0.2.1', port: 3260 }), { code: 'invalid-argument', message })
  await t.rejects(portalAddresses({ host: 'no-such-host.invalid', port: 3260 }), { message: /--iscsi/ })
})
