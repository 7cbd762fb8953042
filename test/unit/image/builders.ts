// Images for tests, and what it takes to make them.
import { spawnSync } from 'node:child_process'

/** For tap's `skip`: false, or what has to be installed. */
export const lacksQemuImg: string | false =
  spawnSync('qemu-img', ['--version']).error === undefined
    ? false
    : 'qemu-img is not installed (Debian: apt-get install qemu-utils)'

export function qemuImg(...args: string[]): void {
  const { status, stderr } = spawnSync('qemu-img', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`qemu-img ${args.join(' ')}: ${stderr}`)
}

export interface HeaderFields {
  version?: number
  backingOffset?: number
  backingFile?: string
  clusterBits?: number
  virtualBytes?: number
  encryption?: number
  l1Entries?: number
  snapshots?: number
  incompatible?: bigint
}

/** The first cluster of a qcow2 image of 64 KiB clusters, as far as anybody looks at it. */
export function aQcow2Header(fields: HeaderFields = {}): Buffer {
  const header = Buffer.alloc(4096)
  const { backingFile = '', incompatible = 0n } = fields
  header.write('QFI\u00fb', 0, 'latin1')
  header.writeUInt32BE(fields.version ?? 3, 4)
  header.writeBigUInt64BE(BigInt(fields.backingOffset ?? (backingFile === '' ? 0 : 512)), 8)
  header.writeUInt32BE(backingFile.length, 16)
  header.writeUInt32BE(fields.clusterBits ?? 16, 20)
  header.writeBigUInt64BE(BigInt(fields.virtualBytes ?? 64 << 20), 24)
  header.writeUInt32BE(fields.encryption ?? 0, 32)
  header.writeUInt32BE(fields.l1Entries ?? 1, 36)
  header.writeBigUInt64BE(3n << 16n, 40)
  header.writeUInt32BE(fields.snapshots ?? 0, 60)
  header.writeBigUInt64BE(incompatible, 72)
  header.write(backingFile, 512)
  return header
}
