// What kind of image a file holds, by its first and last bytes alone: nothing is left to a program that guesses.
import type { FileHandle } from 'node:fs/promises'
import { isQcow, readQcow2Header, type Qcow2Header } from './qcow2.js'
import { foreignAdvice, refused } from './refusal.js'

export const imageFormats = ['raw', 'qcow2'] as const
export type ImageFormat = (typeof imageFormats)[number]

export interface ImageFacts {
  format: ImageFormat
  /** What a guest sees. */
  virtualBytes: number
  /** Of a qcow2. */
  header?: Qcow2Header
  /** What the user should know. */
  notes: string[]
}

export interface ImageBytes {
  path: string
  fileBytes: number
  /** Of the file, as many as there are up to 4 KiB. */
  head: Buffer
  /** Of the file, as many as there are up to 512. */
  tail: Buffer
}

const headBytes = 4096
const tailBytes = 512

export async function readImageBytes(path: string, file: FileHandle, fileBytes: number): Promise<ImageBytes> {
  const at = async (position: number, length: number): Promise<Buffer> => {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, position)
    return buffer.subarray(0, bytesRead)
  }
  const [head, tail] = [await at(0, headBytes), await at(Math.max(0, fileBytes - tailBytes), tailBytes)]
  return { path, fileBytes, head, tail }
}

/** `format` is what the user says that it is; without, it is told by its content. Throws invalid-image. */
export function examineImage(image: ImageBytes, format?: ImageFormat): ImageFacts {
  const { path, fileBytes, head } = image
  if (fileBytes === 0) throw refused(path, 'it is empty')
  if (format === 'qcow2' && !isQcow(head)) {
    throw refused(path, 'it is no qcow2 image: it does not begin with the mark of one')
  }
  if (format === 'raw') return examineRaw(image)
  if (isQcow(head)) return examineQcow2(image)
  const foreign = foreignFormat(image)
  if (foreign !== undefined) throw refused(path, foreign)
  return examineRaw(image)
}

function examineQcow2({ path, head }: ImageBytes): ImageFacts {
  const header = readQcow2Header(path, head)
  const { virtualBytes, snapshots } = header
  const notes = snapshots === 0 ? [] : [`the ${snapshots === 1 ? 'snapshot' : 'snapshots'} in the image are left out`]
  return { format: 'qcow2', virtualBytes, header, notes }
}

function examineRaw({ path, fileBytes }: ImageBytes): ImageFacts {
  if (fileBytes % 512 !== 0) {
    throw refused(path, `it has ${fileBytes} bytes, which is no multiple of 512 as of a raw disk: it may be truncated`)
  }
  return { format: 'raw', virtualBytes: fileBytes, notes: [] }
}

interface Mark {
  what: string
  bytes: string
  /** Of the head; absent: 0. */
  at?: number
  /** At the beginning of the last 512 bytes instead. */
  inTail?: true
}

/** Images in formats of others: taken for raw, a guest would find no disk in them. Bytes are as in latin1. */
const foreignImages: readonly Mark[] = [
  { what: 'a VMDK image', bytes: 'KDMV' },
  { what: 'a VMDK image', bytes: 'COWD' },
  { what: 'the description of a VMDK image', bytes: '# Disk DescriptorFile' },
  { what: 'a VHDX image', bytes: 'vhdxfile' },
  { what: 'a VHD image', bytes: 'conectix' },
  { what: 'a VHD image', bytes: 'conectix', inTail: true },
  { what: 'a VDI image', bytes: '\u007f\u0010\u00da\u00be', at: 64 },
  { what: 'a QED image', bytes: 'QED\0' },
  { what: 'a Parallels image', bytes: 'WithoutFreeSpace' },
  { what: 'a Parallels image', bytes: 'WithouFreSpacExt' },
  { what: 'a Bochs image', bytes: 'Bochs Virtual HD Image' },
  { what: 'an Apple disk image (DMG)', bytes: 'koly', inTail: true },
]

/** What images come in. */
const packages: readonly Mark[] = [
  { what: 'gzip', bytes: '\u001f\u008b' },
  { what: 'xz', bytes: '\u00fd7zXZ\0' },
  { what: 'zstd', bytes: '\u0028\u00b5\u002f\u00fd' },
  { what: 'bzip2', bytes: 'BZh' },
  { what: 'zip', bytes: 'PK\u0003\u0004' },
  { what: '7z', bytes: '7z\u00bc\u00af\u0027\u001c' },
  { what: 'tar', bytes: 'ustar', at: 257 },
]

function foreignFormat(image: ImageBytes): string | undefined {
  const isThere = ({ bytes, at = 0, inTail }: Mark): boolean =>
    (inTail ? image.tail : image.head).toString('latin1', at, at + bytes.length) === bytes
  const foreign = foreignImages.find(isThere)
  if (foreign !== undefined) return foreignAdvice(foreign.what)
  const packed = packages.find(isThere)
  if (packed === undefined) return undefined
  return `it is packed with ${packed.what}: unpack it first. If these are the bytes of the disk all the same: --format raw`
}
