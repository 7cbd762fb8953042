// qcow2 as docs/interop/qcow2.txt of the QEMU project has it: as much as tells whether an image is to be imported. Nothing
// that it names is opened. All numbers in it come from a stranger, and are checked before they are used.
import type { FileHandle } from 'node:fs/promises'
import { foreignAdvice, refused } from './refusal.js'

export interface Qcow2Header {
  clusterBits: number
  virtualBytes: number
  l1Entries: number
  l1OffsetBytes: number
  /** Entries of 16 bytes, with 32 subclusters each. */
  extendedL2: boolean
  snapshots: number
}

const magic = Buffer.from('QFI\u00fb', 'latin1')

/** Of either version: qcow, or qcow2. */
export function isQcow(head: Buffer): boolean {
  return head.subarray(0, 4).equals(magic)
}

/** Bits of incompatible_features. */
const feature = { dirty: 1n, corrupt: 2n, externalData: 4n, compressionType: 8n, extendedL2: 16n } as const
const featuresKnown = Object.values(feature).reduce((all, bit) => all | bit, 0n)

const headerBytes = { 2: 72, 3: 104 } as const
const clusterBitsMin = 9
const clusterBitsMax = 21
/** As qemu has it. */
const l1BytesMax = 32 * 1024 ** 2

/** Throws invalid-image for what is no qcow2 image, damaged, encrypted, or only a part of one. */
export function readQcow2Header(path: string, head: Buffer): Qcow2Header {
  if (head.length < headerBytes[2]) throw truncated(path)
  const version = head.readUInt32BE(4)
  if (version === 1) throw refused(path, foreignAdvice('an image of the old format qcow'))
  if (version !== 2 && version !== 3) throw refused(path, `it is qcow2 of version ${version}; 2 and 3 are known`)
  if (head.length < headerBytes[version]) throw truncated(path)
  const features = version === 3 ? head.readBigUInt64BE(72) : 0n
  checkFeatures(path, features)
  checkWhole(path, head)
  const header = {
    clusterBits: head.readUInt32BE(20),
    virtualBytes: Number(head.readBigUInt64BE(24)),
    l1Entries: head.readUInt32BE(36),
    l1OffsetBytes: Number(head.readBigUInt64BE(40)),
    extendedL2: (features & feature.extendedL2) !== 0n,
    snapshots: head.readUInt32BE(60),
  }
  if (header.virtualBytes === 0) throw refused(path, 'its disk is empty')
  checkNumbers(path, header)
  return header
}

function checkFeatures(path: string, features: bigint): void {
  const repair = 'Repair a copy of it: qemu-img check -r all IMAGE'
  if (features & feature.externalData) {
    throw refused(
      path,
      'its data is in another file (feature external data file), and files that an image names are not opened',
    )
  }
  if (features & feature.corrupt) throw refused(path, `it is marked as corrupt. ${repair}`)
  if (features & feature.dirty) throw refused(path, `it was not closed clean, or is in use. ${repair}`)
  const unknown = features & ~featuresKnown
  if (unknown === 0n) return
  throw refused(path, `it needs features of qcow2 that are not known (bits 0x${unknown.toString(16)})`)
}

function checkWhole(path: string, head: Buffer): void {
  const backing = backingFile(head)
  if (backing !== undefined) {
    throw refused(
      path,
      `it is only what differs from its backing file${backing}, and files that an image names are not opened. ` +
        'Where you trust it, make one of all: qemu-img convert -f qcow2 -O qcow2 IMAGE WHOLE',
    )
  }
  if (head.readUInt32BE(32) !== 0) {
    throw refused(path, 'it is encrypted. Where you have its key, qemu-img convert makes one that is not')
  }
}

/** Undefined: there is none. As text with a space before it, where its name can be read. */
function backingFile(head: Buffer): string | undefined {
  const [offset, size] = [head.readBigUInt64BE(8), head.readUInt32BE(16)]
  if (offset === 0n) return undefined
  const isReadable = size > 0 && size < 1024 && offset + BigInt(size) <= BigInt(head.length)
  return isReadable ? ` ${JSON.stringify(head.toString('utf8', Number(offset), Number(offset) + size))}` : ''
}

function checkNumbers(path: string, header: Qcow2Header): void {
  const { clusterBits, virtualBytes, l1Entries, l1OffsetBytes } = header
  const isClusterSize = clusterBits >= clusterBitsMin && clusterBits <= clusterBitsMax
  const isSafe = Number.isSafeInteger(virtualBytes) && Number.isSafeInteger(l1OffsetBytes)
  if (!isClusterSize || !isSafe) throw damaged(path)
  const entriesNeeded = Math.ceil(virtualBytes / (clusterBytesOf(header) * l2EntriesOf(header)))
  if (l1Entries < entriesNeeded || l1Entries * 8 > l1BytesMax) throw damaged(path)
}

function clusterBytesOf({ clusterBits }: Qcow2Header): number {
  return 2 ** clusterBits
}

function l2EntriesOf(header: Qcow2Header): number {
  return clusterBytesOf(header) / (header.extendedL2 ? 16 : 8)
}

/**
 * That all which the disk in it is read from lies within the file. qemu reads what lies beyond its end as zeros, and its
 * `check` lets the last cluster end early, whatever it is. Throws invalid-image.
 */
export async function checkNotTruncated(
  { path, file, fileBytes }: { path: string; file: FileHandle; fileBytes: number },
  header: Qcow2Header,
): Promise<void> {
  const clusterBytes = clusterBytesOf(header)
  const read = async (offsetBytes: number, lengthBytes: number): Promise<Buffer> => {
    if (offsetBytes + lengthBytes > fileBytes) throw truncated(path)
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(lengthBytes), 0, lengthBytes, offsetBytes)
    if (bytesRead < lengthBytes) throw truncated(path)
    return buffer
  }
  const l1 = await read(header.l1OffsetBytes, header.l1Entries * 8)
  const tables = new Set<number>()
  const diskBytesOfTable = clusterBytes * l2EntriesOf(header)
  for (let at = 0; at < l1.length; at += 8) {
    const table = hostOffset(l1.readUInt32BE(at), l1.readUInt32BE(at + 4))
    if (table === 0) continue
    // What is walked is so never more than the file has.
    if (table % clusterBytes !== 0 || tables.has(table)) throw damaged(path)
    tables.add(table)
    const diskOffset = (at / 8) * diskBytesOfTable
    if (endOfData(await read(table, clusterBytes), diskOffset, header) > fileBytes) throw truncated(path)
  }
}

/** Bits 9 to 55. */
function hostOffset(high: number, low: number): number {
  return (high & 0x00ffffff) * 2 ** 32 + ((low & 0xfffffe00) >>> 0)
}

const isCompressed = 0x40000000

/** Where in the file the last data ends that an L2 table refers to; `diskOffset` is where in the disk its first is. */
function endOfData(l2: Buffer, diskOffset: number, header: Qcow2Header): number {
  const clusterBytes = clusterBytesOf(header)
  const entryBytes = header.extendedL2 ? 16 : 8
  let end = 0
  for (let at = 0; at < l2.length; at += entryBytes) {
    const [high, low] = [l2.readUInt32BE(at), l2.readUInt32BE(at + 4)]
    if (high === 0 && low === 0) continue
    if (high & isCompressed) {
      end = Math.max(end, endOfCompressed(l2.readBigUInt64BE(at), header.clusterBits))
      continue
    }
    const offset = hostOffset(high, low)
    const disk = diskOffset + (at / entryBytes) * clusterBytes
    // The last cluster may reach beyond the disk, and nobody reads that.
    const ofDisk = Math.min(clusterBytes, header.virtualBytes - disk)
    const there = header.extendedL2
      ? endOfSubclusters(l2.readUInt32BE(at + 12), clusterBytes)
      : low & 1 // It reads as zeros.
        ? 0
        : clusterBytes
    if (offset !== 0 && Math.min(ofDisk, there) > 0) end = Math.max(end, offset + Math.min(ofDisk, there))
  }
  return end
}

/** Of those that are allocated, by the lower half of the bitmap. */
function endOfSubclusters(allocated: number, clusterBytes: number): number {
  return ((32 - Math.clz32(allocated)) * clusterBytes) / 32
}

/** In sectors of 512 bytes: the one that it begins in, and so many more. */
function endOfCompressed(entry: bigint, clusterBits: number): number {
  const offsetBits = BigInt(62 - (clusterBits - 8))
  const sectors = BigInt.asUintN(clusterBits - 8, entry >> offsetBits) + 1n
  const offset = entry & ((1n << offsetBits) - 1n)
  return Number((offset & ~511n) + sectors * 512n)
}

function truncated(path: string): Error {
  return refused(path, 'it is truncated: what it refers to lies beyond the end of the file')
}

function damaged(path: string): Error {
  return refused(path, 'it is damaged: there are numbers in it that cannot be')
}
