// The door for what users ask of a volume: names and sizes, read and checked once.
import { AnkoleError } from '../api/errors.js'
import type { PhysicalBlockBytes } from '../store/index.js'

const KiB = 1024
const blockBytes = 4 * KiB
const sizeBytesMin = KiB ** 2
const sizeBytesMax = 64 * KiB ** 4

/** As a DNS label, so that the name fits Kubernetes, an iSCSI name, a file name and a URI without escaping. */
const namePattern = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/
const nameLengthMax = 63

export const replicasMax = 16

/** Throws invalid-name. */
export function checkName(name: string, what = 'a volume'): string {
  const problem = nameProblem(name)
  if (problem === null) return name
  throw new AnkoleError('invalid-name', `${JSON.stringify(name.slice(0, 80))} cannot name ${what}: ${problem}.`)
}

function nameProblem(name: string): string | null {
  if (name === '') return 'it is empty'
  if (name.length > nameLengthMax) return `it has ${name.length} characters, ${nameLengthMax} is the most`
  if (namePattern.test(name)) return null
  const stranger = /[^-a-z0-9]/.exec(name)?.[0]
  if (stranger !== undefined) return `it contains ${JSON.stringify(stranger)}`
  return 'it begins or ends with a hyphen'
}

const unitBytes: Record<string, number> = { '': 1, b: 1 }
for (const [index, letter] of ['k', 'm', 'g', 't'].entries()) {
  for (const suffix of ['i', 'ib']) unitBytes[letter + suffix] = KiB ** (index + 1)
  for (const suffix of ['', 'b']) unitBytes[letter + suffix] = 1000 ** (index + 1)
}

/**
 * «1GiB», «512Mi», «1.5TiB», «10G» (decimal, as in Kubernetes) or plain bytes. What is given in units is rounded up to
 * whole blocks; plain bytes must be a multiple of the block. Throws invalid-size.
 */
export function parseSize(size: string | number): number {
  const text = String(size).trim()
  const match = /^(\d{1,20}(?:\.\d{1,9})?)\s*([a-z]{0,3})$/i.exec(text)
  const factor = unitBytes[match?.[2]?.toLowerCase() ?? '?']
  const number = match?.[1]
  if (number === undefined || factor === undefined) {
    throw new AnkoleError('invalid-size', `${JSON.stringify(text.slice(0, 80))} is not a size.`)
  }
  const bytes = Number(number) * factor
  return checkSize(factor === 1 ? bytes : Math.ceil(bytes / blockBytes) * blockBytes, text)
}

function checkSize(bytes: number, text: string): number {
  const problem =
    bytes < sizeBytesMin
      ? 'too small: 1MiB is the least'
      : bytes > sizeBytesMax
        ? 'too large: 64TiB is the most'
        : bytes % blockBytes !== 0
          ? `not a multiple of ${blockBytes} bytes: the next one is ${Math.ceil(bytes / blockBytes) * blockBytes}`
          : null
  if (problem === null) return bytes
  throw new AnkoleError('invalid-size', `A volume of ${text} cannot be made, it is ${problem}.`)
}

/** Of the smallest volume that so many bytes fit into. */
export function volumeSizeFor(bytes: number): number {
  return Math.max(sizeBytesMin, Math.ceil(bytes / blockBytes) * blockBytes)
}

/** Throws invalid-argument. */
export function checkReplicas(count: number): number {
  if (Number.isInteger(count) && count >= 1 && count <= replicasMax) return count
  throw new AnkoleError('invalid-argument', `A volume has 1 to ${replicasMax} replicas, not ${count}.`)
}

export const physicalBlockSizes = [512, 4096] satisfies PhysicalBlockBytes[]
/** What a checksum covers: the truth. */
export const physicalBlockBytesDefault = 4096 satisfies PhysicalBlockBytes

/** Throws invalid-argument. */
export function checkPhysicalBlock(bytes: number): PhysicalBlockBytes {
  const size = physicalBlockSizes.find((size) => size === bytes)
  if (size !== undefined) return size
  throw new AnkoleError(
    'invalid-argument',
    `A volume has physical blocks of ${physicalBlockSizes.join(' or ')} bytes, not ${bytes}.`,
  )
}

export const scrubPeriodSecondsDefault = 7 * 24 * 3600
export const scrubBandwidthDefault = 32 * KiB ** 2

const scrubPeriodSecondsMin = 3600
const scrubPeriodSecondsMax = 366 * 24 * 3600

/** Throws invalid-argument. */
export function checkScrubPeriod(seconds: number): number {
  const isOff = seconds === 0
  if (isOff || (seconds >= scrubPeriodSecondsMin && seconds <= scrubPeriodSecondsMax)) return seconds
  throw new AnkoleError(
    'invalid-argument',
    `A volume is scrubbed every ${scrubPeriodSecondsMin} to ${scrubPeriodSecondsMax} s, or never with 0, not every ${seconds} s.`,
  )
}

/** Less than a chunk of 1 MiB in a second would hold up what waits for it. Throws invalid-argument. */
export function checkBandwidth(bytesPerSecond: number, what: string): number {
  if (bytesPerSecond === 0 || bytesPerSecond >= KiB ** 2) return bytesPerSecond
  throw new AnkoleError(
    'invalid-argument',
    `${bytesPerSecond} bytes a second are too few for ${what}: ${KiB ** 2} are the least, and 0 is no bound.`,
  )
}

/** For people: «1 GiB», «1.5 TiB», «10 MiB». */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = bytes
  let unit = 0
  while (value >= KiB && unit < units.length - 1) {
    value /= KiB
    unit += 1
  }
  return `${Number(value.toFixed(value >= 100 ? 0 : 1))} ${units[unit] ?? ''}`
}
