// How clients name a volume: addresses, URIs and iSCSI names.
import type { HostPort } from '../native/index.js'
import type { Volume } from '../store/index.js'

export const portalPortDefault = 3260

/** Every volume is one target with one LUN. */
export const lun = 0

/** RFC 7143, section 4.2.7.4: the year and month stand for when the name io.ankole was ours. */
const iqnPrefix = 'iqn.2026-11.io.ankole:'

export function iqnOf(volume: string): string {
  return `${iqnPrefix}${volume}`
}

export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

export function nbdUri(volume: Pick<Volume, 'metadata' | 'nbdPort'>, host: string): string {
  return nbdUriOf(volume, host, volume.metadata.name)
}

/** Of what its engine serves beside the volume itself. */
export function nbdUriOf({ nbdPort }: Pick<Volume, 'nbdPort'>, host: string, name: string): string {
  return `nbd://${formatHostPort({ host, port: nbdPort })}/${name}`
}

/** As libiscsi, qemu and fio read it; through the portal, which sends the login on. */
export function iscsiUri(volume: string, portal: string): string {
  return `iscsi://${portal}/${iqnOf(volume)}/${lun}`
}
