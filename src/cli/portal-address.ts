// Where the iSCSI portal of this machine listens, found out before anything is started: who asked for an address that
// cannot be had hears so at once, from this process, as for the API's.
import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { networkInterfaces } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { AnkoleError, listenError, messageOf } from '../api/errors.js'
import { formatHostPort, type IscsiAddresses } from '../manager/index.js'
import type { HostPort } from './values.js'

/** The portal of an `ankole up` that was killed a moment ago still has to notice. */
const takenWaitMs = 3_000
const takenLookMs = 100

/** Port 0 becomes one that is free, and stays it through restarts of the portal. Throws address-in-use and the like. */
export async function portalAddresses(wish: HostPort): Promise<IscsiAddresses> {
  const { host: name, port } = wish
  try {
    const { address: host } = await lookup(name)
    const listen = { host, port: await portAt(host, port) }
    return { listen, host: isWildcard(host) ? ownAddress(host.includes(':') ? 'IPv6' : 'IPv4') : host }
  } catch (error) {
    const { code, message } =
      listenError('The iSCSI portal', formatHostPort(wish), error) ?? new AnkoleError('unavailable', messageOf(error))
    throw new AnkoleError(code, `${message} Name another address with --iscsi HOST:PORT.`, { cause: error })
  }
}

async function portAt(host: string, port: number): Promise<number> {
  const deadline = performance.now() + takenWaitMs
  for (;;) {
    try {
      return await tryToListen(host, port)
    } catch (error) {
      const isTaken = error instanceof Error && 'code' in error && error.code === 'EADDRINUSE'
      if (!isTaken || performance.now() > deadline) throw error
      await sleep(takenLookMs)
    }
  }
}

async function tryToListen(host: string, port: number): Promise<number> {
  const server = createServer()
  server.listen({ host, port, exclusive: true })
  await once(server, 'listening')
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  return typeof address === 'object' && address !== null ? address.port : port
}

export function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}

export function isLoopback(host: string): boolean {
  return host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host)
}

/** What others reach this machine by: an initiator that is sent on to an engine cannot connect to «every address». */
function ownAddress(family: 'IPv4' | 'IPv6'): string {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? [])
  const isUsable = (address: string): boolean => !/^(fe80:|169\.254\.)/i.test(address)
  const found = all.find((one) => one.family === family && !one.internal && isUsable(one.address))
  return found?.address ?? (family === 'IPv6' ? '::1' : '127.0.0.1')
}
