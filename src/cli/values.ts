// Values on the command line, checked as they are read.
import { InvalidArgumentError } from 'commander'
import type { HostPort } from '../native/index.js'
import { physicalBlockSizes } from '../manager/volume-spec.js'
import type { PhysicalBlockBytes } from '../store/index.js'

export type { HostPort } from '../native/index.js'
export { formatHostPort } from '../manager/addresses.js'

/** «127.0.0.1:9500», «[::1]:9500», «localhost:9500». */
export function parseHostPort(text: string): HostPort {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/i.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  if (host === undefined || port > 65535) {
    throw new InvalidArgumentError('Use HOST:PORT, such as 127.0.0.1:9500 or [::1]:9500.')
  }
  return { host, port }
}

const unitMs: Record<string, number> = { ms: 1, s: 1000, m: 60_000 }

/** «500ms», «1s», «1.5s», «2m»; a bare number is seconds. */
export function parseDurationMs(text: string): number {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m)?$/.exec(text)
  const factor = unitMs[match?.[2] ?? 's']
  if (!match || factor === undefined) throw new InvalidArgumentError('Use a time such as 500ms, 2s or 1m.')
  return Math.round(Number(match[1]) * factor)
}

export function parseTimeoutSeconds(text: string): number {
  const seconds = parseDurationMs(text) / 1000
  if (seconds > 600) throw new InvalidArgumentError('10m is the most.')
  return seconds
}

export function parseGraceMs(text: string): number {
  const ms = parseDurationMs(text)
  if (ms < 100 || ms > 60_000) throw new InvalidArgumentError('Use a time from 100ms to 1m.')
  return ms
}

export function parseCount(max: number): (text: string) => number {
  return (text) => {
    const count = Number(text)
    if (/^\d{1,6}$/.test(text) && count >= 1 && count <= max) return count
    throw new InvalidArgumentError(`Use a number from 1 to ${max}.`)
  }
}

export function parsePercent(text: string): number {
  const percent = Number(text.replace(/%$/, ''))
  if (/^\d{1,3}(\.\d)?%?$/.test(text) && percent >= 1 && percent <= 100) return percent
  throw new InvalidArgumentError('Use a percentage from 1 to 100, such as 80.')
}

/** What comes after it must be left for the ports of iSCSI. */
export function parsePortFirst(text: string): number {
  const port = Number(text)
  if (/^\d{1,5}$/.test(text) && port >= 1024 && port <= 50_000) return port
  throw new InvalidArgumentError('Use a TCP port from 1024 to 50000, such as 10810.')
}

export function parseReplicaIds(text: string): string[] {
  const ids = text.split(',').map((id) => id.trim())
  if (!ids.every((id) => /^[0-9a-f]{16}$/.test(id))) {
    throw new InvalidArgumentError('Use ids of replicas as "ankole volume list --json" shows them, 16 hex digits each.')
  }
  return ids
}

/** «KEY=VALUE», on top of those before it. */
export function parseLabel(text: string, before: Record<string, string>): Record<string, string> {
  const at = text.indexOf('=')
  if (at > 0) return { ...before, [text.slice(0, at)]: text.slice(at + 1) }
  throw new InvalidArgumentError('Use KEY=VALUE, such as app=db.')
}

export function parsePhysicalBlock(text: string): PhysicalBlockBytes {
  const size = physicalBlockSizes.find((size) => String(size) === text)
  if (size !== undefined) return size
  throw new InvalidArgumentError(`Use ${physicalBlockSizes.join(' or ')}, in bytes.`)
}

const unitSeconds: Record<string, number> = { h: 3600, d: 86_400, w: 7 * 86_400 }

/** «12h», «7d», «2w»; «off» is 0, «default» is itself. In seconds. */
export function parseScrubPeriod(text: string): number | 'default' {
  if (text === 'off') return 0
  if (text === 'default') return text
  const match = /^(\d{1,4})([hdw])$/.exec(text)
  const seconds = Number(match?.[1]) * (unitSeconds[match?.[2] ?? ''] ?? 0)
  if (seconds >= 3600 && seconds <= 366 * 86_400) return seconds
  throw new InvalidArgumentError('Use a time from 1h to 366d, such as 12h, 7d or 2w, or off, or default.')
}

/** As parseBandwidth; «default» is itself. */
export function parseBandwidthOrDefault(text: string): number | 'default' {
  return text === 'default' ? text : parseBandwidth(text)
}

const unitBytes: Record<string, number> = { '': 1, ki: 2 ** 10, mi: 2 ** 20, gi: 2 ** 30, k: 1e3, m: 1e6, g: 1e9 }

/** «100MiB», «1.5GiB», «50MB»; 0 is no limit. Bytes a second. */
export function parseBandwidth(text: string): number {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(|[kmg]i?)b?$/i.exec(text.trim())
  const bytes = Math.round(Number(match?.[1]) * (unitBytes[match?.[2]?.toLowerCase() ?? ''] ?? 0))
  // Less than a chunk of 1 MiB in some seconds would hold up what waits for it.
  if (match && (bytes === 0 || bytes >= 2 ** 20)) return bytes
  throw new InvalidArgumentError('Use bytes a second, such as 100MiB; 1MiB is the least, and 0 is no limit.')
}
