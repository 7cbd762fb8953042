// Images for tests, and what came of them.
import { createHash } from 'node:crypto'
import { closeSync, ftruncateSync, openSync, readSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { VolumeList, VolumeView } from '../../src/api/index.js'
import { pattern } from './builders.js'
import type { Up } from './up.js'

export const MiB = 1 << 20

/** Data at both ends and between, zeros that are written, and holes. */
export function anImage(path: string, sizeBytes: number): string {
  const file = openSync(path, 'w')
  const put = (offset: number, bytes: Buffer): void => void writeSync(file, bytes, 0, bytes.length, offset)
  put(0, pattern(1, 100_000))
  put(5 * MiB, Buffer.alloc(MiB))
  put(7 * MiB + 4096, pattern(2, 3 * MiB))
  put(sizeBytes - 5120, pattern(3, 5120))
  ftruncateSync(file, sizeBytes)
  closeSync(file)
  return path
}

/** So much that there is time to interfere. */
export function aLongImage(path: string): string {
  const file = openSync(path, 'w')
  for (let n = 0; n < 128; ++n) writeSync(file, pattern(n, MiB))
  closeSync(file)
  return path
}

export function digest(path: string, lengthBytes = statSync(path).size): string {
  const hash = createHash('sha256')
  const file = openSync(path, 'r')
  const buffer = Buffer.alloc(MiB)
  for (let at = 0; at < lengthBytes; at += MiB) {
    const read = readSync(file, buffer, 0, Math.min(MiB, lengthBytes - at), at)
    hash.update(buffer.subarray(0, read))
  }
  closeSync(file)
  return hash.digest('hex')
}

export const allocatedBytes = (path: string): number => statSync(path).blocks * 512

/** At each replica. */
export function allocatedByVolume({ replicas }: VolumeView): number[] {
  return replicas.map(({ directory }) => allocatedBytes(join(directory, 'volume-head-000.img')))
}

/** What there is, with its state. */
export async function volumes({ url }: Up): Promise<string[]> {
  const { volumes } = (await (await fetch(`${url}/v1/volumes`)).json()) as VolumeList
  return volumes.map(({ name, state }) => `${name} ${state}`)
}

export async function show({ url }: Up, name: string): Promise<VolumeView> {
  return (await (await fetch(`${url}/v1/volumes/${name}`)).json()) as VolumeView
}
