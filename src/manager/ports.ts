import { createServer } from 'node:net'
import { AnkoleError } from '../api/errors.js'
import type { Volume } from '../store/index.js'

/**
 * Ranges of their own, under the ports that Linux gives to clients (from 32768 on): who opens a firewall for iSCSI need not
 * open NBD. A range that is used up runs on into the next.
 */
export const replicationPortFirst = 10700
export const nbdPortFirst = 10810
/** Where those for iSCSI begin, from those for NBD on. */
const iscsiPortsAbove = 10_000
const portLast = 65535

/** Where the ports of volumes begin. */
export function portsFrom(nbd: number = nbdPortFirst): { nbd: number; iscsi: number } {
  return { nbd, iscsi: nbd + iscsiPortsAbove }
}

/** What is given to volumes. */
export function portsOf(volumes: readonly Volume[]): Set<number> {
  return new Set(
    volumes.flatMap(({ nbdPort, iscsiPort }) => (iscsiPort === undefined ? [nbdPort] : [nbdPort, iscsiPort])),
  )
}

/** The first port from `first` on that is neither taken in the store nor in use on this machine now. */
export async function freePort(host: string, first: number, taken: ReadonlySet<number>): Promise<number> {
  for (let port = first; port <= portLast; ++port) {
    if (!taken.has(port) && (await canListen(host, port))) return port
  }
  throw new AnkoleError('cannot-place', `No TCP port from ${first} to ${portLast} is free on ${host}.`)
}

function canListen(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => {
      resolve(false)
    })
    server.listen({ host, port, exclusive: true }, () => {
      server.close(() => {
        resolve(true)
      })
    })
  })
}
